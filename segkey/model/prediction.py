"""Prediction with a trained model and its key: images in, masks of the images' own sizes out.

>>> import segkey
>>> model = segkey.load("runs/latest")                      # doctest: +SKIP
>>> key = segkey.Key.load("keys/segkey.key")                # doctest: +SKIP
>>> mask = model.predict("photo.jpg", key)                  # doctest: +SKIP

What is here works on NumPy arrays, without PyTorch: `segkey.model.run_model` computes with a run's
network, `segkey.model.onnx_model` with an exported one.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.data import augment, decode
from segkey.errors import SegkeyWarning
from segkey.model import score_resizing, tiling
from segkey.model.input_images import Picture, are_many, upright
from segkey.model.tiling import SQUEEZED, Manner, Size
from segkey.shards.header import Header
from segkey.shards.unlock import cipher_for


@dataclass(frozen=True)
class Inference:
    """How images go through a model's network.

    Attributes:
        cipher: what they are encrypted with, from `Model.cipher`; None feeds them as they are.
        manner: squeezed to the size of training, or cut into tiles; from `Model.manner`.
        batch_size: images, or tiles of one image, per batch.
    """

    cipher: Cipher | None
    manner: Manner = SQUEEZED
    batch_size: int = 32


class Model(ABC):
    """A trained network with what it was trained on.

    Attributes:
        name: of the run that it comes from.
        header: its method, block size, key and classes, as a shard would say them.
        size: (H, W) of the images it was trained on.
        multiple: what the sides of its input must be multiples of.
        fixed: the only size that it takes; None if it takes others.
    """

    name: str
    header: Header
    size: Size
    multiple: int
    fixed: Size | None

    def _described(self, network: str, device: str, how: str = "") -> str:
        """What `repr` shows; no secret."""
        header, (height, width) = self.header, self.size
        label = ciphers.method_label(header.method, header.block_size)
        key = f", key {header.key_id}" if header.key_id else ""
        return (
            f"<segkey model {self.name}: {network}, {height}x{width}, {len(self.classes)} classes, "
            f"{label}{key}, {how}on {device}>"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; a mask holds their numbers."""
        return self.header.classes

    def predict(
        self,
        images: Picture | list[Picture],
        key: Key | None = None,
        password: bytes | None = None,
        batch_size: int = 32,
        *,
        tile: int | Size | None = None,
        overlap: int | None = None,
        scale: float | None = None,
        flip: bool = False,
    ) -> np.ndarray | list[np.ndarray]:
        """Segment images: resize as in training, encrypt, predict, and resize the masks back.

        Args:
            images: a path, a Pillow image, a uint8 array (H, W, 3) or (H, W), or a tensor
                (3, H, W), uint8 or floating-point from 0 to 1; or a list of them, or a tensor
                (N, 3, H, W).
            key: the model's key. With another one, or none, segkey warns, and the masks are poor.
            password: the FFX password, if the model was trained with a fixed one.
            batch_size: images, or tiles of one image, per batch.
            tile: instead of squeezing an image to the size of training, cut it into windows of
                this side, or (H, W), in pixels.
            overlap: of neighbouring tiles; 64, or a quarter of a smaller tile, if not given.
            scale: resize an image by this before it is cut; 1 for its own size. Without a tile the
                image goes through the network as a whole.
            flip: average the scores with those of the mirrored image.

        Returns:
            uint8 (H, W) of class numbers, of the image's own size (upright, as its EXIF data says);
            a list for a list.

        Raises:
            SegkeyError: an image that cannot be read, the right key without the right password, or
                a tile that does not fit the blocks or the network.
        """
        manner = self.manner(tile, overlap, scale, flip)
        how = Inference(self.cipher(key, password), manner, batch_size)
        many, masks = are_many(images), []
        for some in _batches(images if many else [images], batch_size):
            pictures = [self._upright(each) for each in some]
            pixels = [self.prepared(each, manner) for each in pictures]
            masks += self.masks_of(pixels, [decode.whole_size(each) for each in pictures], how)
        return masks if many else masks[0]

    def probabilities(
        self,
        images: Picture | list[Picture],
        key: Key | None = None,
        password: bytes | None = None,
        batch_size: int = 32,
        *,
        tile: int | Size | None = None,
        overlap: int | None = None,
        scale: float | None = None,
        flip: bool = False,
    ) -> np.ndarray | list[np.ndarray]:
        """How likely each class is at each pixel: the softmax of the enlarged logits.

        Args:
            images, key, password, batch_size, tile, overlap, scale, flip: as for `predict`, whose
                masks hold the likeliest.

        Returns:
            float32 (classes, H, W), of the image's own size; a list for a list.
        """
        manner = self.manner(tile, overlap, scale, flip)
        how = Inference(self.cipher(key, password), manner, batch_size)
        many, found = are_many(images), []
        for each in images if many else [images]:
            picture = self._upright(each)
            bands = list(self._bands(self.prepared(picture, manner), how))
            size = decode.whole_size(picture)
            logits = score_resizing.enlarged(np.concatenate(bands, 1), size)
            found.append(score_resizing.softmax(logits))
        return found if many else found[0]

    def cipher(self, key: Key | None, password: bytes | None = None) -> Cipher | None:
        """What images are encrypted with before prediction; None if they stay plain.

        Warns if that is not the model's own key: an attacker can go on, but an owner should know.

        Raises:
            SegkeyError: the right key, but not the FFX password that goes with it.
        """
        header = self.header
        if header.method == "none":
            return None
        if key is None:
            _warn(
                f"no key was given: run {self.name} needs key {header.key_id}, so its masks "
                f"will be poor"
            )
            return None
        if key.id == header.key_id:
            return cipher_for(header, key, password, self.path)
        _warn(
            f"key {key.id} is not the key of run {self.name}, which is {header.key_id}: its "
            f"masks will be poor"
        )
        return ciphers.from_key(header.method, key, header.block_size, header.channels, password)

    def manner(
        self,
        tile: int | Size | None = None,
        overlap: int | None = None,
        scale: float | None = None,
        flip: bool = False,
    ) -> Manner:
        """How to bring images to the network, checked; arguments are those of `predict`.

        Raises:
            SegkeyError: a tile, an overlap or a scale that is not possible with this network.
        """
        sides = (tile, tile) if isinstance(tile, int) else tile
        asked = Manner(sides, overlap, scale, flip)
        made = tiling.check(asked, self.multiple, self.header.block_size, self.fixed)
        if made.tile:
            self._check_tile(made.tile)
        return made

    def masks(
        self,
        pixels: np.ndarray,
        sizes: list[Size],
        cipher: Cipher | None,
        divided_by: int = 255,
        flip: bool = False,
    ) -> list[np.ndarray]:
        """Masks of some images of the network's size.

        Args:
            pixels: uint8 (N, C, h, w), plain.
            sizes: (H, W) of each mask.
            cipher: from `cipher`, or an attacker's; None feeds the images as they are.
            divided_by: what images are divided by that are fed as they are.
            flip: average with the mirrored images.

        Returns:
            uint8 (H, W) each.
        """
        logits = self._scores(pixels, cipher, divided_by, flip)
        return [self._classes_at(each, size) for each, size in zip(logits, sizes, strict=True)]

    def masks_of(
        self, pixels: list[np.ndarray], sizes: list[Size], how: Inference
    ) -> list[np.ndarray]:
        """Masks of images that `prepared` brought to the network in the manner of ``how``.

        Args:
            pixels: uint8 (C, h, w) each, plain; of one size if they are squeezed.
            sizes: (H, W) of each mask.
            how: the cipher, the manner, and how much is computed at once.

        Returns:
            uint8 (H, W) each.
        """
        if how.manner.squeezes:
            return self.masks(np.stack(pixels), sizes, how.cipher, flip=how.manner.flip)
        return [
            score_resizing.classes_of_bands(self._bands(each, how), each.shape[1], size)
            for each, size in zip(pixels, sizes, strict=True)
        ]

    def target(self, whole: Size, manner: Manner) -> Size:
        """(H, W) that an image of some size is brought to: the network's own, or scaled."""
        return self.size if manner.squeezes else manner.scaled(whole)

    def prepared(self, picture: Image.Image, manner: Manner = SQUEEZED) -> np.ndarray:
        """An upright image as uint8 (C, h, w), of the size that it is brought to."""
        size = self.target(decode.whole_size(picture), manner)
        return augment.as_array(picture, size, is_image=True)

    @property
    @abstractmethod
    def path(self) -> Path:
        """Of the run or the file, for messages."""

    @abstractmethod
    def logits(self, images: np.ndarray, divided_by: int | None = None) -> np.ndarray:
        """The network's answer to images that are encrypted already, as a host without the key
        gets them.

        Args:
            images: uint8 or uint16 (N, C, h, w).
            divided_by: what makes them 0 … 1; the method's largest value, if not given.

        Returns:
            float32 (N, classes, h, w).
        """

    @abstractmethod
    def _logits(self, pixels: np.ndarray, cipher: Cipher | None, divided_by: int) -> Any:
        """The network's answer, float32 (N, classes, h, w), of plain images uint8 (N, C, h, w)."""

    @abstractmethod
    def _mirrored(self, logits: Any) -> Any:
        """Logits turned left to right."""

    @abstractmethod
    def _as_array(self, logits: Any) -> np.ndarray:
        """Logits as a NumPy array."""

    @abstractmethod
    def _classes_at(self, logits: Any, size: Size) -> np.ndarray:
        """The likeliest class after resizing, uint8 (H, W), of logits (classes, h, w)."""

    def _scores(
        self, pixels: np.ndarray, cipher: Cipher | None, divided_by: int = 255, flip: bool = False
    ) -> Any:
        made = self._logits(pixels, cipher, divided_by)
        if not flip:
            return made
        turned = np.ascontiguousarray(pixels[..., ::-1])  # before it is encrypted
        return (made + self._mirrored(self._logits(turned, cipher, divided_by))) / 2

    def _upright(self, image: Picture) -> Image.Image:
        return upright(image, self.header.range_of_pixels, self.header.channels)

    def _check_tile(self, tile: Size) -> None:  # noqa: B027 - most networks take any size
        """Raise `SegkeyError` if the network itself refuses images of this size."""

    def _bands(self, image: np.ndarray, how: Inference) -> Iterator[np.ndarray]:
        """The logits of one image, float32 (classes, some rows, w), from the top down."""

        def scores(windows: np.ndarray) -> np.ndarray:
            return self._as_array(self._scores(windows, how.cipher, flip=how.manner.flip))

        if how.manner.squeezes:
            return iter(scores(image[None]))
        needs = self.multiple, self.header.block_size, self.fixed
        return tiling.bands(image, how.manner, *needs, scores, how.batch_size)


def _batches(images: Any, size: int) -> Iterator[list[Picture]]:
    for start in range(0, len(images), size):
        yield list(images[start : start + size])


def _warn(text: str) -> None:
    warnings.warn(text, SegkeyWarning, stacklevel=4)
