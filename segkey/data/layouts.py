"""Folders of images: with masks or without, with splits or without, as tools and people lay them.

Every file below the folder is looked at once: what its path says (`segkey.data.name_roles`) makes
it an image of a split, a mask, or something that is named with the reason why it is not used.
"""

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segkey.data.formats import is_image_file
from segkey.data.found import Folder, Found, prefix_of
from segkey.data.items import ALL, SPLITS, Item, Severity, Source, counted
from segkey.data.likely_masks import say_masks_elsewhere
from segkey.data.name_roles import ASIDE, IMAGE, MASK, understood
from segkey.data.not_images import Others
from segkey.data.pairing import Masks, masks_among, say_twins
from segkey.data.unpaired import say_unpaired
from segkey.data.walking import Walk, files_outside
from segkey.errors import SegkeyError

NO_MASKS = "none"  # of --masks: all are pictures


def find_folder(path: Path, masks: Path | None, mask_suffix: str | None = None) -> Source:
    """Images in a folder (or one file), with masks if there are some.

    Args:
        path: the folder or file.
        masks: the folder of masks; ``none`` takes all files as images.
        mask_suffix: what a mask's name has behind its image's.

    Raises:
        SegkeyError: ``masks`` is no folder, or holds no mask for the one file.
    """
    pictures_only = masks is not None and str(masks) == NO_MASKS and not masks.is_dir()
    if masks is not None and not pictures_only and not masks.is_dir():
        raise SegkeyError(f"there is no folder of masks at {masks}", "give the folder with --masks")
    if path.is_file():
        return _single_image(path, None if pictures_only else masks, mask_suffix)
    return _Search(path, None if pictures_only else masks, mask_suffix, pictures_only).source()


def _single_image(path: Path, masks: Path | None, mask_suffix: str | None) -> Source:
    source = Source(path.parent, "a single image", {ALL: [Item(path.name, path, None)]})
    if masks:
        image = Found(Folder(path.parent, "", None, None, ""), path.name)
        (found,) = Masks(_found_in(masks), mask_suffix).pair([image], source, str(masks))
        if not found:
            raise SegkeyError(
                f"{path.name} has no mask in {masks}", "masks have the image's name, as PNG"
            )
        source.splits[ALL] = [Item(path.name, path, found.file)]
    return source


def _found_in(masks: Path) -> list[Found]:
    """The images below a folder of masks, by what lies below it."""
    return [
        Found(folder, name)
        for path, names in Walk(masks).folders()
        for folder in (Folder.below(path, masks),)
        for name in names
        if is_image_file(name)
    ]


def _wrappers(holding: list[Path], base: Path) -> list[str]:
    """Folders that hold all images and say nothing, as archives have them at their top."""
    inside = [each.relative_to(base).parts for each in holding]
    shared = os.path.commonprefix(inside) if inside else ()
    return list(itertools.takewhile(lambda part: understood(part) is None, shared))


class _Search:
    """Goes through a folder once, and makes a source of what it finds."""

    def __init__(
        self, path: Path, masks: Path | None, mask_suffix: str | None, pictures_only: bool
    ):
        self.path, self.given, self.suffix = path, masks, mask_suffix
        self.pictures_only, self.top = pictures_only, path
        self.images: list[Found] = []
        self.masks: list[Found] = []
        self.others = Others(path)
        self.aside: list[Found] = []  # pictures of masks, such as visualisations

    def source(self) -> Source:
        self._look_through()
        source = Source(self._root(), "a folder of images", {})
        self.others.tell(source, bool(self.masks))
        every = self.images
        self._leave_out_loose(source)
        if self.masks or self.given:
            source.kind += " with masks"
        self._divide(source)
        self._name_unused(source)
        if not (self.masks or self.given or self.pictures_only):
            say_twins(self.images, source)
            say_masks_elsewhere(every, source)
            say_unpaired(self.images, source)
            if not self.others.holds_annotations:
                self._say_empty_masks(source)
        if self.masks and not (every or self.given):
            source.add(
                Severity.REFUSE,
                f"{counted(len(self.masks), 'mask')}, such as {self.masks[0].name}, and no images",
                "give the folder that holds images and masks, or --masks none to take all files as "
                "images",
            )
        return source

    def _look_through(self) -> None:
        walk = Walk(self.path)
        folders = list(walk.folders())
        if self.given:
            given = self.given.resolve()
            folders = [(path, files_outside(path, names, given)) for path, names in folders]
        holding = [path for path, names in folders if any(map(is_image_file, names))]
        self.top = self.path.joinpath(*_wrappers(holding, self.path))
        for path, names in folders:
            self._sort_in(Folder.below(path, self.path, self.top), names)
        self.others.again = walk.again
        if self.given:
            self.aside, self.masks = self.aside + self.masks, _found_in(self.given)
            return
        for beside in self._beside():
            self.masks += _found_in(beside)
        if not self.pictures_only:
            among = masks_among(self.images, self.suffix)
            taken = set(among)
            self.images = [each for each in self.images if each not in taken]
            self.masks += among
            self.among = among

    def _sort_in(self, folder: Folder, names: list[str]) -> None:
        seen = self.pictures_only or folder.role in (None, IMAGE)
        files = self.images if seen else self.masks
        for name in names:
            if folder.role == ASIDE:
                self.aside.append(Found(folder, name))
            elif is_image_file(name):
                files.append(Found(folder, name))
            else:
                self.others.add(folder.path / name)

    def _beside(self) -> list[Path]:
        """Folders of masks beside a folder that is called ``images``."""
        real = self.path.resolve()
        if self.pictures_only or self.masks or (understood(real.name) or (0, 0))[1] != IMAGE:
            return []
        told = understood(real.name)
        return [
            folder
            for folder in sorted(real.parent.iterdir())
            if folder.is_dir() and understood(folder.name) == (told[0], MASK)
        ]

    def _root(self) -> Path:
        """What names are relative to: the one folder called ``images``, if all images lie there.

        So "data" and "data/images" are dealt out alike.
        """
        tops = _tops(self.images, self.path)
        tops = {top for top in tops if understood(top) == (None, IMAGE)} if self.images else set()
        if (self.path / "images").is_dir():
            return self.path / "images"
        return self.path / tops.pop() if len(tops) == 1 else self.path

    def _leave_out_loose(self, source: Source) -> None:
        """Images beside folders of images, or beside those of splits, belong to none of them."""

        def is_top(inside: list[Found]) -> bool:  # deeper, it is an album's own name
            return any(understood(part) for part in _tops(inside, self.path))

        for known, where in (
            (lambda folder: folder.role == IMAGE, "folders of images"),
            (lambda folder: folder.split is not None, "folders of splits"),
        ):
            inside = [each for each in self.images if known(each.folder)]
            loose = [each for each in self.images if not known(each.folder)]
            if not inside or not loose or self.pictures_only:
                continue
            if not (self.masks or is_top(inside)):  # albums, one of which is called 'test'
                if any(each.folder.split for each in inside):
                    source.note(
                        f"{counted(len(inside), 'image')} in folders named as splits, such as "
                        f"{inside[0].name}, taken with the others: deeper folders are albums"
                    )
                self.images = _moved(self.images, lambda folder: replace(folder, split=None))
                continue
            masks = f"if they are masks, give --masks {loose[0].file.parent}; otherwise "
            source.add(
                Severity.WARN,
                f"{counted(len(loose), 'image')} beside the {where} left out, such as "
                f"{loose[0].name}",
                f"{'' if self.masks else masks}move them into one of the {where}, or give their "
                f"own folder",
            )
            self.images = inside

    def _divide(self, source: Source) -> None:
        def from_root(folder: Folder) -> Folder:
            inside = folder.path.is_relative_to(source.root)
            prefix = prefix_of(folder.path, source.root if inside else self.path)
            return replace(folder, prefix=prefix)

        self.images = _moved(self.images, from_root)
        with_masks = bool(self.masks or self.given)
        masks = [None] * len(self.images)
        if with_masks:
            masks = self._paired(source)
        splits: dict[str, list[Item]] = defaultdict(list)
        for each, mask in zip(self.images, masks, strict=True):
            if mask or not with_masks:
                splits[each.folder.split or ALL].append(Item.found(each.name, each, mask))
        for split in (*SPLITS, ALL):
            if items := splits.get(split):
                source.splits[split] = sorted(items, key=lambda item: item.name)
        self.used = set(filter(None, masks))

    def _paired(self, source: Source) -> list[Found | None]:
        """The mask of each image; a split that has none is left out as one."""
        masks = Masks(self.masks, self.suffix).pair(self.images, source, self._where())
        splits = [each.folder.split or ALL for each in self.images]
        having = {split for split, mask in zip(splits, masks, strict=True) if mask}
        bare = [split for split in dict.fromkeys(splits) if split not in having]
        if having and bare:
            for split in bare:
                of_it = zip(self.images, splits, strict=True)
                names = {each.name for each, its in of_it if its == split}
                source.problems = [each for each in source.problems if each.name not in names]
                source.add(
                    Severity.WARN,
                    f"{split} is left out: none of its {counted(len(names), 'image')} has a mask",
                    "encrypt its folder on its own, with another --out; segkey predict segments "
                    "its images as they are",
                )
        return masks

    def _where(self) -> str:
        """Where masks were looked for, in words."""
        if self.given:
            return str(self.given)
        folders = {each.folder.path for each in self.masks}
        tops = {
            next((p for p in (f, *f.parents) if (understood(p.name) or (0, 0))[1] == MASK), f)
            for f in folders
        }
        return str(min(tops)) if len(tops) == 1 else f"the {len(tops)} folders of masks"

    def _say_empty_masks(self, source: Source) -> None:
        """A folder of masks in which nothing can be read: somebody expects them to be used."""
        for folder in (each for top in {self.path, self.top} for each in sorted(top.iterdir())):
            if (understood(folder.name) or (0, 0))[1] == MASK and folder.is_dir():
                source.add(
                    Severity.WARN,
                    f"{folder} holds no mask that can be read: images are taken without masks",
                    "put a PNG of class numbers under each image's name there",
                )
                return

    def _name_unused(self, source: Source) -> None:
        groups: dict[Path, list[Path]] = defaultdict(list)
        for each in self.masks:
            if each not in self.used:
                groups[self._top(each.folder.path)].append(each.file)
        for folder, files in itertools.islice(groups.items(), 5):
            source.note(
                f"{counted(len(files), 'mask')} without an image in {folder}, such as "
                f"{min(files).relative_to(folder)}"
            )
        if self.aside:
            why = "--masks names another folder" if self.given else "not masks of classes"
            without = not (self.given or self.masks)
            source.add(
                Severity.WARN if without else Severity.NOTE,
                f"{counted(len(self.aside), 'file')} not used, such as {self.aside[0].name}: {why}",
                "" if self.given else "--masks FOLDER takes another folder of masks",
            )
        self._say_where_masks_lie(source)

    def _say_where_masks_lie(self, source: Source) -> None:
        among = [each for each in getattr(self, "among", ()) if each in self.used]
        if among:
            source.note(
                f"{counted(len(among), 'mask')} among the images, such as {among[0].name}",
                "--masks none takes all files as images",
            )

    def _top(self, path: Path) -> Path:
        """The folder of masks that the folder of a mask lies in."""
        if self.given:
            return self.given
        for folder in (path, *path.parents):
            if (understood(folder.name) or (0, 0))[1] == MASK:
                return folder
        return path


def _tops(files: list[Found], base: Path) -> set[str]:
    """The first folders below ``base`` of some files, or the files themselves if they lie there."""
    folders = dict.fromkeys(each.folder for each in files)
    inside = {folder: folder.path.relative_to(base).parts for folder in folders}
    return {(inside[each.folder] or (each.file_name,))[0] for each in files}


def _moved(files: list[Found], change: Callable[[Folder], Folder]) -> list[Found]:
    """The same files in folders that say something else."""
    new = {folder: change(folder) for folder in dict.fromkeys(each.folder for each in files)}
    return [Found(new[each.folder], each.file_name) for each in files]


def hash_of(name: str) -> int:
    """64 bits of SHA-256: decides which split an image belongs to."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")
