"""FFX: format-preserving Feistel encryption of half of the positions of a block."""

import hashlib

import numpy as np

from segkey.crypto.ciphers.base import (
    Cipher,
    Images,
    band_height,
    each_band,
    look_up,
    register,
    signed,
    unsigned,
)
from segkey.crypto.ciphers.negative_positive import check_selection, chosen, selection_bits
from segkey.crypto.keys import KEY_BITS, Key
from segkey.errors import SegkeyError


@register
class FFX(Cipher):
    """FFX: encryption of three digits, 0 … 255 to 0 … 999, at the selected positions.

    pyffx is asked once for each of the 256 values; an image is then one look-up in a table whose
    first half leaves values as they are and whose second half encrypts them. Integers throughout:
    through float32 the round trip loses values.

    Args:
        selected: bool of shape (c·M·M,).
        block_size: M.
        password: bytes.
        fixed: the password was fixed by the user and is the same for every key.
    """

    method = "ffx"
    PARTS = ("selected", "values")
    what = (
        "Half of the {n} values of every block of {c}×{m}×{m}, chosen by the key, are encrypted "
        "with format-preserving Feistel encryption."
    )
    has_password = True
    dtype = "uint16"

    def __init__(self, selected: np.ndarray, block_size: int, password: bytes, fixed: bool = True):
        import pyffx

        selected, channels = check_selection(selected, block_size)
        super().__init__(block_size, channels)
        self.selected = selected
        password = password.encode() if isinstance(password, str) else password
        digits = pyffx.Integer(password, length=3)
        self.values = np.array([digits.encrypt(value) for value in range(256)], dtype=np.uint16)
        self.max_value = int(self.values.max())
        if fixed:
            self.password_hash = hash_password(password)

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        """The cipher that ``key`` means; the password is derived from the key, if not given."""
        selected = chosen(key, cls.method, block_size, channels)
        if password is None:
            return cls(selected, block_size, key.ffx_password(), fixed=False)
        return cls(selected, block_size, password)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """As NP's if the password is fixed; else the whole key, or 0 if nothing is selected."""
        bits = selection_bits(block_size, channels)
        return KEY_BITS if bits and not fixed_password else bits

    def encrypt_images(self, images: Images) -> Images:
        """uint8 (..., c, H, W) to uint16, 0 … 999."""
        table = self.cached(
            images,
            "encrypted",
            lambda h, w: np.concatenate([np.arange(256), self.values], dtype="i2"),
        )
        if not isinstance(images, np.ndarray):
            return unsigned(_look_up(table, images, self._halves(images, 256)))
        halves, out = self._halves(images, 256), np.empty(images.shape, np.uint16)
        for band, result in each_band(images, out.view(np.int16), halves.shape[1]):
            look_up(table, band.astype(np.int16) | halves, result)
        return out

    def decrypt_images(self, images: Images) -> Images:
        """uint16 (..., c, H, W) to uint8; raises if a value cannot come from this key."""
        table = self.cached(images, "decrypted", lambda h, w: self._inverse())
        if isinstance(images, np.ndarray):
            halves, out = self._halves(images, 1024), np.empty(images.shape, np.uint8)
            for band, result in each_band(images, out, halves.shape[1]):
                found = np.take(table, band.view(np.int16) | halves, mode="clip")
                if band.max(initial=0) > 999 or found.min(initial=0) < 0:
                    raise _IMPOSSIBLE
                result[...] = found
            return out
        values = signed(images)
        # Checked before the look-up: an index beyond the table would break a GPU's context.
        if images.numel() and (int(values.min()) < 0 or int(values.max()) > 999):
            raise _IMPOSSIBLE
        found = _look_up(table, images, self._halves(images, 1024))
        if images.numel() and int(found.min()) < 0:
            raise _IMPOSSIBLE
        return found.byte()

    def rekeyed(self, key: Key) -> "FFX":
        """The cipher that another key means; a fixed password stays."""
        if not self.password_hash:
            return super().rekeyed(key)
        # Asking pyffx and hashing the password again takes 60 ms per key and gives the same table.
        selected = chosen(key, self.method, self.block_size, self.channels)
        other = self.with_parts(selected=selected)
        other.key_id = key.id
        return other

    def _halves(self, images: Images, offset: int) -> Images:
        """int16 (c, H, W): ``offset`` at selected positions, for the second half of a table.

        For arrays, that of a band of `each_band`.
        """
        height, width = images.shape[-2:]
        if isinstance(images, np.ndarray):
            height = band_height(height, width, self.channels, self.block_size)
        return self.cached(
            images,
            f"half{offset}",
            lambda h, w: self.tiled(self.selected * np.int16(offset), height, width),
        )

    def _inverse(self) -> np.ndarray:
        """int16 (2048,): a half for positions that stay, one for selected ones; -1: impossible."""
        inverse = np.full(2048, -1, dtype=np.int16)
        inverse[:256] = np.arange(256)
        inverse[1024 + self.values.astype(np.int64)] = np.arange(256)
        return inverse


def hash_password(password: bytes) -> str:
    """A public name for a fixed FFX password: 16 hex digits of scrypt, the same in all shards.

    It stands in every shard and run, and its salt is a constant, as equal passwords must have equal
    names: an attacker with such a file can test guesses, and one list of guesses serves for all
    files. So it hides a long random password only.
    """
    return hashlib.scrypt(password, salt=b"segkey-ffx-v1", n=2**14, r=8, p=1, dklen=8).hex()


_IMPOSSIBLE = SegkeyError(
    "these images hold values that this key cannot have made",
    "give the key (and the FFX password) they were encrypted with",
)


def _look_up(table: Images, images: Images, halves: Images) -> Images:
    """table[image + halves] for tensors, int16."""
    places = signed(images).int() + halves
    return table.index_select(0, places.reshape(-1)).reshape(images.shape)
