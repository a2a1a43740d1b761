"""Choose a device and the type it computes in; cut batches if its memory runs out."""

import contextlib
import os
import socket
import warnings

import torch

from segkey.errors import SegkeyError, SegkeyWarning
from segkey.system import distributed
from segkey.system.wording import counted


def choose(name: str = "auto") -> torch.device:
    """A device by its name; ``auto`` takes cuda, then mps, then cpu.

    Under torchrun, ``cuda`` is the GPU with the local rank's number.

    Raises:
        SegkeyError: this machine has no such device, has fewer GPUs than ranks, or ranks differ
            in the kind of their device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not distributed.is_single():
        distributed.require_same({"its device": name})
        name = _of_this_rank(name)
    try:
        device = torch.device(name)
        if not available.get(device.type) or (
            device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
        ):
            raise RuntimeError
    except RuntimeError:
        here = ", ".join(kind for kind, there in available.items() if there)
        raise SegkeyError(
            f"there is no device '{name}' here", f"devices here: {here}; or --device auto"
        ) from None
    return device


def _of_this_rank(name: str) -> str:
    if name != "cuda":
        if name.startswith("cuda") and distributed.local_size() > 1:
            raise SegkeyError(
                f"{distributed.local_size()} ranks cannot share {name}", "give --device cuda"
            )
        return name
    if torch.cuda.device_count() < distributed.local_size():
        raise SegkeyError(
            f"{socket.gethostname()} has {counted(torch.cuda.device_count(), 'GPU')} for "
            f"{distributed.local_size()} ranks",
            "start a rank for each GPU: torchrun --nproc-per-node=gpu",
        )
    torch.cuda.set_device(distributed.local_rank())
    return f"cuda:{distributed.local_rank()}"


def describe(device: torch.device) -> str:
    """A device in words, for results: a GPU's name, or ``cpu`` with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return (
        f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type
    )


def computes_in(device: torch.device, precise: bool = False) -> str:
    """The compute type: bfloat16 if the device has it; float32 if not, or if ``precise``."""
    fast = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": lambda: torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
    }.get(device.type, lambda: False)
    return "bfloat16" if not precise and fast() else "float32"


def mixed_precision(
    device: torch.device, enabled: bool = True
) -> contextlib.AbstractContextManager:
    """Autocast to the type of `computes_in`; no-op for float32, or if not ``enabled``."""
    fast = computes_in(device, not enabled) == "bfloat16"
    return (
        torch.autocast(device.type, torch.bfloat16, enabled=True)
        if fast
        else contextlib.nullcontext()
    )


def free_memory(device: torch.device) -> int:
    """Bytes that data may take on a device: a part of what is free, as the network needs the rest.

    A half on GPUs, else a third; 2 GiB if the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3
    except (ValueError, OSError, AttributeError):
        return 2 << 30


def warn(text: str) -> None:
    """Warn with a `SegkeyWarning`; the default way to report if there is no listener."""
    warnings.warn(text, SegkeyWarning, stacklevel=2)
