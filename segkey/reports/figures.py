"""Figures as PNG: readable in a two-column paper, and without telling colours apart.

Matplotlib is imported where a figure is drawn, as it takes longer than most commands.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segkey.reports.layout import method_name

_GAP = 1 / 32  # between pictures, as a part of one


def sheet(plain: np.ndarray, pictures: dict[str, list[np.ndarray]], block_sizes: Sequence[int]) -> Image.Image:
    """The paper's Figure 4: a picture on the left, and beside it a row a method and a column a block size.

    Every pixel is shown as one pixel: resampling would invent patterns that the blocks do not have.

    Args:
        plain: uint8 (3, H, W).
        pictures: uint8 (3, H, W) by method, one for each block size, from `segkey.preview.encrypted_pictures`.
        block_sizes: M of each column.
    """
    _, height, width = plain.shape
    gap = max(2, round(_GAP * width))
    # 8 points, where the sheet is as wide as a page's two columns (7.2 inches); never too wide for a picture.
    letters = max(9, min(round((len(block_sizes) + 1) * (width + gap) * 8 / 72 / 7.2), width // 4))
    font, strip = ImageFont.load_default(letters), round(1.6 * letters)
    rows_height = len(pictures) * (height + gap) - gap
    drawn = Image.new("RGB", (width + strip + len(block_sizes) * (width + gap), strip + rows_height), "white")

    def place(picture: np.ndarray, left: int, top: int, label: str = "") -> None:
        drawn.paste(_as_image(picture), (left, top))
        ImageDraw.Draw(drawn).text((left + width // 2, top - strip // 2), label, "black", font, anchor="mm")

    place(plain, 0, strip + (rows_height - height) // 2, "plain")
    for row, (method, line) in enumerate(pictures.items()):
        top = strip + row * (height + gap)
        name = Image.new("RGB", (height, strip), "white")
        ImageDraw.Draw(name).text((height // 2, strip // 2), method_name(method), "black", font, anchor="mm")
        drawn.paste(name.rotate(90, expand=True), (width + gap // 2, top))
        for column, (m, picture) in enumerate(zip(block_sizes, line, strict=True)):
            label = f"M = {m}" if row == 0 else ""
            place(picture, width + strip + gap + column * (width + gap), top, label)
    return drawn


def _as_image(picture: np.ndarray) -> Image.Image:
    """uint8 (3, H, W) as a picture."""
    return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
