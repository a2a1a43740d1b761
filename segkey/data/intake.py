"""Take in a user's data: find it, look at it, conclude how it is read, say what is odd."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segkey.data import sources
from segkey.data.class_table import ClassTable, class_table
from segkey.data.items import Finding, Severity, Source, require_none_refused
from segkey.data.mask_survey import Survey, look
from segkey.data.reading import PLAIN
from segkey.data.survey_conclusions import conclude
from segkey.data.user_choices import Choices
from segkey.system.progress import SILENT, Progress


@dataclass
class Intake:
    """Data that was looked at.

    Attributes:
        source: with its classes and how its masks are read.
        survey: what was seen.
        findings: what is to be said, gravest last.
    """

    source: Source
    survey: Survey
    findings: list[Finding] = field(default_factory=list)

    def highest_class(self) -> int:
        """The largest class number in the masks that were looked at; 0 without any."""
        table = class_table(self.source, self.survey)
        counts = sum(table.pixels.values(), np.zeros(256, np.int64))
        counts[self.source.ignore_index] = 0
        return int(np.flatnonzero(counts).max(initial=0))

    def document(self, table: ClassTable) -> dict:
        """As ``segkey check --json`` prints it."""
        source = self.source
        return {
            "kind": source.kind,
            "images": {split: len(items) for split, items in source.splits.items()},
            "classes": source.classes or [],
            "reading": source.reading.as_text() or None,
            "pixel_range": list(source.pixel_range) if source.pixel_range else None,
            "splits": table.document(),
            "findings": [finding.document() for finding in self.findings],
            "left_out": [{"name": each.name, "why": each.why} for each in source.problems],
        }

    def require(self) -> None:
        """Raise a `SegkeyError` if the data should not be taken in as it is."""
        require_none_refused(self.findings)


def take_in(
    images: str | Path,
    masks: str | Path | None = None,
    choices: Choices | None = None,
    split: str | None = None,
    mask_suffix: str | None = None,
    names: Sequence[str] | None = None,
    every: bool = False,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Intake:
    """Find data and look at it; nothing is written.

    The pixels of some masks are looked at; of all, if nothing names the classes, or if something is
    odd about those.

    Args:
        images, masks, split, mask_suffix: as for `segkey.data.sources.find`.
        choices: what the user decides.
        names: of the classes; they overrule a file beside the data.
        every: look at the pixels of all masks.
        workers: processes, if there are many images.
        progress: hears of every image.

    Raises:
        SegkeyError: nothing that can be used, or a file of classes that is none.
    """
    choices = choices or Choices()
    source = sources.find(images, masks, split=split, mask_suffix=mask_suffix, read_names=False)
    if names:
        source.classes, source.labels = list(names), None
    named = bool(choices.classes or choices.colours or source.labels or source.classes)
    known = source.classes
    survey = look(source, every or not named, workers, progress)
    found = conclude(source, survey, choices)
    odd = any(finding.severity > Severity.NOTE for finding in found) or len(survey.palettes) > 1
    if not survey.complete() and (odd or source.reading != PLAIN):
        source.classes, source.reading = known, PLAIN
        survey = look(source, True, workers, progress)
        found = conclude(source, survey, choices)
    findings = sorted(source.findings + found, key=lambda finding: finding.severity)
    return Intake(source, survey, findings)
