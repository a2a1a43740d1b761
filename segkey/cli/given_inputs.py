"""Open what options name: runs, keys and passphrases, ciphers, recipients, test data."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from segkey.cli import console
from segkey.cli.options import CipherGiven, KeyGiven, OpenerGiven, RunKeyGiven, TestData
from segkey.cli.paths import DEFAULT_KEY
from segkey.errors import SegkeyError
from segkey.system.files import is_there, read_given_text
from segkey.system.wording import visible

if TYPE_CHECKING:  # these import NumPy and torch, and --help must answer at once
    from segkey.crypto.age import Identity
    from segkey.crypto.ciphers import Cipher
    from segkey.crypto.keys import Key
    from segkey.model.runs import Run
    from segkey.shards import Header, Split
    from segkey.shards.memory import MemorySplit


def open_run(path: Path) -> "Run":
    """Open a run with weights; warn if its training has not ended, or it is not quite sealed."""
    from segkey.model import sealed_runs
    from segkey.model.runs import Run

    run = Run.open(path)
    if run.is_sealed and (left := sealed_runs.left_plain(run)):
        console.warn(sealed_runs.warning_of(left))
    run.require_weights()
    if run.epochs_missing:
        alive, done = run.is_worked_on, run.configuration.epochs_done
        console.warn(
            f"the training of {run.name} {'is under way' if alive else 'was cut off'}: these are "
            f"its best weights after {done} of {done + run.epochs_missing} epochs"
            + ("" if alive else f"; go on with: {run.how_to_go_on}")
        )
    return run


def read_passphrase(file: Path) -> str:
    """The first line of a file."""
    if not file.exists():
        raise SegkeyError(
            f"there is no file {file}", "give a text file whose first line is the passphrase"
        )
    try:
        return read_given_text(file).splitlines()[0]
    except (ValueError, IndexError):
        raise SegkeyError(
            f"{file} holds no passphrase", "give a text file whose first line is the passphrase"
        ) from None


def ask_passphrase(prompt: str, twice: bool = False) -> str:
    """Prompt for a passphrase without echo."""
    try:
        return typer.prompt(visible(prompt), hide_input=True, confirmation_prompt=twice, err=True)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        raise SegkeyError(
            f"{prompt}: nobody is there to ask", "give it with --passphrase-file FILE"
        ) from None


def passphrase_of(file: Path, passphrase_file: Path | None) -> Callable[[], str]:
    """Asks for the passphrase of a key, or reads it, when it is needed."""
    if passphrase_file:
        return lambda: read_passphrase(passphrase_file)
    return lambda: ask_passphrase(f"Passphrase of {file}")


def key_file(given: Path | None) -> Path:
    """The key file that was given, or ``keys/segkey.key``, which may be no link."""
    if given is None:
        is_there(DEFAULT_KEY)  # a link that came with the folder could name any key
    return given or DEFAULT_KEY


def load_key(given: KeyGiven) -> "Key":
    """Read a key file, ``keys/segkey.key`` by default; asks for the passphrase of a sealed one.

    Raises:
        SegkeyError: there is no such file, it is no key, or the passphrase is wrong.
    """
    from segkey.crypto.keys import Key

    file = key_file(given.key)
    return Key.load(file, passphrase_of(file, given.passphrase_file))


def load_key_for(header: "Header", given: KeyGiven) -> "Key | None":
    """Read the key for what ``header`` describes; None if that is plain. Does not compare ids.

    Raises:
        SegkeyError: no such file: a new key, which is the advice otherwise, would not help here.
    """
    if header.method == "none":
        return None
    if not key_file(given.key).exists():
        raise SegkeyError(
            f"there is no key at {key_file(given.key)}; key {header.key_id} is needed",
            "give its file with --key",
        )
    return load_key(given)


def load_cipher(
    header: "Header", given: CipherGiven, path: Path, loaded: "Key | None" = None
) -> "Cipher":
    """The cipher that made what ``header`` describes, from the options of a command.

    A key that was ``loaded`` already is not read again.

    Raises:
        KeyMismatchError: the key or the password is another one; ``path`` is named.
    """
    from segkey.shards.unlock import cipher_for

    loaded = loaded or load_key_for(header, given)
    return cipher_for(header, loaded, encode(given.ffx_password), path)


def encode(password: str | None) -> bytes | None:
    """A password as the bytes that were typed, also if they are no UTF-8."""
    return None if password is None else password.encode("utf-8", "surrogateescape")


def unlock(run: "Run", given: OpenerGiven | RunKeyGiven) -> "Key | None":
    """Give a sealed run what opens it, the identity before the key; without effect on others.

    Returns:
        The key, if it was read, so that its passphrase is asked for once.

    Raises:
        SegkeyError: no key, or one that it was not sealed for.
    """
    if not run.is_sealed:
        return None
    if given.identity:
        run.unlock(read_identity(given.identity, given.passphrase_file))
        return None
    if not key_file(given.key).exists():
        raise SegkeyError(
            f"{run.path} is sealed, and there is no key at {key_file(given.key)}",
            "give the key that it was sealed for with --key",
        )
    loaded = load_key(given)
    run.unlock(loaded)
    return loaded


def unlock_and_load_key(run: "Run", given: RunKeyGiven) -> "Key | None":
    """`unlock`, and read the key of the run's images; None if they are plain."""
    loaded = unlock(run, given)
    if loaded and run.header.method != "none":
        return loaded
    return load_key_for(run.header, given)


def read_identity(file: Path, passphrase_file: Path | None = None) -> "Identity":
    """What opens sealed runs: of a key file, asking for its passphrase, or of ``age-keygen``."""
    from segkey.crypto.age import Identity

    return Identity.read(file, passphrase_of(file, passphrase_file))


def read_recipients(texts: list[str] | None, passphrase_file: Path | None = None) -> list[str]:
    """Recipients ``age1…`` from those texts themselves, and from files of keys or identities."""
    from segkey.crypto.age import check_recipients

    found = []
    for text in texts or ():
        public = is_recipient(text)
        found += [text] if public else read_identity(Path(text), passphrase_file).recipients
    return check_recipients(found) if texts else []


def is_recipient(text: str) -> bool:
    """Whether a text is meant as a recipient itself, and not as the path of a key."""
    return text.lower().startswith(("age1", "age-secret-")) and not Path(text).exists()


def open_tested(run: "Run", data: TestData) -> tuple["Split | MemorySplit", bool]:
    """What a run is tested on, and whether that is all of its own test split.

    Only then is the result kept. Images that cannot be used are named.
    """
    from segkey.model import evaluation_splits

    tested = evaluation_splits.open_test_split(
        run, data.shards, data.images, data.masks, data.split
    )
    console.left_out(getattr(tested, "problems", []))
    own = evaluation_splits.is_own_test(tested, data.split, data.shards, data.images, data.limit)
    return tested, own
