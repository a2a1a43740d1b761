"""The life of a job under torchrun: how its ranks join, notice a lost one, and end.

Without torchrun there is a single process: then `job` does nothing, and torch is not imported.

Ranks communicate by gloo, and gradients on GPUs by NCCL. If a rank dies, torchrun ends the others.
"""

import atexit
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from segkey.errors import SegkeyError
from segkey.system import interrupts
from segkey.system.distributed import barrier, is_main, is_single, rank, require_same, world_size
from segkey.version import VERSION

COMMANDS = ("encrypt", "train", "evaluate", "attack", "reproduce")
GRACE = 2.0  # seconds in which torchrun ends a rank after another one failed
saving = threading.Lock()  # held while an interrupted rank saves: it ends with torchrun only then
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|gloo|nccl|process group|store", re.IGNORECASE
)


class LostRankError(SegkeyError):
    """Another rank is gone; that rank reports the cause."""


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
        time.sleep(GRACE)


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
