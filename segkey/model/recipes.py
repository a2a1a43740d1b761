"""Training recipes: the paper's, one from random weights, and the checks on both."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from segkey.errors import SegkeyError
from segkey.system.validators import PATH, Kind, misfit, number, one_of, whole

if TYPE_CHECKING:
    from segkey.model.runs import Run

OPTIMIZERS = ("sgd", "adamw")
_KINDS: dict[str, Kind] = {  # what an untrusted recipe may hold
    "optimizer": one_of(OPTIMIZERS),
    "lr": number(0, 1e6, above=True),
    "lr_min": number(0, 1e6),
    "restart": whole(0, 10**9),
    "momentum": number(0, 1e6),
    "weight_decay": number(0, 1e6),
    "epochs": whole(1, 10**9),
    "batch_size": whole(1, 10**9),
    "weights": PATH,
    "crop_scale": number(0, 1, above=True),
}


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
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    lr_min: float = 0.0001
    restart: int = 10
    momentum: float = 0.9
    weight_decay: float = 0.005
    epochs: int = 100
    batch_size: int = 256
    weights: str = "coco"
    crop_scale: float = 0.08

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
            if done < 0.05:
                return self.lr * (done + 1 / (steps * self.epochs)) / 0.05
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

    def check(self) -> Recipe:
        """Raise `SegkeyError` for an impossible value; returns the recipe."""
        positive = ("lr", "epochs", "batch_size", "crop_scale")
        for name in positive:
            if not getattr(self, name) > 0:
                raise SegkeyError(
                    f"{name.replace('_', ' ')} must be above 0, not {getattr(self, name)}"
                )
        for name in ("weight_decay", "momentum", "lr_min", "restart"):
            if not getattr(self, name) >= 0:
                raise SegkeyError(
                    f"{name.replace('_', ' ')} must not be below 0, as {getattr(self, name)} is"
                )
        if not self.crop_scale <= 1:
            raise SegkeyError(f"crop scale must be a fraction of the area, not {self.crop_scale}")
        if self.optimizer not in OPTIMIZERS:
            raise SegkeyError(
                f"there is no optimizer '{self.optimizer}'", f"optimizers: {', '.join(OPTIMIZERS)}"
            )
        return self


RECIPES = {
    # The paper's table (section 4.1); the starting weights follow from its baseline, see
    # examples/results/README.md.
    "paper": Recipe(),
    "scratch": Recipe(
        optimizer="adamw",
        lr=0.001,
        lr_min=0.0,
        restart=0,
        weight_decay=0.01,
        epochs=100,
        batch_size=16,
        weights="none",
        crop_scale=0.25,
    ),
}


def recipe(name: str, **overrides: object) -> Recipe:
    """A recipe by name, with some of its values replaced; None leaves a value as it is.

    Raises:
        SegkeyError: an unknown name, or a value that is not possible.
    """
    if name not in RECIPES:
        raise SegkeyError(f"there is no recipe '{name}'", f"recipes: {', '.join(RECIPES)}")
    return replace(
        RECIPES[name], **{key: value for key, value in overrides.items() if value is not None}
    ).check()


def complaint(values: object) -> str:
    """The first impossible field of an untrusted recipe, and what was expected; empty if none."""
    if not isinstance(values, dict):
        return "it is no object"
    known = [field.name for field in fields(Recipe)]
    if unknown := [name for name in values if name not in known]:
        return f"{unknown[0]!r} is unknown; expected {', '.join(known)}"
    return misfit(values, _KINDS, optional=known)


def recipe_of(run: Run) -> Recipe:
    """The recipe that a run was begun with.

    Raises:
        SegkeyError: its recipe is damaged.
    """
    if not run.config["recipe"]:
        raise SegkeyError(
            f"run {run.name} was trained elsewhere: nothing is known of its training",
            f"train a new run that starts from its weights: --weights {run.path}/model.safetensors",
        )
    if problem := complaint(run.config["recipe"]):
        raise SegkeyError(
            f"{run.path}/run.json is damaged: in 'recipe', {problem}",
            "restore it from a backup, or train again",
        )
    return Recipe(**run.config["recipe"])
