"""The gallery: a few test images, predicted with the key, with a wrong key, and plain."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from segkey.attacks.wrong_keys import wrong_ciphers
from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher, unsigned
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model.batches import BatchLoader
from segkey.model.evaluation_splits import open_test_split
from segkey.model.run_model import RunModel
from segkey.model.runs import Run
from segkey.reports import preview
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system.progress import SILENT, Progress

_MOST_OF_A_RUN, _MOST = 4, 48  # a page of a few megabytes


@dataclass(frozen=True)
class Sample:
    """A test image, fit to be published.

    Attributes:
        name: of the image, relative to its source.
        image: uint8 (3, H, W), as it is.
        encrypted: uint8 (3, H, W), how images look under the method. Made with a throw-away key:
            beside the image itself, an encryption with the owner's key would give that key away.
        masks: uint8 (H, W) by what they are: ``truth``, ``correct``, and ``wrong`` and ``plain``
            if there is a key.
    """

    name: str
    image: np.ndarray
    encrypted: np.ndarray | None
    masks: dict[str, np.ndarray]


def take(
    model: RunModel,
    split: Split | MemorySplit,
    cipher: Cipher,
    count: int,
) -> list[Sample]:
    """Some images of a split, evenly spaced: none is chosen for how well it came out.

    Args:
        split: from `segkey.model.evaluation_splits.open_test_split`.
        cipher: the model's own, from `segkey.model.runs.Run.cipher`.
        count: how many at most.
    """
    count = min(count, len(split))
    order = (
        (2 * np.arange(count) + 1) * len(split) // (2 * count)
    )  # the middle of each of ``count`` equal parts
    decrypt = None if split.header.method == "none" else cipher.decrypt
    loader = BatchLoader(split, model.device, decrypt, resident=False)
    images, truth = next(loader.batches(len(order), order))
    pixels, sizes = unsigned(images).cpu().numpy(), [split.size] * len(order)
    ways, shown = {"correct": cipher}, None
    if cipher.method != "none":
        ways |= {"wrong": next(wrong_ciphers(cipher, seed=0)), "plain": None}
        # With a password of its own as well: the owner's would be half of the key.
        stranger = ciphers.from_key(
            cipher.method, preview.throwaway_key(), cipher.block_size, cipher.channels
        )
        shown = (stranger.encrypt(pixels).astype(np.uint32) * 255 // stranger.max_value).astype(
            np.uint8
        )
    divided_by = _better_divisor(model.run, cipher)
    masks = {way: model.masks(pixels, sizes, chosen, divided_by) for way, chosen in ways.items()}
    masks["truth"] = list(truth.cpu().numpy())
    return [
        Sample(
            split.names[index],
            pixels[n],
            None if shown is None else shown[n],
            {way: m[n] for way, m in masks.items()},
        )
        for n, index in enumerate(order)
    ]


def _better_divisor(run: Run, cipher: Cipher) -> int:
    """The divisor of plain images: the better one that `segkey attack` found, if it was run."""
    attacked = run.result("attack")
    better = attacked and attacked.plain.divided_by == cipher.max_value
    return cipher.max_value if better else 255


@dataclass
class Samples:
    """Samples by the name of their run, and why a run has none."""

    taken: dict[str, list[Sample]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def of_runs(
    runs: list[Run],
    key: Key,
    shards: list[Path] | None,
    device: torch.device,
    password: bytes | None = None,
    progress: Progress = SILENT,
) -> Samples:
    """`take` for each run that ``key`` belongs to, from the run's own test split.

    The more runs, the fewer images of each.

    Args:
        shards: what to take test images from; those each run was trained on, if not given.
        password: the fixed FFX password, if there is one.
    """
    found, count = Samples(), max(1, min(_MOST_OF_A_RUN, _MOST // len(runs)))
    with progress.task("test images", len(runs), "runs") as advance:
        for run in runs:
            try:
                cipher = run.cipher(key, password)
                split = open_test_split(run, shards)
                model = RunModel(run.unlock(key), device)
                found.taken[run.name] = take(model, split, cipher, count)
            except SegkeyError as error:
                found.notes[run.name] = f"No test images are shown: {error.what}."
            advance(1)
    return found
