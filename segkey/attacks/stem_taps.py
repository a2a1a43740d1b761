"""What the weights of a stem say about each position of a block, in the order of a plain filter.

A tap is a filter's weight for one channel and one pixel of its kernel; over all filters, a vector.
In a locked stem a position of the block meets every tap that it can meet in exactly one of the
block's outputs. Its weights there are those of the plain filter, negated or not. Positions a stride
apart meet the same taps, so their weights are equal up to sign: only the sign of each *class*
(channel, row modulo the stride, column modulo the stride) remains unknown. Where values are
shuffled too, which outputs meet a position at all tells its pixel, and equal weights tell which
positions belong to one channel: what remains is the order of the channels, once for each pixel of
a stride.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from segkey.errors import SegkeyError
from segkey.model.locked_conv import Axis, LockedConv

_ZERO = 1e-12  # of the largest energy: below it, an output does not meet a position


@dataclass(frozen=True)
class Taps:
    """A plain filter but for the sign of each class, and for the order of channels if shuffled.

    Attributes:
        filters: float64 (F, C, k, k); in each class, ± the plain filter.
        rows, columns: int64 (k,), the row and column of each tap modulo the period.
        period: of classes along both axes: the stride of a locked stem, otherwise M.
        slots: int64 (c·M·M,), which of the C filters a position of an encrypted block meets.
        pixels: int64 (c·M·M, 2), its row and column in the plain block.
        signs: float64 (c·M·M,), 1 or −1 within its class.
    """

    filters: Tensor
    rows: Tensor
    columns: Tensor
    period: tuple[int, int]
    slots: np.ndarray
    pixels: np.ndarray
    signs: np.ndarray

    @property
    def residues(self) -> Tensor:
        """int64 (k, k), which pixel of a period each tap belongs to, counted row by row."""
        return self.rows[:, None] * self.period[1] + self.columns

    @property
    def residues_of_positions(self) -> np.ndarray:
        """int64 (c·M·M,), the same of positions."""
        row, column = (self.pixels % self.period).T
        return row * self.period[1] + column

    @property
    def count(self) -> int:
        """How many residues there are."""
        return self.period[0] * self.period[1]


def aligned_taps(convolution: nn.Conv2d, block: int) -> Taps:
    """Taps of a convolution whose stride is a multiple of M, so that each sees one position.

    Args:
        convolution: trained on encrypted images; without groups, padded by numbers.
        block: M.
    """
    sizes = zip(convolution.kernel_size, convolution.padding, convolution.dilation, strict=True)
    rows, columns = ((torch.arange(k) * dilation - p) % block for k, p, dilation in sizes)
    filters = convolution.weight.detach().cpu().double()
    slots, pixels = _places(filters.shape[1], block)
    return Taps(filters, rows, columns, (block, block), slots, pixels, np.ones(len(slots)))


def locked_taps(layer: LockedConv, moves: bool, inverts: bool) -> Taps:
    """Taps of a locked stem.

    Args:
        layer: the stem.
        moves: values may have changed their places.
        inverts: values may have been inverted.

    Raises:
        SegkeyError: places cannot be told, as several pixels meet the same outputs.
    """
    lines = _Line(layer.rows), _Line(layer.columns)
    weights = _by_outputs(layer, lines)
    m, channels = layer.rows.block, weights.shape[-1]
    places = np.stack([*_places(channels, m)[1].T, _places(channels, m)[0]])  # y, x, channel
    slots, pixels = places[2].copy(), places[:2].T
    if moves:
        pixels = _pixels_by_outputs(weights, lines, places)
    filters = weights.new_zeros(layer.filters, channels, lines[0].kernel, lines[1].kernel)
    signs, periods = np.ones(len(slots)), (lines[0].stride, lines[1].stride)
    references: dict[tuple[int, int], np.ndarray] = {}
    for y, x in np.ndindex(m, m):
        inside = np.flatnonzero((pixels == (y, x)).all(1))
        down, across = lines[0].taps(y), lines[1].taps(x)
        met = _met(weights, lines, (y, x), places[:, inside])  # (C, down, across, F)
        flat = met.reshape(channels, -1).numpy()
        reference = references.setdefault((y % periods[0], x % periods[1]), flat)
        if reference is flat:
            filters[:, :, down[:, None], across] = met.movedim(-1, 0)
        if reference is flat or not moves:
            order = np.arange(channels)
        else:
            order = _same_filter(reference, flat, inverts)
        slots[inside] = order
        if inverts:
            signs[inside] = np.where((reference[order] * flat).sum(1) < 0, -1.0, 1.0)
    rows, columns = (line.residues for line in lines)
    return Taps(filters, rows, columns, periods, slots, pixels, signs)


class _Line:
    """One axis of a locked stem whose kernel covers whole blocks."""

    def __init__(self, axis: Axis):
        self._axis = Axis(*(list(vars(axis).values())[:-1] + [True]))
        self.kernel, self.stride, self.block = axis.kernel, axis.stride, axis.block
        self.phases, self.blocks = axis.phases, self._axis.size // axis.block
        self.residues = (torch.arange(axis.kernel) * axis.dilation - axis.padding) % axis.stride

    def taps(self, pixel: int) -> np.ndarray:
        """The taps that a pixel of the block meets."""
        return np.flatnonzero(self.residues.numpy() == pixel % self.stride)

    def outputs(self, pixel: int) -> tuple[np.ndarray, np.ndarray]:
        """The output of a block in which a pixel meets each of `taps`, and the block it is in."""
        axis, offset = self._axis, self.taps(pixel) * self._axis.dilation
        phase = (pixel + axis.padding - offset) // self.stride % self.phases
        place = phase * self.stride - axis.padding - axis.first + offset
        return phase, place // self.block

    def pattern(self, pixel: int) -> np.ndarray:
        """Which outputs and blocks those are: bool (phases, blocks)."""
        found = np.zeros((self.phases, self.blocks), bool)
        found[self.outputs(pixel)] = True
        return found


def _places(channels: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The channel (c·M·M,), and the row and column (c·M·M, 2), of each position of a block."""
    channel, rest = np.divmod(np.arange(channels * m * m), m * m)
    return channel, np.stack(np.divmod(rest, m), 1)


def _by_outputs(layer: LockedConv, lines: tuple[_Line, _Line]) -> Tensor:
    """The weights, float64 (F, phases, phases, blocks, M, blocks, M, C)."""
    weights = layer.over_blocks().detach().cpu().double()
    rows, columns, m = *lines, layer.rows.block
    shape = (layer.filters, rows.phases, columns.phases, -1, rows.blocks, m, columns.blocks, m)
    return weights.view(shape).movedim(3, -1)


def _pixels_by_outputs(
    weights: Tensor, lines: tuple[_Line, _Line], places: np.ndarray
) -> np.ndarray:
    """The row and column in the plain block of each encrypted position: int64 (c·M·M, 2)."""
    energy = weights.square().sum(0)
    meets = (energy > _ZERO * energy.max())[..., places[0], :, places[1], places[2]]
    # (positions, phases, phases, blocks, blocks)
    seen = meets.amax((2, 4)).numpy(), meets.amax((1, 3)).numpy()
    found = []
    for line, patterns in zip(lines, seen, strict=True):
        of = {line.pattern(pixel).tobytes(): pixel for pixel in range(line.block)}
        if len(of) < line.block:
            raise SegkeyError(
                f"kernel {line.kernel} and stride {line.stride} let several pixels of a block meet "
                f"the same outputs, so that the weights do not tell them apart",
                "leave the attack out",
            )
        found.append([of.get(pattern.tobytes(), -1) for pattern in patterns])
    pixels = np.stack(found, 1)
    numbers = pixels[:, 0] * lines[1].block + pixels[:, 1]
    if np.bincount(numbers.clip(0), minlength=1).tolist() != [weights.shape[-1]] * (
        lines[0].block * lines[1].block
    ):
        raise SegkeyError(
            "the weights of the first layer are not those of a convolution over shuffled blocks",
            "leave the attack out",
        )
    return pixels


def _met(
    weights: Tensor, lines: tuple[_Line, _Line], pixel: tuple[int, int], places: np.ndarray
) -> Tensor:
    """The taps that some encrypted positions of one pixel meet: (positions, down, across, F)."""
    (phase, block), (phase_across, block_across) = (
        line.outputs(at) for line, at in zip(lines, pixel, strict=True)
    )
    index = (
        phase[:, None],
        phase_across,
        block[:, None],
        places[0][:, None, None],
        block_across,
        places[1][:, None, None],
        places[2][:, None, None],
    )
    return weights[(slice(None), *index)].movedim(0, -1)


def _same_filter(reference: np.ndarray, met: np.ndarray, inverts: bool) -> np.ndarray:
    """For each row of taps, the row of the reference that is equal, up to sign if inverted."""
    lengths = [np.linalg.norm(each, axis=1, keepdims=True).clip(1e-30) for each in (met, reference)]
    cosine = (met / lengths[0]) @ (reference / lengths[1]).T
    return linear_sum_assignment(-(np.abs(cosine) if inverts else cosine))[1]
