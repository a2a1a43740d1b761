"""The ciphers as ``nn.Module``: tensors in, tensors out, on the CPU and on the GPU.

An instance fits a torchvision v2 ``Compose``: calling it encrypts. The arithmetic is in
`segkey.ciphers`; here is only what torch needs.

    >>> import torch
    >>> from segkey.crypto.keys import Key
    >>> from segkey import transforms
    >>> shuffle = transforms.from_key("shf", Key(bytes(32)), block_size=4)
    >>> images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    >>> torch.equal(shuffle.decrypt(shuffle(images)), images)
    True
"""

import numpy as np
from torch import Tensor, nn

from segkey.crypto import ciphers
from segkey.crypto.keys import Key


class BlockTransform(nn.Module):
    """A cipher as a module without parameters; ``forward`` is `encrypt`.

    Args:
        cipher: any `segkey.ciphers.Cipher`.
    """

    def __init__(self, cipher: ciphers.Cipher):
        super().__init__()
        self.cipher = cipher

    def encrypt(self, images: Tensor) -> Tensor:
        """uint8 (..., c, H, W) to uint8, or uint16 for FFX, on the same device; not in place."""
        return self.cipher.encrypt(images)

    def decrypt(self, images: Tensor) -> Tensor:
        """The exact inverse of `encrypt`."""
        return self.cipher.decrypt(images)

    def forward(self, images: Tensor, *others: object) -> Tensor | tuple:
        """Encrypt images; other inputs of a Compose, such as a mask, are returned unchanged."""
        encrypted = self.encrypt(images)
        return (encrypted, *others) if others else encrypted

    @property
    def max_value(self) -> int:
        """What a loader divides by: 255, or the largest entry of FFX's table."""
        return self.cipher.max_value

    @property
    def key_space_bits(self) -> float:
        """log2 of the number of different transformations, at most 256."""
        return self.cipher.key_space_bits

    def extra_repr(self) -> str:
        """The cipher, for ``repr`` of the module; shows no secret."""
        return repr(self.cipher)


class Shuffle(BlockTransform):
    """SHF from an explicit permutation, int (c·M·M,); see `segkey.ciphers.Shuffle`."""

    def __init__(self, permutation: np.ndarray | Tensor, block_size: int):
        super().__init__(ciphers.Shuffle(_on_cpu(permutation), block_size))


class NegativePositive(BlockTransform):
    """NP from an explicit selection, bool (c·M·M,); see `segkey.ciphers.NegativePositive`."""

    def __init__(self, selected: np.ndarray | Tensor, block_size: int):
        super().__init__(ciphers.NegativePositive(_on_cpu(selected), block_size))


class FFX(BlockTransform):
    """FFX from an explicit selection, bool (c·M·M,), and a password; see `segkey.ciphers.FFX`."""

    def __init__(self, selected: np.ndarray | Tensor, block_size: int, password: bytes):
        super().__init__(ciphers.FFX(_on_cpu(selected), block_size, password))


def _on_cpu(positions: np.ndarray | Tensor) -> np.ndarray:
    return positions.cpu().numpy() if isinstance(positions, Tensor) else np.asarray(positions)


def from_key(
    method: str, key: Key | None, block_size: int, channels: int = 3, password: bytes | None = None
) -> BlockTransform:
    """The transform that ``key`` means; arguments as `segkey.ciphers.from_key`."""
    return BlockTransform(ciphers.from_key(method, key, block_size, channels, password))
