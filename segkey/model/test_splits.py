"""The images a run is tested on, from shards or from files, and the run's cipher from the key."""

import contextlib
import warnings
import zlib
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.data import sources
from segkey.data.items import ALL, Item
from segkey.data.lists import is_list
from segkey.data.preparation import Preparation
from segkey.errors import KeyMismatchError, SegkeyError, SegkeyWarning
from segkey.model.runs import Run
from segkey.shards import Split, find_splits, open_splits
from segkey.shards.memory import MemorySplit
from segkey.shards.unlock import cipher_for
from segkey.system.files import explain_os_errors


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
        split.origin = {
            "source": [str(path) for path in named],
            "named_by": "user",
            "training_data": "unknown",
        }
    else:
        paths = shards or own_shards(run)
        split = split_from_shards(run, paths, name)
        split.origin = {
            "source": [str(path) for path in paths],
            "named_by": "user" if shards else "run",
            "training_data": _compare_with_training(run, split),
        }
    warn_of_known_images(run, split, shards, from_files=bool(images))
    return split


def warn_of_known_images(
    run: Run, split: Split | MemorySplit, shards: list[Path] | None = None, from_files: bool = False
) -> None:
    """Say how many of the images that a run is tested on it was trained on: what it scores on those
    flatters it.

    Images are told by their names, which the shards of the training hold, and files also by their
    masks, unless those in the shards are augmented. Training images that were renamed may stay
    unseen.

    Args:
        run: the run.
        split: what it is tested on.
        shards: where the shards of its training are; where they were, if not given.
        from_files: whether the images are files, which nobody has dealt into training and test
            images.
    """

    def warn(text: str) -> None:
        warnings.warn(text, SegkeyWarning, stacklevel=4)

    dealt = _as_dealt(run, shards)
    found = _places(split, dealt, from_files)
    for name, use in (("train", "was trained on"), ("val", "chose its best epoch by")):
        if common := found.get(name):
            warn(
                f"{len(common)} of {len(split)} test images have the names or masks of images that "
                f"run {run.name} {use} "
                f"({_some(common)}): if they are the same, this says little of new images"
            )
    if unclear := found.get(_UNCLEAR):
        warn(
            f"{len(unclear)} of {len(split)} test images have names that several images of the "
            f"training shards have: it "
            f"cannot be told whether run {run.name} was trained on them"
        )
    if from_files and "train" not in dealt:
        warn(
            f"the training shards of run {run.name} are not at hand (--shards FOLDER): it cannot "
            f"be told whether it was "
            "trained on some of these test images"
        )


_UNCLEAR = "unclear"


def _as_dealt(run: Run, shards: list[Path] | None) -> dict[str, Split]:
    """The splits that a run was trained with: those of some shards, or of its own; whichever are at
    hand and readable."""
    for paths in (lambda: shards or [], lambda: own_shards(run)):
        with contextlib.suppress(SegkeyError):
            found = open_splits(paths())
            if "train" in found:
                return found
    return {}


def _places(
    split: Split | MemorySplit, dealt: dict[str, Split], by_masks: bool
) -> dict[str, list[str]]:
    """Names of images by the split in which they were dealt out; those that may have been in
    several are unclear."""
    by_stem: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name, known in dealt.items():
        for path in map(_reversed, known.names):
            by_stem.setdefault(path[0], []).append((path, name))
    masks = {
        int(checksum): name
        for name, known in dealt.items()
        if by_masks and not known.header.augmented
        for shard in known.shards
        for checksum in shard.mask_checksums
    }
    places: dict[str, list[str]] = {}
    for number, name in enumerate(split.names):
        own = _reversed(name)
        alike = [
            (path, place)
            for path, place in by_stem.get(own[0], [])
            if own[: len(path)] == path[: len(own)]
        ]
        alike = [(path, place) for path, place in alike if path == own] or alike
        place = (
            alike[0][1]
            if len(alike) == 1
            else masks.get(_checksum(split, number))
            if masks
            else None
        )
        if place or any(place == "train" for _, place in alike):
            places.setdefault(place or _UNCLEAR, []).append(name)
    return places


def _reversed(name: str) -> tuple[str, ...]:
    """An image's name without its suffix, and the folders in front of it, the nearest first.

    The same image is ``JPEGImages/a.jpg`` seen from a devkit, and ``a.png`` seen from a folder of
    copies.
    """
    return (
        tuple(reversed(PurePosixPath(name).with_suffix("").parts))
        if PurePosixPath(name).name
        else ("",)
    )


def _checksum(split: MemorySplit, number: int) -> int | None:
    """As shards have it of a mask; None of a mask of one class, which many images may have."""
    (mask,) = split.read_batch("masks", np.array([number]))
    return zlib.crc32(np.ascontiguousarray(mask)) if mask.min() < mask.max() else None


def _compare_with_training(run: Run, split: Split) -> str:
    """Whether the training images beside the tested ones are those that the run says it was trained
    on.

    It rests on the shards that are tested, wherever the run says that its own were.

    Returns:
        ``same``; ``other``, with a warning: the run may have seen some of the images it is tested
        on; or ``unknown``.
    """
    data, folders = run.config["data"], sorted({path.parent for path in split.shards.paths})
    files = [file for folder in folders for file in sorted(folder.glob("train*.h5"))]
    try:
        train = open_splits(files, ("train",)).get("train") if files else None
    except SegkeyError as error:
        warnings.warn(
            f"nobody can tell whether run {run.name} was trained on some of these test images: "
            f"{error.what}",
            SegkeyWarning,
            stacklevel=3,
        )
        return "unknown"
    trained_on_plain = run.header.method == "none" or data.get("on_the_fly")
    if (
        not train
        or not data.get("fingerprint")
        or (train.header.method == "none") != bool(trained_on_plain)
    ):
        # the fingerprint is that of encrypted images, these are plain, or the other way round
        return "unknown"
    if train.fingerprint == data["fingerprint"]:
        return "same"
    warnings.warn(
        f"the shards in {folders[0]} are not those that run {run.name} was trained on: it may know "
        f"some of these test images",
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
        with explain_os_errors(
            path
        ):  # the run may come from anybody: a name may be too long for any system
            there = path.exists()
        if not there:
            raise SegkeyError(
                f"the shards that run {run.name} was trained on are not at {path}",
                "say where they are now: --shards FOLDER (or, for 'segkey train --resume', FOLDER "
                "alone)",
            )
    return paths


def attackers_splits(run: Run, shards: list[Path] | None = None) -> dict[str, Split]:
    """``train`` and ``val`` of a run, for attackers who have such images; whichever are still at
    hand."""
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
            f"{shard} holds no image called {image.stem}", f"names there: {_some(twins.names)}"
        )
    preparation = Preparation(twins.size, len(twins.header.classes), twins.header.ignore_index)
    (plain,), _, _ = preparation.load(Item(image.name, image, None))
    return plain[None], twins.read("images", rows[0])[None]


def _some(names: list[str], most: int = 5) -> str:
    """The first of some names."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def split_from_shards(run: Run, shards: list[Path], name: str = "test") -> Split:
    """A split of some shards that a run can be tested on: plain, or encrypted as the run was
    trained.

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
            f"on "
            f"{run.size[0]}x{run.size[1]}",
            f"encrypt them with --size {run.size[0]}x{run.size[1]}",
        )
    _check_classes(header.classes, run, file)
    if header.method != "none":
        different = [field for field in trained.same_data(header) if field != "ignore_index"]
        if different:
            raise KeyMismatchError(
                f"{file} ({header.method}, M = {header.block_size}, key {header.key_id}) is not "
                f"encrypted as run {run.name} "
                f"was trained ({trained.method}, M = {trained.block_size}, key "
                f"{trained.key_id or 'none'})",
                "give the shards the run was trained on, or plain ones, with --shards",
            )
    return split


def split_from_images(
    run: Run, images: Path, masks: Path | None, name: str = "test"
) -> MemorySplit:
    """Images and masks from files as a plain split that a run can be tested on: the split ``name``,
    or all where there are no splits.

    Raises:
        SegkeyError: no images, no masks, other classes.
    """
    source = sources.find(
        images, masks, ignore_index=run.header.ignore_index, split=sources.AS_FOUND
    )
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
    if source.classes:
        _check_classes(tuple(source.classes), run, images)
    preparation = Preparation(run.size, len(run.header.classes), run.header.ignore_index)
    header = replace(
        run.header,
        split=name if name in source.splits else ALL,
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
            f"{len(split.problems)} of {len(split.problems) + len(split)} images in {images} "
            f"cannot be used; "
            f"{split.problems[0].name}: {split.problems[0].why}",
            "give images with masks of the classes that the run was trained on",
        )
    return split


def _check_classes(classes: tuple[str, ...], run: Run, where: Path) -> None:
    if classes != run.header.classes:
        raise SegkeyError(
            f"{where} has {len(classes)} classes ({', '.join(classes[:3])}, …), run {run.name} was "
            f"trained on "
            f"{len(run.header.classes)} ({', '.join(run.header.classes[:3])}, …)",
            "give images with the classes of the run",
        )


def is_own_test(
    tested: Split | MemorySplit,
    name: str,
    shards: list[Path] | None,
    images: Path | None,
    limit: int | None,
) -> bool:
    """Whether a result is the run's own, and is to be kept with it: on all of the test split that
    belongs to what the run was trained on, in the shards that it names, or in the same ones where
    the user names them."""
    same = shards is None or tested.origin.get("training_data") == "same"
    return name == "test" and images is None and limit is None and same
