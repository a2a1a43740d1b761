"""What is odd about the colours of masks: unlisted ones, palettes that contradict, transparency."""

from collections import Counter

import numpy as np

from segkey.data.items import Severity, counted
from segkey.data.masks import COLOUR
from segkey.data.reading import NO_CLASS, unpacked
from segkey.data.survey_conclusions import Case, palettes_differ

WARN, REFUSE = Severity.WARN, Severity.REFUSE
_SHOWN = 12  # colours in one message
_SURE, _MOST = 64, 256  # colours of classes


_HOW_COLOURS = (
    "give the class of each colour with --colors FILE: 'name red green blue' per line, class 0 "
    "first (CVAT's labelmap.txt and a class_dict.csv are understood)"
)
_TOO_MANY = (
    "so many colours are hardly classes: JPEG, lossy WebP or smooth outlines make them, or these "
    "are photographs; export masks again as PNG of class numbers"
)


def _cure_of(count: int) -> str:
    """What to do about so many colours; up to `_SURE` they are surely classes."""
    if count > _MOST:
        return _TOO_MANY
    return _HOW_COLOURS if count <= _SURE else f"{_HOW_COLOURS}; or: {_TOO_MANY}"


def colours(case: Case) -> None:
    """Colours that nothing gives a class."""
    held = case.colours()
    if not held:
        return
    reading = case.reading
    if not reading.colours:
        kinds, most = case.survey.kinds, 2 * case.survey.kinds[COLOUR].count >= case.survey.masks
        case.say(
            REFUSE if most else WARN,
            f"{counted(kinds[COLOUR].count, 'mask')} of colours, not class numbers, such as "
            f"{kinds[COLOUR].name}: {_list_of(held)}",
            _cure_of(len(held)),
            named_later=not most,
        )
        return
    unknown = [c for c in held if int(reading.of_colours(np.array([c]))[0]) == NO_CLASS]
    if unknown:
        masks = [case.survey.holders.get((COLOUR, c)) for c in unknown]
        most = max((example.count for example in masks if example), default=1)
        case.say(
            REFUSE if 2 * most >= case.survey.read else WARN,
            f"masks hold {counted(len(unknown), 'colour')} that {_file(case)} does not list: "
            f"{_list_of(Counter({c: held[c] for c in unknown}))}",
            "add a line for each ('void' names pixels of no class); colours between two others "
            "come from anti-aliasing or JPEG: export the masks again without",
        )


def _file(case: Case) -> str:
    return str(case.labels.file) if case.labels else "PASCAL VOC's palette"


def _list_of(colours: Counter[int]) -> str:
    shown = [str(unpacked(colour)) for colour, _ in colours.most_common(_SHOWN)]
    return ", ".join(shown) + (
        f" and {len(colours) - _SHOWN} more" if len(colours) > _SHOWN else ""
    )


def palettes(case: Case) -> None:
    """Palettes that give one number two colours: masks that were quantised one by one."""
    if case.reading.palettes or not (conflict := palettes_differ(case)):
        return
    number, one, other = conflict
    what = f"number {number} is {unpacked(one)} in some masks and {unpacked(other)} in others"
    if one == other:
        what = f"the colour {unpacked(one)} has several numbers, one of them {number}"
    case.say(
        REFUSE,
        f"masks have {len(case.survey.palettes)} different palettes: {what}; colours: "
        f"{_list_of(case.palette_colours())}",
        "give the class of each colour with --colors FILE ('name red green blue' per line), or "
        "--map numbers if the numbers are right and only the colours differ",
    )


def in_alpha(case: Case) -> None:
    """Masks of one colour: their classes may be in the alpha channel, which is not read."""
    seen = case.survey.in_alpha
    if seen.count:
        case.say(
            REFUSE if 2 * seen.count >= case.survey.read else WARN,
            f"{counted(seen.count, 'mask')} of one colour that differ in their alpha channel "
            f"alone, such as {seen.name}: classes may be there, and it is not read",
            "save that channel alone: PIL.Image.open(FILE).getchannel('A').save(FILE)",
        )


def transparent(case: Case) -> None:
    """Transparent pixels in masks."""
    seen = case.survey.transparent
    if seen.count:
        case.say(
            WARN,
            f"{counted(seen.count, 'mask')} with transparent pixels, such as {seen.name}: these "
            f"are read as black",
            "save masks without an alpha channel",
        )
