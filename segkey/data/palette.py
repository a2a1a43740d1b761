"""Colours of classes: the VOC palette, palette masks, overlays with a legend.

Pillow and NumPy only.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_STRENGTH = 0.55  # of a class's colour over the photograph
_LEAST_SIDE = (
    480  # of an overlay's longer side: smaller images are enlarged, so that the legend can be read
)
_VOID = 255


def _voc_palette() -> np.ndarray:
    """The PASCAL VOC palette: the bits of a number, dealt out to red, green and blue.

    From the highest bit down.
    """
    numbers, colours = np.arange(256), np.zeros((256, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> (3 * place + channel)) & 1) << (7 - place)).astype(
                np.uint8
            )
    return colours


PALETTE = _voc_palette()
"""uint8 (256, 3): the colour of each class number, as in PASCAL VOC's own masks; 255, void, is a
pale grey."""


def palette_of(classes: Sequence[str]) -> np.ndarray:
    """The colours of some classes, uint8 (256, 3).

    VOC's own, where class 0 is a background and may be black; else VOC's from the second one on, as
    black would make a class such as 'sky' look like nothing at all. Void keeps its pale grey.
    """
    if not classes or classes[0].casefold() in ("background", "void", "unlabelled", "unlabeled"):
        return PALETTE
    return np.concatenate([PALETTE[1:_VOID], PALETTE[:1], PALETTE[_VOID:]])


def palette_mask(mask: np.ndarray, classes: Sequence[str] = ()) -> Image.Image:
    """A mask of class numbers, uint8 (H, W), as an image with a palette (mode P)."""
    picture = Image.fromarray(mask)
    picture.putpalette(palette_of(classes).tobytes())
    return picture


def blended(picture: Image.Image, mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """An RGB image under its classes' colours, in its own size and without a legend."""
    return Image.blend(picture, palette_mask(mask, classes).convert("RGB"), _STRENGTH)


def overlay(picture: Image.Image, mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """An image under its classes' colours, with a legend of those that occur below it.

    Args:
        picture: RGB.
        mask: uint8 (H, W) of class numbers, of the image's size.
        classes: their names.

    Returns:
        RGB, as high as the image and the legend together. A small image is enlarged by a whole
        number.
    """
    coloured = blended(picture, mask, classes)
    times = max(1, math.ceil(_LEAST_SIDE / max(picture.size)))
    coloured = coloured.resize(
        (times * picture.width, times * picture.height), Image.Resampling.NEAREST
    )
    legend = draw_legend(
        np.flatnonzero(np.bincount(mask.reshape(-1))), classes, max(coloured.width, _LEAST_SIDE)
    )
    whole = Image.new("RGB", (legend.width, coloured.height + legend.height), "white")
    whole.paste(coloured, ((whole.width - coloured.width) // 2, 0))
    whole.paste(legend, (0, coloured.height))
    return whole


def draw_legend(numbers: np.ndarray, classes: Sequence[str], width: int) -> Image.Image:
    """A legend: a swatch and a name per class number, RGB, ``width`` pixels wide.

    Numbers beyond the classes are void.
    """
    size, palette = (
        max(14, min(width // 36, 64)),
        palette_of(classes),
    )  # of a swatch, and of letters
    font, gap, line_height = ImageFont.load_default(size), size // 2, math.ceil(1.6 * size)
    names = [
        _shortened(classes[n] if n < len(classes) else "void", font, width - size - 3 * gap)
        for n in numbers
    ]
    places = _in_lines([size + gap + math.ceil(font.getlength(name)) for name in names], width, gap)
    lines = 1 + max((line for _, line in places), default=0)
    legend = Image.new("RGB", (width, lines * line_height + 2 * (gap // 2)), "white")
    draw = ImageDraw.Draw(legend)
    for number, name, (x, line) in zip(numbers, names, places, strict=True):
        y = gap // 2 + line * line_height
        draw.rectangle(
            (x, y + 2, x + size, y + 2 + size),
            tuple(map(int, palette[number])),
            outline=(110, 110, 110),
        )
        draw.text((x + size + gap, y), name, "black", font)
    return legend


def _in_lines(widths: list[int], width: int, gap: int) -> list[tuple[int, int]]:
    """Lay things out in lines of ``width``: the left edge and the line of each."""
    places, x, line = [], gap, 0
    for each in widths:
        if x > gap and x + each + gap > width:
            x, line = gap, line + 1
        places.append((x, line))
        x += each + 2 * gap
    return places


def _shortened(name: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A name in one line, cut where it would be wider than ``width``."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(name + "…") > width:
        name = name[:-1]
    return name + "…"
