"""How what mask files hold becomes class numbers: values by a table, colours by a list.

A `Reading` is concluded once for a data set (`segkey.data.survey_conclusions`), sent to the workers
that decode, and stored in shards and runs, so that other masks of the same data are read alike.
"""

import functools
import json
from dataclasses import dataclass

import numpy as np

VOID = 255
_VALUES = 1 << 16  # a mask's values; larger ones belong to no class
_COLOURS = 1 << 24
NO_CLASS = -1


@dataclass(frozen=True)
class Reading:
    """How the values, or the colours, in mask files become class numbers; 255 is void.

    Attributes:
        ranges: (first value, last value, class); a later one overrules an earlier one.
        keep_others: values in no range are class numbers themselves; otherwise they are refused.
        colours: (red, green, blue, class); colour masks are read by them.
        palettes: masks with a palette are read by their colours, too, and not by their numbers.
    """

    ranges: tuple[tuple[int, int, int], ...] = ()
    keep_others: bool = True
    colours: tuple[tuple[int, int, int, int], ...] = ()
    palettes: bool = False

    def of_values(self, values: np.ndarray) -> np.ndarray:
        """Class numbers of values, int16; `NO_CLASS` for those that belong to none."""
        table = _table(self)
        if values.dtype == np.uint8:
            return table[values]
        inside = (values >= 0) & (values < _VALUES)
        return np.where(inside, table[np.where(inside, values, 0).astype(np.int64)], NO_CLASS)

    def of_colours(self, packed: np.ndarray) -> np.ndarray:
        """Class numbers of colours (red << 16 | green << 8 | blue), as `of_values`."""
        return _colour_table(self.colours)[packed]

    def as_text(self) -> str:
        """JSON, to be stored in a shard; empty for `PLAIN`."""
        if self == PLAIN:
            return ""
        parts = {"ranges": self.ranges, "colours": self.colours}
        document = {name: list(map(list, part)) for name, part in parts.items() if part}
        document |= {} if self.keep_others else {"keep_others": False}
        document |= {"palettes": True} if self.palettes else {}
        return json.dumps(document, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> "Reading":
        """The reading that `as_text` gave.

        Raises:
            ValueError: it is none; the text may come from a hostile shard.
        """
        if not text:
            return PLAIN
        try:
            document = json.loads(text)
            ranges = tuple(tuple(map(int, each)) for each in document.get("ranges", ()))
            colours = tuple(tuple(map(int, each)) for each in document.get("colours", ()))
            others, palettes = document.get("keep_others", True), document.get("palettes", False)
        except (AttributeError, TypeError, RecursionError, OverflowError):
            raise ValueError("not a reading of masks") from None
        if not all(_is_range(each) for each in ranges) or not all(map(_is_colour, colours)):
            raise ValueError("not a reading of masks")
        return cls(ranges, bool(others), colours, bool(palettes))

    def renumbered(self, numbers: dict[int, int], count: int) -> "Reading":
        """Read as before, and then give classes other numbers.

        Args:
            numbers: the new number by the old one.
            count: how many classes there were; other values are refused from now on.
        """
        old = self.of_values(np.arange(_VALUES))
        known = [v for v in np.flatnonzero(old != NO_CLASS).tolist() if old[v] < count]
        void = [v for v in np.flatnonzero(old == VOID).tolist() if v in self._named()]
        ranges = [(v, v, numbers.get(int(old[v]), int(old[v]))) for v in known]
        ranges += [(v, v, VOID) for v in void]
        colours = [(*c, numbers.get(number, number)) for *c, number in self.colours]
        return Reading(tuple(ranges), False, tuple(colours), self.palettes)

    def _named(self) -> set[int]:
        return {v for first, last, _ in self.ranges for v in range(first, last + 1)} | {VOID}


def _is_range(each: tuple[int, ...]) -> bool:
    return len(each) == 3 and 0 <= each[0] <= each[1] < _VALUES and 0 <= each[2] <= VOID


def _is_colour(each: tuple[int, ...]) -> bool:
    return len(each) == 4 and all(0 <= part <= 255 for part in each)


PLAIN = Reading()


@functools.lru_cache(maxsize=4)
def _table(reading: Reading) -> np.ndarray:
    table = np.full(_VALUES, NO_CLASS, np.int16)
    if reading.keep_others:
        table[: VOID + 1] = np.arange(VOID + 1)
    for first, last, number in reading.ranges:
        table[first : last + 1] = number
    table.flags.writeable = False
    return table


@functools.lru_cache(maxsize=2)
def _colour_table(colours: tuple[tuple[int, int, int, int], ...]) -> np.ndarray:
    """32 MB, which answer ten times as fast as a search through the list."""
    table = np.full(_COLOURS, NO_CLASS, np.int16)
    for red, green, blue, number in colours:
        table[red << 16 | green << 8 | blue] = number
    table.flags.writeable = False
    return table


def packed(colours: np.ndarray) -> np.ndarray:
    """Colours, uint8 (…, 3), as whole numbers, int32 (…)."""
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def unpacked(colour: int) -> tuple[int, int, int]:
    """Red, green and blue of a colour from `packed`."""
    return colour >> 16, colour >> 8 & 255, colour & 255
