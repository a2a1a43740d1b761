"""Which device, how precise, and how much fits on it."""

import contextlib
import os
import socket
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from segkey.errors import SegkeyError, SegkeyWarning
from segkey.system import distributed

Outcome = TypeVar("Outcome")


def choose(name: str = "auto") -> torch.device:
    """``auto`` takes cuda, then mps, then cpu; anything else is taken at its word, or refused.

    Under torchrun, ``cuda`` is for each rank the GPU of its number on its machine, and all ranks
    have the same kind.
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
            f"{socket.gethostname()} has {torch.cuda.device_count()} GPUs for "
            f"{distributed.local_size()} ranks",
            "start a rank for each GPU: torchrun --nproc-per-node=gpu",
        )
    torch.cuda.set_device(distributed.local_rank())
    return f"cuda:{distributed.local_rank()}"


def describe(device: torch.device) -> str:
    """A device in words, for results."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return (
        f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type
    )


def computes_in(device: torch.device, precise: bool = False) -> str:
    """The type that networks compute in: bfloat16 where the device is made for it, float32
    elsewhere, or if ``precise``."""
    fast = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": lambda: torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
    }.get(device.type, lambda: False)
    return "bfloat16" if not precise and fast() else "float32"


def mixed_precision(
    device: torch.device, enabled: bool = True
) -> contextlib.AbstractContextManager:
    """bfloat16 where the device computes in it, float32 elsewhere (or everywhere, if not
    ``enabled``)."""
    fast = computes_in(device, not enabled) == "bfloat16"
    return (
        torch.autocast(device.type, torch.bfloat16, enabled=True)
        if fast
        else contextlib.nullcontext()
    )


def free_memory(device: torch.device) -> int:
    """Bytes that data may take on a device: a part of what is free, the network needs the rest."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3
    except (ValueError, OSError, AttributeError):
        return 2 << 30


def warn(text: str) -> None:
    """Tell a user who gave no other way to be told."""
    warnings.warn(text, SegkeyWarning, stacklevel=2)


class MicroBatches:
    """Cuts batches so that they fit in a device's memory: where it runs out, into pieces of half
    the size from then on.

    Args:
        what: is put before "in pieces of N images", such as ``batches are scored``.
        say: hears when pieces become smaller.
        may_cut: whether they may become smaller.

    Attributes:
        largest: images in a piece; None as long as whole batches fit.
    """

    def __init__(self, what: str, say: Callable[[str], None] = warn, may_cut: bool = True):
        self.what, self.say, self.may_cut, self.largest = what, say, may_cut, None

    def run(
        self, work: Callable[[list[tuple[Tensor, Tensor]]], Outcome], images: Tensor, masks: Tensor
    ) -> Outcome:
        """``work`` on the pieces of a batch; begun again with smaller ones where the memory does
        not suffice.

        Raises:
            SegkeyError: it does not suffice for a single image.
        """
        while True:
            size = min(len(images), self.largest or len(images))
            try:
                return work(list(zip(images.split(size), masks.split(size), strict=True)))
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
            # Not in the except clause: there the error still holds on to all that filled the
            # memory.
            self._halve(size, images)

    def _halve(self, size: int, images: Tensor) -> None:
        where = describe(images.device)
        if size == 1:
            raise SegkeyError(
                f"the memory of {where} does not hold one image of "
                f"{images.shape[-2]}x{images.shape[-1]} with this network",
                "take a smaller --size or --backbone, or another --device",
            )
        if not self.may_cut:
            raise SegkeyError(
                f"the memory of {where} does not hold this rank's {size} images of a batch",
                "start more ranks, or take a smaller --batch-size, --size or --backbone",
            )
        self.largest = (size + 1) // 2
        if images.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(f"{where} ran out of memory: {self.what} in pieces of {self.largest} images")


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch (or one of its libraries, or MPS, which have no error of their own) asked for
    too much."""
    words = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
