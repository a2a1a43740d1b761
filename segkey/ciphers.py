"""The block-wise ciphers: one class a method, the same arithmetic on NumPy arrays and torch tensors.

The paper's four steps (section 3) are: cut into blocks, flatten each channel first, transform every
vector with the same key, put the blocks back. All blocks are treated alike, so a picture of one size
needs its positions worked out once: NP is then one XOR with a plane, SHF one gather, FFX one look-up.

This module imports no torch, so that encrypting a folder does not pay for it; `segkey.transforms`
wraps these classes as ``nn.Module``. Arrays and tensors are both called *images* here.

A new method is a subclass with ``method``, ``PARTS``, ``from_key``, ``_encrypt`` and ``_decrypt``; decorated with
`register`, it is known to every command as ``--method NAME``. What else is to be said of a method stands in its class
too: ``label``, ``what``, ``has_password``, ``key_space``. Attacks that solve for a method's key need code for that method:
see `segkey.attacks.known_pair` and `segkey.attacks.ciphertext_only`.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from segkey.errors import SegkeyError
from segkey.keys import KEY_BITS, Key

Images = Any  # np.ndarray or torch.Tensor, uint8 or uint16, shape (..., C, H, W)

_TABLES_KEPT = 16  # sizes and devices that a cipher remembers; images of one folder have one size

METHODS: dict[str, type["Cipher"]] = {}


def register(cipher: type["Cipher"]) -> type["Cipher"]:
    """Make a method known by its name to `from_key` and to the command line."""
    METHODS[cipher.method] = cipher
    return cipher


def from_key(method: str, key: Key | None, block_size: int, channels: int = 3, password: bytes | None = None):
    """The cipher that ``key`` means for a method and block size.

    Args:
        method: a name in `METHODS`: ``shf``, ``np``, ``ffx``, ``none``.
        key: the key; None only for ``none``.
        block_size: M, at least 1.
        channels: c, at least 1.
        password: fixes FFX's password, as the paper does; derived from the key if not given.

    Raises:
        SegkeyError: an unknown method, a block size or channels below 1, or a password for another method than FFX.
    """
    if method not in METHODS:
        raise SegkeyError(f"there is no method '{method}'", f"methods: {', '.join(METHODS)}")
    if block_size < 1 or channels < 1:
        raise SegkeyError(
            f"blocks of {channels}x{block_size}x{block_size} are not possible", "take sizes of at least 1"
        )
    if password is not None and not METHODS[method].has_password:
        raise SegkeyError(f"method '{method}' has no password", "leave --ffx-password out, or use --method ffx")
    if method == "none":
        return Plain(1, channels)
    if key is None:
        raise SegkeyError(f"method '{method}' needs a key", "make one with 'segkey keygen', or give it with --key")
    return METHODS[method].from_key(key, block_size, channels, password)


def has_password(method: str) -> bool:
    """Whether a method has a password that can be fixed."""
    return method in METHODS and METHODS[method].has_password


def key_space_bits(method: str, block_size: int, channels: int = 3, fixed_password: bool = False) -> float:
    """`Cipher.key_space` of a method by its name, which need not be known here."""
    return METHODS.get(method, Cipher).key_space(block_size, channels, fixed_password)


def method_name(method: str) -> str:
    """A method as it stands in tables, known here or not."""
    return (METHODS[method].label if method in METHODS else "") or method.upper()


def method_label(method: str, block_size: int) -> str:
    """A method as it stands in tables, with its block size, where it has one."""
    return method_name(method) + (f" M={block_size}" if method != "none" else "")


def fitting_block_sizes(height: int, width: int) -> list[int]:
    """The powers of two that divide both sides, for messages."""
    return [2**k for k in range(1, 13) if height % 2**k == 0 and width % 2**k == 0]


class Cipher:
    """Base class: checks its input, works on NumPy arrays and on tensors of any device.

    Attributes:
        block_size: M, the side of a block.
        channels: c.
        max_value: the largest value an encrypted image can hold; a loader divides by it.
        dtype: of encrypted images, ``"uint8"`` or ``"uint16"``.
        password_hash: names a fixed FFX password without telling it; empty otherwise.
        PARTS: the attributes that the key decides: ``permutation``, int64 (c·M·M,); ``selected``, bool (c·M·M,);
            ``values``, uint16 (256,). Attacks guess and rebuild these by name.
        label: the method's name in tables; ``method`` in capitals, if not given.
        what: a sentence for reports on what becomes of a block; {m}, {c} and {n} in it stand for M, c and c·M·M.
        has_password: whether there is a password besides the key that can be fixed.
    """

    method: ClassVar[str]
    PARTS: ClassVar[tuple[str, ...]]
    label: ClassVar[str] = ""
    what: ClassVar[str] = "Encrypted with a method of the user's own."
    has_password: ClassVar[bool] = False
    max_value: int = 255
    dtype: str = "uint8"
    password_hash: str = ""

    def __init__(self, block_size: int, channels: int):
        self.block_size = int(block_size)
        self.channels = int(channels)
        self._tables: dict[tuple, Images] = {}

    @classmethod
    def from_key(cls, key: Key, block_size: int, channels: int, password: bytes | None = None) -> "Cipher":
        raise NotImplementedError

    @classmethod
    def key_space(cls, block_size: int, channels: int = 3, fixed_password: bool = False) -> float:
        """How many bits a search over all transformations must go through.

        Never more than 256, the bits of the key itself, which is what a method claims that does not count them.

        Args:
            block_size: M.
            channels: c.
            fixed_password: it is known to who searches.
        """
        return KEY_BITS

    @property
    def key_space_bits(self) -> float:
        """`key_space` of this cipher: log2 of the number of different transformations, at most 256."""
        return self.key_space(self.block_size, self.channels, bool(self.password_hash))

    def encrypt(self, images: Images) -> Images:
        """Encrypt uint8 images of shape (..., c, H, W), H and W multiples of M; the input stays as it is."""
        self._check(images, "uint8")
        return self._apply(self._encrypt, images)

    def decrypt(self, images: Images) -> Images:
        """The exact inverse of `encrypt`: uint8 (uint16 for FFX) of shape (..., c, H, W) to uint8."""
        self._check(images, self.dtype)
        return self._apply(self._decrypt, images)

    def same_as(self, other: "Cipher") -> bool:
        """Whether two ciphers turn every image into the same one."""
        if type(self) is not type(other) or (self.block_size, self.channels) != (
            other.block_size,
            other.channels,
        ):
            return False
        return all(np.array_equal(getattr(self, part), getattr(other, part)) for part in self.PARTS)

    def with_parts(self, **parts: np.ndarray) -> "Cipher":
        """A cipher that differs in some of its `PARTS` and in nothing else, the largest value included."""
        other = copy.copy(self)
        other._tables = {}
        for name, value in parts.items():
            if name not in self.PARTS:
                raise ValueError(
                    f"{type(self).__name__} has no {name}; its parts are {', '.join(self.PARTS) or 'none'}"
                )
            setattr(other, name, value)
        return other

    def rekeyed(self, key: Key) -> "Cipher":
        """The same method with another key; a fixed FFX password stays."""
        return type(self).from_key(key, self.block_size, self.channels)

    # ------------------------------------------------------------------ for subclasses

    def _encrypt(self, images: Images) -> Images:
        raise NotImplementedError

    def _decrypt(self, images: Images) -> Images:
        raise NotImplementedError

    def _table(self, images: Images, name: str, make: Callable[[int, int], np.ndarray]) -> Images:
        """``make(H, W)``, made once for each size and device and kept there."""
        height, width = images.shape[-2:]
        device = None if isinstance(images, np.ndarray) else images.device
        place = (name, height, width, device)
        if place not in self._tables:
            table = make(height, width)
            if device is not None:
                import torch

                table = torch.from_numpy(table).to(device)
            while len(self._tables) >= _TABLES_KEPT:
                self._tables.pop(next(iter(self._tables)))
            self._tables[place] = table
        return self._tables[place]

    def _plane(self, positions: np.ndarray, height: int, width: int) -> np.ndarray:
        """A value for each position of a block, (c·M·M,), repeated over a picture: (c, H, W)."""
        block = positions.reshape(self.channels, self.block_size, self.block_size)
        return np.tile(block, (1, height // self.block_size, width // self.block_size))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_tables": {}}  # workers make their own, on their own device

    def __repr__(self) -> str:
        return f"{type(self).__name__}(block_size={self.block_size}, channels={self.channels})"

    # ------------------------------------------------------------------ plumbing

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
            raise ValueError(f"images have shape {tuple(images.shape)}; (..., {self.channels}, H, W) is needed")
        check_size(*images.shape[-2:], self.block_size)


def check_size(height: int, width: int, block_size: int) -> None:
    """Raise `SegkeyError`, naming the block sizes that fit, unless M divides both sides."""
    if height % block_size or width % block_size:
        fitting = ", ".join(map(str, fitting_block_sizes(height, width))) or "none but 1"
        side = height if height % block_size else width
        raise SegkeyError(
            f"{side} is not a multiple of the block size {block_size} (images are {height}x{width})",
            f"block sizes that fit: {fitting}; or choose another --size",
        )


def _positions(positions: np.ndarray, block_size: int) -> tuple[np.ndarray, int]:
    """Check a permutation or selection given by hand; returns it as an array, and the number of channels."""
    positions = np.asarray(positions)
    channels, rest = divmod(positions.size, block_size**2) if block_size > 0 else (0, 0)
    if positions.ndim != 1 or rest or not channels:
        raise ValueError(f"{positions.size} positions do not make blocks of side {block_size}")
    return positions, channels


def _selection(selected: np.ndarray, block_size: int) -> tuple[np.ndarray, int]:
    """Check a selection given by hand, as `_positions`; refuses indices, which would silently select nearly all."""
    selected, channels = _positions(selected, block_size)
    if selected.dtype != bool and not np.isin(selected, (0, 1)).all():
        raise ValueError("a selection is bool, one value a position of the block")
    return selected.astype(bool), channels


def selections(block_size: int, channels: int = 3) -> int:
    """In how many ways NP and FFX can choose half of the positions of a block."""
    n = channels * block_size**2
    return math.comb(n, n // 2)


def _selection_bits(block_size: int, channels: int) -> float:
    """log2 of `selections`, at most 256; their number itself would have thousands of digits."""
    n = channels * block_size**2
    return min((math.lgamma(n + 1) - math.lgamma(n // 2 + 1) - math.lgamma(n - n // 2 + 1)) / math.log(2), KEY_BITS)


def _chosen(key: Key, method: str, block_size: int, channels: int) -> np.ndarray:
    """The half of the positions that the key chooses, as bool (c·M·M,): the first n//2 of its permutation."""
    permutation = key.permutation(method, block_size, channels)
    selected = np.zeros(permutation.size, dtype=bool)
    selected[permutation[: permutation.size // 2]] = True
    return selected


@register
class Plain(Cipher):
    """Method ``none``: changes nothing, so that plain and encrypted images go the same way."""

    method = "none"
    PARTS = ()
    label = "plain"
    what = "Nothing is encrypted: this model works for everybody."

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        return cls(block_size, channels)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        return 0.0

    def _encrypt(self, images: Images) -> Images:
        return images.copy() if isinstance(images, np.ndarray) else images.clone()

    _decrypt = _encrypt


@register
class Shuffle(Cipher):
    """SHF: y[i] = x[P[i]] in every flattened block.

    Args:
        permutation: P, each of 0 … c·M·M − 1 once.
        block_size: M.
    """

    method = "shf"
    PARTS = ("permutation",)
    what = "The {n} values of every block of {c}×{m}×{m} are shuffled, by the key."

    def __init__(self, permutation: np.ndarray, block_size: int):
        permutation, channels = _positions(permutation, block_size)
        if not np.array_equal(np.sort(permutation), np.arange(permutation.size)):
            raise ValueError("not a permutation: each position must occur once")
        super().__init__(block_size, channels)
        self.permutation = permutation.astype(np.int64)

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        return cls(key.permutation(cls.method, block_size, channels), block_size)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """(c·M·M)! permutations."""
        return min(math.lgamma(channels * block_size**2 + 1) / math.log(2), KEY_BITS)

    def _encrypt(self, images: Images) -> Images:
        return _gather(images, self._table(images, "to", lambda h, w: self._sources(self.permutation, h, w)))

    def _decrypt(self, images: Images) -> Images:
        sources = self._table(images, "back", lambda h, w: self._sources(np.argsort(self.permutation), h, w))
        return _gather(images, sources)

    def _sources(self, permutation: np.ndarray, height: int, width: int) -> np.ndarray:
        """For every value of a flattened picture, the index of the value that comes there; int64 (c·H·W,)."""
        m = self.block_size
        channel, rest = np.divmod(permutation, m * m)
        row, column = np.divmod(rest, m)
        within = self._plane(channel * height * width + row * width + column, height, width)
        corner = np.arange(0, height, m).repeat(m)[:, None] * width + np.arange(0, width, m).repeat(m)
        return (within + corner).reshape(-1)


@register
class NegativePositive(Cipher):
    """NP: x becomes 255 − x at the selected positions of every flattened block; its own inverse.

    Args:
        selected: bool of shape (c·M·M,).
        block_size: M.
    """

    method = "np"
    PARTS = ("selected",)
    what = "Half of the {n} values of every block of {c}×{m}×{m}, chosen by the key, are turned into their negatives."

    def __init__(self, selected: np.ndarray, block_size: int):
        selected, channels = _selection(selected, block_size)
        super().__init__(block_size, channels)
        self.selected = selected

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        return cls(_chosen(key, cls.method, block_size, channels), block_size)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """C(c·M·M, half of them) selections."""
        return _selection_bits(block_size, channels)

    def _encrypt(self, images: Images) -> Images:
        # 255 - x is x with all its bits turned over: one XOR with a plane of 0 and 255.
        flips = self._table(images, "flips", lambda h, w: self._plane(self.selected * np.uint8(255), h, w))
        return images ^ flips

    _decrypt = _encrypt


@register
class FFX(Cipher):
    """FFX: format-preserving Feistel encryption of three digits, 0 … 255 to 0 … 999, at the selected positions.

    pyffx is asked once for each of the 256 values; a picture is then one look-up in a table whose first
    half leaves values as they are and whose second half encrypts them. Integers throughout: through
    float32 the round trip loses values.

    Args:
        selected: bool of shape (c·M·M,).
        block_size: M.
        password: bytes.
        fixed: the password was fixed by the user and is the same for every key.
    """

    method = "ffx"
    PARTS = ("selected", "values")
    what = (
        "Half of the {n} values of every block of {c}×{m}×{m}, chosen by the key, are encrypted with "
        "format-preserving Feistel encryption."
    )
    has_password = True
    dtype = "uint16"

    def __init__(self, selected: np.ndarray, block_size: int, password: bytes, fixed: bool = True):
        import pyffx

        selected, channels = _selection(selected, block_size)
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
        selected = _chosen(key, cls.method, block_size, channels)
        if password is None:
            return cls(selected, block_size, key.ffx_password(), fixed=False)
        return cls(selected, block_size, password)

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        """As NP's where the password is fixed; a derived one adds the whole key, where there is anything to encrypt."""
        bits = _selection_bits(block_size, channels)
        return KEY_BITS if bits and not fixed_password else bits

    def _encrypt(self, images: Images) -> Images:
        halves = self._plane_of_halves(images, 256)
        table = self._table(images, "encrypted", lambda h, w: np.concatenate([np.arange(256), self.values], dtype="i2"))
        if not isinstance(images, np.ndarray):
            return unsigned(_look_up(table, images, halves))
        out = np.empty(images.shape, np.uint16)
        for image, result in _pictures(images, out.view(np.int16)):
            np.take(table, image.astype(np.int16) | halves, out=result, mode="clip")
        return out

    def _decrypt(self, images: Images) -> Images:
        table = self._table(images, "decrypted", lambda h, w: self._inverse())
        halves = self._plane_of_halves(images, 1024)
        if isinstance(images, np.ndarray):
            out = np.empty(images.shape, np.uint8)
            for image, result in _pictures(images, out):
                found = np.take(table, image.view(np.int16) | halves, mode="clip")
                if image.max(initial=0) > 999 or found.min(initial=0) < 0:
                    raise _IMPOSSIBLE
                result[...] = found
            return out
        values = signed(images)
        # Asked before the look-up: a place beyond the table would break a GPU's context.
        if images.numel() and (int(values.min()) < 0 or int(values.max()) > 999):
            raise _IMPOSSIBLE
        found = _look_up(table, images, halves)
        if images.numel() and int(found.min()) < 0:
            raise _IMPOSSIBLE
        return found.byte()

    def rekeyed(self, key: Key) -> "FFX":
        if not self.password_hash:
            return super().rekeyed(key)
        # Asking pyffx and hashing the password again would take 60 ms a key, and give the same table.
        return self.with_parts(selected=_chosen(key, self.method, self.block_size, self.channels))

    def _plane_of_halves(self, images: Images, offset: int) -> Images:
        """``offset`` where the second half of a table is meant, 0 elsewhere."""
        return self._table(images, f"half{offset}", lambda h, w: self._plane(self.selected * np.int16(offset), h, w))

    def _inverse(self) -> np.ndarray:
        """int16 (2048,): the first half for positions that stay, the second for selected ones; -1: impossible."""
        inverse = np.full(2048, -1, dtype=np.int16)
        inverse[:256] = np.arange(256)
        inverse[1024 + self.values.astype(np.int64)] = np.arange(256)
        return inverse


def hash_password(password: bytes) -> str:
    """A public name for a fixed FFX password: 16 hex digits of scrypt, the same in all shards.

    It stands in every shard and run, and its salt is a constant, as names of equal passwords must be
    equal: whoever has one can test guesses without the owner, and a list of guesses once for all.
    So it hides a long random password only.
    """
    return hashlib.scrypt(password, salt=b"segkey-ffx-v1", n=2**14, r=8, p=1, dklen=8).hex()


# ------------------------------------------------------------------ kernels


_IMPOSSIBLE = SegkeyError(
    "these images hold values that this key cannot have made",
    "give the key (and the FFX password) they were encrypted with",
)


def _pictures(images: np.ndarray, out: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each picture of a batch, contiguous, with its place in ``out``: one at a time stays in the cache."""
    shape = images.shape[-3:]
    images = np.ascontiguousarray(images)
    yield from zip(images.reshape(-1, *shape), out.reshape(-1, *shape), strict=True) if images.size else ()


def _gather(images: Images, sources: Images) -> Images:
    """out[k] = image[sources[k]] for every flattened image."""
    if not isinstance(images, np.ndarray):
        return images.reshape(-1, sources.numel()).index_select(1, sources).reshape(images.shape)
    out = np.empty(images.shape, images.dtype)
    for image, result in _pictures(images, out):
        # "clip" spares the copy of the result that "raise" makes; no source is out of range.
        np.take(image.reshape(-1), sources, out=result.reshape(-1), mode="clip")
    return out


def _look_up(table: Images, images: Images, halves: Images) -> Images:
    """table[image + halves] for tensors, int16."""
    places = signed(images).int() + halves
    return table.index_select(0, places.reshape(-1)).reshape(images.shape)


def signed(images: Images) -> Images:
    """A uint16 tensor seen as int16, for which torch has every operation; other types as they are."""
    import torch

    return images.view(torch.int16) if images.dtype == torch.uint16 else images


def unsigned(images: Images) -> Images:
    """An int16 tensor seen as uint16."""
    import torch

    return images.view(torch.uint16)
