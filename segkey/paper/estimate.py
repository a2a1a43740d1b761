"""How long a grid will take here, measured by a few real steps; nothing is written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from segkey.crypto import ciphers
from segkey.data.preparation import Preparation
from segkey.model import evaluation, networks, timing
from segkey.model.batches import BatchLoader
from segkey.paper.experiment import Experiment
from segkey.paper.grid import Cell
from segkey.shards import Header
from segkey.shards.memory import MemorySplit
from segkey.system import devices

_IMAGES = 32  # that it is measured on


@dataclass(frozen=True)
class Estimate:
    """How long a grid will take.

    Attributes:
        images: by split.
        disk_bytes: of shards and models.
        training, scoring: seconds per image.
        protected, baseline, all: seconds for a protected cell, for the baseline, and for all cells.
        device: in words.
    """

    images: dict[str, int]
    disk_bytes: int
    training: float
    scoring: float
    protected: float
    baseline: float
    all: float
    device: str


def estimate(experiment: Experiment, cells: Sequence[Cell]) -> Estimate:
    """How long some cells will take here, from a few real steps and passes.

    Args:
        experiment: whose data, settings and device are used.
        cells: from `segkey.paper.grid`.
    """
    source, settings, device = experiment.source, experiment.settings, experiment.device
    classes = tuple(source.classes)
    split = MemorySplit(
        source.splits["train"][:_IMAGES],
        Preparation(
            settings.size,
            len(classes),
            source.ignore_index,
            reading=source.reading,
            pixel_range=source.pixel_range,
        ),
        Header("train", "none", 1, 3, 255, classes=classes, ignore_index=source.ignore_index),
    )
    # FFX takes the longest to encrypt.
    cipher = experiment.cipher(max(cells, key=lambda cell: cell.method == "ffx"))
    step = timing.seconds_per_image(split, settings.recipe, settings.network, cipher, device)
    score = _seconds_to_score(split, settings.network, cipher, device)
    images = experiment.images()
    epoch = images["train"] * step + images["val"] * score

    def seconds(cell: Cell) -> float:
        """To train and to test a cell."""
        trained = settings.recipe.epochs * epoch * (not cell.locked)
        return trained + experiment.times_tested(cell) * images["test"] * score

    weights = _bytes_of_weights(settings.network, len(classes))
    return Estimate(
        images=images,
        disk_bytes=len(source) * split.row_bytes + len(cells) * weights,
        training=step,
        scoring=score,
        protected=seconds(Cell("np", 2, 0)),
        baseline=seconds(Cell("none", 1, 0)),
        all=sum(map(seconds, cells)),
        device=devices.describe(device),
    )


def _seconds_to_score(
    split: MemorySplit, network: str, cipher: ciphers.Cipher, device: torch.device
) -> float:
    """How long an image takes to be encrypted and scored."""
    model = (
        networks.build(network, list(split.header.classes))
        .to(device, memory_format=torch.channels_last)
        .eval()
    )
    loader = BatchLoader(split, device)
    evaluation.score(
        model, loader, cipher.max_value, cipher
    )  # the first pass is slower: kernels are chosen
    began = time.monotonic()
    evaluation.score(model, loader, cipher.max_value, cipher)
    return (time.monotonic() - began) / len(loader)


def _bytes_of_weights(network: str, classes: int) -> int:
    with torch.device("meta"):  # counts, takes no memory
        weights = networks.Segmenter(network, classes).weights()
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
