"""One process at a time writes into a folder: a lock file, and what a dead process left there."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from segkey.errors import SegkeyError
from segkey.system.files import open_lock, open_regular, remove

try:
    import fcntl
except ImportError:  # Windows has no flock; there two writers in one folder are not noticed
    fcntl = None

_PATIENCE = 10.0  # seconds; a process that was stopped lets go of nothing
# Files that segkey has not finished writing.
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial|.+\.h5\.partial", re.DOTALL)


class HeldError(SegkeyError):
    """Another process holds a folder."""


@contextlib.contextmanager
def sole_writer(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold ``folder`` for this process; a second writer is refused while the first lives.

    With ``wait``, the second waits for some seconds first: for work that ends soon.

    The lock goes with the open file, so a process that was killed leaves no lock to clean up
    (children that it forked keep it until they end; segkey's own workers are spawned, and do not).
    What it left half-written is removed: no other process writes there now.

    Raises:
        HeldError: another process holds it.
        SegkeyError: its lock file is a link, or the system refuses to open it.
    """
    with open_lock(folder / ".lock") as file:
        if fcntl:
            _lock(file, folder, _PATIENCE if wait else 0.0)
            for left in folder.iterdir():
                if _PARTIAL.fullmatch(left.name) and (left.is_symlink() or not left.is_dir()):
                    remove(left)
        yield


def _lock(file: IO[bytes], folder: Path, patience: float) -> None:
    """Take a lock file's lock, or raise `HeldError` after some seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise HeldError(
                    f"another segkey process is writing to {folder}",
                    "wait until it ends, or choose another folder",
                ) from None
        time.sleep(0.1)


def is_held(folder: Path) -> bool:
    """Whether a segkey process holds ``folder`` now (see `sole_writer`); changes nothing."""
    if not fcntl:
        return False
    try:
        with open_regular(folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of when the file is closed
            return False
    except BlockingIOError:
        return True
    except (OSError, SegkeyError):  # no lock file, or a file system without locks
        return False
