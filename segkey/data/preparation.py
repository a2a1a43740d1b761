"""Preparation of an image and its mask before encryption: decode, check, augment, resize."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from segkey.data.augment import as_array, random_crop
from segkey.data.decode import load_image, load_mask
from segkey.data.items import Item
from segkey.data.masks import highest_class
from segkey.errors import SegkeyError
from segkey.system.seeds import seeded


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
    """

    size: tuple[int, int]
    classes: int | None = None
    ignore_index: int = 255
    views: int = 1
    augmented: bool = False
    seed: int = 0
    crop_scale: float = 0.25

    def load(self, item: Item) -> tuple[list[np.ndarray], list[np.ndarray], tuple[int, int]]:
        """Views of an image, uint8 (C, H, W), and of its mask, uint8 (H, W); its original size.

        Raises:
            SegkeyError: a file that cannot be read, a mask of another size, a class beyond the
                classes.
        """
        image = load_image(item.image)
        mask = load_mask(item.mask) if item.mask else None
        if mask is not None:
            self._check_mask(item, image, mask)
        images, masks = [], []
        for view in range(self.views):
            crop = None
            if self.augmented:
                generator = seeded("view", self.seed, item.name, view)
                crop = random_crop(generator, image.height, image.width, (self.crop_scale, 1.0))
            images.append(as_array(image, self.size, crop))
            if mask is not None:
                masks.append(as_array(mask, self.size, crop))
        return images, masks, (image.height, image.width)

    def _check_mask(self, item: Item, image: Image.Image, mask: Image.Image) -> None:
        if mask.size != image.size:
            raise SegkeyError(
                f"{item.mask}: the mask is {mask.width}x{mask.height}, its image "
                f"{image.width}x{image.height}"
            )
        if self.classes is not None:
            highest = highest_class(mask, self.ignore_index)
            if highest >= self.classes:
                raise SegkeyError(
                    f"{item.mask}: holds class {highest}, but there are {self.classes} (0 to "
                    f"{self.classes - 1})"
                )
