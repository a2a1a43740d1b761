"""Commands ``segkey lock``, ``segkey whose`` and ``segkey fold``."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, completion, console, given_inputs, options
from segkey.cli.options import flag, option
from segkey.errors import SegkeyError


@app.command(
    epilog="Example: segkey lock runs/plain --key keys/segkey.key --method np -M 4\n\n"
    "Example: segkey lock runs/plain --customers keys/*.key --seal keys/segkey.key",
    rich_help_panel="Model",
)
def lock(
    *,
    run: Annotated[
        Path,
        options.run_argument("Lock the plainly trained run in this folder; it stays as it is."),
    ],
    keys: Annotated[
        list[Path] | None,
        typer.Argument(metavar="KEYS", help="With --customers, lock with each of these key files."),
    ] = None,
    customers: Annotated[
        bool, flag("--customers", "Make one locked run for each of the key files KEYS.")
    ] = False,
    method: Annotated[
        str, options.method_option("Lock for images encrypted with np, shf or shf+np.")
    ] = "np",
    block_size: Annotated[int, options.block_size_option("Lock for blocks of M x M pixels.")] = 4,
    name: Annotated[
        str | None,
        options.name_option(
            "Name the locked run; with --customers, begin the names of all with NAME."
        ),
    ] = None,
    seal: options.Seal = None,
    secret: options.OpenerGiven,
) -> None:
    """Lock a trained model with a key, without training and without loss.

    The locked run needs images encrypted with the key, and predicts exactly what RUN predicts for
    plain ones. If RUN is sealed, so is the locked run, for the same recipients unless --seal names
    others; with --customers, --key opens RUN, and each sealed run is sealed for its customer's key,
    too. Who has the weights and plain images can find the key: see 'segkey attack'.
    """
    from segkey import reports
    from segkey.model import locked_runs

    opened, progress = given_inputs.open_run(run), console.TerminalProgress()
    _check_keys(customers, keys, secret.key and not opened.is_sealed)
    chosen = given_inputs.read_recipients(seal, secret.passphrase_file)
    unlocked_by = given_inputs.unlock(opened, secret)
    if customers:
        of_customer = _by_name(keys, secret.passphrase_file)
        made = locked_runs.lock_for_customers(
            opened, of_customer, method, block_size, name, progress, chosen
        )
    else:
        loaded = unlocked_by or given_inputs.load_key(secret)
        made = [locked_runs.lock_run(opened, loaded, method, block_size, name, progress, chosen)]
    console.show(reports.locked_table(opened, made))


def _check_keys(customers: bool, keys: list[Path] | None, key_opens_nothing: bool) -> None:
    """Refuse keys that are given in the wrong place."""
    if customers and not keys:
        raise typer.BadParameter("--customers takes key files after it")
    if customers and key_opens_nothing:
        raise typer.BadParameter(
            "with --customers, --key only opens a sealed RUN; give the keys to lock with after it"
        )
    if keys and not customers:
        raise typer.BadParameter("several key files belong to --customers; give one with --key")


@app.command(
    epilog="Example: segkey whose found/ keys/\n\n"
    "Example: segkey whose model.safetensors keys/*.key --original runs/plain",
    rich_help_panel="Model",
)
def whose(
    model: Annotated[
        Path,
        options.run_argument("Look into this run, or this file of weights.", "MODEL"),
    ],
    keys: Annotated[
        list[Path],
        typer.Argument(metavar="KEYS", help="Try these key files, or all keys in these folders."),
    ],
    original: Annotated[
        Path | None,
        option(
            "--original",
            "RUN",
            "Compare with the run that was locked, which tells keys apart for every M.",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Find out with which of your keys a model was locked.

    The weights are the evidence, and not what the files beside them say.
    """
    from segkey import reports
    from segkey.model import lock_owner as search

    of_customer = _by_name(_key_files(keys), passphrase_file)
    plain = given_inputs.open_run(original) if original else None
    found = search.whose(model, of_customer, plain)
    if as_json:
        console.show_json(reports.whose_document(model, found))
    else:
        console.show(reports.whose_table(model, found), reports.whose_sentence(found))


@app.command(epilog="Example: segkey fold runs/np-m4", rich_help_panel="Model")
def fold(
    *,
    run: options.RunFolder,
    name: Annotated[str | None, options.name_option("Name the folded run.")] = None,
    seal: options.Seal = None,
    secret: options.OpenerGiven,
) -> None:
    """Fold batch normalisation into the convolutions before it.

    The new run predicts what RUN predicts, and stores no statistics of its training images, from
    which 'segkey attack --attack statistics' takes keys. Its training cannot go on. If RUN is
    sealed, so is the new run, for the same recipients unless --seal names others.
    """
    from segkey import reports
    from segkey.model import folded_runs

    opened = given_inputs.open_run(run)
    chosen = given_inputs.read_recipients(seal, secret.passphrase_file)
    given_inputs.unlock(opened, secret)
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
    """Keys with their owners' names, which are those of the files."""
    return [
        (file.stem, given_inputs.load_key(options.KeyGiven(file, passphrase_file)))
        for file in files
    ]
