"""From a header and a key to a cipher, checked: the only place where shards and runs meet keys."""

from pathlib import Path

from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.errors import KeyMismatchError, SegkeyError
from segkey.shards import Header


def cipher_for(header: Header, key: Key | None, password: bytes | None, path: Path | str) -> Cipher:
    """The cipher that made what ``header`` describes.

    Args:
        header: of a shard or a run.
        key: its key; anything for method ``none``.
        password: the FFX password, if a fixed one was given to encrypt.
        path: the shard or run, for messages.

    Raises:
        KeyMismatchError: the key or the password is another one; ``path`` is named.
        SegkeyError: the header has another largest value than the cipher.
    """
    if header.method != "none" and (key is None or key.id != header.key_id):
        given = f"key {key.id}" if key else "no key"
        raise KeyMismatchError(
            f"{path} was made with key {header.key_id}, not with {given}",
            "give the right key file with --key",
        )
    cipher = ciphers.from_key(header.method, key, header.block_size, header.channels, password)
    if cipher.password_hash != header.password_hash:
        wants = "a fixed FFX password" if header.password_hash else "no fixed FFX password"
        if header.password_hash and cipher.password_hash:
            wants = "another FFX password"
        raise KeyMismatchError(
            f"{path} was made with {wants}", "give the same --ffx-password as for 'segkey encrypt'"
        )
    if cipher.max_value != header.max_value:
        raise SegkeyError(
            f"{path} is damaged: its largest value is not that of its key", "make it again"
        )
    return cipher
