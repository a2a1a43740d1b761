"""The secret key: generate, save, load, and derive from it everything that is secret.

The derivation is fixed for ever (described in segkey/FORMATS.md): SHAKE-256, never a random
generator of NumPy or torch, so the same key means the same transformation on every platform and
version.
"""

import base64
import binascii
import hashlib
import hmac
import itertools
import json
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from segkey.crypto.passphrase import DoesNotOpen, Hidden, seal, unseal
from segkey.errors import SealedKeyError, SegkeyError, SegkeyWarning
from segkey.system import git
from segkey.system.files import (
    create,
    explain_os_errors,
    is_there,
    make_folder,
    open_regular,
    written_whole,
)
from segkey.system.shell_quoting import word

FORMAT = "segkey-key-v1"
SECRET_BYTES = 32
KEY_BITS = 8.0 * SECRET_BYTES  # no method has more transformations than there are keys
MAX_FILE_BYTES = 16 << 10  # a key file is under 1 kB; a larger one is not read
_ID = re.compile(r"[0-9a-f]{16}")
_IGNORED = "*.key\n*.partial\n"  # keys, and what a killed 'segkey keygen' leaves of one

Passphrase = str | Callable[[], str]


class Key:
    """256 secret bits. Shows its id, never its secret; cannot be pickled.

    Args:
        secret: exactly 32 bytes.
        created: ISO 8601 time in UTC; now, if not given.
    """

    __slots__ = ("_secret", "created")

    def __init__(self, secret: bytes, created: str | None = None):
        if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes")
        self._secret = secret
        self.created = created or datetime.now(UTC).isoformat(timespec="seconds")

    @classmethod
    def generate(cls) -> "Key":
        """A new key from the operating system's random source."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @property
    def id(self) -> str:
        """16 hex digits that name the key and say nothing about it; stored in shards and runs."""
        return hashlib.sha256(b"segkey-id-v1" + self._secret).hexdigest()[:16]

    def stream(self, label: bytes, size: int) -> bytes:
        """``size`` bytes that depend on the key and on ``label`` alone (SHAKE-256)."""
        return hashlib.shake_256(b"segkey-v1\0" + self._secret + b"\0" + label).digest(size)

    def permutation(self, method: str, block_size: int, channels: int) -> np.ndarray:
        """The key's permutation of the c·M·M positions of a block, int64, shape (c·M·M,)."""
        n = channels * block_size**2
        label = f"{method}/M={block_size}/c={channels}".encode()
        words = np.frombuffer(self.stream(label, 8 * n), dtype="<u8")
        return np.argsort(words, kind="stable").astype(np.int64)

    def ffx_password(self) -> bytes:
        """The 32-byte password of the Feistel cipher if the user fixes none."""
        return self.stream(b"ffx-password", 32)

    def age_secret(self) -> bytes:
        """The 32-byte secret of the key's age identity (X25519); see `segkey.crypto.age`."""
        return self.stream(b"age-x25519", 32)

    def authenticate(self, what: str, content: object) -> str:
        """64 hex digits that only a holder of the key can make for ``content`` (HMAC-SHA-256).

        Args:
            what: which kind of content it is, so that none passes for another kind.
            content: anything that JSON can hold; the order of its keys does not matter.
        """
        # To JSON and back first: what is read from a file later has text for every key.
        text = json.dumps(
            json.loads(json.dumps(content, allow_nan=False)), sort_keys=True, allow_nan=False
        )
        return hmac.new(
            self.stream(b"journal", 32), f"{what}\0{text}".encode(), "sha256"
        ).hexdigest()

    def __repr__(self) -> str:
        return f"<segkey.Key {self.id}>"

    def __reduce__(self):
        raise TypeError(
            "a segkey.Key cannot be pickled: it would write the secret; send what is derived from "
            "it"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.id)

    def save(self, path: str | Path, passphrase: str | None = None, force: bool = False) -> Path:
        """Write the key file, with mode 0600 from its first instant.

        A ``.gitignore`` is written beside it, so that it is not committed by accident; one that is
        there is left as it is, and a warning says if it does not ignore the key.

        Args:
            path: the file.
            passphrase: seals the key, if given.
            force: replace what is there, which is kept under its id: everything made with an
                earlier key still needs it.

        Returns:
            ``path``.

        Raises:
            SegkeyError: the file exists and ``force`` is not set, or cannot be written; an empty
                passphrase.
        """
        path = Path(path)
        is_there(path)
        data = self._written(passphrase)
        if not path.parent.exists():
            make_folder(path.parent)
        _ignore_in_git(path)
        if force:
            _keep_earlier(path)
        with written_whole(path, permissions=0o600, replace=force) as file:
            file.write(data.value)
        return path

    def _written(self, passphrase: str | None) -> Hidden:
        """The bytes of the key file."""
        document = {"format": FORMAT, "id": self.id, "created": self.created}
        if passphrase is None:
            document["secret"] = base64.b64encode(self._secret).decode()
        else:
            document["sealed"] = seal(self._secret, passphrase, _sealed_with(document))
        return Hidden(json.dumps(document, indent=1, allow_nan=False).encode() + b"\n")

    @classmethod
    def load(cls, path: str | Path, passphrase: Passphrase | None = None) -> "Key":
        """Read a key file.

        Args:
            path: the file, or a link to it, as the user named it. Before segkey takes a key that
                was not named, ``keys/segkey.key``, it checks that it is no link
                (`segkey.system.files.is_there`).
            passphrase: opens a sealed key; a callable is asked only if the key is sealed.

        Raises:
            SealedKeyError: the key is sealed and no passphrase was given.
            SegkeyError: there is no such file, it is no key, or the passphrase is wrong.
        """
        path = Path(path)
        document = _read_document(path)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            warnings.warn(
                f"{path} can be read by others; run: chmod 600 {word(path)}",
                SegkeyWarning,
                stacklevel=2,
            )
        if "sealed" in document:
            if passphrase is None:
                raise SealedKeyError(
                    f"{path} is sealed with a passphrase", "give it with --passphrase-file FILE"
                )
            typed = Hidden(passphrase() if callable(passphrase) else passphrase)
            secret = _unsealed(path, document, typed)
        else:
            secret = _plain_secret(path, document)
        key = cls(secret.value, document["created"])
        if key.id != document["id"]:
            raise SegkeyError(
                f"{path} is damaged: its secret does not match its id",
                "restore the key file from a backup",
            )
        return key


def _not_a_key(path: Path) -> SegkeyError:
    return SegkeyError(
        f"{path} is not a segkey key",
        "make one with 'segkey keygen', or give the right file with --key",
    )


def _keep_earlier(path: Path) -> None:
    """Give what is at ``path`` a second name that is free: a key, or what may be a damaged one."""
    with explain_os_errors(path):
        if not is_there(path) or not path.stat().st_size:  # an empty file is nothing to keep
            return
        try:
            what, name = "key", f"{path.stem}-{public_part(path)['id']}"
        except SegkeyError:
            what, name = "file", f"{path.stem}-earlier"
        for earlier in _numbered(path, name):
            try:
                os.link(path, earlier)  # fails if the name is taken, in one step
            except FileExistsError:
                if not earlier.is_symlink() and earlier.samefile(path):
                    break  # an earlier attempt ended here
                continue
            except OSError:  # a file system without hard links: a small window remains
                if os.path.lexists(earlier):
                    continue
                os.replace(path, earlier)
            break
        os.chmod(earlier, 0o600)
    warnings.warn(f"the earlier {what} is kept as {earlier}", SegkeyWarning, stacklevel=3)


def _numbered(path: Path, name: str) -> Iterator[Path]:
    """``name.key`` beside a path, then ``name-2.key``, ``name-3.key`` …"""
    yield path.with_name(f"{name}.key")
    for number in itertools.count(2):
        yield path.with_name(f"{name}-{number}.key")


def _ignore_in_git(path: Path) -> None:
    """Keep a key out of git; a ``.gitignore`` that is there is the user's."""
    file = path.parent / ".gitignore"
    if not create(file, _IGNORED):
        open_regular(file, limit=1 << 20).close()
    if git.may_take(path):
        warnings.warn(
            f"git may not ignore {path}, and {file} is left as it is; add the line {path.name} to "
            f"it",
            SegkeyWarning,
            stacklevel=3,
        )


def _read_document(path: Path) -> dict:
    """What a key file holds, its secret hidden."""
    with explain_os_errors(path):
        if not path.exists():
            raise SegkeyError(
                f"there is no key at {path}",
                "make one with 'segkey keygen', or give its file with --key",
            )
        if not path.is_file():
            raise _not_a_key(path)
        with open_regular(path, follow=True) as file:
            data = Hidden(file.read(MAX_FILE_BYTES + 1))
        if len(data.value) > MAX_FILE_BYTES:
            raise _not_a_key(path)
    try:
        document = json.loads(data.value.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _not_a_key(path) from None
    if not isinstance(document, dict):
        document = None  # a traceback may show it
        raise _not_a_key(path)
    if "secret" in document:
        document["secret"] = Hidden(document["secret"])
    if str(document.get("format", "")).startswith("segkey-key-") and document["format"] != FORMAT:
        raise SegkeyError(
            f"{path} is a key of an unknown version", "upgrade segkey: pip install --upgrade segkey"
        )
    if document.get("format") != FORMAT or not all(
        isinstance(document.get(k), str) for k in ("id", "created")
    ):
        raise _not_a_key(path)
    if not _ID.fullmatch(document["id"]):  # it becomes a part of file names and of commands
        raise _not_a_key(path)
    return document


def _plain_secret(path: Path, document: dict) -> Hidden:
    """The secret of a key that is not sealed."""
    try:
        secret = Hidden(base64.b64decode(document["secret"].value, validate=True))
    except (binascii.Error, ValueError, TypeError, KeyError):
        raise _not_a_key(path) from None
    if len(secret.value) != SECRET_BYTES:
        raise _not_a_key(path)
    return secret


def _unsealed(path: Path, document: dict, passphrase: Hidden) -> Hidden:
    """The secret of a sealed key."""
    try:
        return unseal(document["sealed"], passphrase, _sealed_with(document), SECRET_BYTES)
    except ValueError:
        raise _not_a_key(path) from None
    except DoesNotOpen:
        raise SegkeyError(
            f"{path} does not open: the passphrase is wrong or the file is damaged",
            "try the passphrase again, or restore the key file from a backup",
        ) from None


def _sealed_with(document: dict) -> bytes:
    """What a sealed secret is bound to: the rest of its file."""
    parts = (document["format"], document["id"], document["created"])
    return "\0".join(parts).encode("utf-8", "surrogatepass")


def public_part(path: str | Path) -> dict:
    """What a key file shows without its secret: ``id``, ``created``, whether it is ``sealed``."""
    document = _read_document(Path(path))
    return {"id": document["id"], "created": document["created"], "sealed": "sealed" in document}


def damage(path: str | Path) -> list[str]:
    """What is wrong with a key file that is not sealed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SegkeyWarning)
        try:
            Key.load(path)
            return []
        except SegkeyError as error:
            return [error.what]
