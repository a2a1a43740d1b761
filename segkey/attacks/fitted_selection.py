"""Selections that explain the statistics of all layers, where the stem's do not suffice.

With large blocks, the means and variances of a stem's filters are fewer numbers than a block has
positions, and other selections than the key's fit them better. Those of the next layers are more.
They follow from no closed form: half of the positions are selected, the network is run, and a
latent score for each position descends by the gradient with respect to the selection, as if the
choice of the best half were a sigmoid (a straight-through estimator). The first layers take a
tenth of the time of all; so they come first.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segkey.attacks.layer_statistics import LayerStatistics
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.model.batches import as_pixels
from segkey.system import devices

_FIRST = 5.0  # the weight of the first layer, whose statistics depend least on the images
_BATCH = 4


@dataclass(frozen=True)
class Descent:
    """One descent.

    Attributes:
        layers: so many normalisations; all, if None.
        steps: of Adam.
        rate: falls to 0 along a half cosine.
    """

    layers: int | None
    steps: int
    rate: float


_DESCENTS = Descent(9, 400, 0.1), Descent(None, 60, 0.03)


def fitted_selection(
    target: Target, images: Tensor, unknown: Cipher, generator: np.random.Generator
) -> Cipher:
    """A selection that the statistics of the first layers, then of all, lead to.

    Args:
        target: the model, its parameters without gradients.
        images: uint8 (N, C, H, W), plain, of the attacker.
        unknown: gives the method, M, and a table, which may be a random one.
        generator: of the start, and of the order of images.
    """
    n = unknown.channels * unknown.block_size**2
    start = torch.from_numpy(generator.normal(0, 0.5, n).astype(np.float32))
    scores = start.to(target.device).requires_grad_()
    everything = unknown.with_parts(selected=np.ones(n, bool))
    for descent in _DESCENTS:
        layers = LayerStatistics(target.model, descent.layers, _FIRST)
        optimizer = torch.optim.Adam([scores], lr=descent.rate)
        for step in range(descent.steps):
            falling = (1 + math.cos(math.pi * step / descent.steps)) / 2
            optimizer.param_groups[0]["lr"] = descent.rate * falling
            some = images[generator.permutation(len(images))[:_BATCH]]
            optimizer.zero_grad()
            with devices.mixed_precision(target.device, not target.precise):
                layers.divergence(_encrypted(some, everything, halved(scores))).backward()
            optimizer.step()
            target.spend(len(some))
    return unknown.with_parts(selected=halved(scores).detach().cpu().numpy() > 0.5)


def _encrypted(images: Tensor, everything: Cipher, selection: Tensor) -> Tensor:
    """Pixels under a selection, (c·M·M,), of a cipher that changes every position."""
    plain, changed = (
        as_pixels(each, everything.max_value) for each in (images, everything.encrypt(images))
    )
    return plain + over_blocks(selection, everything, plain) * (changed - plain)


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
