"""Batches that do not fit into memory: computed in smaller parts, with the same result."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from segkey.errors import SegkeyError
from segkey.system.devices import describe, warn
from segkey.system.wording import counted

Outcome = TypeVar("Outcome")


class MicroBatches:
    """Cuts batches so that they fit in a device's memory.

    Whenever the memory runs out, micro-batches are half as large from then on.

    Args:
        what: put before "in micro-batches of N images" in the message, such as ``batches are
            scored``.
        say: hears when micro-batches become smaller.
        may_cut: if not, running out of memory is an error.

    Attributes:
        largest: images per micro-batch; None as long as whole batches fit.
    """

    def __init__(self, what: str, say: Callable[[str], None] = warn, may_cut: bool = True):
        self.what, self.say, self.may_cut, self.largest = what, say, may_cut, None

    def run(
        self, work: Callable[[list[tuple[Tensor, Tensor]]], Outcome], images: Tensor, masks: Tensor
    ) -> Outcome:
        """``work`` on the micro-batches of a batch, repeated with smaller ones if memory runs out.

        Args:
            work: takes pairs of images and masks; must be repeatable from its beginning.
            images: (N, C, H, W).
            masks: (N, H, W).

        Raises:
            SegkeyError: the memory does not hold a single image, or batches may not be cut.
        """
        while True:
            size = min(len(images), self.largest or len(images))
            try:
                return work(list(zip(images.split(size), masks.split(size), strict=True)))
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
            # Not in the except clause: there the error still refers to all that filled the memory.
            self._halve(size, images)

    def _halve(self, size: int, images: Tensor) -> None:
        where = describe(images.device)
        if size == 1:
            raise SegkeyError(
                f"the memory of {where} does not hold one image of "
                f"{images.shape[-2]}x{images.shape[-1]} with this network",
                "take a smaller --size or --network, or another --device",
            )
        if not self.may_cut:
            raise SegkeyError(
                f"the memory of {where} does not hold this rank's {size} images of a batch",
                "start more ranks, or take a smaller --batch-size, --size or --network",
            )
        self.largest = (size + 1) // 2
        if images.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(
            f"{where} ran out of memory: {self.what} in micro-batches of "
            f"{counted(self.largest, 'image')}"
        )


def _out_of_memory(error: RuntimeError) -> bool:
    """True if a memory allocation failed; MPS and some libraries only say so in words."""
    words = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
