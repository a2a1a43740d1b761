"""Selections that explain the statistics of the first layers, where the stem's do not suffice.

With large blocks, the means and variances of a stem's filters are fewer numbers than a block has
positions, and other selections than the key's fit them better. Those of the next layers are more.
They follow from no closed form: half of the positions are selected, the network is run, and a
latent score for each position descends by the gradient with respect to the selection, as if the
choice of the best half were a sigmoid (a straight-through estimator).
"""

import math

import numpy as np
import torch
from torch import Tensor

from segkey.attacks.layer_statistics import LayerStatistics
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.model.batches import as_pixels
from segkey.system import devices

_LAYERS = 9  # normalisations that a selection is fitted to
_FIRST = 5.0  # the weight of the first one, whose statistics depend least on the images
_STEPS = 500
_RATE = 0.1  # falls to 0 along a half cosine
_BATCH = 4


def fitted_selection(
    target: Target, images: Tensor, unknown: Cipher, generator: np.random.Generator
) -> Cipher:
    """A selection that the first layers' statistics lead to.

    Args:
        target: the model, its parameters without gradients.
        images: uint8 (N, C, H, W), plain, of the attacker.
        unknown: gives the method, M, and a table, which may be a random one.
        generator: of the start, and of the order of images.
    """
    n = unknown.channels * unknown.block_size**2
    start = torch.from_numpy(generator.normal(0, 0.5, n).astype(np.float32))
    scores = start.to(target.device).requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=_RATE)
    layers = LayerStatistics(target.model, _LAYERS, _FIRST)
    everything = unknown.with_parts(selected=np.ones(n, bool))
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / _STEPS)) / 2
        chosen = generator.permutation(len(images))[:_BATCH]
        plain, changed = (
            as_pixels(each, unknown.max_value)
            for each in (images[chosen], everything.encrypt(images[chosen]))
        )
        with devices.mixed_precision(target.device, not target.precise):
            mixed = plain + over_blocks(halved(scores), unknown, plain) * (changed - plain)
            loss = layers.divergence(mixed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        target.spend(len(chosen))
    return unknown.with_parts(selected=halved(scores).detach().cpu().numpy() > 0.5)


def halved(scores: Tensor) -> Tensor:
    """1 for the larger half of some scores, otherwise 0; with the gradient of their sigmoid."""
    soft, hard = scores.sigmoid(), torch.zeros_like(scores)
    hard[scores.detach().topk(len(scores) // 2).indices] = 1
    return hard + soft - soft.detach()


def over_blocks(values: Tensor, cipher: Cipher, images: Tensor) -> Tensor:
    """Values of a block's positions, (c·M·M,), repeated over images (N, c, H, W): (c, H, W)."""
    m = cipher.block_size
    rows, columns = (side // m for side in images.shape[-2:])
    return values.view(-1, m, m).repeat(1, rows, columns)
