"""The target of an attack: the stolen model, the owner's test images, and the cost so far."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segkey.attacks.journal import Cost, Journal
from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.model import evaluation, evaluation_splits, inference
from segkey.model.batches import BatchLoader
from segkey.model.networks import Segmenter
from segkey.model.results import MajorityClass, Measured, Score
from segkey.model.runs import Run
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system.json_files import finite
from segkey.system.json_records import as_json
from segkey.system.progress import SILENT, Progress


@dataclass
class Target:
    """A model under attack, with the owner's cipher as ground truth for scoring only.

    An attack must not read anything of it beyond its stated knowledge.

    Attributes:
        run: where the model came from.
        model: the network, on the device.
        loader: plain test images with masks, on the device; attacks are scored on all of them.
        cipher: the owner's.
        splits: the run's ``train`` and ``val``, if they are at hand: for attackers who have
            images of that kind; and ``photographs``, if they have images of their own.
        precise: float32 even if the device computes in bfloat16.
        batch_size: images per batch.
        pair: a plain image, uint8 (1, C, H, W), and its encrypted twin, for `known_pair`.
        keep: a file for finished work, so that an attack that was killed goes on.
        key: the owner's; authenticates that file, and without it none is kept.
        progress: is told of every image.
        spent: by the attack that is under way.
    """

    run: Run
    model: Segmenter
    loader: BatchLoader
    cipher: Cipher
    splits: dict[str, Split] = field(default_factory=dict)
    precise: bool = False
    batch_size: int = 32
    pair: tuple[np.ndarray, np.ndarray] | None = None
    keep: Path | None = None
    key: Key | None = None
    progress: Progress = SILENT

    def __post_init__(self):
        self.spent, self._advance, self._feeds = Cost(), _unheard, {}
        self.settings = evaluation.conditions(
            self.run,
            self.loader.split,
            self.loader.device,
            len(self.loader),
            self.batch_size,
            self.precise,
        ) | {
            "method": self.cipher.method,
            "block_size": self.cipher.block_size,
            "key": self.run.header.key_id,
            "password": self.cipher.password_hash,
            "attackers_images": {name: split.fingerprint for name, split in self.splits.items()},
            "start": self.run.starting_weights,
        }
        evaluation.agree_on(self.settings)
        others = {name: split.origin for name, split in self.splits.items() if split.origin}
        self.tested = self.settings | self.loader.split.origin | {"attackers_images_from": others}
        self.journal = Journal(self.keep, self.settings, self.key)

    @classmethod
    def create(
        cls,
        run: Run,
        split: Split | MemorySplit,
        cipher: Cipher,
        device: torch.device,
        limit: int | None = None,
        **how: Any,
    ) -> "Target":
        """Load a run's model and its test images, decrypted with the owner's key.

        Args:
            run: the model under attack; one that is sealed has been given its key.
            split: from `segkey.model.evaluation_splits.open_test_split`.
            cipher: the owner's, from `segkey.model.runs.Run.cipher`.
            device: where to compute.
            limit: only the first so many images.
            how: ``splits``, ``precise``, ``batch_size``, ``pair``, ``keep``, ``key`` and
                ``progress``, as above.
        """
        return cls(
            run, run.load_model(device), plain_loader(split, cipher, device, limit), cipher, **how
        )

    @functools.cached_property
    def _scored(self) -> Segmenter:
        """The model as it is scored: hundreds of times, while attacks look into the other one."""
        return inference.for_inference(
            self.model, self.device, self.loader.split.size, self.precise
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.loader.device

    @property
    def protected(self) -> bool:
        """Whether there is a key at all."""
        return self.cipher.method != "none"

    @property
    def ways_of_plain(self) -> int:
        """`ways_of_plain` of the owner's cipher."""
        return ways_of_plain(self.cipher)

    def images_of(self, split: str, count: int | None = None) -> BatchLoader:
        """The first ``count`` plain images of ``train`` or ``val``, with masks.

        Test images, if those are not at hand; ``split.header.split`` of the loader says which.
        """
        if (split, count) not in self._feeds:
            source = self.splits.get(split, self.loader.split)
            self._feeds[split, count] = plain_loader(source, self.cipher, self.device, count)
        return self._feeds[split, count]

    def unlabelled(self, count: int | None = None) -> BatchLoader:
        """The first ``count`` of the attacker's own photographs; without, validation images."""
        own = evaluation_splits.PHOTOGRAPHS
        return self.images_of(own if own in self.splits else "val", count)

    def is_judged_on(self, loader: BatchLoader) -> bool:
        """Whether a loader shares images with the test split: choosing there flatters."""
        if loader.split.header.split == self.loader.split.header.split:
            return True
        return not set(loader.split.names[: len(loader)]).isdisjoint(
            self.loader.split.names[: len(self.loader)]
        )

    @contextlib.contextmanager
    def task(self, description: str, images: int) -> Iterator[None]:
        """While it lasts, every image is told to `progress`."""
        with self.progress.task(description, images) as advance:
            self._advance = advance
            try:
                yield
            finally:
                self._advance = _unheard

    def score(
        self,
        cipher: Cipher | None,
        loader: BatchLoader | None = None,
        max_value: int | None = None,
        entropy: bool = False,
        model: Segmenter | None = None,
    ) -> evaluation.Scores:
        """Try a cipher, or plain images, on all test images, or on those of another loader.

        Args:
            cipher: encrypts the images; plain, if None.
            loader: plain images with masks.
            max_value: what images are divided by; the cipher's, or 255 for plain images, if not
                given.
            entropy: measure the entropy of the prediction too.
            model: another network than the stolen one.
        """
        loader = loader or self.loader
        max_value = max_value or (cipher.max_value if cipher else 255)
        self.spent.add(Cost(1, len(loader)))
        return evaluation.score(
            model or self._scored,
            loader,
            max_value,
            cipher,
            self.batch_size,
            self.precise,
            self._advance,
            entropy,
        )

    def spend(self, images: int) -> None:
        """Account for images that ran through the network in another way than `score`."""
        self.spent.add(Cost(0, images))
        self._advance(images)

    def cached(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of ``work()``, as JSON, cached with its cost in the journal."""
        entry = self.journal.get(name)
        if entry is None:
            before, self.spent, began = self.spent, Cost(), time.monotonic()
            try:
                value = finite(work())  # JSON has no NaN
                self.spent.seconds += time.monotonic() - began
                entry = {"value": value, "cost": asdict(self.spent)}
            finally:
                self.spent = before
            self.journal.add(name, entry)
        else:
            self._advance(entry["cost"]["images"])
        self.spent.add(Cost(**entry["cost"]))
        return entry["value"]

    def evaluate(self, name: str, cipher: Cipher | None, max_value: int | None = None) -> Measured:
        """`score` on all test images, done once under this name."""

        def work() -> dict:
            scores = self.score(cipher, max_value=max_value)
            baseline = scores.majority_class
            return as_json(scores.summary()) | {
                "majority_class": [baseline.name, baseline.mean_iou]
            }

        found = dict(self.cached(name, work))
        class_name, mean_iou = found.pop("majority_class")
        return Measured(Score(**found), MajorityClass(name=class_name, mean_iou=mean_iou))

    def correct(self) -> Measured:
        """`evaluate` with the owner's key."""
        return self.evaluate("correct", self.cipher)

    def plain(self) -> dict[int, Measured]:
        """`evaluate` on plain images by divisor: 255, and the method's largest value."""
        found = {255: self.evaluate("plain", None)}
        if self.cipher.max_value != 255:
            divided_by = self.cipher.max_value
            found[divided_by] = self.evaluate(f"plain/{divided_by}", None, divided_by)
        return found


def ways_of_plain(cipher: Cipher) -> int:
    """In how many ways plain images can be divided: by 255, and by the method's largest value."""
    return 1 + (cipher.max_value != 255)


def plain_loader(
    split: Split | MemorySplit, cipher: Cipher, device: torch.device, limit: int | None = None
) -> BatchLoader:
    """A split on a device, as the owner sees it."""
    return BatchLoader(
        split, device, None if split.header.method == "none" else cipher.decrypt, limit
    )


def _unheard(count: int) -> None:
    """A no-op: there is no listener."""
