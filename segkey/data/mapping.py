"""What the user says about mask files: which values become which classes, and which are void.

``--map 255=1``, ``--map 0-127=0``, ``--map 26=car``, ``--map labels.csv``, ``--map cityscapes``;
``--map numbers``: values are class numbers, whatever they look like.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from segkey.data.reading import VOID
from segkey.errors import SegkeyError
from segkey.system.files import read_given_text

_PAIR = re.compile(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*=\s*(\S.*?)\s*")
_VOID_WORDS = {"void", "ignore", "255", "-1"}
_FROM = ("from", "value", "pixel value", "id", "old", "labelid", "index", "idx")
_TO = ("to", "trainid", "train_id", "new", "class", "target", "newid")
_NAME = ("name", "class name", "class_name", "label")
_HINT = (
    "give VALUE=CLASS such as 255=1, FIRST-LAST=CLASS, VALUE=void, a CSV with the columns from and "
    "to, cityscapes, or numbers"
)

# Cityscapes' labelIds to its 19 trainIds, which are in the order of their ids; all others are void.
_CITYSCAPES = (
    "7 road, 8 sidewalk, 11 building, 12 wall, 13 fence, 17 pole, 19 traffic light, "
    "20 traffic sign, 21 vegetation, 22 terrain, 23 sky, 24 person, 25 rider, 26 car, 27 truck, "
    "28 bus, 31 train, 32 motorcycle, 33 bicycle"
)


@dataclass(frozen=True)
class Mapping:
    """How the user wants the values of mask files to be read.

    Attributes:
        ranges: (first value, last value, class or the name of one); a later one wins.
        closed: values that no range holds are refused, as a table lists all that there are.
        names: of the classes, if the mapping gives them.
        numbers: the user vouches that values are class numbers, whatever they look like.
    """

    ranges: tuple[tuple[int, int, int | str], ...] = ()
    closed: bool = False
    names: tuple[str, ...] = ()
    numbers: bool = False

    def holds(self, value: int) -> bool:
        """Whether the mapping says what a value is."""
        return any(first <= value <= last for first, last, _ in self.ranges)

    @property
    def cuts(self) -> bool:
        """Whether it joins neighbouring values, as masks with soft outlines need it."""
        return any(last > first for first, last, _ in self.ranges)

    def with_numbers(self, names: list[str] | None) -> tuple[tuple[int, int, int], ...]:
        """The ranges with the number of each class.

        Raises:
            SegkeyError: a class that nothing names.
        """

        def number(target: int | str) -> int:
            if isinstance(target, int):
                return target
            known = list(names or self.names)
            if target not in known:
                raise SegkeyError(
                    f"--map names a class '{target}', which is none of "
                    f"{', '.join(known[:8]) or 'those that are known'}",
                    "give its number, or name all classes with --classes",
                )
            return known.index(target)

        return tuple((first, last, number(target)) for first, last, target in self.ranges)


def parse_mapping(texts: list[str]) -> Mapping:
    """A mapping from the values of ``--map``, one after another.

    Raises:
        SegkeyError: one of them is none.
    """
    whole = Mapping()
    for text in texts:
        part = _part(text)
        whole = Mapping(
            whole.ranges + part.ranges,
            whole.closed or part.closed,
            whole.names or part.names,
            whole.numbers or part.numbers,
        )
    return whole


def _part(text: str) -> Mapping:
    if text.strip().casefold() == "cityscapes":
        return _cityscapes()
    if text.strip().casefold() == "numbers":
        return Mapping(numbers=True)
    if "=" in text and not Path(text).exists():
        pairs = [_PAIR.fullmatch(part) for part in text.split(",")]
        if not all(pairs):
            raise SegkeyError(f"--map '{text}' is not a mapping", _HINT)
        return Mapping(tuple(_range(text, *pair.groups()) for pair in pairs))
    if not Path(text).exists():
        raise SegkeyError(f"--map '{text}' is neither a mapping nor a file", _HINT)
    return _of_table(Path(text))


def _range(text: str, first: str, last: str | None, target: str) -> tuple[int, int, int | str]:
    low, high = int(first), int(last or first)
    if not low <= high < 1 << 16 or (target.isdigit() and int(target) > VOID):
        raise SegkeyError(f"--map '{text}': values are 0 to 65535, classes 0 to 254", _HINT)
    return low, high, _target(target)


def _target(text: str) -> int | str:
    text = text.strip()
    if text.casefold() in _VOID_WORDS or re.fullmatch(r"-\d+", text):
        return VOID
    return int(text) if text.isdigit() else text


def _cityscapes() -> Mapping:
    rows = [entry.strip().split(" ", 1) for entry in _CITYSCAPES.split(",")]
    void = ((0, 33, VOID),)
    ranges = tuple((int(value), int(value), number) for number, (value, _) in enumerate(rows))
    return Mapping(void + ranges, True, tuple(name for _, name in rows))


def _of_table(file: Path) -> Mapping:
    """A CSV: with titles, columns for the old value, the new class and perhaps its name."""
    bad = SegkeyError(f"{file} is not a table of values and classes", _HINT)
    try:
        text = read_given_text(file)
    except ValueError:
        raise bad from None
    mark = next((m for m in "\t;," if m in text.split("\n", 1)[0]), ",")
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=mark)]
    rows = [row for row in rows if any(row)]
    titles = [title.casefold().lstrip("#").strip() for title in rows[0]] if rows else []
    old, new = (
        next((n for w in words for n, t in enumerate(titles) if t == w), None)
        for words in (_FROM, _TO)
    )
    if rows and rows[0][0].lstrip("-").isdigit() and len(rows[0]) == 2:
        old, new, titles = 0, 1, []
    elif old is None or new is None:
        raise bad
    body = rows if not titles else rows[1:]
    name = next((n for n, t in enumerate(titles) if t in _NAME and n not in (old, new)), None)
    try:
        # Negative, as Cityscapes' licence plate: no value of a mask file.
        pairs = [(int(r[old]), _target(r[new]), r[name] if name is not None else "") for r in body]
        pairs = [pair for pair in pairs if 0 <= pair[0] < 1 << 16]
        if not pairs or any(isinstance(to, int) and to > VOID for _, to, _ in pairs):
            raise ValueError
    except (ValueError, IndexError):
        raise bad from None
    return Mapping(tuple((v, v, to) for v, to, _ in pairs), True, _names_of(pairs))


def _names_of(pairs: list[tuple[int, int | str, str]]) -> tuple[str, ...]:
    """The names of new classes: the first old name of each; or the targets, if those are names."""
    words = list(dict.fromkeys(to for _, to, _ in pairs if isinstance(to, str)))
    if words:
        return tuple(words)
    names: dict[int, str] = {}
    for _, number, name in pairs:
        if number != VOID and name:
            names.setdefault(number, name)
    whole = sorted(names) == list(range(len(names))) and len(set(names.values())) == len(names)
    return tuple(names[number] for number in sorted(names)) if names and whole else ()
