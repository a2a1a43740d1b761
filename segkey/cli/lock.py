"""Commands ``segkey lock``, ``segkey whose`` and ``segkey fold``."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options, recipients
from segkey.cli.options import flag, option
from segkey.errors import SegkeyError

Seal = Annotated[
    list[str] | None,
    option(
        "--seal",
        metavar="RECIPIENT",
        help="Write weights sealed for this key file or public age1… text, never unencrypted; may "
        "be given several times.",
        panel=options.KEY,
    ),
]


@app.command(
    epilog="Example: segkey lock runs/plain --key keys/segkey.key --method np -M 4\n\n"
    "Example: segkey lock runs/plain --customers keys/*.key --seal keys/segkey.key",
    rich_help_panel="Model",
)
def lock(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Lock the plainly trained run in this folder; it stays as it is.",
            autocompletion=options.complete_runs,
        ),
    ],
    keys: Annotated[
        list[Path] | None,
        typer.Argument(metavar="KEYS", help="With --customers, lock with each of these key files."),
    ] = None,
    customers: Annotated[
        bool, flag("--customers", help="Make one locked run for each of the key files KEYS.")
    ] = False,
    method: Annotated[
        str,
        option(
            "--method",
            "-m",
            metavar="NAME",
            help="Lock for images encrypted with np, shf or shf+np.",
            autocompletion=options.complete_methods,
        ),
    ] = "np",
    block_size: Annotated[
        int,
        option(
            "--block-size",
            "-M",
            min=1,
            max=4096,
            metavar="M",
            help="Lock for blocks of M x M pixels.",
        ),
    ] = 4,
    name: Annotated[
        str | None,
        option(
            "--name",
            metavar="NAME",
            help="Name the locked run; with --customers, begin the names of all with NAME.",
        ),
    ] = None,
    seal: Seal = None,
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    identity: options.IdentityFile = None,
) -> None:
    """Lock a trained model with a key, without training and without loss.

    The locked run needs images encrypted with the key, and predicts exactly what RUN predicts for
    plain ones. If RUN is sealed, so is the locked run, for the same recipients unless --seal names
    others; with --customers, --key opens RUN, and each sealed run is sealed for its customer's key,
    too. Who has the weights and plain images can find the key: see 'segkey attack'.
    """
    from segkey import reports
    from segkey.model import locked_runs

    opened, progress = options.open_run(run), console.TerminalProgress()
    if customers and not keys:
        raise typer.BadParameter("--customers takes key files after it")
    if customers and key and not opened.is_sealed:
        raise typer.BadParameter(
            "with --customers, --key only opens a sealed RUN; give the keys to lock with after it"
        )
    if keys and not customers:
        raise typer.BadParameter("several key files belong to --customers; give one with --key")
    chosen = recipients.read_recipients(seal, passphrase_file) if seal else ()
    unlocked_by = recipients.unlock(opened, key, passphrase_file, identity)
    if customers:
        of_customer = _by_name(keys, passphrase_file)
        made = locked_runs.lock_for_customers(
            opened, of_customer, method, block_size, name, progress, chosen
        )
    else:
        loaded = unlocked_by or options.load_key(key, passphrase_file)
        made = [locked_runs.lock_run(opened, loaded, method, block_size, name, progress, chosen)]
    console.show(reports.locked_table(opened, made))


@app.command(
    epilog="Example: segkey whose found/ keys/\n\n"
    "Example: segkey whose model.safetensors keys/*.key --original runs/plain",
    rich_help_panel="Model",
)
def whose(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="Look into this run, or this file of weights.",
            autocompletion=options.complete_runs,
        ),
    ],
    keys: Annotated[
        list[Path],
        typer.Argument(metavar="KEYS", help="Try these key files, or all keys in these folders."),
    ],
    original: Annotated[
        Path | None,
        option(
            "--original",
            metavar="RUN",
            help="Compare with the run that was locked, which tells keys apart for every M.",
            autocompletion=options.complete_runs,
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Find out with which of your keys a model was locked.

    The weights are the evidence, and not what the files beside them say.
    """
    from segkey import reports
    from segkey.model import whose as search

    of_customer = _by_name(_key_files(keys), passphrase_file)
    plain = options.open_run(original) if original else None
    found = search.whose(model, of_customer, plain)
    if as_json:
        console.show_json(reports.whose_document(model, found))
    else:
        console.show(reports.whose_table(model, found), reports.whose_sentence(found))


@app.command(epilog="Example: segkey fold runs/np-m4", rich_help_panel="Model")
def fold(
    run: options.RunFolder,
    name: Annotated[
        str | None, option("--name", metavar="NAME", help="Name the folded run.")
    ] = None,
    seal: Seal = None,
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    identity: options.IdentityFile = None,
) -> None:
    """Fold batch normalisation into the convolutions before it.

    The new run predicts what RUN predicts, and stores no statistics of its training images, from
    which 'segkey attack --attack statistics' takes keys. Its training cannot go on. If RUN is
    sealed, so is the new run, for the same recipients unless --seal names others.
    """
    from segkey import reports
    from segkey.model import folded_runs

    opened = options.open_run(run)
    chosen = recipients.read_recipients(seal, passphrase_file) if seal else ()
    recipients.unlock(opened, key, passphrase_file, identity)
    made = folded_runs.fold_run(opened, name, chosen)
    console.show(reports.folded_sentence(opened, made))


def _key_files(given):
    """Key files, those in folders too."""
    files = []
    for path in given:
        inside = sorted(path.glob("*.key")) if path.is_dir() else [path]
        if not inside:
            raise SegkeyError(f"there are no keys in {path}", "give key files, or their folder")
        files += inside
    return files


def _by_name(files, passphrase_file):
    """Keys with the name of whoever has them, which is that of their file."""
    return [(file.stem, options.load_key(file, passphrase_file)) for file in files]
