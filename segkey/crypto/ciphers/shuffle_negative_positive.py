"""SHF+NP: pixel shuffling, then the negative of half of the positions, each with its own secret."""

import math

import numpy as np

from segkey.crypto.ciphers.base import Cipher, Images, register
from segkey.crypto.ciphers.negative_positive import (
    NegativePositive,
    check_selection,
    chosen,
    selection_bits,
)
from segkey.crypto.ciphers.shuffle import Shuffle
from segkey.crypto.keys import KEY_BITS


@register
class ShuffleNegativePositive(Cipher):
    """SHF+NP: y[i] = x[P[i]], and 255 − x[P[i]] at selected i, in every flattened block.

    Both parts are derived under labels of this method, so that a key's models of SHF or of NP tell
    nothing about them.

    Args:
        permutation: P, each of 0 … c·M·M − 1 once.
        selected: bool (c·M·M,), of encrypted positions.
        block_size: M.
    """

    method = "shf+np"
    PARTS = ("permutation", "selected")
    what = (
        "The {n} values of every block of {c}×{m}×{m} are shuffled, and half of them are then "
        "turned into their negatives, by the key."
    )

    def __init__(self, permutation: np.ndarray, selected: np.ndarray, block_size: int):
        shuffle = Shuffle(permutation, block_size)
        selected, channels = check_selection(selected, block_size)
        if channels != shuffle.channels:
            raise ValueError(
                f"a permutation of {shuffle.permutation.size} positions and a selection of "
                f"{selected.size} do not belong together"
            )
        super().__init__(block_size, channels)
        self.permutation, self.selected = shuffle.permutation, selected

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        """The cipher that ``key`` means; the password is ignored."""
        permutation = key.permutation(cls.method, block_size, channels)
        return cls(permutation, chosen(key, f"{cls.method}/np", block_size, channels), block_size)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """(c·M·M)! permutations, each with C(c·M·M, half of them) selections."""
        shuffles = math.lgamma(channels * block_size**2 + 1) / math.log(2)
        return min(shuffles + selection_bits(block_size, channels), KEY_BITS)

    def encrypt_images(self, images: Images) -> Images:
        """uint8 (..., c, H, W) to uint8, each block permuted, then half of it inverted."""
        return self._flipped(Shuffle.encrypt_images(self, images))

    def decrypt_images(self, images: Images) -> Images:
        """uint8 (..., c, H, W) to uint8, the inverse."""
        return Shuffle.decrypt_images(self, self._flipped(images))

    _gathered, _sources = Shuffle._gathered, Shuffle._sources
    _flipped = NegativePositive.encrypt_images
