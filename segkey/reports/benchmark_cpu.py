"""The stages of `segkey.reports.benchmark` that people wait for on a CPU.

Large photographs, beside decoding every pixel; wrong keys, beside bare forward passes of the same
images; training, beside a bare loop of PyTorch, and with depthwise convolutions beside `nn.Conv2d`.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.attacks.wrong_keys import wrong_ciphers
from segkey.crypto import ciphers
from segkey.data import scenes, sources
from segkey.data.items import Item
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.model import cpu_convolutions, evaluation, inference, recipes
from segkey.model.batches import BatchLoader, as_pixels
from segkey.model.networks import Segmenter
from segkey.model.training_loop import Settings, Trainer
from segkey.reports.benchmark_rows import KEY, Row, in_turn
from segkey.shards import Header
from segkey.shards.memory import MemorySplit
from segkey.system import devices

CPU, SIZE, CLASSES = torch.device("cpu"), (128, 128), len(scenes.CLASSES)
_NETWORK, _DEPTHWISE = "resnet14", "timm:tf_efficientnet_lite0"
_SCORED, _TRAINED = 32, 8  # images
_PHOTOGRAPH = (3000, 4000)  # pixels: 12 megapixels


def photographs(folder: Path) -> Iterator[Row]:
    """One JPEG of 12 megapixels to 256×256: as `encrypt` reads it, beside decoding every pixel."""
    item = Item("photograph", _photograph(folder / "12-megapixels.jpg"), None)
    ways = [Preparation((256, 256), exact=exact) for exact in (False, True)]
    scaled, exact = in_turn([lambda way=way: way.load(item) for way in ways])
    images = [way.load(item)[0][0].astype(float) for way in ways]
    error = np.square(images[0] - images[1]).mean()
    close = f"{10 * np.log10(255**2 / error):.0f} dB" if error else "the same pixels"
    note = f"one core; PSNR of the results: {close}"
    stage = "photograph of 12 megapixels, beside --exact-decode"
    yield Row(stage, 1 / scaled, "images/s", alternative=1 / exact, note=note)


def _photograph(file: Path) -> Path:
    """A drawn scene, enlarged, with the noise of a sensor."""
    from PIL import Image

    height, width = _PHOTOGRAPH
    scene = Image.fromarray(scenes.draw(0, 0, 500)[0][:375]).resize((width, height))
    noise = np.random.default_rng(0).normal(0, 6, (height // 4, width, 3))
    noisy = np.asarray(scene) + np.tile(noise, (4, 1, 1)).astype(np.int16)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=92)
    return file


def wrong_keys(folder: Path) -> Iterator[Row]:
    """Scoring images with one wrong key after another, beside bare forward passes."""
    split = _scenes(folder / "scored", _SCORED)
    network, loader = _network(_NETWORK).eval(), BatchLoader(split, CPU)
    scored = inference.for_inference(network, CPU, SIZE)
    others = wrong_ciphers(ciphers.from_key("np", KEY, 4), 0)

    def attack() -> None:
        evaluation.score(scored, loader, 255, next(others))

    @torch.inference_mode()
    def forward() -> None:
        with devices.mixed_precision(CPU):
            for images, _ in loader.batches(_SCORED):
                network(as_pixels(images, 255))

    seconds, bare = in_turn([attack, forward])
    note = f"{_NETWORK}, {SIZE[0]} pixels; limit: bare forward passes"
    yield Row("wrong keys, np M=4, CPU", _SCORED / seconds, "images/s", _SCORED / bare, note=note)


def training(folder: Path) -> Iterator[Row]:
    """A training step, beside a bare loop of PyTorch; and what quick depthwise gradients save."""
    loader = BatchLoader(_scenes(folder / "trained", _TRAINED), CPU)
    ((images, masks),) = loader.batches(_TRAINED)
    how = Settings(recipes.recipe("scratch"), _NETWORK, resident=True)
    trainer = Trainer({"train": loader.split, "val": loader.split}, how, CPU)
    trainer.model.train()
    ours = partial(trainer.step, images, masks, how.recipe.lr_min)
    seconds, bare = in_turn([ours, _bare_step(_network(_NETWORK), images, masks)])
    note = f"{_NETWORK}, {SIZE[0]} pixels, batches of {_TRAINED}; limit: a bare loop"
    yield Row("training step, CPU", _TRAINED / seconds, "images/s", _TRAINED / bare, note=note)
    yield _depthwise(images, masks)


def _depthwise(images: Tensor, masks: Tensor) -> Row:
    stage = "depthwise training step, CPU, beside nn.Conv2d"
    try:
        usual = _network(_DEPTHWISE)
    except SegkeyError as error:  # it needs a package
        return Row(stage, None, "", note=f"left out: {error.what}")
    quick = cpu_convolutions.quicken(copy.deepcopy(usual), patient=False)
    ours, theirs = in_turn([_bare_step(each, images, masks) for each in (quick, usual)])
    rates, note = (len(images) / ours, len(images) / theirs), f"{_DEPTHWISE}, {SIZE[0]} pixels"
    return Row(stage, rates[0], "images/s", alternative=rates[1], note=note)


def _network(name: str) -> Segmenter:
    return Segmenter(name, CLASSES).to(memory_format=torch.channels_last)


def _bare_step(network: Segmenter, images: Tensor, masks: Tensor) -> Callable[[], None]:
    """A step as one writes it who has only PyTorch: autocast, cross-entropy, AdamW."""
    optimizer, classes = torch.optim.AdamW(network.train().parameters(), lr=1e-5), masks.long()

    def step() -> None:
        with devices.mixed_precision(CPU):
            loss = F.cross_entropy(network(as_pixels(images, 255)).float(), classes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _scenes(folder: Path, count: int) -> MemorySplit:
    """Drawn scenes with masks, in memory."""
    source = sources.find(scenes.write(folder, 1, 1, count, SIZE[0]))
    header = Header("test", "none", 1, 3, 255, classes=tuple(scenes.CLASSES))
    return MemorySplit(source.splits["test"], Preparation(SIZE, CLASSES), header)
