"""What is odd about data under the reading that was concluded: one rule per kind of oddity.

A rule looks at a `segkey.data.survey_conclusions.Case` and says what it sees, with an example and
a cure.
"""

from collections import Counter

import numpy as np

from segkey.data.colour_rules import colours, in_alpha, palettes, transparent
from segkey.data.image_rules import pages, sizes, turned
from segkey.data.items import Severity, counted
from segkey.data.masks import COLOUR, EIGHT_BITS, FOUR_BITS, NEGATIVE, ONE_BIT, PALETTE, TWO_BITS
from segkey.data.reading import VOID
from segkey.data.survey_conclusions import Case

NOTE, WARN, REFUSE = Severity.NOTE, Severity.WARN, Severity.REFUSE
_SOFT = 0.2  # of pixels at edges; see `segkey.data.mask_survey`
_LEAST_EDGES = 40  # pixels, to judge by
_MANY = 64  # classes that nothing names
_SHOWN = 12  # values or colours in one message


def judge(case: Case) -> None:
    """All rules about masks, the gravest first."""
    for rule in (
        _unread,
        in_alpha,
        colours,
        palettes,
        _cityscapes,
        _soft_outlines,
        _values_beyond,
        _sparse,
        _bits,
        _jpeg,
        _mixed,
        _one_class,
        _unlabelled,
        _unused_names,
        _more_than_named,
        transparent,
        turned,
        sizes,
        pages,
    ):
        rule(case)


def _unread(case: Case) -> None:
    unread = case.survey.unread
    if unread.count:
        every = unread.count >= case.survey.masks
        case.say(
            REFUSE if every else WARN,
            f"{counted(unread.count, 'mask')} cannot be read, such as {unread.name}",
            "save masks of class numbers as 8-bit PNG",
            named_later=True,
        )


def is_soft(case: Case) -> bool:
    """Whether outlines are ramps of values, and the user has not joined them."""
    survey = case.survey
    ramps = survey.edges >= _LEAST_EDGES and survey.soft >= _SOFT * survey.edges
    return ramps and not case.choices.mapping.cuts


def _soft_outlines(case: Case) -> None:
    if not is_soft(case) or not case.values():
        return
    share, values = case.survey.soft / case.survey.edges, case.labelled()
    fits = not _beyond(case) and (case.names is not None or max(values, default=0) < _MANY)
    how = "once saved as JPEG, or anti-aliased" if not case.survey.lossy.count else "JPEG files"
    case.say(
        WARN if fits else REFUSE,
        f"masks look like grey levels, not classes ({how}): "
        f"{counted(len(case.values()), 'value')}, and "
        f"{share:.0%} of the pixels at edges lie between two others",
        _cut_of(case)
        or "export the masks again as PNG, without anti-aliasing and resized by nearest neighbour",
    )


def _cut_of(case: Case) -> str:
    """The mapping that cuts masks of two levels in the middle, if they are that."""
    values = case.values()
    total, top = sum(values.values()), max(values, default=0)
    ends = sum(n for v, n in values.items() if v <= top // 4 or v >= top - top // 4)
    if total and ends >= 0.8 * total and top > 16:
        half = top // 2
        return f"for two classes give --map 0-{half}=0 --map {half + 1}-{top}=1"
    return ""


def _beyond(case: Case) -> Counter[int]:
    """Values that belong to no class, or to one that nothing names."""
    count = len(case.names) if case.names else VOID
    return Counter(
        {
            value: pixels
            for value, pixels in case.labelled().items()
            if not 0 <= case.class_of(value) < count
        }
    )


def _values_beyond(case: Case) -> None:
    beyond = _beyond(case)
    if not beyond or any(finding.severity is REFUSE for finding in case.findings):
        return
    held = [e for (_, v), e in case.survey.holders.items() if v in beyond]
    most, first = max((e.count for e in held), default=1), held[0].name if held else ""
    if set(beyond) == {VOID}:
        case.say(
            REFUSE,
            f"masks hold {VOID}, which is void unless --ignore-index says otherwise, such as "
            f"{first}",
            f"give --ignore-index {','.join(map(str, sorted({*case.void, VOID})))} if it is void, "
            f"or --map {VOID}=CLASS",
        )
        return
    if set(beyond) == {NEGATIVE}:
        below = (
            f", or less than 0, which is read as {NEGATIVE}" if case.survey.negative.count else ""
        )
        case.say(
            REFUSE if 2 * most >= case.survey.read else WARN,
            f"masks hold {NEGATIVE}{below}, such as {first}",
            f"give --map {NEGATIVE}=void if it is void, or --map {NEGATIVE}=CLASS",
        )
        return
    known = f"{len(case.names)} classes are named" if case.names else "masks hold classes 0 to 254"
    values = ", ".join(map(str, sorted(beyond)[:_SHOWN]))
    more = f" and {len(beyond) - _SHOWN} more" if len(beyond) > _SHOWN else ""
    case.say(
        REFUSE if 2 * most >= case.survey.read else WARN,
        f"masks hold {values}{more}, but {known}; such as {first}",
        _instances(beyond)
        or _map_for(case)
        or "name all classes with --classes, or say with --map which class each value is",
    )


def _instances(beyond: Counter[int]) -> str:
    if max(beyond) >= 1000 and all(v < 40 or v // 1000 in range(1, 40) for v in beyond):
        return "these look like instance numbers (Cityscapes' instanceIds): give the labelIds"
    return ""


def _map_for(case: Case) -> str:
    """The mapping that numbers the values one after another."""
    levels = sorted(set(case.labelled()))
    if case.names and len(levels) > len(case.names) or not 1 < len(levels) <= _SHOWN:
        return ""
    pairs = [(value, number) for number, value in enumerate(levels) if value != number]
    told = " ".join(f"--map {value}={number}" for value, number in pairs)
    step = int(np.gcd.reduce(levels))
    near = step > 1 and abs(VOID - round(VOID / step) * step) <= 1  # 127 is half of 255
    if near and VOID in case.values() and VOID not in levels:
        told += f" (and --map {VOID}={len(levels)} if {VOID} is a class, not void)"
    return f"if each value is a class, give {told}" if pairs else ""


def _sparse(case: Case) -> None:
    """Few values, far apart, that nothing names: grey levels."""
    values = sorted(set(case.labelled()))
    if case.names or case.choices.mapping.ranges or not values or _refused(case):
        return
    if values[-1] >= 10 and values[-1] + 1 >= 3 * len(values) or values[-1] >= _MANY * 2:
        shown = ", ".join(map(str, values[:_SHOWN])) + (", …" if len(values) > _SHOWN else "")
        two_levels = _cut_of(case) if case.survey.lossy.count else ""
        case.say(
            REFUSE,
            f"masks hold {counted(len(values), 'value')} between {values[0]} and {values[-1]} "
            f"({shown}): grey levels, or a few of many classes, rather than 0, 1, 2, …",
            (two_levels or _map_for(case) or "say with --map FILE.csv which class each value is")
            + "; if they are class numbers, name all classes with --classes FILE",
        )


def _refused(case: Case) -> bool:
    return any(finding.severity is REFUSE for finding in case.findings)


def _bits(case: Case) -> None:
    """Files of few bits: read at their own depth; in one bit, void has become 1."""
    kinds = case.survey.kinds
    for kind in (TWO_BITS, FOUR_BITS):
        if kind in kinds:
            case.say(
                NOTE,
                f"{counted(kinds[kind].count, 'mask')} of {kind} grey, such as {kinds[kind].name}: "
                f"read at their own depth",
            )
    if ONE_BIT not in kinds or 1 not in case.values(ONE_BIT) or case.choices.mapping.holds(1):
        return
    others = set(case.values(EIGHT_BITS, PALETTE)) - {0, 1}
    several = bool(case.names and len(case.names) > 2)
    told = f"{counted(kinds[ONE_BIT].count, 'mask')} of 1 bit, such as {kinds[ONE_BIT].name}: 1 is "
    told += f"class 1 '{case.names[1]}'" if case.names and len(case.names) > 1 else "class 1"
    if others - ({255} if not case.void else set()) or several:
        case.say(
            WARN,
            f"{told}, but other masks hold more: a void of 255 becomes 1 in such a file",
            "save these masks with 8 bits again, or give --map 1=void if 1 is void everywhere",
        )
    else:
        case.say(NOTE, told, "--map 1=void if it is void")


def _jpeg(case: Case) -> None:
    lossy = case.survey.lossy
    if lossy.count and not _refused(case):
        case.say(
            WARN,
            f"{counted(lossy.count, 'mask')} in JPEG files, such as {lossy.name}: JPEG changes "
            f"values at outlines",
            "export masks as PNG",
        )


def _mixed(case: Case) -> None:
    """Some masks of 0 and 1 and others of 0 and 255: their 255 is no void."""
    seen = {number for number in case.classes_seen() if number != VOID}
    decided = case.choices.ignore is not None or case.choices.mapping.holds(VOID)
    if _refused(case) or decided or VOID not in case.void or len(seen) < 2:
        return
    alone: Counter[tuple[int, ...]] = Counter()
    for (_, kind, values), count in case.survey.few.items():
        if (
            kind in case.by_number
            and kind != COLOUR
            and VOID in values
            and set(values) <= {0, VOID}
        ):
            alone[values] += count
    held = [
        e for (kind, v), e in case.survey.holders.items() if v == VOID and kind in case.by_number
    ]
    if not alone[0, VOID] or sum(e.count for e in held) > sum(alone.values()):
        return
    case.say(
        REFUSE if seen == {0, 1} else WARN,
        f"{counted(alone[0, VOID], 'mask')} of 0 and {VOID} alone, such as {held[0].name}, and no "
        f"mask of {VOID} beside another class than 0: {VOID} may be a class there, not void",
        f"give --map {VOID}=1 if it is class 1, --ignore-index {VOID} if it is void",
    )


def _one_class(case: Case) -> None:
    if _refused(case) or not case.survey.read:
        return
    seen = [number for number in case.classes_seen() if number != VOID]
    if len(seen) > 1:
        return
    void = any(case.is_void(value) for value in case.values())
    if not seen:
        case.say(
            REFUSE,
            "no mask has a labelled pixel: all are void",
            "--ignore-index none takes no value as void; --map VALUE=CLASS says what a value is",
        )
        return
    name = case.names[seen[0]] if case.names and seen[0] < len(case.names) else f"class {seen[0]}"
    case.say(
        REFUSE if void and case.choices.ignore is None else WARN,
        f"all labelled pixels are '{name}'"
        + (", the others void" if void else "")
        + ": a model that always answers it is right everywhere",
        "if the void value is a class, give --map 255=1 or --ignore-index none; if this is meant, "
        "give --ignore-index 255"
        if void
        else "give masks with at least two classes",
    )


def _unlabelled(case: Case) -> None:
    void = _masks_of_void(case)
    if count := sum(void.values()):
        splits = ", ".join(f"{split} {count}" for split, count in void.items())
        case.say(NOTE, f"{counted(count, 'image')} without any labelled pixel ({splits})")


def _masks_of_void(case: Case) -> Counter[str]:
    found: Counter[str] = Counter()
    for (split, kind, values), count in case.survey.few.items():
        if kind in case.by_number:
            values = [v & 255 if kind == COLOUR else v for v in values]
            hidden = all(map(case.is_void, values))
        elif kind == COLOUR and case.reading.colours:
            hidden = set(case.reading.of_colours(np.array(values)).tolist()) == {VOID}
        else:
            continue
        found[split] += count if hidden else 0
    return +found


def _unused_names(case: Case) -> None:
    """More names than classes in the masks."""
    if not case.names or not case.survey.complete() or _refused(case):
        return
    ignored = {case.class_of(value) for value, _, _ in case.ignored}
    seen = case.classes_seen().keys() | ignored
    missing = [name for number, name in enumerate(case.names) if number not in seen]
    if missing and len(missing) < len(case.names):
        shown = ", ".join(f"'{name}'" for name in missing[:8]) + (", …" if missing[8:] else "")
        case.say(
            NOTE,
            f"{len(case.names)} classes are named, {len(missing)} of them are in no mask: {shown}",
        )


def _more_than_named(case: Case) -> None:
    """Numbers between those that occur, if nothing names them."""
    if case.names or _refused(case) or not case.survey.complete():
        return
    seen = {number for number in case.classes_seen() if number != VOID}
    seen |= {case.class_of(value) for value, _, _ in case.ignored}
    gaps = [number for number in range(max(seen, default=0)) if number not in seen]
    if gaps:
        shown = ", ".join(map(str, gaps[:_SHOWN])) + (", …" if gaps[_SHOWN:] else "")
        case.say(
            WARN,
            f"no mask holds class {shown}, but {max(seen)}: "
            f"{max(seen) + 1} classes are made of {len(seen)}",
            "name them with --classes FILE if that is right, or renumber with --map",
        )


def _cityscapes(case: Case) -> None:
    names = [each.name.casefold() for each in case.survey.kinds.values()]
    mapped = case.choices.mapping.ranges or case.names
    if any(name.endswith("labelids.png") for name in names) and not mapped:
        case.say(
            REFUSE,
            "masks hold Cityscapes' 34 ids, of which 19 are classes that are trained on",
            "--map cityscapes makes those 19 of them, with their names; --map FILE.csv makes "
            "others; --map numbers takes all 34",
        )
