"""Command ``segkey keygen``: generate a key file."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, given_inputs, options, paths
from segkey.cli.options import flag, option


@app.command(
    epilog="Example: segkey keygen   (writes keys/segkey.key)\n\n"
    "Example: segkey keygen customer-a --passphrase",
    rich_help_panel="Keys",
)
def keygen(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Write keys/NAME.key, or the path NAME ending in .key."
        ),
    ] = "segkey",
    passphrase: Annotated[
        bool, flag("--passphrase", "Seal the key with a passphrase, asked for twice.")
    ] = False,
    passphrase_file: Annotated[
        Path | None,
        option("--passphrase-file", "FILE", "Seal the key with the first line of this file."),
    ] = None,
    force: options.Force = False,
) -> None:
    """Make a secret key and show how many keys each method has."""
    from segkey import reports
    from segkey.crypto.keys import Key

    path = Path(name) if name.endswith(".key") else paths.DEFAULT_KEY.parent / f"{name}.key"
    words = None
    if passphrase_file:
        words = given_inputs.read_passphrase(passphrase_file)
    elif passphrase:
        words = given_inputs.ask_passphrase("Passphrase", twice=True)
    key = Key.generate()
    key.save(path, words, force)
    console.show(f"key {key.id} written to {path}" + (", sealed" if words is not None else ""))
    console.show(reports.key_space_table(), reports.KEY_SPACE_ADVICE)
    if words is None:
        console.note(
            "Keep a copy in a safe place: without this file, nothing made with it can be decrypted."
        )
    else:
        console.note(
            "Keep the file and the passphrase: without both, nothing made with the key can be "
            "decrypted."
        )
