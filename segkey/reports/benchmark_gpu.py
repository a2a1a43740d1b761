"""The stages of `segkey.reports.benchmark` that need a GPU.

The limits: a copy on the device, a large bf16 matrix product, the bare forward pass.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from segkey.crypto import PROTECTED, ciphers
from segkey.data.augment import random_crops
from segkey.model import evaluation, inference, recipes
from segkey.model.batches import as_pixels, crop_batch
from segkey.model.networks import Segmenter
from segkey.reports.benchmark_rows import BLOCK_SIZES, KEY, Row, best_time
from segkey.system import devices
from segkey.system.seeds import seeded

_IMAGES = 128  # of a batch


def _seconds(where: torch.device, function: Callable[[], object]) -> float:
    """Of the fastest call, until the GPU has finished it."""

    def synchronised() -> None:
        function()
        torch.cuda.synchronize(where)

    return best_time(synchronised, 0.5)


def transforms(where: torch.device) -> Iterator[Row]:
    """Encrypting uint8 256×3×256×256, beside a copy on the device."""
    images = torch.randint(0, 256, (256, 3, 256, 256), dtype=torch.uint8, device=where)
    target = torch.empty_like(images)

    def rate(function: Callable[[], object]) -> float:
        return images.numel() / _seconds(where, function) / 1e9

    copying = rate(lambda: target.copy_(images))
    for method in PROTECTED:
        by_size = {}
        for block_size in BLOCK_SIZES:
            cipher = ciphers.from_key(method, KEY, block_size)
            by_size[block_size] = rate(lambda c=cipher: c.encrypt(images))
        note = ", ".join(f"M={m}: {rate:.0f}" for m, rate in by_size.items())
        yield Row(f"{method} encrypt, GPU", min(by_size.values()), "GB/s", copying, note=note)


class _Training:
    """One training step of FCN-ResNet-50 on random images, (128, 3, 256, 256), FFX at M = 4."""

    def __init__(self, where: torch.device):
        size = (_IMAGES, 3, 256, 256)
        self.where, self.cipher = where, ciphers.from_key("ffx", KEY, 4)
        self.images = torch.randint(0, 256, size, dtype=torch.uint8, device=where)
        self.masks = torch.randint(0, 21, size[:1] + size[2:], dtype=torch.uint8, device=where)
        sizes = np.full((_IMAGES, 2), 256)
        self.crops = torch.from_numpy(random_crops(seeded("bench"), sizes, (0.25, 1.0)))
        self.model = Segmenter("resnet50", 21).to(where, memory_format=torch.channels_last)
        self.optimizer = recipes.recipe("paper").build_optimizer(self.model)

    def step(self, network: torch.nn.Module | None = None) -> None:
        """Images as they are."""
        self._learn(network or self.model, self.images, self.masks)

    def step_on_the_fly(self) -> None:
        """Images are cropped and encrypted first."""
        pixels, masks = crop_batch(self.images, self.masks, self.crops)
        self._learn(self.model, self.cipher.encrypt(pixels), masks)

    def _learn(self, network: torch.nn.Module, pixels: torch.Tensor, masks: torch.Tensor) -> None:
        with devices.mixed_precision(self.where):
            loss = F.cross_entropy(network(as_pixels(pixels, 255)).float(), masks.long())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def network(where: torch.device) -> Iterator[Row]:
    """Training step beside a matrix product; encryption's share; attack beside a forward pass."""
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=where) for _ in range(2))
    product = 2 * 8192**3 / _seconds(where, lambda: a @ b) / 1e12
    training = _Training(where)
    with FlopCounterMode(display=False) as counter:
        training.step()
    plain = _seconds(where, training.step)
    on_the_fly = _seconds(where, training.step_on_the_fly)
    note = f"{_IMAGES / plain:.0f} images/s; augmentation and encryption on the fly cost "
    note += f"{100 * (on_the_fly / plain - 1):.1f} %"
    achieved = counter.get_total_flops() / plain / 1e12
    yield Row("training step, FCN-ResNet-50, GPU", achieved, "TFLOP/s", product, note=note)
    yield _compiled_step(training, _IMAGES / plain)
    yield _attack(training)


def _attack(training: _Training) -> Row:
    """Encrypting and scoring a batch, beside the forward pass of the same folded network."""
    images, cipher = training.images, training.cipher
    model = inference.for_inference(training.model, training.where, images.shape[-2:])

    def attack() -> None:
        predicted = model(as_pixels(cipher.encrypt(images), cipher.max_value)).argmax(1)
        evaluation.confusion_matrix(training.masks, predicted, 21, 255)

    with torch.inference_mode(), devices.mixed_precision(training.where):
        forward = _IMAGES / _seconds(training.where, lambda: model(as_pixels(images, 255)))
        rate = _IMAGES / _seconds(training.where, attack)
    return Row("attack, GPU", rate, "images/s", forward, note="limit: the forward pass, folded")


def _compiled_step(training: _Training, eager: float) -> Row:
    """The training step with ``torch.compile``, beside ``eager``, the rate without (images/s).

    Also when compiling has earned its time back.
    """
    stage, compiled = "training step, compiled, GPU", torch.compile(training.model)
    began = time.perf_counter()
    try:
        training.step(compiled)
    except Exception as error:  # it needs a compiler, and says so in many ways
        why = f"torch.compile does not work here ({type(error).__name__})"
        return Row(stage, None, "", note=why)
    spent = time.perf_counter() - began
    rate = _IMAGES / _seconds(training.where, lambda: training.step(compiled))
    earned = "never earned back"
    if rate > eager:
        earned = f"earned back after {spent / (1 / eager - 1 / rate):,.0f} images"
    note = f"limit: the step as it is; compiling took {spent:.0f} s, {earned}"
    return Row(stage, rate, "images/s", eager, note=note)
