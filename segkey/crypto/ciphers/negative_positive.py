"""NP: the negative of half of the positions of a block; FFX selects positions in the same way."""

import math

import numpy as np

from segkey.crypto.ciphers.base import Cipher, Images, register
from segkey.crypto.ciphers.shuffle import check_positions
from segkey.crypto.keys import KEY_BITS, Key


def check_selection(selected: np.ndarray, block_size: int) -> tuple[np.ndarray, int]:
    """`check_positions` of a selection; refuses indices, which would select nearly all."""
    selected, channels = check_positions(selected, block_size)
    if selected.dtype != bool and not np.isin(selected, (0, 1)).all():
        raise ValueError("a selection is bool, one value per position of the block")
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
    """bool (c·M·M,): the half of the positions that comes first in the key's permutation."""
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
    what = (
        "Half of the {n} values of every block of {c}×{m}×{m}, chosen by the key, are turned into "
        "their negatives."
    )

    def __init__(self, selected: np.ndarray, block_size: int):
        selected, channels = check_selection(selected, block_size)
        super().__init__(block_size, channels)
        self.selected = selected

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        """The cipher that ``key`` means; the password is ignored."""
        return cls(chosen(key, cls.method, block_size, channels), block_size)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """C(c·M·M, half of them) selections."""
        return selection_bits(block_size, channels)

    def encrypt_images(self, images: Images) -> Images:
        """uint8 (..., c, H, W) to uint8; encrypting twice gives the original."""
        # 255 - x is x with all its bits inverted: one XOR with a plane of 0 and 255.
        positions = self.selected * np.uint8(255)
        return images ^ self.cached(images, "flips", lambda h, w: self.tiled(positions, h, w))

    decrypt_images = encrypt_images
