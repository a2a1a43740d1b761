"""What may lie under a name in a folder from elsewhere: regular files are used, all else is named
and left as it is."""

import os
import socket
import stat

import pytest

from segkey.errors import SegkeyError
from segkey.system import files, folder_lock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and sockets")

TEXT = "what was there"


def make(kind: str, path) -> None:
    """Something of a kind at a path; beside it, what links lead to."""
    target = path.with_name("target")
    target.write_text(TEXT)
    if kind == "file":
        path.write_text(TEXT)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            before = os.getcwd()
            os.chdir(path.parent)  # a socket's path may have some hundred letters only
            try:
                made.bind(path.name)
            finally:
                os.chdir(before)
    elif kind == "link":
        path.symlink_to("target")
    elif kind == "link to a folder":
        path.symlink_to(".")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "link to nothing":
        path.symlink_to("nothing")


WORDS = {
    "folder": "a folder",
    "pipe": "a named pipe",
    "socket": "a socket",
    "link": "a symbolic link",
    "link to a folder": "a symbolic link",
    "loop": "a symbolic link",
    "link to nothing": "a symbolic link",
}


def write_whole(path):
    with files.written_whole(path) as file:
        file.write(b"new")


def lock(path):
    """A lock has a name of its own."""
    path.rename(path.parent / ".lock")
    try:
        with folder_lock.sole_writer(path.parent):
            pytest.fail("it was taken for a lock")
    finally:
        (path.parent / ".lock").rename(path)


USES = {
    "is there": files.is_there,
    "open": lambda path: files.open_regular(path).close(),
    "read": files.read_text,
    "create": lambda path: files.create(path, "new"),
    "write whole": write_whole,
    "lock": lock,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("kind", WORDS)
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path, kind, use):
    path = tmp_path / "name"
    make(kind, path)
    before = os.lstat(path).st_mode, os.lstat(path).st_ino
    with pytest.raises(SegkeyError, match=f"is {WORDS[kind]}, not a file") as refused:
        use(path)
    assert "remove it, or put a file in its place" in refused.value.hint
    assert (os.lstat(path).st_mode, os.lstat(path).st_ino) == before
    assert (tmp_path / "target").read_text() == TEXT
    assert sorted(each.name for each in tmp_path.iterdir()) == ["name", "target"]


@pytest.mark.parametrize("kind", [*WORDS, "file"])
def test_a_folder_is_a_folder_and_no_link_to_one(tmp_path, kind):
    path = tmp_path / "name"
    make(kind, path)
    if kind == "folder":
        assert files.is_folder_there(path)
        assert files.make_folder(path / "a/b", below=tmp_path).is_dir()
        return
    for use in (files.is_folder_there, lambda each: files.make_folder(each / "a", below=tmp_path)):
        with pytest.raises(SegkeyError, match="not a folder"):
            use(path)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["missing", "missing/file", "file/below", "x" * 300])
def test_where_nothing_is_nothing_is_there(tmp_path, name):
    (tmp_path / "file").touch()
    if len(name) < 256:
        assert files.is_there(tmp_path / name) is False
        assert files.is_folder_there(tmp_path / name) is False
    else:
        with pytest.raises(SegkeyError, match="File name too long"):
            files.is_there(tmp_path / name)
    assert folder_lock.is_held(tmp_path / name) is False


def test_a_name_with_a_null_byte_is_nowhere(tmp_path):
    assert files.is_there(tmp_path / "a\0b") is False


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (lambda path: files.append(path, "more"), "Too many levels of symbolic links"),
        (lambda path: files.reopen(path).close(), "Too many levels of symbolic links"),
    ],
)
def test_what_segkey_has_just_made_is_no_link_when_it_is_opened_again(tmp_path, use, what):
    make("link", tmp_path / "name")
    with pytest.raises(SegkeyError, match=what):
        use(tmp_path / "name")
    assert (tmp_path / "target").read_text() == TEXT


def test_a_file_can_be_made_once_read_appended_and_changed_in_place(tmp_path):
    path = tmp_path / "name"
    assert files.create(path, "one ä\n") is True
    assert files.create(path, "two\n") is False
    files.append(path, "\udcff three\n")  # a name that is no UTF-8
    assert files.read_text(path) == "one ä\n\\udcff three\n"
    with files.reopen(path) as file:
        file.write(b"ONE")
    assert files.read_text(path).startswith("ONE ä")
    files.remove(path)
    files.remove(path)
    assert not path.exists()


def test_removing_a_link_leaves_what_it_leads_to(tmp_path):
    make("link", tmp_path / "name")
    files.remove(tmp_path / "name")
    assert not os.path.lexists(tmp_path / "name")
    assert (tmp_path / "target").read_text() == TEXT


@pytest.mark.parametrize("size", [0, 9, 10, 11])
def test_limits_are_exact(tmp_path, size):
    path = tmp_path / "name"
    path.write_bytes(b"a" * size)
    if size <= 10:
        assert len(files.read_text(path, limit=10)) == size
        assert len(files.read_given_text(path, limit=10)) == size
        with files.open_regular(path, limit=10) as file:
            assert len(file.read()) == size
        return
    for use in (files.read_text, files.read_given_text):
        with pytest.raises(ValueError, match="is too large"):
            use(path, limit=10)
    with pytest.raises(SegkeyError, match="has 11 bytes, where at most 10 can be right"):
        files.open_regular(path, limit=10)


def test_a_path_that_the_user_gave_may_be_a_link_or_a_pipe(tmp_path):
    make("link", tmp_path / "name")
    with files.open_regular(tmp_path / "name", follow=True) as file:
        assert file.read().decode() == TEXT
    assert files.read_text(tmp_path / "name", follow=True) == TEXT
    reading, writing = os.pipe()
    os.write(writing, "\ufeffgrün".encode())
    os.close(writing)
    try:
        assert files.read_given_text(f"/dev/fd/{reading}") == "grün"
    finally:
        os.close(reading)


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket"])
def test_a_link_to_what_is_no_file_is_refused_even_if_links_are_followed(tmp_path, kind):
    make(kind, tmp_path / "odd")
    (tmp_path / "name").symlink_to("odd")
    with pytest.raises(SegkeyError, match=f"is {WORDS[kind]}, not a file"):
        files.open_regular(tmp_path / "name", follow=True)


def test_a_device_is_not_opened():
    with pytest.raises(SegkeyError, match="is a device, not a file"):
        files.open_regular("/dev/zero", follow=True)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_has_its_permissions_whatever_the_umask(tmp_path, mode):
    before = os.umask(0o027)
    try:
        with files.written_whole(tmp_path / "name", permissions=mode) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "name").st_mode) == mode & ~0o027


def test_text_is_written_as_utf_8_and_what_cannot_be_is_escaped(tmp_path):
    with files.written_whole(tmp_path / "name", "w") as file:
        file.write("ä \ud800\n")
    assert (tmp_path / "name").read_bytes() == b"\xc3\xa4 \\ud800\n"


def test_a_folder_is_held_while_it_is_written_to_and_no_longer(tmp_path):
    assert not folder_lock.is_held(tmp_path)
    with folder_lock.sole_writer(tmp_path):
        assert folder_lock.is_held(tmp_path)
        assert (tmp_path / ".lock").stat().st_size == 0
    assert not folder_lock.is_held(tmp_path)
    assert (tmp_path / ".lock").exists()
