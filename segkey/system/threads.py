"""How OpenMP's threads wait for each other: a short spin, and none on a busy machine.

GNU OpenMP, which torch brings along, spins for some 300,000 rounds before a thread sleeps. Beside
other processes a spinning thread takes the core that the thread it waits for needs. It reads its
environment once, when torch is first imported.
"""

import functools
import os

_CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPIN, SPIN_IF_BUSY = "10000", "0"  # rounds


def bound_spinning() -> None:
    """Set how long threads spin, in the environment of this process and those it starts.

    An environment in which the user set it stays as it is. Without effect if torch is imported.
    """
    busy = was_busy()
    if not any(name in os.environ for name in _CHOSEN_BY_USER):
        os.environ["GOMP_SPINCOUNT"] = SPIN_IF_BUSY if busy else SPIN


@functools.cache  # later, this process itself keeps the cores
def was_busy() -> bool:
    """True if other processes kept more than half of the cores in the minute before the start."""
    try:
        return os.getloadavg()[0] > len(os.sched_getaffinity(0)) / 2
    except (AttributeError, OSError):  # not known on every system
        return False
