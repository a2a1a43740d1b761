"""Training recipes: the paper's, one from random weights, and the checks on both."""

import math
from dataclasses import dataclass, fields, replace

import torch

from segkey.errors import SegkeyError
from segkey.model.network_registry import DEFAULT
from segkey.system.json_records import stated
from segkey.system.validators import PATH, Kind, many, number, one_of, or_none, whole

OPTIMIZERS = ("sgd", "adamw")
LOSSES = ("ce", "dice", "ce+dice", "focal")  # `segkey.model.losses` has them
_WEIGHTS = Kind(
    "auto, a number for each class, or null",
    lambda v: v is None or v == "auto" or many(number(0, 1e6), 255, 1).fits(v),
)


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        optimizer: ``sgd`` or ``adamw``.
        lr: the highest learning rate.
        lr_min: the lowest.
        restart: epochs per cosine, after which the rate jumps back up; 0 for one cosine over the
            whole training, after a linear warm-up over its first twentieth.
        momentum: of SGD.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW).
        epochs: how often every image is seen.
        batch_size: images per step.
        weights: starting weights: ``coco``, ``imagenet``, ``none`` or a file.
        crop_scale: smallest area of a random crop, as a fraction of the image, 0 … 1; used if
            images are augmented on the device.
        loss: ``ce``, ``dice``, ``ce+dice`` or ``focal``.
        class_weights: ``auto``, or a weight for each class; None for 1.
        patience: epochs without a lower validation loss after which the training ends; 0 for never.
        ema: decay of the exponential moving average of the weights that is validated and kept; 0
            for the weights themselves.
        encoder_weights: a file of weights for the encoder alone.
    """

    optimizer: str = stated(one_of(OPTIMIZERS), default="sgd")
    lr: float = stated(number(0, 1e6, above=True), default=0.1)
    lr_min: float = stated(number(0, 1e6), default=0.0001)
    restart: int = stated(whole(0, 10**9), default=10)
    momentum: float = stated(number(0, 1e6), default=0.9)
    weight_decay: float = stated(number(0, 1e6), default=0.005)
    epochs: int = stated(whole(1, 10**9), default=100)
    batch_size: int = stated(whole(1, 10**9), default=256)
    weights: str = stated(PATH, default="coco")
    crop_scale: float = stated(number(0, 1, above=True), default=0.08)
    loss: str = stated(one_of(LOSSES), default="ce")
    class_weights: str | tuple[float, ...] | None = stated(_WEIGHTS, default=None)
    patience: int = stated(whole(0, 10**9), default=0)
    ema: float = stated(number(0, 1), default=0.0)
    encoder_weights: str | None = stated(or_none(PATH), default=None)

    def lr_at(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """The learning rate.

        Args:
            epoch: from 0.
            step: of the epoch, from 0.
            steps: per epoch.
        """
        if self.restart:  # constant within an epoch, as the paper's scheduler is stepped
            done = epoch % self.restart / self.restart
        else:
            done = (epoch + step / steps) / self.epochs
            if done < 0.05:  # the last of these steps may reach beyond the twentieth
                return self.lr * min(1.0, (done + 1 / (steps * self.epochs)) / 0.05)
            done = (done - 0.05) / 0.95
        return self.lr_min + (self.lr - self.lr_min) * (1 + math.cos(math.pi * done)) / 2

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer for a model's parameters."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        how = {
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "fused": parameters[0].device.type in ("cuda", "cpu"),
        }
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=self.momentum, **how)
        return torch.optim.AdamW(parameters, **how)

    def check(self) -> "Recipe":
        """Raise `SegkeyError` for an impossible value; returns the recipe."""
        positive = ("lr", "epochs", "batch_size", "crop_scale")
        for name in positive:
            if not getattr(self, name) > 0:
                raise SegkeyError(
                    f"{name.replace('_', ' ')} must be above 0, not {getattr(self, name)}"
                )
        for name in ("weight_decay", "momentum", "lr_min", "restart", "patience"):
            if not getattr(self, name) >= 0:
                raise SegkeyError(
                    f"{name.replace('_', ' ')} must not be below 0, as {getattr(self, name)} is"
                )
        if not self.crop_scale <= 1:
            raise SegkeyError(f"crop scale must be a fraction of the area, not {self.crop_scale}")
        if not 0 <= self.ema < 1:
            raise SegkeyError(
                f"the decay of the moving average must be from 0 to below 1, not {self.ema}",
                "take --ema 0.999, or less for a short training",
            )
        if self.loss not in LOSSES:
            raise SegkeyError(f"there is no loss '{self.loss}'", f"losses: {', '.join(LOSSES)}")
        if self.optimizer not in OPTIMIZERS:
            raise SegkeyError(
                f"there is no optimizer '{self.optimizer}'", f"optimizers: {', '.join(OPTIMIZERS)}"
            )
        return self


_SCRATCH = Recipe(
    optimizer="adamw",
    lr=0.001,
    lr_min=0.0,
    restart=0,
    weight_decay=0.01,
    epochs=100,
    batch_size=16,
    weights="none",
    crop_scale=0.25,
)
AUTO = "auto"  # `choose` decides
RECIPES = {
    # The paper's table (section 4.1); the starting weights follow from its baseline, see
    # examples/results/README.md.
    "paper": Recipe(),
    "scratch": _SCRATCH,
    # What a laptop finishes: hundreds of images of 128 pixels in under an hour.
    "laptop": replace(_SCRATCH, epochs=30, batch_size=8),
}
_NETWORKS = {"laptop": "resnet14"}  # of recipes that are made for one


def choose(name: str, network: str | None, starts: bool, has_gpu: bool) -> tuple[str, str]:
    """The recipe and the network of a training.

    Without a GPU the paper's recipe takes weeks, and its weights are a download that may fail, so
    `AUTO` is ``laptop`` there, and ``paper`` with a GPU; also if the user named a network or
    weights, which belong to a training that they have thought about.

    Args:
        name: of a recipe, or `AUTO`.
        network: that the user named, or None.
        starts: whether the user named weights to start from.
        has_gpu: whether the device is one.

    Returns:
        Both names.
    """
    if name == AUTO:
        name = "paper" if has_gpu or network or starts else "laptop"
    return name, network or _NETWORKS.get(name, DEFAULT)


def recipe(name: str, **overrides: object) -> Recipe:
    """A recipe by name, with some of its values replaced; None leaves a value as it is.

    Raises:
        SegkeyError: an unknown name, or a value that is not possible.
    """
    if name not in RECIPES:
        listed = ", ".join((AUTO, *RECIPES))
        raise SegkeyError(f"there is no recipe '{name}'", f"recipes: {listed}")
    given = {key: value for key, value in overrides.items() if value is not None}
    if given.get("encoder_weights"):  # they take the place of the recipe's own
        given = {"weights": "none"} | given
    return replace(RECIPES[name], **given).check()


def unknown_fields(values: dict) -> list[str]:
    """Fields of an untrusted recipe that this version has none of."""
    known = {field.name for field in fields(Recipe)}
    return [name for name in values if name not in known]
