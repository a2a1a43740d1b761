"""Signals that stop a command: the first is raised, later ones do not interrupt what it saves.

Ctrl-C reaches a rank of torchrun twice, from the terminal and from torchrun; a user may press it
twice; and when a rank has ended, torchrun sends SIGTERM to the others.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from segkey.system import distributed

_ALL = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(KeyboardInterrupt):
    """A signal stopped the work.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Stops:
    """What `raised_once` yields.

    Attributes:
        held: signals are only remembered. Set it by assignment: during a call, one could still be
            raised.
        first: the signal that was raised; None before.
        late: signals that came while they were held.
    """

    def __init__(self):
        self.held, self.first, self.late = False, None, []

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.held:
            self.late.append(number)
            return
        self.held, self.first = True, number
        raise Stopped(number)


@contextlib.contextmanager
def raised_once(numbers: Sequence[int] = _ALL) -> Iterator[Stops]:
    """While it is entered, the first of some signals raises `Stopped`; later ones are remembered.

    Handlers that the user set and ignored signals stay as they are. In a thread other than the main
    one, which no signal reaches, it is a no-op.
    """
    stops, before = Stops(), {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            handler = signal.getsignal(number)
            ours = isinstance(getattr(handler, "__self__", None), Stops)
            if ours or handler in (signal.default_int_handler, signal.SIG_DFL):
                before[number] = signal.signal(number, stops.receive)
    try:
        yield stops
    finally:
        for number, handler in before.items():
            # torchrun sends SIGINT a second time while this rank is leaving; it kills ranks that do
            # not leave.
            again = stops.first == number == signal.SIGINT and not distributed.is_single()
            signal.signal(number, signal.SIG_IGN if again else handler)
        if stops.first is None:  # an error is on its way; all is saved, so terminate if asked to
            for number in set(stops.late) - {signal.SIGINT}:
                os.kill(os.getpid(), number)
