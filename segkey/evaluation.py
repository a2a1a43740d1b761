"""How well a model segments: one confusion matrix over the whole split, and what follows from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from segkey import devices, sources
from segkey.ciphers import Cipher
from segkey.decryption import cipher_for
from segkey.errors import KeyMismatchError, SegkeyError
from segkey.keys import Key
from segkey.loading import Feed, MemorySplit, as_pixels, signed
from segkey.models import Segmenter
from segkey.preparation import Preparation
from segkey.progress import SILENT, Progress
from segkey.runs import Run
from segkey.shards import Split, find_splits, open_splits


def confusion_matrix(truth: Tensor, predicted: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Count pixels: int64 (classes, classes), rows are the truth, columns the prediction.

    Args:
        truth: uint8, any shape.
        predicted: int, the same shape, 0 … classes − 1.
        classes: number of classes.
        ignore_index: void in ``truth``; those pixels are not counted.
    """
    truth = truth.reshape(-1).long()
    # Void pixels go into one more bin that is cut off: selecting the others would wait for the device.
    bins = torch.where(truth == ignore_index, classes * classes, truth * classes + predicted.reshape(-1))
    return torch.bincount(bins, minlength=classes * classes + 1)[:-1].view(classes, classes)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    Args:
        matrix: int64 (classes, classes), on the CPU.
        classes: their names.
        images: how many images it was counted on.
    """

    matrix: Tensor
    classes: tuple[str, ...]
    images: int

    @property
    def iou(self) -> dict[str, float | None]:
        """Intersection over union of each class; None for a class that does not occur in the truth."""
        hit = self.matrix.diag().double()
        truth, predicted = self.matrix.sum(1).double(), self.matrix.sum(0).double()
        values = hit / (truth + predicted - hit)
        return {n: float(v) if t > 0 else None for n, v, t in zip(self.classes, values, truth, strict=True)}

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur; NaN where nothing but void does."""
        values = [value for value in self.iou.values() if value is not None]
        return sum(values) / len(values) if values else math.nan

    @property
    def pixel_accuracy(self) -> float:
        """The part of pixels, void left out, that are right."""
        return float(self.matrix.diag().sum() / self.matrix.sum())

    @property
    def constant(self) -> tuple[str, float]:
        """The best that answering one class everywhere reaches: the class, and its mean IoU."""
        truth = self.matrix.sum(1)
        share = truth.max().item() / max(1, truth.sum().item())
        return self.classes[int(truth.argmax())], share / max(1, int((truth > 0).sum()))

    def summary(self) -> dict:
        """``mean_iou``, ``pixel_accuracy`` and ``iou``, as the JSON documents have them."""
        return {"mean_iou": self.mean_iou, "pixel_accuracy": self.pixel_accuracy, "iou": self.iou}


@torch.inference_mode()
def score(
    model: Segmenter,
    feed: Feed,
    classes: tuple[str, ...],
    ignore_index: int,
    max_value: int,
    encrypt: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 32,
    precise: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Scores:
    """Run a model over a split and count.

    Args:
        model: on the feed's device, in evaluation mode.
        feed: images with masks.
        classes: their names.
        ignore_index: void in the masks.
        max_value: what images are divided by.
        encrypt: what is done to images first; nothing, if not given.
        batch_size: images a batch.
        precise: float32 even where the device computes in bfloat16.
        advance: hears how many images were done.
    """
    total = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=feed.device)
    with devices.mixed_precision(feed.device, not precise):
        for images, masks in feed.batches(batch_size):
            images = encrypt(images) if encrypt else images
            predicted = model(as_pixels(images, max_value)).argmax(1)
            total += confusion_matrix(masks, predicted, len(classes), ignore_index)
            advance(len(masks))
    return Scores(total.cpu(), classes, len(feed))


# ------------------------------------------------------------------ a run on its test images


def cipher_of(run: Run, key: Key | None, password: bytes | None = None) -> Cipher:
    """The cipher a run was trained with, from the key.

    Raises:
        KeyMismatchError: the key or the password is another one.
    """
    return cipher_for(run.header, key, password, run.path)


def test_split(
    run: Run, shards: list[Path] | None, images: Path | None, masks: Path | None, name: str = "test"
) -> Split | MemorySplit:
    """What a run is tested on: images with masks, or some shards, or those it was trained on."""
    if images:
        return split_from_images(run, images, masks, name)
    return split_from_shards(run, shards or [Path(path) for path in run.config["data"]["shards"]], name)


def split_from_shards(run: Run, shards: list[Path], name: str = "test") -> Split:
    """A split of some shards that a run can be tested on: plain, or encrypted as the run was trained.

    Raises:
        SegkeyError: no such split, no masks, another size, other classes.
        KeyMismatchError: encrypted with another key or method.
    """
    found = find_splits(shards)
    if name not in found:
        raise SegkeyError(
            f"there is no split '{name}' in {shards[0]}",
            f"splits there: {', '.join(found)}; choose one with --split",
        )
    split = open_splits(shards, (name,))[name]
    header, trained, file = split.header, run.header, found[name][0]
    if not split.has_masks:
        raise SegkeyError(
            f"{file} has no masks to compare with", "encrypt images together with their masks (--masks DIR)"
        )
    if split.size != run.size:
        raise SegkeyError(
            f"{file} holds images of {split.size[0]}x{split.size[1]}, run {run.name} was trained on "
            f"{run.size[0]}x{run.size[1]}",
            f"encrypt them with --size {run.size[0]}x{run.size[1]}",
        )
    _check_classes(header.classes, run, file)
    if header.method != "none":
        different = [field for field in trained.same_data(header) if field not in ("classes", "ignore_index")]
        if different:
            raise KeyMismatchError(
                f"{file} ({header.method}, M = {header.block_size}, key {header.key_id}) is not encrypted as run {run.name} "
                f"was trained ({trained.method}, M = {trained.block_size}, key {trained.key_id or 'none'})",
                "give the shards the run was trained on, or plain ones, with --shards",
            )
    return split


def split_from_images(run: Run, images: Path, masks: Path | None, name: str = "test") -> MemorySplit:
    """Images and masks from files as a plain split that a run can be tested on: the split ``name``, or all there are.

    Raises:
        SegkeyError: no images, no masks, other classes.
    """
    source = sources.find(images, masks, ignore_index=run.header.ignore_index, split=sources.ALL if masks else None)
    items = source.splits.get(name) or [item for items in source.splits.values() for item in items]
    items = [item for item in items if item.mask]
    if not items:
        raise SegkeyError(f"{images} has no masks to compare with", "give the folder of masks with --masks")
    if source.classes:
        _check_classes(tuple(source.classes), run, images)
    preparation = Preparation(run.size, len(run.header.classes), run.header.ignore_index)
    header = replace(run.header, split=name, method="none", block_size=1, max_value=255, key_id="", password_hash="")
    split = MemorySplit(items, preparation, header)
    split.problems += source.problems
    return split


def _check_classes(classes: tuple[str, ...], run: Run, where: Path) -> None:
    if classes != run.header.classes:
        raise SegkeyError(
            f"{where} has {len(classes)} classes ({', '.join(classes[:3])}, …), run {run.name} was trained on "
            f"{len(run.header.classes)} ({', '.join(run.header.classes[:3])}, …)",
            "give images with the classes of the run",
        )


def evaluate(
    run: Run,
    split: Split | MemorySplit,
    cipher: Cipher | None,
    device: torch.device,
    limit: int | None = None,
    batch_size: int = 32,
    precise: bool = False,
    progress: Progress = SILENT,
) -> dict:
    """Score a run with the correct key.

    Args:
        run: the run.
        split: from `split_from_shards` or `split_from_images`.
        cipher: the run's; needed where the split is plain and the run is not.
        device: where to compute.
        limit: only the first so many images.
        batch_size: images a batch.
        precise: float32 even where the device computes in bfloat16.
        progress: hears of every image.

    Returns:
        The document of ``segkey evaluate --json``.
    """
    header, encrypt = run.header, None
    if split.header.method == "none" and header.method != "none":
        if cipher is None:
            raise SegkeyError("plain images need the key of the run", "give it with --key")
        encrypt = lambda images: signed(cipher.encrypt(images))  # noqa: E731
    model, feed = run.load_model(device), Feed(split, device, limit=limit)
    with progress.task("evaluate", len(feed)) as advance:
        scores = score(
            model,
            feed,
            header.classes,
            header.ignore_index,
            header.max_value,
            encrypt,
            batch_size,
            precise,
            advance,
        )
    constant, constant_iou = scores.constant
    return {
        "run": run.name,
        "split": split.header.split,
        "images": scores.images,
        "correct": scores.summary(),
        "constant": {"class": constant, "mean_iou": constant_iou},
        "device": devices.describe(device),
    }
