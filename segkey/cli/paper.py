"""Command ``segkey reproduce``: the paper's experiment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, given_inputs, options, parsing
from segkey.cli.options import flag, key_option, option
from segkey.cli.training_options import EncoderWeights


class _GridProgress(console.TerminalProgress):
    """One bar on a terminal; elsewhere, the figures of every epoch too."""

    def state(self, text: str) -> None:
        if not console.err.is_terminal:
            self.say(text)


@dataclass(frozen=True)
class Grid:
    """Which models are made."""

    methods: options.Methods = None
    block_sizes: options.BlockSizes = None
    locked: Annotated[
        bool,
        flag(
            "--locked", "Also lock the baseline by each method that can, which takes no training."
        ),
    ] = False
    seeds: Annotated[
        int,
        option(
            "--seeds",
            "N",
            "Train N models per method and block size; more than one give mean ± deviation.",
            min=1,
        ),
    ] = 1

    def cells(self, height_width, network):
        """The cells of the grid; and why a method that was asked for is not locked."""
        from segkey import paper
        from segkey.crypto import BLOCK_SIZES, LOCKING, PROTECTED
        from segkey.reports.preview import default_block_sizes

        chosen = parsing.parse_block_sizes(self.block_sizes)
        chosen = chosen or default_block_sizes(*height_width, BLOCK_SIZES)
        names = parsing.parse_methods(self.methods) or list(PROTECTED)
        locks, not_locked = [], []
        if self.locked:
            locking = [name for name in names if name != "ffx"] if self.methods else LOCKING
            locks, not_locked = paper.locks_that_fit(network, locking, chosen)
        return paper.grid(names, chosen, height_width, self.seeds, locks), not_locked


@dataclass(frozen=True)
class Making:
    """How every model is made and tried."""

    recipe: Annotated[
        str,
        option(
            "--recipe",
            "NAME",
            "Train by the recipe paper (from COCO weights), scratch (from random weights) or "
            "laptop (a small network).",
        ),
    ] = "paper"
    weights: Annotated[
        str | None,
        option("--weights", "NAME", "Start from coco, imagenet, none, or a file."),
    ] = None
    encoder_weights: EncoderWeights = None
    network: options.Network = None
    epochs: Annotated[int | None, option("--epochs", "N", "Train for N epochs.", min=1)] = None
    batch_size: options.BatchSize = None
    size: options.Size = "256"
    wrong_keys: Annotated[
        int, option("--wrong-keys", "N", "Try N random wrong keys per model.", min=1)
    ] = 100
    limit: Annotated[
        int | None, option("--limit", "N", "Use only the first N test images.", min=1)
    ] = None

    def settings(self):
        """The `segkey.paper.Settings`."""
        from segkey import paper
        from segkey.model import recipes

        recipe, network = recipes.choose(self.recipe, self.network, starts=True, has_gpu=True)
        values = {
            "weights": self.weights,
            "encoder_weights": self.encoder_weights,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
        }
        return paper.Settings(
            parsing.parse_size(self.size),
            recipes.recipe(recipe, **values),
            network,
            self.wrong_keys,
            self.limit,
        )


@dataclass(frozen=True)
class ExperimentKey(options.KeyGiven):
    """The key that models are protected with."""

    key: Annotated[
        Path | None, key_option("Protect with this key instead of one made for this experiment.")
    ] = None

    def load(self, out: Path, dry_run: bool):
        """The key that was given, or that of the experiment in the folder ``out``."""
        from segkey import paper
        from segkey.crypto.keys import Key

        if self.key:
            return given_inputs.load_key(self)
        if dry_run:
            return Key.generate()
        loaded = paper.key_for(out)
        console.note(
            f"The key is {out}/keys/experiment.key: for this experiment only, as FFX's "
            f"password is public in it."
        )
        return loaded


@app.command(
    epilog="Example: segkey reproduce VOCdevkit/VOC2012\n\n"
    "Example: segkey reproduce data/ --recipe scratch --network resnet14 --size 128 -M 2,4,8\n\n"
    "Example: segkey reproduce VOCdevkit/VOC2012 --locked\n\n"
    "Example: segkey reproduce VOCdevkit/VOC2012 --methods np -M 4 --seeds 3 --dry-run",
    rich_help_panel="Reports",
)
def reproduce(
    *,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="Use this VOC devkit, or this folder of images with masks."
        ),
    ],
    out: Annotated[Path, options.out_option("Write everything here.")] = Path("results"),
    grid: Grid,
    making: Making,
    secret: ExperimentKey,
    device: options.Device = "auto",
    workers: options.Workers = None,
    dry_run: Annotated[
        bool, flag("--dry-run", "Show the plan and estimate how long it takes.")
    ] = False,
) -> None:
    """Repeat the paper's experiment on your images, for each method and block size.

    A model is trained and attacked for each. The results are the paper's Table 1, its Figures 4
    to 6, a chart of accuracy against what is left without the key, and a verdict on each of its
    findings. The same command, run again, continues with what is missing.
    """
    from segkey import paper
    from segkey.paper import tables
    from segkey.system import distributed
    from segkey.system.devices import choose

    settings = making.settings()
    cells, not_locked = grid.cells(settings.size, settings.network)
    where = choose(device)
    paper.check_folder(out)
    source = paper.open_data(data, workers)
    for line in not_locked:
        console.note(line)
    for finding in source.findings:
        console.finding(finding)
    console.left_out(source.problems)
    key, watch = secret.load(out, dry_run), paper.Watch(_GridProgress())
    experiment = paper.Experiment(source, settings, key, out, where, watch, workers)
    if dry_run:
        watch.say(f"Measuring a few steps and passes on {where} …")
        estimate = paper.estimate(experiment, cells)
        console.show(tables.plan_table(cells, settings.document(source, key.id), estimate))
        return
    results = experiment.run(cells)
    if distributed.is_main():
        _write(experiment, results)


def _write(experiment, results) -> None:
    """Write all tables and figures, and show the first."""
    from segkey import paper
    from segkey.paper import figures, tables, tradeoff
    from segkey.system.folder_lock import sole_writer

    out = experiment.out
    with sole_writer(out, wait=True):  # another process may be making models there
        made = tables.write_tables(results, out)
        made += figures.write_all(results, paper.example(experiment, results), out)
        made += tradeoff.write(results, out)
    table1 = tables.Table1(results).by_block_size().as_rich()
    console.show(table1, tables.findings_table(results))
    console.note(f"In {out}/: results.json, {', '.join(path.name for path in made)}")
    console.note(
        "Encrypted pictures in fig4.png and fig5.png are drawn with a throw-away key: beside the "
        "plain image, those of the experiment's key would give it away."
    )
