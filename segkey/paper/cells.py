"""What is kept of a cell: whether its run can be used, and whether its result counts."""

import os
from pathlib import Path

import torch

from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import authenticity, locked_runs, runs, weights
from segkey.paper.grid import Cell
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


def damage(path: Path) -> str:
    """Why a run that was begun cannot be gone on with; empty if it can, or if there is none."""
    if not os.path.lexists(path / "run.json"):
        return ""
    try:
        run = runs.Run.open(path)
        if run.config["epochs_done"]:
            run.history()
            run.load_model(torch.device("cpu"))
            if run.state_file.is_file():
                weights.read_archive(run.state_file)
        return ""
    except SegkeyError as error:
        return error.what


def locked(path: Path, original: Path, key: Key, cell: Cell) -> runs.Run:
    """The run of a locked cell: made now, if it is not there.

    Args:
        path: of the run.
        original: the baseline of the same seed.
        key, cell: what it is locked with.

    Raises:
        BrokenRunError: the baseline cannot be used, or the run was made of other weights.
    """
    try:
        baseline = runs.Run.open(original)
        if os.path.lexists(path / "run.json"):
            run = runs.Run.open(path)
            made_of = run.config["model"].get("lock", {}).get("original")
            if made_of != baseline.weights_checksum:
                raise SegkeyError(f"{path} was locked from other weights than those of {original}")
            return run
        return locked_runs.lock_run(baseline, key, cell.method, cell.block_size, path.name)
    except SegkeyError as error:
        raise BrokenRunError(error.what, error.hint) from None


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
