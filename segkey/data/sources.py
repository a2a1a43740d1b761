"""Find images, pair them with masks, divide them into splits; opens none of them.

Understood: a PASCAL VOC devkit; a folder with images and masks in folders or by the endings of
their names (`segkey.data.name_roles`), with or without splits; a folder ``images`` beside a folder
``masks``; a bare folder; a single file; a text file that lists images.
"""

import os
from pathlib import Path

from segkey.data.formats import IMAGE_SUFFIXES
from segkey.data.items import ALL, SPLITS, Item, Severity, Source, counted
from segkey.data.labels import differing, labels_beside, read_classes
from segkey.data.layouts import find_folder, hash_of
from segkey.data.lists import LISTS, find_listed, find_listed_pictures, is_list
from segkey.data.pictures import find_pictures_below
from segkey.data.voc import VOC_CLASSES, find_voc, is_voc, voc_root
from segkey.errors import SegkeyError

AS_FOUND = "as found"  # for find(): deal nothing out
DEFAULT_SPLIT = "80/10/10"


def find(
    images: str | Path,
    masks: str | Path | None = None,
    classes: str | Path | None = None,
    ignore_index: int = 255,
    split: str | None = None,
    mask_suffix: str | None = None,
    read_names: bool = True,
) -> Source:
    """Find the images at a path, with their masks.

    Args:
        images: a VOC devkit, a folder, one image file, or a text file
            (`segkey.data.lists.LISTS`) that names one image per line, relative to its own folder,
            and behind a tab its mask.
        masks: the folder of masks; found by itself if it is beside or inside ``images``.
        classes: a text file, one class per line.
        ignore_index: the mask value that means void.
        split: how to deal images out, as percentages ``TRAIN/VAL/TEST`` such as ``80/10/10``; the
            default for images with masks that have no split folders. ``all`` keeps them together,
            `AS_FOUND` deals nothing.
        mask_suffix: what the name of a mask has behind that of its image.
        read_names: read class names from a file beside the images; otherwise it is only found.

    Raises:
        SegkeyError: nothing there, no images in it, masks without images, or a split that is not
            one.
    """
    path = Path(images)
    if not path.exists():
        raise SegkeyError(
            f"there is nothing at {path}", "give a folder of images, an image, or a VOC devkit"
        )
    source = _by_layout(path, Path(masks) if masks else None, mask_suffix)
    if source.has_masks:
        source.labels = labels_beside(path.parent if is_list(path) else path)
        shared = Path(os.path.commonpath({item.image_folder for item in source.items}))
        source.labels = source.labels or labels_beside(source.root) or labels_beside(shared)
        if source.labels and classes is None and (other := differing(path, source.labels)):
            source.add(
                Severity.REFUSE,
                f"{other} and {source.labels} name different classes, or in another order",
                "a number means one class in all splits: give --classes FILE if masks agree, or "
                "export the splits together",
            )
    if source.labels:
        source.classes = None
    if split is None and set(source.splits) == {ALL} and source.has_masks:
        split = DEFAULT_SPLIT
    if split not in (None, AS_FOUND):
        source.splits = _deal(source.items, split)
        _name_empty(source, split)
    elif source.has_masks and ALL not in source.splits and split is None:
        _name_missing(source)
    if not len(source):
        raise _nothing_in(path, source)
    if classes is not None:
        source.classes = read_classes(Path(classes), given=True)
    elif read_names and source.labels:
        source.classes = read_classes(source.labels)
        source.note(f"class names from {source.labels}")
    source.ignore_index = ignore_index
    return source


def _by_layout(path: Path, masks: Path | None, mask_suffix: str | None) -> Source:
    if is_list(path):
        return find_listed(path, masks)
    voc = voc_root(path)
    if not voc or masks is not None:
        return find_folder(path, masks, mask_suffix)
    source = find_voc(voc)
    if is_voc(source):
        source.classes = list(VOC_CLASSES)
    return source


def _nothing_in(path: Path, source: Source) -> SegkeyError:
    said = [f for f in source.findings if f.severity is not Severity.NOTE and f.cure]
    if not source.problems:
        most = f"segkey reads {', '.join(sorted(IMAGE_SUFFIXES))}"
        what, cure = (f"; {said[0].text}", said[0].cure) if said else ("", most)
        return SegkeyError(f"{path} holds no images{what}", cure)
    first = source.problems[0]
    suffix = next((f.cure for f in said if f.cure.startswith("give ")), "")
    return SegkeyError(
        f"{path}: none of {len(source.problems)} images can be used; {first.name}: {first.why}",
        first.cure
        or suffix
        or "masks are found by the image's name: give the folder of images and --masks FOLDER, or "
        "what masks' names end with as --mask-suffix, or a list (.txt) of images, a tab, masks",
    )


def find_pictures(path: str | Path, leave_out: str | Path | None = None) -> Source:
    """Images to predict, as one split `ALL`; masks are left out.

    Args:
        path: an image, a folder (of a folder with ``images/`` in it, or a VOC devkit, its images),
            or a text file that names one image per line, relative to its own folder or, failing
            that, to the current one.
        leave_out: a folder below it whose files are not taken, such as that of predicted masks.

    Raises:
        SegkeyError: nothing there, or no image.
    """
    path = Path(path)
    if not path.exists():
        raise SegkeyError(
            f"there is nothing at {path}", "give an image, a folder of images, or a list of them"
        )
    if path.is_dir():
        voc = voc_root(path)
        inside = voc / "JPEGImages" if voc else path
        source = find_pictures_below(inside, Path(leave_out) if leave_out else None)
    elif path.suffix.lower() in LISTS:
        source = find_listed_pictures(path)
    else:
        source = Source(path.parent, "a single image", {ALL: [Item(path.name, path, None)]})
    if not len(source):
        raise _nothing_in(path, source)
    return source


def _deal(items: list[Item], split: str) -> dict[str, list[Item]]:
    """Deal items out by a hash of their names, so that adding files moves none of the others.

    Except in a set so small that a split would be empty: it gets an image of the largest split,
    and gives it back when it has one of its own.
    """
    if split == ALL:
        return {ALL: items}
    train, val, test = _shares(split)
    dealt: dict[str, list[Item]] = {name: [] for name in SPLITS}
    for item in items:
        place = hash_of(item.dealt_as or item.name) / 2**64 * 100
        name = "train" if place < train else "val" if place < train + val else "test"
        dealt[name].append(item)
    for name, share in zip(SPLITS, (train, val, test), strict=True):
        largest = max(dealt.values(), key=len)
        if share and not dealt[name] and len(largest) > 1:
            moved = min(largest, key=lambda item: hash_of(f"{name}/{item.dealt_as or item.name}"))
            largest.remove(moved)
            dealt[name].append(moved)
    return {name: items for name, items in dealt.items() if items}


def _name_empty(source: Source, split: str) -> None:
    """Say which splits got nothing, and what would fill them."""
    if split == ALL or not len(source):
        return
    shares = dict(zip(SPLITS, _shares(split), strict=True))
    empty = [name for name in SPLITS if not source.splits.get(name)]
    if empty:
        asked = all(not shares[name] for name in empty)
        source.add(
            Severity.NOTE if asked else Severity.WARN,
            f"{' and '.join(empty)}: no image ({counted(len(source), 'image')} dealt out {split})",
            ""
            if asked
            else "give at least three images, and --split-ratio 60/20/20 for larger shares",
        )


def _name_missing(source: Source) -> None:
    """Say which splits the folders do not have; training needs val, and every score needs test."""
    missing = [name for name in SPLITS if not source.splits.get(name)]
    if missing:
        source.add(
            Severity.WARN,
            f"there is no split {' and '.join(missing)}, only {', '.join(source.splits)}",
            "--split-ratio 80/10/10 deals all images out anew",
        )


def _shares(split: str) -> tuple[float, float, float]:
    """The percentages of train, val and test in ``TRAIN/VAL/TEST``."""
    try:
        train, val, test = map(float, split.split("/"))
        if min(train, val, test) < 0 or not abs(train + val + test - 100) < 1e-6:
            raise ValueError
    except ValueError:
        raise SegkeyError(
            f"'{split}' is not a split",
            "give percentages for train/val/test that add up to 100, such as 80/10/10",
        ) from None
    return train, val, test
