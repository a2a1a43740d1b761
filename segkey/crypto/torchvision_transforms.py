"""The ciphers as torchvision v2 transforms: tensors, tv_tensors and Pillow images in, same out.

The arithmetic is in `segkey.ciphers`; here is what torch and torchvision need. A transform takes
what every v2 transform takes, nested as a dataset gives it, and encrypts the images in it::

    >>> import torch
    >>> from segkey.crypto.keys import Key
    >>> from segkey import transforms
    >>> shuffle = transforms.from_key("shf", Key(bytes(32)), block_size=4)
    >>> images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    >>> torch.equal(shuffle.decrypt(shuffle(images)), images)
    True
"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from segkey.crypto import ciphers
from segkey.crypto.keys import Key

_BYTES = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}  # channels of Pillow's modes of 8 bits


class EncryptedImage(tv_tensors.Image):
    """An image whose largest value is neither 1 nor that of its type, as FFX makes them.

    It is a `tv_tensors.Image`, and v2's transforms keep it one. ``ToDtype(…, scale=True)`` divides
    by `max_value`, where it would divide a plain uint16 image by 65535.

    What torch makes of it and is uint16 again, such as a batch or a part, is one, too.

    Attributes:
        max_value: what stands for 1; None if images of different ones were joined.
    """

    max_value: int | None = None

    @classmethod
    def of(cls, images: Tensor, max_value: int) -> "EncryptedImage":
        """Images with their largest value, without a copy."""
        image = images.as_subclass(cls)
        image.max_value = max_value
        return image

    @staticmethod
    def wrap(wrappee: Tensor, like: "EncryptedImage", **_: object) -> "EncryptedImage":
        """The result of a v2 transform of ``like``; torchvision calls it."""
        return EncryptedImage.of(wrappee, like.max_value)

    @classmethod
    def _wrap_output(cls, output, args=(), kwargs=None):  # of clone, to, detach
        made = super()._wrap_output(output, args, kwargs)
        if isinstance(made, cls) and isinstance(args[0], cls):
            made.max_value = args[0].max_value
        return made

    def __reduce_ex__(self, protocol: int) -> tuple:
        # torch cannot rebuild a subclass of uint16 in another process, as a DataLoader asks.
        return EncryptedImage.of, (self.as_subclass(Tensor), self.max_value)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        made = super().__torch_function__(func, types, args, kwargs)
        return made if func is Tensor.as_subclass else _kept(made, args)


def _kept(made: object, given: object) -> object:
    """What torch made of encrypted images: uint16 still stands for them, in a batch, say.

    torchvision makes plain tensors of what is stacked or indexed; of these, nobody would know what
    to divide by.
    """
    if isinstance(made, tuple | list):
        return (
            type(made)(_kept(each, given) for each in made) if type(made) in (tuple, list) else made
        )
    if not isinstance(made, Tensor) or made.dtype != torch.uint16:
        return made
    values = {image.max_value for image in _encrypted(given)}
    return EncryptedImage.of(made, values.pop() if len(values) == 1 else None)


def _encrypted(given: object) -> Iterator[EncryptedImage]:
    if isinstance(given, EncryptedImage):
        yield given
    elif isinstance(given, tuple | list):
        for each in given:
            yield from _encrypted(each)


@F.register_kernel(F.to_dtype, EncryptedImage)
def _to_dtype(image: EncryptedImage, dtype: torch.dtype = torch.float, scale: bool = False):
    """``v2.ToDtype``: scaled, an encrypted image is one from 0 to 1, and no EncryptedImage."""
    plain = image.as_subclass(Tensor)
    if not scale or plain.is_floating_point():
        return tv_tensors.wrap(plain.to(dtype), like=image)
    if image.max_value is None or not dtype.is_floating_point:
        raise ValueError(
            f"an image of FFX cannot be scaled to {dtype}: its values stand for 0 … "
            f"{image.max_value or 'an unknown maximum'}; take transforms.from_key(…, "
            "dtype=torch.float32), which divides by the right one"
        )
    return tv_tensors.Image(plain.to(dtype) / image.max_value)


class BlockTransform(v2.Transform):
    """A cipher as a v2 transform without parameters; calling it encrypts.

    Of a nested sample, images are encrypted (`tv_tensors.Image`, `tv_tensors.Video`, Pillow images;
    if there are none, the first tensor), and everything else is returned as it is: masks, boxes,
    labels. What was a tv_tensor stays one. A Pillow image becomes one again, or a
    `tv_tensors.Image` where its values do not fit. Threads may share a transform.

    Args:
        cipher: any `segkey.ciphers.Cipher`.
        dtype: a floating-point type: images are divided by `max_value`, and 0 … 1; None for the
            cipher's integers.

    Raises:
        TypeError: a sample without an image, or an image of another type than uint8.
        ValueError: another number of channels.
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.Video, Image.Image, F.is_pure_tensor)

    def __init__(self, cipher: ciphers.Cipher, dtype: torch.dtype | None = None):
        super().__init__()
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point type, not {dtype}")
        self.cipher, self.dtype = cipher, dtype

    def encrypt(self, images: Tensor) -> Tensor:
        """uint8 (..., c, H, W) to uint8, or uint16 for FFX, on the same device; not in place."""
        return self.cipher.encrypt(images)

    def decrypt(self, images: Tensor) -> Tensor:
        """The exact inverse of `encrypt`."""
        return self.cipher.decrypt(images.as_subclass(Tensor))

    def check_inputs(self, flat_inputs: list) -> None:
        """Refuse a sample in which nothing would be encrypted; v2 would pass it on as it is."""
        if not any(self._needs_transform_list(flat_inputs)):
            kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in flat_inputs))
            raise TypeError(
                f"there is no image to encrypt in a sample of {kinds or 'nothing'}; images are "
                "tensors, tv_tensors and Pillow images (v2.ToImage makes one of an array)"
            )

    def transform(self, inpt: Tensor | Image.Image, params: dict) -> Tensor | Image.Image:
        """Encrypt one image of a sample, or a batch; v2 calls it."""
        if isinstance(inpt, Image.Image):
            return self._picture(inpt)
        encrypted = self.encrypt(inpt.as_subclass(Tensor))
        if self.dtype is not None:
            encrypted = ciphers.signed(encrypted).to(self.dtype) / self.max_value
        elif self.cipher.dtype != "uint8":
            return EncryptedImage.of(encrypted, self.max_value)
        wrapped = isinstance(inpt, tv_tensors.TVTensor)
        return tv_tensors.wrap(encrypted, like=inpt) if wrapped else encrypted

    def _picture(self, picture: Image.Image) -> Tensor | Image.Image:
        if _BYTES.get(picture.mode) != self.cipher.channels:
            wanted = next((m for m, n in _BYTES.items() if n == self.cipher.channels), "other")
            raise ValueError(
                f"a Pillow image of mode {picture.mode} has not the {self.cipher.channels} 8-bit "
                f"channels of the key's blocks; convert it first: image.convert({wanted!r})"
            )
        made = self.transform(tv_tensors.Image(F.pil_to_tensor(picture)), {})
        return F.to_pil_image(made, picture.mode) if made.dtype == torch.uint8 else made

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
        return repr(self.cipher) + (f", dtype={self.dtype}" if self.dtype else "")


class Shuffle(BlockTransform):
    """SHF from an explicit permutation, int (c·M·M,); see `segkey.ciphers.Shuffle`."""

    def __init__(
        self, permutation: np.ndarray | Tensor, block_size: int, dtype: torch.dtype | None = None
    ):
        super().__init__(ciphers.Shuffle(_on_cpu(permutation), block_size), dtype)


class NegativePositive(BlockTransform):
    """NP from an explicit selection, bool (c·M·M,); see `segkey.ciphers.NegativePositive`."""

    def __init__(
        self, selected: np.ndarray | Tensor, block_size: int, dtype: torch.dtype | None = None
    ):
        super().__init__(ciphers.NegativePositive(_on_cpu(selected), block_size), dtype)


class FFX(BlockTransform):
    """FFX from an explicit selection, bool (c·M·M,), and a password; see `segkey.ciphers.FFX`."""

    def __init__(
        self,
        selected: np.ndarray | Tensor,
        block_size: int,
        password: bytes,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(ciphers.FFX(_on_cpu(selected), block_size, password), dtype)


def _on_cpu(positions: np.ndarray | Tensor) -> np.ndarray:
    return positions.cpu().numpy() if isinstance(positions, Tensor) else np.asarray(positions)


def from_key(
    method: str,
    key: Key | None,
    block_size: int,
    channels: int = 3,
    password: bytes | None = None,
    dtype: torch.dtype | None = None,
) -> BlockTransform:
    """The transform that ``key`` means.

    Args:
        method, key, block_size, channels, password: as for `segkey.ciphers.from_key`.
        dtype: as for `BlockTransform`.
    """
    return BlockTransform(ciphers.from_key(method, key, block_size, channels, password), dtype)
