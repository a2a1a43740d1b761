"""What users give as an image, as an upright Pillow image with the channels of the network."""

from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
from PIL import Image

from segkey.data import decode
from segkey.errors import SegkeyError

if TYPE_CHECKING:  # a customer's machine has no torch
    from torch import Tensor

Picture = Union[str, Path, Image.Image, np.ndarray, "Tensor"]


def is_tensor(value: object) -> bool:
    """Whether a value is a torch tensor, if torch is there at all."""
    return hasattr(value, "detach") and hasattr(value, "is_floating_point")


def are_many(images: object) -> bool:
    """Whether these are several images: a list, or a batch in one tensor."""
    return isinstance(images, list | tuple) or (is_tensor(images) and images.ndim == 4)


def upright(
    image: Picture, pixel_range: tuple[int, int] | None = None, channels: int = 3
) -> Image.Image:
    """Anything that is an image, upright, with the channels of the network.

    Raises:
        SegkeyError: it is none, cannot be read, or has not so many channels.
    """
    if isinstance(image, str | Path):
        return decode.load_image(Path(image), pixel_range, channels=channels)
    if is_tensor(image):
        image = _as_image_array(image)
    if isinstance(image, np.ndarray):
        if (
            image.dtype != np.uint8
            or image.ndim not in (2, 3)
            or (image.ndim == 3 and image.shape[2] not in (3, channels))
        ):
            raise SegkeyError(
                f"an array of type {image.dtype} and shape {image.shape} is not an image",
                "give uint8 of shape (H, W, 3), or (H, W) for grey",
            )
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise SegkeyError(
            f"a value of type {type(image).__name__} is not an image",
            "give a path, a Pillow image, or a uint8 array (H, W, 3)",
        )
    if not image.width * image.height:
        raise SegkeyError(
            f"an image of {image.height}x{image.width} has no pixels", "give one of at least 1x1"
        )
    return decode.with_channels(image, channels, "the image", pixel_range)


def _as_image_array(image: "Tensor") -> np.ndarray:
    """A tensor (C, H, W) as uint8 (H, W, C).

    Raises:
        SegkeyError: another shape, or values beyond 0 … 1 of a floating-point tensor.
    """
    shape, floats = tuple(image.shape), image.is_floating_point()
    if image.ndim != 3 or len(image) not in (1, 3, 4):
        raise SegkeyError(
            f"a tensor of shape {shape} is not an image",
            "give (3, H, W) or (1, H, W), or (N, 3, H, W) for several",
        )
    if floats and image.numel():
        if not (image.min() >= 0 and image.max() <= 1):
            raise SegkeyError(
                f"a floating-point image has values from {image.min():.3g} to {image.max():.3g}",
                "give pixels from 0 to 1, not normalised: the network does that itself",
            )
        image = (image.float() * 255).round()
    image = image.byte() if floats else image
    array = image.detach().cpu().permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else array
