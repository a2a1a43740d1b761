"""Small folders of images and masks, as tools and people make them, for tests of what is said."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (40, 30)  # width, height


def levels(values: Sequence[int], size: tuple[int, int] = SIZE, shift: int = 0) -> np.ndarray:
    """(H, W) with a rectangle of each value on a ground of the first."""
    array = np.full(size[::-1], values[0], np.uint8 if max(values) < 256 else np.uint16)
    width = size[0] // len(values)
    for number, value in enumerate(values):
        array[4:-4, number * width + shift % 3 : (number + 1) * width] = value
    return array


def photo(path: Path, size: tuple[int, int] = SIZE, turned: int = 1, **how) -> Path:
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (*size[::-1], 3), np.uint8)
    if turned > 1:
        exif = Image.Exif()
        exif[0x0112] = turned
        how["exif"] = exif
    Image.fromarray(noise).save(path, **how)
    return path


def mask(path: Path, values=(0, 1), shift: int = 0, palette=None, mode=None, **how) -> Path:
    """A mask of `levels`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(levels(values, shift=shift))
    if palette:
        picture.putpalette(palette)
    (picture.convert(mode) if mode else picture).save(path, **how)
    return path


def coloured(path: Path, colours: Sequence[tuple[int, int, int]], shift: int = 0) -> Path:
    """A mask of colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = levels(range(len(colours)), shift=shift)
    Image.fromarray(np.array(colours, np.uint8)[numbers]).save(path)
    return path


def few_bits(path: Path, values: Sequence[int], bits: int, shift: int = 0) -> Path:
    """A grey PNG of 2 or 4 bits per value, which Pillow cannot write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array, per_byte = levels(values, shift=shift), 8 // bits
    rows = np.pad(array, ((0, 0), (0, -array.shape[1] % per_byte)))
    packed = np.zeros((len(rows), rows.shape[1] // per_byte), np.uint8)
    for place in range(per_byte):
        packed = packed << bits | rows[:, place::per_byte]
    height, width = array.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    body = b"".join(b"\0" + row.tobytes() for row in packed)
    content = head + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def pairs(folder: Path, values=(0, 1), count: int = 9, **how) -> Path:
    """A folder of images and masks in images/ and masks/."""
    for number in range(count):
        photo(folder / f"images/p{number}.jpg")
        mask(folder / f"masks/p{number}.png", values, shift=number, **how)
    return folder
