"""Grey and four-band images, from files through shards and a network to masks."""

import numpy as np
import pytest
import torch
from making import CPU
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import segkey
from segkey.cli import app
from segkey.crypto import ciphers
from segkey.data.augment import as_array
from segkey.data.decode import load_image
from segkey.errors import SegkeyError
from segkey.model import network_registry, recipes, training
from segkey.shards import open_splits

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@pytest.fixture
def tiny(monkeypatch):
    network_registry.register_all()
    monkeypatch.setattr(network_registry, "NETWORKS", dict(network_registry.NETWORKS))
    network_registry.network("tiny", channels=(1, 3, 4))(
        lambda classes, channels: nn.Conv2d(channels, classes, 3, padding=1)
    )
    network_registry.network("colour")(lambda classes, channels: nn.Conv2d(3, classes, 1))


@pytest.fixture
def data(tmp_path):
    """Twelve images with masks; every band holds something of its own, transparent or not."""
    generator = np.random.default_rng(2)

    def make(channels):
        for kind in ("images", "masks"):
            (tmp_path / f"data{channels}" / kind).mkdir(parents=True)
        for n in range(12):
            image = generator.integers(0, 256, (16, 16, 4), dtype=np.uint8)[..., :channels]
            picture = Image.fromarray(image[..., 0] if channels == 1 else image, MODES[channels])
            picture.save(tmp_path / f"data{channels}/images/{n:02}.png")
            mask = (image[..., 0] > 127).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / f"data{channels}/masks/{n:02}.png")
        (tmp_path / f"data{channels}/classes.txt").write_text("dark\nbright\n")
        return tmp_path / f"data{channels}"

    return make


@pytest.mark.parametrize("channels", [1, 4])
def test_bands_are_read_as_they_are(data, channels):
    file = sorted((data(channels) / "images").iterdir())[0]
    pixels = as_array(load_image(file, channels=channels), (16, 16), is_image=True)
    stored = np.asarray(Image.open(file)).reshape(16, 16, channels).transpose(2, 0, 1)
    assert np.array_equal(pixels, stored)


def test_a_fourth_band_does_not_weight_the_others_when_resized():
    image = np.full((8, 8, 4), 200, np.uint8)
    image[::2, :, 3] = 0
    made = as_array(Image.fromarray(image, "RGBA"), (4, 4), is_image=True)
    assert (made[:3] == 200).all()


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("method", ["np", "ffx"])
def test_from_files_to_masks(tmp_path, data, key, tiny, channels, method):
    folder, out = data(channels), tmp_path / "shards"
    how = {"channels": channels, "size": 16, "workers": 1}
    found = segkey.encrypt_folder(folder, out, key, method, 4, **how)
    assert found["train"].header.channels == channels
    assert found["train"][0][0].shape == (channels, 16, 16)
    recipe = recipes.recipe("scratch", epochs=1, batch_size=4)
    splits = open_splits([out], ("train", "val"))
    run = training.train(
        splits, tmp_path / "runs", recipe, shards=[out], device=CPU, network="tiny"
    )
    model = segkey.load(run.path, "cpu", precise=True)
    file = sorted((folder / "images").iterdir())[0]
    array = np.asarray(Image.open(file))
    mask = model.predict(file, key)
    assert np.array_equal(mask, model.predict(array, key))
    cipher = ciphers.from_key(method, key, 4, channels)
    bands = array.reshape(16, 16, channels).transpose(2, 0, 1)
    pixels = cipher.encrypt(np.ascontiguousarray(bands[None])).astype(np.float32)
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(pixels / cipher.max_value))
    assert np.array_equal(mask, logits[0].argmax(0).numpy())


@pytest.mark.filterwarnings("ignore::segkey.errors.SegkeyWarning")  # it knows these images
def test_the_command_line_takes_channels_to_a_network(tmp_path, data, key, tiny, monkeypatch):
    folder = data(1)
    monkeypatch.chdir(tmp_path)
    key.save("keys/segkey.key")

    def run(*words, code=0):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == code, done.output
        return done.output

    run("encrypt", folder, "--channels", 1, "--size", 16, "--method", "none", "--workers", 1)
    train = ["train", "--recipe", "scratch", "--epochs", 1, "--batch-size", 4, "--device", "cpu"]
    said = run(*train, "--network", "colour", code=1)
    assert "network colour takes images with 3 channels, not 1" in said
    run(*train, "--network", "tiny", "--key", "keys/segkey.key", "-m", "np", "-M", 4)
    run("evaluate", "--device", "cpu")
    run("predict", "runs/latest", folder / "images", "--device", "cpu")
    own = ("--images", folder / "images", "--masks", folder / "masks")
    run("evaluate", *own, "--device", "cpu")
    run("attack", "--wrong-keys", 2, "--device", "cpu")


def test_three_bands_are_no_four(tmp_path, data, key):
    with pytest.raises(SegkeyError, match="mode RGB has no four bands"):
        load_image(sorted((data(3) / "images").iterdir())[0], channels=4)
    with pytest.raises(SegkeyError, match="cannot be read with 2 channels"):
        segkey.encrypt_folder(data(4), tmp_path / "out", key, channels=2, size=16)
