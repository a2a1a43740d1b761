"""The secret key: made, saved, sealed, loaded, and everything that is derived from it.

The derivation is fixed for ever (described in segkey/FORMATS.md): SHAKE-256, never a random generator of
NumPy or torch, so the same key means the same transformation on every platform and version.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import stat
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from segkey.errors import SealedKeyError, SegkeyError, SegkeyWarning
from segkey.files import explain_os_errors, make_folder, written_whole

FORMAT = "segkey-key-v1"
SECRET_BYTES = 32
KEY_BITS = 8.0 * SECRET_BYTES  # no method has more transformations than there are keys
_MAX_FILE_BYTES = 16 << 10  # a key file is under 1 kB; a larger one is not read
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}

Passphrase = str | Callable[[], str]


class _Hidden:
    """Holds what a traceback must not show, not even one that prints local variables."""

    __slots__ = ("value",)

    def __init__(self, value: object):
        self.value = value

    def __repr__(self) -> str:
        return "<hidden>"


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
        """The 32-byte password of the Feistel cipher, where the user fixes none."""
        return self.stream(b"ffx-password", 32)

    def __repr__(self) -> str:
        return f"<segkey.Key {self.id}>"

    def __reduce__(self):
        raise TypeError("a segkey.Key cannot be pickled: it would write the secret; send what is derived from it")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.id)

    # ------------------------------------------------------------------ files

    def save(self, path: str | Path, passphrase: str | None = None, force: bool = False) -> Path:
        """Write the key file with mode 0600 from its first instant, sealed if a passphrase is given.

        A folder made for it, or called ``keys``, gets a ``.gitignore``, so that a key is not committed by accident.

        With ``force``, a key that stood there is kept under its id: everything made with it still needs it.

        Raises:
            SegkeyError: the file exists and ``force`` is not set, or cannot be written.
        """
        path = Path(path)
        data = self._written(passphrase)
        if not path.parent.exists() or path.parent.name == "keys":
            make_folder(path.parent)
            _ignore_in_git(path.parent)
        if force and path.exists():
            try:
                earlier = path.with_name(f"{path.stem}-{public_part(path)['id']}.key")
            except SegkeyError:
                earlier = None  # not a key
            if earlier:
                with explain_os_errors(earlier):
                    os.replace(path, earlier)
                warnings.warn(f"the earlier key is kept as {earlier}", SegkeyWarning, stacklevel=2)
        with written_whole(path, permissions=0o600, replace=force) as file:
            file.write(data.value)
        return path

    def _written(self, passphrase: str | None) -> _Hidden:
        """The bytes of the key file."""
        document = {"format": FORMAT, "id": self.id, "created": self.created}
        if passphrase is None:
            document["secret"] = base64.b64encode(self._secret).decode()
        else:
            document["sealed"] = _seal(self._secret, passphrase, document)
        return _Hidden(json.dumps(document, indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: str | Path, passphrase: Passphrase | None = None) -> "Key":
        """Read a key file.

        Args:
            path: the file.
            passphrase: opens a sealed key; a callable is asked only if the key is sealed.

        Raises:
            SealedKeyError: the key is sealed and no passphrase was given.
            SegkeyError: there is no such file, it is no key, or the passphrase is wrong.
        """
        path = Path(path)
        document = _read_document(path)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            warnings.warn(f"{path} can be read by others; run: chmod 600 {path}", SegkeyWarning, stacklevel=2)
        if "sealed" in document:
            if passphrase is None:
                raise SealedKeyError(f"{path} is sealed with a passphrase", "give it with --passphrase-file FILE")
            secret = _unseal(path, document, _Hidden(passphrase() if callable(passphrase) else passphrase))
        else:
            secret = _plain_secret(path, document)
        key = cls(secret.value, document["created"])
        if key.id != document["id"]:
            raise SegkeyError(
                f"{path} is damaged: its secret does not match its id", "restore the key file from a backup"
            )
        return key


def _not_a_key(path: Path) -> SegkeyError:
    return SegkeyError(
        f"{path} is not a segkey key", "make one with 'segkey keygen', or give the right file with --key"
    )


def _ignore_in_git(folder: Path) -> None:
    """Keep keys, and what a killed 'segkey keygen' leaves of one, out of git; a file that is there is the user's."""
    file = folder / ".gitignore"
    with explain_os_errors(file):
        if not file.exists():
            file.write_text("*.key\n*.partial\n", encoding="utf-8")


def _read_document(path: Path) -> dict:
    """What a key file holds, its secret hidden."""
    with explain_os_errors(path):
        if not path.exists():
            raise SegkeyError(
                f"there is no key at {path}", "make one with 'segkey keygen', or give its file with --key"
            )
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_FILE_BYTES:
            raise _not_a_key(path)
        with open(path, "rb") as file:
            data = _Hidden(file.read(_MAX_FILE_BYTES + 1))
    try:
        document = json.loads(data.value.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _not_a_key(path) from None
    if not isinstance(document, dict):
        document = None  # a traceback may show it
        raise _not_a_key(path)
    if "secret" in document:
        document["secret"] = _Hidden(document["secret"])
    if str(document.get("format", "")).startswith("segkey-key-") and document["format"] != FORMAT:
        raise SegkeyError(f"{path} is a key of an unknown version", "upgrade segkey: pip install --upgrade segkey")
    if document.get("format") != FORMAT or not all(isinstance(document.get(k), str) for k in ("id", "created")):
        raise _not_a_key(path)
    return document


def _plain_secret(path: Path, document: dict) -> _Hidden:
    """The secret of a key that is not sealed."""
    try:
        secret = _Hidden(base64.b64decode(document["secret"].value, validate=True))
    except (binascii.Error, ValueError, TypeError, KeyError):
        raise _not_a_key(path) from None
    if len(secret.value) != SECRET_BYTES:
        raise _not_a_key(path)
    return secret


# ------------------------------------------------------------------ sealing


def _sealing_key(passphrase: str, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase.encode("utf-8", "surrogatepass"), salt=salt, **_SCRYPT, maxmem=64 << 20, dklen=32)


def _authenticated(document: dict) -> bytes:
    return "\0".join((document["format"], document["id"], document["created"])).encode("utf-8", "surrogatepass")


def _seal(secret: bytes, passphrase: str, document: dict) -> dict:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    sealed = AESGCM(_sealing_key(passphrase, salt)).encrypt(nonce, secret, _authenticated(document))
    fields = {"salt": salt, "nonce": nonce, "ciphertext": sealed}
    return {"kdf": "scrypt", **_SCRYPT} | {name: base64.b64encode(value).decode() for name, value in fields.items()}


def _unseal(path: Path, document: dict, passphrase: _Hidden) -> _Hidden:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed = document["sealed"]
    try:
        # The parameters are the format's, not the file's: a hostile file must not choose how much memory we take.
        if {name: sealed[name] for name in ("kdf", "n", "r", "p")} != {"kdf": "scrypt", **_SCRYPT}:
            raise ValueError
        salt, nonce, ciphertext = (
            base64.b64decode(sealed[name], validate=True) for name in ("salt", "nonce", "ciphertext")
        )
        if (len(salt), len(nonce), len(ciphertext)) != (16, 12, SECRET_BYTES + 16):
            raise ValueError
    except (binascii.Error, ValueError, TypeError, KeyError):
        raise _not_a_key(path) from None
    try:
        cipher = AESGCM(_sealing_key(passphrase.value, salt))
        return _Hidden(cipher.decrypt(nonce, ciphertext, _authenticated(document)))
    except InvalidTag:
        # AES-GCM cannot tell a wrong passphrase from a damaged file, and the message must not pretend to.
        raise SegkeyError(
            f"{path} does not open: the passphrase is wrong or the file is damaged",
            "try the passphrase again, or restore the key file from a backup",
        ) from None


def public_part(path: str | Path) -> dict:
    """What a key file says to everybody: ``id``, ``created``, and whether it is ``sealed``."""
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
