"""The public name of `segkey.crypto.torchvision_transforms`."""

from segkey.crypto.torchvision_transforms import (
    FFX,
    BlockTransform,
    EncryptedImage,
    NegativePositive,
    Shuffle,
    from_key,
)

__all__ = ["FFX", "BlockTransform", "EncryptedImage", "NegativePositive", "Shuffle", "from_key"]
