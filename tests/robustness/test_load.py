"""Much work takes no more memory than a little: a hundred thousand images, a thousand epochs, ten
thousand keys.

With SEGKEY_LOAD=1 in full, which takes minutes; otherwise as much as shows a leak of an image, an
epoch or a key.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tools import Growth, amount

from segkey import attacks
from segkey.crypto import ciphers
from segkey.data.items import Item, Source
from segkey.data.preparation import Loaded, Preparation
from segkey.model import evaluation_splits, networks, recipes, training
from segkey.shards import Shard, encryption, open_splits
from segkey.system.progress import Progress
from segkey.system.seeds import seeded

FULL = amount("SEGKEY_LOAD", 0)
GROWTH = 40  # MB that allocators may take and not give back

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads memory as Linux tells it"
)


class Watched(Progress):
    """Tells a `Growth` of every image, or of every line that is said of an epoch."""

    def __init__(self, growth: Growth, word: str = ""):
        self.growth, self.word = growth, word

    def task(self, description, total, unit="images"):
        from contextlib import nullcontext

        return nullcontext((lambda count: None) if self.word else self.growth)

    def say(self, text):
        if text.startswith(self.word):
            self.growth()


@dataclass(frozen=True)
class Drawn(Preparation):
    """Draws an image where others read one."""

    def load_and_look(self, item):
        image = seeded(item.name).integers(0, 256, (3, *self.size), dtype=np.uint8)
        return Loaded([image], [], self.size)


def test_encrypting_many_images(tmp_path, key):
    count, cipher = 100_000 if FULL else 2_000, ciphers.from_key("np", key, 4)
    items = [Item(f"{number}.png", tmp_path / "drawn", None) for number in range(count)]
    source = Source(tmp_path, "drawn images", {"all": items})
    plans = encryption.plan_shards(
        source, tmp_path / "shards", cipher, size=(96, 96), shard_bytes=5e8
    )
    plans = [replace(plan, preparation=Drawn(plan.preparation.size)) for plan in plans]
    growth = Growth(count)
    result = encryption.encrypt(plans, cipher, workers=1, progress=Watched(growth))
    print(f"encrypt, images, {growth}")
    assert result.images == {"all": count}
    assert growth.done == count
    assert growth.most - growth.early < GROWTH  # 2,000 images of 96x96 are 55 MB
    with Shard(plans[-1].path) as shard:
        assert shard.names[-1] == items[-1].name


class Small(networks.Segmenter):
    """A network that learns as any other does, and quickly: its weights would hide what else
    grows."""

    def __init__(self, name: str, classes: list[str], *_, **__):
        torch.nn.Module.__init__(self)
        self.entry, self.classes = networks.network_registry.find(name), len(classes)
        self.name, self.channels = name, 3
        self.fcn = torch.nn.Conv2d(3, len(classes), 3, padding=1)
        self.mean, self.std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)

    def forward(self, pixels):
        return self.fcn(pixels)


def test_training_for_many_epochs(tmp_path, monkeypatch, shards_folder):
    monkeypatch.setattr(networks, "build", Small)
    epochs = 1_000 if FULL else 100
    growth, splits = Growth(epochs), open_splits([shards_folder], ("train", "val"))
    splits = {"train": splits["val"], "val": splits["val"]}  # four images are an epoch short enough
    recipe = recipes.recipe("scratch", epochs=epochs, batch_size=4)
    run = training.train(
        splits,
        tmp_path,
        recipe,
        shards=[shards_folder],
        device=torch.device("cpu"),
        network="thin",
        save_every=1,  # so that there is much saving, too
        progress=Watched(growth, "epoch "),
    )
    print(f"train, epochs, {growth}")
    assert run.configuration.epochs_done == growth.done == epochs
    assert growth.most - growth.early < GROWTH


def test_attacking_with_many_keys(trained_run, key):
    keys, cpu = 10_000 if FULL else 300, torch.device("cpu")
    cipher, split = (
        trained_run.cipher(key),
        evaluation_splits.open_test_split(trained_run),
    )
    growth = Growth(len(split) * (keys + 2))
    target = attacks.Target.create(
        trained_run, split, cipher, cpu, precise=True, progress=Watched(growth)
    )
    target.model = torch.nn.Conv2d(3, 5, 1)  # scores as any model does, and quickly
    images = len(target.loader)
    document = attacks.correct_plain_incorrect(target, keys)
    print(f"attack, images of {keys:,} keys, {growth}")
    assert len(document.incorrect.values) == keys
    assert growth.done == images * (keys + 2)
    assert growth.most - growth.early < GROWTH
