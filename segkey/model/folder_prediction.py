"""Masks for folders of images: decoded ahead of the network and written behind it, in threads."""

import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segkey.data import augment, decode, peculiarities
from segkey.data.items import Finding, Item, Problem
from segkey.data.palette import overlay, palette_mask
from segkey.errors import SegkeyError
from segkey.model.prediction import Inference, Model
from segkey.model.prediction_files import Outputs
from segkey.model.tiling import Manner, Size
from segkey.system.files import make_folder, require_empty, written_whole
from segkey.system.progress import SILENT, Advance, Progress


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


@dataclass(frozen=True)
class Settings(Inference):
    """How the images of a folder, or the frames of a video, are predicted and written.

    Attributes:
        overlays: also write images under their classes' colours, with a legend, below
            ``overlays``; of a video one video, without its sound.
        strict: stop at the first image that cannot be used; the others are predicted otherwise.
        force: write into a folder that is not empty, replacing files.
        workers: threads; one per core, if not given.
    """

    overlays: bool = False
    strict: bool = False
    force: bool = False
    workers: int | None = None


def predict_files(
    model: Model, items: list[Item], out: Path, how: Settings, progress: Progress = SILENT
) -> Predicted:
    """Write a palette PNG mask for each image below ``out/masks``, under the image's own name.

    Threads decode ahead of the network and write behind it, so that it never waits for files.

    Args:
        model: from `segkey.load`.
        items: from `segkey.data.sources.find_pictures`.
        out: the folder; no name leads out of it.
        how: the model's cipher and what else is to be done.

    Raises:
        SegkeyError: ``out`` is not empty, no image can be used, or (``strict``) one cannot.
    """
    require_empty(out, how.force)
    result, began = Predicted(), time.monotonic()
    outputs = Outputs(out, items, how.overlays)
    with (
        progress.task("predict", len(items)) as advance,
        ThreadPoolExecutor(how.workers or os.cpu_count()) as pool,
    ):
        ahead = max(2 * how.batch_size, 8) if how.manner.squeezes else 2  # images of their own size
        writer = _Writer(model, outputs, result, pool, ahead)
        for batch in _batches(_loaded(model, items, how, pool, ahead), how, result, advance):
            pixels, sizes = [each.pixels for each in batch], [each.size for each in batch]
            writer.write(batch, model.masks_of(pixels, sizes, how))
            advance(len(batch))
        writer.finish()
    if not result.images:
        first = result.problems[0]
        raise SegkeyError(f"none of {len(items)} images can be used; {first.name}: {first.why}")
    outputs.finish(result.files)
    result.seconds = time.monotonic() - began
    return result


def _batches(
    loaded: Iterable[_Loaded | Problem], how: Settings, result: Predicted, advance: Advance
) -> Iterator[list[_Loaded]]:
    """What the network takes at once; images that cannot be used are put down in ``result``."""
    most = how.batch_size if how.manner.squeezes else 1  # tiles of one image make a batch
    waiting: list[_Loaded] = []
    for each in loaded:
        if isinstance(each, Problem):
            if how.strict:
                raise SegkeyError(
                    f"{each.name}: {each.why}", "mend or remove it, or leave --strict out"
                )
            result.problems.append(each)
            advance(1)
            continue
        result.see(each.item.name, each.peculiar)
        waiting.append(each)
        if len(waiting) == most:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


class _Writer:
    """Writes masks in threads, at most ``ahead`` files behind the network."""

    def __init__(
        self,
        model: Model,
        outputs: Outputs,
        result: Predicted,
        pool: ThreadPoolExecutor,
        ahead: int,
    ):
        self._model, self._outputs, self._result = model, outputs, result
        self._pool, self._ahead, self._writing = pool, ahead, deque()

    def write(self, images: list[_Loaded], masks: list[np.ndarray]) -> None:
        """Count the masks of some images, and begin to write them."""
        classes, pixel_range = self._model.classes, self._model.header.range_of_pixels
        for each, mask in zip(images, masks, strict=True):
            self._result.count(mask, classes)
            path, beside = self._outputs.files_of(each.item)
            self._result.files.append(self._outputs.line(each.item))
            for file in filter(None, (path, beside)):
                make_folder(file.parent, below=self._outputs.out)
            arguments = (each.item, mask, path, beside, classes, pixel_range)
            self._writing.append(self._pool.submit(_write, *arguments))
        while len(self._writing) > self._ahead:
            self._writing.popleft().result()

    def finish(self) -> None:
        """Wait until all is written."""
        for each in self._writing:
            each.result()


def _loaded(
    model: Model, items: list[Item], how: Settings, pool: ThreadPoolExecutor, count: int
) -> Iterator[_Loaded | Problem]:
    """Images in order, decoded in threads at most ``count`` ahead."""
    waiting: deque = deque()
    for each in items:
        waiting.append(pool.submit(_load, model, each, how.manner))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(model: Model, item: Item, manner: Manner) -> _Loaded | Problem:
    def least(height: int, width: int) -> Size:
        return augment.least_size(model.target((height, width), manner), [None], (height, width))

    try:
        header, peculiar = model.header, set[str]()
        pixel_range = header.range_of_pixels
        picture = decode.load_image(item.image, pixel_range, peculiar, header.channels, least)
        seen = peculiarities.summed_up(peculiar)
        return _Loaded(item, model.prepared(picture, manner), decode.whole_size(picture), seen)
    except SegkeyError as error:
        return Problem(item.name, error.what.removeprefix(f"{item.image}: "))


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
