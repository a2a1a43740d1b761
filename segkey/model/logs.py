"""Logs of a training for other programs: ``log.csv`` in the run, or TensorBoard's event files."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from segkey.errors import SegkeyError
from segkey.system import distributed
from segkey.system.files import is_folder_there, is_there, make_folder, written_whole

KINDS = ("csv", "tensorboard")
CSV, EVENTS = "log.csv", "tensorboard"
_FIELDS = ("epoch", "loss", "val_loss", "lr", "images_per_second", "seconds", "best")


class NoLog:
    """Keeps nothing; what other logs do."""

    def __call__(self, history: Sequence[dict]) -> None:
        """Log the last epoch of a history."""

    def close(self) -> None:
        """Finish what is being written."""


class CsvLog(NoLog):
    """All epochs as ``log.csv``, written anew after each."""

    def __init__(self, folder: Path):
        self.file = folder / CSV

    def __call__(self, history: Sequence[dict]) -> None:
        """Write a line per epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        with written_whole(self.file, "w") as opened:
            opened.write(text.getvalue())


class TensorBoardLog(NoLog):
    """Losses, learning rate and speed by epoch, in a folder that TensorBoard shows.

    A training that goes on after n epochs writes a new file, and TensorBoard drops what an earlier
    one had beyond them.
    """

    def __init__(self, folder: Path, done: int):
        is_folder_there(folder / EVENTS)
        self.writer = _summary_writer()(str(make_folder(folder / EVENTS)), purge_step=done + 1)

    def __call__(self, history: Sequence[dict]) -> None:
        """Write the last epoch."""
        line = history[-1]
        names = {"loss": "loss/train", "val_loss": "loss/val", "lr": "lr"}
        names["images_per_second"] = "images per second"
        for field, name in names.items():
            if line.get(field) is not None:
                self.writer.add_scalar(name, line[field], line["epoch"])
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


def check(kind: str | None) -> None:
    """Raise `SegkeyError` unless there is such a log; asked before anything is trained."""
    if kind is not None and kind not in KINDS:
        raise SegkeyError(f"there is no log '{kind}'", f"logs: {', '.join(KINDS)}")
    if kind == "tensorboard":
        _summary_writer()


def opened(kind: str | None, folder: Path, done: int) -> NoLog:
    """The log of a run; the first rank writes it.

    Args:
        kind: one of `KINDS`, or None.
        folder: of the run.
        done: epochs that it goes on after.
    """
    if kind is None or not distributed.is_main():
        return NoLog()
    if kind == "csv":
        is_there(folder / CSV)
        return CsvLog(folder)
    return TensorBoardLog(folder, done)


def _summary_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SegkeyError(
            "logs for TensorBoard need the package tensorboard, which is not installed",
            "pip install 'segkey[tensorboard]', or take --log csv",
        ) from None
    return SummaryWriter
