"""The example of a host without the key."""

import runpy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

import segkey
from segkey.data import scenes

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples/serve.py"))


@pytest.fixture(scope="module")
def model(trained_run):
    return segkey.load(trained_run.path, device="cpu", precise=True)


@pytest.fixture
def url(model):
    server = EXAMPLE["host"](model, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_client_encrypts_and_gets_the_mask(url, model, key, other_key, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(model, "logits", lambda i: sent.append(i) or type(model).logits(model, i))
    Image.fromarray(scenes.draw(1, 3, 60)[0]).crop((0, 0, 60, 40)).save(tmp_path / "photo.png")
    mask = EXAMPLE["ask"](tmp_path / "photo.png", key, url)
    expected = model.predict(tmp_path / "photo.png", key)
    assert mask.shape == (40, 60)
    assert (mask == expected).mean() > 0.99
    plain = model.prepared(Image.open(tmp_path / "photo.png"))
    assert np.array_equal(sent[0][0], segkey.ciphers.from_key("np", key, 4).encrypt(plain))
    assert not np.array_equal(EXAMPLE["ask"](tmp_path / "photo.png", other_key, url), expected)
    with pytest.raises(HTTPError, match="400"):
        urlopen(url, EXAMPLE["as_bytes"](np.zeros((3, 8, 8), np.uint8)))
    with pytest.raises(HTTPError, match="400"):
        urlopen(url, b"not an array")


def test_threads_share_a_model_and_its_cipher(model, key):
    images = [scenes.draw(1, number, 32 + 4 * number)[0] for number in range(8)]
    expected = [model.predict(image, key) for image in images]
    cipher = model.cipher(key)

    def predict(image: np.ndarray) -> np.ndarray:
        pixels = model.prepared(Image.fromarray(image))
        return model.masks(pixels[None], [image.shape[:2]], cipher)[0]

    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            for made, wanted in zip(pool.map(predict, images), expected, strict=True):
                assert np.array_equal(made, wanted)
