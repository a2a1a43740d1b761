"""Preparation of an image and its mask before encryption: decode, check, augment, resize."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image

from segkey.data import peculiarities
from segkey.data.augment import Crop, as_array, least_size, random_crop
from segkey.data.decode import load_image, whole_size
from segkey.data.file_header import header
from segkey.data.items import Item
from segkey.data.masks import load_mask
from segkey.data.reading import PLAIN, Reading
from segkey.errors import SegkeyError
from segkey.system.seeds import seeded


@dataclass(frozen=True)
class Loaded:
    """An image and its mask, prepared.

    Attributes:
        images: views of the image, uint8 (C, H, W).
        masks: views of its mask, uint8 (H, W); none without a mask.
        original_size: (H, W) of the image.
        counts: pixels by class number in the whole mask, int64 (256); None without a mask.
        peculiar: what is unusual about the image, see `segkey.data.peculiarities`.
    """

    images: list[np.ndarray]
    masks: list[np.ndarray]
    original_size: tuple[int, int]
    counts: np.ndarray | None = None
    peculiar: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Preparation:
    """What is done to every image before it is encrypted.

    Attributes:
        size: (H, W).
        classes: number of classes, or None without masks.
        ignore_index: the mask value that means void.
        views: copies of each image.
        augmented: whether the copies are random crops, or the image itself.
        seed: of the augmentation; a copy depends on it, the image's name and the view's number
            alone.
        crop_scale: smallest area of a crop, as a fraction.
        reading: how what masks hold becomes class numbers.
        pixel_range: the values of 16-bit images that become black and white.
        channels: of images: 3, 1 for grey, or 4 for files of four bands.
        exact: decode every pixel, rather than let libjpeg scale large JPEGs to at least twice the
            size first.
    """

    size: tuple[int, int]
    classes: int | None = None
    ignore_index: int = 255
    views: int = 1
    augmented: bool = False
    seed: int = 0
    crop_scale: float = 0.25
    reading: Reading = PLAIN
    pixel_range: tuple[int, int] | None = None
    channels: int = 3
    exact: bool = False

    def load(self, item: Item) -> tuple[list[np.ndarray], list[np.ndarray], tuple[int, int]]:
        """Views of an image, uint8 (C, H, W), and of its mask, uint8 (H, W); its original size.

        Raises:
            SegkeyError: a file that cannot be read, a mask of another size, a class beyond the
                classes.
        """
        loaded = self.load_and_look(item)
        return loaded.images, loaded.masks, loaded.original_size

    def load_and_look(self, item: Item) -> Loaded:
        """As `load`, with what was seen on the way."""
        peculiar: set[str] = set()
        least = None if self.exact else partial(self._least_size, item.name)
        image = load_image(item.image, self.pixel_range, peculiar, self.channels, least)
        whole = whole_size(image)
        mask = load_mask(item.mask, self.reading) if item.mask else None
        counts = self._check_mask(item, whole, mask) if mask is not None else None
        images, masks = [], []
        for crop in self._crops(item.name, *whole):
            images.append(as_array(image, self.size, crop, is_image=True))
            if mask is not None:
                masks.append(as_array(mask, self.size, crop))
        seen = peculiarities.summed_up(peculiar)
        return Loaded(images, masks, whole, counts, seen)

    def _crops(self, name: str, height: int, width: int) -> list[Crop | None]:
        """What each view shows of an image of this name and size."""
        if not self.augmented:
            return [None] * self.views
        area = (self.crop_scale, 1.0)
        return [
            random_crop(seeded("view", self.seed, name, view), height, width, area)
            for view in range(self.views)
        ]

    def _least_size(self, name: str, height: int, width: int) -> tuple[int, int]:
        return least_size(self.size, self._crops(name, height, width), (height, width))

    def _check_mask(self, item: Item, whole: tuple[int, int], mask: Image.Image) -> np.ndarray:
        """Pixels by class number."""
        if mask.size != whole[::-1]:
            raise SegkeyError(
                f"{item.mask}: the mask is {mask.width}x{mask.height}, its image "
                f"{whole[1]}x{whole[0]}{why_sizes_differ(item)}"
            )
        counts = np.array(mask.histogram(), np.int64)
        if self.classes is not None:
            labelled = counts.copy()
            labelled[self.ignore_index] = 0
            highest = int(np.flatnonzero(labelled).max(initial=0))
            if highest >= self.classes:
                raise SegkeyError(
                    f"{item.mask}: holds class {highest}, but there are {self.classes} (0 to "
                    f"{self.classes - 1})"
                )
        return counts


def why_sizes_differ(item: Item) -> str:
    """That one of the two is turned by its EXIF data, if that explains other sizes."""
    turned = {}
    for name, file in (("image", item.image), ("mask", item.mask)):
        try:
            turned[name] = header(file).turned if file else 1
        except SegkeyError:
            return ""
    image, mask = turned["image"] > 4, turned["mask"] > 4
    if image == mask:
        return ""
    which, other = ("image", "mask") if image else ("mask", "image")
    return (
        f": the {which} is turned by its EXIF orientation {turned[which]}, the {other} is not; "
        f"turn the {other}'s pixels alike, or take the tag away (exiftool -Orientation= FILE)"
    )
