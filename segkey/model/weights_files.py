"""Weights files from an untrusted source: reading, checksums, pretrained weights."""

import hashlib
import json
import math
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segkey.crypto.age import Identity, NoMatch, decrypted
from segkey.errors import SegkeyError
from segkey.system.files import open_regular

WEIGHTS = ("coco", "imagenet", "none")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MOST_HEADER_BYTES = 4 << 20  # JSON takes 25 times as much once it is read
_WRAPPERS = ("model", "state_dict", "model_state_dict", "net")


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a user's ``.safetensors`` or ``.pth`` file, by name."""
    if not file.is_file():
        raise SegkeyError(
            f"there are no weights at {file}",
            f"give one of {', '.join(WEIGHTS)}, or a .safetensors or .pth file",
        )
    try:
        if file.suffix == ".safetensors":
            state, stated = read_safetensors(file, follow=True)
            if stated and stated != checksum(state):
                raise ValueError("checksum")
            return state
        return _unwrapped(unpickled(file, "cpu", follow=True))
    except Exception as error:
        raise SegkeyError(
            f"{file} cannot be read as weights ({type(error).__name__})",
            "give a .safetensors file, or a state dict: torch.save(model.state_dict(), FILE)",
        ) from None


def _unwrapped(saved: object) -> dict[str, Tensor]:
    """The state dict in what a training script saved: alone, or beside epochs and optimizers."""
    for name in _WRAPPERS:
        if isinstance(saved, dict) and isinstance(saved.get(name), dict):
            saved = saved[name]
    if not isinstance(saved, dict) or not saved:
        raise TypeError
    if not all(isinstance(tensor, Tensor) for tensor in saved.values()):
        raise TypeError
    return saved


def read_safetensors(
    file: Path, limit: int | None = None, follow: bool = False
) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a safetensors file, and the checksum it states, which is not compared here.

    Args:
        file: the file; ``limit`` and ``follow`` as for `segkey.system.files.open_regular`.
    """
    with (
        open_regular(file, limit, follow),
        safe_open(file, "pt") as opened,
    ):  # it maps the file, and takes no open one
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dictionary
        return state, (opened.metadata() or {}).get("sha256")


def parsed(buffer: memoryview) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a safetensors file in memory, and its metadata.

    The tensors lie in the buffer: the library's own reader would copy them twice, and weights that
    were sealed must fit beside the network.

    Args:
        buffer: writable, as torch wants it.

    Raises:
        ValueError: it is no such file.
    """
    size = int.from_bytes(buffer[:8], "little")
    if size > min(len(buffer) - 8, _MOST_HEADER_BYTES):
        raise ValueError("no safetensors file")
    try:
        header = json.loads(bytes(buffer[8 : 8 + size]))
        metadata = dict(header.pop("__metadata__", {}))
        return {n: _tensor(buffer, 8 + size, each) for n, each in header.items()}, metadata
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, RecursionError):
        raise ValueError("no safetensors file") from None


def _tensor(buffer: memoryview, begin: int, described: dict) -> Tensor:
    dtype, shape = _DTYPES[described["dtype"]], described["shape"]
    start, end = described["data_offsets"]
    count = math.prod(shape)
    if min([0, start, *shape]) < 0 or begin + end > len(buffer):
        raise ValueError("sizes")
    if end - start != count * dtype.itemsize:
        raise ValueError("sizes")
    if not count:
        return torch.empty(shape, dtype=dtype)
    if (begin + start) % dtype.itemsize:  # allowed by the format, but not by torch
        return torch.frombuffer(bytearray(buffer[begin + start : begin + end]), dtype=dtype).view(
            shape
        )
    return torch.frombuffer(buffer, dtype=dtype, count=count, offset=begin + start).view(shape)


def stated_checksum(file: Path) -> str | None:
    """The checksum in a safetensors file, without reading the weights; None if it has none."""
    try:
        with open_regular(file), safe_open(file, "pt") as opened:
            return (opened.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, ValueError):
        return None


def read_archive(
    file: Path,
    device: torch.device | str = "cpu",
    limit: int | None = None,
    identity: Identity | None = None,
) -> dict:
    """What ``torch.save`` wrote, in at most ``limit`` bytes, compared with its checksums.

    Args:
        file: an age file of it, if there is an ``identity``; then it is opened in memory.
        device: where tensors go.
        limit: the most bytes the file may have.
        identity: opens the age file.

    Raises:
        SegkeyError: the file is damaged, too large, or none of torch's.
    """
    try:
        return unpickled(file, device, limit, identity=identity)
    except SegkeyError:
        raise
    except NoMatch:
        raise SegkeyError(
            f"{file} was not sealed for this key", "give another key, or restore it from a backup"
        ) from None
    except Exception as error:  # damaged files raise whatever they lead to
        raise SegkeyError(
            f"{file} cannot be read ({type(error).__name__}: damaged, or not what it should be)",
            "restore it from a backup, or make it again",
        ) from None


def unpickled(
    file: Path,
    device: torch.device | str,
    limit: int | None = None,
    follow: bool = False,
    identity: Identity | None = None,
) -> dict:
    """``torch.load`` that refuses pickles that run code, and verifies the CRC-32s.

    torch writes these and does not read them.
    """
    with open_regular(file, limit, follow) as opened:
        opened = decrypted(opened, identity) if identity else opened
        if zipfile.is_zipfile(opened):  # older files are not, and have no checksums
            with zipfile.ZipFile(opened) as archive:
                if any(
                    member.compress_type for member in archive.infolist()
                ):  # torch compresses nothing, bombs are
                    raise ValueError("compressed")
                if archive.testzip():
                    raise ValueError("checksum")
        opened.seek(0)
        return torch.load(opened, map_location=device, weights_only=True)


def checksum(state: dict[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(
            tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        )
    return digest.hexdigest()


def file_digest(file: str | Path) -> str:
    """SHA-256 of a file that the user named, in hex."""
    with open_regular(Path(file), follow=True) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
