"""Headers that are read without Pillow say what Pillow says, or are left to it."""

import io

import numpy as np
import pytest
from laying import few_bits, levels
from PIL import Image, PngImagePlugin

from segkey.data import file_header
from segkey.data.quick_header import quick_header


def saved(picture, **how):
    file = io.BytesIO()
    picture.save(file, **how)
    return file.getvalue()


def exif(orientation, order="<"):
    data = Image.Exif()
    data.endian = order
    data[0x010F] = "a maker"
    if orientation:
        data[0x0112] = orientation
    return data


RGB = Image.fromarray(np.arange(12 * 7 * 3, dtype=np.uint8).reshape(7, 12, 3))
PALETTE = Image.fromarray(levels((0, 1, 2)))
PALETTE.putpalette([0, 0, 0, 255, 0, 0, 0, 9, 255])

PLAIN = {
    **{mode: saved(RGB.convert(mode), format="PNG") for mode in ("1", "L", "LA", "RGB", "RGBA")},
    "palette": saved(PALETTE, format="PNG"),
    "palette of 2 bits": saved(PALETTE, format="PNG", bits=2),
    "transparent palette": saved(PALETTE, format="PNG", transparency=0),
    "dpi": saved(RGB, format="PNG", dpi=(72, 72)),
    "JPEG": saved(RGB, format="JPEG"),
    "grey JPEG": saved(RGB.convert("L"), format="JPEG"),
    "CMYK": saved(RGB.convert("CMYK"), format="JPEG"),
    "progressive": saved(RGB, format="JPEG", progressive=True, comment="a comment"),
    **{
        f"turned {n} {order}": saved(RGB, format="JPEG", exif=exif(n, order))
        for n in range(9)
        for order in "<>"
    },
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_headers_are_those_of_pillow(name):
    quick = quick_header(io.BytesIO(PLAIN[name]))
    assert quick is not None
    assert file_header.FileHeader(*quick) == file_header._by_pillow(io.BytesIO(PLAIN[name]))


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits(tmp_path, bits):
    file = few_bits(tmp_path / "a.png", (0, 1, 2, 3), bits)
    assert file_header.header(file) == file_header._by_pillow(io.BytesIO(file.read_bytes()))
    assert file_header.header(file).bits == bits


def _with_text():
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "x" * 10)
    return saved(RGB, format="PNG", pnginfo=text)


XMP = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(np.zeros((3, 4), np.uint16)), format="PNG"),
        saved(RGB, format="PNG", exif=exif(6)),
        _with_text(),
        saved(RGB, format="JPEG", xmp=XMP),
        saved(RGB, format="MPO", save_all=True, append_images=[RGB]),
        saved(RGB, format="WEBP"),
        saved(RGB, format="JPEG")[:40],
        saved(RGB, format="PNG")[:30],
        b"",
        b"\xff\xd8\xff" + bytes(50),
    ],
)
def test_what_is_not_plain_is_left_to_pillow(data):
    assert quick_header(io.BytesIO(data)) is None


def test_damaged_headers_never_raise():
    generator = np.random.default_rng(5)
    for name in ("palette", "dpi", "turned 6 <", "progressive"):
        for _ in range(300):
            data = bytearray(PLAIN[name])
            for place in generator.integers(0, min(len(data), 300), 4):
                data[place] = generator.integers(0, 256)
            quick_header(io.BytesIO(bytes(data[: generator.integers(1, len(data))])))
