"""Walk through folders: every real folder once, links followed, loops cut, hidden ones left out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segkey.system.files import explain_os_errors

# What systems put beside files for themselves: copies of names, small pictures, what was deleted.
_OF_SYSTEMS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _OF_SYSTEMS


@dataclass
class Walk:
    """All files below a folder, as a stream in a fixed order.

    A folder that several links lead to is walked through once: under its own place, if that is
    below the folder, else under the first link.

    Attributes:
        folder: where to begin.
        again: links to folders that were walked through already, and so were not followed.
    """

    folder: Path
    again: list[Path] = field(default_factory=list)

    def __iter__(self) -> Iterator[Path]:
        for folder, names in self.folders():
            yield from (folder / name for name in names)

    def folders(self) -> Iterator[tuple[Path, list[str]]]:
        """Folders that hold files, in the same order, with the names of these."""
        seen: set[tuple[int, int]] = set()
        links: list[Path] = []
        with explain_os_errors(self.folder):
            yield from self._below(self.folder, seen, links)
            while links:
                links, found = [], sorted(links)
                for link in found:
                    if _identity(link) in seen:
                        self.again.append(link)
                    else:
                        yield from self._below(link, seen, links)

    def _below(
        self, top: Path, seen: set[tuple[int, int]], links: list[Path]
    ) -> Iterator[tuple[Path, list[str]]]:
        for parent, folders, files in os.walk(top, onerror=_raise):
            if (identity := _identity(Path(parent))) in seen:  # below a link that leads upwards
                folders.clear()
                continue
            seen.add(identity)
            shown = sorted(name for name in folders if not _is_hidden(name))
            links += [Path(parent, name) for name in shown if os.path.islink(Path(parent, name))]
            folders[:] = [name for name in shown if not os.path.islink(Path(parent, name))]
            if named := sorted(name for name in files if not _is_hidden(name)):
                yield Path(parent), named


def files_outside(path: Path, names: list[str], given: Path) -> list[str]:
    """The names of files in a folder that do not lie in the given folder of masks."""
    if path.resolve().is_relative_to(given):
        return []
    linked = {name for name in names if os.path.islink(path / name)}
    return [
        name
        for name in names
        if name not in linked or not (path / name).resolve().is_relative_to(given)
    ]


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error
