"""Keys: golden derivation, key files and sealing."""

import base64
import copy
import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
from contextlib import nullcontext
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rich.console import Console
from rich.traceback import Traceback

from segkey.crypto.keys import Key, damage
from segkey.errors import SealedKeyError, SegkeyError, SegkeyWarning

SECRET = bytes(range(32))
KEY = Key(SECRET)
ENCODED = base64.b64encode(SECRET).decode()
HEAD = {"format": "segkey-key-v1", "id": "203279b74b1bd5e5", "created": "2024-01-01T00:00:00+00:00"}
PLAIN = HEAD | {"secret": ENCODED}
PASSPHRASE = "a passphrase"
SEALING = {"kdf": "scrypt", "n": 32768, "r": 8, "p": 1}
SEALING |= {"salt": "AAECAwQFBgcICQoLDA0ODw==", "nonce": "AAECAwQFBgcICQoL"}
SEALING |= {"ciphertext": "Jaqy2FaxmIqkT9WfbPnufHo6iS4G+XKa1CDjRSEgFbLNpHvYvcYTOVXXVnWvNchZ"}
SEALED = HEAD | {"sealed": SEALING}

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")


@pytest.fixture
def key_file(tmp_path):
    """Writes a document, or bytes, as a key file that only its owner can read."""

    def write(content):
        path = tmp_path / "some.key"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        path.chmod(0o600)
        return path

    return write


def test_golden_id():
    assert KEY.id == "203279b74b1bd5e5" == hashlib.sha256(b"segkey-id-v1" + SECRET).hexdigest()[:16]


def test_golden_stream_and_ffx_password():
    assert KEY.stream(b"golden", 16).hex() == "3bc03339174ac07d3cfc85509afe44f4"
    golden = "98aa3ec5a9bd774a2bb88340b5ca887ec7dc4d2e02959b13db8602525f86d020"
    assert KEY.ffx_password().hex() == golden == KEY.stream(b"ffx-password", 32).hex()
    assert hashlib.shake_256(b"segkey-v1\0" + SECRET + b"\0ffx-password").hexdigest(32) == golden


GOLDEN = {
    ("shf", 1, 3): [2, 1, 0],
    ("shf", 2, 3): [11, 10, 2, 1, 9, 3, 7, 5, 8, 4, 0, 6],
    ("np", 2, 1): [3, 1, 2, 0],
    ("np", 2, 3): [11, 8, 2, 5, 1, 4, 9, 7, 6, 10, 3, 0],
    ("ffx", 2, 3): [6, 9, 2, 0, 8, 3, 7, 11, 4, 10, 5, 1],
    (
        "shf",
        4,
        3,
    ): "7a5da06f6f2fed27c5df589287c64f0235ccac1864a88eb5ed50437b66506641",  # SHA-256 of uint16
    ("np", 4, 3): "124e26b8cdc3a3d60d60a1cace01e3c512bbf86475dc5deb9586b5d42ae24c3f",
    ("ffx", 4, 3): "c19d3e5bcb1e353cbc0068d6819ce7ca34ca126e7af7e9f4ee90614a53d57082",
}


@pytest.mark.parametrize("method, m, c", GOLDEN)
def test_golden_permutation(method, m, c):
    permutation, golden, n = KEY.permutation(method, m, c), GOLDEN[method, m, c], c * m * m
    label = f"{method}/M={m}/c={c}".encode()
    words = struct.unpack(
        f"<{n}Q", hashlib.shake_256(b"segkey-v1\0" + SECRET + b"\0" + label).digest(8 * n)
    )
    assert permutation.tolist() == sorted(range(n), key=words.__getitem__)
    digest = hashlib.sha256(permutation.astype("<u2").tobytes()).hexdigest()
    assert golden in (permutation.tolist(), digest)
    assert permutation.dtype == "int64"


@pytest.mark.parametrize(
    "secret", [b"", bytes(31), bytes(33), bytearray(32), "0" * 32, None], ids=repr
)
def test_a_secret_has_32_bytes(secret):
    with pytest.raises(ValueError, match="32 bytes"):
        Key(secret)


def test_generated_keys_differ_and_are_dated_in_utc():
    one, two = Key.generate(), Key.generate()
    assert one != two
    assert one.id != two.id
    assert datetime.fromisoformat(one.created).tzinfo == UTC
    assert Key(SECRET, created="another day") == KEY
    assert hash(Key(SECRET)) == hash(KEY)
    assert KEY != SECRET


def test_shows_its_id_and_hides_the_secret():
    assert repr(KEY) == str(KEY) == f"{KEY}" == "<segkey.Key 203279b74b1bd5e5>"


@pytest.mark.parametrize(
    "send", [pickle.dumps, lambda key: pickle.dumps([key], 0), copy.copy, copy.deepcopy]
)
def test_pickling_is_refused(send):
    with pytest.raises(TypeError, match="cannot be pickled"):
        send(KEY)


def shown_with_locals(error: BaseException) -> str:
    """What Rich prints of a failure, with the local variables of every frame."""
    screen = Console(file=io.StringIO(), width=500)
    screen.print(
        Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
    )
    return screen.file.getvalue()


LEAKS = (ENCODED[4:30], SECRET[4:12].hex(), repr(SECRET)[-30:-1], repr(PASSPHRASE))


@pytest.mark.parametrize(
    "content, passphrase",
    [
        (PLAIN | {"id": "0" * 16}, None),
        (PLAIN | {"secret": ENCODED + "AAAA"}, None),
        (PLAIN | {"created": 1}, None),
        (PLAIN | {"format": "segkey-key-v9"}, None),
        (json.dumps(PLAIN).encode() + b"}", None),
        ([PLAIN], None),
        (SEALED | {"id": "0" * 16}, PASSPHRASE),
        (SEALED | {"sealed": SEALING | {"salt": ""}}, PASSPHRASE),
    ],
)
def test_no_failure_to_load_shows_the_secret_not_even_in_local_variables(
    key_file, content, passphrase
):
    path = key_file(content)
    opener = {None: None, PASSPHRASE: lambda: "".join(("a ", "passphrase"))}[passphrase]
    try:
        Key.load(path, opener)
    except SegkeyError as error:
        text = shown_with_locals(
            error.with_traceback(error.__traceback__.tb_next)
        )  # segkey's frames, not this one
    assert "locals" in text
    assert not any(leak in text for leak in LEAKS)


def test_no_failure_to_save_shows_the_secret(tmp_path):
    (tmp_path / "file").touch()
    for passphrase in (None, PASSPHRASE):
        with pytest.raises(SegkeyError) as caught:
            KEY.save(tmp_path / "file" / "some.key", passphrase)
        text = shown_with_locals(caught.value)
        assert not any(leak in text for leak in LEAKS[:3])


def repository(folder):
    """Makes a folder a git repository."""
    if shutil.which("git"):
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    else:
        (folder / ".git").mkdir()


needs_git = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


@pytest.mark.parametrize("folder", ["keys", "owner", "."])
def test_any_folder_that_is_given_a_key_ignores_it_in_git(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    rules = tmp_path / folder / ".gitignore"
    KEY.save(tmp_path / folder / "some.key")
    assert rules.read_text() == "*.key\n*.partial\n"
    rules.write_text("mine")
    KEY.save(tmp_path / folder / "other.key")  # outside of git: nothing to be warned of
    assert rules.read_text() == "mine"


@pytest.mark.parametrize(
    "rules, name, ignored",
    [
        ("*.key\n", "some.key", True),
        ("/some.key", "some.key", True),
        pytest.param("*\n!.gitignore", "some.key", True, marks=needs_git),
        ("# keys\nmine\n", "some.key", False),
        pytest.param("*.key\n!PUBLIC-*.key\n", "PUBLIC-some.key", False, marks=needs_git),
        ("", "some.key", False),
        (None, "some.key", True),
        (None, "some.secret", False),
        (b"\xff", "some.key", False),
    ],
)
def test_where_git_would_take_a_key_a_warning_says_so(tmp_path, rules, name, ignored):
    repository(tmp_path)
    (tmp_path / "owner").mkdir()
    file = tmp_path / "owner/.gitignore"
    if rules is not None:
        file.write_bytes(rules if isinstance(rules, bytes) else rules.encode())
    with (
        nullcontext()
        if ignored
        else pytest.warns(SegkeyWarning, match=f"git may not ignore .*{name}")
    ):
        KEY.save(tmp_path / "owner" / name)
    if rules is not None:
        assert file.read_bytes() == (rules if isinstance(rules, bytes) else rules.encode())


@pytest.mark.parametrize(
    "rules, name, ignored",
    [
        ("*.key\n", "some.key", True),
        ("/some.key", "some.key", True),
        ("# keys\nmine\n", "some.key", False),
        (None, "some.key", True),
        (None, "some.secret", False),
        (b"\xff", "some.key", False),
    ],
)
def test_without_git_the_lines_beside_the_key_are_compared(
    tmp_path, monkeypatch, rules, name, ignored
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    test_where_git_would_take_a_key_a_warning_says_so(tmp_path, rules, name, ignored)


@needs_git
@posix
def test_asking_git_runs_no_program_that_a_repository_names(tmp_path):
    repository(tmp_path)
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\ntouch PWNED\n")
    hook.chmod(0o755)
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "config", "core.fsmonitor", str(hook)], check=True)
    KEY.save(tmp_path / "some.key")
    assert not list(tmp_path.rglob("PWNED"))


@needs_git
def test_rules_of_a_folder_above_count(tmp_path):
    repository(tmp_path)
    (tmp_path / ".gitignore").write_text("*.key\n")
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner/.gitignore").write_text("*.h5\n")
    KEY.save(tmp_path / "owner/some.key")
    (tmp_path / ".gitignore").write_text("/other.key\n")
    with pytest.warns(SegkeyWarning, match="git may not ignore"):
        KEY.save(tmp_path / "owner/other.key")


@posix
@pytest.mark.parametrize(
    "make",
    [
        lambda file, target: file.symlink_to(target),
        lambda file, target: file.symlink_to(target.with_name("nowhere")),
        lambda file, target: os.mkfifo(file),
        lambda file, target: file.mkdir(),
    ],
    ids=["link", "dangling link", "FIFO", "folder"],
)
def test_a_gitignore_that_is_no_file_is_refused_by_name(tmp_path, make):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "owner").mkdir()
    make(tmp_path / "owner/.gitignore", target)
    repository(tmp_path)
    with pytest.raises(SegkeyError, match=r"owner/\.gitignore is .*, not a file"):
        KEY.save(tmp_path / "owner/some.key")
    assert target.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "owner/some.key").exists()


@pytest.mark.parametrize("change, says", [({}, None), ({"id": "0" * 16}, "does not match its id")])
def test_damage_that_can_be_seen_without_using_the_key(key_file, change, says):
    found = damage(key_file(PLAIN | change))
    assert (says in found[0]) if says else found == []


def test_save_and_load(tmp_path):
    path = Key(SECRET, HEAD["created"]).save(tmp_path / "new" / "some.key")
    assert json.loads(path.read_text()) == PLAIN
    assert (tmp_path / "new" / ".gitignore").read_text() == "*.key\n*.partial\n"
    loaded = Key.load(path, lambda: pytest.fail("asked for a passphrase, but nothing is sealed"))
    assert loaded == KEY
    assert loaded.created == HEAD["created"]


@posix
def test_mode_is_0600_whatever_the_umask_and_the_earlier_file(tmp_path):
    path = tmp_path / "some.key"
    path.touch(0o644)
    before = os.umask(0)
    try:
        KEY.save(path, force=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Key.load(path) == KEY


def test_never_overwritten_without_force(tmp_path):
    path, other = KEY.save(tmp_path / "some.key"), Key.generate()
    with pytest.raises(SegkeyError, match="already exists") as refusal:
        other.save(path)
    assert "--force" in refusal.value.hint
    assert Key.load(path) == KEY
    assert set(tmp_path.iterdir()) == {path, tmp_path / ".gitignore"}
    with pytest.warns(SegkeyWarning, match=f"kept as .*some-{KEY.id}.key"):
        assert Key.load(other.save(path, force=True)) == other
    assert (
        Key.load(tmp_path / f"some-{KEY.id}.key") == KEY
    )  # everything made with it still needs it


def test_an_earlier_key_never_replaces_what_was_kept_before(tmp_path):
    path, kept = KEY.save(tmp_path / "some.key"), tmp_path / f"some-{KEY.id}.key"
    kept.write_text("the owner's backup")
    for number in (2, 3):
        with pytest.warns(SegkeyWarning, match=f"kept as .*-{number}.key"):
            Key.generate().save(path, force=True)
        assert Key.load(tmp_path / f"some-{KEY.id}-{number}.key") == KEY
        path.write_bytes((tmp_path / f"some-{KEY.id}-2.key").read_bytes())
        path.chmod(0o600)
    assert kept.read_text() == "the owner's backup"


def test_an_earlier_key_is_kept_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    path, taken = KEY.save(tmp_path / "some.key"), tmp_path / f"some-{KEY.id}.key"
    taken.write_text("the owner's backup")
    monkeypatch.setattr(os, "link", refuse)
    with pytest.warns(SegkeyWarning, match="-2.key"):
        Key.generate().save(path, force=True)
    assert Key.load(tmp_path / f"some-{KEY.id}-2.key") == KEY
    assert taken.read_text() == "the owner's backup"


IDS = [
    "../../evil",
    "/evil",
    "a\0b",
    "x" * 5000,
    "",
    "203279B74B1BD5E5",
    "203279b74b1bd5e",
    "203279b74b1bd5e5\n",
    "$(id)",
]


@pytest.mark.parametrize("id", [*IDS, "\ud800" * 16], ids=lambda id: repr(id)[:20])
def test_a_hostile_id_names_no_file(tmp_path, key_file, id):
    """Such a file is no key, and ``--force`` keeps it under a name that is not its own choice."""
    path = key_file(PLAIN | {"id": id})
    with pytest.raises(SegkeyError, match="is not a segkey key"):
        Key.load(path)
    before, around = path.read_bytes(), set(tmp_path.parent.iterdir())
    with pytest.warns(SegkeyWarning, match="kept as .*some-earlier.key"):
        KEY.save(path, force=True)
    assert Key.load(path) == KEY
    assert (tmp_path / "some-earlier.key").read_bytes() == before
    assert set(tmp_path.parent.iterdir()) == around
    assert {each.name for each in tmp_path.iterdir()} == {
        "some.key",
        "some-earlier.key",
        ".gitignore",
    }


@pytest.mark.parametrize(
    "content",
    [PLAIN | {"format": "segkey-key-v2"}, json.dumps(PLAIN)[:-2].encode(), b"a passphrase"],
)
def test_what_may_be_a_newer_or_damaged_key_is_kept_too(tmp_path, key_file, content):
    path = key_file(content)
    before = path.read_bytes()
    with pytest.warns(SegkeyWarning, match="kept as"):
        KEY.save(path, force=True)
    assert (tmp_path / "some-earlier.key").read_bytes() == before


@posix
def test_a_link_to_a_key_is_refused_and_the_key_stays(tmp_path):
    (tmp_path / "safe").mkdir()
    kept = KEY.save(tmp_path / "safe/some.key")
    (tmp_path / "some.key").symlink_to(kept)
    with pytest.raises(SegkeyError, match="is a symbolic link, not a file"):
        Key.generate().save(tmp_path / "some.key", force=True)
    assert Key.load(kept) == KEY
    assert (tmp_path / "some.key").is_symlink()


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_warns_of_a_key_that_others_can_read(key_file, mode):
    path = key_file(PLAIN)
    path.chmod(mode)
    with pytest.warns(SegkeyWarning, match="chmod 600"):
        assert Key.load(path) == KEY


NOT_A_KEY = {
    "empty": b"",
    "not UTF-8": json.dumps(PLAIN).encode().replace(b"segkey", b"\xff\xfe"),
    "a list": [PLAIN],
    "nested": b"[" * 16000,
    "a huge number": b"9" * 16000,
    "too large": json.dumps(PLAIN).encode() + b" " * (16 << 10),
    "another format": PLAIN | {"format": "segkey-shard-v1"},
    "format a list": PLAIN | {"format": ["segkey-key-v1"]},
    "id a number": PLAIN | {"id": 7},
    "created null": PLAIN | {"created": None},
    "no secret": HEAD,
    "secret a number": PLAIN | {"secret": 7},
    "secret not base64": PLAIN | {"secret": "!" + ENCODED},
    "secret not ASCII": PLAIN | {"secret": "é" + ENCODED},
    "secret too long": PLAIN | {"secret": base64.b64encode(bytes(33)).decode()},
    "sealed a text": HEAD | {"sealed": "text"},
    "sealed empty": HEAD | {"sealed": {}},
}


@pytest.mark.parametrize("content", NOT_A_KEY.values(), ids=NOT_A_KEY)
def test_refuses_what_is_not_a_key(key_file, content):
    with pytest.raises(SegkeyError, match="is not a segkey key") as refusal:
        Key.load(key_file(content), PASSPHRASE)
    assert "segkey keygen" in refusal.value.hint
    assert ENCODED not in str(refusal.value)


def test_refuses_another_version_and_another_id(key_file):
    with pytest.raises(SegkeyError, match="unknown version\nupgrade"):
        Key.load(key_file(PLAIN | {"format": "segkey-key-v2"}))
    with pytest.raises(SegkeyError, match="does not match its id\nrestore") as refusal:
        Key.load(key_file(PLAIN | {"id": "0" * 16}))
    assert ENCODED not in str(refusal.value)


def test_refuses_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(SegkeyError, match="is not a segkey key"):
        Key.load(tmp_path)
    with pytest.raises(SegkeyError, match="there is no key at"):
        Key.load(tmp_path / "missing.key")


def test_sealed_round_trip_and_golden_sealed_file(tmp_path, key_file):
    path = KEY.save(tmp_path / "saved.key", passphrase="pässword")
    sealed = json.loads(path.read_text()).pop("sealed")
    assert sealed.keys() == SEALING.keys()
    assert sealed["salt"] != SEALING["salt"]
    assert ENCODED not in path.read_text()
    assert '"secret"' not in path.read_text()
    assert Key.load(path, lambda: "pässword") == KEY == Key.load(key_file(SEALED), PASSPHRASE)


def test_new_keys_are_sealed_by_128_MB_of_scrypt_and_earlier_parameters_open(tmp_path, key_file):
    sealed = json.loads(KEY.save(tmp_path / "saved.key", passphrase="words").read_text())["sealed"]
    assert (sealed["n"], sealed["r"], sealed["p"]) == (2**17, 8, 1)
    assert SEALING["n"] == 2**15
    assert Key.load(key_file(SEALED), PASSPHRASE) == KEY


@pytest.mark.parametrize(
    "empty",
    [
        "",
        " ",
        "\t\u00a0\u3000 ",
        "\u200b\ufeff",
        "\0\x1b",
        "\u3164\uffa0\u115f",
        "\u2800",
        "\ufe0f",
    ],
    ids=repr,
)
def test_an_empty_passphrase_seals_nothing(tmp_path, empty):
    with pytest.raises(SegkeyError, match="the passphrase is empty"):
        KEY.save(tmp_path / "some.key", passphrase=empty)
    assert not list(tmp_path.glob("**/*"))


FORMS = {
    "composed": "caf\u00e9",
    "decomposed": "cafe\u0301",
    "full width": "\uff43\uff41\uff46\u00e9",
}


def test_a_passphrase_opens_however_it_was_typed(tmp_path):
    path = KEY.save(tmp_path / "some.key", passphrase=FORMS["decomposed"])
    assert all(Key.load(path, passphrase) == KEY for passphrase in FORMS.values())
    with pytest.raises(SegkeyError, match="does not open"):
        Key.load(path, "cafe")


def test_a_key_that_was_sealed_before_passphrases_were_normalised_opens(key_file):
    salt, nonce = base64.b64decode(SEALING["salt"]), base64.b64decode(SEALING["nonce"])
    by_hand = hashlib.scrypt(
        FORMS["decomposed"].encode(), salt=salt, n=2**15, r=8, p=1, maxmem=64 << 20, dklen=32
    )
    ciphertext = AESGCM(by_hand).encrypt(nonce, SECRET, "\0".join(HEAD.values()).encode())
    path = key_file(
        HEAD | {"sealed": SEALING | {"ciphertext": base64.b64encode(ciphertext).decode()}}
    )
    assert Key.load(path, FORMS["decomposed"]) == KEY
    with pytest.raises(SegkeyError, match="does not open"):
        Key.load(path, FORMS["composed"])


def test_too_little_memory_for_a_passphrase_is_said(key_file, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("[digital envelope routines] memory limit exceeded")

    monkeypatch.setattr(hashlib, "scrypt", refuse)
    with pytest.raises(SegkeyError, match="a passphrase takes 32 MB of memory"):
        Key.load(key_file(SEALED), PASSPHRASE)


def test_sealed_key_without_a_passphrase(key_file):
    with pytest.raises(SealedKeyError, match="is sealed") as refusal:
        Key.load(key_file(SEALED))
    assert "--passphrase-file" in refusal.value.hint


@pytest.mark.parametrize(
    "change, passphrase",
    [
        ({}, "another passphrase"),
        ({"sealed": SEALING | {"ciphertext": base64.b64encode(bytes(48)).decode()}}, PASSPHRASE),
        ({"created": "2025-01-01T00:00:00+00:00"}, PASSPHRASE),
        ({"id": "0" * 16}, PASSPHRASE),
    ],
    ids=["wrong passphrase", "damaged ciphertext", "other date", "other id"],
)
def test_wrong_passphrase_and_damage_look_the_same(key_file, change, passphrase):
    path = key_file(SEALED | change)
    with pytest.raises(SegkeyError) as refusal:
        Key.load(path, passphrase)
    assert (
        refusal.value.what
        == f"{path} does not open: the passphrase is wrong or the file is damaged"
    )


HOSTILE = [
    {"n": 2**30},
    {"n": 2**16},
    {"n": 2**18},
    {"n": 2},
    {"r": 16},
    {"r": 2**20},
    {"p": 2**20},
    {"kdf": "pbkdf2"},
]
HOSTILE += [{"n": "32768"}, {"salt": ""}]
HOSTILE += [{"nonce": "AAAA"}, {"nonce": "!" * 16}, {"salt": ["AAEC"]}, {"ciphertext": "A" * 4096}]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: str(change)[:20])
def test_hostile_sealing_is_refused_before_scrypt_runs(key_file, monkeypatch, change):
    monkeypatch.setattr(hashlib, "scrypt", lambda *args, **kwargs: pytest.fail("scrypt was called"))
    with pytest.raises(SegkeyError, match="is not a segkey key"):
        Key.load(key_file(HEAD | {"sealed": SEALING | change}), PASSPHRASE)
