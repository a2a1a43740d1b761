"""A model that has learned something, so that there is something to win."""

import numpy as np
import pytest
import torch

from segkey import attacks
from segkey.crypto import ciphers
from segkey.data import scenes, sources
from segkey.model import evaluation_splits, recipes, training
from segkey.shards import encryption, open_splits

CPU = torch.device("cpu")


def train(folder, source, key, method, block_size, password=None, epochs=10):
    """A run of resnet14 on 32x32 images; the shards lie beside it."""
    cipher = ciphers.from_key(method, key, block_size, 3, password)
    plans = encryption.plan_shards(source, folder / "shards", cipher, size=(32, 32))
    encryption.encrypt(plans, cipher, workers=1)
    recipe = recipes.recipe("scratch", epochs=epochs, batch_size=8)
    splits = open_splits([folder / "shards"], ("train", "val"))
    return training.train(
        splits,
        folder / "runs",
        recipe,
        shards=[folder / "shards"],
        device=CPU,
        network="resnet14",
        name=method,
    )


@pytest.fixture(scope="session")
def attacked(key):
    """Makes the subject of an attack of a run."""

    def make(run, password=None, photographs=None, **how):
        cipher, splits = run.cipher(key, password), evaluation_splits.attackers_splits(run)
        if photographs:
            splits |= {evaluation_splits.PHOTOGRAPHS: photographs}
        tested = evaluation_splits.open_test_split(run)
        return attacks.Target.create(run, tested, cipher, CPU, splits=splits, **how)

    return make


@pytest.fixture(scope="session")
def learnable(tmp_path_factory):
    """Scenes enough to learn from: 60 train, 8 val, 12 test."""
    return sources.find(
        scenes.write(tmp_path_factory.mktemp("learnable"), train=60, val=8, test=12, size=48)
    )


@pytest.fixture(scope="session")
def np_run(tmp_path_factory, learnable, key):
    """NP, M = 2: 924 keys."""
    return train(tmp_path_factory.mktemp("np"), learnable, key, "np", 2)


@pytest.fixture(scope="session")
def open_run(tmp_path_factory, learnable, key):
    """No protection at all."""
    return train(tmp_path_factory.mktemp("none"), learnable, key, "none", 1, epochs=4)


@pytest.fixture(scope="session")
def target(np_run, attacked):
    return attacked(np_run)


@pytest.fixture(scope="session")
def photographs():
    """Like natural images in what attacks rely on: smooth, textured, channels alike; uint8 (40, 3,
    64, 64)."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(40, 1, 64, 64)) + 0.3 * generator.normal(size=(40, 3, 64, 64))
    frequencies = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    smooth = np.fft.ifft2(np.fft.fft2(noise) / np.maximum(frequencies, 1 / 64) ** 1.3).real
    low, high = smooth.min((1, 2, 3), keepdims=True), smooth.max((1, 2, 3), keepdims=True)
    return np.round(255 * (smooth - low) / (high - low)).astype(np.uint8)
