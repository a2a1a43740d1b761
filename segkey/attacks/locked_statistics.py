"""What a locked stem's weights leave open of its key, told by the statistics behind it.

The weights give the plain filters but for a signed order of channels for each pixel of a stride,
see `segkey.attacks.stem_taps`. Where the stored border does not tell it, statistics do: a lock
needs no training, so the normalisation behind it stores what the original filters respond to plain
images, less a constant. Mean and variance of a response follow from the mean and covariance of
plain windows, so that every order is judged without touching an image again.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.attacks.stem import cipher_of, taps_of, told_by_border
from segkey.attacks.stem_moments import LEAST_VARIANCE, gaussian_divergence
from segkey.attacks.stem_signs import Solution, allowed_permutations
from segkey.attacks.stem_taps import Taps
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.model.batches import as_pixels
from segkey.model.locked_conv import CENTRE, SCALE, LockedConv
from segkey.model.stem import Stem, find_stem

_STARTS = 32
_MANY_RESIDUES = 64  # from so many on, fewer starts
_BEST = 3  # optima that all layers judge
_ROUNDS = 100
_CHUNK = 8  # images at a time


def locked_candidates(
    target: Target, images: Tensor, unknown: Cipher, generator: np.random.Generator
) -> list[Cipher]:
    """The keys of a locked model whose plain filters give the stored statistics, the best first.

    Args:
        target: its model is locked.
        images: uint8 (N, C, H, W), plain, of the attacker.
        unknown: gives the method and M only.
        generator: of random starts.

    Raises:
        SegkeyError: as `segkey.attacks.stem.taps_of`.
    """
    stem = find_stem(target.model)
    taps = taps_of(stem, unknown)
    colour = torch.full((unknown.channels,), CENTRE)  # of the padding
    if stem.convolution.border.any():
        colour = torch.tensor(target.model.entry.normalisation(unknown.channels)[0])
    search = _Search(taps, stored_responses(stem), *_windows(stem.convolution, images, colour))
    moves, inverts = "permutation" in unknown.PARTS, "selected" in unknown.PARTS
    known = told_by_border(target.model, stem, taps, (moves, inverts))
    solutions = search.best(allowed_permutations(known), generator)
    return [cipher_of(unknown, taps, each) for each in solutions]


def stored_responses(stem: Stem) -> tuple[Tensor, Tensor, float]:
    """Mean and variance that a locked convolution has without its offset, float64 (filters,).

    If the normalisation was folded, 0 and 1 with the offset, which are usual. The third is what the
    normalisation adds to variances.
    """
    offset = stem.convolution.offset.detach().cpu().double()
    if stem.normalisation is None:
        return -offset, torch.ones_like(offset), LEAST_VARIANCE
    mean, variance = (
        each.detach().cpu().double()
        for each in (stem.normalisation.running_mean, stem.normalisation.running_var)
    )
    return mean - offset, variance, stem.normalisation.eps


def _windows(layer: LockedConv, images: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (P,) and mean products (P, P) of centred plain windows, float64, P = C·k·k.

    Padded with a colour, float (C,), as the original network pads with its mean one.
    """
    axes = layer.rows, layer.columns
    size = images.shape[1] * axes[0].kernel * axes[1].kernel
    sums, products, count = torch.zeros(size).double(), torch.zeros(size, size).double(), 0
    colour = colour.view(-1, 1, 1)
    for part in images.cpu().split(_CHUNK):
        relative = as_pixels(part, 255).float() - colour
        across, down = (axes[1].padding,) * 2, (axes[0].padding,) * 2
        centred = (F.pad(relative, across + down) + colour - CENTRE) / SCALE
        kernel, dilation, stride = zip(
            *((a.kernel, a.dilation, a.stride) for a in axes), strict=True
        )
        windows = F.unfold(centred, kernel, dilation, 0, stride).movedim(1, 0).flatten(1)
        sums += windows.double().sum(1)
        products += (windows @ windows.T).double()
        count += windows.shape[1]
    return sums / count, products / count


class _Search:
    """Looks for signed orders of channels, (residues, channels, slots), that fit statistics.

    Args:
        taps: the filters but for these orders.
        stored: mean and variance of the responses, float64 (F,).
        mean, products: of windows, from `_windows`.
    """

    def __init__(self, taps: Taps, stored: tuple[Tensor, Tensor], mean: Tensor, products: Tensor):
        self._stored, self._mean, self._products = stored, mean, products
        filters, (height, width) = taps.filters, taps.filters.shape[2:]
        self._slots, self._residues = filters.shape[1], taps.count
        flat = taps.residues.flatten()
        self._taps = filters.flatten(2)  # (F, slots, k·k)
        self._inside = [(flat == residue).nonzero()[:, 0] for residue in range(taps.count)]
        channels = torch.arange(self._slots)[:, None] * height * width
        self._places = [(channels + inside).flatten() for inside in self._inside]  # of windows

    def best(self, allowed: list[np.ndarray], generator: np.random.Generator) -> list[Solution]:
        """Different optima, the best first."""
        starts = 4 if self._residues >= _MANY_RESIDUES else _STARTS
        found: dict[bytes, tuple[float, np.ndarray]] = {}
        for _ in range(starts):
            choices = [generator.integers(len(each)) for each in allowed]
            state = np.stack([each[at] for each, at in zip(allowed, choices, strict=True)])
            loss, state = self._climb(state, allowed, generator)
            found[state.tobytes()] = loss, state
        ranked = sorted(found.values(), key=lambda optimum: optimum[0])[:_BEST]
        return [
            Solution(state.sum(1).astype(np.int64), np.abs(state).argmax(1)) for _, state in ranked
        ]

    def _climb(
        self, state: np.ndarray, allowed: list[np.ndarray], generator: np.random.Generator
    ) -> tuple[float, np.ndarray]:
        """What no other order of a single residue betters: its loss, and the orders."""
        state, best = state.copy(), np.inf
        whole = self._filters(state)
        through = whole @ self._products
        for _ in range(_ROUNDS):
            before = best
            for residue in generator.permutation(self._residues):
                if not len(self._inside[residue]):
                    continue
                options = self._options(residue, allowed[residue])
                losses, deltas = self._losses(whole, through, residue, options)
                place, at = int(losses.argmin()), self._places[residue]
                best = float(losses[place])
                state[residue] = allowed[residue][place]
                whole[:, at] += deltas[place]
                through += deltas[place] @ self._products[at]
            if best >= before - 1e-9:
                break
        return best, state

    def _filters(self, state: np.ndarray) -> Tensor:
        """All filters in the order of a state: float64 (F, P)."""
        whole = torch.zeros(len(self._taps), len(self._mean)).double()
        for residue, at in enumerate(self._places):
            whole[:, at] = self._options(residue, state[residue][None])[0]
        return whole

    def _options(self, residue: int, orders: np.ndarray) -> Tensor:
        """A residue's part of the filters under each order (A, channels, slots): (A, F, places)."""
        some = self._taps[:, :, self._inside[residue]]
        return torch.einsum("aci,fit->afct", torch.from_numpy(orders), some).flatten(2)

    def _losses(
        self, whole: Tensor, through: Tensor, residue: int, options: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The divergence (A,) with each option for a residue, and what it changes of filters."""
        at = self._places[residue]
        deltas = options - whole[:, at]
        mean = whole @ self._mean + deltas @ self._mean[at]
        among = ((deltas @ self._products[at][:, at]) * deltas).sum(-1)
        square = (whole * through).sum(-1) + 2 * (deltas * through[:, at]).sum(-1) + among
        variance = (square - mean.square()).clamp(min=0)
        return gaussian_divergence(mean, variance, *self._stored).sum(-1), deltas
