"""Evaluation: one confusion matrix over the whole split, and the scores that follow from it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model import inference
from segkey.model.batches import BatchLoader, as_pixels
from segkey.model.networks import Segmenter
from segkey.model.results import NOTHING_TO_MEASURE, Evaluation, MajorityClass, Score
from segkey.model.runs import Run
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system import devices, distributed
from segkey.system.progress import SILENT, Advance, Progress
from segkey.version import VERSION

# The bin of void pixels is worked out before it is replaced: 255 · classes + classes − 1.
_MOST_CLASSES_IN_INT16 = 127


def confusion_matrix(truth: Tensor, predicted: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Count pixels: int64 (classes, classes), rows are the truth, columns the prediction.

    Args:
        truth: uint8, any shape.
        predicted: int, the same shape, 0 … classes − 1.
        classes: number of classes.
        ignore_index: void in ``truth``; those pixels are not counted.
    """
    # On a CPU, counting int64 takes twice as long.
    short = truth.device.type == "cpu" and classes <= _MOST_CLASSES_IN_INT16
    dtype = torch.int16 if short else torch.int64
    truth, predicted = truth.reshape(-1), predicted.reshape(-1).to(dtype)
    # Void pixels go into one more bin that is cut off: selecting the others would wait for the
    # device.
    bins = (truth.to(dtype) * classes + predicted).masked_fill_(
        truth == ignore_index, classes * classes
    )
    return _count(bins, classes * classes + 1)[:-1].view(classes, classes)


def _count(values: Tensor, bins: int) -> Tensor:
    """How often each of 0 … bins − 1 occurs in ``values``, int64 (bins,)."""
    if values.device.type != "cuda" or values.numel() >= 1 << 24:
        return torch.bincount(values, minlength=bins)
    # bincount waits for the device to learn the largest value. histc is told;
    # float32 counts to 2²⁴ exactly, and values stand in the middle of their bins.
    return torch.histc(values.float(), bins, -0.5, bins - 0.5).long()


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    Args:
        matrix: int64 (classes, classes), on the CPU.
        classes: their names.
        images: how many images it was counted on.
        entropy: mean entropy of the prediction in nats a pixel, 0 (certain) … log(classes); None
            where not asked for.
    """

    matrix: Tensor
    classes: tuple[str, ...]
    images: int
    entropy: float | None = None

    @property
    def iou(self) -> dict[str, float | None]:
        """Intersection over union by class; None for a class that does not occur in the truth."""
        hit = self.matrix.diag().double()
        truth, predicted = self.matrix.sum(1).double(), self.matrix.sum(0).double()
        values = hit / (truth + predicted - hit)
        return {
            n: float(v) if t > 0 else None
            for n, v, t in zip(self.classes, values, truth, strict=True)
        }

    @property
    def mean_iou(self) -> float | None:
        """Mean of `iou` over the classes that occur; None if all pixels are void."""
        values = [value for value in self.iou.values() if value is not None]
        return sum(values) / len(values) if values else None

    @property
    def pixel_accuracy(self) -> float | None:
        """Fraction of non-void pixels that are correct; None if all are void."""
        pixels = int(self.matrix.sum())
        return int(self.matrix.diag().sum()) / pixels if pixels else None

    @property
    def majority_class(self) -> MajorityClass:
        """The majority-class baseline; its fields are None if all pixels are void."""
        truth = self.matrix.sum(1)
        occurring = int((truth > 0).sum())
        if not occurring:
            return MajorityClass(name=None, mean_iou=None)
        share = truth.max().item() / truth.sum().item()
        return MajorityClass(name=self.classes[int(truth.argmax())], mean_iou=share / occurring)

    def summary(self) -> Score:
        """What results keep of it."""
        return Score(mean_iou=self.mean_iou, pixel_accuracy=self.pixel_accuracy, iou=self.iou)


@torch.inference_mode()
def score(
    model: Segmenter,
    loader: BatchLoader,
    max_value: int,
    cipher: Cipher | None = None,
    batch_size: int = 32,
    precise: bool = False,
    advance: Advance = lambda count: None,
    entropy: bool = False,
) -> Scores:
    """Run a model over a split and count.

    If a batch does not fit in the device's memory it is scored in micro-batches (see
    `segkey.system.out_of_memory.MicroBatches`), and the user is told; the scores are the same.

    Under torchrun every rank scores some of the batches, and their counts are added up: the result
    is that of one process, to the last digit. With fewer batches than ranks,
    take a smaller ``batch_size``.

    Args:
        model: on the loader's device, in evaluation mode.
        loader: images with masks; its header names the classes and the void value.
        max_value: what images are divided by.
        cipher: encrypts the images first, on the device.
        batch_size: images per batch.
        precise: float32 even where the device computes in bfloat16.
        advance: hears how many images were done.
        entropy: measure the entropy of the prediction too.
    """
    classes, ignore_index = loader.split.header.classes, loader.split.header.ignore_index
    total = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=loader.device)
    entropies = torch.zeros(
        math.ceil(len(loader) / batch_size), dtype=torch.float64, device=loader.device
    )  # a batch each
    ranks = distributed.world_size()

    def count(micro_batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        counted, entropy_sum = torch.zeros_like(total), torch.zeros_like(entropies[0])
        for images, masks in micro_batches:
            images = cipher.encrypt(images) if cipher else images
            logits = model(as_pixels(images, max_value))
            counted += confusion_matrix(masks, _likeliest(logits), len(classes), ignore_index)
            if entropy:
                entropy_sum += _entropy(logits) * len(masks)
        return counted, entropy_sum

    with devices.mixed_precision(loader.device, not precise):
        order = distributed.my_batches(len(loader), batch_size)
        for number, (images, masks) in enumerate(loader.batches(batch_size, order)):
            counted, entropy_sum = loader.micro_batches.run(count, images, masks)
            total += counted
            entropies[distributed.rank() + number * ranks] = entropy_sum
            advance(min(batch_size * ranks, len(loader) - number * batch_size * ranks))
    total, entropies = (
        distributed.all_reduce_sum(total).cpu(),
        distributed.all_reduce_sum(entropies).sum(),
    )
    return Scores(total, classes, len(loader), float(entropies) / len(loader) if entropy else None)


def _likeliest(logits: Tensor) -> Tensor:
    """argmax over the classes; on CPUs `max` takes two thirds of the time of `argmax`."""
    if logits.device.type == "cpu":
        return logits.max(1).indices  # of equal ones the first, as there
    return logits.argmax(1)


def _entropy(logits: Tensor) -> Tensor:
    """Mean entropy a pixel, of logits (N, classes, H, W)."""
    # The network decides at an eighth of the resolution: every fourth pixel tells the same for a
    # sixteenth of the time.
    return (
        torch.distributions.Categorical(logits=logits[..., ::4, ::4].float().movedim(1, -1))
        .entropy()
        .mean()
    )


def why_no_score(mean_iou: float | None) -> str | None:
    """Why there is no score; None if there is one."""
    return NOTHING_TO_MEASURE if mean_iou is None else None


# What may differ between two measurements that give the same numbers all the same, or of which
# ranks have their own.
_APART = ("run", "device", "dtype", "versions")


def conditions(
    run: Run,
    split: Split | MemorySplit,
    device: torch.device,
    images: int,
    batch_size: int,
    precise: bool,
) -> dict:
    """All that decides a score: two scores stand for the same thing only where these agree.

    Args:
        run: the run.
        split: what it is tested on; its content counts, not its names alone.
        device: where it is computed.
        images: how many are used.
        batch_size: images per batch.
        precise: float32 even where the device computes in bfloat16.
    """
    reduced = isinstance(devices.mixed_precision(device, not precise), torch.autocast)
    checksum = run.weights_checksum
    _warn_of_other_weights(run, checksum)
    return {
        "run": run.name,
        "weights_sha256": checksum,
        "network": run.configuration.model.network,
        "split": split.header.split,
        "images": images,
        "fingerprint": split.fingerprint,
        "labels": split.labels_fingerprint,
        "device": devices.describe(device),
        "dtype": "bfloat16" if reduced else "float32",
        "precise": precise,
        "batch_size": batch_size,
        "versions": {"segkey": VERSION, "torch": str(torch.__version__)},
    }


def _warn_of_other_weights(run: Run, checksum: str | None) -> None:
    """Warn if ``run.json`` is of other weights than those that are measured.

    They are measured all the same: a kill between two writes leaves weights that are an epoch
    ahead.
    """
    stated = run.configuration.weights_sha256
    if checksum and stated and checksum != stated:
        devices.warn(
            f"{run.path}/run.json belongs to other weights than {run.weights_file.name} holds: one "
            "of them was replaced, or a training was killed while it saved; what is measured are "
            "the weights in the file"
        )


def agree_on(settings: dict) -> None:
    """Raise `SegkeyError` unless all ranks measure the same; their devices may differ."""
    distributed.require_same(
        {what.replace("_", " "): str(settings[what]) for what in settings if what not in _APART}
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
) -> Evaluation:
    """Score a run with the correct key.

    Args:
        run: the run.
        split: from `segkey.model.evaluation_splits.open_test_split`.
        cipher: the run's; needed where the split is plain and the run is not.
        device: where to compute.
        limit: only the first so many images.
        batch_size: images per batch.
        precise: float32 even where the device computes in bfloat16.
        progress: hears of every image.

    Returns:
        The result, for `Run.keep`; scores are None if every pixel of the masks is void, and then
        ``no_score`` says so.
    """
    plain = split.header.method == "none"
    if plain and cipher is None and run.header.method != "none":
        raise SegkeyError("plain images need the key of the run", "give it with --key")
    count = min(limit or len(split), len(split))
    model = run.load_model(device)  # before its checksum is taken, which only opening tells
    settings = conditions(run, split, device, count, batch_size, precise)
    agree_on(settings)
    # A rank reads its own images only.
    resident = None if distributed.is_single() else False
    loader = BatchLoader(split, device, limit=limit, resident=resident)
    model = inference.for_inference(model, device, split.size, precise)
    with progress.task("evaluate", len(loader)) as advance:
        encrypting = cipher if plain else None
        scores = score(
            model, loader, run.header.max_value, encrypting, batch_size, precise, advance
        )
    return Evaluation(
        no_score=why_no_score(scores.mean_iou),
        run=run.name,
        split=split.header.split,
        images=scores.images,
        correct=scores.summary(),
        majority_class=scores.majority_class,
        device=settings["device"],
        tested=settings | split.origin,
    )
