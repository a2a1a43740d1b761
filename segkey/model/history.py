"""The history of a training: ``history.jsonl``, one line of JSON per epoch."""

import json
from dataclasses import dataclass
from pathlib import Path

from segkey.errors import SegkeyError
from segkey.system import json_records
from segkey.system.files import is_there, read_text, written_whole
from segkey.system.json_files import with_checksum, without_checksum
from segkey.system.json_records import Misfit, stated
from segkey.system.validators import YES_OR_NO, number, or_none, whole

_LOSS = or_none(number())
_MOST_BYTES = 8 << 20  # hostile JSON takes 25 times as much in memory
_HINT = "restore it from a backup, or train again"


@dataclass(frozen=True, kw_only=True)
class _Epoch:
    """What reports rely on; an epoch may tell less, and more."""

    epoch: int | None = stated(whole(1, 10**9), default=None)
    loss: float | None = stated(_LOSS, default=None)
    val_loss: float | None = stated(_LOSS, default=None)
    seconds: float | None = stated(number(0), default=None)
    best: bool | None = stated(YES_OR_NO, default=None)


def read(file: Path) -> list[dict]:
    """One dictionary per epoch; none if there is no file.

    Raises:
        SegkeyError: the file is damaged.
    """
    if not is_there(file):
        return []
    try:
        lines = [json.loads(line) for line in read_text(file, _MOST_BYTES).splitlines()]
        epochs = [without_checksum(line, file) for line in lines]
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise SegkeyError(f"{file} is damaged", _HINT) from None
    for line, epoch in enumerate(epochs, 1):
        try:
            json_records.read(_Epoch, epoch)
        except Misfit as misfit:
            raise SegkeyError(f"{file} is damaged: in line {line}, {misfit}", _HINT) from None
    return epochs


def write(file: Path, epochs: list[dict]) -> None:
    """Replace the file."""
    with written_whole(file, "w") as opened:
        for epoch in epochs:
            opened.write(json.dumps(with_checksum(epoch), allow_nan=False) + "\n")
