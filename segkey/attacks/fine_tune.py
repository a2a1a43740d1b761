"""The fine-tuning attack: retrain a stolen model on some plain images with masks."""

import math
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import trapezoid

from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.target import Target
from segkey.data.augment import random_crops
from segkey.errors import SegkeyError
from segkey.model import cpu_convolutions, data_parallel, networks
from segkey.model.batches import BatchLoader, crop_batch
from segkey.model.recipes import recipe
from segkey.model.results import LABELLED
from segkey.model.training_loop import segmentation_loss
from segkey.model.weights_files import file_digest
from segkey.system import devices
from segkey.system.seeds import seeded

_BATCH = 16
_LEAST_IMAGES = 2


def _obstacle(target: Target) -> str:
    if "train" not in target.splits:
        return "the training images are not at hand (give the run's shards with --shards)"
    # Of a run that was trained elsewhere, they may be missing; other attacks go on without them.
    began_with = (target.run.starting_weights or "none", _encoder_weights(target))
    for file in set(began_with) - {None, "none", "coco", "imagenet"}:
        if not Path(file).is_file():
            return f"the weights that the model began with are not at hand ({Path(file).name})"
    return ""


@attack(
    "fine-tune",
    "plain training images with masks",
    obstacle=_obstacle,
    required_access=LABELLED,
)
def fine_tune(target: Target, budget: Budget, seed: int) -> Result:
    """Train on plain images from the stolen weights, and from the weights that model began with.

    Public weights are a third start, if the budget names some. The difference to the best of the
    others is what the theft was worth; the areas under the curves (`areas`) say it in one number.
    The learning rate is that of the recipe
    ``scratch``, over ``budget.epochs`` epochs or ``budget.steps`` steps, whichever is more; what is
    shown is the last epoch, without choosing.
    """
    loader = target.images_of("train")
    starts = ("stolen", "anew", *(("public",) if budget.public_weights else ()))
    # An attack that goes on with another file of weights must not take the earlier's scores.
    files = {"public": budget.public_weights, "anew": _encoder_weights(target)}
    of_file = {start: f"{start} {file_digest(file)}" for start, file in files.items() if file}
    curve = [_stolen_as_it_is(target, starts[1:])]
    counts = _numbers_of_images(len(loader), budget.percents)
    images = sum(_epochs(count, budget) * count for count in counts.values())
    with target.task("fine-tune", len(starts) * (images + len(target.loader) * len(counts))):
        for percent, count in counts.items():
            line = {"percent": percent, "images": count, "epochs": _epochs(count, budget)}
            for start in starts:
                name = f"fine-tune/{seed}/{percent:g}/{line['epochs']}/{of_file.get(start, start)}"
                line[start] = target.cached(
                    name, lambda s=start, n=count: _train(target, loader, n, budget, seed, s)
                )
            curve.append(line)
    best = max(curve, key=lambda line: line["stolen"])
    without = max((best[start] for start in starts[1:] if best[start] is not None), default=None)
    summary = (
        f"{best['percent']:g} % of the training images ({best['images']}), {best['epochs']} epochs"
    )
    if without is not None:
        summary += f"; {without:.4f} without the stolen model"
    details = {
        "curve": curve,
        "without_the_model": without,
        "slc_auc": areas(curve, starts, target.correct().majority_class.mean_iou),
        "recipe": "scratch",
        "split": loader.split.header.split,
    }
    return Result(
        best["stolen"], summary, details, chosen_on_test=True
    )  # among the parts of the training images


def areas(curve: list[dict], starts: tuple[str, ...], nothing: float) -> dict[str, float]:
    """The area under each curve of mean IoU by percent of the training images, SLC-AUC.

    Divided by the largest percent, so that it is a mean IoU, 0 … 1: the mean over all budgets up
    to that.

    Args:
        curve: a line per budget, beginning with no images.
        starts: the curves.
        nothing: mean IoU without images and without the stolen model, the majority class's.
    """
    percents = [line["percent"] for line in curve]
    found = {}
    for start in starts:
        scores = [nothing if line.get(start) is None else line[start] for line in curve]
        found[start] = float(trapezoid(scores, percents)) / percents[-1]
    return found


def _stolen_as_it_is(target: Target, others: tuple[str, ...]) -> dict:
    """No image, no training: the stolen model as it is, on plain images.

    Plain images are divided in the better of the two ways.
    """
    no_key_baseline = max(measured.mean_iou for measured in target.plain().values())
    return {
        "percent": 0,
        "images": 0,
        "epochs": 0,
        "stolen": no_key_baseline,
        **dict.fromkeys(others),
    }


def _numbers_of_images(images: int, percents: tuple[float, ...]) -> dict[float, int]:
    """How many images each part of the training images is; parts of fewer than two are left out."""
    counts = {percent: round(images * percent / 100) for percent in sorted(set(percents))}
    enough = {percent: count for percent, count in counts.items() if count >= _LEAST_IMAGES}
    if not enough:
        least = math.ceil(100 * _LEAST_IMAGES / images)
        raise SegkeyError(
            f"{max(percents):g} % of {images} training images are too few to fine-tune on",
            f"give --fine-tune {least} or more"
            if least <= 100
            else "leave --fine-tune out: it needs two images",
        )
    return enough


def _epochs(images: int, budget: Budget) -> int:
    return max(budget.epochs, math.ceil(budget.steps / math.ceil(images / _BATCH)))


def _train(
    target: Target, loader: BatchLoader, count: int, budget: Budget, seed: int, start: str
) -> float:
    """Train on ``count`` plain images, chosen by the seed; mean IoU on all plain test images.

    Under torchrun all ranks do the same, and the first one's weights count: so few steps are not
    worth dealing out.
    """
    epochs, steps = _epochs(count, budget), math.ceil(count / _BATCH)
    how = recipe("scratch", epochs=epochs, batch_size=_BATCH)
    torch.manual_seed(seed)
    model = _starting_model(target, budget, start)
    optimizer = how.build_optimizer(model)
    chosen = seeded("fine-tune", seed).permutation(len(loader))[:count]
    ignore = loader.split.header.ignore_index
    for epoch in range(epochs):
        generator = seeded("fine-tune", seed, count, epoch)
        order = generator.permutation(chosen)
        sizes = np.broadcast_to(loader.split.size, (count, 2))
        crops = torch.from_numpy(random_crops(generator, sizes, (how.crop_scale, 1.0))).to(
            target.device
        )
        model.train()
        for step, (images, masks) in enumerate(loader.batches(_BATCH, order, epoch % loader.views)):
            images, masks = crop_batch(images, masks, crops[step * _BATCH :][: len(images)])
            for group in optimizer.param_groups:
                group["lr"] = how.lr_at(epoch, step, steps)
            with devices.mixed_precision(target.device, not target.precise):
                loss = segmentation_loss(model, images, masks, 255, ignore) / (
                    masks != ignore
                ).sum().clamp(min=1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            target.spend(len(images))
    return target.score(None, model=data_parallel.same_weights(model).eval()).mean_iou


def _starting_model(target: Target, budget: Budget, start: str) -> networks.Segmenter:
    """The stolen network, or one with the weights that it began with, or with public ones."""
    run = target.run
    if start == "stolen":
        return cpu_convolutions.quicken(run.load_model(target.device))
    made, encoder = run.configuration.model, None
    if start == "public":
        weights = budget.public_weights
    else:
        weights, encoder = run.starting_weights or "none", _encoder_weights(target)
    classes = list(run.header.classes)
    model = networks.build(made.network, classes, weights, made.channels, encoder)
    return cpu_convolutions.quicken(model).to(target.device, memory_format=torch.channels_last)


def _encoder_weights(target: Target) -> str | None:
    """The file that the encoder of the stolen network began with, if there was one."""
    recipe = target.run.configuration.recipe
    return recipe.encoder_weights if recipe else None
