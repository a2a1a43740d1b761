"""Windows: every pixel once, blended where they overlap, on the grid of blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import segkey
from segkey.data import scenes
from segkey.errors import SegkeyError
from segkey.model import networks, score_resizing, tiling
from segkey.model.tiling import Manner


@pytest.fixture
def model(trained_run, monkeypatch):
    """A network that takes any size, as torchvision's do; a plug-in's gets multiples of 32."""
    monkeypatch.setattr(networks, "_KNOWN_TO_WORK", ("torchvision", "segkey", "own"))
    return segkey.load(trained_run.path, device="cpu", precise=True)


def local(windows: np.ndarray) -> np.ndarray:
    """A network that looks at each pixel alone: its logits do not depend on the window."""
    pixels = windows[:, :1].astype(np.float32)
    return np.concatenate([pixels, 255 - pixels, np.full_like(pixels, 90)], 1)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 2, 4]),
    st.integers(2, 6),
    st.integers(0, 20),
    st.integers(1, 5),
)
def test_windows_of_a_local_network_give_what_the_whole_image_gives(h, w, m, side, overlap, batch):
    image = np.random.default_rng(h * w).integers(0, 256, (2, h, w), np.uint8)
    tile = (4 * m * side, 4 * m * (side + 1))
    overlap = min(overlap, tile[0] - m)
    manner = tiling.check(Manner(tile, overlap), 4 * m, m, None)
    seen = []

    def scores(windows: np.ndarray) -> np.ndarray:
        assert len(windows) <= batch
        assert not any(side % (4 * m) for side in windows.shape[2:])
        seen.append(windows.shape[2:])
        return local(windows)

    bands = list(tiling.bands(image, manner, 4 * m, m, None, scores, batch))
    assert max(band.shape[1] for band in bands) <= tile[0]
    assert all(side <= most for size in seen for side, most in zip(size, tile, strict=True))
    assert np.allclose(np.concatenate(bands, 1), local(image[None])[0], atol=1e-3)


def test_windows_lie_on_the_grid_of_blocks_and_overlap_enough():
    for side, window, overlap, m in ((104, 32, 8, 4), (64, 64, 16, 8), (96, 40, 38, 2)):
        places = tiling._places(side, window, overlap, m)
        assert (places[0], places[-1]) == (0, side - window)
        assert not any(place % m for place in places)
        steps = np.diff(places)
        assert all(0 < step <= window - overlap for step in steps)


def test_weights_fall_towards_the_borders():
    image = np.zeros((1, 8, 20), np.uint8)
    numbers = iter(range(9))

    def scores(windows: np.ndarray) -> np.ndarray:
        return np.stack([np.full((1, 8, 12), next(numbers), np.float32) for _ in windows])

    manner = Manner((8, 12), 4)
    (band,) = tiling.bands(image, manner, 1, 1, None, scores, 1)
    assert np.allclose(band[0, 0], [0] * 8 + [0.2, 0.4, 0.6, 0.8] + [1] * 8)


@pytest.mark.parametrize(
    ("how", "said", "cure"),
    [
        ({"tile": 2}, "smaller than a block of 4", "give --tile 4"),
        ({"tile": 30}, "not a multiple of 4, the block size", "give --tile 28 or 32"),
        ({"tile": 32, "overlap": 32}, "tiles of 32 cannot overlap by 32", "0 to 28"),
        ({"overlap": 8}, "an overlap belongs to tiles", "--tile"),
        ({"scale": 0}, "a scale of 0", "0.5"),
        ({"scale": float("nan")}, "a scale of nan", "0.5"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_cure(how, said, cure):
    if "tile" in how:
        how = how | {"tile": (how["tile"], how["tile"])}
    with pytest.raises(SegkeyError, match=said) as refused:
        tiling.check(Manner(**how), 4, 4, None)
    assert cure in refused.value.hint


def test_a_run_takes_images_of_any_size_in_tiles(model, key):
    image = scenes.draw(1, 2, 80)[0][:, :61]
    tiles = model.predict([image, image[:3, :5]], key, tile=32, overlap=8)
    assert [each.shape for each in tiles] == [(80, 61), (3, 5)]
    whole = model.predict(image, key, scale=1)
    assert np.array_equal(whole, model.predict(image, key, tile=(96, 64)))
    seen = []
    logits = type(model)._answer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(model), "_answer", lambda *given: seen.append(given[1]) or logits(*given)
        )
        model.predict(image[:64, :32], key, tile=32, overlap=8)
    windows = np.concatenate([np.asarray(each) for each in seen])
    plain = image[:64, :32].transpose(2, 0, 1)
    encrypted = segkey.ciphers.from_key("np", key, 4).encrypt(np.ascontiguousarray(plain))
    assert np.array_equal(windows, [encrypted[:, top : top + 32] for top in (0, 24, 32)])


def test_enlarging_bands_does_not_hold_them_all():
    logits = np.random.default_rng(0).normal(size=(3, 40, 7)).astype(np.float32)
    bands = (logits[:, top : top + 10] for top in range(0, 40, 10))
    wanted = score_resizing.enlarged(logits, (25, 30)).argmax(0)
    assert np.array_equal(score_resizing.classes_of_bands(bands, 40, (25, 30)), wanted)
