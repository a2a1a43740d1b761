"""What the user decides about data: void values, mappings, files of classes and colours, range."""

import re
from dataclasses import dataclass
from pathlib import Path

from segkey.data.mapping import Mapping, parse_mapping
from segkey.data.reading import VOID
from segkey.errors import SegkeyError

AUTO = "auto"


@dataclass(frozen=True)
class Choices:
    """What was given; what was not is concluded from the data.

    Attributes:
        classes: a file of class names.
        colours: a file of classes with their colours.
        mapping: which values of mask files become which classes.
        ignore: values of mask files that are void; None for 255 unless the data says otherwise.
        pixel_range: (low, high) of 16-bit images; None to look.
    """

    classes: Path | None = None
    colours: Path | None = None
    mapping: Mapping = Mapping()
    ignore: frozenset[int] | None = None
    pixel_range: tuple[int, int] | None = None

    @property
    def void(self) -> frozenset[int]:
        """The values that are void."""
        return frozenset({VOID}) if self.ignore is None else self.ignore


def parse_choices(
    classes: Path | None = None,
    colours: Path | None = None,
    mapping: list[str] | None = None,
    ignore: str | None = None,
    pixel_range: str = AUTO,
) -> Choices:
    """Choices from the texts of options.

    Raises:
        SegkeyError: one that is none.
    """
    return Choices(
        classes,
        colours,
        parse_mapping(mapping or []),
        _parse_ignore(ignore),
        _parse_range(pixel_range),
    )


def _parse_ignore(text: str | None) -> frozenset[int] | None:
    if text is None:
        return None
    if text.strip().casefold() == "none":
        return frozenset()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) < 1 << 16 for part in parts):
        raise SegkeyError(
            f"--ignore-index '{text}' is no value of masks",
            "give 0 to 255, several as 0,255, or none",
        )
    return frozenset(map(int, parts))


def _parse_range(text: str) -> tuple[int, int] | None:
    text = text.strip().casefold()
    if text == AUTO:
        return None
    if text in ("8", "10", "12", "14", "16"):
        return 0, (1 << int(text)) - 1
    match = re.fullmatch(r"(-?\d{1,9}):(-?\d{1,9})", text)
    if not match or not int(match[1]) < int(match[2]):
        raise SegkeyError(
            f"--range '{text}' is no range of pixel values",
            "give auto, 8, 10, 12, 16, or LO:HI such as -1000:1000",
        )
    return int(match[1]), int(match[2])
