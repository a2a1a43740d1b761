"""NP: the negative of half of the positions of a block; and the selection of half of them, which
FFX shares."""

import math

import numpy as np

from segkey.crypto.ciphers.base import Cipher, Images, register
from segkey.crypto.ciphers.shuffle import check_positions
from segkey.crypto.keys import KEY_BITS, Key


def check_selection(selected: np.ndarray, block_size: int) -> tuple[np.ndarray, int]:
    """Check a selection given by hand, as `_positions`; refuses indices, which would silently
    select nearly all."""
    selected, channels = check_positions(selected, block_size)
    if selected.dtype != bool and not np.isin(selected, (0, 1)).all():
        raise ValueError("a selection is bool, one value a position of the block")
    return selected.astype(bool), channels


def selections(block_size: int, channels: int = 3) -> int:
    """In how many ways NP and FFX can choose half of the positions of a block."""
    n = channels * block_size**2
    return math.comb(n, n // 2)


def selection_bits(block_size: int, channels: int) -> float:
    """log2 of `selections`, at most 256; their number itself would have thousands of digits."""
    n = channels * block_size**2
    return min(
        (math.lgamma(n + 1) - math.lgamma(n // 2 + 1) - math.lgamma(n - n // 2 + 1)) / math.log(2),
        KEY_BITS,
    )


def chosen(key: Key, method: str, block_size: int, channels: int) -> np.ndarray:
    """The half of the positions that the key chooses, as bool (c·M·M,): the first n//2 of its
    permutation."""
    permutation = key.permutation(method, block_size, channels)
    selected = np.zeros(permutation.size, dtype=bool)
    selected[permutation[: permutation.size // 2]] = True
    return selected


@register
class NegativePositive(Cipher):
    """NP: x becomes 255 − x at the selected positions of every flattened block; its own inverse.

    Args:
        selected: bool of shape (c·M·M,).
        block_size: M.
    """

    method = "np"
    PARTS = ("selected",)
    what = "Half of the {n} values of every block of {c}×{m}×{m}, chosen by the key, are turned into their negatives."

    def __init__(self, selected: np.ndarray, block_size: int):
        selected, channels = check_selection(selected, block_size)
        super().__init__(block_size, channels)
        self.selected = selected

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        return cls(chosen(key, cls.method, block_size, channels), block_size)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """C(c·M·M, half of them) selections."""
        return selection_bits(block_size, channels)

    def _encrypt(self, images: Images) -> Images:
        # 255 - x is x with all its bits turned over: one XOR with a plane of 0 and 255.
        flips = self._table(
            images, "flips", lambda h, w: self._plane(self.selected * np.uint8(255), h, w)
        )
        return images ^ flips

    _decrypt = _encrypt
