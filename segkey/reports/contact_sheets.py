"""Contact sheets of a shard: images as stored, decrypted with a key, and masks. Pillow only."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segkey.crypto.ciphers import method_label
from segkey.data.items import Item, Source
from segkey.data.palette import draw_legend, palette_mask
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.reports.inspection import ShownImage
from segkey.reports.text import visible
from segkey.shards import Header

_TILE, _GAP, _HEAD = 192, 8, 26


def shard_sheet(path: str, header: Header, images: list[ShownImage]) -> Image.Image:
    """The first images of a shard, one row each, under a line that says what they are; RGB.

    Args:
        path: shown above them.
        header: says what they are.
        images: from `segkey.reports.inspection.first_images`.
    """
    kinds = ("stored", "decrypted", "mask")
    columns = [kind for kind in kinds if getattr(images[0], kind) is not None]
    tiles = [
        {kind: _tile(getattr(each, kind), kind == "mask", header.classes) for kind in columns}
        for each in images
    ]
    width, height = tiles[0]["stored"].size
    whole_width = max(len(columns) * (width + _GAP) + _GAP, 420)
    font, room = ImageFont.load_default(14), whole_width - 2 * _GAP
    found = _classes_in(images, header)
    legend = draw_legend(found, header.classes, whole_width) if len(found) else None
    rows = 2 * _HEAD + len(tiles) * (height + _GAP + _HEAD)
    sheet = _blank(whole_width, rows, legend)
    draw = ImageDraw.Draw(sheet)
    key = f", key {header.key_id}" if header.key_id else ""
    said = f"{path}: {method_label(header.method, header.block_size)}{key}"
    draw.text((_GAP, _GAP), _fitting(visible(said), font, room), "black", font)
    for column, kind in enumerate(columns):
        draw.text((_GAP + column * (width + _GAP), _HEAD + _GAP // 2), kind, "black", font)
    for row, (tile, image) in enumerate(zip(tiles, images, strict=True)):
        y = 2 * _HEAD + row * (height + _GAP + _HEAD)
        for column, kind in enumerate(columns):
            sheet.paste(tile[kind], (_GAP + column * (width + _GAP), y))
        name = _fitting(visible(image.name), font, room)
        draw.text((_GAP, y + height + 4), name, "#555555", font)
    return sheet


def _classes_in(images: list[ShownImage], header: Header) -> np.ndarray:
    """The numbers that their masks hold; none that only a damaged mask holds."""
    masks = [each.mask.reshape(-1) for each in images if each.mask is not None]
    held = np.unique(np.concatenate(masks or [[]]))
    return held[(held < len(header.classes)) | (held == header.ignore_index)].astype(int)


def _blank(width: int, rows: int, legend: Image.Image | None) -> Image.Image:
    """A white sheet of ``rows`` pixels, with the legend below them."""
    sheet = Image.new("RGB", (width, rows + (legend.height if legend else 0)), "white")
    if legend:
        sheet.paste(legend, (0, rows))
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
    rows = -(-len(tiles) // columns) * (_TILE + _HEAD) + _GAP
    whole = _blank(max(width, 420), rows, legend)
    draw = ImageDraw.Draw(whole)
    for number, (name, tile) in enumerate(tiles):
        x = _GAP + number % columns * (_TILE + _GAP)
        y = _GAP + number // columns * (_TILE + _HEAD)
        whole.paste(tile, (x, y))
        draw.text((x, y + _TILE + 2), _fitting(visible(name), font, _TILE), "#555555", font)
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
