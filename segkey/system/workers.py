"""Worker processes that answer in order and end with their parent; a dead one is an error."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from segkey.errors import SegkeyError
from segkey.system import distributed

_state: object = None
_Out = TypeVar("_Out")


class Named(Protocol):
    """What a message can name, such as an image."""

    name: str


class Task(Protocol):
    """What a worker is given at a time: some items, and whatever else it needs."""

    items: list[Named]


_Task = TypeVar("_Task", bound=Task)


def state() -> object:
    """In a worker: the ``state`` that `Workers` was given."""
    return _state


def _set_state(value: object) -> None:
    global _state
    _state = value


def _begin(value: object) -> None:
    """In a new worker process."""
    _set_state(value)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End with the parent: otherwise a worker would wait forever for its next task."""
    multiprocessing.parent_process().join()
    os._exit(1)


def cores() -> int:
    """Cores that this process may use; ranks on one machine share them equally."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, count // distributed.local_size())


class Workers:
    """A pool of worker processes; with one worker, this process itself does the work.

    The standard library's pool notices a worker that dies; this adds bounded look-ahead, so that
    memory does not grow with the number of images, and names what was being worked on.

    Args:
        workers: processes; by default, one per core.
        state: sent to every worker once, and returned by `state` there; for example a cipher.
    """

    def __init__(self, workers: int | None, state: object = None):
        self.count, self.state = workers or cores(), state

    def __enter__(self) -> "Workers":
        self.pool = None
        if self.count > 1:
            # Spawned, not forked: a fork would break the caller's threads, such as torch's.
            context = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(
                self.count, context, initializer=_begin, initargs=(self.state,)
            )
        else:
            _set_state(self.state)
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def map_ordered(
        self, function: Callable[[_Task], _Out], tasks: Iterable[_Task]
    ) -> Iterator[tuple[_Task, _Out]]:
        """Yield each task with its result, in order.

        Raises:
            SegkeyError: a worker died; the items that were being worked on are named.
        """
        if not self.pool:
            yield from ((task, function(task)) for task in tasks)
            return
        waiting: deque[tuple[_Task, Future]] = deque()
        ahead = iter(tasks)
        try:
            for task in ahead:
                waiting.append((task, self.pool.submit(function, task)))
                if len(waiting) >= 4 * self.count:
                    yield waiting[0][0], waiting[0][1].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0][0], waiting[0][1].result()
                waiting.popleft()
        except BrokenProcessPool:
            (first, _), (last, _) = waiting[0], waiting[-1]
            raise SegkeyError(
                f"a worker process died between {first.items[0].name} and {last.items[-1].name} "
                "(killed, or out of memory)",
                "run the same command again: finished shards are kept; use fewer --workers if "
                "memory is short",
            ) from None
