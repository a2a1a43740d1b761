"""Names of classes from a text file, one per line, class 0 first."""

import os
from pathlib import Path

from segkey.data.items import Source
from segkey.errors import SegkeyError
from segkey.system.files import read_given_text, read_text
from segkey.system.validators import NAME


def read_classes(file: Path, given: bool = False) -> list[str]:
    """Class names from a text file; blank lines at the end are dropped.

    Args:
        file: the file.
        given: the user named it, so that it may be a pipe.

    Raises:
        SegkeyError: no such file, no text, no name, or more than 255.
    """
    try:
        text = read_given_text(file) if given else read_text(file, limit=1 << 20, follow=True)
        names = [name.strip() for name in text.rstrip().splitlines()]
    except ValueError:
        names = []
    if not 0 < len(names) < 256 or not all(map(NAME.fits, names)) or len(set(names)) < len(names):
        raise SegkeyError(
            f"{file} is not a list of classes",
            "write 1 to 255 different names of at most 200 printable characters, one per line, "
            "class 0 first",
        )
    return names


def read_classes_beside(path: Path, source: Source) -> None:
    """Take class names from a ``classes.txt`` in or beside the folder ``path``."""
    places = (path / "classes.txt", path.resolve().parent / "classes.txt")
    file = next((place for place in places if os.path.lexists(place)), None)
    if file and source.has_masks:
        source.classes = read_classes(file)
        source.notes.append(f"class names from {file}")
