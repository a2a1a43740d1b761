"""Recipients and identities on the command line: for whom runs are sealed, and what opens them."""

from pathlib import Path
from typing import TYPE_CHECKING

from segkey.cli import options
from segkey.errors import SegkeyError

if TYPE_CHECKING:  # these import NumPy and torch, and --help must answer at once
    from segkey.crypto.age import Identity
    from segkey.crypto.keys import Key
    from segkey.model.runs import Run


def unlock(
    run: "Run", key: Path | None, passphrase_file: Path | None, identity: Path | None = None
) -> "Key | None":
    """Give a sealed run what opens it; without effect on others.

    Args:
        run: the run.
        key, passphrase_file, identity: the options; what ``identity`` names comes first.

    Returns:
        The key, if it was read, so that nobody is asked twice for its passphrase.

    Raises:
        SegkeyError: no key, or one that it was not sealed for.
    """
    if not run.is_sealed:
        return None
    if identity:
        run.unlock(read_identity(identity, passphrase_file))
        return None
    if not options.key_file(key).exists():
        raise SegkeyError(
            f"{run.path} is sealed, and there is no key at {options.key_file(key)}",
            "give the key that it was sealed for with --key",
        )
    loaded = options.load_key(key, passphrase_file)
    run.unlock(loaded)
    return loaded


def unlock_and_load_key(
    run: "Run", key: Path | None, passphrase_file: Path | None, identity: Path | None
) -> "Key | None":
    """`unlock`, and read the key of the run's images; None if they are plain."""
    loaded = unlock(run, key, passphrase_file, identity)
    if loaded and run.header.method != "none":
        return loaded
    return options.load_key_for(run.header, key, passphrase_file)


def read_identity(file: Path, passphrase_file: Path | None = None) -> "Identity":
    """What opens sealed runs: of a key file, asking for its passphrase, or of ``age-keygen``."""
    from segkey.crypto.age import Identity

    return Identity.read(file, options.passphrase_of(file, passphrase_file))


def read_recipients(texts: list[str], passphrase_file: Path | None = None) -> list[str]:
    """Recipients ``age1…`` from those texts themselves, and from files of keys or identities."""
    from segkey.crypto.age import check_recipients

    found = []
    for text in texts:
        public = is_recipient(text)
        found += [text] if public else read_identity(Path(text), passphrase_file).recipients
    return check_recipients(found)


def is_recipient(text: str) -> bool:
    """Whether a text is meant as a recipient itself, and not as the path of a key."""
    return text.lower().startswith(("age1", "age-secret-")) and not Path(text).exists()
