"""Images larger than the network's own size: windows, their blended logits, and mirrored copies.

An image is resized by a scale, padded to what the network and the block size need by repeating its
last pixels, and cut into overlapping windows on the grid of blocks. Each window is encrypted on its
own. Where windows overlap, their logits are averaged with weights that fall towards each window's
border, as a network knows least there. Logits are held for one row of windows at a time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from segkey.errors import SegkeyError

Size = tuple[int, int]
Scores = Callable[[np.ndarray], np.ndarray]  # uint8 (N, C, h, w) to float32 (N, classes, h, w)
DEFAULT_OVERLAP = 64


@dataclass(frozen=True)
class Manner:
    """How images are brought to the network.

    Attributes:
        tile: (H, W) of windows, multiples of M; None for the whole image at once.
        overlap: of neighbouring windows at least, in pixels; `DEFAULT_OVERLAP`, or a quarter of a
            smaller tile, if not given.
        scale: of the image before it is cut, 1 for its own size; None squeezes it to the size of
            training, unless there is a tile: then it is 1.
        flip: average with what the mirrored image gives.
    """

    tile: Size | None = None
    overlap: int | None = None
    scale: float | None = None
    flip: bool = False

    @property
    def squeezes(self) -> bool:
        """Whether images are resized to the network's own size."""
        return self.tile is None and self.scale is None

    def scaled(self, size: Size) -> Size:
        """The size in which an image is cut into windows."""
        height, width = (max(1, round(side * (self.scale or 1))) for side in size)
        return height, width


SQUEEZED = Manner()


def check(manner: Manner, multiple: int, block_size: int, fixed: Size | None) -> Manner:
    """A manner with all its values, fit for a network.

    Args:
        manner: as it was asked for.
        multiple: what sides must be multiples of.
        block_size: M, which ``multiple`` is a multiple of.
        fixed: the only size that the network takes; None if it takes others.

    Raises:
        SegkeyError: a tile that is no multiple, or smaller than a block; an overlap that leaves no
            step; a scale that is no positive number; or another size than the only one.
    """
    if manner.scale is not None and not 0 < manner.scale <= 64:
        raise SegkeyError(f"a scale of {manner.scale:g} is not possible", "give 1, 0.5 or so")
    if manner.tile is None:
        if manner.overlap is not None:
            raise SegkeyError("an overlap belongs to tiles", "give --tile, too")
        if fixed and not manner.squeezes:
            raise _only(fixed)
        return manner
    for side in manner.tile:
        if side < 1 or side % multiple:
            raise _no_tile(side, multiple, block_size)
    if fixed and manner.tile != fixed:
        raise _only(fixed)
    least = min(manner.tile)
    overlap = min(DEFAULT_OVERLAP, least // 4) if manner.overlap is None else manner.overlap
    if not 0 <= overlap <= least - block_size:
        raise SegkeyError(
            f"tiles of {least} cannot overlap by {overlap}",
            f"give an --overlap of 0 to {least - block_size}",
        )
    return Manner(manner.tile, overlap, manner.scale, manner.flip)


def _no_tile(side: int, multiple: int, block_size: int) -> SegkeyError:
    near = sorted({max(1, side // multiple) * multiple, -(-side // multiple) * multiple} - {0})
    sizes = " or ".join(map(str, near))
    if side < block_size:
        return SegkeyError(
            f"a tile of {side} is smaller than a block of {block_size}", f"give --tile {sizes}"
        )
    why = "the block size" if multiple == block_size else "what the network and its blocks need"
    return SegkeyError(
        f"a tile of {side} is not a multiple of {multiple}, {why}", f"give --tile {sizes}"
    )


def _only(fixed: Size) -> SegkeyError:
    only = f"{fixed[0]}x{fixed[1]}"
    return SegkeyError(
        f"this network takes images of {only} only", f"give --tile {only}, or leave --scale out"
    )


def bands(
    image: np.ndarray,
    manner: Manner,
    multiple: int,
    block_size: int,
    fixed: Size | None,
    scores: Scores,
    batch_size: int = 32,
) -> Iterator[np.ndarray]:
    """The logits of an image, row of windows by row of windows.

    Args:
        image: uint8 (C, h, w), already scaled.
        manner: from `check`.
        multiple, block_size, fixed: as for `check`.
        scores: the network: uint8 (N, C, H, W) to float32 (N, classes, H, W).
        batch_size: windows per batch.

    Yields:
        float32 (classes, some rows, w), from the top down, ``h`` rows in all.
    """
    height, width = image.shape[1:]
    padded = _padded(image, multiple, fixed)
    if manner.tile is None:
        yield scores(padded[None])[0][:, :height, :width]
        return
    sizes = padded.shape[1:]
    tile = tuple(min(side, most) for side, most in zip(manner.tile, sizes, strict=True))
    tops, lefts = (
        _places(side, window, manner.overlap, block_size)
        for side, window in zip(sizes, tile, strict=True)
    )
    rows = _rows_of_windows(padded, tile, tops, lefts, manner.overlap, scores, batch_size)
    left = height
    for band in rows:
        if left > 0:
            yield band[:, :left, :width]
        left -= band.shape[1]


def _padded(image: np.ndarray, multiple: int, fixed: Size | None) -> np.ndarray:
    """An image with its last rows and columns repeated, to sides that the network takes."""
    more = []
    for side, least in zip(image.shape[1:], fixed or (multiple, multiple), strict=True):
        more.append(max(-(-side // multiple) * multiple, least) - side)
    return np.pad(image, ((0, 0), (0, more[0]), (0, more[1])), mode="edge")


def _places(side: int, window: int, overlap: int, block_size: int) -> list[int]:
    """Where windows begin along a side: on the grid of blocks, the last one at the end."""
    step = max(block_size, (window - overlap) // block_size * block_size)
    return [*range(0, side - window, step), side - window]


def _rows_of_windows(
    image: np.ndarray,
    tile: Size,
    tops: Sequence[int],
    lefts: Sequence[int],
    overlap: int,
    scores: Scores,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Finished rows of blended logits: those that no later window reaches."""
    height, width = tile
    down, across = _weights(height, overlap), _weights(width, overlap)
    total, sums, top = None, np.zeros(height, np.float32), 0
    across_all = np.zeros(image.shape[2], np.float32)
    for left in lefts:
        across_all[left : left + width] += across
    for number, top in enumerate(tops):
        for start in range(0, len(lefts), batch_size):
            some = lefts[start : start + batch_size]
            windows = [image[:, top : top + height, left : left + width] for left in some]
            for left, made in zip(some, scores(np.stack(windows)), strict=True):
                if total is None:
                    total = np.zeros((len(made), height, image.shape[2]), np.float32)
                total[:, :, left : left + width] += made * down[:, None] * across
        sums += down
        after = tops[number + 1] if number + 1 < len(tops) else top + height
        ready = after - top
        yield total[:, :ready] / (sums[:ready, None] * across_all)
        total[:, : height - ready] = total[:, ready:].copy()
        total[:, height - ready :] = 0
        sums = np.concatenate([sums[ready:], np.zeros(ready, np.float32)])


def _weights(side: int, overlap: int) -> np.ndarray:
    """float32 (side,): 1 inside, falling to the borders over the overlap; never 0."""
    place = np.arange(1, side + 1, dtype=np.float32)
    nearest = np.minimum(place, place[::-1])
    return np.minimum(nearest / (overlap + 1), 1)


def needed_multiple(block_size: int, network: int) -> int:
    """What sides must be multiples of: of blocks, and of what the network asks for."""
    return math.lcm(block_size, network)
