"""A cell's run: whether it can be gone on with, what is known of it, whether its result counts."""

import os
from dataclasses import asdict
from pathlib import Path

import torch

from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import authenticity, comparability, locked_runs, runs
from segkey.model.results import Attack, Evaluation, Result
from segkey.paper.grid import Cell
from segkey.paper.results import CellResult
from segkey.shards import Split
from segkey.system.files import is_there
from segkey.system.json_records import as_json
from segkey.version import VERSION


class BrokenRunError(SegkeyError):
    """A cell's run that was begun cannot be used."""


def damage(path: Path, key: Key) -> str:
    """Why a run that was begun cannot be gone on with; empty if it can, or if there is none."""
    if not os.path.lexists(path / "run.json"):
        return ""
    try:
        run = runs.Run.open(path).unlock(key)
        if run.configuration.epochs_done:
            run.history()
            run.load_model(torch.device("cpu"))
            if run.state_file.is_file():
                run.read_state()
        return ""
    except SegkeyError as error:
        return error.what


def locked(path: Path, original: Path, key: Key, cell: Cell) -> runs.Run:
    """The run of a locked cell: made now, if it is not there.

    Args:
        original: the baseline of the same seed.
        key, cell: what it is locked with.

    Raises:
        BrokenRunError: the baseline cannot be used, or the run was made of other weights.
    """
    try:
        baseline = runs.Run.open(original).unlock(key)
        if os.path.lexists(path / "run.json"):
            run = runs.Run.open(path)
            lock = run.configuration.model.lock
            if not lock or lock.original != baseline.weights_checksum:
                raise SegkeyError(f"{path} was locked from other weights than those of {original}")
            return run
        return locked_runs.lock_run(baseline, key, cell.method, cell.block_size, path.name)
    except SegkeyError as error:
        raise BrokenRunError(error.what, error.hint) from None


def check_training(run: runs.Run, splits: dict[str, Split], plain: Path) -> None:
    """Raise `SegkeyError` if a finished run was trained on other images.

    A run that is not finished reports that itself. ``plain`` is the folder of the shards.
    """
    trained_on = run.configuration.data.fingerprint
    if trained_on and trained_on != splits["train"].fingerprint:
        raise SegkeyError(
            f"{run.path} was trained on other images or masks than those in {plain}",
            "remove its folder to train it again, or choose another folder with --out",
        )


def describe(cell: Cell, run: runs.Run, result: Evaluation | Attack, seconds: dict) -> CellResult:
    """All that is known of a finished cell."""
    made, tested_on = run.configuration, result.device
    attacked = isinstance(result, Attack)
    return CellResult(
        **asdict(cell),
        run=run.name,
        device=made.device if made.device == tested_on else f"{made.device}, tested on {tested_on}",
        versions=made.versions,
        created=made.created,
        seconds=seconds,
        epochs=made.epochs_done,
        best=as_json(made.best),
        weights_sha256=result.tested["weights_sha256"],
        trained_on=made.data.fingerprint,
        tested=result.tested,
        images=result.images,
        conditions=_conditions(run, result),
        correct=result.correct,
        plain=result.plain if attacked else None,
        incorrect=result.incorrect if attacked else None,
        majority_class=result.majority_class,
        key_space_bits=result.key_space_bits if attacked else None,
    )


def _conditions(run: runs.Run, result: Result) -> dict:
    """Under which a cell was made; its classes are those of the settings."""
    found = comparability.of_run(run.configuration, result)
    return {name: value for name, value in found.items() if name != "classes"}


def needed(cell: Cell) -> list[str]:
    """The names of the cells that nobody else may work on while this one is made."""
    return [cell.name, *([Cell("none", 1, cell.seed).name] if cell.locked else [])]


def why_stale(
    folder: Path, cell: CellResult, splits: dict[str, Split], key: Key, wrong_keys: int
) -> str:
    """Why the result of a cell does not count; empty if it does."""
    if not authenticity.is_authentic("cell", cell.source or {}, key):
        return f"it was not made with key {key.id}"
    try:
        run = runs.Run.open(folder)
    except SegkeyError as error:
        return error.what
    tested = cell.tested
    # Weights that were removed to save space leave an authentic result as it is.
    weights_now = run.weights_checksum if is_there(run.weights_file) else tested["weights_sha256"]
    pairs = {
        "the weights": (tested["weights_sha256"], weights_now),
        "the test images or masks": (tested["fingerprint"], splits["test"].fingerprint),
        "the training images or masks": (cell.trained_on, splits["train"].fingerprint),
        "the version of segkey": (tested["versions"]["segkey"], VERSION),
    }
    if cell.has_score and cell.incorrect and cell.incorrect.keys < wrong_keys:
        return f"{cell.incorrect.keys} wrong keys were tried, and {wrong_keys} are wanted"
    changed = [name for name, (before, now) in pairs.items() if before != now]
    return f"since it was made, {' and '.join(changed)} changed" if changed else ""
