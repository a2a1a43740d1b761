"""Ranks under torchrun: their numbers, collective operations, and checks that they agree.

Every rank runs the same command on the same files on a shared file system. All compute their part;
the main rank alone prints and writes results. Without torchrun there is a single process: then all
functions here are no-ops, and torch is not imported.

Ranks communicate by gloo, and gradients on GPUs by NCCL. If a rank dies, torchrun ends the others.
"""

import atexit
import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from segkey.errors import SegkeyError
from segkey.system import files
from segkey.version import VERSION

if TYPE_CHECKING:  # the command line answers --help without NumPy
    import numpy as np

T = TypeVar("T")

COMMANDS = ("encrypt", "train", "evaluate", "attack", "reproduce")
_GRACE = 2.0  # seconds in which torchrun ends a rank after another one failed
saving = threading.Lock()  # held while an interrupted rank saves: it ends with torchrun only then
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|gloo|nccl|process group|store", re.IGNORECASE
)


class LostRankError(SegkeyError):
    """Another rank is gone; that rank reports the cause."""


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


@contextlib.contextmanager
def job(command: str, arguments: dict[str, Any]) -> Iterator[None]:
    """Run a command on all ranks together.

    Args:
        command: its name, one of `COMMANDS`.
        arguments: of the command; must be the same on all ranks.

    Raises:
        SegkeyError: the command cannot be distributed, or ranks differ in their version or
            arguments.
        LostRankError: another rank is gone.
    """
    if is_single():
        yield
        return
    if command not in COMMANDS:
        raise SegkeyError(
            f"segkey {command} has nothing to deal out to {world_size()} ranks",
            f"run it without torchrun, which is for: {', '.join(COMMANDS)}",
        )
    import torch.distributed as dist

    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    from segkey.system import interrupts

    with interrupts.raised_once([signal.SIGINT]), lost_ranks_told():
        ours = not dist.is_initialized()
        if ours:
            join()
        require_same({"segkey": VERSION})
        require_same(
            {f"--{key.replace('_', '-')}": repr(value) for key, value in arguments.items()},
            shown=False,
        )
        yield
        barrier()
        if ours:
            dist.destroy_process_group()


@contextlib.contextmanager
def lost_ranks_told() -> Iterator[None]:
    """Turn the errors of gloo and NCCL about a rank that is gone into a `LostRankError`."""
    try:
        yield
    except RuntimeError as error:
        if is_single() or not _LOST.search(str(error)):
            raise
        raise LostRankError(
            f"another rank is gone ({str(error).strip().splitlines()[0][:200]})",
            "see what that rank said before it ended",
        ) from None


def join() -> None:
    """Join the process group of all ranks."""
    import torch.distributed as dist

    store, *_ = next(dist.rendezvous("env://"))
    # torchrun may keep its store when it restarts ranks: they must not find the addresses of those
    # that died.
    store = dist.PrefixStore(f"segkey/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    # Ranks may wait long for each other, as their parts differ; torchrun notices those that died.
    how = {"store": store, "rank": rank(), "world_size": world_size(), "timeout": timedelta(days=1)}
    dist.init_process_group("gloo", **how)


def _leave_with_parent(parent: int) -> None:
    """End with torchrun: otherwise a rank would go on writing beside the next job."""
    while os.getppid() == parent:
        time.sleep(0.5)
    with saving:
        os._exit(1)


def last_words(error: SegkeyError) -> None:
    """Before an error is printed: add it to torchrun's summary; wait unless this rank tells it.

    An error that all ranks meet is printed by the main rank: the others wait as long as torchrun
    takes to end them. So does a rank that only noticed that another one is gone.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and not isinstance(error, LostRankError):
        extra = {"py_callstack": error.what, "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError):
            Path(file).write_text(
                json.dumps(
                    {"message": {"message": error.what, "extraInfo": extra}}, allow_nan=False
                ),
                encoding="utf-8",
            )
    if not is_single() and (not is_main() or isinstance(error, LostRankError)):
        time.sleep(_GRACE)


def leave(status: int | str | None) -> NoReturn:
    """Flush all output and end this rank, without the interpreter's own shutdown.

    In that shutdown, a rank whose results are complete aborts now and then ("terminate called
    without an active exception"), and torchrun reports the job as failed: 2 of 13 attacks by two
    ranks, with torch 2.14 and Python 3.11. Gloo's threads are the likely cause.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


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
def sole_writer(folder: Path) -> Iterator[None]:
    """`segkey.system.files.sole_writer` for all ranks: the main rank locks until all are done."""
    with files.sole_writer(folder) if is_main() else contextlib.nullcontext():
        check_shared(folder)
        yield
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


def data_parallel(network: Any, device: Any) -> Any:
    """A network whose gradients are averaged over all ranks; unchanged if there is one process."""
    if is_single():
        return network
    from torch.nn.parallel import DistributedDataParallel

    how = {"device_ids": [device.index], "process_group": _gpus()} if device.type == "cuda" else {}
    # Statistics of batch normalisation are not copied from the main rank at every step: GPUs
    # compute them together.
    return DistributedDataParallel(
        network, broadcast_buffers=False, gradient_as_bucket_view=True, **how
    )


def sync_batchnorm(model: Any, device: Any) -> Any:
    """A model whose batch normalisation sees the batches of all ranks; unchanged on CPUs.

    torch has no such layer for CPUs.
    """
    if is_single() or device.type != "cuda":
        return model
    from torch.nn import SyncBatchNorm

    return SyncBatchNorm.convert_sync_batchnorm(model, _gpus())


def average_buffers(model: Any) -> None:
    """Average the statistics of batch normalisation over all ranks, in place."""
    if is_single():
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(all_reduce_sum(buffer.contiguous()) / world_size())


def same_weights(model: Any) -> Any:
    """Copy the main rank's weights to all ranks; returns the model."""
    if not is_single():
        state = broadcast(
            {name: tensor.cpu() for name, tensor in model.state_dict().items()}
            if is_main()
            else None
        )
        model.load_state_dict(state)
    return model


_group_of_gpus: Any = None


def _gpus() -> Any:
    """The process group that communicates by NCCL."""
    global _group_of_gpus
    if _group_of_gpus is None:
        import torch.distributed as dist

        _group_of_gpus = dist.new_group(backend="nccl")
    return _group_of_gpus
