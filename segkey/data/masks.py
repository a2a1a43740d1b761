"""What masks hold: the largest class of one mask, and the number of classes of a whole source."""

import numpy as np
from PIL import Image

from segkey.data.decode import load_mask
from segkey.data.items import Source
from segkey.errors import SegkeyError
from segkey.system import distributed
from segkey.system.progress import SILENT, Progress
from segkey.system.workers import Workers


def _highest_class(task: tuple) -> list[int]:
    """The largest class number in each mask of a task; -1 where the mask cannot be read."""
    ignore_index, items = task
    highest = []
    for item in items:
        try:
            highest.append(highest_class(load_mask(item.mask), ignore_index))
        except SegkeyError:
            highest.append(-1)
    return highest


def count_classes(source: Source, workers: int | None = None, progress: Progress = SILENT) -> int:
    """How many classes the masks of a source hold, where nothing names them: the largest number,
    plus 1.

    Raises:
        SegkeyError: a mask holds 255, and that is not the void value.
    """
    items = distributed.my_share(
        [item for items in source.splits.values() for item in items if item.mask]
    )
    tasks = ((source.ignore_index, items[start : start + 32]) for start in range(0, len(items), 32))
    highest = 0
    with (
        Workers(workers) as pool,
        progress.task("look for classes", len(items), "masks") as advance,
    ):
        for (_, batch), found in pool.map_ordered(_highest_class, tasks):
            highest = max(highest, *found)
            advance(len(batch))
    highest = max(distributed.all_gather(highest))
    if highest == 255:
        raise SegkeyError(
            "the masks hold class 255, which usually means void",
            "leave out --ignore-index, or give --classes",
        )
    return highest + 1


def highest_class(mask: Image.Image, ignore_index: int) -> int:
    """The largest class number in a mask from `load_mask`, void left out; 0 where all is void."""
    counts = np.array(mask.histogram())
    counts[ignore_index] = 0
    return int(np.flatnonzero(counts).max(initial=0))
