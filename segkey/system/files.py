"""Opening files, and writing them whole.

Folders of runs, shards, results and keys may come from an untrusted source, with links, pipes and
endless files in them. There, under every name that segkey looks for by itself, only a regular file
counts: no link is followed or replaced, nothing is truncated, and no more is read than a limit. A
path that the user gives (a key, a folder of images, a shard, weights) may be a link; a passphrase
or a list of classes may also come through a pipe.

No other module of segkey opens a file by its path (``tests/robustness/test_fixed_names.py``).
"""

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from segkey.errors import SegkeyError

# File names need not be UTF-8; what cannot be encoded becomes a \\u escape, which JSON allows.
_TEXT = {"encoding": "utf-8", "errors": "backslashreplace"}
# Opening does not wait for a pipe, and makes no terminal ours. Windows has none of these flags.
_CAREFULLY = sum(
    getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}
_HINTS = {
    errno.ENOSPC: "free some space and run the same command again: what was finished is kept",
    errno.EDQUOT: "the quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file-size limit is reached (see 'ulimit -f'); raise it and run the same "
    "command again",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "check the permissions, or choose another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of that path is a file; choose another place",
}


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about ``path`` into a `SegkeyError` with advice."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise
        inner = re.search(r"errno = (\d+)", str(error))  # HDF5 has the number in its message only
        number = int(inner[1]) if inner else error.errno
        what = os.strerror(number) if number else error
        raise SegkeyError(f"{path}: {what}", _HINTS.get(number, "")) from error


def make_folder(path: Path, below: Path | None = None) -> Path:
    """Create a folder with its parents; those below ``below`` must be no links."""
    if below is not None:
        for part in reversed([path, *path.parents][: len(path.parts) - len(below.parts)]):
            is_folder_there(part)
    with explain_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def require_empty(folder: Path, force: bool) -> None:
    """Raise `SegkeyError` if the user's ``--out`` is a file, or holds something.

    Args:
        folder: it may not exist.
        force: it may hold something.
    """
    if folder.exists() and not folder.is_dir():
        raise SegkeyError(f"{folder} is a file", "choose another --out")
    if not force and folder.exists() and any(folder.iterdir()):
        raise SegkeyError(
            f"{folder} already exists and is not empty",
            "choose another --out, or use --force, which replaces what an earlier run made",
        )


def is_there(path: Path) -> bool:
    """Whether a file is at ``path``.

    Raises:
        SegkeyError: what is there is a link, a folder, a pipe or a device.
    """
    return _is_there(path, stat.S_IFREG)


def is_folder_there(path: Path) -> bool:
    """Whether a folder is at ``path``.

    Raises:
        SegkeyError: what is there is a link, a file, a pipe or a device.
    """
    return _is_there(path, stat.S_IFDIR)


def _is_there(path: Path, kind: int) -> bool:
    try:
        with explain_os_errors(path):
            try:
                mode = os.lstat(path).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return False
    except ValueError:  # a name with a null byte
        return False
    _require(path, mode, kind)
    return True


def _require(path: Path, mode: int, kind: int = stat.S_IFREG) -> None:
    if stat.S_IFMT(mode) != kind:
        raise SegkeyError(
            f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not {_KINDS[kind]}",
            f"remove it, or put {_KINDS[kind]} in its place: segkey follows no links in its own "
            "folders",
        )


def open_regular(
    path: Path, limit: int | None = None, follow: bool = False, buffering: int = -1
) -> IO[bytes]:
    """Open a file to be read, in binary mode.

    Args:
        path: the file.
        limit: how many bytes it may have; None for any number.
        follow: it may be a link, as the user named it or keeps it with their own images.
        buffering: as for `open`.

    Raises:
        SegkeyError: no such file, too large, or no regular file; a pipe is not waited for.
    """
    with explain_os_errors(path):
        if follow:  # before it is opened, as opening is enough to make a device act
            _require(path, os.stat(path).st_mode)
        else:
            is_there(path)
        descriptor = os.open(path, os.O_RDONLY | _CAREFULLY | (0 if follow else _NO_LINK))
        return _checked(path, descriptor, "rb", limit, buffering)


def _checked(
    path: Path, descriptor: int, mode: str, limit: int | None = None, buffering: int = -1
) -> IO[bytes]:
    """A file object for what was opened, if that is a regular file of at most ``limit`` bytes."""
    try:
        info = os.fstat(descriptor)
        _require(path, info.st_mode)
        if limit is not None and info.st_size > limit:
            raise SegkeyError(
                f"{path} has {info.st_size} bytes, where at most {limit} can be right",
                "restore it from a backup, or remove it",
            )
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, mode, buffering)


def reopen(path: Path) -> IO[bytes]:
    """Open a file that segkey has just made, such as an unfinished shard, to change it in place."""
    with explain_os_errors(path):
        return _checked(path, os.open(path, os.O_RDWR | _CAREFULLY | _NO_LINK), "r+b")


def open_lock(path: Path) -> IO[bytes]:
    """Open a file of no bytes that processes lock, and make it first if it is not there."""
    with explain_os_errors(path):
        is_there(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CAREFULLY | _NO_LINK, 0o666)
        return _checked(path, descriptor, "r+b", limit=1 << 12)


def append(path: Path, text: str) -> None:
    """Add to a file that segkey has just made."""
    with explain_os_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | _CAREFULLY | _NO_LINK)
        with _checked(path, descriptor, "ab") as file:
            file.write(text.encode(**_TEXT))


def create(path: Path, text: str = "") -> bool:
    """Make a small file; returns False if there is one already.

    Raises:
        SegkeyError: what is there is no regular file.
    """
    with explain_os_errors(path):
        if is_there(path):
            return False
        try:
            descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY | _NO_LINK, 0o666
            )
        except FileExistsError:  # another process was faster
            return not is_there(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode(**_TEXT))
        return True


def remove(path: Path) -> None:
    """Remove a file, or the link of that name; what a link leads to stays."""
    with explain_os_errors(path):
        path.unlink(missing_ok=True)


def put_in_place(partial: Path, path: Path) -> None:
    """Give a file that is whole its final name, in one step that outlasts a power cut.

    Raises:
        SegkeyError: what has that name is no regular file.
    """
    is_there(path)
    os.replace(partial, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def written_whole(path: Path, mode: str = "wb", permissions: int = 0o666, replace: bool = True):
    """Open a file that appears at ``path`` only when all of it is on disk.

    The bytes go to a neighbour with a random name, are synced, and take the final name in one step,
    so a crash or a full disk leaves either the earlier file or the new one. With ``replace=False``
    an existing file is never touched. A link, a folder, a pipe or a device is never replaced.

    Raises:
        SegkeyError: the file exists (``replace=False``) or is no regular one, or the system refuses
            to write.
    """
    is_there(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with explain_os_errors(path):
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, permissions)
        try:
            with os.fdopen(descriptor, mode, **({} if "b" in mode else _TEXT)) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if replace:
                put_in_place(partial, path)
            else:
                _rename_exclusively(partial, path)
                sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, if the system can do that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:  # some network file systems cannot sync a folder
            pass
        finally:
            os.close(descriptor)


def _rename_exclusively(partial: Path, path: Path) -> None:
    exists = SegkeyError(
        f"{path} already exists", "choose another name, or use --force to replace it"
    )
    try:
        os.link(partial, path)  # fails if the name is taken, in one step
    except FileExistsError:
        raise exists from None
    except OSError:  # a file system without hard links: a small window remains
        if is_there(path):
            raise exists from None
        os.replace(partial, path)


def read_text(path: Path, limit: int = 16 << 20, follow: bool = False) -> str:
    """The text of an untrusted file; ``follow`` as for `open_regular`.

    Raises:
        ValueError: it is no UTF-8, or has more than ``limit`` bytes.
        SegkeyError: it cannot be read, or is no regular file.
    """
    with explain_os_errors(path), open_regular(path, follow=follow) as file:
        return _text(path, file, limit)


def read_given_text(path: Path, limit: int = 1 << 20) -> str:
    """The text of a path that the user gave: a file, a link, ``/dev/stdin`` or ``<(command)``.

    Raises:
        ValueError: it is no UTF-8, or has more than ``limit`` bytes.
        SegkeyError: it cannot be read.
    """
    with explain_os_errors(path), open(path, "rb") as file:
        return _text(path, file, limit)


def _text(path: Path, file: IO[bytes], limit: int) -> str:
    data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is too large")
    return data.decode("utf-8-sig")
