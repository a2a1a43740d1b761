"""Test splits: the images a run is tested on, from shards or from files."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from segkey.data import intake, sources
from segkey.data.items import ALL, Item, Severity, Source
from segkey.data.lists import is_list
from segkey.data.preparation import Preparation
from segkey.data.reading import VOID, Reading
from segkey.data.user_choices import Choices
from segkey.errors import KeyMismatchError, SegkeyError, SegkeyWarning
from segkey.model.leakage import compare_with_training, own_shards, some, warn_of_known_images
from segkey.model.runs import Run
from segkey.shards import Split, find_splits, open_splits
from segkey.shards.header import Header
from segkey.shards.memory import MemorySplit

PHOTOGRAPHS = "photographs"  # the name of an attacker's own images, as a split


def open_test_split(
    run: Run,
    shards: list[Path] | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    name: str = "test",
) -> Split | MemorySplit:
    """The images a run is tested on; warns of those that it may have been trained on.

    Args:
        shards: where they come from; the shards it was trained on, if not given.
        images: a folder, an image or a list, instead of shards.
        masks: the folder of their masks; found by itself beside or inside ``images``.
        name: which split.

    Returns:
        A plain split, or one that is encrypted as the run was trained. Its ``origin`` says where it
        came from, and whether the shards beside it are those of the run's training.

    Raises:
        SegkeyError: no such split, no masks, another size, other classes.
        KeyMismatchError: shards of another key or method.
    """
    if images:
        split = split_from_images(run, images, masks, name)
        split.origin = _origin([images, masks] if masks else [images], "user", "unknown")
    else:
        paths = shards or own_shards(run)
        split = split_from_shards(run, paths, name)
        same = compare_with_training(run, split)
        split.origin = _origin(paths, "user" if shards else "run", same)
    warn_of_known_images(run, split, shards, from_files=bool(images))
    return split


def _origin(paths: list[Path], named_by: str, training_data: str) -> dict[str, object]:
    source = [str(path) for path in paths]
    return {"source": source, "named_by": named_by, "training_data": training_data}


def attackers_splits(run: Run, shards: list[Path] | None = None) -> dict[str, Split]:
    """``train`` and ``val`` of a run, for attackers who have such images; those still at hand."""
    try:
        paths = shards or own_shards(run)
        found = find_splits(paths)
    except SegkeyError:  # not at hand; what is there but damaged is not passed over
        return {}
    splits = {
        name: split_from_shards(run, paths, name) for name in ("train", "val") if name in found
    }
    for split in splits.values():
        split.origin = {
            "source": [str(path) for path in paths],
            "named_by": "user" if shards else "run",
        }
    return splits


def photographs(run: Run, path: Path, count: int) -> MemorySplit:
    """The first plain images in a folder or list, of any kind and without masks, as a split.

    Args:
        run: says to which size they are brought.
        path: as for `segkey.data.sources.find_pictures`.
        count: at most so many; of these, unreadable ones are among the split's ``problems``.

    Raises:
        SegkeyError: no images there, or none that can be read.
    """
    items = sources.find_pictures(path).splits[ALL][:count]
    preparation = Preparation(
        run.size, pixel_range=run.header.range_of_pixels, channels=run.header.channels
    )
    split = MemorySplit(items, preparation, _plain_header(run, PHOTOGRAPHS))
    split.origin = {"source": [str(path)], "named_by": "user"}
    return split


def _plain_header(run: Run, split: str) -> Header:
    """That of plain images for a run."""
    return replace(
        run.header,
        split=split,
        method="none",
        block_size=1,
        max_value=255,
        key_id="",
        password_hash="",
    )


def read_pair(run: Run, image: Path, shard: Path) -> tuple[np.ndarray, np.ndarray]:
    """A plain image, as encrypting prepares it, and its twin of the same name in a shard.

    Returns:
        uint8 (1, C, H, W), and uint8 or uint16 of the same shape.

    Raises:
        SegkeyError: no such image, no image of that name in the shard, or a shard of another
            method.
    """
    (twins,) = open_splits([shard]).values()
    if run.header.method != twins.header.method or run.header.block_size != twins.header.block_size:
        raise SegkeyError(
            f"{shard} is not encrypted as run {run.name} was trained ({run.header.method}, M = "
            f"{run.header.block_size})",
            "give a shard made with the same method and block size",
        )
    rows = [row for row, name in enumerate(twins.names) if Path(name).stem == image.stem]
    if not rows:
        raise SegkeyError(
            f"{shard} holds no image called {image.stem}", f"names there: {some(twins.names)}"
        )
    preparation = Preparation(
        twins.size, pixel_range=twins.header.range_of_pixels, channels=twins.header.channels
    )
    (plain,), _, _ = preparation.load(Item(image.name, image, None))
    return plain[None], twins.read("images", rows[0])[None]


def split_from_shards(run: Run, shards: list[Path], name: str = "test") -> Split:
    """A split of some shards, plain or encrypted as the run was trained, to test the run on.

    Raises:
        SegkeyError: no such split, no masks, another size, other classes.
        KeyMismatchError: encrypted with another key or method.
    """
    found = find_splits(shards)
    if name not in found:
        raise SegkeyError(
            f"there is no split '{name}' in {shards[0]}",
            f"splits there: {', '.join(found)}; choose one with --split",
        )
    split = open_splits(shards, (name,))[name]
    header, trained, file = split.header, run.header, found[name][0]
    if not split.has_masks:
        raise SegkeyError(
            f"{file} has no masks to compare with",
            "encrypt images together with their masks (--masks DIR)",
        )
    if split.size != run.size:
        raise SegkeyError(
            f"{file} holds images of {split.size[0]}x{split.size[1]}, run {run.name} was trained "
            f"on {run.size[0]}x{run.size[1]}",
            f"encrypt them with --size {run.size[0]}x{run.size[1]}",
        )
    _check_classes(header.classes, run, file)
    if header.method != "none":
        different = [field for field in trained.same_data(header) if field != "ignore_index"]
        if different:
            raise KeyMismatchError(
                f"{file} ({header.method}, M = {header.block_size}, key {header.key_id}) is not "
                f"encrypted as run {run.name} was trained ({trained.method}, "
                f"M = {trained.block_size}, key {trained.key_id or 'none'})",
                "give the shards the run was trained on, or plain ones, with --shards",
            )
    return split


def split_from_images(
    run: Run, images: Path, masks: Path | None, name: str = "test"
) -> MemorySplit:
    """Images and masks from files as a plain split that a run can be tested on.

    It is the split ``name``, or all images if there are no splits.

    Raises:
        SegkeyError: no images, no masks, other classes.
    """
    source = _as_trained(run, images, masks)
    if name not in source.splits and ALL not in source.splits:
        raise SegkeyError(
            f"there is no split '{name}' in {images}",
            f"splits there: {', '.join(source.splits)}; choose one with --split",
        )
    items = [item for item in source.splits.get(name, source.splits.get(ALL)) if item.mask]
    if not items:
        how = (
            "name each mask behind its image and a tab"
            if is_list(images)
            else "give the folder of masks with --masks"
        )
        raise SegkeyError(f"{images} has no masks to compare with", how)
    preparation = Preparation(
        run.size,
        len(run.header.classes),
        source.ignore_index,
        reading=source.reading,
        pixel_range=run.header.range_of_pixels,
        channels=run.header.channels,
    )
    header = replace(
        _plain_header(run, name if name in source.splits else ALL),
        ignore_index=source.ignore_index,
    )
    split = MemorySplit(items, preparation, header)
    split.problems += source.problems
    if len(split.problems) > len(split):
        raise SegkeyError(
            f"{len(split.problems)} of {len(split.problems) + len(split)} images in {images} "
            f"cannot be used; {split.problems[0].name}: {split.problems[0].why}",
            "give images with masks of the classes that the run was trained on",
        )
    return split


def _as_trained(run: Run, images: Path, masks: Path | None) -> Source:
    """Images whose masks are read as those that the run was trained on.

    Masks of a run that were class numbers themselves are looked at: these may be something else.
    """
    header = run.header
    if header.reading:
        source = sources.find(images, masks, split=sources.AS_FOUND, read_names=False)
        source.reading, source.ignore_index = Reading.from_text(header.reading), header.ignore_index
        return source
    named = sources.find(images, masks, split=sources.AS_FOUND)
    if named.has_masks and named.classes:
        _check_classes(tuple(named.classes), run, images)
    ignore = None if header.ignore_index == VOID else frozenset({header.ignore_index})
    taken = intake.take_in(
        images, masks, Choices(ignore=ignore), sources.AS_FOUND, names=header.classes
    )
    taken.require()
    for finding in taken.findings:
        if finding.severity is Severity.WARN and not finding.named_later:
            warnings.warn(finding.text, SegkeyWarning, stacklevel=3)
    return taken.source


def _check_classes(classes: tuple[str, ...], run: Run, where: Path) -> None:
    if classes != run.header.classes:
        raise SegkeyError(
            f"{where} has {len(classes)} classes ({', '.join(classes[:3])}, …), run {run.name} was "
            f"trained on {len(run.header.classes)} ({', '.join(run.header.classes[:3])}, …)",
            "give images with the classes of the run",
        )


def is_own_test(
    tested: Split | MemorySplit,
    name: str,
    shards: list[Path] | None,
    images: Path | None,
    limit: int | None,
) -> bool:
    """Whether a result is to be kept with the run.

    It is if it rests on all of the test split that belongs to the images the run was trained on, in
    the shards that the run names or in the same ones under the name that the user gave.
    """
    same = shards is None or tested.origin.get("training_data") == "same"
    return name == "test" and images is None and limit is None and same
