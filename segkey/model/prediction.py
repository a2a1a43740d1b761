"""Prediction with a trained model and its key: images in, masks of the images' own sizes out.

>>> import segkey
>>> model = segkey.load("runs/latest")                      # doctest: +SKIP
>>> key = segkey.Key.load("keys/segkey.key")                # doctest: +SKIP
>>> mask = model.predict("photo.jpg", key)                  # doctest: +SKIP
"""

import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from segkey.crypto import ciphers
from segkey.crypto.age import Identity
from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.data import augment, decode, peculiarities
from segkey.data.items import Finding, Item, Problem
from segkey.data.palette import overlay, palette_mask
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model.batches import as_pixels
from segkey.model.networks import Segmenter
from segkey.model.outputs import Outputs
from segkey.model.runs import Run
from segkey.system import devices
from segkey.system.files import make_folder, written_whole
from segkey.system.progress import SILENT, Progress

Picture = str | Path | Image.Image | np.ndarray | Tensor
_BAND = 1 << 24  # logits enlarged at a time: 64 MB, whatever the size of the photograph
_In, _Out = TypeVar("_In"), TypeVar("_Out")


def load(
    run: str | Path,
    key: Key | Identity | None = None,
    device: str | torch.device = "auto",
    precise: bool = False,
) -> "Model":
    """The model of a run, ready to predict.

    Args:
        run: the run's folder, or ``runs/latest``.
        key: opens a sealed run, in memory only; others need none here. What images are encrypted
            with is given to `Model.predict`.
        device: ``auto``, ``cuda``, ``cuda:1``, ``mps`` or ``cpu``.
        precise: float32 even where the device computes in bfloat16.

    Raises:
        SegkeyError: no run there, damaged weights, no such device, or a sealed run of another key.
    """
    if isinstance(key, str | torch.device):  # the device once stood second
        key, device = None, key
    where = device if isinstance(device, torch.device) else devices.choose(device)
    return Model(Run.open(run).unlock(key), where, precise)


class Model:
    """A trained network with what it was trained on.

    Attributes:
        run: where it came from; ``run.header`` names its method, block size, key and classes.
        device: where it computes.
        precise: float32 even where the device computes in bfloat16.
    """

    def __init__(self, run: Run, device: torch.device, precise: bool = False):
        self.run, self.device, self.precise = run, device, precise
        self._network = run.load_model(device)

    def __repr__(self) -> str:
        header, (height, width) = self.run.header, self.run.size
        label = ciphers.method_label(header.method, header.block_size)
        key = f", key {header.key_id}" if header.key_id else ""
        return (
            f"<segkey model {self.run.name}: {self._network.name}, {height}x{width}, "
            f"{len(self.classes)} classes, {label}{key}, on {self.device}>"
        )

    @property
    def network(self) -> Segmenter:
        """The network, in evaluation mode: float (N, C, H, W) in 0 … 1, encrypted, to logits."""
        return self._network

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; a mask holds their numbers."""
        return self.run.header.classes

    def predict(
        self,
        images: Picture | list[Picture],
        key: Key | None = None,
        password: bytes | None = None,
        batch_size: int = 32,
    ) -> np.ndarray | list[np.ndarray]:
        """Segment images: resize as in training, encrypt, predict, and resize the masks back.

        Args:
            images: a path, a Pillow image, a uint8 array (H, W, 3) or (H, W), or a tensor
                (3, H, W), uint8 or floating-point from 0 to 1; or a list of them, or a tensor
                (N, 3, H, W).
            key: the model's key. With another one, or none, segkey warns, and the masks are poor.
            password: the FFX password, if the model was trained with a fixed one.
            batch_size: images per batch.

        Returns:
            uint8 (H, W) of class numbers, of the image's own size (upright, as its EXIF data says);
            a list for a list.

        Raises:
            SegkeyError: an image that cannot be read, or the right key without the right password.
        """
        if not _are_many(images):
            return self.predict([images], key, password, batch_size)[0]
        cipher, masks = self.cipher(key, password), []
        for start in range(0, len(images), batch_size):
            batch, pixels = self._prepared(images[start : start + batch_size])
            masks += self.masks(
                pixels, [(picture.height, picture.width) for picture in batch], cipher
            )
        return masks

    @torch.inference_mode()
    def probabilities(
        self,
        images: Picture | list[Picture],
        key: Key | None = None,
        password: bytes | None = None,
        batch_size: int = 32,
    ) -> np.ndarray | list[np.ndarray]:
        """How likely each class is at each pixel: the softmax of the enlarged logits.

        Args:
            images, key, password, batch_size: as for `predict`, whose masks hold the likeliest.

        Returns:
            float32 (classes, H, W), of the image's own size; a list for a list.
        """
        if not _are_many(images):
            return self.probabilities([images], key, password, batch_size)[0]
        cipher, found = self.cipher(key, password), []
        for start in range(0, len(images), batch_size):
            batch, pixels = self._prepared(images[start : start + batch_size])
            for each, picture in zip(self._logits(pixels, cipher, 255), batch, strict=True):
                size = (picture.height, picture.width)
                logits = F.interpolate(each[None], size, mode="bilinear", align_corners=False)
                found.append(logits[0].softmax(0).cpu().numpy())
        return found

    def cipher(self, key: Key | None, password: bytes | None = None) -> Cipher | None:
        """What images are encrypted with before prediction; None if they stay plain.

        Warns if that is not the model's own key: an attacker can go on, but an owner should know.

        Raises:
            SegkeyError: the right key, but not the FFX password that goes with it.
        """
        header = self.run.header
        if header.method == "none":
            return None
        if key is None:
            _warn(
                f"no key was given: run {self.run.name} needs key {header.key_id}, so its masks "
                f"will be poor"
            )
            return None
        if key.id == header.key_id:
            return self.run.cipher(key, password)
        _warn(
            f"key {key.id} is not the key of run {self.run.name}, which is {header.key_id}: its "
            f"masks will be poor"
        )
        return ciphers.from_key(header.method, key, header.block_size, header.channels, password)

    @torch.inference_mode()
    def masks(
        self,
        pixels: np.ndarray,
        sizes: list[tuple[int, int]],
        cipher: Cipher | None,
        divided_by: int = 255,
    ) -> list[np.ndarray]:
        """Masks of some images of the network's size.

        Args:
            pixels: uint8 (N, 3, h, w), plain.
            sizes: (H, W) of each mask.
            cipher: from `cipher`, or an attacker's; None feeds the images as they are.
            divided_by: what images are divided by that are fed as they are.

        Returns:
            uint8 (H, W) each.
        """
        logits = self._logits(pixels, cipher, divided_by)
        return [
            classes_at(each, size).cpu().numpy() for each, size in zip(logits, sizes, strict=True)
        ]

    def _prepared(self, images: Sequence[Picture]) -> tuple[list[Image.Image], np.ndarray]:
        """Images upright, and uint8 (N, C, h, w) of the network's size."""
        header = self.run.header
        batch = [_upright(image, header.range_of_pixels, header.channels) for image in images]
        arrays = [augment.as_array(each, self.run.size, is_image=True) for each in batch]
        return batch, np.stack(arrays)

    def _logits(self, pixels: np.ndarray, cipher: Cipher | None, divided_by: int) -> Tensor:
        """float32 (N, classes, h, w), of plain images of the network's size."""
        images = torch.from_numpy(pixels).to(self.device)
        images, max_value = (
            (cipher.encrypt(images), cipher.max_value) if cipher else (images, divided_by)
        )
        with devices.mixed_precision(self.device, not self.precise):
            return self._network(as_pixels(images, max_value)).float()


def _are_many(images: object) -> bool:
    """Whether these are several images: a list, or a batch in one tensor."""
    return isinstance(images, list | tuple) or (isinstance(images, Tensor) and images.ndim == 4)


def _as_image_array(image: Tensor) -> np.ndarray:
    """A tensor (C, H, W) as uint8 (H, W, C).

    Raises:
        SegkeyError: another shape, or values beyond 0 … 1 of a floating-point tensor.
    """
    image = image.detach().cpu().as_subclass(Tensor)
    if image.ndim != 3 or len(image) not in (1, 3, 4):
        raise SegkeyError(
            f"a tensor of shape {tuple(image.shape)} is not an image",
            "give (3, H, W) or (1, H, W), or (N, 3, H, W) for several",
        )
    if image.is_floating_point():
        if not (image.min() >= 0 and image.max() <= 1):
            raise SegkeyError(
                f"a floating-point image has values from {image.min():.3g} to {image.max():.3g}",
                "give pixels from 0 to 1, not normalised: the network does that itself",
            )
        image = (image * 255).round().to(torch.uint8)
    array = image.permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def _warn(text: str) -> None:
    warnings.warn(text, SegkeyWarning, stacklevel=4)


def _upright(
    image: Picture, pixel_range: tuple[int, int] | None = None, channels: int = 3
) -> Image.Image:
    """Anything that is an image, upright, with the channels of the network."""
    if isinstance(image, str | Path):
        return decode.load_image(Path(image), pixel_range, channels=channels)
    if isinstance(image, Tensor):
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
    if not isinstance(image, Image.Image) or not image.width * image.height:
        raise SegkeyError(
            f"a {type(image).__name__} is not an image",
            "give a path, a Pillow image, or a uint8 array (H, W, 3)",
        )
    return decode.with_channels(image, channels, "the image", pixel_range)


def classes_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest class of each pixel after resizing to another size.

    Logits are resized, bilinearly as the network itself enlarges them from an eighth of its input,
    and not the
    finished classes: enlarged to the nearest, those would show every pixel of the network's input
    as a stair. A band of rows at a time, as 21 classes of a 12-megapixel photograph would take a
    gigabyte.

    Args:
        logits: float (classes, h, w).
        size: (H, W).

    Returns:
        uint8 (H, W).
    """
    classes, h, w = logits.shape
    height, width = size
    if (h, w) == (height, width):
        return _likeliest(logits)
    out = torch.empty(size, dtype=torch.uint8, device=logits.device)
    rows = max(1, _BAND // (classes * width))
    for top in range(0, height, rows):
        y = torch.arange(top, min(top + rows, height), device=logits.device)
        y = ((y + 0.5) * (h / height) - 0.5).clamp(
            0, h - 1
        )  # where pixels' centres fall, as F.interpolate has it
        above = y.long()
        below = (above + 1).clamp(max=h - 1)
        rows_of = logits.index_select(1, above), logits.index_select(1, below)
        band = torch.lerp(*rows_of, (y - above)[:, None].to(logits.dtype))
        band = F.interpolate(band[None], (len(y), width), mode="bilinear", align_corners=False)[0]
        out[top : top + len(y)] = _likeliest(band)
    return out


def _likeliest(logits: Tensor) -> Tensor:
    """argmax over the first dimension, uint8; on the CPU, `max` is 5 times as fast as `argmax`."""
    return logits.max(0).indices.byte()


@dataclass
class Predicted:
    """What came of predicting many images.

    Attributes:
        images: how many masks were written.
        pixels: class name to how many pixels, over all images.
        seen: class name to how many images it occurs in.
        problems: images that were left out, with reasons.
        animated: names of images of which only the first frame was used.
        files: for each image its ``image``, ``mask`` and, with overlays, ``overlay``, the latter
            two below the folder.
        peculiar, examples: images by what is unusual about them (`segkey.data.peculiarities`), and
            the name of one.
        seconds: how long it took, without loading the model.
    """

    images: int = 0
    pixels: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    animated: list[str] = field(default_factory=list)
    files: list[dict[str, str]] = field(default_factory=list)
    peculiar: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def see(self, name: str, peculiar: set[str]) -> None:
        """Take what is unusual about an image into account."""
        self.animated += [name] if "frames" in peculiar else []
        for kind in peculiar:
            self.peculiar[kind] += 1
            self.examples.setdefault(kind, name)

    def findings(self) -> list[Finding]:
        """What is to be said of the images."""
        return list(peculiarities.lines(self.peculiar, self.examples, self.images))

    def count(self, mask: np.ndarray, classes: tuple[str, ...]) -> None:
        """Take a mask into account."""
        self.images += 1
        counts = np.bincount(mask.reshape(-1), minlength=len(classes))
        for name, pixels in zip(classes, counts.tolist(), strict=True):
            self.pixels[name] = self.pixels.get(name, 0) + pixels
            self.seen[name] = self.seen.get(name, 0) + (pixels > 0)

    def summary(self, run: str) -> dict:
        """The document of ``segkey predict --json``."""
        total = sum(self.pixels.values())
        return {
            "run": run,
            "images": self.images,
            "left_out": [{"name": problem.name, "why": problem.why} for problem in self.problems],
            "animated": self.animated,
            "files": self.files,
            "seconds": round(self.seconds, 3),
            "classes": {
                name: {"images": self.seen[name], "share": self.pixels[name] / total}
                for name in self.pixels
            },
        }


@dataclass(frozen=True)
class _Loaded:
    """An image on its way to the network."""

    item: Item
    pixels: np.ndarray
    size: tuple[int, int]
    peculiar: set[str]


def predict_files(
    model: Model,
    cipher: Cipher | None,
    items: list[Item],
    out: Path,
    overlays: bool = False,
    strict: bool = False,
    force: bool = False,
    batch_size: int = 32,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Predicted:
    """Write a palette PNG mask for each image below ``out/masks``, under the image's own name.

    Threads decode ahead of the network and write behind it, so that it never waits for files.

    Args:
        model: from `load`.
        cipher: from `Model.cipher`.
        items: from `segkey.data.sources.find_pictures`.
        out: the folder; no name leads out of it.
        overlays: also write each image under its classes' colours, with a legend, below
            ``out/overlays``.
        strict: stop at the first image that cannot be used; the others are predicted otherwise.
        force: write into a folder that is not empty, replacing files.
        batch_size: images per batch.
        workers: threads.
        progress: hears of every image.

    Raises:
        SegkeyError: ``out`` is not empty, no image can be used, or (``strict``) one cannot.
    """
    if not force and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SegkeyError(
            f"{out} already exists and is not empty",
            "choose another --out, or use --force, which replaces what an earlier run made",
        )
    result, began = Predicted(), time.monotonic()
    pixel_range = model.run.header.range_of_pixels
    outputs = Outputs(out, items, overlays)

    def load(item: Item) -> _Loaded | Problem:
        return _load(item, model.run.size, pixel_range, model.run.header.channels)

    with (
        progress.task("predict", len(items)) as advance,
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
    ):
        ahead, writing = max(2 * batch_size, 8), deque()
        waiting: list[_Loaded] = []

        def flush() -> None:
            masks = model.masks(
                np.stack([each.pixels for each in waiting]), [each.size for each in waiting], cipher
            )
            for each, mask in zip(waiting, masks, strict=True):
                result.count(mask, model.classes)
                path, beside = outputs.files_of(each.item)
                result.files.append(outputs.line(each.item))
                for file in filter(None, (path, beside)):
                    make_folder(file.parent, below=out)
                arguments = (each.item, mask, path, beside, model.classes, pixel_range)
                writing.append(pool.submit(_write, *arguments))
            advance(len(waiting))
            waiting.clear()
            while len(writing) > ahead:
                writing.popleft().result()

        for loaded in _ahead(pool, load, items, ahead):
            if isinstance(loaded, Problem):
                if strict:
                    raise SegkeyError(
                        f"{loaded.name}: {loaded.why}", "mend or remove it, or leave --strict out"
                    )
                result.problems.append(loaded)
                advance(1)
                continue
            result.see(loaded.item.name, loaded.peculiar)
            waiting.append(loaded)
            if len(waiting) == batch_size:
                flush()
        if waiting:
            flush()
        for each in writing:
            each.result()
    if not result.images:
        first = result.problems[0]
        raise SegkeyError(f"none of {len(items)} images can be used; {first.name}: {first.why}")
    outputs.finish(result.files)
    result.seconds = time.monotonic() - began
    return result


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[_In], _Out], inputs: Iterable[_In], count: int
) -> Iterator[_Out]:
    """Results in order, computed in threads at most ``count`` inputs ahead."""
    waiting: deque = deque()
    for each in inputs:
        waiting.append(pool.submit(function, each))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(
    item: Item, size: tuple[int, int], pixel_range: tuple[int, int] | None, channels: int = 3
) -> _Loaded | Problem:
    try:
        peculiar: set[str] = set()
        least = partial(_least_size, size)
        picture = decode.load_image(item.image, pixel_range, peculiar, channels, least)
        seen = peculiarities.summed_up(peculiar)
        pixels = augment.as_array(picture, size, is_image=True)
        return _Loaded(item, pixels, decode.whole_size(picture), seen)
    except SegkeyError as error:
        return Problem(item.name, error.what.removeprefix(f"{item.image}: "))


def _least_size(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    return augment.least_size(size, [None], (height, width))


def _write(
    item: Item,
    mask: np.ndarray,
    path: Path,
    beside: Path | None,
    classes: tuple[str, ...],
    pixel_range: tuple[int, int] | None,
) -> None:
    with written_whole(path) as file:
        palette_mask(mask, classes).save(file, format="PNG")
    if beside:
        # Decoded once more: keeping every photograph until its mask is there would take far more
        # memory.
        picture = overlay(decode.load_image(item.image, pixel_range), mask, classes)
        with written_whole(beside) as file:
            picture.save(file, format="JPEG", quality=90)
