"""Contact sheets of a shard: images as stored, decrypted with a key, and masks. Pillow only."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segkey.crypto.ciphers import method_label
from segkey.data.palette import draw_legend, palette_mask
from segkey.reports.text import visible

_TILE, _GAP, _HEAD = 192, 8, 26


def shard_sheet(path: str, header, images: list[dict]) -> Image.Image:
    """The first images of a shard, one row each, under a line that says what they are; RGB.

    Args:
        path: of the shard.
        header: its header.
        images: from `segkey.reports.inspection.first_images`.
    """
    columns = [name for name in ("stored", "decrypted", "mask") if name in images[0]]
    tiles = [
        {name: _tile(each[name], name == "mask", header.classes) for name in columns}
        for each in images
    ]
    width, height = tiles[0]["stored"].size
    whole_width = max(len(columns) * (width + _GAP) + _GAP, 420)
    font = ImageFont.load_default(14)
    held = np.unique(
        np.concatenate([each["mask"].reshape(-1) for each in images if "mask" in each] or [[]])
    )
    known = (held < len(header.classes)) | (
        held == header.ignore_index
    )  # not what a damaged mask may hold
    found = held[known].astype(int)
    legend = draw_legend(found, header.classes, whole_width) if len(found) else None
    rows = len(tiles) * (height + _GAP + _HEAD)
    sheet = Image.new(
        "RGB", (whole_width, 2 * _HEAD + rows + (legend.height if legend else 0)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    said = f"{path}: {method_label(header.method, header.block_size)}" + (
        f", key {header.key_id}" if header.key_id else ""
    )
    draw.text((_GAP, _GAP), _fitting(visible(said), font, whole_width - 2 * _GAP), "black", font)
    for column, name in enumerate(columns):
        draw.text((_GAP + column * (width + _GAP), _HEAD + _GAP // 2), name, "black", font)
    for row, (tile, image) in enumerate(zip(tiles, images, strict=True)):
        y = 2 * _HEAD + row * (height + _GAP + _HEAD)
        for column, name in enumerate(columns):
            sheet.paste(tile[name], (_GAP + column * (width + _GAP), y))
        draw.text(
            (_GAP, y + height + 4),
            _fitting(visible(image["name"]), font, whole_width - 2 * _GAP),
            "#555555",
            font,
        )
    if legend:
        sheet.paste(legend, (0, sheet.height - legend.height))
    return sheet


def _tile(values: np.ndarray, mask: bool, classes: tuple[str, ...]) -> Image.Image:
    """A tile of uint8 (C, H, W) or a mask (H, W), enlarged by a whole number if it is small."""
    if mask:
        picture = palette_mask(values, classes).convert("RGB")
    else:
        picture = Image.fromarray(
            np.ascontiguousarray(values.transpose(1, 2, 0)) if len(values) == 3 else values[0]
        )
        picture = picture.convert("RGB")
    times = max(1, _TILE // max(picture.size))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The end of a text if all would be wider than ``width``; it tells more than the start."""
    short = text
    while font.getlength(short) > width:
        short = "…" + short.removeprefix("…")[1:]
    return short
