"""What is kept of a cell: whether its run can be used, and whether its result counts."""

import os
from pathlib import Path

import torch

from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import authenticity, runs
from segkey.shards import Split
from segkey.system.files import is_there
from segkey.system.json_files import read_json
from segkey.version import VERSION

_CELL = {
    "run": str,
    "method": str,
    "block_size": int,
    "seed": int,
    "device": str,
    "seconds": dict,
    "correct": dict,
}


class BrokenRunError(SegkeyError):
    """A cell's run that was begun cannot be used."""


def damage(path: Path, key: Key) -> str:
    """Why a run that was begun cannot be gone on with; empty if it can, or if there is none."""
    if not os.path.lexists(path / "run.json"):
        return ""
    try:
        run = runs.Run.open(path).unlock(key)
        if run.config["epochs_done"]:
            run.history()
            run.load_model(torch.device("cpu"))
            if run.state_file.is_file():
                run.read_state()
        return ""
    except SegkeyError as error:
        return error.what


def read_cell(file: Path) -> dict:
    """The result of a cell.

    Raises:
        SegkeyError: it is damaged.
    """
    document = read_json(file, "the result of a cell")
    if not all(isinstance(document.get(name), kind) for name, kind in _CELL.items()):
        raise SegkeyError(
            f"{file} is damaged", "restore it from a backup, or remove it to measure the cell again"
        )
    return document


def why_stale(folder: Path, cell: dict, splits: dict[str, Split], key: Key) -> str:
    """Why the result of a cell does not count; empty if it does."""
    if not authenticity.is_authentic("cell", cell, key):
        return f"it was not made with key {key.id}"
    try:
        run = runs.Run.open(folder)
    except SegkeyError as error:
        return error.what
    stated = cell["tested"]["weights_sha256"]
    now = {
        # Weights that were removed to save space leave an authentic result as it is.
        "the weights": run.weights_checksum if is_there(run.weights_file) else stated,
        "the test images or masks": splits["test"].fingerprint,
        "the training images or masks": splits["train"].fingerprint,
        "the version of segkey": VERSION,
    }
    tested = cell["tested"]
    before = (
        stated,
        tested["fingerprint"],
        cell["trained_on"],
        tested["versions"]["segkey"],
    )
    changed = [
        name for (name, value), other in zip(now.items(), before, strict=True) if value != other
    ]
    return f"since it was made, {' and '.join(changed)} changed" if changed else ""
