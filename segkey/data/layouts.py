"""The layouts of folders that are understood: PASCAL VOC devkits, lists, folders with and without
splits."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from segkey.data.decode import IMAGE_SUFFIXES, MASK_SUFFIXES
from segkey.data.items import ALL, SPLITS, Item, Problem, Source
from segkey.data.names import is_absolute, leads_out, named, without_shared_folder
from segkey.errors import SegkeyError
from segkey.system.files import explain_os_errors, given_lines, read_given_text, read_text
from segkey.system.forms import NAME

PREDICTED_SUFFIXES = IMAGE_SUFFIXES | {".gif"}  # of an animated one, the first picture


LISTS = {".txt", ".lst", ".tsv"}


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


def images_below(path: Path) -> Source:
    voc = voc_root(path)
    root = voc / "JPEGImages" if voc else path / "images" if (path / "images").is_dir() else path
    source = Source(root, "a folder of images", {ALL: []})
    others, masks = 0, root / "masks"
    for file in walk(root):
        if file.suffix.lower() not in PREDICTED_SUFFIXES or file.is_relative_to(masks):
            others += 1
        else:
            source.splits[ALL].append(Item(file.relative_to(root).as_posix(), file, None))
    if others:
        source.notes.append(f"{others} other file{'s' * (others > 1)} in {root} ignored")
    return source


def images_listed(path: Path) -> Source:
    source = Source(path.parent, "a list of images", {ALL: []})
    names = [line.strip() for line in given_lines(path) if line.strip()]
    # Absolute paths are named from the folder they share: nobody wants home/anna/photos/ again
    # below --out.
    short = without_shared_folder({name for name in names if is_absolute(name)}, path.parent)
    for name in names:
        beside, here = path.parent / name, Path(name)
        file = here if here.is_file() and not beside.is_file() else beside
        source.splits[ALL].append(Item(Path(short.get(name, name)).as_posix(), file, None))
    return source


def voc_root(path: Path) -> Path | None:
    """The folder of a VOC devkit that holds ImageSets: ``path`` itself, or the newest VOC20xx below
    it."""
    for root in (
        path,
        *sorted(path.glob("VOC20*"), reverse=True),
        *sorted(path.glob("VOCdevkit/VOC20*"), reverse=True),
    ):
        if (root / "ImageSets" / "Segmentation").is_dir():
            return root
    return None


def find_voc(root: Path) -> Source:
    """VOC's train list becomes 90 % train and 10 % val, its val list becomes test, as in the
    paper."""
    source = Source(root, "PASCAL VOC devkit", {}, list(VOC_CLASSES))
    lists = {}
    for name in ("train", "val"):
        file = root / "ImageSets" / "Segmentation" / f"{name}.txt"
        try:
            names = read_text(file, limit=64 << 20, follow=True).split()
        except ValueError:
            raise SegkeyError(
                f"{file} is not a list of names", "restore it from the VOC archive"
            ) from None
        lists[name] = sorted(set(names))
    ranked = sorted(lists["train"], key=hash_of)
    val = set(ranked[: round(len(ranked) / 10)])
    deal = {
        "train": [name for name in lists["train"] if name not in val],
        "val": sorted(val),
        "test": lists["val"],
    }
    for split, names in deal.items():
        items = []
        for name in names:
            image, mask = (
                root / "JPEGImages" / f"{name}.jpg",
                root / "SegmentationClass" / f"{name}.png",
            )
            if leads_out(name):
                source.problems.append(
                    Problem(f"{name}.jpg", "the list names an image outside of JPEGImages")
                )
                continue
            missing = [str(file.relative_to(root)) for file in (image, mask) if not file.exists()]
            if missing:
                source.problems.append(Problem(f"{name}.jpg", f"{' and '.join(missing)} missing"))
            else:
                items.append(Item(f"JPEGImages/{name}.jpg", image, mask))
        source.splits[split] = items
    source.splits = {split: items for split, items in source.splits.items() if items}
    return source


def find_listed(path: Path, masks: str | Path | None) -> Source:
    """Images and masks that a text file names; none of them is looked for before it is read."""
    if masks is not None:
        raise SegkeyError(
            f"{path} is a list, and --masks is for folders",
            "name each mask behind its image and a tab",
        )
    source = Source(path.parent, "a list of images", {ALL: []})
    items: dict[str, Item] = {}  # by what the list calls them
    twice = 0
    for number, line in enumerate(given_lines(path), 1):
        image, *rest = [part.strip() for part in line.split("\t")]
        if len(rest) > 1:
            raise SegkeyError(
                f"{path}, line {number}: not an image, or an image, a tab and its mask",
                "mend the line",
            )
        if not image:
            continue
        if image in items:
            twice += 1
            continue
        mask = path.parent / rest[0] if rest and rest[0] else None
        items[image] = Item(image, path.parent / image, mask)
    listed = named(items, path, source)
    if any(item.mask for item in listed):
        source.kind += " with masks"
        source.problems += [
            Problem(item.name, f"{path} names no mask for it") for item in listed if not item.mask
        ]
        listed = [item for item in listed if item.mask]
    if twice:
        source.notes.append(
            f"{twice} image{'s' * (twice > 1)} listed more than once in {path}, and taken once"
        )
    source.splits[ALL] = listed
    return source


def find_folder(path: Path, masks: Path | None) -> Source:
    """Images in a folder (or one file), with masks where there are some."""
    if masks is not None and not masks.is_dir():
        raise SegkeyError(f"there is no folder of masks at {masks}", "give the folder with --masks")
    if path.is_file():
        item_mask = _index_masks(masks).get(path.stem) if masks else None
        source = Source(path.parent, "a single image", {ALL: [Item(path.name, path, item_mask)]})
        if masks and not item_mask:
            raise SegkeyError(
                f"{path.name} has no mask in {masks}", "masks have the image's name, as PNG"
            )
        return source
    pairs = _image_folders(path, masks)
    splits: dict[str, list[Item]] = {}
    kind = "a folder of images" + (
        " with masks" if any(masks for _, masks in pairs.values()) else ""
    )
    # Names are relative to the folder of images, so that "data" and "data/images" are dealt out
    # alike.
    source = Source(path / "images" if (path / "images").is_dir() else path, kind, splits)
    used: set[Path] = set()
    for split, (folder, mask_folder) in pairs.items():
        items, others = _pair(folder, mask_folder, source)
        used |= {item.mask for item in items if item.mask}
        if items:
            splits[split] = items
        if others:
            source.notes.append(f"{others} other file{'s' * (others > 1)} in {folder} ignored")
    for folder in dict.fromkeys(mask_folder for _, mask_folder in pairs.values() if mask_folder):
        unused = sorted(set(_index_masks(folder).values()) - used)
        if unused:
            example = unused[0].relative_to(folder)
            source.notes.append(
                f"{len(unused)} mask{'s' * (len(unused) > 1)} without an image in {folder}, such "
                f"as {example}"
            )
    return source


def read_classes_beside(path: Path, source: Source) -> None:
    """Take class names from a ``classes.txt`` in or beside the folder."""
    places = (path / "classes.txt", path.resolve().parent / "classes.txt")
    file = next((place for place in places if os.path.lexists(place)), None)
    if file and source.has_masks:
        source.classes = read_classes(file)
        source.notes.append(f"class names from {file}")


def _image_folders(path: Path, masks: Path | None) -> dict[str, tuple[Path, Path | None]]:
    """For each split, the folder of its images and of its masks."""
    if masks is None and any(
        (path / split / "images").is_dir() for split in SPLITS
    ):  # train/images, train/masks
        folders = {
            s: (path / s / "images", path / s / "masks")
            for s in SPLITS
            if (path / s / "images").is_dir()
        }
        return {s: (images, m if m.is_dir() else None) for s, (images, m) in folders.items()}
    images = path / "images" if (path / "images").is_dir() else path
    if masks is None:
        beside = (
            images.resolve().parent / "masks"
            if images.resolve().name == "images"
            else path / "masks"
        )
        masks = beside if beside.is_dir() else None
    within = [split for split in SPLITS if (images / split).is_dir()]
    if not within:
        return {ALL: (images, masks)}
    return {s: (images / s, masks / s if masks and (masks / s).is_dir() else masks) for s in within}


def _pair(folder: Path, masks: Path | None, source: Source) -> tuple[list[Item], int]:
    """The images below a folder with their masks, and how many other files there were."""
    by_name = _index_masks(masks) if masks else {}
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
    return sorted(items, key=lambda item: item.name), others


def walk(folder: Path) -> Iterable[Path]:
    """All files below a folder, hidden ones left out, in a fixed order."""
    with explain_os_errors(folder):
        for parent, folders, files in os.walk(folder, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _index_masks(folder: Path) -> dict[str, Path]:
    """Mask files by their path below ``folder``, without the suffix."""
    masks = (file for file in walk(folder) if file.suffix.lower() in MASK_SUFFIXES)
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in masks}


def hash_of(name: str) -> int:
    return int.from_bytes(
        hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big"
    )


def read_classes(file: Path, given: bool = False) -> list[str]:
    """Class names from a text file, a line a class; blank lines at the end are dropped.

    Args:
        file: the file.
        given: the user named it, so that it may be a pipe.

    Raises:
        SegkeyError: no such file, no text, no name, or more than 255.
    """
    try:
        text = read_given_text(file) if given else read_text(file, limit=1 << 20, follow=True)
        names = text.rstrip().splitlines()
    except ValueError:
        names = []
    names = [name.strip() for name in names]
    if not 0 < len(names) < 256 or not all(map(NAME.fits, names)) or len(set(names)) < len(names):
        raise SegkeyError(
            f"{file} is not a list of classes",
            "write 1 to 255 different names of at most 200 printable characters, a line each, "
            "class 0 first",
        )
    return names
