"""Pixels that change on decoding: deep images, bands, alpha, frames, EXIF; all said with numbers.

Inputs are built after public reports (issue 18, C): the reported one and two more of each kind.
"""

import struct

import numpy as np
import pytest
from laying import mask, pairs, photo
from PIL import Image

from segkey.crypto import ciphers
from segkey.data.decode import load_image
from segkey.data.intake import take_in
from segkey.data.items import Item, Severity
from segkey.data.peculiarities import summed_up
from segkey.data.preparation import Preparation
from segkey.data.user_choices import parse_choices
from segkey.errors import SegkeyError
from segkey.shards import Shard
from segkey.shards.encryption import encrypt, plan_shards

RNG = np.random.default_rng(1)
NOISE = RNG.integers(0, 256, (30, 40, 3), np.uint8)


def deep(folder, low, high, dtype=np.uint16, suffix="png", count=4):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        values = RNG.integers(low, high, (30, 40), endpoint=True).astype(dtype)
        values[0, :2] = low, high
        Image.fromarray(values).save(folder / f"p{number}.{suffix}")
    return folder


def said(found, severity=None):
    return "\n".join(f"{f.text}; {f.cure}" for f in found if severity in (None, f.severity))


def look(folder, **choices):
    return take_in(folder, choices=parse_choices(**choices))


# ------------------------------------------------------------------ 15: deep images


@pytest.mark.parametrize(
    "high, dtype, suffix, bits",
    [
        (4095, np.uint16, "png", 12),
        (1023, np.uint16, "tif", 10),
        (255, np.uint16, "png", 8),
        (4000, np.int32, "tif", 12),
    ],
)
def test_values_of_few_bits_in_deep_files_are_not_black(tmp_path, high, dtype, suffix, bits):
    intake = look(deep(tmp_path, 0, high, dtype, suffix))
    intake.require()
    assert intake.source.pixel_range == (0, (1 << bits) - 1)
    assert f"taken as {bits}-bit" in said(intake.findings, Severity.NOTE)
    image = np.asarray(load_image(intake.source.items[0].image, intake.source.pixel_range))
    assert image.max() >= 240
    assert image.min() == 0


def test_sixteen_bits_stay_what_they_were(tmp_path):
    intake = look(deep(tmp_path, 0, 65535))
    assert intake.source.pixel_range is None
    path = intake.source.items[0].image
    stored = np.asarray(Image.open(path))
    assert np.array_equal(np.asarray(load_image(path))[..., 0], stored >> 8)


@pytest.mark.parametrize("low, high", [(-1000, 3000), (-1, 200), (0, 100_000)])
def test_values_without_a_known_range_are_refused(tmp_path, low, high):
    deep(tmp_path, low, high, np.int32, "tif")
    with pytest.raises(SegkeyError, match=f"values from {low} to {high}") as caught:
        look(tmp_path).require()
    assert f"--range {low}:{high}" in caught.value.hint
    cured = look(tmp_path, pixel_range=f"{low}:{high}")
    cured.require()
    image = np.asarray(load_image(cured.source.items[0].image, cured.source.pixel_range))
    assert (image.min(), image.max()) == (0, 255)


def test_values_in_between_are_warned_of(tmp_path):
    text = said(look(deep(tmp_path, 0, 8000)).findings, Severity.WARN)
    assert "dark in the range of 16 bits" in text
    assert "--range 0:8000" in text


@pytest.mark.parametrize("text", ["", "7", "1", "5:1", "a:b", "1:1", "auto:1"])
def test_ranges_that_are_none(text):
    with pytest.raises(SegkeyError, match="is no range of pixel values"):
        parse_choices(pixel_range=text)


def test_a_range_is_noted_in_the_shard(tmp_path):
    source = look(deep(tmp_path / "d", 0, 4095)).source
    cipher = ciphers.from_key("none", None, 1)
    plans = plan_shards(source, tmp_path / "out", cipher, size=(30, 40))
    encrypt(plans, cipher, workers=1)
    with Shard(tmp_path / "out/all.h5") as shard:
        assert shard.header.pixel_range == "0:4095"
        assert shard.header.range_of_pixels == (0, 4095)


# ------------------------------------------------------------------ 15: bands, alpha, frames


def seen(path, pixel_range=None):
    peculiar = set()
    image = load_image(path, pixel_range, peculiar)
    return np.asarray(image), summed_up(peculiar)


def test_what_is_under_transparent_pixels_is_not_seen(tmp_path):
    alpha = np.full((30, 40, 1), 255, np.uint8)
    alpha[:10] = 0
    Image.fromarray(np.dstack([NOISE, alpha])).save(tmp_path / "a.png")
    image, peculiar = seen(tmp_path / "a.png")
    assert not image[:10].any()
    assert np.array_equal(image[10:], NOISE[10:])
    assert peculiar == {"transparent"}


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_alpha_that_is_the_same_everywhere_says_nothing(tmp_path, value):
    Image.fromarray(np.dstack([NOISE, np.full((30, 40), value, np.uint8)])).save(tmp_path / "a.png")
    image, peculiar = seen(tmp_path / "a.png")
    assert np.array_equal(image, NOISE)
    assert not peculiar


def test_transparent_colours_of_a_palette(tmp_path):
    picture = Image.fromarray(NOISE).quantize(8)
    picture.save(tmp_path / "a.png", transparency=0)
    image, peculiar = seen(tmp_path / "a.png")
    hidden = np.asarray(picture) == 0
    assert hidden.any()
    assert not image[hidden].any()
    assert peculiar == {"transparent"}


def four_bands(path, fourth, extra, colours=NOISE):
    Image.fromarray(np.dstack([colours, fourth])).save(path)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 338, 3, 1))
    data[entry + 8 : entry + 10] = struct.pack("<H", extra)
    path.write_bytes(data)
    with Image.open(path) as picture:
        assert tuple(picture.tag_v2[338]) == (extra,)
    return path


@pytest.mark.parametrize("extra, most", [(1, 60), (1, 255), (2, 200)])
def test_near_infrared_under_the_name_of_alpha_changes_no_colour(tmp_path, extra, most):
    fourth = RNG.integers(1, most, (30, 40), np.uint8)
    image, peculiar = seen(four_bands(tmp_path / "a.tif", fourth, extra))
    assert np.array_equal(image, NOISE)
    assert peculiar == {"fourth band"}


def test_true_associated_alpha_is_one(tmp_path):
    fourth, colours = np.full((30, 40), 255, np.uint8), NOISE.copy()
    fourth[:10], colours[:10] = 128, NOISE[:10] // 2
    image, peculiar = seen(four_bands(tmp_path / "a.tif", fourth, 1, colours))
    assert peculiar == {"transparent"}
    assert np.abs(image.astype(int) - colours).max() <= 3  # on black, as they were stored


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png"])
def test_pages_and_frames_are_counted(tmp_path, name):
    frames = [Image.fromarray(np.roll(NOISE, shift, 0)) for shift in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert seen(tmp_path / name)[1] == {"frames"}


def test_five_bands_are_named(tmp_path):
    from laying import SIZE

    path = tmp_path / "a.tif"
    Image.fromarray(NOISE).save(path)
    data = bytearray(path.read_bytes())
    with Image.open(path) as picture:
        assert picture.size == SIZE
    entry = data.index((277).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    data[entry + 8 : entry + 10] = (5).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(SegkeyError, match="a TIFF of more than four bands"):
        load_image(path)


def test_each_kind_is_one_counted_line_after_encryption(tmp_path):
    pairs(tmp_path / "d", count=6)
    for number in range(3):
        alpha = np.full((30, 40, 1), 255, np.uint8)
        alpha[:10] = 0
        file = tmp_path / f"d/images/p{number}.jpg"
        file.unlink()
        Image.fromarray(np.dstack([NOISE, alpha])).save(file.with_suffix(".png"))
    source = look(tmp_path / "d").source
    cipher = ciphers.from_key("none", None, 1)
    plans = plan_shards(source, tmp_path / "out", cipher, size=(32, 32))
    result = encrypt(plans, cipher, workers=1)
    (found,) = (f for f in result.findings(source) if "transparent" in f.text)
    assert found.text.startswith("3 images with transparent pixels: shown on black, such as p")
    table = result.class_table(source)
    assert sum(counts.sum() for counts in table.pixels.values()) == 6 * 30 * 40


# ------------------------------------------------------------------ 16: EXIF


@pytest.mark.parametrize("turned", [3, 6, 8, 2])
def test_masks_are_turned_as_images_are(tmp_path, turned):
    labels = np.zeros((30, 40), np.uint8)
    labels[:10, :5] = 1
    exif = Image.Exif()
    exif[0x0112] = turned
    picture = np.dstack([labels * 255] * 3)
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(labels).save(tmp_path / "m.png", exif=exif)
    size = (30, 40) if turned in (2, 3) else (40, 30)
    item = Item("a.png", tmp_path / "a.png", tmp_path / "m.png")
    images, masks, original = Preparation(size, 2).load(item)
    assert original == size
    assert np.array_equal(images[0][0] // 255, masks[0])


@pytest.mark.parametrize("turned, on", [(3, "image"), (2, "image"), (3, "mask")])
def test_images_turned_where_masks_are_not_are_counted(tmp_path, turned, on):
    pairs(tmp_path, count=6)
    exif = Image.Exif()
    exif[0x0112] = turned
    for number in range(2):
        if on == "image":
            photo(tmp_path / f"images/p{number}.jpg", turned=turned)
        else:
            mask(tmp_path / f"masks/p{number}.png", exif=exif)
    intake = look(tmp_path)
    intake.require()
    text = said(intake.findings, Severity.WARN)
    assert f"2 {on}s are turned by their EXIF data" in text
    assert "exiftool" in text


@pytest.mark.parametrize("turned", [5, 6, 8])
def test_a_size_that_exif_explains_is_explained(tmp_path, turned):
    pairs(tmp_path, count=6)
    photo(tmp_path / "images/p0.jpg", turned=turned)
    what = f"the image is turned by its EXIF orientation {turned}, the mask is not"
    assert what in said(look(tmp_path).findings, Severity.WARN)
    item = Item("p0.jpg", tmp_path / "images/p0.jpg", tmp_path / "masks/p0.png")
    with pytest.raises(SegkeyError, match=what):
        Preparation((32, 32), 2).load(item)


def test_a_size_that_exif_does_not_explain(tmp_path):
    pairs(tmp_path, count=6)
    photo(tmp_path / "images/p0.jpg", size=(50, 30))
    text = said(look(tmp_path).findings)
    assert "1 mask of another size than the image, such as p0.png (the mask is 40x30" in text
    assert "EXIF" not in text


# ------------------------------------------------------------------ 15: colours of 16 bits


def deep_colours(path, values):
    """A PNG of 16-bit RGB, which Pillow cannot write."""
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in (parts, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + check
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_colours_of_few_bits_in_deep_files_are_not_black(tmp_path, bits):
    values = RNG.integers(0, 1 << bits, (30, 40, 3)).astype(np.uint16)
    values[0, 0] = (1 << bits) - 1
    deep_colours(tmp_path / "a.png", values)
    intake = look(tmp_path)
    intake.require()
    assert intake.source.pixel_range == (None if bits == 16 else (0, (1 << bits) - 1))
    read = np.asarray(load_image(tmp_path / "a.png", intake.source.pixel_range))
    full = (1 << bits) - 1
    expected = values >> 8 if bits == 16 else values.astype(int) * 255 // full
    assert np.array_equal(read, expected)


def test_dark_colours_are_warned_of(tmp_path):
    values = np.full((30, 40, 3), 4000, np.uint16)
    assert seen(deep_colours(tmp_path / "a.png", values))[1] == {"dark"}
    assert not seen(deep_colours(tmp_path / "b.png", values * 16))[1]
