"""Sealing a secret with a passphrase: scrypt derives a key, AES-256-GCM encrypts the secret.

The fields are those of ``sealed`` in a key file (see segkey/FORMATS.md).
"""

import base64
import binascii
import contextlib
import hashlib
import secrets
import unicodedata

from segkey.errors import SegkeyError

# The parameters of scrypt: new files have the first (128 MB); earlier ones may have the second.
_SCRYPT = ({"n": 2**17, "r": 8, "p": 1}, {"n": 2**15, "r": 8, "p": 1})
_SCRYPT_MEMORY = 192 << 20
_BYTES = {"salt": 16, "nonce": 12}
_TAG_BYTES = 16


class Hidden:
    """Holds a value that a traceback must not show, even one that prints local variables."""

    __slots__ = ("value",)

    def __init__(self, value: object):
        self.value = value

    def __repr__(self) -> str:
        return "<hidden>"


class DoesNotOpen(Exception):
    """The passphrase is wrong, or what was sealed is damaged: AES-GCM cannot tell which."""


_BLANKS = "\u115f\u1160\u2800"  # count as letters and a symbol, and show nothing


def check_passphrase(passphrase: str) -> None:
    """Raise `SegkeyError` unless a passphrase for a new key has a visible character."""
    seen = unicodedata.normalize("NFKC", passphrase)
    if not any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANKS for c in seen):
        raise SegkeyError(
            "the passphrase is empty: it would seal nothing",
            "give one of several words, or leave the key unsealed",
        )


def seal(secret: bytes, passphrase: str, context: bytes) -> dict:
    """Encrypt a secret.

    Args:
        secret: any bytes.
        passphrase: is normalised to Unicode's form NFKC.
        context: is authenticated, not stored; `unseal` needs the same.

    Raises:
        SegkeyError: an empty passphrase, or too little memory.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    check_passphrase(passphrase)
    fields = {name: secrets.token_bytes(size) for name, size in _BYTES.items()}
    cipher = AESGCM(_derived(_spellings(passphrase)[0], fields["salt"], _SCRYPT[0]))
    fields["ciphertext"] = cipher.encrypt(fields["nonce"], secret, context)
    encoded = {name: base64.b64encode(value).decode() for name, value in fields.items()}
    return {"kdf": "scrypt", **_SCRYPT[0], **encoded}


def unseal(sealed: object, passphrase: Hidden, context: bytes, secret_bytes: int) -> Hidden:
    """The secret that `seal` encrypted.

    Args:
        sealed: what `seal` returned, or anything else that a file holds in its place.
        passphrase: as it was typed.
        context: as given to `seal`.
        secret_bytes: how long the secret is.

    Raises:
        ValueError: ``sealed`` has another form; scrypt has not run then.
        DoesNotOpen: a wrong passphrase, or damage.
        SegkeyError: too little memory.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    how, fields = _parsed(sealed, secret_bytes)
    for spelling in map(Hidden, _spellings(passphrase.value)):
        with contextlib.suppress(InvalidTag):
            cipher = AESGCM(_derived(spelling.value, fields["salt"], how))
            return Hidden(cipher.decrypt(fields["nonce"], fields["ciphertext"], context))
    raise DoesNotOpen


def _parsed(sealed: object, secret_bytes: int) -> tuple[dict[str, int], dict[str, bytes]]:
    """scrypt's parameters and the fields of ``sealed``, which may be anything."""
    sizes = _BYTES | {"ciphertext": secret_bytes + _TAG_BYTES}
    try:
        # The format's parameters: a hostile file must not choose how much memory is taken.
        stated = {name: sealed[name] for name in ("n", "r", "p")}
        how = _SCRYPT[_SCRYPT.index(stated)]
        fields = {name: base64.b64decode(sealed[name], validate=True) for name in sizes}
        fine = sealed["kdf"] == "scrypt"
    except (binascii.Error, ValueError, TypeError, KeyError):
        raise ValueError("not what seal() makes") from None
    if not fine or any(len(fields[name]) != size for name, size in sizes.items()):
        raise ValueError("not what seal() makes")
    return how, fields


def _derived(passphrase: str, salt: bytes, how: dict[str, int]) -> bytes:
    data = passphrase.encode("utf-8", "surrogatepass")
    try:
        return hashlib.scrypt(data, salt=salt, **how, maxmem=_SCRYPT_MEMORY, dklen=32)
    except (MemoryError, ValueError):
        raise SegkeyError(
            f"a passphrase takes {how['n'] * how['r'] >> 13} MB of memory, which are not free",
            "end other programs",
        ) from None


def _spellings(passphrase: str) -> list[str]:
    """A passphrase in Unicode's form NFKC; then as it was typed, as earlier versions took it."""
    return list(dict.fromkeys((unicodedata.normalize("NFKC", passphrase), passphrase)))
