"""What somebody without the key can try.

Each attack is a function of a `Subject` (the stolen model and the owner's test images, plain, on the
device), a budget and a seed; it returns scores. The owner's key is used only to judge.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from segkey import ciphers, devices, evaluation
from segkey.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.files import write_json
from segkey.keys import Key
from segkey.loading import Feed, signed
from segkey.models import Segmenter
from segkey.progress import SILENT, Progress
from segkey.runs import Run


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
        cls, run: Run, split, cipher: Cipher, device: torch.device, limit: int | None = None,
        password: bytes | None = None, precise: bool = False, batch_size: int = 32,
    ) -> "Subject":  # fmt: skip
        """Load a run's model and its test images; encrypted ones are decrypted on the device with the owner's key."""
        prepare = None if split.header.method == "none" else cipher.decrypt
        feed = Feed(split, device, prepare, limit)
        return cls(run, run.load_model(device), feed, cipher, password, precise, batch_size)

    def score(
        self, cipher: Cipher | None, max_value: int | None = None, advance=lambda count: None
    ) -> evaluation.Scores:
        """How well the model segments images encrypted with ``cipher``, or plain ones."""
        header = self.run.header
        divide_by = max_value or (cipher.max_value if cipher else 255)
        encrypt = (lambda images: signed(cipher.encrypt(images))) if cipher else None
        return evaluation.score(
            self.model, self.feed, header.classes, header.ignore_index, divide_by, encrypt,
            self.batch_size, self.precise, advance,
        )  # fmt: skip


def wrong_ciphers(subject: Subject, seed: int) -> Iterator[Cipher]:
    """Ciphers of random keys, none of which means what the owner's does; without end, decided by ``seed``.

    A wrong key that means the owner's transformation by chance (1 in 924 for NP at M = 2) is passed over.
    Method ``none`` ignores the key, so there every key is as good as the right one.
    """
    own, number = subject.cipher, 0
    if own.method != "none" and own.key_space_bits == 0:
        raise SegkeyError(
            f"{own.method} with M = {own.block_size} has a single key",
            "there is no wrong one; take a larger block size",
        )
    while True:
        label = f"segkey-wrong-key/{seed}/{number}".encode()
        key, number = Key(hashlib.shake_256(label).digest(32)), number + 1
        cipher = ciphers.from_key(own.method, key, own.block_size, own.channels, subject.password)
        if own.method == "none" or not cipher.same_as(own):
            yield cipher


def basic(
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
        "names": _digest(subject.feed.split.names), "device": devices.describe(subject.feed.device),
        "precise": subject.precise, "batch_size": subject.batch_size,
    }  # fmt: skip
    known = _Kept(keep, settings)
    own, wrong = subject.cipher, wrong_ciphers(subject, seed)
    with progress.task("attack", images * (wrong_keys + 2)) as advance:

        def score(name: str, cipher: Cipher | None) -> dict:
            if name in known.scores:
                advance(images)
            else:
                scores = subject.score(cipher, advance=advance)
                known.add(name, scores.summary() | {"constant": scores.constant})
            return known.scores[name]

        correct, plain = score("correct", own), score("plain", None)
        values = [score(f"wrong {number}", cipher)["mean_iou"] for number, cipher in zip(range(wrong_keys), wrong)]
    known.remove()
    constant, constant_iou = correct.pop("constant")
    plain.pop("constant")
    return {
        "run": subject.run.name,
        "method": own.method,
        "block_size": own.block_size,
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


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class _Kept:
    """Finished scores of an attack, kept in a file as long as it is under way."""

    def __init__(self, file: Path | None, settings: dict):
        self.file, self.settings, self.scores = file, settings, {}
        if file and file.is_file():
            try:
                document = json.loads(file.read_text(encoding="utf-8"))
                if document["settings"] == settings:  # of another attack: worth nothing here
                    self.scores = dict(document["scores"])
            except (ValueError, KeyError, TypeError):
                pass

    def add(self, name: str, scores: dict) -> None:
        self.scores[name] = scores
        if self.file:
            write_json(self.file, {"settings": self.settings, "scores": self.scores})

    def remove(self) -> None:
        if self.file:
            self.file.unlink(missing_ok=True)
