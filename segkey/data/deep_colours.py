"""Colours of 16 bits per value, of which Pillow keeps the upper bytes: both, where they matter."""

import io
from typing import IO

import numpy as np
from PIL import Image

from segkey.data.formats import formats

# Pillow keeps the upper bytes of colours of 16 bits; read in the other order, it keeps the lower.
_OTHER_BYTES = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B"}


def _raw_mode(args: object) -> str:
    return str(args[0] if isinstance(args, tuple) and args else args)


def is_deep_colour(picture: Image.Image) -> bool:
    """Whether colours have 16 bits per value in the file."""
    tiles = getattr(picture, "tile", ())
    return picture.mode in ("RGB", "RGBA") and bool(
        tiles and _raw_mode(tiles[0].args)[-4:] in _OTHER_BYTES
    )


def lower_bytes(file: IO[bytes]) -> Image.Image:
    """The lower bytes of an image of colours of 16 bits; the file stands where it stood."""
    place = file.tell()
    file.seek(0)
    picture = Image.open(io.BytesIO(file.read()), formats=formats())
    file.seek(place)
    tiles = []
    for tile in picture.tile:
        raw = _raw_mode(tile.args)
        other = raw[:-4] + _OTHER_BYTES[raw[-4:]]
        args = (other, *tile.args[1:]) if isinstance(tile.args, tuple) else other
        tiles.append(tile._replace(args=args))
    picture.tile = tiles
    picture.load()
    return picture


def deep_values(picture: Image.Image) -> np.ndarray | None:
    """uint16 (H, W, 3) of an image that was decoded with ``deep_colours``; None of another."""
    low = picture.info.get("segkey lower")
    if low is None:
        return None
    upper, lower = (np.asarray(each)[..., :3].astype(np.uint16) for each in (picture, low))
    return upper << 8 | lower
