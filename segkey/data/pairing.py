"""Pair images with masks: by the same name, by letter case or Unicode form, by usual endings.

Every rule beyond the same name is said with the number of pairs it made. An image that two masks
fit, and a mask that images of two splits claim, are never decided silently.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from segkey.data.formats import LOSSLESS
from segkey.data.found import Found
from segkey.data.items import Problem, Severity, Source, counted
from segkey.data.likely_masks import holds_numbers, say_likely_folders
from segkey.data.name_roles import folded, rank_of, without_image_word, without_mask_word
from segkey.data.unpaired import folder_of, why_no_mask

_SAME, _FOLDED, _WORDS, _GIVEN = range(4)
_RULES = {
    _FOLDED: "found by a name that differs in letter case or Unicode form",
    _WORDS: "found by the usual endings of names",
    _GIVEN: "found by --mask-suffix",
}


@dataclass
class _Pairs:
    """Masks by image, with the rules that found them."""

    masks: dict[str, Path] = field(default_factory=dict)
    rules: dict[int, list[tuple[Found, Path]]] = field(default_factory=lambda: defaultdict(list))


class Masks:
    """Masks, to be found by the names of images."""

    def __init__(self, files: Iterable[Found], suffix: str | None = None):
        """``suffix``: what the user says a mask's name has behind its image's; with a dot in
        front, instead of its image's suffix."""
        self.files = {each.file: each for each in files}
        self.suffix = None if suffix is None else folded(suffix)
        self.passed_over: set[str] = set()  # folders whose masks another folder's were put before
        self._index: dict[tuple, tuple[Path, ...]] = {}
        for each in self.files.values():
            for form in self._forms(each):
                key = (each.place.split, *form)
                self._index[key] = (*self._index.get(key, ()), each.file)

    def _forms(self, mask: Found) -> list[tuple[int, str]]:
        """Under which keys a mask is looked for, by rule."""
        key = folded(mask.place.key)
        if self.suffix is not None:
            whole = key + folded(mask.file.suffix)
            where = whole if whole.endswith(self.suffix) else key
            fits = where.endswith(self.suffix)
            return [(_GIVEN, where[: -len(self.suffix) or None])] if fits else []
        bare, word = without_mask_word(key)
        forms = [(_SAME, mask.place.key), (_FOLDED, key), (_WORDS, bare)]
        return forms if word else forms[:2]

    def pair(self, images: list[Found], source: Source, folders: str) -> dict[str, Path]:
        """The mask of each image by the image's name; what is left out is told to ``source``."""
        pairs = _Pairs()
        alone = Counter(folder_of(image) for image in images)
        for image in images:
            found, rule = self._look_for(image)
            if len(found) == 1:
                pairs.masks[image.name] = found[0]
                if rule in _RULES:
                    pairs.rules[rule].append((image, found[0]))
            else:
                cure = _cure(found) or why_no_mask(image, self.files, alone[folder_of(image)] == 1)
                source.problems.append(Problem(image.name, _why(image, found, folders), cure))
        self._leave_out_passed_over(images, pairs, source)
        self._say(images, pairs, source)
        if images and not pairs.masks:
            self._say_likely_suffix(images, source)
            say_likely_folders(images, list(self.files.values()), source)
        return pairs.masks

    def _leave_out_passed_over(self, images: list[Found], pairs: _Pairs, source: Source) -> None:
        """What is no mask of classes for some images is none for the others either."""
        out = [i for i in images if _parent(pairs.masks.get(i.name)) in self.passed_over]
        for image in out:
            mask = pairs.masks.pop(image.name)
            why = f"{mask.name} in {mask.parent.name} is of another kind than the other masks"
            source.problems.append(Problem(image.name, why))
        for made in pairs.rules.values():
            made[:] = [(image, mask) for image, mask in made if image.name in pairs.masks]
        if self.passed_over:
            source.note(
                f"masks in {', '.join(sorted(self.passed_over))} not used: other folders hold "
                f"better ones of the same images",
                "--masks FOLDER decides",
            )

    def _say_likely_suffix(self, images: list[Found], source: Source) -> None:
        """What the names of masks have behind those of images, if that is the same for some."""
        keys = [folded(mask.place.key) for mask in itertools.islice(self.files.values(), 1000)]
        endings: Counter[str] = Counter()
        for image in images[:20]:
            for key in {folded(image.place.key), without_image_word(folded(image.place.key))}:
                endings.update({o[len(key) :] for o in keys if o.startswith(key) and o != key})
        endings = Counter({e: n for e, n in endings.items() if re.search("[a-z]", e)})
        if endings:
            ending, _ = endings.most_common(1)[0]
            source.add(
                Severity.WARN,
                f"no mask has its image's name, but some have '{ending}' behind it",
                f"give --mask-suffix {ending}",
            )

    def _look_for(self, image: Found) -> tuple[list[Path], int]:
        key = folded(image.place.key)
        bare = without_image_word(key)
        keys = [(_SAME, image.place.key), (_FOLDED, key)]
        keys += [(_WORDS, key), (_WORDS, bare), (_FOLDED, bare)]
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

    def _held(self, image: Found, rule: int, wanted: str) -> list[Path]:
        for split in dict.fromkeys((image.place.split, None)):
            if found := [m for m in self._index.get((split, rule, wanted), ()) if m != image.file]:
                return found
        return []

    def _better(self, image: Found, bare: str, found: list[Path]) -> list[Path]:
        """Masks that a looser rule finds in another folder and whose ending ranks before those
        found: DRIVE's ``1st_manual/21_manual1`` before ``mask/21_training_mask``."""
        others = self._best(self._held(image, _WORDS, bare) or found)
        if self._rank(others[0]) >= self._rank(found[0]):
            return []
        self.passed_over |= {m.parent.name for m in found} - {m.parent.name for m in others}
        return others

    def _best(self, found: list[Path]) -> list[Path]:
        """Those of several masks for one image that no rule puts behind another."""
        best = min(map(self._rank, found))
        return [file for file in found if self._rank(file) == best]

    def _rank(self, file: Path) -> tuple[bool, int]:
        key = folded(self.files[file].place.key)
        return file.suffix.lower() not in LOSSLESS, rank_of(without_mask_word(key)[1])

    def _say(self, images: list[Found], pairs: _Pairs, source: Source) -> None:
        for rule, text in _RULES.items():
            if made := pairs.rules[rule]:
                image, mask = made[0]
                cure = "--mask-suffix decides how masks are named" if rule == _WORDS else ""
                source.note(
                    f"{counted(len(made), 'mask')} {text}, such as {mask.name} for "
                    f"{image.file.name}",
                    cure,
                )
        twice = {mask for mask, count in Counter(pairs.masks.values()).items() if count > 1}
        claims: dict[Path, list[Found]] = defaultdict(list)
        for image in images if twice else ():
            if (mask := pairs.masks.get(image.name)) in twice:
                claims[mask].append(image)
        _say_claimed_twice(claims, source)


def _say_claimed_twice(claims: dict[Path, list[Found]], source: Source) -> None:
    """One mask cannot be that of two images: at best one of them is right."""
    if not claims:
        return
    across = {m: by for m, by in claims.items() if len({each.place.split for each in by}) > 1}
    mask, by = next(iter((across or claims).items()))
    example = f"{mask.name} by {' and '.join(each.name for each in by[:2])}"
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


def _parent(file: Path | None) -> str | None:
    return file.parent.name if file else None


def _cure(found: list[Path]) -> str:
    """What decides between masks that fit an image."""
    if not found:
        return ""
    first, second = sorted(found)[:2]
    if first.name == second.name:
        return f"give --masks {first.parent} or --masks {second.parent}"
    if first.stem == second.stem:
        return f"give --mask-suffix {first.suffix} or --mask-suffix {second.suffix}"
    return "give what the names of masks end with as --mask-suffix"


def _why(image: Found, found: list[Path], folders: str) -> str:
    if not found:
        return f"no mask {image.place.key}.png in {folders}"
    first, second = sorted(found)[:2]
    names, how = f"{first.name} and {second.name}", "--mask-suffix decides"
    if first.name == second.name:
        names = f"{first.name} in {first.parent.name} and in {second.parent.name}"
        how = "--masks FOLDER decides"
    return f"{len(found)} masks fit it, such as {names}; {how}"


def say_twins(images: list[Found], source: Source) -> None:
    """Images that share their name with a file of another kind, which may be their mask."""
    kinds: dict[tuple[Path, str], dict[str, Found]] = defaultdict(dict)
    for each in images:
        kinds[each.file.parent, folded(each.place.key)][each.file.suffix.lower()] = each
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
        key = folded(each.place.key)
        for form in {key, without_image_word(key)}:
            by_name[each.place.split, form].append(each)

    def is_mask(each: Found) -> bool:
        key = folded(each.place.key)
        if suffix is not None:
            ending = folded(suffix)
            whole = key + folded(each.file.suffix)
            name = whole if whole.endswith(ending) else key
            bare, word = name.removesuffix(ending), ending if name.endswith(ending) else ""
        else:
            bare, word = without_mask_word(key, among_images=True)
        others = (o for o in by_name.get((each.place.split, bare), ()) if o is not each)
        return bool(word) and any(other.file.parent == each.file.parent for other in others)

    return [each for each in images if is_mask(each)]
