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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segkey.crypto import ciphers
from segkey.crypto.age import Identity
from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.data import augment, decode
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import score_resizing, tiling
from segkey.model.input_images import Picture, are_many, upright
from segkey.model.onnx_file import OnnxFile
from segkey.model.tiling import SQUEEZED, Manner, Size
from segkey.shards.header import Header
from segkey.shards.unlock import cipher_for

if TYPE_CHECKING:  # a customer's machine has no torch
    import torch

    from segkey.model.runs import Run


def load(
    run: str | Path,
    key: Key | Identity | None = None,
    device: "str | torch.device" = "auto",
    precise: bool = False,
) -> "Model":
    """The model of a run, or of a file that ``segkey export`` made, ready to predict.

    Args:
        run: the run's folder, ``runs/latest``, or an ONNX file, which needs no PyTorch.
        key: opens a sealed run or file, in memory only; others need none here. What images are
            encrypted with is given to `Model.predict`.
        device: ``auto``, ``cuda``, ``cuda:1``, ``mps`` or ``cpu``.
        precise: float32 even where the device computes in bfloat16.

    Raises:
        SegkeyError: no run there, damaged weights, no such device, a sealed run of another key, or
            a file that segkey did not export.
    """
    if key is not None and not isinstance(key, Key | Identity):  # the device once stood second
        key, device = None, key
    return model_of(opened(run).unlock(key), device, precise)


def opened(path: str | Path) -> "Run | OnnxFile":
    """A run, or an exported file, which may have to be unlocked.

    Raises:
        SegkeyError: it is neither.
    """
    if is_exported(Path(path)):
        return OnnxFile.open(path)
    try:
        from segkey.model.runs import Run
    except ModuleNotFoundError as error:
        raise SegkeyError(
            f"{path} is no file that segkey exported, and a run needs {error.name}, which is not "
            "installed",
            "pip install segkey, or let the owner export the run: segkey export RUN --onnx",
        ) from None
    return Run.open(path)


def is_exported(path: Path) -> bool:
    """Whether a path is that of a file, and not of a run; it may not be there."""
    return path.is_file() or (path.suffix in (".onnx", ".age") and not path.is_dir())


def model_of(
    source: "Run | OnnxFile", device: "str | torch.device" = "auto", precise: bool = False
) -> "Model":
    """The model of what was opened and unlocked; ``device`` and ``precise`` as for `load`."""
    if isinstance(source, OnnxFile):
        from segkey.model.onnx_model import OnnxModel

        return OnnxModel(source, str(device))
    from segkey.model.run_model import RunModel
    from segkey.system import devices

    where = devices.choose(device) if isinstance(device, str) else device
    return RunModel(source, where, precise)


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
        many, manner = are_many(images), self.manner(tile, overlap, scale, flip)
        cipher, masks = self.cipher(key, password), []
        for pictures in _batches(images if many else [images], batch_size):
            masks += self._masks_of(pictures, cipher, manner, batch_size)
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
        many, manner = are_many(images), self.manner(tile, overlap, scale, flip)
        cipher, found = self.cipher(key, password), []
        for each in images if many else [images]:
            picture = self._upright(each)
            bands = self._bands(picture, cipher, manner, batch_size)
            size = (picture.height, picture.width)
            logits = score_resizing.enlarged(np.concatenate(list(bands), 1), size)
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
        return tiling.check(asked, self.multiple, self.header.block_size, self.fixed)

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

    def mask_of_tiles(
        self,
        image: np.ndarray,
        size: Size,
        cipher: Cipher | None,
        manner: Manner,
        batch_size: int = 32,
    ) -> np.ndarray:
        """The mask of one image that is not squeezed.

        Args:
            image: uint8 (C, h, w), plain, scaled as ``manner`` says.
            size: (H, W) of the mask.
            cipher: as for `masks`.
            manner: from `manner`.
            batch_size: tiles per batch.

        Returns:
            uint8 (H, W).
        """
        bands = self._tiled(image, cipher, manner, batch_size)
        return score_resizing.classes_of_bands(bands, image.shape[1], size)

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

    def _masks_of(
        self, images: list[Picture], cipher: Cipher | None, manner: Manner, batch_size: int
    ) -> list[np.ndarray]:
        pictures = [self._upright(each) for each in images]
        sizes = [(each.height, each.width) for each in pictures]
        pixels = [self.prepared(each, manner) for each in pictures]
        if manner.squeezes:
            return self.masks(np.stack(pixels), sizes, cipher, flip=manner.flip)
        return [
            self.mask_of_tiles(each, size, cipher, manner, batch_size)
            for each, size in zip(pixels, sizes, strict=True)
        ]

    def _upright(self, image: Picture) -> Image.Image:
        return upright(image, self.header.range_of_pixels, self.header.channels)

    def _bands(
        self, picture: Image.Image, cipher: Cipher | None, manner: Manner, batch_size: int
    ) -> Iterator[np.ndarray]:
        pixels = self.prepared(picture, manner)
        if manner.squeezes:
            yield self._as_array(self._scores(pixels[None], cipher, flip=manner.flip)[0])
        else:
            yield from self._tiled(pixels, cipher, manner, batch_size)

    def _tiled(
        self, image: np.ndarray, cipher: Cipher | None, manner: Manner, batch_size: int
    ) -> Iterator[np.ndarray]:
        def scores(windows: np.ndarray) -> np.ndarray:
            return self._as_array(self._scores(windows, cipher, flip=manner.flip))

        needs = self.multiple, self.header.block_size, self.fixed
        return tiling.bands(image, manner, *needs, scores, batch_size)


def _batches(images: Any, size: int) -> Iterator[list[Picture]]:
    for start in range(0, len(images), size):
        yield list(images[start : start + size])


def _warn(text: str) -> None:
    warnings.warn(text, SegkeyWarning, stacklevel=4)
