"""Text files that list images, one per line, each with its mask behind a tab if there are masks."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from segkey.data.items import ALL, Item, Problem, Source, counted
from segkey.data.names import is_absolute, named, without_shared_folder
from segkey.errors import SegkeyError
from segkey.system.files import explain_os_errors, open_regular

LISTS = {".txt", ".lst", ".tsv"}
_LONGEST = 1 << 15  # characters per line


def is_list(path: Path) -> bool:
    """Whether a path is a list of images, by its suffix."""
    return path.is_file() and path.suffix.lower() in LISTS


def find_listed(path: Path, masks: Path | None) -> Source:
    """Images and masks that a list names; whether they exist shows when they are read.

    Raises:
        SegkeyError: ``masks`` is given, the list cannot be read, or a line is neither.
    """
    if masks is not None:
        raise SegkeyError(
            f"{path} is a list, and --masks is for folders",
            "name each mask behind its image and a tab",
        )
    source = Source(path.parent, "a list of images", {ALL: []})
    items: dict[str, Item] = {}  # by what the list calls them
    twice = 0
    for item in _items(path):
        twice += item.name in items
        items.setdefault(item.name, item)
    listed = named(items, path, source)
    if any(item.mask for item in listed):
        source.kind += " with masks"
        source.problems += [
            Problem(item.name, f"{path} names no mask for it") for item in listed if not item.mask
        ]
        listed = [item for item in listed if item.mask]
    if twice:
        source.note(f"{counted(twice, 'image')} listed more than once in {path}, and taken once")
    source.splits[ALL] = listed
    return source


def _items(path: Path) -> Iterator[Item]:
    """An item per line that names an image, blank ones left out."""
    for number, line in enumerate(_lines(path), 1):
        image, *rest = [part.strip() for part in line.split("\t")]
        if len(rest) > 1:
            raise _not_an_item(path, number)
        if image:
            mask = path.parent / rest[0] if rest and rest[0] else None
            yield Item(image, path.parent / image, mask)


def find_listed_pictures(path: Path) -> Source:
    """Images to predict that a list names, relative to its own folder or to the current one."""
    source = Source(path.parent, "a list of images", {ALL: []})
    names = [line.strip() for line in _lines(path) if line.strip()]
    # Absolute paths are named from the folder they share: home/anna/photos/ is not repeated below
    # --out.
    short = without_shared_folder({name for name in names if is_absolute(name)}, path.parent)
    for name in names:
        beside, here = path.parent / name, Path(name)
        file = here if here.is_file() and not beside.is_file() else beside
        source.splits[ALL].append(Item(Path(short.get(name, name)).as_posix(), file, None))
    return source


def _lines(path: Path) -> Iterator[str]:
    """The lines of a list, one at a time, as there may be millions.

    Raises:
        SegkeyError: it cannot be read, is no regular file, or has a line that is too long.
    """
    with explain_os_errors(path), open_regular(path, follow=True) as raw:
        file = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape")
        for number in itertools.count(1):
            line = file.readline(_LONGEST + 1)
            if len(line) > _LONGEST or "\0" in line:
                raise _not_an_item(path, number)
            if not line:
                return
            yield line.rstrip("\n")


def _not_an_item(path: Path, number: int) -> SegkeyError:
    return SegkeyError(
        f"{path}, line {number}: not an image, or an image, a tab and its mask", "mend the line"
    )
