"""Weights files from an untrusted source: reading, checksums, pretrained weights."""

import hashlib
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segkey.errors import SegkeyError
from segkey.system.files import open_regular

WEIGHTS = ("coco", "imagenet", "none")
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


def stated_checksum(file: Path) -> str | None:
    """The checksum in a safetensors file, without reading the weights; None if it has none."""
    try:
        with open_regular(file), safe_open(file, "pt") as opened:
            return (opened.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, ValueError):
        return None


def read_archive(file: Path, device: torch.device | str = "cpu", limit: int | None = None) -> dict:
    """What ``torch.save`` wrote, in at most ``limit`` bytes, compared with its checksums.

    Raises:
        SegkeyError: the file is damaged, too large, or none of torch's.
    """
    try:
        return unpickled(file, device, limit)
    except SegkeyError:
        raise
    except Exception as error:  # damaged files raise whatever they lead to
        raise SegkeyError(
            f"{file} cannot be read ({type(error).__name__}: damaged, or not what it should be)",
            "restore it from a backup, or make it again",
        ) from None


def unpickled(
    file: Path, device: torch.device | str, limit: int | None = None, follow: bool = False
) -> dict:
    """``torch.load`` that refuses pickles that run code, and verifies the CRC-32s.

    torch writes these and does not read them.
    """
    with open_regular(file, limit, follow) as opened:
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
