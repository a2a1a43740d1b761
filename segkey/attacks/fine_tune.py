"""Train the protection away: a stolen model and some plain images with masks."""

import math

import numpy as np
import torch

from segkey import devices, distributed, models
from segkey.attacks.registry import LABELLED, Budget, Result, attack
from segkey.attacks.subject import Subject
from segkey.errors import SegkeyError
from segkey.loading import Feed, crop_batch
from segkey.pictures import random_crops, seeded
from segkey.recipes import recipe
from segkey.training import segmentation_loss

_BATCH = 16
_LEAST_IMAGES = 2


def _obstacle(subject: Subject) -> str:
    return (
        "" if "train" in subject.splits else "the training images are not at hand (give the run's shards with --shards)"
    )


@attack(
    "fine-tune",
    "plain training images with masks",
    obstacle=_obstacle,
    steals=LABELLED,
)
def fine_tune(subject: Subject, budget: Budget, seed: int) -> Result:
    """Train on plain images from the stolen weights, beside training the same way from the weights that model began with.

    The difference of the two is what the theft was worth. The learning rate is that of the recipe ``scratch``, over
    ``budget.epochs`` epochs or ``budget.steps`` steps, whichever is more; what is shown is the last epoch, without choosing.
    """
    feed = subject.images_of("train")
    curve = [_stolen_as_it_is(subject)]
    counts = _numbers_of_images(len(feed), budget.percents)
    images = sum(_epochs(count, budget) * count for count in counts.values())
    with subject.task("fine-tune", 2 * (images + len(subject.feed) * len(counts))):
        for percent, count in counts.items():
            line = {"percent": percent, "images": count, "epochs": _epochs(count, budget)}
            for start in ("stolen", "anew"):
                name = f"fine-tune/{seed}/{percent:g}/{line['epochs']}/{start}"
                line[start] = subject.once(name, lambda s=start, n=count: _train(subject, feed, n, budget, seed, s))
            curve.append(line)
    best = max(curve, key=lambda line: line["stolen"])
    summary = f"{best['percent']:g} % of the training images ({best['images']}), {best['epochs']} epochs"
    if best["anew"] is not None:
        summary += f"; {best['anew']:.4f} without the stolen model"
    details = {"curve": curve, "without_the_model": best["anew"], "recipe": "scratch", "split": feed.split.header.split}
    return Result(best["stolen"], summary, details, chosen_on_test=True)  # among the parts of the training images


def _stolen_as_it_is(subject: Subject) -> dict:
    """No image, no training: the better of the two ways to feed plain images."""
    keyless = max(scores["mean_iou"] for scores in subject.plain().values())
    return {"percent": 0, "images": 0, "epochs": 0, "stolen": keyless, "anew": None}


def _numbers_of_images(images: int, percents: tuple[float, ...]) -> dict[float, int]:
    """How many images each part of the training images is; parts of fewer than two are left out."""
    counts = {percent: round(images * percent / 100) for percent in sorted(set(percents))}
    enough = {percent: count for percent, count in counts.items() if count >= _LEAST_IMAGES}
    if not enough:
        least = math.ceil(100 * _LEAST_IMAGES / images)
        raise SegkeyError(
            f"{max(percents):g} % of {images} training images are too few to fine-tune on",
            f"give --fine-tune {least} or more" if least <= 100 else "leave --fine-tune out: it needs two images",
        )
    return enough


def _epochs(images: int, budget: Budget) -> int:
    return max(budget.epochs, math.ceil(budget.steps / math.ceil(images / _BATCH)))


def _train(subject: Subject, feed: Feed, count: int, budget: Budget, seed: int, start: str) -> float:
    """Train on ``count`` plain images, chosen by the seed; mean IoU on all plain test images.

    Under torchrun all ranks do the same, and the first one's weights count: so few steps are not worth dealing out.
    """
    epochs, steps = _epochs(count, budget), math.ceil(count / _BATCH)
    how = recipe("scratch", epochs=epochs, batch_size=_BATCH)
    torch.manual_seed(seed)
    model = _starting_model(subject, start)
    optimizer = how.build_optimizer(model)
    chosen = seeded("fine-tune", seed).permutation(len(feed))[:count]
    ignore = feed.split.header.ignore_index
    for epoch in range(epochs):
        generator = seeded("fine-tune", seed, count, epoch)
        order = generator.permutation(chosen)
        sizes = np.broadcast_to(feed.split.size, (count, 2))
        crops = torch.from_numpy(random_crops(generator, sizes, (how.crop_scale, 1.0))).to(subject.device)
        model.train()
        for step, (images, masks) in enumerate(feed.batches(_BATCH, order, epoch % feed.views)):
            images, masks = crop_batch(images, masks, crops[step * _BATCH :][: len(images)])
            for group in optimizer.param_groups:
                group["lr"] = how.lr_at(epoch, step, steps)
            with devices.mixed_precision(subject.device, not subject.precise):
                loss = segmentation_loss(model, images, masks, 255, ignore) / (masks != ignore).sum().clamp(min=1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            subject.spend(len(images))
    return subject.score(None, model=distributed.same_weights(model).eval()).mean_iou


def _starting_model(subject: Subject, start: str) -> models.Segmenter:
    """The stolen network, or a network with the weights that the stolen one began with."""
    if start == "stolen":
        return subject.run.load_model(subject.device)
    config = subject.run.config
    model = models.build(config["model"]["backbone"], list(subject.run.header.classes), config["recipe"]["weights"])
    return model.to(subject.device, memory_format=torch.channels_last)
