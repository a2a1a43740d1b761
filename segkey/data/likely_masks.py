"""Masks where nothing says that there are some: found by names, told by what files hold.

Folders of masks may have any name (``gts_for_participants``), and so may what masks have behind
their images' names. Where files of the same name lie in two folders, or names go on behind those of
others, a few files are opened: masks have few colours. Such data is refused with the options that
take it as it is meant; nothing is paired by guess.
"""

import re
import shlex
from collections import defaultdict
from pathlib import Path

from segkey.data.decode import decode
from segkey.data.file_header import header
from segkey.data.formats import LOSSLESS
from segkey.data.found import Found
from segkey.data.items import Severity, Source
from segkey.data.name_roles import folded, without_image_word, without_mask_word
from segkey.errors import SegkeyError

_OPENED = 12  # groups of files whose pixels are looked at
_FEW = 256  # colours of a mask
_LONGEST = 40  # characters of an ending
_CUT = 20_000  # names that are searched for endings
_WAYS = 4  # one in so many images must be a mask


def holds_numbers(file: Path) -> bool:
    """Whether a file has one value per pixel, as masks have."""
    try:
        return header(file).mode in ("L", "P", "1", "I", "I;16")
    except SegkeyError:
        return False


def holds_classes(file: Path) -> bool:
    """Whether a file holds one value per pixel, or few colours, as masks do."""
    if holds_numbers(file):
        return True
    if file.suffix.lower() not in LOSSLESS:
        return False
    try:
        return decode(file).convert("RGB").getcolors(_FEW) is not None
    except (SegkeyError, OSError, ValueError):
        return False


def say_masks_elsewhere(images: list[Found], source: Source) -> None:
    """Refuse images of which some look like masks of those in another folder."""
    certain, groups = _named_as_masks(images)
    step = -(-len(groups) // _OPENED) or 1
    told = [pair for group in groups[::step] if (pair := _told_apart(group))]
    count = len(certain) + len(told) * step
    if not (certain or told) or _WAYS * count < len(images) or len(images) < 2:
        return
    mask, image = (certain or told)[0]
    source.add(
        Severity.REFUSE,
        f"images in {mask.folder.path} look like masks of those in {image.folder.path}, such as "
        f"{mask.file.name} of {image.file.name}",
        f"{how_to_give(image, mask)}, or --masks none to take all files as images",
    )


def how_to_give(image: Found, mask: Found) -> str:
    """The folders, and the option if names need it, with which an image and its mask are found."""
    ours, theirs = list(image.folder.path.parts), list(mask.folder.path.parts)
    while len(ours) > 1 and len(theirs) > 1 and ours[-1] == theirs[-1] and ours != theirs:
        ours.pop(), theirs.pop()
    told = f"give {_quoted(Path(*ours))} with --masks {_quoted(Path(*theirs))}"
    stem, other = folded(image.stem), folded(mask.stem)
    known = {other, without_mask_word(other)[0]} & {stem, without_image_word(stem)}
    ending = other.removeprefix(stem)
    return told if known or ending == other else f"{told} --mask-suffix {_quoted(ending)}"


def _quoted(text: object) -> str:
    return shlex.quote(str(text)) if " " in str(text) else str(text)


def _named_as_masks(
    images: list[Found],
) -> tuple[list[tuple[Found, Found]], list[list[Found]]]:
    """Masks with their images, by a usual ending; groups in other folders whose names allow it."""
    by_stem: dict[str, list[Found]] = defaultdict(list)
    for each in images:
        stem = folded(each.stem)
        for form in {stem, without_image_word(stem)}:
            by_stem[form].append(each)
    certain: list[tuple[Found, Found]] = []
    groups = [those for those in by_stem.values() if len({o.folder.path for o in those}) > 1]
    for stem, those in by_stem.items():
        bare, word = without_mask_word(stem)
        usual = word and without_mask_word(stem, among_images=True)[1]
        pairs = [
            (each, other)
            for other in (by_stem.get(bare, ()) if word else ())
            for each in those
            if each.folder.path != other.folder.path
        ]
        if usual:
            certain += pairs
        else:
            groups += map(list, pairs)
    if not (certain or groups):
        groups += map(list, _with_endings(images, by_stem))
    return certain, groups


def _with_endings(
    images: list[Found], by_stem: dict[str, list[Found]]
) -> list[tuple[Found, Found]]:
    """Files with those in other folders whose names theirs go on from."""
    found = []
    for each in images[:: max(1, len(images) // _CUT)]:
        stem = folded(each.stem)
        for cut in range(len(stem) - 1, max(0, len(stem) - _LONGEST), -1):
            others = [o for o in by_stem.get(stem[:cut], ()) if o.folder.path != each.folder.path]
            if others and re.match(r"[\W_]*[a-z]", stem[cut:]):
                found.append((each, others[0]))
                break
    return found


def _told_apart(group: list[Found]) -> tuple[Found, Found] | None:
    """A mask and an image of files with one name, by what they hold; None if all hold the same."""
    classes = [each for each in group if holds_classes(each.file)]
    others = [each for each in group if each not in classes]
    pairs = ((c, o) for c in classes for o in others if c.folder.path != o.folder.path)
    return next(pairs, None)


def say_likely_folders(images: list[Found], masks: list[Found], source: Source) -> None:
    """Where no image has a mask: the folders of one that has its name and lies in another place."""
    by_stem: dict[str, list[Found]] = defaultdict(list)
    for mask in masks[:_CUT]:
        for form in {folded(mask.stem), without_mask_word(folded(mask.stem))[0]}:
            by_stem[form].append(mask)
    named = [each for each in images[:_CUT] if folded(each.stem) in by_stem]
    colours = (each for each in named[:_OPENED] if not holds_numbers(each.file))
    if image := next(colours, named[0] if named else None):
        mask = by_stem[folded(image.stem)][0]
        source.add(
            Severity.WARN,
            f"{mask.file} has the name of {image.file}, but lies in folders of other names",
            how_to_give(image, mask),
        )
