"""Pictures: formats, modes, orientation, what is refused, crops, resizing."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segkey.data.augment import Crop, as_array, random_crop, random_crops
from segkey.data.decode import load_image
from segkey.data.masks import load_mask
from segkey.errors import SegkeyError
from segkey.system.seeds import seeded

Y, X = np.mgrid[0:24, 0:40]
PHOTO = np.stack([6 * X, 10 * Y, 3 * (X + Y)], axis=2).astype(
    np.uint8
)  # smooth, so JPEG is nearly exact
DEEP = (PHOTO[..., 0].astype(np.uint16) << 8) + 77
LABELS = ((X // 8 + Y // 8) % 4).astype(np.uint8)
JPEG = {"quality": 95, "subsampling": 0}

# What each EXIF orientation says must be done to the stored pixels (EXIF 2.3, tag 0x0112).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def saved(path, array, mode=None, **how):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **how)
    return path


def png_header(width, height):
    """A PNG of a few bytes that declares a size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "name, how",
    [
        ("a.png", {}),
        ("a.BMP", {}),
        ("a.tiff", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.webp", {"lossless": True}),
        ("a.jpg", JPEG),
        ("a.jpeg", JPEG | {"progressive": True}),
    ],
)
def test_formats(tmp_path, name, how):
    picture = load_image(saved(tmp_path / name, PHOTO, **how))
    assert (picture.mode, picture.size) == ("RGB", (40, 24))
    assert np.abs(np.asarray(picture, dtype=int) - PHOTO).max() <= (6 if "jp" in name else 0)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_modes_become_rgb(tmp_path, mode, suffix):
    suffix = "jpg" if (mode, suffix) == ("CMYK", "png") else suffix  # PNG knows no CMYK
    path = saved(tmp_path / f"a.{suffix}", PHOTO, mode)
    assert Image.open(path).mode == mode
    assert np.array_equal(np.asarray(load_image(path)), np.asarray(Image.open(path).convert("RGB")))


def test_transparent_pixels_keep_their_colours(tmp_path):
    path = saved(tmp_path / "a.png", np.dstack([PHOTO, np.zeros_like(PHOTO[..., :1])]))
    assert np.array_equal(np.asarray(load_image(path)), PHOTO)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path, name, order):
    picture = load_image(saved(tmp_path / name, DEEP.astype(order)))
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), np.dstack([PHOTO[..., 0]] * 3))


@pytest.mark.parametrize("number", UPRIGHT)
@pytest.mark.parametrize(
    "name, how, stored",
    [
        ("a.png", {}, PHOTO),
        ("a.tif", {}, PHOTO),
        ("a.webp", {"lossless": True}, PHOTO),
        ("a.jpg", JPEG, PHOTO),
        ("deep.png", {}, DEEP),
    ],
)
def test_orientation_is_honoured(tmp_path, number, name, how, stored):
    exif = Image.Exif()
    exif[0x0112] = number
    picture = np.asarray(load_image(saved(tmp_path / name, stored, exif=exif, **how)), dtype=int)
    upright = UPRIGHT[number](np.dstack([PHOTO[..., 0]] * 3) if stored is DEEP else PHOTO)
    assert picture.shape == upright.shape
    assert np.abs(picture - upright).max() <= (6 if name == "a.jpg" else 0)


@pytest.mark.parametrize("load", [load_image, load_mask])
@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "No such file"),
        (b"", "not an image"),
        (b"<html>404 not found</html>", "not an image"),
        (png_header(100_000, 100_000), "too many pixels"),
        (png_header(10_001, 10_000), "too many pixels"),
        (png_header(40, 24), "truncated or damaged"),
    ],
    ids=["missing", "empty", "misnamed", "bomb", "just too large", "no pixels"],
)
def test_files_that_are_no_pictures(tmp_path, load, content, complaint):
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SegkeyError, match=complaint) as caught:
        load(path)
    assert str(path) in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("format", ["EPS", "TGA", "PCX"])
def test_a_format_that_is_not_promised_is_not_decoded_whatever_the_name_says(tmp_path, format):
    Image.fromarray(PHOTO).save(
        tmp_path / "a.jpg", format=format
    )  # for EPS, Pillow would start Ghostscript
    with pytest.raises(SegkeyError, match="not an image that can be read"):
        load_image(tmp_path / "a.jpg")


def test_a_jpeg_of_endless_scans_is_refused(tmp_path):
    whole = saved(tmp_path / "a.jpg", PHOTO, progressive=True).read_bytes()
    load_image(tmp_path / "a.jpg")
    last = whole[whole.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(whole[:-2] + 200 * last + whole[-2:])
    with pytest.raises(SegkeyError, match="a JPEG of more than 100 scans"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated(tmp_path, suffix, part):
    path = saved(
        tmp_path / f"a.{suffix}", seeded("noise").integers(0, 256, PHOTO.shape, dtype=np.uint8)
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(SegkeyError) as caught:
        load_image(path)
    assert str(path) in caught.value.what


def test_floating_point_is_refused_with_advice(tmp_path):
    path = saved(tmp_path / "a.tif", PHOTO[..., 0].astype(np.float32))
    with pytest.raises(SegkeyError, match="floating-point") as caught:
        load_image(path)
    assert str(path) in caught.value.what
    assert "8 or 16 bits" in caught.value.hint


def test_palette_masks_give_numbers_not_colours(tmp_path):
    picture = Image.fromarray(LABELS)
    picture.putpalette([255, 255, 255, 10, 20, 30, 0, 0, 0, 1, 1, 1])
    picture.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert np.array_equal(np.asarray(load_mask(tmp_path / "a.png")), LABELS)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        np.where(LABELS == 3, 255, LABELS).astype(np.uint8),
        LABELS > 1,
        LABELS.astype(np.uint16),
    ],
    ids=["index", "void", "1 bit", "16 bits"],
)
def test_masks(tmp_path, suffix, labels):
    suffix = (
        "tiff" if labels.dtype == np.uint16 and suffix == "bmp" else suffix
    )  # BMP has no 16 bits
    mask = load_mask(saved(tmp_path / f"a.{suffix}", labels))
    assert mask.mode == "L"
    assert np.array_equal(np.asarray(mask), labels)


@pytest.mark.parametrize(
    "array, mode, complaint",
    [
        (PHOTO, "RGB", "holds colours"),
        (PHOTO, "RGBA", "holds colours"),
        (LABELS.astype(np.uint16) + 254, None, "class 257"),
    ],
)
def test_masks_that_hold_no_classes(tmp_path, array, mode, complaint):
    path = saved(tmp_path / "a.png", array, mode)
    with pytest.raises(SegkeyError, match=complaint) as caught:
        load_mask(path)
    assert str(path) in caught.value.what


@given(st.integers(0, 10**9), st.integers(1, 3000), st.integers(1, 3000), st.floats(0.01, 1))
def test_crops_stay_within_the_picture_and_the_ratio(seed, height, width, least):
    sizes = np.array([[height, width]] * 20)
    crops = random_crops(seeded(seed), sizes, (least, 1.0))
    assert np.array_equal(crops, random_crops(seeded(seed), sizes, (least, 1.0)))
    left, top, right, bottom, flip = crops.T
    assert ((left >= 0) & (left < right) & (right <= 1 + 1e-12)).all()
    assert ((top >= 0) & (top < bottom) & (bottom <= 1 + 1e-12)).all()
    assert set(flip) <= {0.0, 1.0}
    ratio = (right - left) * width / ((bottom - top) * height)
    assert ((ratio > 0.75 - 1e-9) & (ratio < 4 / 3 + 1e-9)).all()
    # Where no try fits, all of one side is taken, at the centre of the other.
    whole = np.isclose(np.maximum(right - left, bottom - top), 1)
    centred = np.isclose(left + right, 1) & np.isclose(top + bottom, 1)
    assert (((right - left) * (bottom - top) > least - 1e-9) | whole & centred).all()


@given(st.integers(0, 10**9), st.integers(30, 400), st.floats(0.75, 4 / 3))
def test_crops_keep_the_scale_wherever_they_can(seed, height, ratio):
    sizes = np.array([[height, round(height * ratio)]] * 50)
    left, top, right, bottom, _ = random_crops(seeded(seed), sizes, (0.2, 0.5)).T
    area = (right - left) * (bottom - top)
    assert area.min() > 0.2 - 1e-9
    assert area.max() < 0.5 + 1e-9


def test_half_of_the_crops_are_mirrored():
    crops = random_crops(seeded("flips"), np.array([[100, 150]] * 4000), (0.25, 1.0))
    assert abs(crops[:, 4].mean() - 0.5) < 0.03
    *box, flip = random_crops(seeded("one"), np.array([[100, 150]]), (0.25, 1.0))[0]
    assert random_crop(seeded("one"), 100, 150, (0.25, 1.0)) == Crop(*box, flip=bool(flip))


def test_randomness_depends_on_the_parts_alone():
    assert seeded("view", 1, "a.jpg").random() == seeded("view", "1", "a.jpg").random()
    assert seeded("ab", "c").random() != seeded("a", "bc").random()
    assert (
        seeded("\udcff.jpg").random() != seeded("\udcfe.jpg").random()
    )  # names that are not UTF-8
    # Golden: shards made by another version must be the same.
    golden = [2871898627, 331522028, 1399073736]
    assert seeded("view", 0, "images/a.jpg", 3).integers(0, 1 << 32, 3).tolist() == golden


@pytest.mark.parametrize("size", [(24, 40), (16, 24), (50, 30), (7, 7)])
def test_arrays_have_the_size_asked_for(size):
    image, mask = as_array(Image.fromarray(PHOTO), size), as_array(Image.fromarray(LABELS), size)
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((3, *size), np.uint8, True)
    assert (mask.shape, mask.dtype, mask.flags.c_contiguous) == (size, np.uint8, True)
    assert set(np.unique(mask)) <= set(np.unique(LABELS))  # nearest: no class between two classes
    if size == (24, 40):
        assert np.array_equal(image.transpose(1, 2, 0), PHOTO)
        assert np.array_equal(mask, LABELS)


def test_a_crop_takes_its_part_and_mirrors_it():
    image, turned = (
        as_array(Image.fromarray(PHOTO), (12, 20), Crop(0.25, 0.5, 0.75, 1.0, flip))
        for flip in (False, True)
    )
    assert np.array_equal(image.transpose(1, 2, 0), PHOTO[12:, 10:30])
    assert np.array_equal(turned, image[:, :, ::-1])


@given(st.integers(0, 10**9), st.integers(40, 120), st.integers(40, 120), st.integers(0, 1))
def test_image_and_mask_are_cut_alike(seed, height, width, axis):
    # Pixels hold their own place, in the image as in the mask: wherever either is cut, both must
    # agree.
    ramp = np.mgrid[0:height, 0:width][axis].astype(np.uint8)
    crop = random_crop(seeded(seed), height, width, (0.25, 1.0))
    image = as_array(Image.fromarray(np.dstack([ramp] * 3)), (48, 32), crop)[0]
    off = np.abs(image.astype(int) - as_array(Image.fromarray(ramp), (48, 32), crop))
    # Half a step for nearest, half for rounding; at the rim bilinear filtering has only one side to
    # average.
    assert off[4:-4, 4:-4].max() <= np.ceil(max(height / 48, width / 32) / 2) + 1


def test_decoding_in_threads_leaves_warnings_as_they_were(tmp_path):
    """Threads that overlap in `warnings.catch_warnings` leave a filter behind that swallows every
    later warning."""
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        list(pool.map(load_image, [tmp_path / "photo.png"] * 400))
        assert list(warnings.filters) == before
        warnings.warn("still heard", stacklevel=1)
    assert [str(each.message) for each in caught] == ["still heard"]


def test_pillow_does_not_warn_of_what_is_harmless(tmp_path, monkeypatch):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 100 * 6
    )  # a photograph of 960 pixels is more than that
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_image(tmp_path / "photo.png")
    assert caught == []
