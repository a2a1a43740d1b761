"""Names of images from the paths in a list: enough of each path to tell them apart, no more."""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from segkey.data.items import Item, Source


def named(items: dict[str, Item], path: Path, source: Source) -> list[Item]:
    """Items by name.

    What lies below the list's folder keeps the name it is listed by; other names tell no more of
    where the images lie than what differs between them.
    """
    outside = {name for name in items if leads_out(name)}
    short = without_shared_folder(outside, path.parent)
    taken = set(items) - outside
    for name in sorted(outside):
        # Hashed as listed: an image added elsewhere changes the shared folder, and must move no
        # other.
        hashed = name.lstrip("/") if os.path.isabs(name) else name
        items[name] = items[name].named(free_name(short[name], taken), hashed)
    if outside:
        source.note(
            f"{len(outside)} image{'s' * (len(outside) > 1)} listed by absolute paths, or outside "
            f"of "
            f"{path.parent}: named from the folder they share, such as {items[min(outside)].name}; "
            "anyone who gets the shards can read the names"
        )
    return sorted(items.values(), key=lambda item: item.name)


def is_absolute(name: str) -> bool:
    """On this system or on another: a list may have been made anywhere."""
    return os.path.isabs(name) or PureWindowsPath(name).is_absolute() or name.startswith("\\")


def leads_out(name: str) -> bool:
    """Whether a path leaves the folder that it is relative to."""
    return is_absolute(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir


def without_shared_folder(names: set[str], base: Path) -> dict[str, str]:
    """Short names for paths that are absolute or lead out of ``base``.

    Those on one drive, or below one folder of the root, are named from the deepest folder they
    share.
    """
    parts = {name: _parts(name, base) for name in names}
    groups: dict[str, list[tuple[str, ...]]] = {}
    for each in parts.values():
        groups.setdefault(each[0], []).append(each[:-1])
    shared = {top: len(os.path.commonprefix(folders)) for top, folders in groups.items()}
    return {
        name: "/".join(each[min(shared[each[0]], len(each) - 1) :]) for name, each in parts.items()
    }


def _parts(name: str, base: Path) -> tuple[str, ...]:
    """The folders of a path from its root or drive on, and its file; links are not looked at."""
    if os.path.isabs(name) or not is_absolute(name):
        name = os.path.normpath(os.path.join(os.path.abspath(base), name))
    pure = PurePosixPath(name) if name.startswith("/") else PureWindowsPath(os.path.normpath(name))
    parts = pure.parts[1:] if isinstance(pure, PurePosixPath) else pure.parts
    return parts or (name,)


def free_name(name: str, taken: set[str]) -> str:
    """``name``, or with a number before its suffix where that is taken; each is given once."""
    stem, suffix = os.path.splitext(name)
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{stem}-{number}{suffix}"
    taken.add(free)
    return free
