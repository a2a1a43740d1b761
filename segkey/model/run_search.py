"""All runs in a folder: those that reports can show, and those that are left out."""

import errno
import os
import warnings
from pathlib import Path

from segkey.data.items import Problem
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import results, sealed_runs
from segkey.model.runs import Run
from segkey.system.files import explain_os_errors

_FILES = (
    "run.json",
    *(
        name + end
        for name in ("model.safetensors", "resume.pt")
        for end in ("", sealed_runs.SUFFIX)
    ),
    "history.jsonl",
    *(f"{name}.json" for name in results.NAMES),
)


def find(folder: Path) -> list[Run]:
    """All runs in a folder, oldest first; warns of those that cannot be used. See `survey`."""
    found, left_out = survey(folder)
    for problem in left_out:
        warnings.warn(f"left out {problem.name}: {problem.why}", SegkeyWarning, stacklevel=2)
    return found


def survey(folder: Path) -> tuple[list[Run], list[Problem]]:
    """All runs in a folder, oldest first, and those that cannot be used, with the reason.

    A folder that is a run itself is the only one.

    Raises:
        SegkeyError: no run there that can be used.
    """
    if os.path.lexists(folder / "run.json") or (os.path.lexists(folder) and not folder.is_dir()):
        return [_usable(folder)], []
    found, left_out = [], []
    for path in _run_folders(folder):
        try:
            found.append(_usable(path))
        except SegkeyError as error:
            left_out.append(Problem(path.name, error.what))
        except OSError as error:
            left_out.append(Problem(path.name, error.strerror or str(error)))
    if left_out and not found:
        what = "the run" if len(left_out) == 1 else f"none of the {len(left_out)} runs"
        raise SegkeyError(
            f"{what} in {folder} can{'not' * (len(left_out) == 1)} be used; {left_out[0].name}: "
            f"{left_out[0].why}",
            "restore it from a backup, or train again",
        )
    if not found:
        raise SegkeyError(f"there are no runs in {folder}", "train one with 'segkey train'")
    return sorted(found, key=lambda run: (run.configuration.created, run.name)), left_out


def _run_folders(folder: Path) -> list[Path]:
    """What lies in a folder and is a run, or was one: whatever became of its ``run.json``."""
    try:
        there = sorted(
            path
            for path in folder.iterdir()
            if path.name != "latest" and not path.name.startswith(".")
        )
    except OSError:  # no folder, or one that may not be read
        with explain_os_errors(folder):
            there = sorted(folder.iterdir()) if folder.exists() else []
    return [path for path in there if any(_there(path / name) for name in _FILES)]


def _there(path: Path) -> bool:
    """Whether a path exists; one in a folder that may not be read counts, to be reported."""
    try:
        os.lstat(path)
        return True
    except OSError as error:
        return error.errno == errno.EACCES


def _usable(path: Path) -> Run:
    """Open a run and read what reports show of it.

    Raises:
        SegkeyError: something of it is damaged, or there is nothing to show.
    """
    if path.is_symlink() and path.name != "latest":
        raise SegkeyError(f"{path} is a link", "give the folder that it leads to")
    run = Run.open(path)
    found = [run.result(name) for name in results.NAMES]
    run.history()
    # Results may be kept without the weights, which are large.
    if not any(found) and not run.weights_file.is_file():
        done = run.configuration.epochs_done
        what = f"{path} has no weights ({run.weights_file.name}) and no results"
        raise SegkeyError(
            what if done else f"{what}: no epoch of its training is finished", "train it again"
        )
    return run
