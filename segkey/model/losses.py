"""What a training minimises: cross-entropy (the paper's), Dice and focal loss.

Each is summed over pixels and divided by an amount, so that a batch may go through the network in
parts, on several devices: the parts' sums over the sum of their amounts are the batch's loss. Dice
is no sum over pixels; each part counts by its number of pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.errors import SegkeyError
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system.files import read_text

AUTO = "auto"
_ROWS = 64  # masks that are read at a time
_SEPARATORS = " \t,:"  # between a class and its weight


@dataclass(frozen=True)
class Loss:
    """A loss over the pixels that are not void.

    Attributes:
        name: one of `segkey.model.recipes.LOSSES`.
        ignore_index: void in masks.
        weights: float (classes,), on the device, that count each pixel by its class; None for 1.
    """

    name: str
    ignore_index: int
    weights: Tensor | None = None

    def __post_init__(self):
        if "dice" in self.name:
            _dice(self.ignore_index)  # whether there is one; said before anything is trained

    def summed(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The loss times `amount`.

        Args:
            logits: float (N, classes, H, W).
            masks: uint8 (N, H, W).
        """
        total = 0
        if "ce" in self.name.split("+"):
            total = F.cross_entropy(
                logits,
                masks.long(),
                self.weights,
                ignore_index=self.ignore_index,
                reduction="sum",
            )
        if "dice" in self.name:
            dice = _dice(self.ignore_index)(logits, masks.long())
            total = total + dice * self.amount(masks)
        if self.name == "focal":
            total = self._focal(logits, masks)
        return total

    def amount(self, masks: Tensor) -> Tensor:
        """What the sum is divided by: the number of pixels that are not void, or their weight."""
        known = masks != self.ignore_index
        return known.sum() if self.weights is None else self._weights_of(masks, known).sum()

    def divisor(self, amount: Tensor) -> Tensor:
        """An amount, or something above 0 where every pixel is void."""
        return amount.clamp(min=1 if self.weights is None else 1e-6)

    def _weights_of(self, masks: Tensor, known: Tensor) -> Tensor:
        classes = masks.long().masked_fill(~known, 0)
        return self.weights[classes] * known

    def _focal(self, logits: Tensor, masks: Tensor) -> Tensor:
        """torchvision's focal loss of every class's sigmoid, summed over classes and pixels."""
        from torchvision.ops import sigmoid_focal_loss

        known = masks != self.ignore_index
        classes = masks.long().masked_fill(~known, 0)
        targets = F.one_hot(classes, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
        each = sigmoid_focal_loss(logits, targets).sum(1)
        return (each * (known if self.weights is None else self._weights_of(masks, known))).sum()


def _dice(ignore_index: int) -> torch.nn.Module:
    """smp's Dice loss over the classes of a batch."""
    try:
        from segmentation_models_pytorch.losses import DiceLoss
    except ImportError:
        raise SegkeyError(
            "the Dice loss is that of the package segmentation-models-pytorch, which is not "
            "installed",
            "pip install 'segkey[smp]', or take --loss ce or focal",
        ) from None
    return DiceLoss("multiclass", ignore_index=ignore_index)


def class_weights(
    wanted: str | Sequence[float] | None, split: Split | MemorySplit
) -> tuple[float, ...] | None:
    """The weight of each class.

    Args:
        wanted: ``auto``, which balances classes by the median of their frequencies (Eigen and
            Fergus 2015, equation 6) and gives 1 to a class that does not occur; a number for each
            class; or None.
        split: the training images.

    Raises:
        SegkeyError: another number of classes.
    """
    classes = split.header.classes
    if wanted is None:
        return None
    if wanted != AUTO:
        if len(wanted) != len(classes):
            raise SegkeyError(
                f"there are {len(wanted)} class weights for {len(classes)} classes",
                f"give one for each of {', '.join(classes[:5])}{', …' * (len(classes) > 5)}",
            )
        return tuple(wanted)
    frequencies = _pixels_of(split)[: len(classes)].astype(float)
    found = frequencies[frequencies > 0]
    weights = np.ones(len(classes))
    weights[frequencies > 0] = np.median(found) / found
    return tuple(weights.tolist())


def _pixels_of(split: Split | MemorySplit) -> np.ndarray:
    """How many pixels of the masks have each value; int64 (256,), void 0."""
    counts = np.zeros(256, np.int64)
    for view in range(split.header.views):
        for start in range(0, len(split), _ROWS):
            rows = np.arange(start, min(start + _ROWS, len(split)))
            masks = split.read_batch("masks", rows, view)
            counts += np.bincount(masks.reshape(-1), minlength=256)
    counts[split.header.ignore_index] = 0
    return counts


def read_class_weights(file: Path, classes: Sequence[str]) -> tuple[float, ...]:
    """Class weights from a text file: a number per line, or a class's name and its number.

    Raises:
        SegkeyError: no such file, a line that is neither, a class that is missing or unknown, or a
            weight below 0.
    """
    try:
        lines = [line.strip() for line in read_text(file, 1 << 20, follow=True).splitlines()]
    except (ValueError, FileNotFoundError):
        lines = []
    lines = [line for line in lines if line and not line.startswith("#")]
    given = [_weight_in(line, number, classes) for number, line in enumerate(lines)]
    values, times = dict(given), Counter(name for name, _ in given)
    strange = [name for name in values if name not in classes]
    twice = [name for name in values if times[name] > 1]
    missing = [name for name in classes if name not in values]
    what = f"names {strange[0]!r}" if strange else ""
    what = what or (f"has two weights of {twice[0]!r}" if twice else "")
    what = what or (f"has no weight of {missing[0]!r}" if missing else "")
    if not what and not all(0 <= value < 1e6 for value in values.values()):
        what = "holds a weight that is below 0, or no number"
    if not what and not any(values.values()):
        what = "gives every class a weight of 0, so that nothing would be learned"
    if what:
        raise SegkeyError(
            f"{file} {what}",
            f"write one line for each of the {len(classes)} classes: its weight, or its name and "
            "its weight",
        )
    return tuple(values[name] for name in classes)


def _weight_in(line: str, number: int, classes: Sequence[str]) -> tuple[str, float]:
    """The class and the weight that a line gives; a line without a name is of the next class."""
    end = max(map(line.rfind, _SEPARATORS))  # behind the name, which may hold such signs, too
    name, value = line[: max(end, 0)].rstrip(_SEPARATORS), line[end + 1 :]
    own = classes[number] if number < len(classes) else f"line {number + 1}"
    try:
        return name or own, float(value)
    except ValueError:
        return name or own, float("nan")
