"""The public name of `segkey.crypto.transforms`: ciphers as torchvision v2 transforms."""

from segkey.crypto.transforms import (
    FFX,
    BlockTransform,
    EncryptedImage,
    NegativePositive,
    Shuffle,
    from_key,
)

__all__ = ["FFX", "BlockTransform", "EncryptedImage", "NegativePositive", "Shuffle", "from_key"]
