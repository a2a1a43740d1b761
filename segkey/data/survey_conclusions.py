"""What follows from a survey: how masks are read, which classes there are, and what is odd.

`conclude` decides the reading first, from what the user gave and then from what was seen; each rule
of `segkey.data.mask_rules` then judges the survey under that reading. Where the data leaves two
readings open, it is refused with the option that decides.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from segkey.data.items import Finding, Severity, Source
from segkey.data.labels import Labels, read_labels
from segkey.data.mask_survey import Survey
from segkey.data.masks import COLOUR, DEEPER, EIGHT_BITS, FOUR_BITS, ONE_BIT, PALETTE, TWO_BITS
from segkey.data.palette import PALETTE as VOC_COLOURS
from segkey.data.reading import NO_CLASS, VOID, Reading, packed, unpacked
from segkey.data.user_choices import Choices
from segkey.errors import SegkeyError

GREY = (ONE_BIT, TWO_BITS, FOUR_BITS, EIGHT_BITS, DEEPER)
_BRIGHT = {255, 65535}  # white, in 8 and in 16 bits
BINARY_NAMES = ["background", "foreground"]


@dataclass
class Case:
    """A survey and what has been concluded from it so far.

    Attributes:
        source, survey, choices: what there is, what was seen, what the user gave.
        labels: what a file says about the classes.
        names: of the classes, if anything gives them.
        reading: how masks are read.
        void: values of mask files that are void.
        ignored: (value, value, 255) for those that --ignore-index names.
        counted: how many classes there are, if nothing names them.
        findings: what is to be said.
    """

    source: Source
    survey: Survey
    choices: Choices
    labels: Labels | None = None
    names: list[str] | None = None
    reading: Reading = field(default_factory=Reading)
    void: frozenset[int] = frozenset({VOID})
    ignored: tuple[tuple[int, int, int], ...] = ()
    counted: int = 0
    findings: list[Finding] = field(default_factory=list)

    def say(self, severity: Severity, text: str, cure: str = "", named_later: bool = False) -> None:
        """Add a finding; one that would refuse only warns if the user vouches for the numbers."""
        if self.choices.mapping.numbers and severity is Severity.REFUSE:
            severity = Severity.WARN
        self.findings.append(Finding(severity, text, cure, named_later))

    @property
    def by_number(self) -> tuple[str, ...]:
        """The kinds of masks whose values are read as numbers."""
        kinds = GREY if self.reading.palettes else (*GREY, PALETTE)
        grey = self.survey.grey_colours and not self.reading.colours
        return (*kinds, COLOUR) if grey else kinds

    def values(self, *kinds: str) -> Counter[int]:
        """Pixels by value of masks that are read as numbers, void left out unless mapped."""
        counts: Counter[int] = Counter()
        for (_, kind), found in self.survey.values.items():
            if kind in (kinds or self.by_number):
                mask = 255 if kind == COLOUR else -1
                for value, count in found.items():
                    counts[value & mask if kind == COLOUR else value] += count
        return counts

    def labelled(self) -> Counter[int]:
        """`values` without those that are void."""
        return Counter({v: n for v, n in self.values().items() if not self.is_void(v)})

    def is_void(self, value: int) -> bool:
        """Whether a value is void."""
        if self.choices.mapping.holds(value):
            return self.class_of(value) == VOID
        return value in self.void or (value != VOID and self.class_of(value) == VOID)

    def class_of(self, value: int) -> int:
        """The class of a value."""
        return int(self.reading.of_values(np.array([value]))[0])

    def colours(self) -> Counter[int]:
        """Pixels by packed colour of masks that are read by colour."""
        counts = Counter() if COLOUR in self.by_number else self.survey.of_kind(COLOUR)
        if self.reading.palettes:
            counts.update(self.palette_colours())
        return counts

    def palette_colours(self) -> Counter[int]:
        """Pixels by packed colour of masks with a palette."""
        counts: Counter[int] = Counter()
        for shades in self.survey.shades.values():
            counts.update(shades)
        return counts

    def classes_seen(self) -> Counter[int]:
        """Pixels by class number, without void and without what belongs to no class."""
        counts: Counter[int] = Counter()
        for value, pixels in self.labelled().items():
            counts[self.class_of(value)] += pixels
        for colour, pixels in self.colours().items():
            counts[int(self.reading.of_colours(np.array([colour]))[0])] += pixels
        return Counter({n: p for n, p in counts.items() if n not in (NO_CLASS, VOID)})


def conclude(source: Source, survey: Survey, choices: Choices) -> list[Finding]:
    """Set how a source is read (``classes``, ``reading``, ``ignore_index``, ``pixel_range``).

    Returns:
        What is to be said; the caller decides whether to stop at what is refused.

    Raises:
        SegkeyError: a file of classes that is none, or a mapping to a class that nothing names.
    """
    from segkey.data import image_rules, mask_rules, split_rules

    case = Case(source, survey, choices, void=choices.void)
    if source.has_masks:
        _read_labels(case)
        _decide_values(case)
        _decide_first_name(case)
        _decide_colours(case)
        _decide_binary(case)
        if case.names is None:
            _count(case)
        mask_rules.judge(case)
        _settle(case)
        if not any(each.severity is Severity.REFUSE for each in case.findings):
            case.findings += split_rules.judge_splits(source, survey)
    image_rules.judge_images(case)
    return case.findings


def _read_labels(case: Case) -> None:
    choices = case.choices
    file = choices.colours or choices.classes or case.source.labels
    if file:
        case.labels = read_labels(file, given=file is not case.source.labels)
        if choices.colours and not case.labels.colours:
            raise SegkeyError(
                f"{file} gives no colours",
                "write 'name red green blue' on each line, class 0 first",
            )
        for note in case.labels.notes:
            case.say(Severity.NOTE, note)
        if file is case.source.labels:
            case.say(Severity.NOTE, f"class names from {file}")
        case.names = list(case.labels.names)
    if choices.classes and choices.colours:
        case.names = list(read_labels(choices.classes, given=True).names)
    if case.names is None and case.source.classes:
        case.names = list(case.source.classes)
    if choices.mapping.names and not choices.classes:
        case.names = list(choices.mapping.names)


def _decide_values(case: Case) -> None:
    """The file's numbers of classes, then the user's mapping, which overrules them."""
    listed = case.labels.values if case.labels else ()
    ranges = tuple((value, value, number) for value, number in listed)
    ranges += case.choices.mapping.with_numbers(case.names)
    closed = bool(listed) or case.choices.mapping.closed
    void = tuple((v, v, VOID) for v in sorted(case.choices.ignore or ()) if v != VOID)
    void = tuple(each for each in void if not case.choices.mapping.holds(each[0]))
    if closed and case.void:
        ranges = tuple((v, v, VOID) for v in sorted(case.void)) + ranges
    case.reading = Reading(ranges, not closed)
    case.ignored = void


def _decide_first_name(case: Case) -> None:
    """Names that leave the ignored class 0 out: the first one is that of class 1."""
    values = case.labelled()
    if 0 not in (case.choices.ignore or ()) or not case.names or case.reading.ranges:
        return
    if max(values, default=0) == len(case.names):
        numbered = ((n + 1, n + 1, n) for n in range(len(case.names)))
        case.reading = Reading(((0, 0, VOID), (VOID, VOID, VOID), *numbered), keep_others=False)
        case.say(
            Severity.NOTE,
            f"{len(case.names)} names for classes 1 to {len(case.names)}: class 0, which is void, "
            "is not named",
        )


def _decide_colours(case: Case) -> None:
    """The file's colours, if masks hold colours; VOC's, if masks hold no others."""
    colours = case.labels.colours if case.labels else ()
    seen = set(case.survey.of_kind(COLOUR)) if not case.survey.grey_colours else set()
    if not colours:
        _decide_voc_colours(case, seen)
        return
    listed = {red << 16 | green << 8 | blue for red, green, blue, _ in colours}
    shown = set(case.palette_colours())
    explicit = case.choices.colours is not None
    palettes = bool(shown) and (explicit or shown <= listed)
    if seen or palettes or explicit or set(case.survey.of_kind(COLOUR)):
        case.reading = Reading(case.reading.ranges, case.reading.keep_others, colours, palettes)
    greys = {value for value in case.values(*GREY) if value not in case.void or explicit}
    grey_classes = {r: n for r, g, b, n in colours if r == g == b}
    if greys and greys <= grey_classes.keys() and not case.choices.mapping.ranges:
        ranges = tuple((value, value, number) for value, number in grey_classes.items())
        case.reading = Reading(ranges, False, case.reading.colours, palettes)
        case.void = frozenset(v for v, n in grey_classes.items() if n == VOID)


def _decide_voc_colours(case: Case, seen: set[int]) -> None:
    """Masks in VOC's colours, as tools export them, if there are names for them."""
    mixed = palettes_differ(case)
    wanted = seen | (set(case.palette_colours()) if mixed else set())
    if not wanted or not case.names or case.choices.mapping.ranges:
        return
    colours = packed(VOC_COLOURS)
    known = {int(colours[n]): n for n in (*range(len(case.names)), VOID)}
    if wanted <= known.keys():
        listed = tuple((*unpacked(colour), number) for colour, number in known.items())
        case.reading = Reading(case.reading.ranges, case.reading.keep_others, listed, bool(mixed))
        case.say(
            Severity.NOTE,
            f"masks hold PASCAL VOC's colours: each is taken as the class of its number there, "
            f"such as (128, 0, 0) for '{case.names[min(1, len(case.names) - 1)]}'",
            "--colors FILE gives other colours",
        )


def palettes_differ(case: Case) -> tuple[int, int, int] | None:
    """A number with two colours in two palettes, or a colour with two numbers; None if none has."""
    colour_of: dict[int, int] = {}
    number_of: dict[int, int] = {}
    for key, palette in case.survey.palettes.items():
        colours = np.frombuffer(key, np.int32)
        used = {n: int(colours[n]) for n in palette.used if n < len(colours)}
        distinct = len(set(used.values())) == len(used)
        for number, colour in used.items():
            if colour_of.setdefault(number, colour) != colour:
                return number, colour_of[number], colour
            if distinct and number_of.setdefault(colour, number) != number:
                return number, colour, colour
    return None


def _decide_binary(case: Case) -> None:
    """0 and 255 alone are two classes: with 255 as void there would be nothing to learn."""
    if (case.choices.ignore and case.choices.ignore & _BRIGHT) or case.reading.colours:
        return
    wide = set(case.values(*(kind for kind in case.by_number if kind != ONE_BIT)))
    narrow = set(case.values(ONE_BIT))
    bright = wide & _BRIGHT
    if not bright or wide - _BRIGHT - {0} or case.choices.mapping.holds(min(bright)):
        return
    if not wide - bright and not narrow - {1}:
        return  # nothing but white: no second class
    if _is_voc_void(case) or (case.labels and case.labels.values):
        return
    shown = " and ".join(map(str, sorted({0} | bright)))
    if case.names and len(case.names) == 1:
        case.say(
            Severity.REFUSE,
            f"masks hold {shown} and nothing else, but one class is named: '{case.names[0]}'",
            "name two classes, the background first; or give --ignore-index 255 if 255 is void",
        )
    elif case.names is None or len(case.names) == 2:
        case.reading = Reading((*case.reading.ranges, *((v, v, 1) for v in sorted(bright))))
        case.void = frozenset()
        case.names = case.names or list(BINARY_NAMES)
        case.say(
            Severity.NOTE,
            f"masks hold {shown} and nothing else: taken as two classes, {max(bright)} becomes "
            f"class 1 '{case.names[1]}', and there is no void",
            f"--ignore-index {max(bright)} takes it as void",
        )


def _is_voc_void(case: Case) -> bool:
    """Whether 255 has VOC's colour of void in masks with a palette."""
    for key, palette in case.survey.palettes.items():
        colours = np.frombuffer(key, np.int32)
        if 255 in palette.used and len(colours) > 255:
            return unpacked(int(colours[255])) == tuple(map(int, VOC_COLOURS[VOID]))
    return False


def _count(case: Case) -> None:
    """As many classes as the largest number says, if nothing names them."""
    case.counted = max((n for n in case.classes_seen() if 0 <= n < VOID), default=0) + 1


def _settle(case: Case) -> None:
    """Names, void and reading go to the source; a class that is ignored is no class."""
    source, ignored = case.source, case.ignored
    names = case.names or [f"class {n}" for n in range(case.counted)]
    if case.names is None and not any(each.severity is Severity.REFUSE for each in case.findings):
        case.say(
            Severity.NOTE,
            f"{len(names)} classes found in the masks; name them with --classes FILE",
        )
    source.classes, source.ignore_index = names, VOID
    values = [value for value, _, _ in ignored]
    dropped = sorted({case.class_of(value) for value in values} & set(range(len(names))))
    if len(values) == 1 and not dropped and not case.reading.colours and not case.reading.ranges:
        source.ignore_index, source.reading = values[0], case.reading
        return
    plain = case.reading
    reading = Reading((*plain.ranges, *ignored), plain.keep_others, plain.colours, plain.palettes)
    if dropped:
        kept = [number for number in range(len(names)) if number not in dropped]
        numbers = {number: kept.index(number) for number in kept} | dict.fromkeys(dropped, VOID)
        source.reading = reading.renumbered(numbers, len(names))
        source.classes = [names[number] for number in kept]
        lost = ", ".join(f"'{names[number]}'" for number in dropped)
        case.say(
            Severity.NOTE,
            f"{lost} is void and no class: {len(kept)} classes remain, numbered anew from 0 "
            f"'{source.classes[0] if kept else ''}'",
        )
    else:
        source.reading = reading
