"""What is found by looking: the names of the package, its help, its reprs, and its datasets."""

import os
import pydoc
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

import segkey
from segkey.crypto import ciphers
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.shards import open_splits

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(segkey.__file__).resolve().parent


def test_every_public_name_is_there_and_nothing_else_is_shown():
    assert dir(segkey) == sorted(segkey.__all__)
    for name in segkey.__all__:
        assert getattr(segkey, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Keys'"):
        _ = segkey.Keys


def test_help_says_how_to_begin():
    text = pydoc.render_doc(segkey, renderer=pydoc.plaintext)
    assert "To begin with" in text
    for name in ("encrypt_folder(", "open_shards(", "load(", "Key"):
        assert name in text


def test_importing_loads_neither_torch_nor_numpy():
    code = "import segkey, sys; print(sorted({'torch', 'numpy', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [["-c", "import segkey; print(segkey.Key, segkey.__file__)"], ["-m", "segkey", "--version"]],
)
def test_an_editable_install_works_in_the_folder_that_holds_the_clone(tmp_path, words):
    """The clone, a folder called segkey, comes first in the path, but the package wins."""
    clone = tmp_path / "segkey"
    shutil.copytree(HERE, clone / "segkey", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(clone)},  # where a .pth file puts it: after the folder
        capture_output=True,
        text=True,
        check=True,
    )
    expected = segkey.__version__ if "-m" in words else str(clone / "segkey/__init__.py")
    assert expected in done.stdout


def test_an_editable_install_is_a_path():
    """Setuptools takes a .pth file, and no finder of its own, if all packages are in one folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["package-dir"] == {"": "."}


def test_the_top_level_is_short():
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no clone")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    top = {line.strip('"').split("/")[0] for line in done.stdout.splitlines()}
    expected = {"LICENSE", "README.md", "pyproject.toml", "segkey", "tests", "examples", "keys"}
    assert {name for name in top if not name.startswith(".")} == expected


# Datasets.


def test_shards_as_datasets(shards_folder):
    data = segkey.open_shards(shards_folder)
    assert list(data) == ["test", "train", "val"]
    train, split = data["train"], open_splits([shards_folder])["train"]
    assert len(train) == 12 * 4
    image, mask = train[12 * 2 + 5]
    assert type(image) is tv_tensors.Image
    assert type(mask) is tv_tensors.Mask
    assert image.dtype == torch.float32
    assert np.allclose(image.numpy() * 255, split.read("images", 5, 2))
    assert np.array_equal(mask.numpy(), split.read("masks", 5, 2))
    assert train.names == split.names
    assert torch.equal(train[-1][0], train[47][0])
    with pytest.raises(IndexError):
        _ = train[48]
    assert repr(train) == "<ShardDataset train: 12 images × 4 views of 32x32, NP M=4, 5 classes>"


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_datasets_in_a_data_loaders_processes(shards_folder, start):
    data = segkey.open_shards(shards_folder)["test"]
    expected = [data[n] for n in range(len(data))]  # opened here before a process is forked
    loader = DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context=start)
    images, masks = map(torch.cat, zip(*loader, strict=True))
    assert torch.equal(images, torch.stack([image for image, _ in expected]))
    assert torch.equal(masks, torch.stack([mask for _, mask in expected]))


def test_encrypting_on_the_fly_is_encrypting_beforehand(tmp_path, scenes_folder, key):
    """Plain shards and a transform give what encrypted shards hold, FFX's scale included."""
    made = {}
    for method in ("ffx", "none"):
        how = {"key": None if method == "none" else key, "method": method, "size": (32, 32)}
        out = tmp_path / method
        made[method] = segkey.encrypt_folder(scenes_folder, out, workers=1, views=1, **how)
    assert made["ffx"]["train"].header.classes == made["none"]["train"].header.classes
    encrypt = segkey.transforms.from_key("ffx", key, 4)
    chain = v2.Compose([v2.RandomHorizontalFlip(0.0), encrypt])
    fly = segkey.open_shards(tmp_path / "none", chain)["test"]
    for n in range(3):
        assert torch.allclose(fly[n][0], made["ffx"]["test"][n][0])
        assert torch.equal(fly[n][1], made["ffx"]["test"][n][1])
    assert 0.5 < fly[0][0].max() <= 1


def test_a_folder_of_images_alone_with_one_that_is_none(tmp_path, key):
    (tmp_path / "photos").mkdir()
    for n in range(3):
        Image.fromarray(np.full((20, 20, 3), 40 * n, np.uint8)).save(tmp_path / f"photos/{n}.png")
    (tmp_path / "photos/bad.png").write_text("no picture")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SegkeyWarning)
        data = segkey.encrypt_folder(tmp_path / "photos", tmp_path / "out", key, size=16, workers=1)
    assert any("bad.png" in str(each.message) for each in said)
    (split,) = data.values()
    assert len(split) == 3
    assert split[0].shape == (3, 16, 16)
    assert torch.utils.data.default_collate([split[0], split[1]]).shape == (2, 3, 16, 16)


def test_no_shards_is_an_error(tmp_path):
    with pytest.raises(SegkeyError, match="no shards"):
        segkey.open_shards(tmp_path)


# Models.


@pytest.fixture(scope="module")
def model(trained_run):
    return segkey.load(trained_run.path, device="cpu", precise=True)


def test_probabilities_are_those_of_the_masks(model, key):
    image = np.random.default_rng(3).integers(0, 256, (45, 60, 3), dtype=np.uint8)
    likely = model.probabilities(image, key)
    assert likely.shape == (5, 45, 60)
    assert likely.dtype == np.float32
    assert np.allclose(likely.sum(0), 1, atol=1e-5)
    assert (likely.argmax(0) == model.predict(image, key)).mean() > 0.999
    both = model.probabilities([image, image[:20]], key)
    assert [each.shape for each in both] == [(5, 45, 60), (5, 20, 60)]
    with pytest.warns(SegkeyWarning, match="no key was given"):
        assert not np.allclose(model.probabilities(image), likely)


def test_tensors_are_images_too(model, key):
    image = np.random.default_rng(3).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = model.predict(image, key)
    for given in (tensor, tensor / 255, tv_tensors.Image(tensor), tensor.double() / 255):
        assert np.array_equal(model.predict(given, key), expected)
    first, second = model.predict(torch.stack([tensor, tensor.flip(-1)]), key)
    assert np.array_equal(first, expected)
    assert second.shape == expected.shape


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(8, 8), r"shape \(8, 8\) is not an image"),
        (torch.zeros(8, 8, 3), r"shape \(8, 8, 3\) is not an image"),
        (torch.full((3, 8, 8), 2.0), "values from 2 to 2"),
        (torch.full((3, 8, 8), torch.nan), "values from nan"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "is not an image"),
    ],
)
def test_tensors_that_are_none(model, key, tensor, message):
    with pytest.raises(SegkeyError, match=message):
        model.predict(tensor, key)


def test_the_network_is_public_and_takes_encrypted_pixels(model, key):
    image = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cipher = ciphers.from_key("np", key, 4)
    pixels = torch.from_numpy(cipher.encrypt(np.ascontiguousarray(image.transpose(2, 0, 1))[None]))
    with torch.inference_mode():
        logits = model.network(pixels / 255)
    assert np.array_equal(logits[0].argmax(0).numpy(), model.predict(image, key))


def test_reprs_tell_and_never_leak(model, key, shards_folder):
    shown = repr(model)
    assert shown.startswith("<segkey model small: thin, 32x32, 5 classes, NP M=4, key ")
    assert key.id in shown
    secret = bytes(range(32))
    data = segkey.open_shards(shards_folder)["train"]
    transform = segkey.transforms.from_key("ffx", key, 4)
    for each in (key, model, data, transform, transform.cipher, model.run.header):
        for text in (repr(each), str(each), f"{each}"):
            assert secret.hex() not in text
            assert "\\x1f" not in text
            assert len(text) < 1000
