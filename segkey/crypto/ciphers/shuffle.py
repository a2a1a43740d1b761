"""SHF: pixel shuffling, a secret permutation of the values within each block."""

import math

import numpy as np

from segkey.crypto.ciphers.base import Cipher, Images, band_height, each_band, look_up, register
from segkey.crypto.keys import KEY_BITS


def check_positions(positions: np.ndarray, block_size: int) -> tuple[np.ndarray, int]:
    """Check a permutation or selection given by hand; returns it as an array, and c."""
    positions = np.asarray(positions)
    channels, rest = divmod(positions.size, block_size**2) if block_size > 0 else (0, 0)
    if positions.ndim != 1 or rest or not channels:
        raise ValueError(f"{positions.size} positions do not make blocks of side {block_size}")
    return positions, channels


@register
class Shuffle(Cipher):
    """SHF: y[i] = x[P[i]] in every flattened block.

    Args:
        permutation: P, each of 0 … c·M·M − 1 once.
        block_size: M.
    """

    method = "shf"
    PARTS = ("permutation",)
    what = "The {n} values of every block of {c}×{m}×{m} are shuffled, by the key."

    def __init__(self, permutation: np.ndarray, block_size: int):
        permutation, channels = check_positions(permutation, block_size)
        if not np.array_equal(np.sort(permutation), np.arange(permutation.size)):
            raise ValueError("not a permutation: each position must occur once")
        super().__init__(block_size, channels)
        self.permutation = permutation.astype(np.int64)

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        """The cipher that ``key`` means; the password is ignored."""
        return cls(key.permutation(cls.method, block_size, channels), block_size)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """(c·M·M)! permutations."""
        return min(math.lgamma(channels * block_size**2 + 1) / math.log(2), KEY_BITS)

    def encrypt_images(self, images: Images) -> Images:
        """uint8 (..., c, H, W) to uint8, each block permuted."""
        return self._gathered(images, "to", self.permutation)

    def decrypt_images(self, images: Images) -> Images:
        """uint8 (..., c, H, W) to uint8, each block permuted back."""
        return self._gathered(images, "back", np.argsort(self.permutation))

    def _gathered(self, images: Images, name: str, permutation: np.ndarray) -> Images:
        """Every block permuted; ``name`` is that of the table."""
        if not isinstance(images, np.ndarray):
            sources = self.cached(images, name, lambda h, w: self._sources(permutation, h, w))
            return images.reshape(-1, sources.numel()).index_select(1, sources).view(images.shape)
        height, width = images.shape[-2:]
        rows = band_height(height, width, self.channels, self.block_size)
        sources = self.cached(images, name, lambda h, w: self._sources(permutation, rows, w))
        sources = sources.reshape(self.channels, rows, width)
        out = np.empty(images.shape, images.dtype)
        for band, result in each_band(images, out, rows):
            look_up(band.reshape(-1), sources, result)
        return out

    def _sources(self, permutation: np.ndarray, height: int, width: int) -> np.ndarray:
        """int64 (c·H·W,): for every value of a flattened image, the index it is taken from."""
        m = self.block_size
        channel, rest = np.divmod(permutation, m * m)
        row, column = np.divmod(rest, m)
        within = self.tiled(channel * height * width + row * width + column, height, width)
        top, left = (np.arange(0, side, m).repeat(m) for side in (height, width))
        return (within + top[:, None] * width + left).reshape(-1)
