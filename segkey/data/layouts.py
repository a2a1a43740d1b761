"""Layouts of folders: PASCAL VOC devkits, folders of images with masks and splits or without.

A new layout is a function from a path to a `Source`, called in `segkey.data.sources`.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from segkey.data.decode import IMAGE_SUFFIXES, MASK_SUFFIXES
from segkey.data.items import ALL, SPLITS, Item, Problem, Source, counted
from segkey.data.names import leads_out
from segkey.errors import SegkeyError
from segkey.system.files import explain_os_errors, read_text

PREDICTED_SUFFIXES = IMAGE_SUFFIXES | {".gif"}  # of an animated one, the first frame
_MAX_LIST_BYTES = 64 << 20
VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


# PASCAL VOC


def voc_root(path: Path) -> Path | None:
    """The folder of a VOC devkit that holds ImageSets: ``path``, or the newest VOC20xx below it."""
    below = (sorted(path.glob(pattern), reverse=True) for pattern in ("VOC20*", "VOCdevkit/VOC20*"))
    for root in (path, *(folder for folders in below for folder in folders)):
        if (root / "ImageSets" / "Segmentation").is_dir():
            return root
    return None


def find_voc(root: Path) -> Source:
    """A devkit split as in the paper: 90 % of its train list are train, 10 % val; val is test."""
    source = Source(root, "PASCAL VOC devkit", {}, list(VOC_CLASSES))
    train, test = _voc_list(root, "train"), _voc_list(root, "val")
    val = set(sorted(train, key=hash_of)[: round(len(train) / 10)])
    splits = {
        "train": [name for name in train if name not in val],
        "val": sorted(val),
        "test": test,
    }
    for split, names in splits.items():
        items = [item for item in (_voc_item(source, name) for name in names) if item]
        if items:
            source.splits[split] = items
    return source


def _voc_list(root: Path, name: str) -> list[str]:
    file = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    try:
        return sorted(set(read_text(file, limit=_MAX_LIST_BYTES, follow=True).split()))
    except ValueError:
        raise SegkeyError(
            f"{file} is not a list of names", "restore it from the VOC archive"
        ) from None


def _voc_item(source: Source, name: str) -> Item | None:
    """The image of that name with its mask, or None and a problem."""
    root = source.root
    if leads_out(name):
        source.problems.append(
            Problem(f"{name}.jpg", "the list names an image outside of JPEGImages")
        )
        return None
    image, mask = root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png"
    missing = [str(file.relative_to(root)) for file in (image, mask) if not file.exists()]
    if missing:
        source.problems.append(Problem(f"{name}.jpg", f"{' and '.join(missing)} missing"))
        return None
    return Item(f"JPEGImages/{name}.jpg", image, mask)


# Folders


def find_folder(path: Path, masks: Path | None) -> Source:
    """Images in a folder (or one file), with masks if there are some.

    Raises:
        SegkeyError: ``masks`` is no folder, or holds no mask for the one file.
    """
    if masks is not None and not masks.is_dir():
        raise SegkeyError(f"there is no folder of masks at {masks}", "give the folder with --masks")
    if path.is_file():
        return _single_image(path, masks)
    pairs = _image_folders(path, masks)
    mask_folders = dict.fromkeys(masks for _, masks in pairs.values() if masks)
    kind = "a folder of images" + (" with masks" if mask_folders else "")
    # Names are relative to the folder of images, so that "data" and "data/images" are dealt out
    # alike.
    source = Source(_images_within(path), kind, {})
    for split, (folder, mask_folder) in pairs.items():
        if items := _pair(folder, mask_folder, source):
            source.splits[split] = items
    used = {item.mask for items in source.splits.values() for item in items}
    for folder in mask_folders:
        _note_unused(folder, used, source)
    return source


def _single_image(path: Path, masks: Path | None) -> Source:
    mask = _masks_by_name(masks).get(path.stem) if masks else None
    if masks and not mask:
        raise SegkeyError(
            f"{path.name} has no mask in {masks}", "masks have the image's name, as PNG"
        )
    return Source(path.parent, "a single image", {ALL: [Item(path.name, path, mask)]})


def _images_within(path: Path) -> Path:
    return path / "images" if (path / "images").is_dir() else path


def _image_folders(path: Path, masks: Path | None) -> dict[str, tuple[Path, Path | None]]:
    """For each split, the folder of its images and of its masks."""
    outer = [split for split in SPLITS if (path / split / "images").is_dir()]
    if masks is None and outer:  # train/images, train/masks
        return {s: (path / s / "images", _if_folder(path / s / "masks")) for s in outer}
    images = _images_within(path)
    masks = masks or _masks_beside(images)
    inner = [split for split in SPLITS if (images / split).is_dir()]
    if not inner:
        return {ALL: (images, masks)}
    return {s: (images / s, (masks and _if_folder(masks / s)) or masks) for s in inner}


def _masks_beside(images: Path) -> Path | None:
    """The folder ``masks`` beside a folder called ``images``, or inside another folder."""
    real = images.resolve()
    return _if_folder(real.parent / "masks" if real.name == "images" else images / "masks")


def _if_folder(path: Path) -> Path | None:
    return path if path.is_dir() else None


def _pair(folder: Path, masks: Path | None, source: Source) -> list[Item]:
    """The images below a folder with their masks; what is left out is told to ``source``."""
    by_name = _masks_by_name(masks) if masks else {}
    items, others = [], 0
    for file in walk(folder):
        if masks and file.resolve().is_relative_to(masks.resolve()):
            continue
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            others += 1
            continue
        name = file.relative_to(source.root).as_posix()
        stem = file.relative_to(folder).with_suffix("").as_posix()
        if masks and stem not in by_name:
            source.problems.append(Problem(name, f"no mask {stem}.png in {masks}"))
            continue
        items.append(Item(name, file, by_name.get(stem)))
    if others:
        source.notes.append(f"{counted(others, 'other file')} in {folder} ignored")
    return sorted(items, key=lambda item: item.name)


def _note_unused(folder: Path, used: set[Path], source: Source) -> None:
    unused = sorted(set(_masks_by_name(folder).values()) - used)
    if unused:
        source.notes.append(
            f"{counted(len(unused), 'mask')} without an image in {folder}, such as "
            f"{unused[0].relative_to(folder)}"
        )


def _masks_by_name(folder: Path) -> dict[str, Path]:
    """Mask files by their path below ``folder``, without the suffix."""
    masks = (file for file in walk(folder) if file.suffix.lower() in MASK_SUFFIXES)
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in masks}


def find_pictures_below(path: Path) -> Source:
    """Images to predict in a folder, in its ``images/``, or in a VOC devkit; masks are left out."""
    voc = voc_root(path)
    root = voc / "JPEGImages" if voc else _images_within(path)
    source = Source(root, "a folder of images", {ALL: []})
    others = 0
    for file in walk(root):
        if file.suffix.lower() not in PREDICTED_SUFFIXES or file.is_relative_to(root / "masks"):
            others += 1
        else:
            source.splits[ALL].append(Item(file.relative_to(root).as_posix(), file, None))
    if others:
        source.notes.append(f"{counted(others, 'other file')} in {root} ignored")
    return source


def walk(folder: Path) -> Iterable[Path]:
    """All files below a folder, hidden ones left out, in a fixed order."""
    with explain_os_errors(folder):
        for parent, folders, files in os.walk(folder, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def hash_of(name: str) -> int:
    """64 bits of SHA-256: decides which split an image belongs to."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")
