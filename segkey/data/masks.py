"""Decode masks: the values or colours of a file, at the file's own depth, and their classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segkey.data.decode import DEEP, TRANSPARENT, decode, orientation, upright
from segkey.data.reading import NO_CLASS, PLAIN, VOID, Reading, packed, unpacked
from segkey.errors import SegkeyError

# What a mask file holds: numbers in so many bits, numbers with a palette, or colours.
ONE_BIT, TWO_BITS, FOUR_BITS, EIGHT_BITS, DEEPER = "1-bit", "2-bit", "4-bit", "8-bit", "16-bit"
PALETTE, COLOUR = "palette", "colour"
# Pillow spreads grey values of few bits over 0 to 255; these divide them back.
_SPREAD = {TWO_BITS: 85, FOUR_BITS: 17}
NEGATIVE = 65535  # what negative numbers are read as: -1 in 16 bits, which --map can name


@dataclass(frozen=True)
class RawMask:
    """What a mask file holds, upright.

    Attributes:
        kind: one of the kinds above.
        values: (H, W): uint8 numbers, int32 or uint16 numbers if they are larger, or int32 colours
            as `segkey.data.reading.packed`.
        palette: packed colours of the numbers, int32 (up to 256), for `PALETTE`.
        transparent: whether some pixels are transparent; they are black.
        in_alpha: whether pixels differ in their alpha alone, so that what is read says nothing.
        negative: whether some numbers were negative; they are `NEGATIVE`.
        turned: its EXIF orientation, 1 to 8.
    """

    kind: str
    values: np.ndarray
    palette: np.ndarray | None = None
    transparent: bool = False
    turned: int = 1
    in_alpha: bool = False
    negative: bool = False


def kind_of(mode: str, bits: int) -> str:
    """What a mask file holds, from Pillow's mode and the bits of a grey value."""
    if mode == "1":
        return ONE_BIT
    if mode == "P":
        return PALETTE
    if mode in DEEP or mode == "F":
        return DEEPER
    if mode != "L":
        return COLOUR
    return {2: TWO_BITS, 4: FOUR_BITS}.get(bits, EIGHT_BITS)


def palette_colours(palette: bytes) -> np.ndarray:
    """The colours of a palette, packed, int32."""
    whole = len(palette) // 3 * 3
    return packed(np.frombuffer(palette[:whole], np.uint8).reshape(-1, 3))


def _palette_of(picture: Image.Image) -> np.ndarray:
    return palette_colours(bytes(picture.getpalette("RGB") or b""))


def raw_mask(path: Path) -> RawMask:
    """Decode a mask as it is, without deciding what its values mean.

    Raises:
        SegkeyError: a file that cannot be read, or values that are no whole numbers.
    """
    picture = decode(path)
    kind, turned = kind_of(picture.mode, picture.info.get("segkey bits", 8)), orientation(picture)
    picture = upright(picture)
    if kind == COLOUR:
        colours, transparent, in_alpha = _colours(picture)
        return RawMask(COLOUR, packed(colours), None, transparent, turned, in_alpha)
    values = np.asarray(picture)
    if kind == PALETTE:
        return RawMask(PALETTE, values, _palette_of(picture), turned=turned)
    if kind == ONE_BIT:
        values = values.astype(np.uint8)
    if kind in _SPREAD:
        values = values // np.uint8(_SPREAD[kind])
    if picture.mode == "F":
        values = _whole(values, path)
    negative = values.dtype.kind == "i" and bool((values < 0).any())
    if negative:
        values = np.where(values < 0, NEGATIVE, values)
    return RawMask(kind, values, turned=turned, negative=negative)


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    """Floating-point numbers that are whole, as int32."""
    if np.isnan(values).any():
        raise SegkeyError(
            f"{path}: a mask that holds NaN",
            "save class numbers as 8-bit PNG, with 255 instead of NaN",
        )
    if (
        not np.isfinite(values).all()
        or (values != np.round(values)).any()
        or np.abs(values).max() > 1 << 30
    ):
        raise SegkeyError(
            f"{path}: a mask of floating-point values that are no whole numbers",
            "save class numbers as 8-bit PNG",
        )
    return values.astype(np.int32)


def _colours(picture: Image.Image) -> tuple[np.ndarray, bool, bool]:
    """uint8 (H, W, 3), transparent pixels black; `RawMask.transparent` and ``in_alpha``."""
    if picture.mode not in TRANSPARENT:
        return np.asarray(picture.convert("RGB")), False, False
    whole = np.array(picture.convert("RGBA"))
    alpha, first = whole[..., 3], whole[0, 0, :3].copy()
    hidden = alpha == 0
    one_colour = alpha.min() < alpha.max() and bool((whole[..., :3] == first).all())
    in_alpha = one_colour and bool(not first.any() or ((alpha > 0) & (alpha < 255)).any())
    transparent = bool(hidden.any()) and not hidden.all()
    if transparent:
        whole[hidden] = 0
    return whole[..., :3], transparent, in_alpha


def grey_of(colours: np.ndarray) -> np.ndarray | None:
    """The numbers of packed colours whose channels are equal everywhere; else None."""
    low = colours & 255
    return low.astype(np.uint8) if np.array_equal(low * 0x010101, colours) else None


def load_mask(path: Path, reading: Reading = PLAIN) -> Image.Image:
    """Decode a mask to class numbers, as an 8-bit image (mode L); 255 is void.

    Args:
        path: the file.
        reading: how its values or colours become class numbers; if not given, they are.

    Raises:
        SegkeyError: a value, or a colour, that is no class.
    """
    raw = raw_mask(path)
    numbers = classes_of(raw, reading, path)
    return Image.fromarray(np.ascontiguousarray(numbers))


def classes_of(raw: RawMask, reading: Reading, path: Path) -> np.ndarray:
    """Class numbers of what a mask file holds, uint8 (H, W); ``path`` names it in errors."""
    if reading is PLAIN and raw.values.dtype == np.uint8:
        return raw.values
    if raw.kind == COLOUR and reading.colours:
        return _known(reading.of_colours(raw.values), raw.values, path, colours=True)
    if raw.kind == PALETTE and reading.palettes:
        colours = np.zeros(256, np.int32)
        colours[: len(raw.palette)] = raw.palette
        shown = colours[raw.values]
        return _known(reading.of_colours(shown), shown, path, colours=True)
    values = raw.values
    if raw.kind == COLOUR:
        values = grey_of(raw.values)
        if values is None:
            raise SegkeyError(
                f"{path}: a mask that holds colours, not class numbers",
                "give the class of each colour with --colors FILE: 'name red green blue' per line",
            )
    if reading == PLAIN and values.dtype == np.uint8:
        return values
    return _known(reading.of_values(values), values, path, colours=False)


def _known(numbers: np.ndarray, values: np.ndarray, path: Path, *, colours: bool) -> np.ndarray:
    if (unknown := numbers == NO_CLASS).any():
        value = int(values[unknown].max())
        if colours:
            what, how = f"the colour {unpacked(value)}", "add a line for it to --colors"
        else:
            what = f"class {value}; masks hold classes 0 to 254 and {VOID} for void"
            how = f"say what it means with --map {value}=CLASS or --map {value}=void"
        raise SegkeyError(f"{path}: holds {what}", how)
    return numbers.astype(np.uint8)


def highest_class(mask: Image.Image, ignore_index: int) -> int:
    """The largest class number in a mask from `load_mask`, void left out; 0 if all is void."""
    counts = np.array(mask.histogram())
    counts[ignore_index] = 0
    return int(np.flatnonzero(counts).max(initial=0))
