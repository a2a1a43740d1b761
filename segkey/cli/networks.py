"""Commands ``segkey networks`` and ``segkey import``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, completion, console, options, parsing, paths
from segkey.cli.options import option
from segkey.errors import SegkeyError


@app.command(
    epilog="Example: segkey networks\n\nExample: segkey networks smp:Unet/",
    rich_help_panel="Model",
)
def networks(
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT",
            help="List the networks whose names begin with TEXT, such as smp:Unet/ or timm:mobile.",
            autocompletion=completion.complete_networks,
        ),
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    """List the networks that --network takes, with their numbers of parameters.

    A network of your own is a function in a Python file that the environment variable
    SEGKEY_PLUGINS names, registered with segkey.networks.network.
    """
    from segkey import reports
    from segkey.model import network_list

    found = network_list.listed(text)
    if as_json:
        console.show_json(network_list.document(found))
    else:
        console.show(*reports.network_table(found))


@dataclass(frozen=True)
class Facts:
    """What weights do not say of their training."""

    classes: Annotated[
        Path | None,
        option(
            "--classes", "FILE", "Read class names from this file, one per line, class 0 first."
        ),
    ] = None
    normalise: Annotated[
        str | None,
        option(
            "--normalise",
            "HOW",
            "Normalise pixels as in the training: imagenet, none (pixels 0 … 1), or MEAN/STD; "
            "by default, as the network's authors do.",
        ),
    ] = None
    size: Annotated[
        str | None, option("--size", "SIZE", "Resize images to N x N or HEIGHTxWIDTH.")
    ] = None
    channels: Annotated[
        int, option("--channels", "N", "Take images of N channels.", min=1, max=16)
    ] = 3
    ignore_index: Annotated[
        int,
        option("--ignore-index", "N", "Treat this mask value as void.", min=0, max=255),
    ] = 255
    shards: Annotated[
        list[Path] | None,
        option(
            "--shards",
            "PATH",
            "Test it on these plain shards; they also give the classes and the size.",
        ),
    ] = None

    def images(self):
        """The `segkey.model.importing.ImageFacts`, from options or from shards.

        Raises:
            SegkeyError: nothing tells the classes or the size.
        """
        from segkey.data.labels import read_classes
        from segkey.model import importing

        told = importing.facts_of_shards(self.shards) if self.shards else None
        classes = read_classes(self.classes, given=True) if self.classes else told and told.classes
        size = parsing.parse_size(self.size) if self.size else told and told.size
        missing = [name for name, value in (("classes", classes), ("size", size)) if not value]
        if missing:
            options_missing = " and ".join(f"--{each}" for each in missing)
            raise SegkeyError(
                f"the weights do not say the {' and the '.join(missing)}",
                f"give {options_missing}, or --shards with plain shards",
            )
        channels = told.channels if told else self.channels
        ignore_index = told.ignore_index if told else self.ignore_index
        return importing.ImageFacts(classes, size, channels, ignore_index)


@app.command(
    "import",
    epilog="Example: segkey import unet.pth --network smp:Unet/resnet34 --classes classes.txt "
    "--size 256\n\n"
    "Example: segkey import model.safetensors --network mine --shards plain/ --normalise none",
    rich_help_panel="Model",
)
def import_(
    *,
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="Read the state dict in this .pth or .safetensors file.",
        ),
    ],
    network: Annotated[
        str,
        option(
            "--network",
            "NAME",
            "Name the network that the weights are of; 'segkey networks' lists them.",
            autocompletion=completion.complete_networks,
        ),
    ],
    facts: Facts,
    name: Annotated[
        str | None, options.name_option("Name the run; by default after the file.")
    ] = None,
    runs: options.RunsFolder = paths.DEFAULT_RUNS,
) -> None:
    """Make a run of a model that was trained elsewhere, to evaluate, attack, lock or seal it.

    Nothing in the file is run: a pickle that holds code is refused.
    """
    from segkey import reports
    from segkey.model import importing

    normalise, images = facts.normalise, facts.images()
    made = importing.import_weights(
        weights,
        runs,
        network=network,
        images=images,
        normalisation=normalise and importing.parse_normalisation(normalise, images.channels),
        name=name,
        shards=facts.shards or (),
    )
    console.show(reports.import_table(made))
