"""Files in the age format (age-encryption.org/v1), by pyrage: sealed for recipients, and opened.

A recipient is a public text ``age1…``, and an identity the secret that opens what was sealed for
it. Every segkey key has an identity, derived from its secret (segkey/FORMATS.md); those of
``age-keygen`` are read too. Importing this module loads neither torch nor h5py.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pyrage
from pyrage import x25519

from segkey.crypto.keys import MAX_FILE_BYTES, Key, Passphrase
from segkey.crypto.passphrase import Hidden
from segkey.errors import SegkeyError
from segkey.system.files import explain_os_errors, open_regular
from segkey.system.validators import shown

# pyrage reads a header in a time that grows with its square: 1,000 recipients take half a second,
# 10,000 take 50 s.
MOST_RECIPIENTS = 1_000
_MAGIC = b"age-encryption.org/v1\n"
_STANZA, _END = b"\n-> X25519 ", b"\n--- "
MOST_HEADER_BYTES = 128 * (
    MOST_RECIPIENTS + 8
)  # a recipient takes 98; a few of other kinds may follow
_SECRET = "AGE-SECRET-KEY-1"


class NoMatch(Exception):
    """A file was not sealed for this identity; or its header is damaged, which looks the same."""


class Identity:
    """What opens files that were sealed for its ``recipients``; shows those, never its secret.

    Args:
        secrets: ``AGE-SECRET-KEY-1…``, hidden.
        name: what messages call it, such as ``key 0123456789abcdef``.

    Raises:
        ValueError: one of them is none.
    """

    __slots__ = ("_identities", "name")

    def __init__(self, secrets: Sequence[Hidden], name: str):
        try:
            self._identities = [x25519.Identity.from_str(each.value) for each in secrets]
        except pyrage.IdentityError:
            raise ValueError("not an age identity") from None
        self.name = name

    @classmethod
    def of(cls, key: Key) -> "Identity":
        """The identity of a segkey key."""
        secret = Hidden(_bech32("age-secret-key-", key.age_secret()).upper())
        return cls([secret], f"key {key.id}")

    @classmethod
    def read(cls, path: str | Path, passphrase: Passphrase | None = None) -> "Identity":
        """That of a segkey key file, or those in a file of ``age-keygen``.

        Args:
            path: the file.
            passphrase: opens a key that is sealed with one; as for `Key.load`.

        Raises:
            SegkeyError: no such file, or it is neither.
        """
        path = Path(path)
        if path.is_file():
            with explain_os_errors(path), open_regular(path, follow=True) as file:
                text = Hidden(file.read(MAX_FILE_BYTES).decode("utf-8", "replace"))
            secrets = [Hidden(line) for line in text.value.split() if line.startswith(_SECRET)]
            if secrets:
                try:
                    return cls(secrets, str(path))
                except ValueError:
                    raise SegkeyError(
                        f"{path} holds a damaged age identity", "restore it from a backup"
                    ) from None
        return cls.of(Key.load(path, passphrase))

    @property
    def recipients(self) -> tuple[str, ...]:
        """``age1…``, for `encrypted`; public."""
        return tuple(str(each.to_public()) for each in self._identities)

    def __repr__(self) -> str:
        return f"<segkey age identity {', '.join(self.recipients)}>"

    def __reduce__(self):
        raise TypeError("an age identity cannot be pickled: it would write the secret")


def check_recipients(recipients: Sequence[str]) -> list[str]:
    """Recipients, each once, in their order.

    Raises:
        SegkeyError: none, too many, or one that is none; a secret among them is not shown.
    """
    found = list(dict.fromkeys(recipients))
    if not 0 < len(found) <= MOST_RECIPIENTS:
        raise SegkeyError(
            f"{len(found)} recipients: there must be 1 to {MOST_RECIPIENTS}",
            f"seal a copy for each {MOST_RECIPIENTS} of them (--name)"
            if found
            else "give a key file or a public age1… text with --to",
        )
    for each in found:
        _recipient(each)
    return found


def _recipient(text: str) -> x25519.Recipient:
    try:
        return x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        secret = text.strip().upper().startswith(_SECRET[:-2])
        raise SegkeyError(
            "an age identity was given in the place of a recipient: that text is secret"
            if secret
            else f"{shown(text, 80)} is no age recipient",
            "give the public text age1… that 'segkey inspect KEY' or age-keygen prints",
        ) from None


def encrypted(data: bytes, recipients: Sequence[str]) -> bytes:
    """An age file that holds ``data``, for recipients from `check_recipients`."""
    return pyrage.encrypt(data, [_recipient(each) for each in recipients])


def decrypted(file: IO[bytes], identity: Identity) -> io.BytesIO:
    """What an age file holds, in memory; all of it was authenticated.

    Args:
        file: at its beginning, no larger than the caller allows.
        identity: opens it.

    Raises:
        NoMatch: it was not sealed for that identity.
        ValueError: it is damaged, cut off, or no age file.
    """
    count_recipients(file)
    file.seek(0)
    plain = io.BytesIO()
    try:
        pyrage.decrypt_io(file, plain, identity._identities)
    except pyrage.DecryptError as error:
        if str(error) == "No matching keys found":
            raise NoMatch from None
        raise ValueError(str(error)) from None
    except OSError as error:
        if error.errno is not None:  # of the disk; pyrage tells of damage without a number
            raise
        raise ValueError(str(error)) from None
    return plain


def count_recipients(file: IO[bytes]) -> int:
    """For how many recipients of a key an age file was sealed; reads its header, without a key.

    Raises:
        ValueError: it is no age file, or has a longer header than segkey writes.
    """
    start = file.read(MOST_HEADER_BYTES)
    header, end, _ = start.partition(_END)
    if not start.startswith(_MAGIC) or not end:
        raise ValueError("no age file")
    return header.count(_STANZA)


_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def _bech32(prefix: str, data: bytes) -> str:
    """Bech32 (BIP 173) of whole bytes, in lower case; `x25519.Identity` has no other way in."""
    bits = "".join(f"{byte:08b}" for byte in data)
    values = [int(bits[at : at + 5].ljust(5, "0"), 2) for at in range(0, len(bits), 5)]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    remainder = _polymod([*expanded, *values, 0, 0, 0, 0, 0, 0]) ^ 1
    check = [remainder >> 5 * (5 - place) & 31 for place in range(6)]
    return f"{prefix}1" + "".join(_BECH32[value] for value in values + check)


def _polymod(values: list[int]) -> int:
    """The remainder of Bech32's checksum polynomial."""
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            remainder ^= term if top >> bit & 1 else 0
    return remainder
