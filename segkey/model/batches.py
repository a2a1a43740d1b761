"""Splits as batches on a device: kept there if they fit, read ahead by threads if not."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.crypto.ciphers import signed, unsigned
from segkey.data.augment import random_crops
from segkey.errors import SegkeyError
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system import devices, distributed, out_of_memory

Batch = tuple[Tensor, Tensor | None]

SHUFFLE_BUFFER = 1 << 30  # bytes; one half is used while the other one is filled
_RUN = 8 << 20  # bytes of neighbours that stay together, so that disks read them in one go
_CHUNK = 64  # images that a thread reads at a time
_TYPES = {"uint8": torch.uint8, "uint16": torch.int16}


@dataclass(frozen=True)
class Order:
    """The order of an epoch's images.

    Attributes:
        indices: int64 (N,), of images.
        window_ends: int64, positions in ``indices`` where the windows end that are read as a
            whole; None if there are no windows.
    """

    indices: np.ndarray
    window_ends: np.ndarray | None = None

    def at(self, positions: np.ndarray) -> "Order":
        """The part at some ascending positions, with the same windows."""
        ends = self.window_ends
        if ends is not None:
            ends = np.searchsorted(positions, ends)
        return Order(self.indices[positions], ends)


@dataclass(frozen=True)
class TrainingBatch:
    """A batch of an epoch; under torchrun, this rank's slice of it.

    Attributes:
        images: uint8 or int16 (N, C, H, W).
        masks: uint8 (N, H, W).
        size: images in the whole batch, of all ranks.
    """

    images: Tensor
    masks: Tensor
    size: int


class BatchLoader:
    """A split as batches on a device.

    uint16 images travel as int16 (their values are below 1000), for which torch has every
    operation.

    Args:
        split: a `Split` or a `MemorySplit`.
        device: where batches are wanted.
        prepare: applied to images once, when they reach the device; for example a cipher's
            ``decrypt``.
        limit: only the first so many images.
        resident: keep all images on the device; by default, if they fit in its free memory.
        shuffle_buffer: bytes of the windows in which an epoch is shuffled; 0 for one
            permutation of the whole split.
        say: hears if the memory of the device runs out.

    Attributes:
        micro_batches: cuts its batches for scoring, so that they fit in the device's memory.
    """

    def __init__(
        self,
        split: Split | MemorySplit,
        device: torch.device,
        prepare: Callable[[Tensor], Tensor] | None = None,
        limit: int | None = None,
        resident: bool | None = None,
        shuffle_buffer: int = 0,
        say: Callable[[str], None] = devices.warn,
    ):
        self.split, self.device, self.prepare = split, device, prepare
        self.count = min(limit, len(split)) if limit else len(split)
        self.views, self.shuffle_buffer = split.header.views, shuffle_buffer
        self.micro_batches = out_of_memory.MicroBatches("batches are scored", say)
        if resident is None:
            resident = fits(split, device, self.count)
        self._resident = self._load_all() if resident else None

    def __len__(self) -> int:
        return self.count

    def epoch(
        self,
        generator: np.random.Generator,
        number: int,
        batch_size: int,
        crop_scale: float | None = None,
    ) -> Iterator[TrainingBatch]:
        """Every image once, in an order that ``generator`` decides.

        Under torchrun each rank gets its slice of every batch. If the last batch has fewer images
        than there are ranks, a rank without one gets the last image with a void mask.

        Args:
            generator: the same on all ranks.
            number: of the epoch; its view is ``number`` mod `views`.
            batch_size: images per batch, of all ranks.
            crop_scale: smallest area of random resized crops and flips; None for no augmentation.
        """
        order = self.shuffled(generator)
        crops = None if crop_scale is None else self._random_crops(generator, crop_scale)
        slices = distributed.my_slices(self.count, batch_size)
        spare = not len(slices[-1])
        if spare:
            slices[-1] = np.array([self.count - 1])
        mine = order.at(np.concatenate(slices))
        # Only the last slice may be smaller than the first one.
        batches = self.batches(len(slices[0]), mine.indices, number % self.views, mine.window_ends)
        for step, (images, masks) in enumerate(batches):
            if crops is not None:
                images, masks = crop_batch(images, masks, crops[slices[step]])
            if spare and step + 1 == len(slices):
                masks = torch.full_like(masks, self.split.header.ignore_index)
            yield TrainingBatch(images, masks, min(batch_size, self.count - step * batch_size))

    def _random_crops(self, generator: np.random.Generator, scale: float) -> Tensor:
        """A crop for each position of an epoch; float (N, 5), for `crop_batch`."""
        sizes = np.broadcast_to(self.split.size, (self.count, 2))
        return torch.from_numpy(random_crops(generator, sizes, (scale, 1.0))).to(self.device)

    def shuffled(self, generator: np.random.Generator) -> Order:
        """Every image once, in an order that ``generator`` decides.

        With a shuffle buffer, runs of neighbours are shuffled first, then the images in each
        window of many runs: files are read almost in sequence, and only a window needs to be in
        memory.
        """
        if not self.shuffle_buffer:
            return Order(generator.permutation(self.count))
        rows = max(1, self.shuffle_buffer // 2 // self.split.row_bytes)
        if rows >= self.count:
            return Order(generator.permutation(self.count), np.array([self.count]))
        run = max(1, min(_RUN // self.split.row_bytes, rows // 16))
        # Runs begin elsewhere in every epoch.
        runs = (np.arange(self.count) + generator.integers(run)) // run
        order = np.argsort(generator.permutation(runs[-1] + 1)[runs], kind="stable")
        ends = np.arange(rows, self.count + rows, rows).clip(max=self.count)
        for start, end in zip([0, *ends], ends, strict=False):
            generator.shuffle(order[start:end])
        return Order(order, ends)

    def batches(
        self,
        size: int,
        indices: np.ndarray | None = None,
        view: int = 0,
        window_ends: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """Images uint8 or int16 (N, C, H, W) and masks uint8 (N, H, W), or None without masks.

        Args:
            size: images per batch; the last one may have fewer.
            indices: of images; all in the order of the split by default.
            view: which view of each image.
            window_ends: positions in ``indices`` where windows end; each is read as a whole.
        """
        indices = np.arange(self.count) if indices is None else np.asarray(indices)
        if self._resident is not None:
            return self._slices(indices, size, view)
        if window_ends is not None:
            return self._stream_windows(Order(indices, window_ends), size, view)
        parts = [indices[start : start + size] for start in range(0, len(indices), size)]
        return self._stream(parts, view)

    def _slices(self, indices: np.ndarray, size: int, view: int) -> Iterator[Batch]:
        """Batches of what is on the device."""
        images, masks = self._resident
        rows = torch.from_numpy(indices + view * self.count).to(self.device)
        for start in range(0, len(rows), size):
            yield _take(images, masks, rows[start : start + size])

    def _load_all(self) -> Batch:
        """Every view of every image, view by view, on the device."""
        starts = range(0, self.count, _CHUNK)
        parts = [np.arange(start, min(start + _CHUNK, self.count)) for start in starts]
        rows, filled = self.count * self.views, 0
        whole: list[Tensor | None] = [None, None]
        for view in range(self.views):
            for batch in self._stream(parts, view):
                for kind, rows_of_kind in enumerate(batch):
                    if rows_of_kind is not None:
                        if whole[kind] is None:
                            whole[kind] = rows_of_kind.new_empty((rows, *rows_of_kind.shape[1:]))
                        whole[kind][filled : filled + len(rows_of_kind)] = rows_of_kind
                filled += len(batch[0])
        return tuple(whole)

    def _stream(self, parts: list[np.ndarray], view: int) -> Iterator[Batch]:
        """Read a few parts ahead in threads, and bring each to the device."""
        with ThreadPoolExecutor(2) as pool:
            waiting = deque(pool.submit(self._read, part, view) for part in parts[:4])
            for following in [*parts[4:], *[None] * len(waiting)]:
                images, masks = waiting.popleft().result()
                if following is not None:
                    waiting.append(pool.submit(self._read, following, view))
                yield self._to_device(images, masks)

    def _stream_windows(self, order: Order, size: int, view: int) -> Iterator[Batch]:
        """Take batches out of windows, each of which is read while the one before it is used."""
        windows = [part for part in np.split(order.indices, order.window_ends[:-1]) if len(part)]
        rest: list[Batch] = []  # too few images for a batch
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._read_window, windows[0], view)
            for following in [*windows[1:], None]:
                images, masks, places = coming.result()
                coming = (
                    None if following is None else ahead.submit(self._read_window, following, view)
                )
                while len(places) + sum(len(part) for part, _ in rest) >= size or (
                    len(places) and following is None
                ):
                    wanted = size - sum(len(part) for part, _ in rest)
                    rest.append(_take(images, masks, places[:wanted]))
                    places = places[wanted:]
                    yield self._to_device(*map(self._pinned, _joined(rest)))
                    rest = []
                rest += [_take(images, masks, places)] if len(places) else []

    def _read_window(self, rows: np.ndarray, view: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Images and masks in the order of the files, and the place of each of ``rows`` in them."""
        inwards = np.argsort(rows, kind="stable")
        shape = (len(rows), self.split.header.channels, *self.split.size)
        images, masks = torch.empty(shape, dtype=_TYPES[self.split.dtype]), None
        if self.split.has_masks:
            masks = torch.empty((len(rows), *self.split.size), dtype=torch.uint8)

        def read(start: int) -> None:
            """Fill a chunk from the files, in their order."""
            part = slice(start, start + _CHUNK)
            images[part], some = self._load(rows[inwards[part]], view)
            if masks is not None:
                masks[part] = some

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(read, range(0, len(rows), _CHUNK)))
        places = torch.empty(len(rows), dtype=torch.int64)
        places[torch.from_numpy(inwards)] = torch.arange(len(rows))
        return images, masks, places

    def _to_device(self, images: Tensor, masks: Tensor | None) -> Batch:
        images = images.to(self.device, non_blocking=True)
        if self.prepare:
            images = signed(self.prepare(unsigned(images)))
        return images, None if masks is None else masks.to(self.device, non_blocking=True)

    def _pinned(self, tensor: Tensor | None) -> Tensor | None:
        """In page-locked memory, from which a GPU copies without waiting."""
        return tensor.pin_memory() if tensor is not None and self.device.type == "cuda" else tensor

    def _check_classes(self, masks: np.ndarray) -> None:
        """Refuse a class beyond the header's: a hostile shard could write beyond the matrix."""
        header = self.split.header
        counts = np.bincount(masks.reshape(-1), minlength=256)
        counts[header.ignore_index] = 0
        if counts[len(header.classes) :].any():
            raise SegkeyError(
                f"split '{header.split}' holds class {np.flatnonzero(counts)[-1]}, but names "
                f"{len(header.classes)} classes",
                "make its shards again with 'segkey encrypt'",
            )

    def _read(self, indices: np.ndarray, view: int) -> Batch:
        images, masks = self._load(indices, view)
        return self._pinned(images), self._pinned(masks)

    def _load(self, indices: np.ndarray, view: int) -> Batch:
        images = self.split.read_batch("images", indices, view)
        if images.dtype != np.uint8:
            images = images.view(np.int16)
        masks = None
        if self.split.has_masks:
            masks = self.split.read_batch("masks", indices, view)
            self._check_classes(masks)
        return torch.from_numpy(images), None if masks is None else torch.from_numpy(masks)


def fits(split: Split | MemorySplit, device: torch.device, images: int | None = None) -> bool:
    """True if all views of a split, or of its first ``images``, fit in a device's free memory."""
    count = len(split) if images is None else images
    return count * split.header.views * split.row_bytes < devices.free_memory(device)


def _take(images: Tensor, masks: Tensor | None, places: Tensor) -> Batch:
    return images.index_select(0, places), None if masks is None else masks.index_select(0, places)


def _joined(parts: list[Batch]) -> Batch:
    """The parts of a batch as one."""
    if len(parts) == 1:
        return parts[0]
    images, masks = zip(*parts, strict=True)
    return torch.cat(images), None if masks[0] is None else torch.cat(masks)


def as_pixels(images: Tensor, max_value: int) -> Tensor:
    """What the network takes: float (N, C, H, W) in 0 … 1, channels last."""
    return signed(images).to(torch.float32, memory_format=torch.channels_last).div_(max_value)


def crop_batch(images: Tensor, masks: Tensor, crops: Tensor) -> Batch:
    """Random resized crop and flip of a whole batch on its device, back to the same size.

    Args:
        images: uint8 (N, C, H, W); resampled bilinearly.
        masks: uint8 (N, H, W); resampled to the nearest.
        crops: float (N, 5), from `segkey.data.augment.random_crops`.
    """
    left, top, right, bottom, flip = crops.to(images.device, torch.float32).unbind(1)
    zero = torch.zeros_like(left)
    across = (right - left) * (1 - 2 * flip)
    theta = torch.stack(
        [across, zero, left + right - 1, zero, bottom - top, top + bottom - 1], 1
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    how = {"padding_mode": "border", "align_corners": False}
    cropped = F.grid_sample(images.float(), grid, mode="bilinear", **how).round_().to(torch.uint8)
    classes = F.grid_sample(masks[:, None].float(), grid, mode="nearest", **how)[:, 0].to(
        torch.uint8
    )
    return cropped, classes
