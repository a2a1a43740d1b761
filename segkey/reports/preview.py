"""Previews of an image under each method and block size, as in the paper's Figure 4."""

import hashlib
from collections.abc import Sequence

import numpy as np

from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError

BLOCK_SIZES = (2, 4, 8, 16, 256)  # those of the paper's Figure 4


def throwaway_key(number: int = 0) -> Key:
    """A public key for images to publish: with the owner's, they would give that key away.

    It must not depend on the owner's key, not even by avoiding it: of 924 keys (NP at M = 2), an
    image that avoids the owner's would tell which one that is.
    """
    return Key(hashlib.shake_256(f"segkey-sample-key/{number}".encode()).digest(32))


def default_block_sizes(height: int, width: int, wanted: Sequence[int] = BLOCK_SIZES) -> list[int]:
    """Those of the ``wanted`` block sizes that divide both sides.

    Raises:
        SegkeyError: none does.
    """
    fitting = [m for m in wanted if height % m == width % m == 0]
    if not fitting:
        raise SegkeyError(
            f"none of the block sizes {', '.join(map(str, wanted))} divides {height}x{width}",
            "give others with -M, or another --size",
        )
    return fitting


def encrypted_pictures(
    picture: np.ndarray,
    key: Key,
    methods: Sequence[str],
    block_sizes: Sequence[int],
    password: bytes | None = None,
) -> dict[str, list[np.ndarray]]:
    """An image under some methods, one per block size.

    Args:
        picture: uint8 (3, H, W), H and W multiples of every block size.
        block_sizes: M, for each method.
        password: fixes FFX's password; derived from the key, if not given. An image gives it away,
            too.

    Returns:
        For each method, uint8 (3, H, W) for each block size; FFX's values divided by their largest,
        as a network sees them.

    Raises:
        SegkeyError: an unknown method, or a block size that does not divide the image.
    """
    return {
        method: [
            as_seen(
                ciphers.from_key(
                    method, key, m, password=password if ciphers.has_password(method) else None
                ),
                picture,
            )
            for m in block_sizes
        ]
        for method in methods
    }


def as_seen(cipher: ciphers.Cipher, picture: np.ndarray) -> np.ndarray:
    """An encrypted image, uint8 (3, H, W), scaled back to 0 … 255, as a network sees it."""
    ciphers.check_size(*picture.shape[-2:], cipher.block_size)
    return np.rint(cipher.encrypt(picture) * (255 / cipher.max_value)).astype(np.uint8)
