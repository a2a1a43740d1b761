"""Commands ``segkey train`` and ``segkey evaluate``."""

import os
from dataclasses import astuple
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options, recipients
from segkey.cli.options import flag, key_option, option
from segkey.cli.training_options import RecipeValues
from segkey.errors import SegkeyError
from segkey.system.shell import word


@app.command(
    epilog="Example: segkey train   (the paper's recipe, from COCO weights)\n\n"
    "Example: segkey train --recipe scratch --network resnet14 --epochs 30\n\n"
    "Example: segkey train plain/ --key keys/segkey.key --method ffx -M 4\n\n"
    "Example: segkey train --resume",
    rich_help_panel="Model",
)
def train(
    shards: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SHARDS",
            help="Train on these shards, or folders of shards, instead of shards/.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        option(
            "--recipe",
            metavar="NAME",
            help="Train by the recipe paper (the default; from COCO weights) or scratch (from "
            "random weights).",
        ),
    ] = None,
    network: options.Network = None,
    name: Annotated[
        str | None,
        option(
            "--name", metavar="NAME", help="Name the run; by default after method and block size."
        ),
    ] = None,
    runs: Annotated[
        Path, option("--runs", metavar="FOLDER", help="Keep runs in this folder.")
    ] = options.DEFAULT_RUNS,
    resume: Annotated[
        bool,
        flag(
            "--resume",
            help="Continue the interrupted run --name, or the newest one, with its own settings.",
        ),
    ] = False,
    seed: options.SeedIfGiven = None,
    values: RecipeValues = RecipeValues(),  # noqa: B008 - frozen
    log: Annotated[
        str | None,
        option(
            "--log",
            metavar="KIND",
            help="Also log epochs as csv (log.csv in the run) or for tensorboard.",
            panel=options.OUTPUT,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        key_option("Encrypt plain shards on the device with this key; needs --method and -M."),
    ] = None,
    method: Annotated[
        str | None,
        option(
            "--method",
            "-m",
            metavar="NAME",
            help="With --key, encrypt with shf, np, ffx or shf+np.",
            panel=options.KEY,
            autocompletion=options.complete_methods,
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        option(
            "--block-size",
            "-M",
            min=1,
            max=4096,
            metavar="M",
            help="With --key, encrypt blocks of M x M pixels.",
            panel=options.KEY,
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.FFXPassword = None,
    seal: Annotated[
        list[str] | None,
        option(
            "--seal",
            metavar="RECIPIENT",
            help="Write weights sealed for this key file or public age1… text, never unencrypted; "
            "may be given several times, and one of these keys is needed to --resume.",
            panel=options.KEY,
        ),
    ] = None,
    identity: options.IdentityFile = None,
    device: options.Device = "auto",
    precise: options.Precise = False,
    compiled: Annotated[
        bool,
        flag(
            "--compile",
            help="Compile the network first, which takes a minute and pays in long trainings on a "
            "GPU.",
            panel=options.MACHINE,
        ),
    ] = False,
) -> None:
    """Train a segmentation network on shards and save it as a run.

    Plain shards are augmented on the device, anew in every epoch, with --key and without it.
    Encrypted shards, and others made with --views, hold fixed augmented views and are used as they
    are; the paper draws new crops in every epoch.
    """
    from segkey import reports
    from segkey.model import network_registry, recipes
    from segkey.model.runs import Run
    from segkey.system import devices

    where = devices.choose(device)
    where_to = (f" --name {word(name)}" if name else "") + (
        f" --runs {word(runs)}" if runs != options.DEFAULT_RUNS else ""
    )
    console.on_interrupt(
        _interrupt_hint(runs / (name or "latest"), f"segkey train --resume{where_to}", resume)
    )
    if resume:
        begun_with = (recipe, *astuple(values), network, method, block_size, seed, log, seal)
        if precise or compiled or any(value is not None for value in begun_with):
            raise typer.BadParameter(
                "--resume goes on as the run was begun; leave out the other training options"
            )
        begun = Run.open(runs / (name or "latest"))
        loaded = recipients.unlock(begun, key, passphrase_file, identity)
        cipher = _cipher_of_run(begun, key, passphrase_file, ffx_password, loaded)
        run = _resume(begun, shards, cipher, where)
    else:
        where_from = shards or [options.DEFAULT_SHARDS]
        chosen = values.overrides(lambda: _header(where_from).classes)
        run = _begin(
            where_from,
            runs,
            recipes.recipe(recipe or "paper", **chosen),
            crops_given=values.crop_scale is not None,
            cipher=_cipher_on_device(
                key, passphrase_file, method, block_size, ffx_password, where_from
            ),
            device=where,
            name=name,
            recipients=recipients.read_recipients(seal, passphrase_file) if seal else (),
            network=network or network_registry.DEFAULT,
            precise=precise,
            compiled=compiled,
            seed=seed or 0,
            log=log,
        )
    console.show(reports.describe_training(run))


def _header(shards):
    """What the shards of a training say; of the first split, as they must be alike."""
    from segkey.shards import open_splits

    return next(iter(open_splits(shards).values())).header


def _begin(shards, runs, recipe, *, cipher, crops_given: bool, **settings):
    """Train a new run; ``settings`` are those of `segkey.model.training.train`."""
    from segkey.model import training
    from segkey.shards import open_splits

    splits = open_splits(shards, ("train", "val"))
    if crops_given and not training.on_the_fly(splits, cipher):
        console.warn("--crop-scale has no effect: the crops of these shards were made with them")
    return training.train(
        splits,
        runs,
        recipe,
        shards=shards,
        cipher=cipher,
        progress=console.TerminalProgress(),
        **settings,
    )


def _interrupt_hint(folder, command, resume):
    """What tells how to go on after Ctrl-C, which may come before there is a run to resume.

    Until then, the run in ``folder`` is none, or an earlier one of another training. After the last
    epoch nothing is left to resume.
    """

    def begun():
        is_there = os.path.lexists(folder / "run.json")
        return os.path.realpath(folder) if is_there else None

    def hint():
        if begun() == before:
            return console.RUN_AGAIN
        finished = _finished(folder)
        if not finished:
            return f"go on with: {command}"
        epochs = finished.configuration.epochs_done
        return f"all {epochs} epochs are saved; next: segkey evaluate {word(finished.path)}"

    before = None if resume else begun()
    return hint


def _finished(folder):
    """The run in a folder if it has all its epochs, else None."""
    from segkey.model.runs import Run

    try:
        run = Run.open(folder)
    except SegkeyError:
        return None
    return None if run.epochs_missing else run


def _resume(run, shards, cipher, device):
    """Go on with a run, on its own shards by default."""
    from segkey.model import evaluation_splits, training
    from segkey.shards import open_splits

    splits = open_splits(shards or evaluation_splits.own_shards(run), ("train", "val"))
    return training.resume(
        run, splits, device=device, cipher=cipher, progress=console.TerminalProgress()
    )


def _cipher_on_device(key, passphrase_file, method, block_size, ffx_password, shards):
    """What --key, --method and -M mean for plain shards; None without them."""
    from segkey.crypto import ciphers

    if not key:
        if method is not None or block_size is not None:
            raise typer.BadParameter(
                "--method and -M belong to --key; encrypted shards need none of them"
            )
        return None
    if method is None or block_size is None:
        raise typer.BadParameter("--key also needs --method and -M")
    loaded = options.load_key(key, passphrase_file)
    return ciphers.from_key(
        method, loaded, block_size, _header(shards).channels, password=options.encode(ffx_password)
    )


def _cipher_of_run(run, key, passphrase_file, ffx_password, loaded):
    """What a run was begun with on the device; None if its shards were encrypted."""
    if not run.configuration.data.on_the_fly or run.header.method == "none":
        return None
    return options.load_cipher(run.header, key, passphrase_file, ffx_password, run.path, loaded)


@app.command(
    epilog="Example: segkey evaluate\n\nExample: segkey evaluate runs/np-m4 --images photos/ "
    "--masks labels/",
    rich_help_panel="Model",
)
def evaluate(
    run: options.RunFolder = options.LATEST,
    shards: options.TestShards = None,
    images: options.TestImages = None,
    masks: options.TestMasks = None,
    split: options.TestSplit = "test",
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    identity: options.IdentityFile = None,
    limit: options.Limit = None,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    precise: options.Precise = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure mean and per-class IoU of a run on test images with the correct key."""
    from segkey import reports
    from segkey.model import evaluation, evaluation_splits
    from segkey.system import devices

    where, opened = devices.choose(device), options.open_run(run)
    unlocked_by = recipients.unlock(opened, key, passphrase_file, identity)
    tested = evaluation_splits.open_test_split(opened, shards, images, masks, split)
    loaded = cipher = None
    # Images encrypted as the run was trained need no key; one that is given must be the right one
    # all the same.
    if opened.header.method != "none" and (tested.header.method == "none" or key):
        loaded = unlocked_by or options.load_key_for(opened.header, key, passphrase_file)
        cipher = opened.cipher(loaded, options.encode(ffx_password))
    console.left_out(getattr(tested, "problems", []))
    result = evaluation.evaluate(
        opened, tested, cipher, where, limit, batch_size or 32, precise, console.TerminalProgress()
    )
    if evaluation_splits.is_own_test(tested, split, shards, images, limit):
        opened.keep(result, loaded)
    else:
        console.note(
            "This is not kept with the run: segkey report shows results on all of its own test "
            "split."
        )
    if as_json:
        console.show_json(result.document)
    else:
        console.show(reports.evaluation_table(result))
