"""Which device, how precise, and how much fits on it."""

import contextlib
import os

import torch

from segkey.errors import SegkeyError


def choose(name: str = "auto") -> torch.device:
    """``auto`` takes cuda, then mps, then cpu; anything else is taken at its word, or refused."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    try:
        device = torch.device(name)
        if not available.get(device.type) or (
            device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
        ):
            raise RuntimeError
    except RuntimeError:
        here = ", ".join(kind for kind, there in available.items() if there)
        raise SegkeyError(f"there is no device '{name}' here", f"devices here: {here}; or --device auto") from None
    return device


def describe(device: torch.device) -> str:
    """A device in words, for results."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def mixed_precision(device: torch.device, enabled: bool = True) -> contextlib.AbstractContextManager:
    """bfloat16 where the device computes in it, float32 elsewhere (or everywhere, if not ``enabled``)."""
    fast = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": lambda: torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
    }.get(device.type, lambda: False)
    return torch.autocast(device.type, torch.bfloat16, enabled=True) if enabled and fast() else contextlib.nullcontext()


def free_memory(device: torch.device) -> int:
    """Bytes that data may take on a device: a part of what is free, the network needs the rest."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3
    except (ValueError, OSError, AttributeError):
        return 2 << 30
