"""Bring in a model that was trained elsewhere: its weights become a run like any other.

What a run needs to know, and a state dict does not say, is given: the network, the names of the
classes in their order, how pixels were normalised, and the size of the images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segkey.errors import SegkeyError
from segkey.model import network_registry, run_names, runs, starting_weights
from segkey.model.networks import Segmenter
from segkey.model.package_versions import now, versions
from segkey.model.weights_files import file_digest, read_weights
from segkey.shards import open_splits
from segkey.system.files import make_folder

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Imported:
    """A run that was made of weights, and what was done to them.

    Attributes:
        parameters: of the network.
        notes: how the file's tensors were taken, a sentence each.
    """

    run: runs.Run
    parameters: int
    notes: tuple[str, ...] = ()


def parse_normalisation(text: str, channels: int) -> Normalisation | None:
    """What ``--normalise`` means: a mean and a standard deviation for each channel.

    Args:
        text: ``imagenet``, ``none`` (pixels stay 0 … 1), or ``MEAN/STD`` such as ``0.5/0.5`` or
            ``123.7,116.3,103.5/58.4,57.1,57.4``; values above 1 are of pixels 0 … 255.
        channels: of images.

    Raises:
        SegkeyError: it is none of these.
    """
    if text == "none":
        return (0.0,) * channels, (1.0,) * channels
    if text == "imagenet" and channels == 3:
        return network_registry.IMAGENET
    try:
        mean, std = ([float(value) for value in part.split(",")] for part in text.split("/"))
    except ValueError:
        mean, std = [], []
    mean, std = (part * channels if len(part) == 1 else part for part in (mean, std))
    if max(map(abs, [*mean, *std]), default=0) > 1 and (mean, std) != (
        [0] * channels,
        [1] * channels,
    ):
        mean, std = ([value / 255 for value in part] for part in (mean, std))
    fits = len(mean) == len(std) == channels and all(value > 0 for value in std)
    if not fits or not all(abs(value) < 100 for value in (*mean, *std)):
        raise SegkeyError(
            f"'{text}' does not say how to normalise {channels} channels",
            "give imagenet (three channels), none (pixels 0 … 1), or MEAN/STD with a value for "
            "each channel, such as 0.485,0.456,0.406/0.229,0.224,0.225",
        )
    return tuple(mean), tuple(std)


@dataclass(frozen=True)
class ImageFacts:
    """What a state dict does not say of the images of its training.

    Attributes:
        classes: names, class 0 first.
        size: (H, W).
        channels: of images.
        ignore_index: void in masks.
    """

    classes: Sequence[str]
    size: tuple[int, int]
    channels: int = 3
    ignore_index: int = 255


def facts_of_shards(shards: Sequence[Path]) -> ImageFacts:
    """What plain shards tell of the images of a model.

    Raises:
        SegkeyError: they are encrypted, or have no masks.
    """
    split = next(iter(open_splits(shards).values()))
    header = split.header
    if header.method != "none" or not split.has_masks:
        what = "encrypted" if header.method != "none" else "without masks"
        raise SegkeyError(
            f"the shards at {shards[0]} are {what}",
            "give shards made with --method none of images with masks",
        )
    return ImageFacts(header.classes, split.size, header.channels, header.ignore_index)


def import_weights(
    file: Path,
    folder: Path,
    *,
    network: str,
    images: ImageFacts,
    normalisation: Normalisation | None = None,
    name: str | None = None,
    shards: Sequence[Path] = (),
) -> Imported:
    """Make a run of weights that were trained elsewhere, on plain images.

    Args:
        file: a state dict, ``.pth`` or ``.safetensors``; alone, or under ``model`` or
            ``state_dict``; names may begin with ``module.`` or ``model.``.
        folder: where runs are kept.
        network: a name that `segkey.model.network_registry.find` knows.
        images: that it was trained for.
        normalisation: mean and standard deviation of pixels 0 … 1; the network's own, if None.
        name: of the run; the file's by default.
        shards: plain shards of its images, that later commands test it on.

    Raises:
        SegkeyError: a file that is none or runs code, weights of another network or number of
            classes, a name that is taken.
    """
    mean, std = normalisation or (None, None)
    model = Segmenter(network, len(images.classes), images.channels, mean, std)
    model.check_size(*images.size)
    notes = load_foreign(model, read_weights(file), str(file))
    name = run_names.check_name(name) if name else run_names.free_name(folder, _name_of(file))
    runs.check_free(folder / name)
    make_folder(folder / name)
    config = _configuration(model, images, shards)
    config["imported"] = {"file": file.name, "sha256": file_digest(file)}
    run = runs.Run.create(folder, name, config)
    run.save_weights(model.weights())
    run.save()
    parameters = sum(each.numel() for each in model.parameters())
    return Imported(run, parameters, tuple(notes))


def load_foreign(model: Segmenter, state: dict[str, Tensor], origin: str) -> list[str]:
    """Fill a network with all weights of a file that may name them with a prefix.

    A head with one output for two classes, whose sigmoid is the second one's probability, becomes
    one with two outputs; its predictions stay the same.

    Returns:
        What was done to the weights, a sentence each.

    Raises:
        SegkeyError: they are not of this network, of another number of classes, or not finite.
    """
    mine, notes = model.weights(), []
    fitted = starting_weights.without_prefixes(state, mine)
    if fitted is not state:
        notes.append(f"the names' prefix was left out, as in {next(iter(state))}")
    if auxiliary := [name for name in fitted if name.startswith("aux_classifier.")]:
        notes.append(f"{len(auxiliary)} tensors of the auxiliary classifier were left out")
        fitted = {name: each for name, each in fitted.items() if name not in auxiliary}
    head = {name for name in starting_weights.head_names(model) if name in fitted}
    outputs = {len(fitted[name]) for name in head if fitted[name].ndim}
    if outputs == {1} and model.classes == 2:
        for name in head:
            fitted[name] = torch.cat([torch.zeros_like(fitted[name]), fitted[name]])
        notes.append("its one output, a sigmoid's, became two: class 1 where it is above 0")
    elif outputs and outputs != {model.classes}:
        raise SegkeyError(
            f"{origin} has {min(outputs)} classes, {model.classes} are named",
            "give --classes a file with one name per class, class 0 first",
        )
    starting_weights.check_fit(fitted, mine, origin, model.name)
    for name, each in fitted.items():
        if each.is_floating_point() and not torch.isfinite(each).all():
            raise SegkeyError(
                f"{origin}: {name} holds values that are not finite",
                "give weights of a training that did not diverge",
            )
    model.fcn.load_state_dict(fitted)
    return notes


def _configuration(model: Segmenter, images: ImageFacts, shards: Sequence[Path]) -> dict:
    """``run.json`` of a model that was trained on plain images, by others."""
    return {
        "created": now(),
        "versions": versions(),
        "precise": False,
        "model": model.description,
        "data": {
            "method": "none",
            "block_size": 1,
            "channels": model.channels,
            "max_value": 255,
            "key_id": "",
            "password_hash": "",
            "classes": list(images.classes),
            "ignore_index": images.ignore_index,
            "size": list(images.size),
            "on_the_fly": False,
            "shards": [str(path) for path in shards],
        },
        "recipe": {},
        "seed": 0,
        "epochs_done": 0,
        "seconds": 0.0,
    }


def _name_of(file: Path) -> str:
    """A run's name after a file's: what it cannot hold is replaced."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in file.stem)
    return name.lstrip("._-")[:80] or "imported"
