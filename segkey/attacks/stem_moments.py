"""What the filters of a stem respond to encrypted images, in closed form.

NP and FFX replace the selected values of every block and leave the others, so the response of a
filter at a window is that to the plain image plus, for every selected position of the block, a term
that does not depend on the other positions. Its mean is linear in the selection and its mean
square quadratic. Both are counted once, on plain images; then every selection is judged without
touching an image again.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.model.stem import Stem

_CHUNK = 8  # images at a time
LEAST_VARIANCE = 1e-8  # if no normalisation says what it takes for little


class StemMoments:
    """Mean and mean square of every filter's response, as functions of a selection.

    Args:
        stem: with a normalisation that has running statistics; without one, responses with the
            bias are taken to have a mean of 0 and a variance of 1, as after a normalisation that
            was folded.
        plain: float (N, C, H, W), on the CPU, plain images as the network normalises them.
        changed: float (N, C, H, W), the same with every position encrypted.
        block_size: M.

    Attributes:
        positions: c·M·M.
        mean, square: float (filters,), of the responses to plain images.
        mean_terms: float (filters, positions), what a selected position adds to the mean.
        cross_terms: float (filters, positions), what a position adds to the mean square together
            with the response to the plain image.
        pair_terms: float (filters, positions, positions), what pairs of positions add to it.
    """

    def __init__(self, stem: Stem, plain: Tensor, changed: Tensor, block_size: int):
        self._convolution, self._m = stem.convolution, block_size
        self._weight = stem.convolution.weight.detach().float().cpu()
        filters, channels = self._weight.shape[:2]
        self.positions = channels * block_size**2
        self.stored_mean, self.stored_variance = torch.zeros(filters), torch.ones(filters)
        self._eps = stem.normalisation.eps if stem.normalisation is not None else LEAST_VARIANCE
        if stem.normalisation is not None:
            self.stored_mean = stem.normalisation.running_mean.detach().float().cpu()
            self.stored_variance = stem.normalisation.running_var.detach().float().cpu()
        if stem.convolution.bias is not None:
            self.stored_mean = self.stored_mean - stem.convolution.bias.detach().float().cpu()
        self._count(plain, changed)

    def _count(self, plain: Tensor, changed: Tensor) -> None:
        """Sum up over all windows, one phase of the stem's stride within the block at a time."""
        phase = self._phase_of_windows(*plain.shape[-2:])
        phases = phase.unique().tolist()
        flat = self._weight.flatten(1)
        (filters, size), n = flat.shape, self.positions
        pairs = torch.zeros(len(phases), size, size)
        cross, sums = torch.zeros(len(phases), filters, size), torch.zeros(len(phases), size)
        mean, square = torch.zeros(2, filters, dtype=torch.float64)
        for start in range(0, len(plain), _CHUNK):
            part = slice(start, start + _CHUNK)
            base, windows = self._windows(plain[part], changed[part])
            mean += base.double().sum((0, 2))
            square += base.double().square().sum((0, 2))
            for place, value in enumerate(phases):
                chosen = phase == value
                some = base[:, :, chosen].transpose(0, 1).flatten(1)
                window = windows[:, :, chosen].transpose(0, 1).flatten(1)
                pairs[place] += window @ window.T
                cross[place] += some @ window.T
                sums[place] += window.sum(1)
        count = len(plain) * len(phase)
        self.mean, self.square = (mean / count).float(), (square / count).float()
        self.mean_terms, self.cross_terms = torch.zeros(2, filters, n)
        self.pair_terms = torch.zeros(filters, n, n)
        for place, value in enumerate(phases):
            entries = self._entries(value)
            self.mean_terms.index_add_(1, entries, flat * sums[place] / count)
            self.cross_terms.index_add_(1, entries, flat * cross[place] / count)
            self._add_pairs(entries, flat, pairs[place] / count)

    def _windows(self, plain: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Responses to plain images (N, filters, L), and what encryption changes (N, size, L)."""
        conv = self._convolution
        how = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        base = F.conv2d(plain, self._weight, None, **how).flatten(2)
        return base, F.unfold(changed - plain, conv.kernel_size, **how)

    def _phase_of_windows(self, height: int, width: int) -> Tensor:
        """int64 (L,): where each window begins within the block, M · row + column."""
        rows, columns = (
            torch.arange((side + 2 * p - d * (k - 1) - 1) // s + 1) * s - p
            for side, k, s, p, d in zip((height, width), *self._geometry, strict=True)
        )
        m = self._m
        return (rows[:, None] % m * m + columns % m).reshape(-1)

    @property
    def _geometry(self) -> tuple[tuple[int, int], ...]:
        conv = self._convolution
        return conv.kernel_size, conv.stride, conv.padding, conv.dilation

    def _entries(self, phase: int) -> Tensor:
        """int64 (C·k·k,): the position in the block that each entry of a window falls on."""
        m, (height, width), dilation = self._m, self._convolution.kernel_size, self._geometry[3]
        rows = (phase // m + torch.arange(height) * dilation[0]) % m
        columns = (phase % m + torch.arange(width) * dilation[1]) % m
        channels = torch.arange(self._weight.shape[1]) * m * m
        return (channels[:, None, None] + rows[:, None] * m + columns).reshape(-1)

    def _add_pairs(self, entries: Tensor, flat: Tensor, pairs: Tensor) -> None:
        """Add a phase's Σ w w' E[δ δ'] to the pairs of positions of the block."""
        places, at = entries.unique(return_inverse=True)
        gather = torch.zeros(len(entries), len(places))
        gather[torch.arange(len(entries)), at] = 1
        for number, weight in enumerate(flat):
            terms = gather.T @ (weight[:, None] * weight * pairs) @ gather
            self.pair_terms[number][places[:, None], places] += terms

    def responses(self, selections: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and mean square (B, filters) under selections (B, positions) of values 0 … 1."""
        through = torch.einsum("fij,bj->bfi", self.pair_terms, selections)
        square = 2 * selections @ self.cross_terms.T + (through * selections[:, None]).sum(-1)
        return self.mean + selections @ self.mean_terms.T, self.square + square

    def divergence(self, mean: Tensor, square: Tensor) -> Tensor:
        """Of Gaussians with these moments (..., filters) from the stored ones, summed: (...)."""
        variance = (square - mean.square()).clamp(min=0)
        stored = self.stored_mean, self.stored_variance
        return gaussian_divergence(mean, variance, *stored, self._eps).sum(-1)

    def loss(self, selections: Tensor) -> Tensor:
        """`divergence` (B,) of selections (B, positions)."""
        return self.divergence(*self.responses(selections))

    @torch.inference_mode()
    def after_swaps(self, selection: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss after each swap of a selected position with one that is not.

        Args:
            selection: float (positions,), of 0 and 1.

        Returns:
            The selected positions (S,), the others (U,), and the losses (S, U).
        """
        on, off = (selection > 0.5).nonzero()[:, 0], (selection < 0.5).nonzero()[:, 0]
        mean, square = (each[0] for each in self.responses(selection[None]))
        slope = 2 * (self.cross_terms + self.pair_terms @ selection)
        own = self.pair_terms.diagonal(dim1=1, dim2=2)
        losses = torch.empty(len(on), len(off))
        for start in range(0, len(on), 64):
            some = on[start : start + 64]
            means = self.mean_terms[:, off][:, None] - self.mean_terms[:, some][:, :, None]
            squares = (slope + own)[:, off][:, None] + (own - slope)[:, some][:, :, None]
            squares = squares - 2 * self.pair_terms[:, some][:, :, off]
            means, squares = mean[:, None, None] + means, square[:, None, None] + squares
            losses[start : start + 64] = self.divergence(
                means.movedim(0, -1), squares.movedim(0, -1)
            )
        return on, off, losses


def gaussian_divergence(
    mean: Tensor, variance: Tensor, stored_mean: Tensor, stored_variance: Tensor, eps: float
) -> Tensor:
    """Kullback-Leibler divergence of stored Gaussians from others, in nats; all of one shape.

    Args:
        mean, variance: of the images at hand.
        stored_mean, stored_variance: of a normalisation.
        eps: what this adds to a variance before it divides by the root. Channels that vary by less,
            of which pretrained networks have some, hardly differ to the network, nor here.
    """
    variance, stored_variance = variance + eps, stored_variance + eps
    ratio = stored_variance / variance
    return 0.5 * (ratio - 1 - torch.log(ratio) + (mean - stored_mean).square() / variance)


def stride_within(stem: Stem, block_size: int) -> tuple[int, int]:
    """By how many pixels windows of a stem can move without changing their phases."""
    return tuple(math.gcd(step, block_size) for step in stem.convolution.stride)
