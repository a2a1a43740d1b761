"""Commands ``segkey seal`` and ``segkey unseal``."""

from typing import Annotated

from segkey.cli import app, console, given_inputs, options
from segkey.cli.options import flag, option
from segkey.errors import SegkeyError


@app.command(
    epilog="Example: segkey seal runs/np-m4 --to keys/segkey.key --to age1…   (in place)\n\n"
    "Example: segkey seal runs/np-m4 --to age1… --name for-customer-a   (a copy)",
    rich_help_panel="Security",
)
def seal(
    *,
    run: options.RunFolder,
    to: Annotated[
        list[str],
        option(
            "--to",
            "RECIPIENT",
            "Let this key file, or the owner of this public age1… text as 'segkey inspect "
            "KEY' prints it, open the run; may be given several times.",
        ),
    ],
    name: Annotated[
        str | None, options.name_option("Seal a copy as a run of this name instead.")
    ] = None,
    without_me: Annotated[
        bool,
        flag(
            "--without-me",
            "Seal in place even if no --to is a key file, so that only others can open it.",
        ),
    ] = False,
    secret: options.OpenerGiven,
) -> None:
    """Encrypt a run's weights for recipients, so that a stolen file is worthless.

    The file is in the age format; it is opened in memory, never on disk, with the key of any of the
    recipients. A run that is sealed already is sealed anew for exactly these recipients: others
    cannot open the new file, but whoever had model and key keeps them. The unencrypted file is
    removed; backups, and the disk itself, may still hold it.
    """
    from segkey.model import seal as sealing

    opened = given_inputs.open_run(run)
    if not (name or without_me) and all(map(given_inputs.is_recipient, to)):
        raise SegkeyError(
            f"none of the recipients is a key file: you could not open {opened.path} again",
            "add --to keys/segkey.key, or seal a copy with --name, or add --without-me",
        )
    chosen = given_inputs.read_recipients(to, secret.passphrase_file)
    given_inputs.unlock(opened, secret)
    before = set(opened.recipients) - set(chosen)
    if name:
        opened = sealing.sealed_copy(opened, chosen, name)
    else:
        sealing.seal(opened, chosen)
        if before:
            console.note(
                f"{len(before)} earlier recipients cannot open it any more; whoever has an earlier "
                "copy and its key keeps them."
            )
    count = len(chosen)
    console.show(f"run {opened.path} is sealed for {count} recipient{'s' * (count != 1)}:")
    console.show(*chosen)


@app.command(
    epilog="Example: segkey unseal runs/np-m4\n\n"
    "Example: segkey unseal runs/np-m4 --key keys/customer.key",
    rich_help_panel="Security",
)
def unseal(
    *,
    run: options.RunFolder,
    secret: options.OpenerGiven,
) -> None:
    """Decrypt a sealed run's weights, so that it opens without a key."""
    from segkey.model import seal as sealing

    opened = given_inputs.open_run(run)
    given_inputs.unlock(opened, secret)
    sealing.unseal(opened)
    console.show(
        f"run {opened.path} is not sealed any more: its weights lie in {opened.weights_file}"
    )
