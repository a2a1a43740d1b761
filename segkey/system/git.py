"""Check whether git would commit a file that must stay secret."""

import os
import shutil
import subprocess
from pathlib import Path

from segkey.errors import SegkeyError
from segkey.system.files import read_text

_IS_IGNORED, _IS_NOT_IGNORED = 0, 1  # exit statuses of 'git check-ignore'


def may_take(path: Path) -> bool:
    """Whether a file is in a git repository that does not ignore it.

    git itself answers. Without git, a line of the ``.gitignore`` beside the file must be its name,
    or ``*`` and its suffix.
    """
    folder = Path(os.path.abspath(path.parent))
    if not any(os.path.exists(each / ".git") for each in (folder, *folder.parents)):
        return False
    answer = _check_ignore(folder, path.name)
    if answer in (_IS_IGNORED, _IS_NOT_IGNORED):
        return answer == _IS_NOT_IGNORED
    try:
        lines = read_text(folder / ".gitignore", limit=1 << 20).splitlines()
    except (ValueError, SegkeyError):
        return True
    return {path.name, f"/{path.name}", f"*{path.suffix}"}.isdisjoint(map(str.strip, lines))


def _check_ignore(folder: Path, name: str) -> int | None:
    """The exit status of ``git check-ignore``; None if there is no git."""
    git = shutil.which("git")
    if not git:
        return None
    # The repository is untrusted: its configuration must not name a program to run.
    command = [git, "-c", "core.fsmonitor=false", "-C", str(folder)]
    command += ["check-ignore", "--quiet", "--no-index", "--", name]
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    return subprocess.run(command, stderr=subprocess.DEVNULL, **silent).returncode
