"""How many pixels each class has, for each split."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from segkey.data.items import Source
from segkey.data.mask_survey import Survey
from segkey.data.masks import COLOUR, PALETTE
from segkey.data.reading import NO_CLASS


@dataclass
class ClassTable:
    """Pixels of each class.

    Attributes:
        classes: their names.
        ignore_index: the class number that means void.
        pixels: by class number, int64 (256), for each split.
        images: with masks, for each split.
        unlabelled: images without any labelled pixel, for each split.
        strange: pixels that belong to no class, for each split.
    """

    classes: list[str]
    ignore_index: int = 255
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    unlabelled: dict[str, int] = field(default_factory=dict)
    strange: dict[str, int] = field(default_factory=dict)

    def shares(self, split: str) -> dict[str, float | None]:
        """The share of each class among the labelled pixels of a split; None if there are none."""
        counts = self.pixels[split].copy()
        counts[self.ignore_index] = 0
        total = int(counts[: len(self.classes)].sum())
        return {
            name: int(counts[number]) / total if total else None
            for number, name in enumerate(self.classes)
        }

    def void(self, split: str) -> float | None:
        """The share of void among all pixels of a split."""
        total = int(self.pixels[split].sum()) + self.strange.get(split, 0)
        return int(self.pixels[split][self.ignore_index]) / total if total else None

    def document(self) -> dict:
        """As ``segkey check --json`` prints it."""
        return {
            split: {
                "images": self.images.get(split),
                "classes": self.shares(split),
                "void": self.void(split),
                "unlabelled_images": self.unlabelled.get(split, 0),
            }
            for split in self.pixels
        }


def class_table(source: Source, survey: Survey) -> ClassTable:
    """The table of what was seen, under the reading that was concluded."""
    table = ClassTable(list(source.classes or []), source.ignore_index)
    by_colour = bool(source.reading.colours)
    for split, kind, counts in _seen(source, survey):
        numbers = _numbers(source, kind, np.array(list(counts)), by_colour)
        pixels = np.array(list(counts.values()), np.int64)
        known = numbers != NO_CLASS
        row = table.pixels.setdefault(split, np.zeros(256, np.int64))
        np.add.at(row, numbers[known], pixels[known])
        table.strange[split] = table.strange.get(split, 0) + int(pixels[~known].sum())
        table.unlabelled.setdefault(split, 0)
        table.images[split] = len(source.splits.get(split, ()))
    for (split, kind, values), count in survey.few.items():
        if kind == PALETTE and source.reading.palettes:
            continue  # its numbers say nothing; void is rare among masks of one or two colours
        numbers = _numbers(source, kind, np.array(values), by_colour)
        if (numbers == source.ignore_index).all():
            table.unlabelled[split] += count
    return table


def _seen(source: Source, survey: Survey) -> Iterator[tuple[str, str, Counter[int]]]:
    """What was counted; masks with a palette by their colours, if they are read by them."""
    for (split, kind), counts in survey.values.items():
        if kind == PALETTE and source.reading.palettes:
            yield split, COLOUR, survey.shades[split]
        else:
            yield split, kind, counts


def _numbers(source: Source, kind: str, values: np.ndarray, by_colour: bool) -> np.ndarray:
    """Class numbers of values of a kind of mask, int16."""
    if kind == COLOUR and by_colour:
        return source.reading.of_colours(values)
    if kind == COLOUR:
        grey = (values & 255) * 0x010101 == values
        return np.where(grey, source.reading.of_values((values & 255).astype(np.uint8)), NO_CLASS)
    return source.reading.of_values(values)
