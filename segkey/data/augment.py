"""Augmentation: random crops and flips of an image and its mask. Pillow and NumPy only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Crop:
    """A part of an image, as fractions of its sides, and whether it is mirrored left to right."""

    left: float
    top: float
    right: float
    bottom: float
    flip: bool


def random_crops(
    generator: np.random.Generator,
    sizes: np.ndarray,
    scale: tuple[float, float],
    ratio=(3 / 4, 4 / 3),
) -> np.ndarray:
    """Random resized crops with horizontal flips, as torchvision's RandomResizedCrop draws them.

    Ten tries for a part of the wanted area and aspect ratio; the whole image, cut to the nearest
    allowed ratio at its centre, if none fits.

    Args:
        generator: the source of randomness.
        sizes: (N, 2) heights and widths in pixels.
        scale: least and largest area, as a fraction of the image.
        ratio: least and largest width / height.

    Returns:
        float64 (N, 5): left, top, right, bottom as fractions of the sides, and 1 where mirrored.
    """
    n = len(sizes)
    heights, widths = sizes[:, 0, None].astype(float), sizes[:, 1, None].astype(float)
    area = heights * widths * generator.uniform(*scale, (n, 10))
    aspect = np.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1]), (n, 10)))
    w, h = np.sqrt(area * aspect), np.sqrt(area / aspect)
    first = np.argmax((w <= widths) & (h <= heights), axis=1)
    rows = np.arange(n)
    fits = (w <= widths)[rows, first] & (h <= heights)[rows, first]
    w = (
        np.where(fits, w[rows, first], np.minimum(widths[:, 0], heights[:, 0] * ratio[1]))
        / widths[:, 0]
    )
    h = (
        np.where(fits, h[rows, first], np.minimum(heights[:, 0], widths[:, 0] / ratio[0]))
        / heights[:, 0]
    )
    where = generator.uniform(size=(n, 2))
    where[~fits] = 0.5
    left, top = where[:, 0] * (1 - w), where[:, 1] * (1 - h)
    return np.stack([left, top, left + w, top + h, generator.uniform(size=n) < 0.5], axis=1)


def random_crop(
    generator: np.random.Generator, height: int, width: int, scale: tuple[float, float]
) -> Crop:
    """One of `random_crops`, for an image of ``height`` x ``width`` pixels."""
    *box, flip = random_crops(generator, np.array([[height, width]]), scale)[0]
    return Crop(*map(float, box), flip=bool(flip))


# Images that are decoded at a fraction of their size keep so many times what is wanted: resizing by
# two or more then hides the difference (over 50 dB).
_MARGIN = 2


def least_size(
    size: tuple[int, int], crops: Sequence[Crop | None], whole: tuple[int, int]
) -> tuple[int, int]:
    """(H, W) that an image must be decoded to, at least, so that `as_array` loses nothing to see.

    Args:
        size: (H, W) of the result.
        crops: the parts that will be taken; None for all of it.
        whole: (H, W) of the image.
    """
    height = min((crop.bottom - crop.top for crop in crops if crop), default=1.0)
    width = min((crop.right - crop.left for crop in crops if crop), default=1.0)
    return (
        min(whole[0], math.ceil(_MARGIN * size[0] / height)),
        min(whole[1], math.ceil(_MARGIN * size[1] / width)),
    )


def as_array(
    picture: Image.Image,
    size: tuple[int, int],
    crop: Crop | None = None,
    is_image: bool = False,
) -> np.ndarray:
    """Cut, resize and mirror a Pillow image to a uint8 array.

    RGB, and any other mode of 8 bits if ``is_image``: bilinear, to (C, H, W). L: nearest, to
    (H, W).

    Args:
        picture: the image, or a mask in mode L.
        size: (H, W) of the result.
        crop: the part to take; all of it, if not given.
        is_image: of mode L, an image of one channel, and no mask.
    """
    box = None
    if crop:
        w, h = picture.size
        box = (crop.left * w, crop.top * h, min(crop.right * w, w), min(crop.bottom * h, h))
    how = Image.Resampling.BILINEAR
    if picture.mode == "L" and not is_image:
        how = Image.Resampling.NEAREST
    if is_image and picture.mode != "RGB":
        # One band at a time: Pillow would take a fourth one for alpha, and weight the others by it.
        bands = [b.resize((size[1], size[0]), how, box=box) for b in picture.split()]
        array = np.stack([np.asarray(band) for band in bands])
        return np.ascontiguousarray(array[..., ::-1]) if crop and crop.flip else array
    picture = picture.resize((size[1], size[0]), how, box=box)
    # Pillow takes channels apart three times as fast as NumPy turns an image around.
    array = (
        np.stack([np.asarray(band) for band in picture.split()])
        if picture.mode == "RGB"
        else np.asarray(picture)
    )
    return np.ascontiguousarray(array[..., ::-1]) if crop and crop.flip else array
