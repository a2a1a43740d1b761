"""Command ``segkey inspect``: describe keys, shards and runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segkey.cli import app, console, given_inputs, options
from segkey.cli.options import flag, key_option, option
from segkey.errors import SegkeyError

if TYPE_CHECKING:
    from segkey.crypto.ciphers import Cipher
    from segkey.shards import Split


@dataclass(frozen=True)
class _LookingKey(options.RunKeyGiven):
    """A key to look with."""

    key: Annotated[
        Path | None,
        key_option(
            "Draw the images of --sheet decrypted with this key, too; open sealed runs with it, to "
            "--verify their weights."
        ),
    ] = None


@app.command(
    epilog="Example: segkey inspect shards/ keys/segkey.key runs/latest\n\n"
    "Example: segkey inspect --verify shards/train.h5\n\n"
    "Example: segkey inspect shards/test.h5 --sheet test.png --key keys/segkey.key",
    rich_help_panel="Data",
)
def inspect(
    *,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Describe these keys, shards and runs, or folders of them."
        ),
    ],
    verify: Annotated[
        bool, flag("--verify", "Read everything and compare it with its checksums.")
    ] = False,
    sheet: Annotated[
        Path | None,
        option(
            "--sheet",
            "FILE",
            "Draw the first images of the first shard, as stored and with masks, as PNG.",
        ),
    ] = None,
    secret: _LookingKey,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Describe keys, shards and runs without printing a secret."""
    from segkey import reports
    from segkey.reports import inspection

    if secret.key and not (sheet or verify):
        raise typer.BadParameter("--key belongs to --sheet or --verify: nothing else needs one")
    opener, words = secret.identity or (secret.key if verify else None), secret.passphrase_file
    how = {
        "identity": given_inputs.read_identity(opener, words) if opener else None,
        "passphrase": given_inputs.read_passphrase(words) if words else None,
        "progress": console.TerminalProgress(),
    }
    documents = [each for file in files for each in inspection.describe(file, verify, **how)]
    if as_json:
        console.show_json(documents)
    else:
        console.show(*(reports.inspection_table(document) for document in documents))
    if sheet:
        split, cipher = _first_split(documents), None
        if secret.key:
            cipher = given_inputs.load_cipher(split.header, secret, split.shards.paths[0])
        _draw_sheet(split, cipher, sheet, force)
    damaged = [document for document in documents if document.get("damage")]
    if damaged:
        raise SegkeyError(
            f"{len(damaged)} of {len(documents)} files are damaged",
            "restore them, or make them again",
        )


def _first_split(documents: list[dict]) -> "Split":
    """The first shard of those that ``segkey inspect`` describes, as a split of its own."""
    from segkey.shards import Shards, Split

    for document in documents:
        if document["kind"] == "shard":
            return Split(Shards([Path(document["path"])]))
    raise SegkeyError(
        "there is no shard to draw", "give a shard, or a folder of shards, with --sheet"
    )


def _draw_sheet(split: "Split", cipher: "Cipher | None", sheet: Path, force: bool) -> None:
    """The contact sheet of ``segkey inspect --sheet``."""
    from segkey.reports import inspection
    from segkey.reports.contact_sheets import shard_sheet
    from segkey.system.files import written_whole

    shard, protected = split.shards.paths[0], split.header.method != "none"
    picture = shard_sheet(str(shard), split.header, inspection.first_images(split, cipher))
    permissions = 0o600 if cipher and protected else 0o666
    with written_whole(sheet, permissions=permissions, replace=force) as file:
        picture.save(file, "PNG")
    console.note(f"{sheet}: the first images of {shard}")
    if cipher and protected:
        console.warn(
            f"keep {sheet} to yourself: an image beside its encrypted twin gives the key away"
        )
    elif protected:
        console.note("It shows encrypted images, from which their key can be estimated.")
