"""File names made from the names of images: safe, and unique in a folder."""

from pathlib import Path


def free_path(folder: Path, name: str, ending: str, taken: set[Path]) -> Path:
    """A path below ``folder`` for an image's name, which may be anything.

    Args:
        folder: no name leads out of it: ``..``, a leading ``/`` and what no file system takes are
            left out.
        name: a path with ``/``; its suffix is dropped.
        ending: what follows instead, such as ``.png``.
        taken: paths already given; the new one is added.
    """
    parts = [clean_name(part) for part in name.split("/") if part not in ("", ".", "..")][-16:]
    stem = (parts.pop().rsplit(".", 1)[0] if parts else "") or "image"
    suffix = "." + ending.rsplit(".", 1)[1]
    # A folder must not have the name that a file may get.
    folders = [f"{part}_" if part.lower().endswith(suffix) else part for part in parts]
    path, number = folder.joinpath(*folders, stem + ending), 1
    while path in taken:
        number += 1
        path = path.with_name(f"{stem}{ending.removesuffix(suffix)}-{number}{suffix}")
    taken.add(path)
    return path


def clean_name(part: str) -> str:
    """A part of a path that every file system takes: printable, at most 150 bytes of UTF-8."""
    text = "".join(c if c.isprintable() and c not in '\\:*?"<>|' else "_" for c in part)
    return text.encode("utf-8")[:150].decode("utf-8", "ignore")
