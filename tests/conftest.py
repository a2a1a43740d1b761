"""Fixtures that several test files share; whoever changes files works on a copy of them."""

import os
from pathlib import Path

import pytest
import thin  # registers a small network  # noqa: F401
from hypothesis import settings

from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.data import scenes, sources
from segkey.data.items import Source
from segkey.shards import encryption

settings.register_profile("segkey", derandomize=True, deadline=None, max_examples=25)
settings.load_profile("segkey")

os.environ["SEGKEY_PLUGINS"] = str(Path(__file__).with_name("thin.py"))  # for real processes

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def key() -> Key:
    return Key(bytes(range(32)))


@pytest.fixture(scope="session")
def other_key() -> Key:
    return Key(bytes(range(32, 64)))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data for development, which is no part of the project."""
    if not DATA.is_dir():
        pytest.skip(f"needs the real data in {DATA}")
    return DATA


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory) -> Path:
    """Built-in scenes with masks and classes.txt: 12 train, 4 val, 6 test images of 48x48
    pixels."""
    return scenes.write(tmp_path_factory.mktemp("scenes"), train=12, val=4, test=6, size=48)


@pytest.fixture(scope="session")
def scenes_source(scenes_folder) -> Source:
    return sources.find(scenes_folder)


@pytest.fixture(scope="session")
def shards_folder(tmp_path_factory, scenes_source, key) -> Path:
    """The scenes encrypted with `key`, method np, M = 4, to 32x32: train.h5 (4 views), val.h5,
    test.h5."""
    out, cipher = tmp_path_factory.mktemp("shards"), ciphers.from_key("np", key, 4)
    encryption.encrypt(
        encryption.plan_shards(scenes_source, out, cipher, size=(32, 32)), cipher, workers=1
    )
    return out


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, shards_folder):
    """Two epochs of `thin` on `shards_folder`; enough to have weights and results, not to be
    good."""
    from making import trained  # imports torch, which many tests do without

    return trained(shards_folder, tmp_path_factory.mktemp("runs"), name="small")


@pytest.fixture(scope="session")
def plain_shards(tmp_path_factory, scenes_source) -> Path:
    """The scenes as plain shards of 32x32: train.h5, val.h5, test.h5."""
    out, plain = tmp_path_factory.mktemp("plain"), ciphers.from_key("none", None, 1)
    plans = encryption.plan_shards(scenes_source, out, plain, size=(32, 32), views=1)
    encryption.encrypt(plans, plain, workers=1)
    return out


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory, plain_shards):
    """Eight epochs of `thin` on `plain_shards`, to be locked; whoever locks it copies it."""
    from making import trained

    return trained(plain_shards, tmp_path_factory.mktemp("runs"), epochs=8, name="plain")


@pytest.fixture(scope="session")
def corrected_shards(tmp_path_factory, scenes_folder, key) -> Path:
    """`shards_folder` made anew after one mask of a test image was corrected; no name has
    changed."""
    import shutil

    import numpy as np
    from PIL import Image

    data, out = (
        tmp_path_factory.mktemp("corrected") / "data",
        tmp_path_factory.mktemp("corrected-shards"),
    )
    shutil.copytree(scenes_folder, data)
    file = sorted((data / "masks/test").iterdir())[0]
    mask = np.array(Image.open(file))
    mask[:24] = 1
    Image.fromarray(mask).save(file)
    cipher = ciphers.from_key("np", key, 4)
    plans = encryption.plan_shards(sources.find(data), out, cipher, size=(32, 32))
    encryption.encrypt(plans, cipher, workers=1)
    return out


# Trainings and real processes: sh tests/run.sh -m "not slow" leaves them out.
SLOW = (
    "attacks/test_suite.py",
    "attacks/test_wrong_keys.py",
    "cli/test_cli.py",
    "model/test_folded_runs.py",
    "model/test_importing.py",
    "model/test_locks.py",
    "model/test_losses.py",
    "model/test_sealed_training.py",
    "model/test_training.py",
    "paper/test_reproduction.py",
    "robustness/",
    "system/test_distributed.py",
    "test_examples.py",
    "test_own_network.py",
    "test_public.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    # First what takes long, so that no worker is left with it when the other has nothing to do.
    items.sort(key=lambda item: "slow" not in item.keywords)
