"""Options of ``segkey train`` that replace values of its recipe."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from segkey.cli.options import option

RECIPE = "Values of the recipe"

EncoderWeights = Annotated[
    str | None,
    option(
        "--encoder-weights",
        metavar="FILE",
        help="Start the encoder from the weights in this file, such as a classifier's, and the "
        "rest from random ones.",
        panel=RECIPE,
    ),
]


@dataclass(frozen=True)
class RecipeValues:
    """Values of the recipe; None leaves one as it is."""

    weights: Annotated[
        str | None,
        option(
            "--weights",
            metavar="NAME",
            help="Start from coco, imagenet, none, or a file of weights.",
            panel=RECIPE,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        option("--epochs", min=1, metavar="N", help="Train for N epochs.", panel=RECIPE),
    ] = None
    batch_size: Annotated[
        int | None,
        option("--batch-size", min=1, metavar="N", help="Use N images per batch.", panel=RECIPE),
    ] = None
    lr: Annotated[
        float | None,
        option("--lr", metavar="X", help="Set the highest learning rate.", panel=RECIPE),
    ] = None
    lr_min: Annotated[
        float | None,
        option("--lr-min", metavar="X", help="Set the lowest learning rate.", panel=RECIPE),
    ] = None
    restart: Annotated[
        int | None,
        option(
            "--restart",
            min=0,
            metavar="N",
            help="Restart the cosine of the learning rate every N epochs; 0 never restarts it.",
            panel=RECIPE,
        ),
    ] = None
    optimizer: Annotated[
        str | None,
        option("--optimizer", metavar="NAME", help="Optimize by sgd or adamw.", panel=RECIPE),
    ] = None
    momentum: Annotated[
        float | None,
        option("--momentum", metavar="X", help="Set the momentum of SGD.", panel=RECIPE),
    ] = None
    weight_decay: Annotated[
        float | None,
        option("--weight-decay", metavar="X", help="Set the weight decay.", panel=RECIPE),
    ] = None
    crop_scale: Annotated[
        float | None,
        option(
            "--crop-scale",
            metavar="X",
            help="Crop plain shards to at least this fraction of an image's area.",
            panel=RECIPE,
        ),
    ] = None
    loss: Annotated[
        str | None,
        option("--loss", metavar="NAME", help="Minimise ce, dice, ce+dice or focal.", panel=RECIPE),
    ] = None
    class_weights: Annotated[
        str | None,
        option(
            "--class-weights",
            metavar="FILE",
            help="Weight classes by auto (rare ones more), or by the numbers in this file, one "
            "per line or behind a class's name.",
            panel=RECIPE,
        ),
    ] = None
    patience: Annotated[
        int | None,
        option(
            "--patience",
            min=1,
            metavar="N",
            help="Stop after N epochs without a lower validation loss.",
            panel=RECIPE,
        ),
    ] = None
    ema: Annotated[
        float | None,
        option(
            "--ema",
            metavar="X",
            help="Keep a moving average of the weights, of which each step leaves the part X, such "
            "as 0.999.",
            panel=RECIPE,
        ),
    ] = None
    encoder_weights: EncoderWeights = None

    def overrides(self, classes: Callable[[], Sequence[str]]) -> dict:
        """Values for `segkey.model.recipes.recipe`.

        Args:
            classes: tells the names of the classes, if a file of their weights is to be read.
        """
        from segkey.model.losses import AUTO, read_class_weights

        values = asdict(self)
        if self.class_weights not in (None, AUTO):
            values["class_weights"] = read_class_weights(Path(self.class_weights), classes())
        return values
