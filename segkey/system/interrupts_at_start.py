"""Ctrl-C before a command runs: while modules are imported, one line instead of a traceback."""

import os
import signal


def end_at_once() -> None:
    """From now on, Ctrl-C ends the process with one line; a handler of the caller's stays.

    Python would raise `KeyboardInterrupt` somewhere in the import of a library.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def interrupt() -> None:
    """From now on, Ctrl-C raises `KeyboardInterrupt` again, which commands answer in words."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"\nsegkey: stopped before anything was done\n")
    os._exit(128 + number)
