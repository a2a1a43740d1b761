"""Contact sheets of a shard: images as stored, decrypted with a key, and masks. Pillow only."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segkey.crypto.ciphers import method_label
from segkey.data.items import Item, Source
from segkey.data.palette import draw_legend, palette_mask
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.reports.text import visible

_TILE, _GAP, _HEAD = 192, 8, 26


def shard_sheet(path: str, header, images: list[dict]) -> Image.Image:
    """The first images of a shard, one row each, under a line that says what they are; RGB.

    Args:
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


def data_sheet(source: Source, most: int = 4) -> Image.Image:
    """Some images of each split under the classes of their masks, with a legend; RGB.

    Args:
        source: data that was taken in.
        most: images per split.
    """
    classes, tiles, held = source.classes or [], [], set()
    for split, items in source.splits.items():
        for item in items[:: max(1, len(items) // most)][:most]:
            try:
                tiles.append(_data_tile(source, item, held))
            except SegkeyError as error:
                tiles.append((f"{item.name}: {error.what}", Image.new("RGB", (_TILE, _TILE))))
            tiles[-1] = (f"{split}: {tiles[-1][0]}", tiles[-1][1])
    columns, font = min(4, len(tiles)), ImageFont.load_default(12)
    width = columns * (_TILE + _GAP) + _GAP
    numbers = np.array(sorted(held), int)
    legend = draw_legend(numbers, classes, max(width, 420)) if held else None
    rows = -(-len(tiles) // columns) * (_TILE + _HEAD)
    whole = Image.new(
        "RGB", (max(width, 420), rows + _GAP + (legend.height if legend else 0)), "white"
    )
    draw = ImageDraw.Draw(whole)
    for number, (name, tile) in enumerate(tiles):
        x = _GAP + number % columns * (_TILE + _GAP)
        y = _GAP + number // columns * (_TILE + _HEAD)
        whole.paste(tile, (x, y))
        draw.text((x, y + _TILE + 2), _fitting(visible(name), font, _TILE), "#555555", font)
    if legend:
        whole.paste(legend, (0, rows + _GAP))
    return whole


def _data_tile(source: Source, item: Item, held: set[int]) -> tuple[str, Image.Image]:
    """A name and a tile; the classes in it are added to ``held``."""
    preparation = Preparation(
        (_TILE, _TILE), None, reading=source.reading, pixel_range=source.pixel_range
    )
    images, masks, _ = preparation.load(item)
    picture = Image.fromarray(np.ascontiguousarray(images[0].transpose(1, 2, 0)))
    if not masks:
        return item.name, picture
    found = np.unique(masks[0])
    held.update(n for n in found.tolist() if n < len(source.classes) or n == source.ignore_index)
    coloured = palette_mask(masks[0], source.classes).convert("RGB")
    return item.name, Image.blend(picture, coloured, 0.55)


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
