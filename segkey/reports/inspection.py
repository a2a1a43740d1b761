"""Inspection of a path: whether it is a key, a shard or a run, and whether it is intact."""

import contextlib
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from segkey.crypto import keys
from segkey.crypto.age import Identity
from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.data.class_table import ClassTable
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.shards import Shard, Shards, Split, find_splits
from segkey.system.files import explain_os_errors, open_regular
from segkey.system.progress import SILENT, Progress

_COUNTED = 500  # images whose masks are counted
_SHOWN = 4  # images on a sheet


def describe(
    path: Path,
    verify: bool = False,
    progress: Progress = SILENT,
    identity: Identity | None = None,
    passphrase: str | None = None,
) -> list[dict]:
    """One dictionary a file, as ``segkey inspect --json`` prints them; never holds a secret.

    Args:
        path: a key, a shard, a run, or a folder of shards or of runs; runs that cannot be used are
            there with their ``damage``.
        verify: read everything and compare it with its checksums; ``damage`` then lists what does
            not match.
        progress: hears of every row that is verified.
        identity: opens the sealed runs that it belongs to, to verify their weights; of others, only
            the form is verified, which ``checked`` says.
        passphrase: opens a key that is sealed with it, whose recipient is not shown otherwise.

    Raises:
        SegkeyError: nothing there, or nothing that segkey knows.
    """
    if not path.exists():
        raise SegkeyError(
            f"there is nothing at {path}",
            "give a key, a shard, a run, or a folder of shards or runs",
        )
    if os.path.lexists(path / "run.json") or (path.is_file() and path.name == "latest"):
        return [_run(path, verify, identity)]
    if path.is_dir() and next(path.glob("*/run.json"), None):
        return _runs(path, verify, identity)
    if path.is_dir():
        files = [file for files in find_splits([path]).values() for file in files]
        return [_shard(file, verify, progress) for file in files]
    if not path.is_file():
        raise SegkeyError(
            f"{path} is no file", "give a key, a shard, a run, or a folder of shards or runs"
        )
    with explain_os_errors(path), open_regular(path, follow=True) as file:
        magic = file.read(8)
    if magic == b"\x89HDF\r\n\x1a\n" or path.suffix == ".h5":
        return [_shard(path, verify, progress)]
    return [_key(path, verify, passphrase)]


def _key(path: Path, verify: bool, passphrase: str | None) -> dict:
    document = {"path": str(path), "kind": "key"} | keys.public_part(path)
    if not document["sealed"]:
        with contextlib.suppress(SegkeyError), warnings.catch_warnings():  # --verify tells of both
            warnings.simplefilter("ignore", SegkeyWarning)
            document["recipient"] = Identity.of(Key.load(path)).recipients[0]
    elif passphrase is not None:
        document["recipient"] = Identity.of(Key.load(path, passphrase)).recipients[0]
    else:
        document["recipient"] = "shown with --passphrase-file FILE"
    if verify and document["sealed"]:
        document["checked"] = (
            "its form; a sealed secret shows damage only when it is opened with its passphrase"
        )
    elif verify:
        document["damage"] = keys.damage(path)
    return document


@dataclass(frozen=True)
class ShownImage:
    """An image of a shard, to look at.

    Attributes:
        name: relative to the source.
        stored: uint8 (C, H, W), as it is stored, the largest value of the method as white.
        decrypted: uint8 (C, H, W); None without a cipher, or if nothing is encrypted.
        mask: uint8 (H, W); None if there are no masks.
    """

    name: str
    stored: np.ndarray
    decrypted: np.ndarray | None
    mask: np.ndarray | None


def first_images(split: Split, cipher: Cipher | None) -> list[ShownImage]:
    """The first images of a split, to look at.

    Args:
        split: from `segkey.shards.open_splits`.
        cipher: decrypts them, from `segkey.shards.unlock.cipher_for`; without it they stay as they
            are stored.
    """
    which = np.arange(min(_SHOWN, len(split)))
    images, max_value = split.read_batch("images", which), split.header.max_value
    stored = (images.astype(np.uint32) * 255 // max_value).astype(np.uint8)
    decrypted = masks = [None] * len(which)
    if cipher and cipher.method != "none":
        decrypted = cipher.decrypt(images)
    if split.has_masks:
        masks = split.read_batch("masks", which)
    names = split.names[: len(which)]
    return [ShownImage(*each) for each in zip(names, stored, decrypted, masks, strict=True)]


def _shard(path: Path, verify: bool, progress: Progress) -> dict:
    with Shard(path) as shard:
        document = {"path": str(path), "kind": "shard"} | asdict(shard.header)
        document |= {
            "classes": list(shard.header.classes),
            "images": shard.images,
            "size": list(shard.size),
            "dtype": shard.dtype,
            "has_masks": shard.has_masks,
            "bytes": path.stat().st_size,
            "made_with": shard.made_with,
        }
        if shard.has_masks and not verify:
            document["class_shares"] = _shares(path)
        if verify:
            damage = []
            with progress.task(f"verify {path.name}", shard.rows, "rows") as advance:
                for error in shard.damage():
                    damage += [error.what] if error else []
                    advance(1)
            document["damage"] = damage
    return document


def _shares(path: Path) -> dict:
    """The share of each class among the labelled pixels of a shard's first view, and of void.

    Of an even share of the images, if there are many; ``of_images`` says how many.
    """
    split = Split(Shards([path]))
    header = split.header
    which = np.arange(0, len(split), max(1, len(split) // _COUNTED))
    table = ClassTable(list(header.classes), header.ignore_index)
    counts = np.zeros(256, np.int64)
    try:
        for start in range(0, len(which), 64):
            masks = split.read_batch("masks", which[start : start + 64])
            counts += np.bincount(masks.reshape(-1), minlength=256)
    except SegkeyError as error:
        return {"unknown": error.what}
    table.pixels["all"] = counts
    return table.shares("all") | {"void": table.void("all"), "of_images": len(which)}


def _runs(folder: Path, verify: bool, identity: Identity | None) -> list[dict]:
    from segkey.model.run_search import survey

    found, broken = survey(folder)
    documents = [_run(run.path, verify, identity) for run in found]
    return documents + [
        {"path": str(folder / each.name), "kind": "run", "damage": [each.why]} for each in broken
    ]


def _run(path: Path, verify: bool, identity: Identity | None) -> dict:
    from segkey.model.results import Attack
    from segkey.model.runs import Run  # imports torch, which only runs need

    run = Run.open(path)
    stated = run.configuration.document
    document = {"path": str(path), "kind": "run", "name": run.name} | {
        name: stated.get(name)
        for name in (
            "created",
            "device",
            "versions",
            "model",
            "data",
            "training",
            "recipe",
            "seed",
            "epochs_done",
            "best",
            "seconds",
        )
    }
    for name in ("evaluate", "attack"):
        result = run.result(name)
        if result:
            document[name] = {"correct": result.correct.mean_iou}
            if isinstance(result, Attack):
                document[name]["plain"] = result.plain.mean_iou
            document["results"] = "as found in the folder, not checked"
    if run.is_sealed:
        document["sealed_for"] = run.recipients
    if verify:
        document |= _verified(run, identity)
    return document


def _verified(run, identity: Identity | None) -> dict:
    """The ``damage`` of a run, and what could not be ``checked`` without a sealed run's key."""
    from segkey.model import run_checks

    found = {}
    if run.is_sealed:
        try:
            run.unlock(identity)
        except SegkeyError as error:
            run.identity = None
            found["checked"] = f"its form, not its weights: {error.what}"
    return found | {"damage": run_checks.damage(run)}
