"""Scores brought to an image's own size, a band of rows at a time, on NumPy arrays.

A band, as 21 classes of a 12-megapixel photograph would take a gigabyte at once.
"""

from collections.abc import Iterable

import numpy as np

BAND = 1 << 24  # logits enlarged at a time: 64 MB, whatever the size of the photograph


def classes_at(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The likeliest class of each pixel after resizing to another size.

    Logits are resized, bilinearly as the network itself enlarges them from an eighth of its input,
    and not the finished classes: enlarged to the nearest, those would show every pixel of the
    network's input as a stair.

    Args:
        logits: float32 (classes, h, w).
        size: (H, W).

    Returns:
        uint8 (H, W).
    """
    return classes_of_bands([logits], logits.shape[1], size)


def classes_of_bands(bands: Iterable[np.ndarray], h: int, size: tuple[int, int]) -> np.ndarray:
    """`classes_at` of logits that come in bands of rows, of which one is held at a time.

    Args:
        bands: float32 (classes, some rows, w) each, from the top down; ``h`` rows in all.
        h: the height of all bands together.
        size: (H, W) of the result.

    Returns:
        uint8 (H, W).
    """
    height, width = size
    out = np.empty(size, np.uint8)
    y = np.clip((np.arange(height) + 0.5) * (h / height) - 0.5, 0, h - 1)  # where centres fall
    above = y.astype(np.int64)
    below = np.minimum(above + 1, h - 1)
    done, top, last = 0, 0, None
    for band in bands:
        held, first = (band, top) if last is None else (np.concatenate([last, band], 1), top - 1)
        top += band.shape[1]
        end = int(np.searchsorted(below, top))  # rows whose both neighbours are there
        step = max(1, BAND // (len(band) * width))
        for start in range(done, end, step):
            rows = slice(start, min(start + step, end))
            ends = held[:, above[rows] - first], held[:, below[rows] - first]
            between = _lerp(*ends, (y - above)[rows, None])
            out[rows] = likeliest(_across(between, width))
        done, last = end, band[:, -1:]
    return out


def enlarged(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Logits resized at once, bilinearly: float32 (classes, h, w) to (classes, H, W)."""
    return _across(_across(logits.swapaxes(1, 2), size[0]).swapaxes(1, 2), size[1])


def likeliest(logits: np.ndarray) -> np.ndarray:
    """argmax over the first dimension, uint8; a few times as fast as NumPy's."""
    most, found = logits[0].copy(), np.zeros(logits.shape[1:], np.uint8)
    for number, scores in enumerate(logits[1:], 1):
        better = scores > most
        found[better] = number
        np.copyto(most, scores, where=better)
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the first dimension, float32."""
    powers = np.exp(logits - logits.max(0, keepdims=True))
    return powers / powers.sum(0, keepdims=True)


def _across(logits: np.ndarray, width: int) -> np.ndarray:
    """The last dimension resized, as `torch.nn.functional.interpolate` does it."""
    w = logits.shape[-1]
    if w == width:
        return logits
    x = np.clip((np.arange(width) + 0.5) * (w / width) - 0.5, 0, w - 1)
    left = x.astype(np.int64)
    right = np.minimum(left + 1, w - 1)
    return _lerp(logits[..., left], logits[..., right], x - left)


def _lerp(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    return start + (end - start) * share.astype(np.float32)
