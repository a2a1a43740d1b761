"""What the weights alone leave open of a stem's filters: a sign per class, the order of channels.

Three sources, the surest first. Where the network pads with a colour other than grey, what a locked
layer takes off at the border is known sums of the plain filter: linear equations for the unknown
signs times that colour. The mean that a batch normalisation stores is the filter's response to the
mean colour of photographs, which is darker than grey: linear equations again, though not exact.
And natural filters are smooth: neighbouring taps, and the channels of one tap, are alike.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segkey.attacks.stem_taps import Taps
from segkey.model.locked_conv import LockedConv

_STARTS = 16
_MANY_RESIDUES = 64  # from so many on, fewer starts
_ROUNDS = 100
_EXACT = 1e-3  # of the stored sums, that equations may leave unexplained
_ROUGH = 0.5
_ALIKE = 0.2  # of the largest mean colour, the smallest


@dataclass(frozen=True)
class Solution:
    """The sign and the channel of each class.

    Attributes:
        signs: int64 (residues, C), 1 or −1; 0 if unknown.
        channels: int64 (residues, C), the channel that a slot is; −1 if unknown.
    """

    signs: np.ndarray
    channels: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """bool (residues, C)."""
        return (self.signs != 0) & (self.channels >= 0)

    @property
    def negative(self) -> "Solution":
        """With the other signs."""
        return Solution(-self.signs, self.channels)


@dataclass(frozen=True)
class Stored:
    """What a normalisation stores, as responses to centred images.

    Attributes:
        filters: float64 (F, C, k, k), `Taps.filters` as centred images see them.
        mean: float64 (F,), of the responses.
    """

    filters: Tensor
    mean: Tensor


def _by_residue(taps: Taps) -> Tensor:
    """float64 (residues, k, k): 1 for the taps of each residue."""
    return (taps.residues == torch.arange(taps.count)[:, None, None]).double()


def border_coefficients(taps: Taps, layer: LockedConv) -> np.ndarray | None:
    """Sign times padded colour of each class, float64 (residues, C); NaN where nothing tells.

    None if the border says nothing, or nothing that these filters explain.
    """
    groups = layer.rows.grouping(taps.filters), layer.columns.grouping(taps.filters)
    sums = torch.einsum("fcij,rij,ia,jb->fabrc", taps.filters, _by_residue(taps), *groups)
    inside = torch.ones(sums.shape[1:3], dtype=torch.bool)
    inside[layer.rows.never_lost, layer.columns.never_lost] = False
    stored = layer.border.detach().cpu().double()[:, inside]
    return _solve(sums[:, inside].flatten(0, 1).flatten(1), stored.flatten(), taps, _EXACT)


def mean_coefficients(taps: Taps, stored: Stored) -> np.ndarray | None:
    """Sign times mean colour of each class, less grey; as `border_coefficients`.

    None, too, if those colours differ more than the colours of photographs do: smooth filters are
    too much alike to tell their classes apart in this way.
    """
    sums = torch.einsum("fcij,rij->frc", stored.filters, _by_residue(taps))
    found = _solve(sums.flatten(1), stored.mean, taps, _ROUGH)
    sizes = np.abs(found) if found is not None else np.zeros(1)
    return found if np.nanmin(sizes) > _ALIKE * np.nanmax(sizes) else None


def _solve(lines: Tensor, values: Tensor, taps: Taps, tolerance: float) -> np.ndarray | None:
    """Least squares; None if it is not determined, or leaves more than the tolerance."""
    useful = lines.norm(dim=0) > 1e-9 * lines.norm()
    if not values.any() or not useful.any() or len(lines) < 2 * useful.sum():
        return None
    found = torch.linalg.lstsq(lines[:, useful], values[:, None], driver="gelsd")
    missed = (lines[:, useful] @ found.solution)[:, 0] - values
    if found.rank < useful.sum() or missed.norm() > tolerance * values.norm():
        return None
    coefficients = torch.full((lines.shape[1],), torch.nan, dtype=torch.float64)
    coefficients[useful] = found.solution[:, 0]
    return coefficients.view(taps.count, -1).numpy()


def by_border(coefficients: np.ndarray, colour: np.ndarray, moves: bool, inverts: bool) -> Solution:
    """What `border_coefficients` tell.

    Args:
        coefficients: float64 (residues, C).
        colour: float64 (C,), of the padding, less grey.
        moves, inverts: what the method does.
    """
    unknown = nothing_known(coefficients.shape, moves, inverts)
    if not moves:
        return Solution(_signs(coefficients * colour), unknown.channels)
    signs, channels = unknown.signs.copy(), unknown.channels.copy()
    apart = np.diff(np.sort(np.abs(colour) if inverts else colour))
    if len(apart) and apart.min() < 1e-6:
        return unknown
    for residue in np.flatnonzero(np.isfinite(coefficients).all(1)):
        found = coefficients[residue]
        distance = np.abs(
            (np.abs(found) if inverts else found)[:, None] - (np.abs(colour) if inverts else colour)
        )
        slots, order = linear_sum_assignment(distance)
        if distance[slots, order].sum() < 0.1 * np.abs(colour).sum():  # it is that colour
            channels[residue] = order
            if inverts:
                signs[residue] = _signs(found * colour[order])
    return Solution(signs, channels)


def by_mean(coefficients: np.ndarray, moves: bool, inverts: bool) -> Solution:
    """What `mean_coefficients` tell: signs, if photographs are darker than grey."""
    unknown = nothing_known(coefficients.shape, moves, inverts)
    return Solution(_signs(-coefficients) if inverts else unknown.signs, unknown.channels)


def nothing_known(shape: tuple[int, int], moves: bool, inverts: bool) -> Solution:
    """Only that a method does not move, or not invert."""
    signs, channels = np.zeros(shape, np.int64), np.full(shape, -1)
    return Solution(
        signs if inverts else signs + 1, channels if moves else channels + 1 + np.arange(shape[1])
    )


def _signs(values: np.ndarray) -> np.ndarray:
    return np.sign(np.nan_to_num(values)).astype(np.int64)


def smoothest(taps: Taps, known: Solution, generator: np.random.Generator) -> Solution:
    """Complete a solution so that neighbouring taps and the channels of a tap are most alike.

    If nothing is known, a common sign of all and a common order of channels stay open.

    Every residue's channels and signs are a signed permutation. From several starts, residues are
    given the best one in the order in which their neighbours say most, then changed one by one.
    """
    search = _Smoothness(taps, known)
    starts = 2 if taps.count >= _MANY_RESIDUES else _STARTS
    found = [search.climb(generator) for _ in range(starts)]
    best = max(found, key=search.score)
    return Solution(
        best.sum(1).astype(np.int64), np.abs(best).argmax(1)
    )  # (residues, channels, slots)


class _Smoothness:
    """How alike neighbouring taps are under signed permutations, (residues, channels, slots)."""

    def __init__(self, taps: Taps, known: Solution):
        self.residues, self.slots = known.signs.shape
        self.between, self.within = self._similarities(taps)
        self.allowed = allowed_permutations(known)

    def _similarities(self, taps: Taps) -> tuple[np.ndarray, np.ndarray]:
        """Of neighbouring residues (R, C, R, C), and of the channels of each (R, C, C)."""
        filters, residues = taps.filters / taps.filters.norm().clamp(min=1e-30), taps.residues
        between = torch.zeros(self.residues, self.residues, self.slots, self.slots).double()
        for one, other, at, to in (
            (filters[..., :-1], filters[..., 1:], residues[:, :-1], residues[:, 1:]),
            (filters[..., :-1, :], filters[..., 1:, :], residues[:-1], residues[1:]),
        ):
            alike = torch.einsum("fihw,fjhw->hwij", one, other).flatten(0, 1)
            between.index_put_((at.flatten(), to.flatten()), alike, accumulate=True)
        between = between + between.permute(1, 0, 3, 2)
        between[torch.arange(self.residues), torch.arange(self.residues)] = 0  # always the same
        within = torch.zeros(self.residues, self.slots, self.slots).double()
        alike = torch.einsum("fihw,fjhw->hwij", filters, filters).flatten(0, 1)
        within.index_add_(0, residues.flatten(), alike)
        return between.permute(0, 2, 1, 3).contiguous().numpy(), within.numpy()

    def _field(self, state: np.ndarray, residue: int) -> np.ndarray:
        """What each slot as each channel would agree with its neighbours: (channels, slots)."""
        return np.einsum("irj,rcj->ci", self.between[residue], state)

    def _best(self, state: np.ndarray, residue: int) -> np.ndarray:
        allowed = self.allowed[residue]
        among = np.einsum("aci,ij,adj->acd", allowed, self.within[residue], allowed).sum((1, 2))
        return allowed[np.argmax((allowed * self._field(state, residue)).sum((1, 2)) + among / 2)]

    def climb(self, generator: np.random.Generator) -> np.ndarray:
        """A state that no change of one residue betters."""
        state = np.zeros((self.residues, self.slots, self.slots))
        left = np.ones(self.residues, bool)
        for residue in np.flatnonzero([len(each) == 1 for each in self.allowed]):
            state[residue], left[residue] = self.allowed[residue][0], False
        says = np.abs(self.between).sum((1, 3))
        while left.any():
            strength = says[:, ~left].sum(1) + 1e-9 * generator.random(self.residues)
            residue = int(np.argmax(np.where(left, strength, -1)))
            state[residue], left[residue] = self._best(state, residue), False
        for _ in range(_ROUNDS):
            before = state.copy()
            for residue in generator.permutation(self.residues):
                state[residue] = self._best(state, residue)
            if np.array_equal(before, state):
                break
        return state

    def score(self, state: np.ndarray) -> float:
        """To be maximised."""
        pairs = np.einsum("rci,risj,scj->", state, self.between, state, optimize=True) / 2
        among = np.einsum("rci,rij,rdj->", state, self.within, state, optimize=True) / 2
        return float(pairs + among)


def allowed_permutations(known: Solution) -> list[np.ndarray]:
    """For each residue, the signed permutations that fit: float64 (A, channels, slots)."""
    permutations = _signed_permutations(known.signs.shape[1])
    signs, channels = permutations.sum(1), np.abs(permutations).argmax(1)
    fitting = []
    for sign, channel in zip(known.signs, known.channels, strict=True):
        right, placed = (sign == 0) | (signs == sign), (channel < 0) | (channels == channel)
        fitting.append(permutations[(right & placed).all(1)])
    return fitting


def _signed_permutations(count: int) -> np.ndarray:
    """All, float64 (2^C · C!, channels, slots)."""
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    orders = np.stack([np.eye(count)[list(p)] for p in itertools.permutations(range(count))])
    return (orders[:, None] * signs[:, None, :]).reshape(-1, count, count)
