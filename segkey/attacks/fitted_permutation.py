"""Permutations that explain the statistics of the first layers.

A permutation is relaxed to a doubly stochastic matrix (Sinkhorn's normalisation), which gradient
descent fits to the statistics; rounding is a linear assignment, and swaps of two positions follow.
A selection, if the method has one too, is fitted with it.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segkey.attacks.layer_statistics import LayerStatistics
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.model.batches import as_pixels

_LAYERS = 5  # normalisations that a permutation is fitted to
_STEPS = 60
_MOST_ROUNDS = 20  # of swaps
_BATCH = 16
_WINDOW = 64  # pixels, of the crops that a permutation is fitted to


def fitted_permutations(
    target: Target, images: Tensor, unknown: Cipher, generator: np.random.Generator
) -> list[Cipher]:
    """Permutations that the first layers' statistics lead to, every 20 steps."""
    fit = RelaxedKey(target, unknown, generator)
    found = []
    for step in range(_STEPS):
        fit.step(_crops(images, unknown.block_size, generator), step / _STEPS)
        if step % 20 == 19:
            found.append(fit.rounded())
    return [*found, fit.climbed(found[-1], _crops(images, unknown.block_size, generator))]


def _crops(images: Tensor, m: int, generator: np.random.Generator) -> Tensor:
    """A batch of windows of the images, on the grid of blocks."""
    height, width = (min(side, max(m, _WINDOW // m * m)) for side in images.shape[-2:])
    chosen = generator.integers(0, len(images), _BATCH)
    tops = m * generator.integers(0, (images.shape[-2] - height) // m + 1, _BATCH)
    lefts = m * generator.integers(0, (images.shape[-1] - width) // m + 1, _BATCH)
    return torch.stack(
        [
            images[i, :, top : top + height, left : left + width]
            for i, top, left in zip(chosen, tops, lefts, strict=True)
        ]
    )


class RelaxedKey:
    """A doubly stochastic matrix in place of a permutation; a soft selection if there is one."""

    def __init__(self, target: Target, unknown: Cipher, generator: np.random.Generator):
        self._unknown, self._layers = unknown, LayerStatistics(target.model, _LAYERS)
        self._target, n = target, unknown.channels * unknown.block_size**2
        start = generator.normal(0, 0.1, (n, n)).astype(np.float32)
        self._logits = torch.from_numpy(start).to(target.device).requires_grad_()
        parameters = [self._logits]
        self._selection = None
        if "selected" in unknown.PARTS:
            start = generator.normal(0, 0.5, n).astype(np.float32)
            self._selection = torch.from_numpy(start).to(target.device).requires_grad_()
            parameters.append(self._selection)
        self._optimizer = torch.optim.Adam(parameters, lr=0.1)

    def divergence(self, matrix: Tensor, images: Tensor, chosen: Tensor | None) -> Tensor:
        """Of the first layers, under a matrix (n, n) and a soft selection (n,)."""
        height, width = images.shape[-2:]
        blocks = _blocks(as_pixels(images, 255), self._unknown.block_size) @ matrix.T
        if chosen is not None:
            blocks = blocks + chosen * (1 - 2 * blocks)
        return self._layers.divergence(_images(blocks, self._unknown, height, width))

    def step(self, images: Tensor, progress: float) -> None:
        """One step of gradient descent; the matrix becomes harder while ``progress`` goes 0 … 1."""
        chosen = None if self._selection is None else self._selection.sigmoid()
        loss = self.divergence(sinkhorn(self._logits / 0.1**progress), images, chosen)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._target.spend(len(images))

    def rounded(self) -> Cipher:
        """The permutation that is nearest to the matrix, and the likelier half of the positions."""
        _, permutation = linear_sum_assignment(-self._logits.detach().cpu().numpy())
        parts = {"permutation": permutation}
        if self._selection is not None:
            order = np.argsort(-self._selection.detach().cpu().numpy())
            parts["selected"] = np.zeros(len(order), bool)
            parts["selected"][order[: len(order) // 2]] = True
        return self._unknown.with_parts(**parts)

    def climbed(self, cipher: Cipher, images: Tensor) -> Cipher:
        """Swap positions of a permutation while that lowers the divergence of the first layers."""
        permutation, best, chosen = cipher.permutation, np.inf, None
        if self._selection is not None:
            chosen = torch.from_numpy(cipher.selected.astype(np.float32)).to(self._target.device)
        rows = torch.eye(len(permutation), device=self._target.device)
        for _ in range(_MOST_ROUNDS):
            matrix = rows[permutation].requires_grad_()
            loss = self.divergence(matrix, images, chosen)
            loss.backward()
            best = min(best, float(loss.detach()))
            tried = promising_swaps(permutation, matrix.grad[:, permutation].cpu().numpy())
            with torch.no_grad():
                losses = [float(self.divergence(rows[each], images, chosen)) for each in tried]
            self._target.spend(len(images) * (1 + len(tried)))
            if not tried or min(losses) >= best:
                break
            best, permutation = min(losses), tried[int(np.argmin(losses))]
        return cipher.with_parts(permutation=permutation)


def promising_swaps(permutation: np.ndarray, slopes: np.ndarray) -> list[np.ndarray]:
    """Permutations with 1, 2, 4, … of the swaps that promise most, no position in two of them.

    Args:
        permutation: int64 (n,).
        slopes: (n, n), of the loss, by row and by the row whose column it would take.
    """
    own = slopes.diagonal()
    gains = np.triu(slopes + slopes.T - own[:, None] - own, 1)
    used, found, current = set(), [], permutation.copy()
    for place in gains.argsort(axis=None)[: 4 * len(own)]:
        i, j = divmod(int(place), len(own))
        if gains[i, j] >= 0:
            break
        if used.isdisjoint((i, j)):
            used |= {i, j}
            current[[i, j]] = current[[j, i]]
            count = len(used) // 2
            if count & (count - 1) == 0:
                found.append(current.copy())
    return found


def sinkhorn(logits: Tensor, rounds: int = 15) -> Tensor:
    """A matrix whose rows and columns add up to about 1, from logits (n, n)."""
    for _ in range(rounds):
        logits = logits - logits.logsumexp(-1, keepdim=True)
        logits = logits - logits.logsumexp(-2, keepdim=True)
    return logits.exp()


def _blocks(pixels: Tensor, m: int) -> Tensor:
    """(N, c, H, W) as flattened blocks (N, blocks, c·M·M)."""
    n, c, height, width = pixels.shape
    grid = pixels.reshape(n, c, height // m, m, width // m, m)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * m * m)


def _images(blocks: Tensor, cipher: Cipher, height: int, width: int) -> Tensor:
    """The inverse of `_blocks`."""
    m, c = cipher.block_size, cipher.channels
    grid = blocks.reshape(len(blocks), height // m, width // m, c, m, m)
    images = grid.permute(0, 3, 1, 4, 2, 5).reshape(len(blocks), c, height, width)
    return images.contiguous(memory_format=torch.channels_last)
