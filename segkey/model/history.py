"""The history of a training: ``history.jsonl``, one line of JSON per epoch."""

import json
from pathlib import Path

from segkey.errors import SegkeyError
from segkey.system.files import is_there, read_text, written_whole
from segkey.system.json_files import with_checksum, without_checksum
from segkey.system.validators import YES_OR_NO, misfit, number, or_none, whole

_LOSS = or_none(number())
_EPOCH = {
    "epoch": whole(1, 10**9),
    "loss": _LOSS,
    "val_loss": _LOSS,
    "seconds": number(0),
    "best": YES_OR_NO,
}
_MOST_BYTES = 8 << 20  # hostile JSON takes 25 times as much in memory
_HINT = "restore it from a backup, or train again"


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
        if problem := misfit(epoch, _EPOCH, optional=_EPOCH):
            raise SegkeyError(f"{file} is damaged: in line {line}, {problem}", _HINT)
    return epochs


def write(file: Path, epochs: list[dict]) -> None:
    """Replace the file."""
    with written_whole(file, "w") as opened:
        for epoch in epochs:
            opened.write(json.dumps(with_checksum(epoch), allow_nan=False) + "\n")
