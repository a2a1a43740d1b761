"""What torchrun gives us, and nothing more: who we are among how many, and a few ways to agree.

Every rank runs the same command on the same files over a shared file system. All compute their
part, and the first one alone prints and writes results. Without torchrun there is one process: then
nothing here does anything, and torch is not imported.

Ranks talk by gloo, and gradients on GPUs by NCCL. Nobody waits for a rank that died: torchrun ends
the others.
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
saving = (
    threading.Lock()
)  # held while a rank saves what is finished: it does not leave with its torchrun before
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|gloo|nccl|process group|store", re.IGNORECASE
)


class LostRankError(SegkeyError):
    """Another rank is gone; what it died of is its own to say."""


def _number(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))


def rank() -> int:
    """Which rank this process is, 0 for the first."""
    return _number("RANK", 0)


def world_size() -> int:
    """How many ranks there are."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """Which rank of its own machine this process is."""
    return _number("LOCAL_RANK", 0)


def local_size() -> int:
    """How many ranks there are on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def is_single() -> bool:
    """Whether there is one process."""
    return world_size() == 1


def is_main() -> bool:
    """Whether this is the rank that prints and writes."""
    return rank() == 0


def rank_name() -> str:
    """This rank, for people: its number and machine."""
    return f"rank {rank()} of {world_size()} on {socket.gethostname()}"


def job_id() -> str:
    """What stays the same when torchrun starts its ranks again; empty where there is no
    torchrun."""
    given = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if given != "none":  # it is none without --rdzv-id
        return given
    # Hashed: it stands in run.json, which may be given away, and needs to be told apart, not read.
    return hashlib.sha256(f"{socket.gethostname()}/{os.getppid()}".encode()).hexdigest()[:16]


def restarted() -> bool:
    """Whether torchrun has started this job again after a failure (``--max-restarts``)."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


@contextlib.contextmanager
def job(command: str, arguments: dict[str, Any]) -> Iterator[None]:
    """What all ranks do together, from the first words to the last.

    Args:
        command: its name; not every one can be dealt out.
        arguments: must be the same on all ranks.

    Raises:
        SegkeyError: this command cannot be dealt out, or ranks differ in their version or
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
    """Turn what gloo and NCCL say of a rank that is gone into a `LostRankError`."""
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
    """Make the ranks known to each other."""
    import torch.distributed as dist

    store, *_ = next(dist.rendezvous("env://"))
    # torchrun may keep its store when it starts ranks again: they must not meet the addresses of
    # those that died.
    store = dist.PrefixStore(f"segkey/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    # Ranks may wait for each other for long, as their parts differ; the dead are torchrun's to
    # notice.
    how = {"store": store, "rank": rank(), "world_size": world_size(), "timeout": timedelta(days=1)}
    dist.init_process_group("gloo", **how)


def _leave_with_parent(parent: int) -> None:
    """A rank whose torchrun was killed would go on writing beside the next job."""
    while os.getppid() == parent:
        time.sleep(0.5)
    with saving:
        os._exit(1)


def last_words(error: SegkeyError) -> None:
    """Before an error is printed: give it to torchrun's summary, and let those speak who know more.

    An error that all ranks meet is the first rank's to print: the others wait as long as torchrun
    takes to end them, and so does whoever only noticed that another rank is gone.
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
    """End this rank with an exit status, all written, without the end of the interpreter.

    There, a rank whose results are complete now and then aborts, and torchrun takes the job for
    failed ("terminate called without an active exception"; 2 of 13 attacks by two ranks, with torch
    2.14 and Python 3.11; which thread it is was not found out, gloo's are the likely ones).
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
    """What every rank has, in their order."""
    if is_single():
        return [value]
    import torch.distributed as dist

    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: T) -> T:
    """What the first rank has."""
    if is_single():
        return value
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values, 0)
    return values[0]


def all_reduce_sum(tensor: Any) -> Any:
    """The sum of a tensor over all ranks, on its own device; integers are exact, and so is a value
    that one rank has."""
    if is_single():
        return tensor
    import torch.distributed as dist

    total = tensor.detach().cpu()
    if total.data_ptr() == tensor.data_ptr():
        total = total.clone()
    dist.all_reduce(total)
    return total.to(tensor.device)


def require_same(facts: dict[str, str], shown: bool = True) -> None:
    """Raise `SegkeyError` on all ranks unless they have the same facts; it names what differs.

    Args:
        facts: values by what they are called.
        shown: whether values may be printed; otherwise they are compared by their digest.
    """
    if is_single():
        return
    values = (
        facts
        if shown
        else {key: hashlib.sha256(value.encode()).hexdigest() for key, value in facts.items()}
    )
    everybody = all_gather((socket.gethostname(), values))
    here, mine = everybody[0]
    for number, (host, theirs) in enumerate(everybody):
        different = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
        if different:
            key = different[0]
            values = f": {theirs.get(key)}, not {mine.get(key)}" if shown else ""
            raise SegkeyError(
                f"rank {number} on {host} differs from rank 0 on {here} in {key}{values}",
                "start the same segkey with the same arguments and data on every machine",
            )


def check_shared(folder: Path) -> None:
    """Raise `SegkeyError` on all ranks unless all see the same ``folder``."""
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
    """`segkey.system.files.sole_writer` for all ranks together: the first holds the folder until
    all are done."""
    with files.sole_writer(folder) if is_main() else contextlib.nullcontext():
        check_shared(folder)
        yield
        barrier()


def my_share(items: Sequence[T]) -> Sequence[T]:
    """This rank's part: every item whose position, divided by the number of ranks, leaves the
    rank."""
    return items[rank() :: world_size()]


def my_batches(count: int, size: int) -> "np.ndarray":
    """Indices of the images 0 … count − 1 in this rank's batches: whole ones, so that each is
    computed as by one process."""
    import numpy as np

    numbers = np.arange(count)
    return numbers[numbers // size % world_size() == rank()]


def my_slices(count: int, size: int) -> "list[np.ndarray]":
    """Of each batch of ``size`` of the positions 0 … count − 1, this rank's slice; of the last one
    it may be empty."""
    import numpy as np

    positions = np.arange(count)
    return [
        np.array_split(positions[start : start + size], world_size())[rank()]
        for start in range(0, count, size)
    ]


def data_parallel(network: Any, device: Any) -> Any:
    """A network whose gradients are averaged over all ranks; the network itself where there is one
    process."""
    if is_single():
        return network
    from torch.nn.parallel import DistributedDataParallel

    how = {"device_ids": [device.index], "process_group": _gpus()} if device.type == "cuda" else {}
    # Statistics of batch normalisation are not copied from the first rank at every step: GPUs
    # compute them together.
    return DistributedDataParallel(
        network, broadcast_buffers=False, gradient_as_bucket_view=True, **how
    )


def sync_batchnorm(model: Any, device: Any) -> Any:
    """A model whose batch normalisation sees the batches of all ranks; on GPUs only, as torch has
    it."""
    if is_single() or device.type != "cuda":
        return model
    from torch.nn import SyncBatchNorm

    return SyncBatchNorm.convert_sync_batchnorm(model, _gpus())


def average_buffers(model: Any) -> None:
    """Give every rank the mean of all ranks' statistics of batch normalisation."""
    if is_single():
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(all_reduce_sum(buffer.contiguous()) / world_size())


def same_weights(model: Any) -> Any:
    """Give every rank the first one's weights; returns the model."""
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
    """The ranks as NCCL knows them."""
    global _group_of_gpus
    if _group_of_gpus is None:
        import torch.distributed as dist

        _group_of_gpus = dist.new_group(backend="nccl")
    return _group_of_gpus
