"""What somebody without the key can try.

An attack is a function of a `Subject` (the stolen model and the owner's test images, plain, on the
device), a budget and a seed; it returns the document that is shown and kept. The owner's key only judges.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from segkey import ciphers, devices, evaluation
from segkey.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.files import read_json, write_json
from segkey.keys import Key
from segkey.loading import Feed, MemorySplit
from segkey.models import Segmenter
from segkey.progress import SILENT, Advance, Progress
from segkey.runs import Run
from segkey.shards import Split
from segkey.sources import digest


@dataclass
class Subject:
    """A model under attack.

    Attributes:
        run: where the model came from.
        model: the network, on the device.
        feed: plain test images with masks, on the device.
        cipher: the owner's.
        password: the fixed FFX password, where there is one; it is known to the attacker.
        precise: float32 even where the device computes in bfloat16.
        batch_size: images a batch.
    """

    run: Run
    model: Segmenter
    feed: Feed
    cipher: Cipher
    password: bytes | None = None
    precise: bool = False
    batch_size: int = 32

    @classmethod
    def create(
        cls,
        run: Run,
        split: Split | MemorySplit,
        cipher: Cipher,
        device: torch.device,
        limit: int | None = None,
        **how: object,
    ) -> "Subject":
        """Load a run's model and its test images; encrypted ones are decrypted on the device with the owner's key.

        Args:
            run: the model under attack.
            split: from `segkey.testdata.open_test_split`.
            cipher: the owner's, from `segkey.testdata.cipher_of`.
            device: where to compute.
            limit: only the first so many images.
            how: ``password``, ``precise`` and ``batch_size``, as above.
        """
        prepare = None if split.header.method == "none" else cipher.decrypt
        return cls(run, run.load_model(device), Feed(split, device, prepare, limit), cipher, **how)

    def score(self, cipher: Cipher | None, advance: Advance = lambda count: None) -> evaluation.Scores:
        """How well the model segments images encrypted with ``cipher``, or plain ones as a keyless user feeds them."""
        max_value = cipher.max_value if cipher else 255
        return evaluation.score(self.model, self.feed, max_value, cipher, self.batch_size, self.precise, advance)


def wrong_ciphers(subject: Subject, seed: int) -> Iterator[Cipher]:
    """Ciphers of random keys, none of which means what the owner's does; without end, decided by ``seed``.

    A wrong key that means the owner's transformation by chance (1 in 924 for NP at M = 2) is passed over.
    Where there is a single key, as for method ``none``, there is no wrong one.
    """
    own, number = subject.cipher, 0
    if own.key_space_bits == 0:
        raise SegkeyError(f"{own.method} with M = {own.block_size} has a single key", "take a larger block size")
    while True:
        label = f"segkey-wrong-key/{seed}/{number}".encode()
        key, number = Key(hashlib.shake_256(label).digest(32)), number + 1
        cipher = ciphers.from_key(own.method, key, own.block_size, own.channels, subject.password)
        if not cipher.same_as(own):
            yield cipher


def correct_plain_incorrect(
    subject: Subject,
    wrong_keys: int = 100,
    seed: int = 0,
    keep: Path | None = None,
    progress: Progress = SILENT,
) -> dict:
    """Correct key, plain images, and random wrong keys: the paper's section 4.2.

    Args:
        subject: the model under attack.
        wrong_keys: how many.
        seed: decides the wrong keys.
        keep: a file for finished scores, so that a run that was killed goes on.
        progress: hears of every image.

    Returns:
        The document described in the README: ``correct``, ``plain``, ``incorrect``, ``key_space_bits`` and more.
    """
    if wrong_keys < 1:
        raise SegkeyError(f"{wrong_keys} wrong keys are too few", "give at least 1 with --wrong-keys")
    images = len(subject.feed)
    settings = {
        "run": subject.run.name, "weights": subject.run.config.get("weights_sha256"), "images": images, "seed": seed,
        "names": digest(subject.feed.split.names), "device": devices.describe(subject.feed.device),
        "precise": subject.precise, "batch_size": subject.batch_size,
    }  # fmt: skip
    known = _Kept(keep, settings)
    own = subject.cipher
    # A model that ignores the key gives every key the same score; computing it again would tell nothing.
    wrong = wrong_ciphers(subject, seed) if own.method != "none" else ()
    with progress.task("attack", images * (wrong_keys + 2)) as advance:

        def score(name: str, cipher: Cipher | None) -> dict:
            if name in known.scores:
                advance(images)
            else:
                scores = subject.score(cipher, advance=advance)
                known.add(name, scores.summary() | {"constant": scores.constant})
            return known.scores[name]

        correct, plain = score("correct", own), score("plain", None)
        values = [
            score(f"wrong {number}", cipher)["mean_iou"]
            for number, cipher in zip(range(wrong_keys), wrong, strict=False)
        ]
        values = values or [plain["mean_iou"]] * wrong_keys
    known.remove()
    constant, constant_iou = correct.pop("constant")
    plain.pop("constant")
    return {
        "run": subject.run.name,
        "method": own.method,
        "block_size": own.block_size,
        "split": subject.feed.split.header.split,
        "images": images,
        "correct": correct,
        "plain": plain,
        "incorrect": {"keys": wrong_keys} | spread(values) | {"values": values},
        "constant": {"class": constant, "mean_iou": constant_iou},
        "key_space_bits": own.key_space_bits,
        "seed": seed,
        "device": settings["device"],
    }


def spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation (of the sample; 0 for one value), least and largest."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return {"mean": mean, "std": math.sqrt(variance), "min": min(values), "max": max(values)}


class _Kept:
    """Finished scores of an attack, kept in a file as long as it is under way."""

    def __init__(self, file: Path | None, settings: dict):
        self.file, self.settings, self.scores = file, settings, {}
        if file and file.is_file():
            try:
                document = read_json(file, "kept scores")
                if document["settings"] == settings:  # of another attack: worth nothing here
                    self.scores = dict(document["scores"])
            except (SegkeyError, ValueError, KeyError, TypeError):
                pass

    def add(self, name: str, scores: dict) -> None:
        self.scores[name] = scores
        if self.file:
            write_json(self.file, {"settings": self.settings, "scores": self.scores})

    def remove(self) -> None:
        if self.file:
            self.file.unlink(missing_ok=True)
