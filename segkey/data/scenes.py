"""Built-in scenes: textured shapes with exact masks, for trying segkey without any data.

Colour and texture tell the classes apart, as in photographs: a disc is warm and dotted, a box is
brick, a triangle is green and streaked, a ring is blue and smooth. Nothing is downloaded and
nothing copied.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from segkey.system.seeds import seeded

CLASSES = ["ground", "disc", "box", "triangle", "ring"]
PALETTE = [
    (128, 118, 105),
    (230, 159, 0),
    (213, 94, 0),
    (0, 158, 115),
    (0, 114, 178),
]  # Okabe and Ito, colour-blind safe
_COLOURS = np.array(
    [(0, 0, 0), (225, 160, 40), (185, 60, 50), (60, 160, 70), (60, 105, 200)], dtype=float
)


def draw(seed: int, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene: uint8 image (size, size, 3) and uint8 mask (size, size) of class numbers."""
    generator = seeded("scene", seed, number)
    y, x = np.mgrid[0:size, 0:size] / size
    image, mask = _ground(generator, x, y), np.zeros((size, size), dtype=np.uint8)
    for _ in range(generator.integers(2, 6)):
        label = int(generator.integers(1, len(CLASSES)))
        inside = _shape(generator, label, x, y)
        colour = _COLOURS[label] + generator.normal(0, 14, 3)
        image[inside] = (colour * _texture(generator, label, x, y)[..., None])[inside]
        mask[inside] = label
    light = 1 + 0.25 * (generator.uniform(-1, 1) * (x - 0.5) + generator.uniform(-1, 1) * (y - 0.5))
    image = image * light[..., None] + generator.normal(0, 5, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def _ground(generator: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A dull ground with slow waves and grain."""
    colour = generator.uniform(85, 170) + generator.normal(0, 12, 3)
    waves = sum(
        np.sin(
            2 * np.pi * (generator.uniform(-4, 4) * x + generator.uniform(-4, 4) * y)
            + generator.uniform(0, 6.3)
        )
        for _ in range(3)
    )
    return colour * (1 + 0.08 * waves + generator.normal(0, 0.05, x.shape))[..., None]


def _shape(generator: np.random.Generator, label: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a shape of class ``label`` stands, turned and sized at random; bool."""
    radius = generator.uniform(0.13, 0.27)
    cx, cy, angle = (
        generator.uniform(0.1, 0.9),
        generator.uniform(0.1, 0.9),
        generator.uniform(0, 2 * np.pi),
    )
    u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / radius
    v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / radius
    if label == 1:
        return u**2 + v**2 < 1
    if label == 2:
        return (abs(u) < 0.9) & (abs(v) < generator.uniform(0.6, 0.9))
    if label == 3:
        return (v > -0.6) & (v + 1.8 * abs(u) < 1)
    return (u**2 + v**2 < 1) & (u**2 + v**2 > 0.3)


def _texture(
    generator: np.random.Generator, label: int, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Brightness of a class's surface, about 1."""
    phase, wave = generator.uniform(0, 6.3, 2), generator.uniform(14, 20) * 2 * np.pi / 1.6
    if label == 1:
        return 1 + 0.22 * np.sin(wave * x + phase[0]) * np.sin(wave * y + phase[1])
    if label == 2:
        rows = np.floor(y * 16)
        return np.where(((y * 16) % 1 < 0.18) | ((x * 8 + 0.5 * rows) % 1 < 0.1), 1.3, 0.95)
    if label == 3:
        return 1 + 0.25 * np.sin(wave * (x + 0.6 * y) + phase[0])
    return np.full(x.shape, 1.0)


def write(folder: Path, train: int, val: int, test: int, size: int = 128, seed: int = 0) -> Path:
    """Write scenes: JPEG images in ``folder/images``, palette PNG masks in ``folder/masks``.

    Returns:
        ``folder``, which `segkey.data.sources.find` then reads like any data.
    """
    number = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, mask = draw(seed, number, size)
            picture = Image.fromarray(mask)
            picture.putpalette([value for colour in PALETTE for value in colour])
            Image.fromarray(image).save(
                folder / "images" / split / f"scene{index:04d}.jpg", quality=92
            )
            picture.save(folder / "masks" / split / f"scene{index:04d}.png")
            number += 1
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    return folder
