"""Pair images with masks: by the same name, by letter case or Unicode form, by usual endings.

Every rule beyond the same name is said with the number of pairs it made. An image that two masks
fit, and a mask that images of two splits claim, are never decided silently.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segkey.data.formats import LOSSLESS
from segkey.data.found import Found
from segkey.data.items import Problem, Severity, Source, counted
from segkey.data.likely_masks import holds_numbers, say_likely_folders
from segkey.data.name_roles import folded, rank_of, without_image_word, without_mask_word
from segkey.data.unpaired import UnpairedMasks

_SAME, _FOLDED, _WORDS, _GIVEN = range(4)
_RULES = {
    _FOLDED: "found by a name that differs in letter case or Unicode form",
    _WORDS: "found by the usual endings of names",
    _GIVEN: "found by --mask-suffix",
}


@dataclass
class _Made:
    """Pairs that a rule made: how many, and the first."""

    count: int
    image: Found
    mask: Found


class Masks:
    """Masks, to be found by the names of images; indices are made for the rules that are needed."""

    def __init__(self, files: Iterable[Found], suffix: str | None = None):
        """``suffix``: what the user says a mask's name has behind its image's; with a dot in
        front, instead of its image's suffix."""
        self.files = list(files)
        self.suffix = None if suffix is None else folded(suffix)
        self.passed_over: set[str] = set()  # folders whose masks another folder's were put before
        self._indices: dict[int, _Index] = {}

    def _index(self, rule: int) -> "_Index":
        """Masks by split and by what images are looked for with under a rule."""
        if rule not in self._indices:
            index = self._indices[rule] = {}
            for each in self.files:
                if form := self._form(each, rule):
                    of_split = index.setdefault(each.folder.split, {})
                    other = of_split.setdefault(form, each)
                    if other is not each:
                        of_split[form] = (*(other if isinstance(other, tuple) else [other]), each)
        return self._indices[rule]

    def _form(self, mask: Found, rule: int) -> str:
        """What a mask is looked for with; empty if the rule finds it by nothing."""
        if rule == _SAME:
            return mask.key
        key = folded(mask.key)
        if rule == _FOLDED:
            return key
        if rule == _WORDS:
            bare, word = without_mask_word(key)
            return bare if word else ""
        whole = key + folded(mask.suffix)
        where = whole if whole.endswith(self.suffix) else key
        return where[: -len(self.suffix) or None] if where.endswith(self.suffix) else ""

    def pair(self, images: list[Found], source: Source, folders: str) -> list[Found | None]:
        """The mask of each image, or None; what is left out is told to ``source``."""
        masks: list[Found | None] = []
        rules: list[int] = []
        missing: list[tuple[Found, list[Found]]] = []
        for image in images:
            found, rule = self._look_for(image)
            masks.append(found[0] if len(found) == 1 else None)
            rules.append(rule)
            if len(found) != 1:
                missing.append((image, found))
        self._tell_missing(images, missing, source, folders)
        self._leave_out_passed_over(images, masks, source)
        self._say(images, masks, rules, source)
        if images and not any(masks):
            self._say_likely_suffix(images, source)
            say_likely_folders(images, self.files, source)
        return masks

    def _tell_missing(
        self,
        images: list[Found],
        missing: list[tuple[Found, list[Found]]],
        source: Source,
        folders: str,
    ) -> None:
        if missing:
            unpaired = UnpairedMasks(images, self.files)
        for image, found in missing:
            cure = _cure(found) or unpaired.cure(image)
            source.problems.append(Problem(image.name, _why(image, found, folders), cure))

    def _leave_out_passed_over(
        self, images: list[Found], masks: list[Found | None], source: Source
    ) -> None:
        """What is no mask of classes for some images is none for the others either."""
        if not self.passed_over:
            return
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            if mask and mask.folder.path.name in self.passed_over:
                where = mask.folder.path.name
                why = f"{mask.file_name} in {where} is of another kind than the other masks"
                source.problems.append(Problem(image.name, why))
                masks[number] = None
        source.note(
            f"masks in {', '.join(sorted(self.passed_over))} not used: other folders hold "
            f"better ones of the same images",
            "--masks FOLDER decides",
        )

    def _say_likely_suffix(self, images: list[Found], source: Source) -> None:
        """What the names of masks have behind those of images, if that is the same for some."""
        keys = [folded(mask.key) for mask in self.files[:1000]]
        endings: Counter[str] = Counter()
        for image in images[:20]:
            for key in {folded(image.key), without_image_word(folded(image.key))}:
                endings.update({o[len(key) :] for o in keys if o.startswith(key) and o != key})
        endings = Counter({e: n for e, n in endings.items() if re.search("[a-z]", e)})
        if endings:
            ending, _ = endings.most_common(1)[0]
            source.add(
                Severity.WARN,
                f"no mask has its image's name, but some have '{ending}' behind it",
                f"give --mask-suffix {ending}",
            )

    def _look_for(self, image: Found) -> tuple[list[Found], int]:
        if self.suffix is None and (found := self._held(image, _SAME, image.key)):
            return self._best(found), _SAME
        key = folded(image.key)
        bare = without_image_word(key)
        keys = [(_FOLDED, key), (_WORDS, key), (_WORDS, bare), (_FOLDED, bare)]
        if self.suffix is not None:
            keys = [(_GIVEN, key), (_GIVEN, bare)]
        for rule, wanted in keys:
            if found := self._held(image, rule, wanted):
                found = self._best(found)
                if rule == _WORDS and (better := self._better(image, bare, found)):
                    return better, rule
                rule = _WORDS if rule == _FOLDED and wanted != key else rule
                return found, rule
        return [], _SAME

    def _held(self, image: Found, rule: int, wanted: str) -> list[Found]:
        index = self._index(rule)
        for split in dict.fromkeys((image.folder.split, None)):
            held = index.get(split, {}).get(wanted, ())
            held = held if isinstance(held, tuple) else (held,)
            if found := [mask for mask in held if not mask.is_file_of(image)]:
                return found
        return []

    def _better(self, image: Found, bare: str, found: list[Found]) -> list[Found]:
        """Masks that a looser rule finds in another folder and whose ending ranks before those
        found: DRIVE's ``1st_manual/21_manual1`` before ``mask/21_training_mask``."""
        others = self._best(self._held(image, _WORDS, bare) or found)
        if _rank(others[0]) >= _rank(found[0]):
            return []
        names = {m.folder.path.name for m in found} - {m.folder.path.name for m in others}
        self.passed_over |= names
        return others

    def _best(self, found: list[Found]) -> list[Found]:
        """Those of several masks for one image that no rule puts behind another."""
        if len(found) == 1:
            return found
        best = min(map(_rank, found))
        return [each for each in found if _rank(each) == best]

    def _say(
        self,
        images: list[Found],
        masks: list[Found | None],
        rules: list[int],
        source: Source,
    ) -> None:
        made: dict[int, _Made] = {}
        for image, mask, rule in zip(images, masks, rules, strict=True):
            if mask and rule in _RULES:
                made.setdefault(rule, _Made(0, image, mask)).count += 1
        for rule, text in _RULES.items():
            if pairs := made.get(rule):
                cure = "--mask-suffix decides how masks are named" if rule == _WORDS else ""
                source.note(
                    f"{counted(pairs.count, 'mask')} {text}, such as {pairs.mask.file_name} for "
                    f"{pairs.image.file_name}",
                    cure,
                )
        found = [mask for mask in masks if mask]
        if len(set(found)) < len(found):
            _say_claimed_twice(images, masks, source)


_Index = dict[str | None, dict[str, Found | tuple[Found, ...]]]


def _rank(mask: Found) -> tuple[bool, int]:
    ending = without_mask_word(folded(mask.key))[1]
    return mask.suffix.lower() not in LOSSLESS, rank_of(ending)


def _say_claimed_twice(images: list[Found], masks: list[Found | None], source: Source) -> None:
    """One mask cannot be that of two images: at best one of them is right."""
    claims: dict[Found, list[Found]] = defaultdict(list)
    for image, mask in zip(images, masks, strict=True):
        if mask:
            claims[mask].append(image)
    claims = {mask: by for mask, by in claims.items() if len(by) > 1}
    across = {m: by for m, by in claims.items() if len({each.folder.split for each in by}) > 1}
    mask, by = next(iter((across or claims).items()))
    example = f"{mask.file_name} by {' and '.join(each.name for each in by[:2])}"
    if across:
        source.add(
            Severity.REFUSE,
            f"{counted(len(across), 'mask')} claimed by images of several splits, such as "
            f"{example}",
            "put the masks of each split into a folder of its own, such as masks/train and "
            "masks/val, or give images different names",
        )
    else:
        source.add(
            Severity.WARN,
            f"{counted(len(claims), 'mask')} with two images each, such as {example}",
            "remove one of the images, or give them different names",
        )


def _cure(found: list[Found]) -> str:
    """What decides between masks that fit an image."""
    if not found:
        return ""
    first, second = sorted(each.file for each in found)[:2]
    if first.name == second.name:
        return f"give --masks {first.parent} or --masks {second.parent}"
    if first.stem == second.stem:
        return f"give --mask-suffix {first.suffix} or --mask-suffix {second.suffix}"
    return "give what the names of masks end with as --mask-suffix"


def _why(image: Found, found: list[Found], folders: str) -> str:
    if not found:
        return f"no mask {image.key}.png in {folders}"
    first, second = sorted(each.file for each in found)[:2]
    names, how = f"{first.name} and {second.name}", "--mask-suffix decides"
    if first.name == second.name:
        names = f"{first.name} in {first.parent.name} and in {second.parent.name}"
        how = "--masks FOLDER decides"
    return f"{len(found)} masks fit it, such as {names}; {how}"


def say_twins(images: list[Found], source: Source) -> None:
    """Images that share their name with a file of another kind, which may be their mask."""
    kinds: dict[tuple[Path, str], dict[str, Found]] = defaultdict(dict)
    for each in images:
        kinds[each.folder.path, folded(each.key)][each.suffix.lower()] = each
    twins = [of for of in kinds.values() if len(of) > 1 and LOSSLESS & of.keys()]
    twins = [of for of in twins if of.keys() - LOSSLESS]
    if not twins:
        return
    suffix = min(LOSSLESS & twins[0].keys())
    example = " and ".join(sorted(each.file.name for each in twins[0].values())[:2])
    most = 2 * len(twins) >= len(kinds)
    source.add(
        Severity.REFUSE if most and holds_numbers(twins[0][suffix].file) else Severity.WARN,
        f"{counted(len(twins), 'image')} with a file of the same name, such as {example}: masks, "
        f"or the same images twice",
        f"--mask-suffix {suffix} takes the {suffix} files as masks, --masks none all files as "
        "images",
    )


def masks_among(images: list[Found], suffix: str | None) -> list[Found]:
    """Images that are masks of others in the same folder, by the endings of their names."""
    by_name: dict[tuple[str | None, str], list[Found]] = defaultdict(list)
    for each in images:
        key = folded(each.key)
        for form in {key, without_image_word(key)}:
            by_name[each.folder.split, form].append(each)

    def is_mask(each: Found) -> bool:
        key = folded(each.key)
        if suffix is not None:
            ending = folded(suffix)
            whole = key + folded(each.suffix)
            name = whole if whole.endswith(ending) else key
            bare, word = name.removesuffix(ending), ending if name.endswith(ending) else ""
        else:
            bare, word = without_mask_word(key, among_images=True)
        others = (o for o in by_name.get((each.folder.split, bare), ()) if o is not each)
        return bool(word) and any(other.folder.path == each.folder.path for other in others)

    return [each for each in images if is_mask(each)]
