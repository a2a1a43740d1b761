"""The images a run is tested on, from shards or from files, and the run's cipher from the key."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from segkey import sources
from segkey.ciphers import Cipher
from segkey.decryption import cipher_for
from segkey.errors import KeyMismatchError, SegkeyError, SegkeyWarning
from segkey.files import explain_os_errors
from segkey.keys import Key
from segkey.loading import MemorySplit
from segkey.preparation import Preparation
from segkey.runs import Run
from segkey.shards import Split, find_splits, open_splits


def cipher_of(run: Run, key: Key | None, password: bytes | None = None) -> Cipher:
    """The cipher a run was trained with, from the key.

    Raises:
        KeyMismatchError: the key or the password is another one.
    """
    return cipher_for(run.header, key, password, run.path)


def open_test_split(
    run: Run, shards: list[Path] | None, images: Path | None, masks: Path | None, name: str = "test"
) -> Split | MemorySplit:
    """What a run is tested on: images with masks, or some shards, or those it was trained on."""
    if images:
        split = split_from_images(run, images, masks, name)
        named = [images, masks] if masks else [images]
        split.origin = {"source": [str(path) for path in named], "named_by": "user", "training_data": "unknown"}
        return split
    paths = shards or own_shards(run)
    split = split_from_shards(run, paths, name)
    split.origin = {
        "source": [str(path) for path in paths],
        "named_by": "user" if shards else "run",
        "training_data": _compare_with_training(run, split),
    }
    return split


def _compare_with_training(run: Run, split: Split) -> str:
    """Whether the training images beside the tested ones are those that the run says it was trained on.

    It rests on the shards that are tested, wherever the run says that its own were.

    Returns:
        ``same``; ``other``, with a warning: the run may have seen some of the images it is tested on; or ``unknown``.
    """
    data, folders = run.config["data"], sorted({path.parent for path in split.shards.paths})
    files = [file for folder in folders for file in sorted(folder.glob("train*.h5"))]
    try:
        train = open_splits(files, ("train",)).get("train") if files else None
    except SegkeyError as error:
        warnings.warn(
            f"nobody can tell whether run {run.name} was trained on some of these test images: {error.what}",
            SegkeyWarning,
            stacklevel=3,
        )
        return "unknown"
    trained_on_plain = run.header.method == "none" or data.get("on_the_fly")
    if not train or not data.get("fingerprint") or (train.header.method == "none") != bool(trained_on_plain):
        return "unknown"  # the fingerprint is that of encrypted images, these are plain, or the other way round
    if train.fingerprint == data["fingerprint"]:
        return "same"
    warnings.warn(
        f"the shards in {folders[0]} are not those that run {run.name} was trained on: it may know some of these test images",
        SegkeyWarning,
        stacklevel=3,
    )
    return "other"


def own_shards(run: Run) -> list[Path]:
    """Where the shards were that a run was trained on.

    Raises:
        SegkeyError: they are no longer there.
    """
    paths = [Path(path) for path in run.config["data"]["shards"]]
    for path in paths:
        with explain_os_errors(path):  # the run may come from anybody: a name may be too long for any system
            there = path.exists()
        if not there:
            raise SegkeyError(
                f"the shards that run {run.name} was trained on are not at {path}",
                "say where they are now: --shards FOLDER (or, for 'segkey train --resume', FOLDER alone)",
            )
    return paths


def attackers_splits(run: Run, shards: list[Path] | None = None) -> dict[str, Split]:
    """``train`` and ``val`` of a run, for attackers who have such images; whichever are still at hand."""
    try:
        paths = shards or own_shards(run)
        found = find_splits(paths)
    except SegkeyError:  # not at hand; what is there but damaged is not passed over
        return {}
    splits = {name: split_from_shards(run, paths, name) for name in ("train", "val") if name in found}
    for split in splits.values():
        split.origin = {"source": [str(path) for path in paths], "named_by": "user" if shards else "run"}
    return splits


def read_pair(run: Run, image: Path, shard: Path) -> tuple[np.ndarray, np.ndarray]:
    """A plain image, as encrypting prepares it, and its twin of the same name in a shard.

    Returns:
        uint8 (1, C, H, W), and uint8 or uint16 of the same shape.

    Raises:
        SegkeyError: no such image, no image of that name in the shard, or a shard of another method.
    """
    (twins,) = open_splits([shard]).values()
    if run.header.method != twins.header.method or run.header.block_size != twins.header.block_size:
        raise SegkeyError(
            f"{shard} is not encrypted as run {run.name} was trained ({run.header.method}, M = {run.header.block_size})",
            "give a shard made with the same method and block size",
        )
    rows = [row for row, name in enumerate(twins.names) if Path(name).stem == image.stem]
    if not rows:
        raise SegkeyError(
            f"{shard} holds no image called {image.stem}", f"see the names with: segkey inspect --json {shard}"
        )
    preparation = Preparation(twins.size, len(twins.header.classes), twins.header.ignore_index)
    (plain,), _, _ = preparation.load(sources.Item(image.name, image, None))
    return plain[None], twins.read("images", rows[0])[None]


def split_from_shards(run: Run, shards: list[Path], name: str = "test") -> Split:
    """A split of some shards that a run can be tested on: plain, or encrypted as the run was trained.

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
            f"{file} has no masks to compare with", "encrypt images together with their masks (--masks DIR)"
        )
    if split.size != run.size:
        raise SegkeyError(
            f"{file} holds images of {split.size[0]}x{split.size[1]}, run {run.name} was trained on "
            f"{run.size[0]}x{run.size[1]}",
            f"encrypt them with --size {run.size[0]}x{run.size[1]}",
        )
    _check_classes(header.classes, run, file)
    if header.method != "none":
        different = [field for field in trained.same_data(header) if field != "ignore_index"]
        if different:
            raise KeyMismatchError(
                f"{file} ({header.method}, M = {header.block_size}, key {header.key_id}) is not encrypted as run {run.name} "
                f"was trained ({trained.method}, M = {trained.block_size}, key {trained.key_id or 'none'})",
                "give the shards the run was trained on, or plain ones, with --shards",
            )
    return split


def split_from_images(run: Run, images: Path, masks: Path | None, name: str = "test") -> MemorySplit:
    """Images and masks from files as a plain split that a run can be tested on: the split ``name``, or all where there are no splits.

    Raises:
        SegkeyError: no images, no masks, other classes.
    """
    source = sources.find(images, masks, ignore_index=run.header.ignore_index, split=sources.AS_FOUND)
    if name not in source.splits and sources.ALL not in source.splits:
        raise SegkeyError(
            f"there is no split '{name}' in {images}",
            f"splits there: {', '.join(source.splits)}; choose one with --split",
        )
    items = [item for item in source.splits.get(name, source.splits.get(sources.ALL)) if item.mask]
    if not items:
        raise SegkeyError(f"{images} has no masks to compare with", "give the folder of masks with --masks")
    if source.classes:
        _check_classes(tuple(source.classes), run, images)
    preparation = Preparation(run.size, len(run.header.classes), run.header.ignore_index)
    header = replace(
        run.header,
        split=name if name in source.splits else sources.ALL,
        method="none",
        block_size=1,
        max_value=255,
        key_id="",
        password_hash="",
    )
    split = MemorySplit(items, preparation, header)
    split.problems += source.problems
    if len(split.problems) > len(split):
        raise SegkeyError(
            f"{len(split.problems)} of {len(split.problems) + len(split)} images in {images} cannot be used; "
            f"{split.problems[0].name}: {split.problems[0].why}",
            "give images with masks of the classes that the run was trained on",
        )
    return split


def _check_classes(classes: tuple[str, ...], run: Run, where: Path) -> None:
    if classes != run.header.classes:
        raise SegkeyError(
            f"{where} has {len(classes)} classes ({', '.join(classes[:3])}, …), run {run.name} was trained on "
            f"{len(run.header.classes)} ({', '.join(run.header.classes[:3])}, …)",
            "give images with the classes of the run",
        )


def is_own_test(
    tested: Split | MemorySplit, name: str, shards: list[Path] | None, images: Path | None, limit: int | None
) -> bool:
    """Whether a result is the run's own, and is to be kept with it: on all of the test split that belongs to what the
    run was trained on, in the shards that it names, or in the same ones where the user names them."""
    same = shards is None or tested.origin.get("training_data") == "same"
    return name == "test" and images is None and limit is None and same
