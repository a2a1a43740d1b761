"""Contact sheets: every pixel of what is shown is that of the shard, whatever is in it."""

from dataclasses import replace

import numpy as np
import pytest
from laying import mask, photo

from segkey.crypto import ciphers
from segkey.data import sources
from segkey.data.palette import palette_of
from segkey.reports import inspection
from segkey.reports.contact_sheets import data_sheet, shard_sheet
from segkey.shards import Header, open_splits

CLASSES = ("sky", "grass", "house")
HEADER = Header("test", "np", 4, 3, 255, key_id="0123456789abcdef", classes=CLASSES)


def images(count=2, size=(32, 48), channels=3, names="picture {}.jpg", seed=0, **parts) -> list:
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        each = {
            "name": names.format(number),
            "stored": draw.integers(0, 256, (channels, *size), np.uint8),
            "decrypted": draw.integers(0, 256, (channels, *size), np.uint8),
            "mask": draw.integers(0, len(CLASSES), size, np.uint8),
        }
        made.append(inspection.ShownImage(**(each | parts)))
    return made


def occurrences(sheet, tile: np.ndarray) -> int:
    """How often a tile, uint8 (H, W, 3), stands in a sheet, pixel for pixel."""
    pixels = np.asarray(sheet)
    height, width = tile.shape[:2]
    corners = np.argwhere((pixels[: -height + 1, : -width + 1] == tile[0, 0]).all(-1))
    return sum(
        np.array_equal(pixels[y : y + height, x : x + width], tile) for y, x in corners.tolist()
    )


def enlarged(values: np.ndarray, times: int) -> np.ndarray:
    return values.repeat(times, 0).repeat(times, 1)


@pytest.mark.parametrize(("size", "times"), [((32, 48), 4), ((8, 8), 24), ((200, 100), 1)])
def test_every_tile_is_the_image_enlarged_by_a_whole_number(size, times):
    shown = images(size=size)
    sheet = shard_sheet("shards/test.h5", HEADER, shown)
    colours = palette_of(CLASSES)
    for each in shown:
        for name in ("stored", "decrypted"):
            assert occurrences(sheet, enlarged(getattr(each, name).transpose(1, 2, 0), times)) == 1
        assert occurrences(sheet, enlarged(colours[each.mask], times)) == 1


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_show_the_first_in_grey(channels):
    shown = images(1, channels=channels)
    sheet = shard_sheet("a.h5", HEADER, shown)
    grey = enlarged(np.stack([shown[0].stored[0]] * 3, -1), 4)
    assert occurrences(sheet, grey) == 1


def test_without_masks_there_is_no_legend_and_without_a_key_no_decrypted_column():
    full = shard_sheet("a.h5", HEADER, images())
    bare = shard_sheet("a.h5", replace(HEADER, classes=()), images(mask=None, decrypted=None))
    assert bare.width < full.width
    assert bare.height < full.height
    assert bare.mode == full.mode == "RGB"


def test_a_mask_with_impossible_classes_is_drawn_and_void_is_in_the_legend():
    odd = np.full((32, 48), 77, np.uint8)
    sheet = shard_sheet("a.h5", HEADER, images(1, mask=odd))
    assert occurrences(sheet, enlarged(palette_of(CLASSES)[odd], 4)) == 1
    void = shard_sheet("a.h5", HEADER, images(1, mask=np.full((32, 48), 255, np.uint8)))
    assert void.height > sheet.height  # nothing of the first is a class: it has no legend


@pytest.mark.parametrize("name", ["x" * 500, "\x1b[31m\n", "", "日本語 " * 50, "\ud800"])
def test_names_of_any_length_and_content_fit_the_sheet(name):
    shown = images(1, names=name.replace("{", "").replace("}", ""))
    sheet = shard_sheet(name or "a.h5", HEADER, shown)
    assert sheet.width == shard_sheet("a.h5", HEADER, images(1)).width
    edge = np.asarray(sheet)[:26, -8:]
    assert (edge == 255).all()  # the text ends before the margin


def test_a_real_shard_with_its_key_shows_what_the_key_gives_back(shards_folder, plain_shards, key):
    split = open_splits([shards_folder], ("test",))["test"]
    cipher = ciphers.from_key("np", key, 4)
    found = inspection.first_images(split, cipher)
    plain = inspection.first_images(open_splits([plain_shards], ("test",))["test"], None)
    assert len(found) == len(plain) == min(4, len(split))
    for one, other in zip(found, plain, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.decrypted, other.stored)
        assert np.array_equal(one.mask, other.mask)
        assert not np.array_equal(one.stored, other.stored)
        assert other.decrypted is None


def test_images_of_a_method_with_larger_values_are_scaled_to_white(tmp_path, scenes_source, key):
    from segkey.shards import encryption

    cipher = ciphers.from_key("ffx", key, 4)
    plans = encryption.plan_shards(scenes_source, tmp_path, cipher, size=(32, 32), views=1)
    encryption.encrypt(plans, cipher, workers=1)
    split = open_splits([tmp_path], ("test",))["test"]
    raw = split.read_batch("images", np.arange(min(4, len(split))))
    shown = np.stack([each.stored for each in inspection.first_images(split, None)])
    assert shown.dtype == np.uint8
    assert np.array_equal(shown, raw.astype(np.int64) * 255 // cipher.max_value)


def test_a_sheet_of_files_shows_four_of_each_split_and_those_that_cannot_be_read(tmp_path):
    for split, count in (("train", 9), ("val", 2), ("test", 1)):
        for number in range(count):
            photo(tmp_path / f"images/{split}/{split}{number}.png")
            mask(tmp_path / f"masks/{split}/{split}{number}.png", (0, 1), shift=number)
    (tmp_path / "classes.txt").write_text("ground\nbox\n")
    source = sources.find(tmp_path)
    whole = data_sheet(source)
    (tmp_path / "images/test/test0.png").write_bytes(b"no image")
    broken = data_sheet(source)
    assert broken.size == whole.size
    assert occurrences(broken, np.zeros((192, 192, 3), np.uint8)) == 1
    assert occurrences(whole, np.zeros((192, 192, 3), np.uint8)) == 0
    one, two = (data_sheet(source, most=most) for most in (1, 2))  # 3 and 5 tiles, 4 in a row
    assert (one.width, two.width) == (3 * 200 + 8, 4 * 200 + 8)
    assert one.height < two.height == whole.height
