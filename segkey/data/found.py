"""A file below the folder that was given, with what its path says; there may be a million.

What all files of a folder share is held once (`Folder`), and paths are made when they are asked
for: a `pathlib.Path` per file would take five times the memory of its name.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from segkey.data.name_roles import Place, told_by


@dataclass(frozen=True, slots=True, eq=False)
class Folder:
    """A folder in which files were found.

    Attributes:
        path: itself.
        prefix: what the names of its files begin with in the source: empty, or ends with ``/``.
        split, role: what its path says, see `segkey.data.name_roles.Place`.
        kept: the folders that say nothing, each with ``/``.
    """

    path: Path
    prefix: str
    split: str | None
    role: str | None
    kept: str

    @classmethod
    def below(cls, path: Path, base: Path, top: Path | None = None) -> "Folder":
        """A folder whose files are named from ``base`` on; what its path says begins at ``top``."""
        inside = top if top and path.is_relative_to(top) else base
        return cls(path, prefix_of(path, base), *told_by(path.relative_to(inside).parts))


def prefix_of(path: Path, base: Path) -> str:
    """What the names of a folder's files begin with, if they are named from ``base`` on."""
    inside = path.relative_to(base).as_posix()
    return "" if inside == "." else inside + "/"


class Found:
    """A file and what its path says.

    Attributes:
        folder: where it lies.
        file_name: its own name.
    """

    __slots__ = ("file_name", "folder")

    def __init__(self, folder: Folder, file_name: str):
        self.folder, self.file_name = folder, file_name

    @property
    def name(self) -> str:
        """Its name in the source."""
        return self.folder.prefix + self.file_name if self.folder.prefix else self.file_name

    @property
    def file(self) -> Path:
        """Itself."""
        return self.folder.path / self.file_name

    @property
    def stem(self) -> str:
        """Its own name without the suffix."""
        return os.path.splitext(self.file_name)[0]

    @property
    def suffix(self) -> str:
        """The suffix of its name."""
        return os.path.splitext(self.file_name)[1]

    @property
    def key(self) -> str:
        """`segkey.data.name_roles.Place.key`."""
        return self.folder.kept + self.stem

    @property
    def place(self) -> Place:
        """What its path says."""
        return Place(self.folder.split, self.folder.role, self.key)

    def is_file_of(self, other: "Found") -> bool:
        """Whether both are the same file."""
        return self.file_name == other.file_name and self.folder.path == other.folder.path
