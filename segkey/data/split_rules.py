"""What is odd about the classes of splits, beside each other."""

import numpy as np

from segkey.data.class_table import class_table
from segkey.data.items import Finding, Severity, Source
from segkey.data.mask_survey import Survey

_SHOWN = 6  # classes in one message


def judge_splits(source: Source, survey: Survey) -> list[Finding]:
    """Classes that val or test hold and no mask of train: no training can teach them.

    Nothing is said unless the pixels of all masks were looked at.
    """
    if not survey.complete() or len(source.splits.get("train", ())) < 1:
        return []
    table = class_table(source, survey)
    trained = table.pixels.get("train")
    found = []
    for split in ("val", "test"):
        counts = table.pixels.get(split)
        if trained is None or counts is None:
            continue
        new = np.flatnonzero((counts > 0) & (trained == 0)).tolist()
        names = [f"'{table.classes[n]}'" for n in new if n < len(table.classes)]
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", …" if names[_SHOWN:] else "")
            text = f"{split} holds {shown}, of which train has no pixel: no model can learn it"
            cure = (
                "give train images of it, or deal all anew with --split-ratio 80/10/10; if splits "
                "number classes in different ways, encrypt each with its own --map"
            )
            found.append(Finding(Severity.WARN, text, cure))
    return found
