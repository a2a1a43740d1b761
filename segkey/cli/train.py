"""Command ``segkey train``: train a run, or go on with one."""

import os
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, given_inputs, options, paths
from segkey.cli.options import flag, key_option, option
from segkey.cli.training_options import RecipeValues
from segkey.errors import SegkeyError
from segkey.system.shell_quoting import word


@dataclass(frozen=True)
class NewRun:
    """What a new run is begun with, besides the values of its recipe."""

    recipe: Annotated[
        str | None,
        option(
            "--recipe",
            "NAME",
            "Train by the recipe paper (from COCO weights), scratch (from random weights) or "
            "laptop (a small network); by default, laptop without a GPU, else paper.",
        ),
    ] = None
    network: options.Network = None
    seed: options.SeedIfGiven = None
    log: Annotated[
        str | None,
        option(
            "--log",
            "KIND",
            "Also log epochs as csv (log.csv in the run) or for tensorboard.",
            options.OUTPUT,
        ),
    ] = None
    precise: options.Precise = False
    compiled: Annotated[
        bool,
        flag(
            "--compile",
            "Compile the network first, which takes a minute and pays in long trainings on a GPU.",
            options.MACHINE,
        ),
    ] = False


@dataclass(frozen=True)
class DeviceKey(options.NewCipherGiven):
    """A key to encrypt plain shards with on the device, and keys of a sealed run."""

    key: Annotated[
        Path | None,
        key_option("Encrypt plain shards on the device with this key; needs --method and -M."),
    ] = None
    method: Annotated[
        str | None,
        options.method_option("With --key, encrypt with shf, np, ffx or shf+np.", options.KEY),
    ] = None
    block_size: Annotated[
        int | None,
        options.block_size_option("With --key, encrypt blocks of M x M pixels.", options.KEY),
    ] = None
    seal: options.Seal = None
    identity: options.IdentityFile = None


@app.command(
    epilog="Example: segkey train\n\n"
    "Example: segkey train --recipe paper   (from COCO weights)\n\n"
    "Example: segkey train --recipe scratch --network resnet14 --epochs 30\n\n"
    "Example: segkey train plain/ --key keys/segkey.key --method ffx -M 4\n\n"
    "Example: segkey train --resume",
    rich_help_panel="Model",
)
def train(
    *,
    shards: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SHARDS",
            help="Train on these shards, or folders of shards, instead of shards/.",
        ),
    ] = None,
    new: NewRun,
    name: Annotated[
        str | None, options.name_option("Name the run; by default after method and block size.")
    ] = None,
    runs: options.RunsFolder = paths.DEFAULT_RUNS,
    resume: Annotated[
        bool,
        flag(
            "--resume",
            "Continue the interrupted run --name, or the newest one, with its own settings.",
        ),
    ] = False,
    values: RecipeValues,
    secret: DeviceKey,
    device: options.Device = "auto",
) -> None:
    """Train a segmentation network on shards and save it as a run.

    Plain shards are augmented on the device, anew in every epoch, with --key and without it.
    Encrypted shards, and others made with --views, hold fixed augmented views and are used as they
    are; the paper draws new crops in every epoch. To --resume a run that --seal sealed, one of its
    keys is needed.
    """
    from segkey import reports
    from segkey.system import devices

    where = devices.choose(device)
    again = "segkey train --resume" + (f" --name {word(name)}" if name else "")
    again += f" --runs {word(runs)}" if runs != paths.DEFAULT_RUNS else ""
    console.on_interrupt(_interrupt_hint(runs / (name or "latest"), again, resume))
    if resume:
        begun_with = (*astuple(new), *astuple(values), secret.method, secret.block_size)
        if secret.seal or any(value not in (None, False) for value in begun_with):
            raise typer.BadParameter(
                "--resume goes on as the run was begun; leave out the other training options"
            )
        run = _resume(runs / (name or "latest"), shards, secret, where)
    else:
        run = _begin(shards or [paths.DEFAULT_SHARDS], runs, name, new, values, secret, where)
    console.show(reports.describe_training(run))


def _header(shards):
    """What the shards of a training say; of the first split, as they must be alike."""
    from segkey.shards import open_splits

    return next(iter(open_splits(shards).values())).header


def _begin(shards, runs, name, new: NewRun, values: RecipeValues, secret: DeviceKey, device):
    """Train a new run."""
    from segkey.model import recipes, training
    from segkey.shards import open_splits

    chosen = values.overrides(lambda: _header(shards).classes)
    name_of_recipe, network = recipes.choose(
        new.recipe or recipes.AUTO,
        new.network,
        bool(values.weights or values.encoder_weights),
        device.type != "cpu",
    )
    if not new.recipe and name_of_recipe == "laptop":
        console.note(
            f"There is no GPU here: {network} is trained from random weights (--recipe laptop). "
            "For the paper's recipe give --recipe paper"
        )
    recipe, cipher = recipes.recipe(name_of_recipe, **chosen), _cipher(secret, shards)
    sealed_for = given_inputs.read_recipients(secret.seal, secret.passphrase_file)
    splits = open_splits(shards, ("train", "val"))
    if values.crop_scale is not None and not training.on_the_fly(splits, cipher):
        console.warn("--crop-scale has no effect: the crops of these shards were made with them")
    return training.train(
        splits,
        runs,
        recipe,
        shards=shards,
        name=name,
        cipher=cipher,
        network=network,
        device=device,
        seed=new.seed or 0,
        precise=new.precise,
        compiled=new.compiled,
        log=new.log,
        recipients=sealed_for,
        progress=console.TerminalProgress(),
    )


def _cipher(secret: DeviceKey, shards):
    """What --key, --method and -M mean for plain shards; None without them."""
    from segkey.crypto import ciphers

    if not secret.key:
        if secret.method is not None or secret.block_size is not None:
            raise typer.BadParameter(
                "--method and -M belong to --key; encrypted shards need none of them"
            )
        return None
    if secret.method is None or secret.block_size is None:
        raise typer.BadParameter("--key also needs --method and -M")
    key, password = given_inputs.load_key(secret), given_inputs.encode(secret.ffx_password)
    channels = _header(shards).channels
    return ciphers.from_key(secret.method, key, secret.block_size, channels, password=password)


def _resume(path, shards, secret: DeviceKey, device):
    """Go on with a run, on its own shards by default."""
    from segkey.model import evaluation_splits, training
    from segkey.model.runs import Run
    from segkey.shards import open_splits

    run = Run.open(path)
    loaded, cipher = given_inputs.unlock(run, secret), None
    if run.configuration.data.on_the_fly and run.header.method != "none":
        cipher = given_inputs.load_cipher(run.header, secret, run.path, loaded)
    splits = open_splits(shards or evaluation_splits.own_shards(run), ("train", "val"))
    return training.resume(
        run, splits, device=device, cipher=cipher, progress=console.TerminalProgress()
    )


def _interrupt_hint(folder, command, resume):
    """What tells how to go on after Ctrl-C, which may come before there is a run to resume.

    Until then, the run in ``folder`` is none, or an earlier one of another training. After the last
    epoch nothing is left to resume.
    """

    def begun():
        """The real folder of the run that is there; None if there is none."""
        is_there = os.path.lexists(folder / "run.json")
        return os.path.realpath(folder) if is_there else None

    def hint():
        """What to do next, as things stand when it is asked."""
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
