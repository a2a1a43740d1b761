"""The names of runs in their folder, and the run that ``latest`` names."""

import difflib
import os
import re
from pathlib import Path

from segkey.errors import SegkeyError
from segkey.system.files import (
    create,
    explain_os_errors,
    is_folder_there,
    is_there,
    read_text,
    remove,
)
from segkey.system.shell_quoting import word

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def of_method(method: str, block_size: int) -> str:
    """How a run of a method is called unless it is given a name: ``np-m4``, ``shf-np-m4``."""
    return "plain" if method == "none" else f"{as_name(method)}-m{block_size}"


def as_name(text: str) -> str:
    """Text as a part of a name: ``-`` for what a name cannot hold."""
    return re.sub("[^A-Za-z0-9._-]+", "-", text).strip("-._")


def named_by(latest: Path) -> str:
    """The run beside it that ``runs/latest`` names, by a link or, without links, a text file."""
    try:
        with explain_os_errors(latest):
            text = (
                os.readlink(latest)
                if latest.is_symlink()
                else read_text(latest, limit=1000).strip()
            )
        return check_name(text)
    except (ValueError, SegkeyError) as error:
        why = f": {error.what}" if isinstance(error, SegkeyError) else ""
        raise SegkeyError(
            f"{latest} does not name a run beside it{why}", "give the run's folder"
        ) from None


def resolved(path: Path) -> Path:
    """The folder that ``latest`` names, if that is what was given; other paths as they are."""
    named_by_latest = path.name == "latest" and (path.is_symlink() or not path.is_dir())
    if named_by_latest and os.path.lexists(path):
        path = path.parent / named_by(path)
        is_folder_there(path)
    return path


def under_its_own_name(path: Path) -> Path:
    """What a link leads to, as a relative path if it was given as one.

    Raises:
        SegkeyError: the folder has a name that no run can have.
    """
    path = path.parent / path.readlink() if path.is_symlink() else path
    name = path.name or path.absolute().name
    if not NAME.fullmatch(name):
        raise SegkeyError(
            f"{path}: a run cannot be called {name!r}",
            "rename the folder; use letters, digits, '.', '_' and '-'",
        )
    return path


def no_run_at(path: Path) -> SegkeyError:
    """The error about a path without a run; it names one of nearly that name."""
    near = difflib.get_close_matches(path.name, [each.name for each in folders(path.parent)], 1)
    hint = "train one with 'segkey train', or give a folder of runs/"
    return SegkeyError(
        f"there is no run at {path}",
        f"did you mean {word(path.parent / near[0])}?" if near else hint,
    )


def point_to_latest(folder: Path, name: str) -> None:
    """Let ``folder/latest`` name a run: a symbolic link, or a text file if links cannot be made."""
    latest, fresh = folder / "latest", folder / ".latest.partial"
    remove(fresh)
    if not latest.is_symlink():
        is_there(latest)
    with explain_os_errors(latest):
        try:
            os.symlink(name, fresh, target_is_directory=True)
        except OSError:
            create(fresh, name + "\n")
        os.replace(fresh, latest)  # the link itself, not what it leads to


def is_taken(path: Path) -> bool:
    """Whether a path exists, other than a folder of hidden files only, as a killed run leaves."""
    if path.is_symlink() or not path.is_dir():
        return os.path.lexists(path)
    return any(not each.name.startswith(".") for each in path.iterdir())


def free_name(folder: Path, wanted: str) -> str:
    """``wanted``, or ``wanted-2`` and so on if that is taken."""
    number, name = 1, wanted
    while is_taken(folder / name):
        number += 1
        name = f"{wanted}-{number}"
    return name


def check_name(name: str) -> str:
    """Raise `SegkeyError` unless a run can be called so."""
    if not NAME.fullmatch(name) or name == "latest":
        raise SegkeyError(
            f"a run cannot be called {name!r}", "use letters, digits, '.', '_' and '-'"
        )
    return name


def folders(folder: Path, file: str = "run.json") -> list[Path]:
    """The folders in ``folder`` that hold a file of that name; ``latest`` is not one of them."""
    with explain_os_errors(folder):
        there = sorted(path for path in folder.glob("*") if not path.is_symlink())
    return [path for path in there if os.path.lexists(path / file)]
