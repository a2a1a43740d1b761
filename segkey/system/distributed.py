"""Ranks under torchrun: their numbers, collective operations, and checks that they agree.

Every rank runs the same command on the same files on a shared file system. All compute their part;
the main rank alone prints and writes results. Without torchrun there is a single process: then all
functions here are no-ops, and torch is not imported.
"""

import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from segkey.errors import SegkeyError
from segkey.system import files, folder_lock

if TYPE_CHECKING:  # the command line answers --help without NumPy
    import numpy as np

T = TypeVar("T")


def _number(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))


def rank() -> int:
    """This process's rank, 0 … `world_size` − 1."""
    return _number("RANK", 0)


def world_size() -> int:
    """Number of ranks."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """This process's rank on its machine, 0 … `local_size` − 1."""
    return _number("LOCAL_RANK", 0)


def local_size() -> int:
    """Number of ranks on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def is_single() -> bool:
    """True if there is only one process."""
    return world_size() == 1


def is_main() -> bool:
    """True on rank 0, which prints and writes."""
    return rank() == 0


def rank_name() -> str:
    """This rank's number and machine, for messages."""
    return f"rank {rank()} of {world_size()} on {socket.gethostname()}"


def job_id() -> str:
    """Names the job, also after torchrun has restarted its ranks; empty without torchrun."""
    given = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if given != "none":  # as it is without --rdzv-id
        return given
    # Hashed, as run.json, which holds it, may be given away: ids need to be compared, not read.
    return hashlib.sha256(f"{socket.gethostname()}/{os.getppid()}".encode()).hexdigest()[:16]


def restarted() -> bool:
    """True if torchrun has restarted this job after a failure (``--max-restarts``)."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def barrier() -> None:
    """Wait for all ranks."""
    all_gather(None)


def all_gather(value: T) -> list[T]:
    """Each rank's value, in the order of ranks; on all ranks."""
    if is_single():
        return [value]
    import torch.distributed as dist

    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: T) -> T:
    """The main rank's value, on all ranks."""
    if is_single():
        return value
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values, 0)
    return values[0]


def all_reduce_sum(tensor: Any) -> Any:
    """The sum of a tensor over all ranks, on its device.

    Exact for integers, and for a value that is zero on all ranks but one.
    """
    if is_single():
        return tensor
    import torch.distributed as dist

    total = tensor.detach().cpu()
    if total.data_ptr() == tensor.data_ptr():
        total = total.clone()
    dist.all_reduce(total)
    return total.to(tensor.device)


def require_same(facts: dict[str, str], shown: bool = True) -> None:
    """Raise `SegkeyError` on all ranks, naming what differs, unless they have the same facts.

    Args:
        facts: values by their names in messages.
        shown: values may be printed; if not, they are compared by their digests.
    """
    if is_single():
        return
    values = (
        facts
        if shown
        else {key: hashlib.sha256(value.encode()).hexdigest() for key, value in facts.items()}
    )
    gathered = all_gather((socket.gethostname(), values))
    here, mine = gathered[0]
    for number, (host, theirs) in enumerate(gathered):
        different = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
        if different:
            key = different[0]
            values = f": {theirs.get(key)}, not {mine.get(key)}" if shown else ""
            raise SegkeyError(
                f"rank {number} on {host} differs from rank 0 on {here} in {key}{values}",
                "start the same segkey with the same arguments and data on every machine",
            )


def check_shared(folder: Path) -> None:
    """Raise `SegkeyError` on all ranks unless ``folder`` is the same for all."""
    if is_single():
        return
    token = broadcast(folder / f".{secrets.token_hex(8)}.token")
    if is_main():
        files.create(token)
    barrier()
    blind = [host for host, sees in all_gather((rank_name(), files.is_there(token))) if not sees]
    if is_main():
        files.remove(token)
    if blind:
        raise SegkeyError(
            f"{blind[0]} does not see what rank 0 wrote to {folder}",
            "ranks on several machines need a file system that they share",
        )


@contextlib.contextmanager
def sole_writer(folder: Path, wait: bool = False) -> Iterator[None]:
    """`folder_lock.sole_writer` for all ranks: the main rank locks until all are done."""
    with folder_lock.sole_writer(folder, wait) if is_main() else contextlib.nullcontext():
        check_shared(folder)
        yield
        barrier()


@contextlib.contextmanager
def writer_if_free(folder: Path) -> Iterator[bool]:
    """`sole_writer`, where a folder that another process holds is no error: False on all ranks."""
    with contextlib.ExitStack() as held:
        free = True
        if is_main():
            try:
                held.enter_context(folder_lock.sole_writer(folder))
            except folder_lock.HeldError:
                free = False
        yield broadcast(free)
        barrier()


def my_share(items: Sequence[T]) -> Sequence[T]:
    """This rank's items: those at positions `rank`, `rank` + `world_size`, …"""
    return items[rank() :: world_size()]


def my_batches(count: int, size: int) -> "np.ndarray":
    """Indices of the images in this rank's batches; int64.

    Batches stay whole, so that each is computed as by one process.

    Args:
        count: of images.
        size: images per batch.
    """
    import numpy as np

    numbers = np.arange(count)
    return numbers[numbers // size % world_size() == rank()]


def my_slices(count: int, size: int) -> "list[np.ndarray]":
    """This rank's slice of every batch: arrays of positions 0 … count − 1; the last may be empty.

    Args:
        count: of images.
        size: images per batch, of all ranks.
    """
    import numpy as np

    positions = np.arange(count)
    return [
        np.array_split(positions[start : start + size], world_size())[rank()]
        for start in range(0, count, size)
    ]
