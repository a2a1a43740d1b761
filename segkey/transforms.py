"""The public name of `segkey.crypto.transforms`: ciphers as ``nn.Module``."""

from segkey.crypto.transforms import FFX, BlockTransform, NegativePositive, Shuffle, from_key

__all__ = ["FFX", "BlockTransform", "NegativePositive", "Shuffle", "from_key"]
