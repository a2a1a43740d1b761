"""The demo's picture: scenes segmented with the key, without it, and with a wrong key."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from segkey.crypto.keys import Key
from segkey.data.decode import decode, load_image
from segkey.errors import SegkeyWarning
from segkey.model.loading import load
from segkey.model.results import Attack
from segkey.model.runs import Run
from segkey.system.files import written_whole

_ROWS, _SIDE, _GAP = 2, 192, 8
_WRONG_KEY = Key(bytes(32))


def write(path: Path, run: Run, key: Key, scenes: Path) -> None:
    """Draw the first two test scenes, whatever they look like, as the run sees them.

    The scores in the titles are those that the run's attack measured on all test scenes.

    Args:
        run: attacked, see `segkey.attacks.suite.attack_and_keep`.
        scenes: the folder that `segkey.data.scenes.write` made.
    """
    images = sorted((scenes / "images" / "test").iterdir())[:_ROWS]
    masks = [scenes / "masks" / "test" / f"{image.stem}.png" for image in images]
    pictures, truth = [load_image(image) for image in images], [decode(mask) for mask in masks]
    palette = truth[0].getpalette()
    columns = [("image", "", pictures), ("ground truth", "", _overlays(pictures, truth))]
    model = load(run.path, key, "cpu")
    for title, score, used in _ways(run.result("attack"), key):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SegkeyWarning)  # that this is not the model's key
            predicted = model.predict(pictures, used)
        coloured = [_as_mask(Image.fromarray(each), palette) for each in predicted]
        columns.append((title, score, _overlays(pictures, coloured)))
    whole = _sheet(columns, run.header.classes, palette)
    with written_whole(path) as file:
        few = whole.quantize(256, dither=Image.Dither.NONE)
        few.save(file, format="PNG", optimize=True)


def _ways(attack: Attack, key: Key) -> list[tuple[str, str, Key | None]]:
    """How scenes are fed: a title, the score on all test scenes, and the key."""
    wrong = attack.incorrect
    return [
        ("with the key", f"mean IoU {attack.correct.mean_iou:.2f}", key),
        ("plain image", f"mean IoU {attack.plain.mean_iou:.2f}", None),
        ("with a wrong key", f"{wrong.keys} keys: {wrong.mean:.2f} on average", _WRONG_KEY),
    ]


def _as_mask(mask: Image.Image, palette: list[int]) -> Image.Image:
    mask.putpalette(palette)
    return mask


def _overlays(images: Sequence[Image.Image], masks: Sequence[Image.Image]) -> list[Image.Image]:
    """Images under their classes' colours."""
    pairs = zip(images, masks, strict=True)
    return [Image.blend(image, mask.convert("RGB"), 0.8) for image, mask in pairs]


def _sheet(
    columns: list[tuple[str, str, list[Image.Image]]], classes: Sequence[str], palette: list[int]
) -> Image.Image:
    """Columns of pictures under their titles, with a legend below."""
    font, small = ImageFont.load_default(17), ImageFont.load_default(14)
    top, step = 50, _SIDE + _GAP
    whole = Image.new("RGB", (_GAP + step * len(columns), top + step * _ROWS + 28), "white")
    pen = ImageDraw.Draw(whole)
    for column, (title, score, pictures) in enumerate(columns):
        x = _GAP + step * column
        pen.text((x, 5), title, "black", font)
        pen.text((x, 28), score, (80, 80, 80), small)
        for row, picture in enumerate(pictures):
            shown = picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
            whole.paste(shown, (x, top + step * row))
    x, y = _GAP, top + step * _ROWS + 4
    for number, name in enumerate(classes):
        colour = tuple(palette[3 * number : 3 * number + 3])
        pen.rectangle((x, y, x + 16, y + 16), colour, outline=(110, 110, 110))
        pen.text((x + 24, y - 2), name, "black", font)
        x += 56 + round(font.getlength(name))
    return whole
