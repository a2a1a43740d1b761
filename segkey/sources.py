"""Find images, pair them with masks, deal them into splits; opens none of them.

Understood: a PASCAL VOC devkit; a folder with ``images/`` and ``masks/``, with or without
``train/ val/ test/`` inside them (or around them); a folder ``images`` beside a folder ``masks``; a bare
folder, with or without ``masks/`` in it; a single file; a text file that lists images.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from segkey.errors import SegkeyError
from segkey.files import explain_os_errors, given_lines, read_given_text, read_text
from segkey.forms import NAME
from segkey.pictures import IMAGE_SUFFIXES, MASK_SUFFIXES

PREDICTED_SUFFIXES = IMAGE_SUFFIXES | {".gif"}  # of an animated one, the first picture
SPLITS = ("train", "val", "test")
ALL = "all"  # the one split of images that are not dealt out
AS_FOUND = "as found"  # for find(): deal nothing out
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


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: a path relative to the source, with ``/``. It is stored in shards, for whoever gets them to read.
        image, mask: their files; None, if there is no mask.
        dealt_as: what is hashed to deal the image into a split, if that is not the name.
    """

    name: str
    image: Path
    mask: Path | None
    dealt_as: str = ""


@dataclass(frozen=True)
class Problem:
    """An image that is left out, and why."""

    name: str
    why: str


@dataclass
class Source:
    """What was found: items by split, and what was left out.

    Attributes:
        root: the folder that names are relative to.
        kind: what it was taken for, in words for the user.
        splits: items by split, each sorted by name.
        classes: class names in order, or None where nothing names them.
        ignore_index: the mask value that means void.
        problems: images that were left out, with reasons.
        notes: things the user should know, in words.
    """

    root: Path
    kind: str
    splits: dict[str, list[Item]]
    classes: list[str] | None = None
    ignore_index: int = 255
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def has_masks(self) -> bool:
        return any(item.mask for items in self.splits.values() for item in items)

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))


def find(
    images: str | Path,
    masks: str | Path | None = None,
    classes: str | Path | None = None,
    ignore_index: int = 255,
    split: str | None = None,
) -> Source:
    """Find the images at a path, with their masks.

    Args:
        images: a VOC devkit, a folder, one image file, or a text file that names an image a line (`LISTS`), relative to
            its own folder, and behind a tab its mask.
        masks: the folder of masks; found by itself where it stands beside or inside ``images``.
        classes: a text file, a line a class.
        ignore_index: the mask value that means void.
        split: how to deal images out, as percentages ``TRAIN/VAL/TEST`` such as ``80/10/10``; the default
            for images with masks that have no split folders. ``all`` keeps them together, `AS_FOUND` deals nothing.

    Raises:
        SegkeyError: nothing there, no images in it, masks without images, or a split that is not one.
    """
    path = Path(images)
    if not path.exists():
        raise SegkeyError(f"there is nothing at {path}", "give a folder of images, an image, or a VOC devkit")
    voc = _voc_root(path)
    if path.is_file() and path.suffix.lower() in LISTS:
        source = _find_listed(path, masks)
        if classes is None:
            _read_classes_beside(path.parent, source)
    elif voc and masks is None:
        source = _find_voc(voc)
    else:
        source = _find_folder(path, Path(masks) if masks else None)
        if classes is None:
            _read_classes_beside(path, source)
    if split != AS_FOUND and (split is not None or (set(source.splits) == {ALL} and source.has_masks)):
        every = [item for items in source.splits.values() for item in items]
        source.splits = _deal(every, "80/10/10" if split is None else split)
    if not len(source):
        raise _nothing_in(path, source)
    if classes is not None:
        source.classes = read_classes(Path(classes), given=True)
    source.ignore_index = ignore_index
    return source


def _nothing_in(path: Path, source: Source) -> SegkeyError:
    if source.problems:
        first = source.problems[0]
        return SegkeyError(
            f"{path}: none of {len(source.problems)} images can be used; {first.name}: {first.why}",
            "masks are found by the image's name, as PNG; give their folder with --masks",
        )
    return SegkeyError(f"{path} holds no images", f"segkey reads {', '.join(sorted(IMAGE_SUFFIXES))}")


def find_pictures(path: str | Path) -> Source:
    """Images to predict, as one split `ALL`: whatever is an image counts, masks are none.

    Args:
        path: an image, a folder (of a folder with ``images/`` in it, or a VOC devkit, its images), or a text file
            that names an image a line, relative to its own folder or, failing that, to the current one.

    Raises:
        SegkeyError: nothing there, or no image.
    """
    path = Path(path)
    if not path.exists():
        raise SegkeyError(f"there is nothing at {path}", "give an image, a folder of images, or a list of them")
    if path.is_dir():
        source = _pictures_below(path)
    elif path.suffix.lower() in LISTS:
        source = _pictures_listed(path)
    else:
        source = Source(path.parent, "a single image", {ALL: [Item(path.name, path, None)]})
    if not len(source):
        raise _nothing_in(path, source)
    return source


def _pictures_below(path: Path) -> Source:
    voc = _voc_root(path)
    root = voc / "JPEGImages" if voc else path / "images" if (path / "images").is_dir() else path
    source = Source(root, "a folder of images", {ALL: []})
    others, masks = 0, root / "masks"
    for file in _walk(root):
        if file.suffix.lower() not in PREDICTED_SUFFIXES or file.is_relative_to(masks):
            others += 1
        else:
            source.splits[ALL].append(Item(file.relative_to(root).as_posix(), file, None))
    if others:
        source.notes.append(f"{others} other file{'s' * (others > 1)} in {root} ignored")
    return source


def _pictures_listed(path: Path) -> Source:
    source = Source(path.parent, "a list of images", {ALL: []})
    names = [line.strip() for line in given_lines(path) if line.strip()]
    # Absolute paths are named from the folder they share: nobody wants home/anna/photos/ again below --out.
    short = _without_shared_folder({name for name in names if _is_absolute(name)}, path.parent)
    for name in names:
        beside, here = path.parent / name, Path(name)
        file = here if here.is_file() and not beside.is_file() else beside
        source.splits[ALL].append(Item(Path(short.get(name, name)).as_posix(), file, None))
    return source


# ------------------------------------------------------------------ PASCAL VOC


def _voc_root(path: Path) -> Path | None:
    """The folder of a VOC devkit that holds ImageSets: ``path`` itself, or the newest VOC20xx below it."""
    for root in (
        path,
        *sorted(path.glob("VOC20*"), reverse=True),
        *sorted(path.glob("VOCdevkit/VOC20*"), reverse=True),
    ):
        if (root / "ImageSets" / "Segmentation").is_dir():
            return root
    return None


def _find_voc(root: Path) -> Source:
    """VOC's train list becomes 90 % train and 10 % val, its val list becomes test, as in the paper."""
    source = Source(root, "PASCAL VOC devkit", {}, list(VOC_CLASSES))
    lists = {}
    for name in ("train", "val"):
        file = root / "ImageSets" / "Segmentation" / f"{name}.txt"
        try:
            names = read_text(file, limit=64 << 20, follow=True).split()
        except ValueError:
            raise SegkeyError(f"{file} is not a list of names", "restore it from the VOC archive") from None
        lists[name] = sorted(set(names))
    ranked = sorted(lists["train"], key=_hash_of)
    val = set(ranked[: round(len(ranked) / 10)])
    deal = {
        "train": [name for name in lists["train"] if name not in val],
        "val": sorted(val),
        "test": lists["val"],
    }
    for split, names in deal.items():
        items = []
        for name in names:
            image, mask = root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png"
            if _leads_out(name):
                source.problems.append(Problem(f"{name}.jpg", "the list names an image outside of JPEGImages"))
                continue
            missing = [str(file.relative_to(root)) for file in (image, mask) if not file.exists()]
            if missing:
                source.problems.append(Problem(f"{name}.jpg", f"{' and '.join(missing)} missing"))
            else:
                items.append(Item(f"JPEGImages/{name}.jpg", image, mask))
        source.splits[split] = items
    source.splits = {split: items for split, items in source.splits.items() if items}
    return source


# ------------------------------------------------------------------ lists


def _find_listed(path: Path, masks: str | Path | None) -> Source:
    """Images and masks that a text file names; none of them is looked for before it is read."""
    if masks is not None:
        raise SegkeyError(f"{path} is a list, and --masks is for folders", "name each mask behind its image and a tab")
    source = Source(path.parent, "a list of images", {ALL: []})
    items: dict[str, Item] = {}  # by what the list calls them
    twice = 0
    for number, line in enumerate(given_lines(path), 1):
        image, *rest = [part.strip() for part in line.split("\t")]
        if len(rest) > 1:
            raise SegkeyError(f"{path}, line {number}: not an image, or an image, a tab and its mask", "mend the line")
        if not image:
            continue
        if image in items:
            twice += 1
            continue
        mask = path.parent / rest[0] if rest and rest[0] else None
        items[image] = Item(image, path.parent / image, mask)
    listed = _named(items, path, source)
    if any(item.mask for item in listed):
        source.kind += " with masks"
        source.problems += [Problem(item.name, f"{path} names no mask for it") for item in listed if not item.mask]
        listed = [item for item in listed if item.mask]
    if twice:
        source.notes.append(f"{twice} image{'s' * (twice > 1)} listed more than once in {path}, and taken once")
    source.splits[ALL] = listed
    return source


def _named(items: dict[str, Item], path: Path, source: Source) -> list[Item]:
    """Items by name.

    What lies below the list's folder keeps the name it is listed by; other names tell no more of where
    the images lie than what differs between them.
    """
    outside = {name for name in items if _leads_out(name)}
    short = _without_shared_folder(outside, path.parent)
    taken = set(items) - outside
    for name in sorted(outside):
        # Hashed as listed: an image added elsewhere changes the shared folder, and must move no other.
        hashed = name.lstrip("/") if os.path.isabs(name) else name
        items[name] = replace(items[name], name=_free_name(short[name], taken), dealt_as=hashed)
    if outside:
        source.notes.append(
            f"{len(outside)} image{'s' * (len(outside) > 1)} listed by absolute paths, or outside of "
            f"{path.parent}: named from the folder they share, such as {items[min(outside)].name}; "
            "whoever gets the shards can read the names"
        )
    return sorted(items.values(), key=lambda item: item.name)


def _is_absolute(name: str) -> bool:
    """On this system or on another: a list may have been made anywhere."""
    return os.path.isabs(name) or PureWindowsPath(name).is_absolute() or name.startswith("\\")


def _leads_out(name: str) -> bool:
    """Whether a path leaves the folder that it is relative to."""
    return _is_absolute(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir


def _without_shared_folder(names: set[str], base: Path) -> dict[str, str]:
    """Short names for paths that are absolute or lead out of ``base``.

    Those on one drive, or below one folder of the root, are named from the deepest folder they share.
    """
    parts = {name: _parts(name, base) for name in names}
    groups: dict[str, list[tuple[str, ...]]] = {}
    for each in parts.values():
        groups.setdefault(each[0], []).append(each[:-1])
    shared = {top: len(os.path.commonprefix(folders)) for top, folders in groups.items()}
    return {name: "/".join(each[min(shared[each[0]], len(each) - 1) :]) for name, each in parts.items()}


def _parts(name: str, base: Path) -> tuple[str, ...]:
    """The folders of a path from its root or drive on, and its file; links are not looked at."""
    if os.path.isabs(name) or not _is_absolute(name):
        name = os.path.normpath(os.path.join(os.path.abspath(base), name))
    pure = PurePosixPath(name) if name.startswith("/") else PureWindowsPath(os.path.normpath(name))
    parts = pure.parts[1:] if isinstance(pure, PurePosixPath) else pure.parts
    return parts or (name,)


def _free_name(name: str, taken: set[str]) -> str:
    """``name``, or with a number before its suffix where that is taken; each is given once."""
    stem, suffix = os.path.splitext(name)
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{stem}-{number}{suffix}"
    taken.add(free)
    return free


# ------------------------------------------------------------------ folders


def _find_folder(path: Path, masks: Path | None) -> Source:
    """Images in a folder (or one file), with masks where there are some."""
    if masks is not None and not masks.is_dir():
        raise SegkeyError(f"there is no folder of masks at {masks}", "give the folder with --masks")
    if path.is_file():
        item_mask = _index_masks(masks).get(path.stem) if masks else None
        source = Source(path.parent, "a single image", {ALL: [Item(path.name, path, item_mask)]})
        if masks and not item_mask:
            raise SegkeyError(f"{path.name} has no mask in {masks}", "masks have the image's name, as PNG")
        return source
    pairs = _image_folders(path, masks)
    splits: dict[str, list[Item]] = {}
    kind = "a folder of images" + (" with masks" if any(masks for _, masks in pairs.values()) else "")
    # Names are relative to the folder of images, so that "data" and "data/images" are dealt out alike.
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
                f"{len(unused)} mask{'s' * (len(unused) > 1)} without an image in {folder}, such as {example}"
            )
    return source


def _read_classes_beside(path: Path, source: Source) -> None:
    """Take class names from a ``classes.txt`` in or beside the folder."""
    places = (path / "classes.txt", path.resolve().parent / "classes.txt")
    file = next((place for place in places if os.path.lexists(place)), None)
    if file and source.has_masks:
        source.classes = read_classes(file)
        source.notes.append(f"class names from {file}")


def _image_folders(path: Path, masks: Path | None) -> dict[str, tuple[Path, Path | None]]:
    """For each split, the folder of its images and of its masks."""
    if masks is None and any((path / split / "images").is_dir() for split in SPLITS):  # train/images, train/masks
        folders = {s: (path / s / "images", path / s / "masks") for s in SPLITS if (path / s / "images").is_dir()}
        return {s: (images, m if m.is_dir() else None) for s, (images, m) in folders.items()}
    images = path / "images" if (path / "images").is_dir() else path
    if masks is None:
        beside = images.resolve().parent / "masks" if images.resolve().name == "images" else path / "masks"
        masks = beside if beside.is_dir() else None
    within = [split for split in SPLITS if (images / split).is_dir()]
    if not within:
        return {ALL: (images, masks)}
    return {s: (images / s, masks / s if masks and (masks / s).is_dir() else masks) for s in within}


def _pair(folder: Path, masks: Path | None, source: Source) -> tuple[list[Item], int]:
    """The images below a folder with their masks, and how many other files there were."""
    by_name = _index_masks(masks) if masks else {}
    items, others = [], 0
    for file in _walk(folder):
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


def _walk(folder: Path) -> Iterable[Path]:
    """All files below a folder, hidden ones left out, in a fixed order."""
    with explain_os_errors(folder):
        for parent, folders, files in os.walk(folder, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _index_masks(folder: Path) -> dict[str, Path]:
    """Mask files by their path below ``folder``, without the suffix."""
    masks = (file for file in _walk(folder) if file.suffix.lower() in MASK_SUFFIXES)
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in masks}


# ------------------------------------------------------------------ splits and classes


def _hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def digest(names: Iterable[str]) -> str:
    """16 hex digits that stand for some names in their order."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _deal(items: list[Item], split: str) -> dict[str, list[Item]]:
    """Deal items out by a hash of their names, so that adding files moves none of the others."""
    if split == ALL:
        return {ALL: items}
    try:
        shares = [float(share) for share in split.split("/")]
        if len(shares) != 3 or min(shares) < 0 or not abs(sum(shares) - 100) < 1e-6:
            raise ValueError
    except ValueError:
        raise SegkeyError(
            f"'{split}' is not a split",
            "give percentages for train/val/test that add up to 100, such as 80/10/10",
        ) from None
    dealt: dict[str, list[Item]] = {name: [] for name in SPLITS}
    for item in items:
        share = _hash_of(item.dealt_as or item.name) / 2**64 * 100
        dealt["train" if share < shares[0] else "val" if share < shares[0] + shares[1] else "test"].append(item)
    return {name: items for name, items in dealt.items() if items}


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
            "write 1 to 255 different names of at most 200 printable characters, a line each, class 0 first",
        )
    return names
