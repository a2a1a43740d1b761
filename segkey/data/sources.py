"""Find images, pair them with masks, divide them into splits; opens none of them.

Understood: a PASCAL VOC devkit; a folder with ``images/`` and ``masks/``, with or without
``train/ val/ test/`` inside them (or around them); a folder ``images`` beside a folder ``masks``; a
bare folder, with or without ``masks/`` in it; a single file; a text file that lists images.
"""

from pathlib import Path

from segkey.data.classes import read_classes, read_classes_beside
from segkey.data.decode import IMAGE_SUFFIXES
from segkey.data.items import ALL, SPLITS, Item, Source
from segkey.data.layouts import find_folder, find_pictures_below, find_voc, hash_of, voc_root
from segkey.data.lists import LISTS, find_listed, find_listed_pictures, is_list
from segkey.errors import SegkeyError

AS_FOUND = "as found"  # for find(): deal nothing out
DEFAULT_SPLIT = "80/10/10"


def find(
    images: str | Path,
    masks: str | Path | None = None,
    classes: str | Path | None = None,
    ignore_index: int = 255,
    split: str | None = None,
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

    Raises:
        SegkeyError: nothing there, no images in it, masks without images, or a split that is not
            one.
    """
    path = Path(images)
    if not path.exists():
        raise SegkeyError(
            f"there is nothing at {path}", "give a folder of images, an image, or a VOC devkit"
        )
    source = _by_layout(path, Path(masks) if masks else None)
    if classes is None and source.classes is None:
        read_classes_beside(path.parent if is_list(path) else path, source)
    if split is None and set(source.splits) == {ALL} and source.has_masks:
        split = DEFAULT_SPLIT
    if split not in (None, AS_FOUND):
        every = [item for items in source.splits.values() for item in items]
        source.splits = _deal(every, split)
    if not len(source):
        raise _nothing_in(path, source)
    if classes is not None:
        source.classes = read_classes(Path(classes), given=True)
    source.ignore_index = ignore_index
    return source


def _by_layout(path: Path, masks: Path | None) -> Source:
    if is_list(path):
        return find_listed(path, masks)
    voc = voc_root(path)
    return find_voc(voc) if voc and masks is None else find_folder(path, masks)


def _nothing_in(path: Path, source: Source) -> SegkeyError:
    if source.problems:
        first = source.problems[0]
        return SegkeyError(
            f"{path}: none of {len(source.problems)} images can be used; {first.name}: {first.why}",
            "masks are found by the image's name, as PNG; give their folder with --masks",
        )
    return SegkeyError(
        f"{path} holds no images", f"segkey reads {', '.join(sorted(IMAGE_SUFFIXES))}"
    )


def find_pictures(path: str | Path) -> Source:
    """Images to predict, as one split `ALL`; masks are left out.

    Args:
        path: an image, a folder (of a folder with ``images/`` in it, or a VOC devkit, its images),
            or a text file that names one image per line, relative to its own folder or, failing
            that, to the current one.

    Raises:
        SegkeyError: nothing there, or no image.
    """
    path = Path(path)
    if not path.exists():
        raise SegkeyError(
            f"there is nothing at {path}", "give an image, a folder of images, or a list of them"
        )
    if path.is_dir():
        source = find_pictures_below(path)
    elif path.suffix.lower() in LISTS:
        source = find_listed_pictures(path)
    else:
        source = Source(path.parent, "a single image", {ALL: [Item(path.name, path, None)]})
    if not len(source):
        raise _nothing_in(path, source)
    return source


def _deal(items: list[Item], split: str) -> dict[str, list[Item]]:
    """Deal items out by a hash of their names, so that adding files moves none of the others."""
    if split == ALL:
        return {ALL: items}
    train, val = _shares(split)
    dealt: dict[str, list[Item]] = {name: [] for name in SPLITS}
    for item in items:
        place = hash_of(item.dealt_as or item.name) / 2**64 * 100
        name = "train" if place < train else "val" if place < train + val else "test"
        dealt[name].append(item)
    return {name: items for name, items in dealt.items() if items}


def _shares(split: str) -> tuple[float, float]:
    """The percentages of train and val in ``TRAIN/VAL/TEST``."""
    try:
        train, val, test = map(float, split.split("/"))
        if min(train, val, test) < 0 or not abs(train + val + test - 100) < 1e-6:
            raise ValueError
    except ValueError:
        raise SegkeyError(
            f"'{split}' is not a split",
            "give percentages for train/val/test that add up to 100, such as 80/10/10",
        ) from None
    return train, val
