"""What fields of untrusted documents may be: kinds of values, in words and as a test."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from segkey.system.wording import visible

_WHOLE = 2**63 - 1
_LARGE = 1e15  # beyond any number that is measured


@dataclass(frozen=True)
class Kind:
    """What a field may be: in words that go on from "expected", and as a test."""

    words: str
    fits: Callable[[object], bool]


def whole(least: int = 0, most: int = _WHOLE) -> Kind:
    """A whole number; true and false are none."""
    words = (
        f"a whole number from {least} to {most}"
        if most < _WHOLE
        else f"a whole number from {least} on"
    )
    return Kind(
        words, lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most
    )


def number(least: float = -_LARGE, most: float = _LARGE, above: bool = False) -> Kind:
    """A number that is not infinite; with ``above``, larger than ``least``."""
    words = f"a number above {least:g}" if above else f"a number from {least:g}"
    if most < _LARGE:
        words += f" and up to {most:g}" if above else f" to {most:g}"
    elif not above:
        words = "a number" if least == -_LARGE else f"{words} on"

    def fits(value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return (least < value if above else least <= value) and value <= most

    return Kind(words, fits)


def text(most: int = 200, least: int = 0) -> Kind:
    """Text without control characters."""
    size = f"at most {most} characters" if not least else f"{least} to {most} characters"
    return Kind(
        f"printable text of {size}",
        lambda v: isinstance(v, str) and least <= len(v) <= most and v.isprintable(),
    )


def pattern(expression: str, words: str) -> Kind:
    """Text that a regular expression matches as a whole."""
    compiled = re.compile(expression)
    return Kind(words, lambda v: isinstance(v, str) and bool(compiled.fullmatch(v)))


def one_of(values: Collection[str]) -> Kind:
    """One of some words; a collection that grows later is looked at anew each time."""
    return Kind("one of those that this segkey knows", lambda v: isinstance(v, str) and v in values)


def many(kind: Kind, most: int, least: int = 0) -> Kind:
    """A list, or a tuple, of values of a kind."""
    words = f"a list of {least} to {most} values, each {kind.words}"
    return Kind(
        words,
        lambda v: (
            isinstance(v, list | tuple) and least <= len(v) <= most and all(map(kind.fits, v))
        ),
    )


def named(kind: Kind, most: int = 1000) -> Kind:
    """An object whose names are printable and whose values are of a kind."""
    return Kind(
        f"an object with values that are {kind.words}",
        lambda v: (
            isinstance(v, dict)
            and len(v) <= most
            and all(NAME.fits(k) and kind.fits(x) for k, x in v.items())
        ),
    )


def or_none(kind: Kind) -> Kind:
    """A value that may be null."""
    return Kind(f"{kind.words}, or null", lambda v: v is None or kind.fits(v))


YES_OR_NO = Kind("true or false", lambda value: isinstance(value, bool))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
ANY = Kind("a value", lambda value: True)
NAME = text(200, 1)
# Whatever the file system allows: the user's own folders may have any name, and are shown and
# quoted with care.
PATH = Kind(
    "a path", lambda value: isinstance(value, str) and 0 < len(value) <= 4096 and "\0" not in value
)
HEX_64 = pattern("[0-9a-f]{64}", "64 hex digits")


def shown(value: object, most: int = 40) -> str:
    """A value in a message: visible, and short."""
    try:
        whole_text = visible(repr(value) if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # Python refuses to print the largest whole numbers
        return "something very large"
    return whole_text if len(whole_text) <= most else whole_text[:most] + "…"
