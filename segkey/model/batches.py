"""Splits as batches on a device: kept there whole where they fit, read ahead by threads where
not."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.crypto.ciphers import signed, unsigned
from segkey.errors import SegkeyError
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system import devices

Batch = tuple[Tensor, Tensor | None]


_WINDOW = (
    1 << 30
    # bytes of a split that is shuffled while it is read; one half is used while the other one is
    # filled
)


_RUN = (
    8 << 20
)  # bytes of neighbours that stay together up to there, so that disks read them in one go


_CHUNK = 64  # images a thread reads at a time


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
        resident: keep all on the device; decided by its free memory, if not given.
        window: bytes that are kept of a split that is not.

    Attributes:
        windowed: whether `shuffled` moves images no further than within a window.
        pieces: how its batches are cut for scoring, so that they fit in the device's memory.
    """

    def __init__(
        self,
        split: Split | MemorySplit,
        device: torch.device,
        prepare: Callable[[Tensor], Tensor] | None = None,
        limit: int | None = None,
        resident: bool | None = None,
        window: int = _WINDOW,
    ):
        self.split, self.device, self.prepare = split, device, prepare
        self.pieces = devices.MicroBatches("batches are scored")
        self.count = min(limit, len(split)) if limit else len(split)
        self.views = split.header.views
        if resident is None:
            resident = self.count * self.views * split.row_bytes < devices.free_memory(device)
        self._resident = self._load_all() if resident else None
        self.windowed, self.window = not resident, window

    def __len__(self) -> int:
        return self.count

    def shuffled(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Every image once, in an order that ``generator`` decides, and where its windows end, for
        `batches`.

        Data that stay on disk are shuffled by runs of neighbours, and then within windows of many
            runs: so they are
        read almost in sequence, and only a window needs to be in memory.
        """
        if not self.windowed:
            return generator.permutation(self.count), None
        rows = max(1, self.window // 2 // self.split.row_bytes)
        if rows >= self.count:
            return generator.permutation(self.count), np.array([self.count])
        run = max(1, min(_RUN // self.split.row_bytes, rows // 16))
        runs = (
            np.arange(self.count) + generator.integers(run)
        ) // run  # they begin elsewhere in every epoch
        order = np.argsort(generator.permutation(runs[-1] + 1)[runs], kind="stable")
        ends = np.arange(rows, self.count + rows, rows).clip(max=self.count)
        for start, end in zip([0, *ends], ends, strict=False):
            generator.shuffle(order[start:end])
        return order, ends

    def batches(
        self,
        size: int,
        order: np.ndarray | None = None,
        view: int = 0,
        ends: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """Batches of at most ``size`` images: uint8 or int16 (N, C, H, W), and masks uint8 (N, H,
        W).

        Args:
            size: images a batch.
            order: indices of images; all in their own order, if not given.
            view: which copy of each.
            ends: where windows of ``order`` end, each of which is read as a whole.
        """
        order = np.arange(self.count) if order is None else order
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        if self._resident is None and ends is not None:
            yield from self._stream_windows(order, ends, size, view)
            return
        if self._resident is None:
            yield from self._stream(parts, view)
            return
        images, masks = self._resident
        where = torch.from_numpy(np.asarray(order) + view * self.count).to(self.device)
        for start in range(0, len(order), size):
            rows = where[start : start + size]
            yield (
                images.index_select(0, rows),
                None if masks is None else masks.index_select(0, rows),
            )

    def _load_all(self) -> Batch:
        """Every view of every image, view by view, on the device."""
        parts = [
            np.arange(start, min(start + 64, self.count)) for start in range(0, self.count, 64)
        ]
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

    def _stream_windows(
        self, order: np.ndarray, ends: np.ndarray, size: int, view: int
    ) -> Iterator[Batch]:
        """Take batches out of windows, each of which is read while the one before it is used."""
        windows = [part for part in np.split(order, ends[:-1]) if len(part)]
        rest: list[Batch] = []  # what was too little for a batch
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
        """Images and masks in the order of the files, and the place of each of ``rows`` among
        them."""
        inwards = np.argsort(rows, kind="stable")
        images = torch.empty(
            (len(rows), self.split.header.channels, *self.split.size),
            dtype=_TYPES[self.split.dtype],
        )
        masks = (
            torch.empty((len(rows), *self.split.size), dtype=torch.uint8)
            if self.split.has_masks
            else None
        )

        def read(start: int) -> None:
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
        """Where a GPU fetches it without waiting."""
        return tensor.pin_memory() if tensor is not None and self.device.type == "cuda" else tensor

    def _check_classes(self, masks: np.ndarray) -> None:
        """A shard may come from anybody: a class beyond the classes would be counted beyond the
        matrix."""
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


_TYPES = {"uint8": torch.uint8, "uint16": torch.int16}


def _take(images: Tensor, masks: Tensor | None, places: Tensor) -> Batch:
    return images.index_select(0, places), None if masks is None else masks.index_select(0, places)


def _joined(parts: list[Batch]) -> Batch:
    """Some parts of a batch as one."""
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
