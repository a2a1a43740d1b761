"""The time of a training step on this machine, measured on a few real steps."""

import time
from dataclasses import replace

import numpy as np
import torch

from segkey.crypto.ciphers import Cipher
from segkey.data.augment import random_crops
from segkey.model.batches import crop_batch
from segkey.model.recipes import Recipe
from segkey.model.training_loop import Settings, Trainer
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system import distributed
from segkey.system.seeds import seeded


def seconds_per_image(
    split: Split | MemorySplit,
    recipe: Recipe,
    network: str,
    cipher: Cipher | None,
    device: torch.device,
    patience: float = 30.0,
) -> float:
    """How long an image takes in a training step here; nothing is kept.

    Args:
        split: some images with masks, repeated to fill a batch.
        recipe, network, cipher, device: as for `segkey.model.training.train`; the weights are
            random, which takes as long.
        patience: seconds; if steps of the recipe's batch take longer, smaller batches are measured.
    """
    batch_size = max(recipe.batch_size, distributed.world_size())
    settings = Settings(
        replace(recipe, weights="none", batch_size=batch_size), network, resident=True
    )
    trainer = Trainer({"train": split, "val": split}, settings, device, cipher)
    trainer.model.train()
    few = min(4, recipe.batch_size)
    _seconds(trainer, few)  # the first step is slower: kernels are chosen
    count = min(recipe.batch_size, max(few, int(patience / _seconds(trainer, few) / 4)))
    _seconds(trainer, count)
    return min(_seconds(trainer, count) for _ in range(2))


def _seconds(trainer: Trainer, count: int) -> float:
    """Seconds per image in a step with ``count`` images."""
    began, loader, recipe = time.monotonic(), trainer.train_loader, trainer.recipe
    ((images, masks),) = loader.batches(count, np.resize(np.arange(len(loader)), count))
    if trainer.cipher:
        sizes = np.broadcast_to(loader.split.size, (count, 2))
        crops = random_crops(seeded("measure"), sizes, (recipe.crop_scale, 1.0))
        images, masks = crop_batch(images, masks, torch.from_numpy(crops))
    float(trainer.step(images, masks, recipe.lr_min))  # waits for the device
    return (time.monotonic() - began) / count
