"""Class numbers in masks: the largest class of a mask, the number of classes of a source."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from segkey.data.decode import load_mask
from segkey.data.items import Item, Source
from segkey.errors import SegkeyError
from segkey.system import distributed
from segkey.system.progress import SILENT, Progress
from segkey.system.workers import Workers

_TASK_MASKS = 32  # masks per task: enough to hide the cost of messages


@dataclass(frozen=True)
class _Task:
    """Some images whose masks a worker reads."""

    items: list[Item]
    ignore_index: int


def _highest_classes(task: _Task) -> list[int]:
    """The largest class number in each mask of a task; -1 if a mask cannot be read."""
    highest = []
    for item in task.items:
        try:
            highest.append(highest_class(load_mask(item.mask), task.ignore_index))
        except SegkeyError:
            highest.append(-1)
    return highest


def count_classes(source: Source, workers: int | None = None, progress: Progress = SILENT) -> int:
    """How many classes the masks of a source hold if nothing names them: the largest number + 1.

    Raises:
        SegkeyError: a mask holds 255, and that is not the void value.
    """
    items = distributed.my_share(
        [item for items in source.splits.values() for item in items if item.mask]
    )
    tasks = (
        _Task(items[start : start + _TASK_MASKS], source.ignore_index)
        for start in range(0, len(items), _TASK_MASKS)
    )
    highest = 0
    with (
        Workers(workers) as pool,
        progress.task("look for classes", len(items), "masks") as advance,
    ):
        for task, found in pool.map_ordered(_highest_classes, tasks):
            highest = max(highest, *found)
            advance(len(task.items))
    highest = max(distributed.all_gather(highest))
    if highest == 255:
        raise SegkeyError(
            "the masks hold class 255, which usually means void",
            "leave out --ignore-index, or give --classes",
        )
    return highest + 1


def highest_class(mask: Image.Image, ignore_index: int) -> int:
    """The largest class number in a mask from `load_mask`, void left out; 0 if all is void."""
    counts = np.array(mask.histogram())
    counts[ignore_index] = 0
    return int(np.flatnonzero(counts).max(initial=0))
