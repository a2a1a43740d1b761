"""One test image as the models of a grid see and segment it, for the paper's Figures 4 and 5.

Both figures are published, and show an image beside its encrypted twins. So these are drawn with a
throw-away key, which no model was trained with; only predictions come from the experiment's key.
"""

from dataclasses import dataclass

import numpy as np
import torch

from segkey.crypto.ciphers import METHODS
from segkey.errors import SegkeyError
from segkey.model.batches import as_pixels
from segkey.model.evaluation import Scores, confusion_matrix
from segkey.model.runs import Run
from segkey.paper.experiment import Experiment
from segkey.paper.experiment_settings import PASSWORD
from segkey.paper.results import CellResult, Results
from segkey.reports import preview
from segkey.shards import Header, open_splits
from segkey.system import devices


@dataclass(frozen=True)
class View:
    """What one model sees of the image and makes of it.

    Attributes:
        method, block_size: of the model.
        seen: uint8 (3, H, W), as such images look: encrypted with a throw-away key.
        predicted: uint8 (H, W), from the image encrypted with the correct key.
        mean_iou: over the classes that occur in the image.
    """

    method: str
    block_size: int
    seen: np.ndarray
    predicted: np.ndarray
    mean_iou: float


@dataclass(frozen=True)
class Example:
    """The test image with the most classes, and what models make of it.

    Attributes:
        name: of the image.
        plain: uint8 (3, H, W).
        truth: uint8 (H, W).
        classes, ignore_index: what ``truth`` holds.
        encrypted: the image under each method of the grid, for each of ``block_sizes``, with a
            throw-away key.
        views: of the baseline and of each method with the smallest block, if there are such
            models.
    """

    name: str
    plain: np.ndarray
    truth: np.ndarray
    classes: tuple[str, ...]
    ignore_index: int
    block_sizes: list[int]
    encrypted: dict[str, list[np.ndarray]]
    views: list[View]


def example(experiment: Experiment, results: Results) -> Example:
    """The image with the most classes, segmented by the models of the smallest block size.

    Args:
        experiment: whose folder holds the models and the images.
        results: from its ``run``.
    """
    split = open_splits([experiment.out / "plain"], ("test",))["test"]
    masks = split.read_batch("masks", np.arange(experiment.images()["test"]))
    counts = [len(np.setdiff1d(mask, split.header.ignore_index)) for mask in masks]
    index = int(np.argmax(counts))
    plain, truth = split.read("images", index), masks[index]
    # The first seed's; locked models predict what the baseline does.
    made = {
        (cell.method, cell.block_size): cell for cell in reversed(results.cells) if not cell.locked
    }
    block_sizes = sorted({m for method, m in made if method != "none"})
    methods = [
        method for method in METHODS if method != "none" and any(each == method for each, _ in made)
    ]
    views = []
    for place in [("none", 1), *((method, m) for m in block_sizes[:1] for method in methods)]:
        try:
            views += (
                [_view(experiment, made[place], plain, truth, split.header)]
                if place in made
                else []
            )
        except SegkeyError as error:  # its result is kept, but not what made it
            experiment.watch.say(f"{made[place].run} is left out of the figures: {error.what}")
    encrypted = _pictures(plain, methods, block_sizes)
    return Example(
        split.names[index],
        plain,
        truth,
        split.header.classes,
        split.header.ignore_index,
        block_sizes,
        encrypted,
        views,
    )


def _pictures(
    plain: np.ndarray, methods: list[str], block_sizes: list[int]
) -> dict[str, list[np.ndarray]]:
    """The image as it may be published, under each method and block size.

    FFX's password is public already.
    """
    return preview.encrypted_pictures(
        plain, preview.throwaway_key(), methods, block_sizes, PASSWORD.encode()
    )


@torch.inference_mode()
def _view(
    experiment: Experiment, cell: CellResult, plain: np.ndarray, truth: np.ndarray, header: Header
) -> View:
    device, cipher = experiment.device, experiment.cipher(cell.cell)
    run = Run.open(experiment.out / "runs" / cell.run).unlock(experiment.key)
    model = run.load_model(device)
    images = cipher.encrypt(torch.from_numpy(plain[None]).to(device))
    with devices.mixed_precision(device):
        predicted = model(as_pixels(images, cipher.max_value)).argmax(1).cpu()
    matrix = confusion_matrix(
        torch.from_numpy(truth), predicted, len(header.classes), header.ignore_index
    )
    return View(
        cell.method,
        cell.block_size,
        _pictures(plain, [cell.method], [cell.block_size])[cell.method][0],
        predicted[0].byte().numpy(),
        Scores(matrix, header.classes, 1).mean_iou,
    )
