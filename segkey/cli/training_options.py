"""Options of ``segkey train`` that replace values of its recipe."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from segkey.cli.options import option


def _value(name: str, metavar: str, help: str, **settings):
    """The option of a value of the recipe."""
    return option(name, metavar, help, "Values of the recipe", **settings)


EncoderWeights = Annotated[
    str | None,
    _value(
        "--encoder-weights",
        "FILE",
        "Start the encoder from the weights in this file, such as a classifier's, and the "
        "rest from random ones.",
    ),
]


@dataclass(frozen=True)
class RecipeValues:
    """Values of the recipe; None leaves one as it is."""

    weights: Annotated[
        str | None,
        _value("--weights", "NAME", "Start from coco, imagenet, none, or a file of weights."),
    ] = None
    epochs: Annotated[int | None, _value("--epochs", "N", "Train for N epochs.", min=1)] = None
    batch_size: Annotated[
        int | None, _value("--batch-size", "N", "Use N images per batch.", min=1)
    ] = None
    lr: Annotated[float | None, _value("--lr", "X", "Set the highest learning rate.")] = None
    lr_min: Annotated[float | None, _value("--lr-min", "X", "Set the lowest learning rate.")] = None
    restart: Annotated[
        int | None,
        _value(
            "--restart",
            "N",
            "Restart the cosine of the learning rate every N epochs; 0 never restarts it.",
            min=0,
        ),
    ] = None
    optimizer: Annotated[str | None, _value("--optimizer", "NAME", "Optimize by sgd or adamw.")] = (
        None
    )
    momentum: Annotated[float | None, _value("--momentum", "X", "Set the momentum of SGD.")] = None
    weight_decay: Annotated[
        float | None, _value("--weight-decay", "X", "Set the weight decay.")
    ] = None
    crop_scale: Annotated[
        float | None,
        _value(
            "--crop-scale", "X", "Crop plain shards to at least this fraction of an image's area."
        ),
    ] = None
    loss: Annotated[
        str | None, _value("--loss", "NAME", "Minimise ce, dice, ce+dice or focal.")
    ] = None
    class_weights: Annotated[
        str | None,
        _value(
            "--class-weights",
            "FILE",
            "Weight classes by auto (rare ones more), or by the numbers in this file, one "
            "per line or behind a class's name.",
        ),
    ] = None
    patience: Annotated[
        int | None,
        _value("--patience", "N", "Stop after N epochs without a lower validation loss.", min=1),
    ] = None
    ema: Annotated[
        float | None,
        _value(
            "--ema",
            "X",
            "Keep a moving average of the weights, of which each step leaves the part X, such "
            "as 0.999.",
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
