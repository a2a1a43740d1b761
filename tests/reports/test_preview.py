"""The sheet of Figure 4: what it shows is what encryption makes, pixel for pixel."""

import numpy as np
import pytest
from PIL import Image

from segkey.crypto import PROTECTED, ciphers
from segkey.data import scenes
from segkey.errors import SegkeyError
from segkey.paper import figures
from segkey.reports import preview


@pytest.fixture
def picture() -> np.ndarray:
    return scenes.draw(0, 1, 64)[0].transpose(2, 0, 1).copy()


def holds(sheet: Image.Image, picture: np.ndarray) -> bool:
    """Whether a picture of 64 pixels stands somewhere in a sheet, each of its pixels as 2x2."""
    whole, part = np.asarray(sheet), picture.transpose(1, 2, 0).repeat(2, 0).repeat(2, 1)
    height, width = part.shape[:2]
    places = np.argwhere((whole[: -height + 1 or None, : -width + 1 or None] == part[0, 0]).all(-1))
    return any(np.array_equal(whole[y : y + height, x : x + width], part) for y, x in places)


def test_the_pictures_are_those_that_the_key_makes(picture, key):
    shown = preview.encrypted_pictures(picture, key, ["np", "ffx"], [2, 16], password=b"fixed")
    assert np.array_equal(shown["np"][1], ciphers.from_key("np", key, 16).encrypt(picture))
    cipher = ciphers.from_key("ffx", key, 2, password=b"fixed")
    seen = cipher.encrypt(picture).astype(float) / cipher.max_value
    assert np.abs(shown["ffx"][0] / 255 - seen).max() <= 0.5 / 255


def test_the_key_of_published_pictures_is_known_and_depends_on_nobodys(key, other_key):
    assert preview.throwaway_key() == preview.throwaway_key()
    assert preview.throwaway_key().id == "fc80de8afe23a30d"
    assert preview.throwaway_key() not in (preview.throwaway_key(1), key, other_key)


def test_a_sheet_shows_every_picture_pixel_for_pixel(picture, key):
    shown = preview.encrypted_pictures(picture, key, PROTECTED, [2, 4])
    sheet = figures.sheet(picture, shown, [2, 4])
    assert all(
        holds(sheet, each) for each in [picture, *(p for line in shown.values() for p in line)]
    )
    assert not holds(sheet, 255 - picture)


def test_block_sizes_that_do_not_fit_are_refused(picture, key):
    with pytest.raises(SegkeyError, match="64 is not a multiple of the block size 24"):
        preview.encrypted_pictures(picture, key, ["np"], [24])


def test_an_unfit_size_has_no_default_block_sizes():
    assert preview.default_block_sizes(256, 256) == [2, 4, 8, 16, 256]
    assert preview.default_block_sizes(96, 80) == [2, 4, 8, 16]
    with pytest.raises(SegkeyError, match="none of the block sizes 2, 4, 8, 16, 256 divides 75x75"):
        preview.default_block_sizes(75, 75)
