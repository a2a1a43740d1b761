"""Whole files or none, one writer for a folder, and what the operating system says put into
words."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import segkey
from segkey.errors import SegkeyError
from segkey.system.files import explain_os_errors, make_folder, require_empty, written_whole
from segkey.system.json_files import read_json, write_json

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, locks, limits or modes")


def python(code, *arguments):
    """A second process that runs ``code`` with the segkey under test."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=Path(segkey.__file__).parents[1], text=True, stdout=subprocess.PIPE
    )


@posix
def test_the_name_appears_only_when_the_file_is_whole(tmp_path):
    path = tmp_path / "file"
    with written_whole(path, permissions=0o600) as file:
        file.write(b"new")
        (partial,) = tmp_path.iterdir()
        assert partial.suffix == ".partial"
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SegkeyError])
def test_a_failure_inside_leaves_the_earlier_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    with pytest.raises(failure, match="inside"), written_whole(path) as file:
        file.write(b"half")
        raise failure("inside")
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_without_replace_an_existing_file_is_never_touched(tmp_path, monkeypatch, links):
    def refuse(*names):
        raise PermissionError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    refused = pytest.raises(SegkeyError, match="already exists\n.*--force")
    with refused, written_whole(path, replace=False) as file:
        path.write_bytes(b"first")  # another was faster: looking beforehand would not have helped
        file.write(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


FULL = """
import resource, signal, sys
from pathlib import Path
from segkey.errors import SegkeyError
from segkey.system.files import written_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with written_whole(Path(sys.argv[1])) as file:
        for _ in range((1 << 20) // int(sys.argv[2])):
            file.write(bytes(int(sys.argv[2])))
except SegkeyError as error:
    print(error)
"""


@posix
@pytest.mark.parametrize("chunk", [1 << 20, 1000], ids=["at once", "bit by bit"])
def test_a_file_that_may_not_grow_leaves_the_earlier_one(tmp_path, chunk):
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    out, _ = python(FULL, path, chunk).communicate(timeout=30)
    what, hint = out.splitlines()
    assert what.startswith(f"{path}: ")
    assert "ulimit -f" in hint
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["missing/file", "a file/file", "a folder"])
def test_a_place_that_cannot_be_written(tmp_path, place):
    (tmp_path / "a file").touch()
    make_folder(make_folder(tmp_path / "a folder"))
    with pytest.raises(SegkeyError, match=place), written_whole(tmp_path / place) as file:
        file.write(b"new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a file", "a folder"]
    with pytest.raises(SegkeyError, match="a file"):
        make_folder(tmp_path / "a file")


@pytest.mark.parametrize(
    "error, hint",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (
            OSError("Can't write data (errno = 28, error message = ...)"),
            "free some space",
        ),  # HDF5's way
        (OSError(errno.EACCES, "Permission denied"), "permissions"),
        (OSError("something else"), ""),
    ],
    ids=str,
)
def test_os_errors_name_the_file_and_what_to_do(error, hint):
    with pytest.raises(SegkeyError, match="some.h5: ") as told, explain_os_errors(Path("some.h5")):
        raise error
    assert hint in told.value.hint
    assert bool(told.value.hint) == bool(hint)


def test_json_round_trip_and_a_failure_that_leaves_the_earlier_file(tmp_path):
    path, document = tmp_path / "some.json", {"name": "Wörter", "values": [1, 2.5, None]}
    write_json(path, document)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path, "a run") == document
    assert json.loads(path.read_text(encoding="utf-8")) == document | {
        "checksum": "f4137a3dbf7660b8"
    }
    assert list(tmp_path.iterdir()) == [path]


def test_a_digit_that_changed_is_noticed(tmp_path):
    path = tmp_path / "some.json"
    write_json(path, {"mean_iou": 0.7031, "4": ("a", None)})
    path.write_text(path.read_text().replace("0.7031", "0.7831"))
    with pytest.raises(
        SegkeyError, match="some.json does not match its checksum: it is damaged, or was edited"
    ):
        read_json(path, "a run")
    path.write_text('{"mean_iou": 0.7831}')  # as earlier versions wrote it
    assert read_json(path, "a run") == {"mean_iou": 0.7831}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"[" * 100_000, b'{"a": "\xff"}', b"{}" + b" " * 200_000]
)
def test_json_that_is_not_what_was_asked_for(tmp_path, data):
    (tmp_path / "some.json").write_bytes(data)
    with pytest.raises(SegkeyError, match="some.json is not a run"):
        read_json(tmp_path / "some.json", "a run", limit=150_000)


def test_a_folder_for_results_must_be_empty_unless_forced(tmp_path):
    require_empty(tmp_path / "new", force=False)
    require_empty(tmp_path, force=False)
    (tmp_path / "a").touch()
    with pytest.raises(SegkeyError, match="not empty\n.*--force"):
        require_empty(tmp_path, force=False)
    require_empty(tmp_path, force=True)
    for force in (False, True):
        with pytest.raises(SegkeyError, match="a is a file"):
            require_empty(tmp_path / "a", force)
