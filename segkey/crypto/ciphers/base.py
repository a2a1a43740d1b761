"""What all ciphers share: the registry of methods, the base class, and the method ``none``."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from segkey.crypto.keys import KEY_BITS, Key
from segkey.errors import SegkeyError

Images = Any  # np.ndarray or torch.Tensor, uint8 or uint16, shape (..., C, H, W)
METHODS: dict[str, type["Cipher"]] = {}
_ONE_BAND, _BAND = 1 << 18, 1 << 16  # values of an image that are looked up at a time
_TABLES_KEPT = 16  # sizes and devices that a cipher remembers; images of one folder have one size


def register(cipher: type["Cipher"]) -> type["Cipher"]:
    """Make a method known by its name to `from_key` and to the command line."""
    METHODS[cipher.method] = cipher
    return cipher


def from_key(
    method: str, key: Key | None, block_size: int, channels: int = 3, password: bytes | None = None
) -> "Cipher":
    """The cipher that ``key`` means for a method and block size; it carries the key's id.

    Args:
        method: a name in `METHODS`: ``shf``, ``np``, ``ffx``, ``shf+np``, ``none``.
        key: the key; None only for ``none``.
        block_size: M, at least 1.
        channels: c, at least 1.
        password: fixes FFX's password, as the paper does; derived from the key if not given.

    Raises:
        SegkeyError: an unknown method, a block size or channels below 1, or a password for another
            method than FFX.
    """
    if method not in METHODS:
        raise SegkeyError(f"there is no method '{method}'", f"methods: {', '.join(METHODS)}")
    if block_size < 1 or channels < 1:
        raise SegkeyError(
            f"blocks of {channels}x{block_size}x{block_size} are not possible",
            "take sizes of at least 1",
        )
    if password is not None and not METHODS[method].has_password:
        raise SegkeyError(
            f"method '{method}' has no password", "leave --ffx-password out, or use --method ffx"
        )
    if method == "none":
        return Plain(1, channels)
    if key is None:
        raise SegkeyError(
            f"method '{method}' needs a key", "make one with 'segkey keygen', or give it with --key"
        )
    cipher = METHODS[method].from_key(key, block_size, channels, password)
    cipher.key_id = key.id
    return cipher


def has_password(method: str) -> bool:
    """Whether a method has a password that can be fixed; False for an unknown method."""
    return method in METHODS and METHODS[method].has_password


def key_space_bits(
    method: str, block_size: int, channels: int = 3, fixed_password: bool = False
) -> float:
    """`Cipher.key_space` of a method by its name, which need not be known here."""
    return METHODS.get(method, Cipher).key_space(block_size, channels, fixed_password)


def method_name(method: str) -> str:
    """A method as it stands in tables, known here or not."""
    return (METHODS[method].label if method in METHODS else "") or method.upper()


def method_label(method: str, block_size: int) -> str:
    """A method as it stands in tables, with its block size if it has one."""
    return method_name(method) + (f" M={block_size}" if method != "none" else "")


def fitting_block_sizes(height: int, width: int) -> list[int]:
    """The powers of two that divide both sides, for messages."""
    return [2**k for k in range(1, 13) if height % 2**k == 0 and width % 2**k == 0]


class Cipher:
    """Base class: checks its input, works on NumPy arrays and on tensors of any device.

    A method defines ``method``, ``PARTS``, `from_key`, `encrypt_images` and `decrypt_images`;
    `cached` and `tiled` help it to write them.

    Attributes:
        key_id: names the key it came from; empty for ``none`` and for one made of explicit parts.
        block_size: M, the side of a block.
        channels: c.
        max_value: the largest value an encrypted image can hold; a loader divides by it.
        dtype: of encrypted images, ``"uint8"`` or ``"uint16"``.
        password_hash: names a fixed FFX password without telling it; empty otherwise.
        key_id: of the key that `from_key` was given; empty for ``none``.
        PARTS: the attributes that the key decides: ``permutation``, int64 (c·M·M,); ``selected``,
            bool (c·M·M,); ``values``, uint16 (256,). Attacks guess and rebuild these by name.
        label: the method's name in tables; ``method`` in capitals, if not given.
        what: a sentence for reports on what happens to a block; {m}, {c} and {n} in it stand for
            M, c and c·M·M.
        has_password: whether a password besides the key can be fixed.
    """

    method: ClassVar[str]
    PARTS: ClassVar[tuple[str, ...]]
    label: ClassVar[str] = ""
    what: ClassVar[str] = "Encrypted with a method of the user's own."
    has_password: ClassVar[bool] = False
    max_value: int = 255
    dtype: str = "uint8"
    password_hash: str = ""
    key_id: str = ""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Accept the names that methods of version 0.1 defined, for one more version."""
        super().__init_subclass__(**kwargs)
        for old, new in {"_encrypt": "encrypt_images", "_decrypt": "decrypt_images"}.items():
            if old in vars(cls):
                setattr(cls, new, vars(cls)[old])

    def __init__(self, block_size: int, channels: int):
        self.block_size = int(block_size)
        self.channels = int(channels)
        self._tables: dict[tuple, Images] = {}

    @classmethod
    def from_key(
        cls, key: Key, block_size: int, channels: int, password: bytes | None = None
    ) -> "Cipher":
        """The cipher that ``key`` means; ``password`` fixes the password of FFX."""
        raise NotImplementedError

    @classmethod
    def key_space(cls, block_size: int, channels: int = 3, fixed_password: bool = False) -> float:
        """How many bits a search over all transformations must go through.

        Never more than 256, the bits of the key itself, which is what a method claims that does not
        count them.

        Args:
            block_size: M.
            channels: c.
            fixed_password: the attacker knows the password.
        """
        return KEY_BITS

    @property
    def key_space_bits(self) -> float:
        """log2 of the number of different transformations of this cipher, at most 256."""
        return self.key_space(self.block_size, self.channels, bool(self.password_hash))

    def encrypt(self, images: Images) -> Images:
        """Encrypt images; the input is not changed.

        Args:
            images: uint8 (..., c, H, W), H and W multiples of M.

        Returns:
            The same shape and device, of type `dtype`, with values up to `max_value`.

        Raises:
            TypeError, ValueError: another type or shape.
            SegkeyError: M does not divide H and W.
        """
        self._check(images, "uint8")
        return self._apply(self.encrypt_images, images)

    def decrypt(self, images: Images) -> Images:
        """The exact inverse of `encrypt`: `dtype` (..., c, H, W) to uint8; errors are the same."""
        self._check(images, self.dtype)
        return self._apply(self.decrypt_images, images)

    def same_as(self, other: "Cipher") -> bool:
        """Whether two ciphers turn every image into the same one."""
        if type(self) is not type(other) or (self.block_size, self.channels) != (
            other.block_size,
            other.channels,
        ):
            return False
        return all(np.array_equal(getattr(self, part), getattr(other, part)) for part in self.PARTS)

    def with_parts(self, **parts: np.ndarray) -> "Cipher":
        """A cipher that differs in some of its `PARTS`; keeps ``max_value``, and has no key id."""
        other = copy.copy(self)
        other._tables, other.key_id = {}, ""
        for name, value in parts.items():
            if name not in self.PARTS:
                raise ValueError(
                    f"{type(self).__name__} has no {name}; its parts are "
                    f"{', '.join(self.PARTS) or 'none'}"
                )
            setattr(other, name, value)
        return other

    def rekeyed(self, key: Key) -> "Cipher":
        """The same method with another key; a fixed FFX password stays."""
        other = type(self).from_key(key, self.block_size, self.channels)
        other.key_id = key.id if self.method != "none" else ""
        return other

    def encrypt_images(self, images: Images) -> Images:
        """What a method does to images that `encrypt` has checked: arrays, or tensors on a GPU."""
        raise NotImplementedError

    def decrypt_images(self, images: Images) -> Images:
        """The inverse of `encrypt_images`, for images that `decrypt` has checked."""
        raise NotImplementedError

    def cached(self, images: Images, name: str, make: Callable[[int, int], np.ndarray]) -> Images:
        """A table for images of one size: ``make(H, W)``, kept for each size and device.

        Args:
            images: the images it is for; they decide H, W and the device.
            name: tells the tables of one cipher apart.
            make: makes the table as an array.

        Returns:
            The table: an array for arrays, a tensor on the same device for tensors.
        """
        height, width = images.shape[-2:]
        device = None if isinstance(images, np.ndarray) else images.device
        place = (name, height, width, device)
        table = self._tables.get(place)
        if table is None:
            table = make(height, width)
            if device is not None:
                import torch

                table = torch.from_numpy(table).to(device)
            # A new dictionary: other threads may be looking into the old one.
            latest = list(self._tables.items())[1 - _TABLES_KEPT :]
            self._tables = dict(latest) | {place: table}
        return table

    def tiled(self, positions: np.ndarray, height: int, width: int) -> np.ndarray:
        """A value for each position of a block, (c·M·M,), repeated over an image: (c, H, W)."""
        block = positions.reshape(self.channels, self.block_size, self.block_size)
        return np.tile(block, (1, height // self.block_size, width // self.block_size))

    _table, _plane = cached, tiled  # their names in version 0.1

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_tables": {}}  # workers make their own, on their own device

    def __repr__(self) -> str:
        return f"{type(self).__name__}(block_size={self.block_size}, channels={self.channels})"

    def _apply(self, function: Callable[[Images], Images], images: Images) -> Images:
        if isinstance(images, np.ndarray) or images.device.type != "cpu":
            return function(images)
        import torch  # a tensor on the CPU: NumPy's kernels are faster, and share its memory

        return torch.from_numpy(function(images.numpy()))

    def _check(self, images: Images, dtype: str) -> None:
        got = str(images.dtype).removeprefix("torch.")
        if got != dtype:
            raise TypeError(f"{type(self).__name__} takes {dtype} images here, not {got}")
        if images.ndim < 3 or images.shape[-3] != self.channels:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; (..., {self.channels}, H, W) is needed"
            )
        check_size(*images.shape[-2:], self.block_size)


def check_size(height: int, width: int, block_size: int) -> None:
    """Raise `SegkeyError`, naming the block sizes that fit, unless M divides both sides."""
    if height % block_size or width % block_size:
        common = math.gcd(height, width)
        odd = [side for side in range(3, common + 1, 2) if common % side == 0]
        fitting = ", ".join(map(str, fitting_block_sizes(height, width) or odd)) or "none but 1"
        side = height if height % block_size else width
        raise SegkeyError(
            f"{side} is not a multiple of the block size {block_size} "
            f"(images are {height}x{width})",
            f"block sizes that fit: {fitting}; or choose another --size",
        )


@register
class Plain(Cipher):
    """Method ``none``: changes nothing, so that plain and encrypted images go the same way."""

    method = "none"
    PARTS = ()
    label = "plain"
    what = "Nothing is encrypted: this model works for everybody."

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        """The plain cipher; the key and the password are ignored."""
        return cls(block_size, channels)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """0 bits: there is no key."""
        return 0.0

    def encrypt_images(self, images: Images) -> Images:
        """A copy of uint8 images (..., c, H, W)."""
        return images.copy() if isinstance(images, np.ndarray) else images.clone()

    decrypt_images = encrypt_images


def band_height(height: int, width: int, channels: int, block_size: int) -> int:
    """Rows of the bands that `each_band` cuts large images into: whole blocks, all bands alike.

    A band and an index for each of its values fit the cache of a core, which those of a frame of
    video do not. An image that does is one band.
    """
    if channels * height * width <= _ONE_BAND:
        return height
    blocks = height // block_size
    most = max(1, _BAND // (channels * block_size * width))
    return block_size * max(n for n in range(1, min(most, blocks) + 1) if blocks % n == 0)


def each_band(
    images: np.ndarray, out: np.ndarray, rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each band of ``rows`` rows of each image, (c, rows, W), with its place in ``out``."""
    if not images.size:
        return
    shape = images.shape[-3:]
    for image, result in zip(images.reshape(-1, *shape), out.reshape(-1, *shape), strict=True):
        if rows == shape[-2]:
            yield image, result
            continue
        for top in range(0, shape[-2], rows):
            yield image[:, top : top + rows], result[:, top : top + rows]


def look_up(table: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    """``out`` = ``table[places]``; no place may be out of range, as none is checked."""
    if out.flags.c_contiguous:
        np.take(table, places, out=out, mode="clip")
    else:
        out[...] = np.take(table, places, mode="clip")


def signed(images: Images) -> Images:
    """A uint16 tensor viewed as int16, for which torch has every operation; other types as is."""
    import torch

    return images.view(torch.int16) if images.dtype == torch.uint16 else images


def unsigned(images: Images) -> Images:
    """An int16 tensor seen as uint16, without copying; other types as they are."""
    import torch

    return images.view(torch.uint16) if images.dtype == torch.int16 else images
