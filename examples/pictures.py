"""Draw ``overlay.png`` from a finished demo: scenes segmented with the key, without it, and with a
wrong key.

Run it: ``segkey demo``, then ``python examples/pictures.py [DEMO [RUN [PICTURE]]]``. The first two
test images are shown, whatever they look like; the wrong key is 256 zero bits; the scores are those
that the demo measured on all test images.
"""

import json
import sys
import warnings
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import segkey

ROWS, SIDE, GAP = 2, 192, 8
FONT, SMALL = ImageFont.load_default(17), ImageFont.load_default(14)


def coloured(image: Image.Image, mask: Image.Image) -> Image.Image:
    """An image under its classes' colours."""
    return Image.blend(image, mask.convert("RGB"), 0.8)


def as_mask(classes_of_pixels, palette: list[int]) -> Image.Image:
    """A predicted mask in the palette of the scenes' own masks."""
    mask = Image.fromarray(classes_of_pixels)
    mask.putpalette(palette)
    return mask


def draw(demo: Path, run: str) -> Image.Image:
    model = segkey.load(demo / "runs" / run, device="cpu")
    own, wrong = segkey.Key.load(demo / "keys" / "demo.key"), segkey.Key(bytes(32))
    paths = sorted((demo / "scenes" / "images" / "test").iterdir())[:ROWS]
    images = [Image.open(path).convert("RGB") for path in paths]
    truth = [Image.open(demo / "scenes" / "masks" / "test" / f"{path.stem}.png") for path in paths]
    palette = truth[0].getpalette()
    attacked = json.loads((demo / "runs" / run / "attack.json").read_text(encoding="utf-8"))
    incorrect = attacked["incorrect"]
    columns = [
        ("image", "", images),
        ("ground truth", "", [coloured(*pair) for pair in zip(images, truth, strict=True)]),
    ]
    for title, key, score in (
        ("with the key", own, f"mean IoU {attacked['correct']['mean_iou']:.2f}"),
        ("plain image", None, f"mean IoU {attacked['plain']['mean_iou']:.2f}"),
        (
            "with a wrong key",
            wrong,
            f"{incorrect['keys']} keys: {incorrect['mean']:.2f} on average",
        ),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", segkey.SegkeyWarning
            )  # that this is not the model's key
            masks = [as_mask(mask, palette) for mask in model.predict(images, key)]
        columns.append(
            (title, score, [coloured(*pair) for pair in zip(images, masks, strict=True)])
        )
    return sheet(columns, model.classes, palette)


def sheet(
    columns: list[tuple[str, str, list[Image.Image]]], classes: tuple[str, ...], palette: list[int]
) -> Image.Image:
    """Columns of pictures under their titles, with a legend below."""
    top, step = 50, SIDE + GAP
    whole = Image.new("RGB", (GAP + step * len(columns), top + step * ROWS + 28), "white")
    pen = ImageDraw.Draw(whole)
    for column, (title, score, pictures) in enumerate(columns):
        x = GAP + step * column
        pen.text((x, 5), title, "black", FONT)
        pen.text((x, 28), score, (80, 80, 80), SMALL)
        for row, picture in enumerate(pictures):
            whole.paste(
                picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), (x, top + step * row)
            )
    x, y = GAP, top + step * ROWS + 4
    for number, name in enumerate(classes):
        pen.rectangle(
            (x, y, x + 16, y + 16),
            tuple(palette[3 * number : 3 * number + 3]),
            outline=(110, 110, 110),
        )
        pen.text((x + 24, y - 2), name, "black", FONT)
        x += 56 + round(FONT.getlength(name))
    return whole


if __name__ == "__main__":
    demo, run, out, *_ = *sys.argv[1:], *("demo", "ffx-m4", "overlay.png")[len(sys.argv) - 1 :]
    draw(Path(demo), run).quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)
    print(out)
