"""Detect test images that a run was trained on."""

import contextlib
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model.runs import Run
from segkey.shards import Split, open_splits
from segkey.shards.memory import MemorySplit
from segkey.system.files import explain_os_errors

_UNCLEAR = "unclear"


def own_shards(run: Run) -> list[Path]:
    """The paths of the shards that a run was trained on.

    Raises:
        SegkeyError: they are no longer there.
    """
    paths = [Path(path) for path in run.configuration.data.shards]
    if not paths:
        raise SegkeyError(
            f"run {run.name} was trained elsewhere, and names no shards",
            "give some to test on: --shards FOLDER, or --images FOLDER with masks",
        )
    for path in paths:
        # The run is untrusted: a name may be too long for any system.
        with explain_os_errors(path):
            there = path.exists()
        if not there:
            raise SegkeyError(
                f"the shards that run {run.name} was trained on are not at {path}",
                "say where they are now: --shards FOLDER (or, for 'segkey train --resume', FOLDER "
                "alone)",
            )
    return paths


def warn_of_known_images(
    run: Run, split: Split | MemorySplit, shards: list[Path] | None = None, from_files: bool = False
) -> None:
    """Warn of test images that a run was trained on, as the scores on those flatter it.

    Images are recognised by their names, which the shards of the training hold, and files also by
    their masks, unless those in the shards are augmented. Renamed training images may be missed.

    Args:
        split: what it is tested on.
        shards: where the shards of its training are; where they were, if not given.
        from_files: whether the images are files, which were not dealt into training and test.
    """

    def warn(text: str) -> None:
        warnings.warn(text, SegkeyWarning, stacklevel=4)

    dealt = _as_dealt(run, shards)
    found = _places(split, dealt, from_files)
    for name, use in (("train", "was trained on"), ("val", "chose its best epoch by")):
        if common := found.get(name):
            warn(
                f"{len(common)} of {len(split)} test images have the names or masks of images that "
                f"run {run.name} {use} ({some(common)}): if they are the same, this says little of "
                "new images"
            )
    if unclear := found.get(_UNCLEAR):
        warn(
            f"{len(unclear)} of {len(split)} test images have names that several images of the "
            f"training shards have: it cannot be told whether run {run.name} was trained on them"
        )
    if from_files and "train" not in dealt:
        warn(
            f"the training shards of run {run.name} are not at hand (--shards FOLDER): it cannot "
            "be told whether it was trained on some of these test images"
        )


def _as_dealt(run: Run, shards: list[Path] | None) -> dict[str, Split]:
    """The splits that a run was trained with, from ``shards`` or its own; empty if unreadable."""
    for paths in (lambda: shards or [], lambda: own_shards(run)):
        with contextlib.suppress(SegkeyError):
            found = open_splits(paths())
            if "train" in found:
                return found
    return {}


@dataclass(frozen=True)
class _Dealt:
    """What the splits of a training tell of their images.

    Attributes:
        by_stem: paths (see `_reversed`) and their splits, by the file's name.
        by_mask: splits by the CRC-32 of a mask.
    """

    by_stem: dict[str, list[tuple[tuple[str, ...], str]]]
    by_mask: dict[int, str]

    @classmethod
    def of(cls, dealt: dict[str, Split], by_masks: bool) -> "_Dealt":
        by_stem: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        by_mask: dict[int, str] = {}
        for name, known in dealt.items():
            for path in map(_reversed, known.names):
                by_stem.setdefault(path[0], []).append((path, name))
            if by_masks and not known.header.augmented:
                for shard in known.shards:
                    by_mask |= dict.fromkeys(map(int, shard.mask_checksums), name)
        return cls(by_stem, by_mask)

    def splits_of(self, name: str) -> list[str]:
        """The splits of the images that ``name`` may be: of that very path, or of a part of it."""
        own = _reversed(name)
        found = self.by_stem.get(own[0], [])
        alike = [(path, split) for path, split in found if own[: len(path)] == path[: len(own)]]
        exact = [split for path, split in alike if path == own]
        return exact or [split for _, split in alike]


def _places(
    split: Split | MemorySplit, dealt: dict[str, Split], by_masks: bool
) -> dict[str, list[str]]:
    """Names of images by the split that they were dealt into, or `_UNCLEAR` if it may be several.

    A name decides if it fits one image; otherwise the mask does, if ``by_masks``.
    """
    known = _Dealt.of(dealt, by_masks)
    places: dict[str, list[str]] = {}
    for number, name in enumerate(split.names):
        alike = known.splits_of(name)
        place = alike[0] if len(alike) == 1 else None
        if len(alike) != 1 and known.by_mask:
            place = known.by_mask.get(_checksum(split, number))
        if place or "train" in alike:
            places.setdefault(place or _UNCLEAR, []).append(name)
    return places


def _reversed(name: str) -> tuple[str, ...]:
    """The parts of an image's name, without its suffix, the last one first.

    The same image is ``JPEGImages/a.jpg`` seen from a devkit, and ``a.png`` seen from a folder of
    copies.
    """
    path = PurePosixPath(name)
    return tuple(reversed(path.with_suffix("").parts)) if path.name else ("",)


def _checksum(split: MemorySplit, number: int) -> int | None:
    """The CRC-32 of a mask, as shards have it; None for one class, as many images may have that."""
    (mask,) = split.read_batch("masks", np.array([number]))
    return zlib.crc32(np.ascontiguousarray(mask)) if mask.min() < mask.max() else None


def compare_with_training(run: Run, split: Split) -> str:
    """Whether the training images beside the tested ones are those that the run was trained on.

    It looks beside the shards that are tested, whichever shards the run names.

    Returns:
        ``same``; ``unknown``; or ``other``, with a warning: the run may have been trained on some
        of the tested images.
    """
    data, folders = run.configuration.data, sorted({path.parent for path in split.shards.paths})
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
    trained_on_plain = run.header.method == "none" or data.on_the_fly
    if (
        not train
        or not data.fingerprint
        or (train.header.method == "none") != bool(trained_on_plain)
    ):
        # the fingerprint is that of encrypted images, these are plain, or the other way round
        return "unknown"
    if train.fingerprint == data.fingerprint:
        return "same"
    warnings.warn(
        f"the shards in {folders[0]} are not those that run {run.name} was trained on: it may know "
        f"some of these test images",
        SegkeyWarning,
        stacklevel=3,
    )
    return "other"


def some(names: list[str], most: int = 5) -> str:
    """The first of some names."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
