"""Large JPEGs are decoded at a fraction of their size, and what comes out looks the same."""

import numpy as np
import pytest
from PIL import Image

from segkey.data.augment import Crop, least_size
from segkey.data.decode import load_image, whole_size
from segkey.data.items import Item
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError

SIZE = (32, 32)
JPEG = {"quality": 92}  # with the usual subsampling of colours


def photo(height: int, width: int) -> np.ndarray:
    """Waves of several lengths in every colour, and an edge."""
    y, x = np.mgrid[0:height, 0:width] / 100
    values = 127 + 100 * np.stack(
        [np.sin(a * x + b * y) for a, b in ((3, 1), (1, 4), (7, 5))], axis=2
    )
    values[height // 3 :, width // 2 :] *= 0.5
    return values.astype(np.uint8)


WHOLE = photo(240, 400)


def saved(path, mode="RGB", **how) -> Item:
    Image.fromarray(WHOLE).convert(mode).save(path, **JPEG | how)
    return Item(path.stem, path, None)


def turned(orientation: int) -> dict:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """In decibels, of values of 8 bits."""
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize(
    "name, how, channels",
    [
        ("colour.jpg", {}, 3),
        ("grey.jpg", {"mode": "L"}, 3),
        ("grey.jpg", {"mode": "L"}, 1),
        ("four.jpg", {"mode": "CMYK"}, 4),
        ("progressive.jpg", {"progressive": True}, 3),
        ("telephone.mpo", {"format": "MPO", "save_all": True}, 3),
        *[(f"turned-{n}.jpg", turned(n), 3) for n in (3, 6, 7)],
    ],
)
@pytest.mark.parametrize("augmented", [False, True])
def test_a_large_jpeg_is_the_same_to_the_eye_and_of_the_same_size(
    tmp_path, name, how, channels, augmented
):
    item = saved(tmp_path / name, **how)
    views = {"views": 2, "augmented": True, "crop_scale": 0.8} if augmented else {}
    exact, scaled = (
        Preparation(SIZE, channels=channels, exact=exact, **views).load_and_look(item)
        for exact in (True, False)
    )
    assert scaled.peculiar == exact.peculiar | {"scaled"}
    assert scaled.original_size == exact.original_size
    assert psnr(np.stack(exact.images), np.stack(scaled.images)) > 45


@pytest.mark.parametrize("name", ["small.jpg", "large.png", "large.webp"])
def test_small_jpegs_and_other_files_are_decoded_whole(tmp_path, name):
    """Twice the size or more is not yet four times."""
    size = (64, 100) if name == "small.jpg" else SIZE
    item = saved(tmp_path / name)
    loaded = [Preparation(size, exact=exact).load_and_look(item) for exact in (True, False)]
    assert np.array_equal(loaded[0].images, loaded[1].images)
    assert "scaled" not in loaded[1].peculiar


@pytest.mark.parametrize(
    "crops, least",
    [
        ([None], (64, 64)),
        ([None, Crop(0.1, 0.0, 0.6, 0.5, flip=True)], (128, 128)),
        ([Crop(0.0, 0.0, 0.01, 0.01, flip=False)], (240, 400)),  # more than there is
    ],
)
def test_the_smallest_crop_decides_how_small_an_image_may_be_decoded(tmp_path, crops, least):
    assert least_size(SIZE, crops, (240, 400)) == least
    item = saved(tmp_path / "a.jpg")
    picture = load_image(item.image, least_size=lambda *whole: least_size(SIZE, crops, whole))
    assert whole_size(picture) == (240, 400)
    assert picture.height >= least[0]
    assert picture.width >= least[1]


def test_a_mask_is_compared_with_the_whole_image(tmp_path):
    item = saved(tmp_path / "a.jpg")
    for size, fits in (((400, 240), True), ((100, 60), False)):
        mask = tmp_path / "mask.png"
        Image.new("L", size, 1).save(mask)
        preparation = Preparation(SIZE, classes=2)
        if fits:
            assert (preparation.load(Item("a", item.image, mask))[1][0] == 1).all()
        else:
            with pytest.raises(SegkeyError, match="the mask is 100x60, its image 400x240"):
                preparation.load(Item("a", item.image, mask))
