"""The stolen model, the owner's images that judge, and an account of what an attack spends."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segkey import devices, distributed, evaluation
from segkey.ciphers import Cipher
from segkey.files import append, finite, is_there, open_regular, read_text, remove, written_whole
from segkey.keys import Key
from segkey.loading import Feed, MemorySplit
from segkey.measurements import differences, same_text
from segkey.models import Segmenter
from segkey.progress import SILENT, Progress
from segkey.runs import Run
from segkey.shards import Split

_MAX_KEPT = 64 << 20  # bytes of finished pieces, which are under 1 kB each


@dataclass
class Cost:
    """What an attacker spends.

    Attributes:
        queries: keys (or plain images, or estimates) tried on some images.
        images: pictures run through the network; one that is trained on counts each time it is seen.
        seconds: of wall time.
    """

    queries: int = 0
    images: int = 0
    seconds: float = 0.0

    def add(self, other: "Cost") -> None:
        """Spend as much as ``other`` more."""
        self.queries, self.images, self.seconds = (
            self.queries + other.queries, self.images + other.images, self.seconds + other.seconds,
        )  # fmt: skip


class Kept:
    """Finished pieces of an attack, kept in a file as long as it is under way: one line of JSON each, after the settings.

    The file lies in the run's folder, which may have been at somebody else's: every line is authenticated with the owner's
    key, together with the settings. So only pieces that the owner made, under the same settings, are used again.

    Args:
        path: where; nowhere, if not given.
        settings: what must agree for a piece to be of use again.
        key: the owner's. Without it nothing is read or written, as a piece could come from anybody.

    Under torchrun the first rank reads and writes the file for all.
    """

    def __init__(self, path: Path | None, settings: dict, key: Key | None = None):
        self.path, self._settings, self._key = path if distributed.first() and key else None, settings, key
        self._begun = False
        if path and not key and os.path.lexists(path) and distributed.first():
            devices.warn(f"{path} is not used: without a key nobody can tell who wrote it")
        self._pieces = distributed.share(self._read() if self.path and is_there(self.path) else {})

    def __len__(self) -> int:
        return len(self._pieces)

    def get(self, name: str) -> dict | None:
        """A piece, if it is there."""
        return self._pieces.get(name)

    def add(self, name: str, piece: dict) -> None:
        """Keep a piece; when this returns, a kill does no harm to it."""
        self._pieces[name] = piece
        if not self.path:
            return
        if not self._begun:  # written anew, without lines that a kill has cut or that are not the owner's
            self._begun = True
            with written_whole(self.path, "w") as file:
                file.write(self._line("settings", self._settings))
                file.writelines(self._line("piece", each) for each in self._pieces.items())
            return
        append(self.path, self._line("piece", (name, piece)))

    def remove(self) -> None:
        """Forget all: the results are written."""
        if self.path:
            remove(self.path)

    def _line(self, kind: str, content: object) -> str:
        return f"{self._authenticate(kind, content)} {json.dumps(content, allow_nan=False)}\n"

    def _authenticate(self, kind: str, content: object) -> str:
        # A piece belongs to its settings; the settings stand for themselves, so that one can say how they differ.
        bound = [content, self._settings] if kind == "piece" else content
        return self._key.authenticate(f"attack journal, {kind}", bound)

    def _read(self) -> dict[str, dict]:
        """The pieces in the file that the owner made under these settings; what is not used is told."""
        open_regular(self.path, limit=_MAX_KEPT).close()
        try:
            lines = read_text(self.path, _MAX_KEPT).splitlines(keepends=True)
        except ValueError:
            lines = []
        whole = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last one
        head = self._content("settings", whole[0]) if whole else None
        if head is None:
            devices.warn(f"{self.path} is not used: it is damaged, or was not written with key {self._key.id}")
            return {}
        # To JSON and back, as what was read was.
        if different := differences(head, json.loads(json.dumps(self._settings))):
            devices.warn(f"{self.path} is not used: since it was written, {' and '.join(different)} changed")
            return {}
        pieces = [self._content("piece", line) for line in whole[1:]]
        if None in pieces:
            devices.warn(
                f"{pieces.count(None)} of {len(pieces)} lines of {self.path} are not used: they are damaged, or were not "
                f"written with key {self._key.id}"
            )
        return dict(piece for piece in pieces if piece)

    def _content(self, kind: str, line: str) -> Any:
        """What a line holds, or None unless the owner wrote it."""
        stated, _, text = line.rstrip("\n").partition(" ")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return content if same_text(stated, self._authenticate(kind, content)) else None


@dataclass
class Subject:
    """A model under attack. The owner's cipher is here to judge; no attack may learn from it what it does not say it knows.

    Attributes:
        run: where the model came from.
        model: the network, on the device.
        feed: plain test images with masks, on the device; what was won is measured on all of them.
        cipher: the owner's.
        splits: the run's ``train`` and ``val``, where they are at hand: for attackers who have images of that kind.
        precise: float32 even where the device computes in bfloat16.
        batch_size: images a batch.
        pair: a plain image, uint8 (1, C, H, W), and its encrypted twin, for `known_pair`.
        keep: a file for finished pieces of work, so that an attack that was killed goes on.
        key: the owner's; authenticates those pieces, and without it none are kept.
        progress: hears of every image.
        spent: by the attack that is under way.
    """

    run: Run
    model: Segmenter
    feed: Feed
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
            self.run, self.feed.split, self.feed.device, len(self.feed), self.batch_size, self.precise
        ) | {
            "method": self.cipher.method,
            "block_size": self.cipher.block_size,
            "key": self.run.header.key_id,
            "password": self.cipher.password_hash,
            "attackers_images": {name: split.fingerprint for name, split in self.splits.items()},
            "start": self.run.config["recipe"].get("weights"),
        }
        evaluation.agree_on(self.settings)
        others = {name: split.origin for name, split in self.splits.items() if split.origin}
        self.tested = self.settings | self.feed.split.origin | {"attackers_images_from": others}
        self.kept = Kept(self.keep, self.settings, self.key)

    @classmethod
    def create(
        cls,
        run: Run,
        split: Split | MemorySplit,
        cipher: Cipher,
        device: torch.device,
        limit: int | None = None,
        **how: Any,
    ) -> "Subject":
        """Load a run's model and its test images; encrypted ones are decrypted on the device with the owner's key.

        Args:
            run: the model under attack.
            split: from `segkey.testdata.open_test_split`.
            cipher: the owner's, from `segkey.testdata.cipher_of`.
            device: where to compute.
            limit: only the first so many images.
            how: ``splits``, ``precise``, ``batch_size``, ``pair``, ``keep``, ``key`` and ``progress``, as above.
        """
        return cls(run, run.load_model(device), plain_feed(split, cipher, device, limit), cipher, **how)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.feed.device

    @property
    def protected(self) -> bool:
        """Whether there is a key at all."""
        return self.cipher.method != "none"

    @property
    def ways_of_plain(self) -> int:
        """`ways_of_plain` of the owner's cipher."""
        return ways_of_plain(self.cipher)

    # ------------------------------------------------------------------ an attacker's own images

    def images_of(self, split: str, count: int | None = None) -> Feed:
        """The first ``count`` plain images of ``train`` or ``val``, with masks; test images where those are not at hand.

        The name of the split that was taken is that of the feed.
        """
        if (split, count) not in self._feeds:
            source = self.splits.get(split, self.feed.split)
            self._feeds[split, count] = plain_feed(source, self.cipher, self.device, count)
        return self._feeds[split, count]

    def is_judged_on(self, feed: Feed) -> bool:
        """Whether images of a feed are among those that attacks are judged on: a choice made there flatters an attack."""
        if feed.split.header.split == self.feed.split.header.split:
            return True
        return not set(feed.split.names[: len(feed)]).isdisjoint(self.feed.split.names[: len(self.feed)])

    # ------------------------------------------------------------------ trying

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
        feed: Feed | None = None,
        max_value: int | None = None,
        entropy: bool = False,
        model: Segmenter | None = None,
    ) -> evaluation.Scores:
        """Try a cipher, or plain images, on all test images, or on those of another feed.

        Args:
            cipher: encrypts the images; plain, if None.
            feed: plain images with masks.
            max_value: what images are divided by; the cipher's, or 255 for plain images, if not given.
            entropy: measure the entropy of the prediction too.
            model: another network than the stolen one.
        """
        feed = feed or self.feed
        max_value = max_value or (cipher.max_value if cipher else 255)
        self.spent.add(Cost(1, len(feed)))
        return evaluation.score(
            model or self.model, feed, max_value, cipher, self.batch_size, self.precise, self._advance, entropy
        )

    def spend(self, images: int) -> None:
        """Account for pictures that ran through the network in another way than `score`."""
        self.spent.add(Cost(0, images))
        self._advance(images)

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """``work()``, which gives something that JSON can hold; kept with what it cost, so that it is done once."""
        piece = self.kept.get(name)
        if piece is None:
            before, self.spent, began = self.spent, Cost(), time.monotonic()
            try:
                value = finite(work())  # JSON has no NaN
                self.spent.seconds += time.monotonic() - began
                piece = {"value": value, "cost": asdict(self.spent)}
            finally:
                self.spent = before
            self.kept.add(name, piece)
        else:
            self._advance(piece["cost"]["images"])
        self.spent.add(Cost(**piece["cost"]))
        return piece["value"]

    def judge(self, name: str, cipher: Cipher | None, max_value: int | None = None) -> dict:
        """`score` on all test images, done once under this name: ``mean_iou``, ``pixel_accuracy``, ``iou``, ``constant``."""

        def work() -> dict:
            scores = self.score(cipher, max_value=max_value)
            return scores.summary() | {"constant": scores.constant}

        return self.once(name, work)

    # ------------------------------------------------------------------ what every attack is measured against

    def correct(self) -> dict:
        """What `judge` says of the owner's key."""
        return self.judge("correct", self.cipher)

    def plain(self) -> dict[int, dict]:
        """What `judge` says of plain images, by what they are divided by: 255, and the method's largest value."""
        found = {255: self.judge("plain", None)}
        if self.cipher.max_value != 255:
            divided_by = self.cipher.max_value
            found[divided_by] = self.judge(f"plain/{divided_by}", None, divided_by)
        return found


def ways_of_plain(cipher: Cipher) -> int:
    """In how many ways plain images can be divided: by 255, and by the method's largest value."""
    return 1 + (cipher.max_value != 255)


def plain_feed(split: Split | MemorySplit, cipher: Cipher, device: torch.device, limit: int | None = None) -> Feed:
    """A split on a device, as the owner sees it."""
    return Feed(split, device, None if split.header.method == "none" else cipher.decrypt, limit)


def _unheard(count: int) -> None:
    """Nobody listens."""
