"""``segkey reproduce``."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options


class _GridProgress(console.TerminalProgress):
    """One bar on a terminal; elsewhere, the figures of every epoch too."""

    def state(self, text: str) -> None:
        if not console.err.is_terminal:
            self.say(text)


@app.command(
    epilog="Example: segkey reproduce VOCdevkit/VOC2012\n\n"
    "Example: segkey reproduce data/ --recipe scratch --backbone resnet14 --size 128 -M 2,4,8\n\n"
    "Example: segkey reproduce VOCdevkit/VOC2012 --methods np -M 4 --seeds 3 --dry-run",
    rich_help_panel="Reports",
)
def reproduce(
    data: Annotated[Path, typer.Argument(help="A VOC devkit, or a folder of images with masks.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for everything that is made.")
    ] = Path("results"),
    methods: options.Methods = None,
    block_sizes: options.BlockSizes = None,
    recipe: Annotated[
        str, typer.Option(help="paper (from COCO weights) or scratch (from random weights).")
    ] = "paper",
    weights: Annotated[
        str | None, typer.Option(help="Where to start: coco, imagenet, none, or a file.")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="resnet50, resnet101, or resnet14 for laptops.")
    ] = "resnet50",
    epochs: Annotated[int | None, typer.Option(min=1, help="Times every image is seen.")] = None,
    batch_size: options.BatchSize = None,
    size: options.Size = "256",
    wrong_keys: Annotated[
        int, typer.Option(min=1, help="How many random wrong keys to try on each model.")
    ] = 100,
    seeds: Annotated[
        int, typer.Option(min=1, help="Models of each kind; more than one give mean ± deviation.")
    ] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only the first so many test images.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            "-k",
            help="The correct key; one is made in the folder for this experiment, if not given.",
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be done, and measure how long it would take."
        ),
    ] = False,
) -> None:
    """The paper's experiment on your images: a model for every method and block size, trained and
    attacked, with the paper's Table 1, its Figures 4 to 6 and what became of its findings. Run
    again, it goes on with what is missing."""
    from segkey import paper
    from segkey.crypto import BLOCK_SIZES, PROTECTED
    from segkey.crypto.keys import Key
    from segkey.model import recipes
    from segkey.paper import figures, tables
    from segkey.reports import preview
    from segkey.system import distributed
    from segkey.system.devices import choose

    height_width = options.parse_size(size)
    chosen = options.parse_block_sizes(block_sizes) or preview.default_block_sizes(
        *height_width, BLOCK_SIZES
    )
    names = options.parse_methods(methods) or list(PROTECTED)
    cells = paper.grid(names, chosen, height_width, seeds)
    overrides = {"weights": weights, "epochs": epochs, "batch_size": batch_size}
    settings = paper.Settings(
        height_width, recipes.recipe(recipe, **overrides), backbone, wrong_keys, limit
    )
    where = choose(device)
    paper.check_folder(out)
    source = paper.open_data(data, workers)
    for line in source.notes:
        console.note(line)
    console.left_out(source.problems)
    if key:
        loaded = options.load_key(key, passphrase_file)
    else:
        loaded = Key.generate() if dry_run else paper.key_for(out)
        if not dry_run:
            console.note(
                f"The key is {out}/keys/experiment.key: for this experiment only, as FFX's "
                f"password is public in it."
            )
    watch = paper.Watch(_GridProgress())
    experiment = paper.Experiment(source, settings, loaded, out, where, watch, workers)
    if dry_run:
        watch.say(f"Measuring a few steps and passes on {where} …")
        estimate = paper.estimate(experiment, cells)
        console.show(tables.plan_table(cells, settings.document(source, loaded.id), estimate))
        return
    document = experiment.run(cells)
    if not distributed.is_main():
        return
    made = tables.write_tables(document, out)
    made += figures.write_all(document, paper.example(experiment, document), out)
    table1 = tables.Table1(document).by_block_size().as_rich()
    console.show(table1, tables.findings_table(document))
    console.note(f"In {out}/: results.json, {', '.join(path.name for path in made)}")
    console.note(
        "Encrypted pictures in fig4.png and fig5.png are drawn with a throw-away key: beside the "
        "plain "
        "image, those of the experiment's key would give it away."
    )
