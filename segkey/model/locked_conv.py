"""The first layer of a locked model: a convolution over blocks of encrypted images.

A convolution with stride s gives (M/s)² outputs per block of M×M pixels. `LockedConv` computes all
of them at once from the block and its neighbours, as channels of a convolution with stride M, and
puts them back in their places. Encryption that only permutes and negates the centred values of a
block can then be undone in the weights: see `segkey.model.lock`.

Padding. A network pads its normalised input with zeros, which are pixels of the mean colour; here
values are centred at 1/2, and padded zeros are pixels of grey 127.5, which every key leaves as they
are. What the two differ by is a constant for each filter and each place relative to the border. It
is worked out from the original weights alone, is the same for every key, and stands in ``border``
as coarsely as the border needs it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkey.errors import SegkeyError

MOST_WEIGHTS = 20_000_000  # of the new layer
CENTRE = 0.5  # of pixels in 0 … 1, which every key leaves where it is
SCALE = 128 / 255  # makes centred bytes multiples of 1/256, which bfloat16 and float16 hold exactly


@dataclass(frozen=True)
class Axis:
    """A convolution along one axis, and how it looks from blocks of ``block`` pixels.

    Attributes:
        kernel, stride, padding, dilation: of the original convolution.
        block: M, a multiple of the stride.
        whole: the new kernel covers whole blocks, as any of their values may be any other; if
            not, only those pixels that the original kernel reaches.
    """

    kernel: int
    stride: int
    padding: int
    dilation: int
    block: int
    whole: bool

    @property
    def phases(self) -> int:
        """Outputs per block, M/s."""
        return self.block // self.stride

    @property
    def _last(self) -> int:
        """The last pixel that a block's outputs reach, counted from its first one; at least 0."""
        last = self.block - self.stride + (self.kernel - 1) * self.dilation - self.padding
        return max(0, last)

    @property
    def first(self) -> int:
        """The first pixel of the new kernel, counted from the first one of the block; ≤ 0."""
        return -self.padding // self.block * self.block if self.whole else -self.padding

    @property
    def size(self) -> int:
        """Of the new kernel."""
        last = (self._last // self.block + 1) * self.block - 1 if self.whole else self._last
        return last - self.first + 1

    def taps(self, phase: int) -> slice:
        """Where the original kernel lies in the new one, for one of a block's outputs."""
        start = phase * self.stride - self.padding - self.first
        return slice(start, start + (self.kernel - 1) * self.dilation + 1, self.dilation)

    def outputs(self, pixels: int) -> int:
        """How many outputs the original convolution has."""
        reach = (self.kernel - 1) * self.dilation + 1
        return (pixels + 2 * self.padding - reach) // self.stride + 1

    def pads(self, pixels: int) -> tuple[int, int]:
        """Pixels to pad before and after, so that there are blocks for all outputs."""
        blocks = -(-self.outputs(pixels) * self.stride // self.block)
        return -self.first, (blocks - 1) * self.block + self.first + self.size - pixels

    @property
    def steps(self) -> list[int]:
        """For each tap, how many strides before its output it reads, in an image of many strides.

        Taps with the same number are in the image or outside of it together; 0 for all that are
        never outside.
        """
        taps = range(self.kernel)
        read = [-((tap * self.dilation - self.padding) // self.stride) for tap in taps]
        return [0 if self._more <= step <= 0 else step for step in read]

    @property
    def _more(self) -> int:
        """How many more outputs there are than strides in the image."""
        return (2 * self.padding - (self.kernel - 1) * self.dilation - 1) // self.stride + 1

    @property
    def groups(self) -> list[int]:
        """The different `steps`, those above or left of the image first."""
        return sorted(set(self.steps), reverse=True)

    @property
    def never_lost(self) -> slice:
        """The place in `groups` of the taps that are never outside of the image, if any are."""
        place = self.groups.index(0) if self._more <= 0 and 0 in self.groups else len(self.groups)
        return slice(place, place + 1)

    def inside(self, pixels: int, like: Tensor) -> Tensor:
        """Which groups of taps are in the image: 0 or 1, float (outputs, groups)."""
        output = torch.arange(self.outputs(pixels), device=like.device)[:, None]
        read = output - torch.tensor(self.groups, device=like.device)
        return ((read >= 0) & (read < pixels // self.stride)).to(like.dtype)

    def grouping(self, like: Tensor) -> Tensor:
        """Which taps belong to which group: 0 or 1, float (taps, groups)."""
        steps = torch.tensor(self.steps, device=like.device)[:, None]
        return (steps == torch.tensor(self.groups, device=like.device)).to(like.dtype)


def axes_of(convolution: nn.Conv2d, block: int, whole: bool) -> tuple[Axis, Axis]:
    """A convolution along both axes.

    Raises:
        SegkeyError: padding other than zeros, a block size that is no multiple of the stride, or
            more than `MOST_WEIGHTS` weights.
    """
    axes = _axes(convolution, block, whole)
    if any(block % axis.stride for axis in axes):
        raise SegkeyError(
            f"blocks of {block} pixels do not fit the first convolution, whose stride is "
            f"{_both([axis.stride for axis in axes])}",
            f"block sizes that fit: {_fitting(convolution, whole)}",
        )
    if (count := _weights(convolution, axes)) > MOST_WEIGHTS:
        raise SegkeyError(
            f"with blocks of {block} pixels the first layer would have {count:,} weights; at most "
            f"{MOST_WEIGHTS:,} are possible",
            f"block sizes that fit: {_fitting(convolution, whole)}",
        )
    return axes


def _axes(convolution: nn.Conv2d, block: int, whole: bool) -> tuple[Axis, Axis]:
    """`axes_of`, unchecked."""
    kernel, stride, dilation = convolution.kernel_size, convolution.stride, convolution.dilation
    of = zip(kernel, stride, _padding_of(convolution), dilation, strict=True)
    return tuple(Axis(*each, block, whole) for each in of)


def _padding_of(convolution: nn.Conv2d) -> tuple[int, ...]:
    """Zeros on each side; in numbers, where torch calls them ``valid`` or ``same``."""
    if convolution.padding_mode != "zeros":
        raise SegkeyError(
            f"the first convolution pads with '{convolution.padding_mode}', which cannot be locked",
            "take a network whose first convolution pads with zeros",
        )
    if convolution.padding == "valid":
        return (0,) * len(convolution.kernel_size)
    if not isinstance(convolution.padding, str):
        return convolution.padding
    pairs = zip(convolution.kernel_size, convolution.dilation, strict=True)
    total = [(kernel - 1) * dilation for kernel, dilation in pairs]
    if any(each % 2 for each in total):
        raise SegkeyError(
            "the first convolution pads one side more than the other, which cannot be locked",
            "take a network whose first convolution has an odd kernel",
        )
    return tuple(each // 2 for each in total)


def _weights(convolution: nn.Conv2d, axes: tuple[Axis, Axis]) -> int:
    rows, columns = axes
    filters = convolution.out_channels * rows.phases * columns.phases
    return filters * convolution.in_channels * rows.size * columns.size


def _fitting(convolution: nn.Conv2d, whole: bool) -> str:
    """Block sizes that fit a convolution, for messages: powers of two, if any."""
    fitting = [
        block
        for block in (2**power for power in range(13))
        if not any(block % stride for stride in convolution.stride)
        and _weights(convolution, _axes(convolution, block, whole)) <= MOST_WEIGHTS
    ]
    return ", ".join(map(str, fitting)) or f"multiples of {_both(convolution.stride)}"


def _both(values: list[int] | tuple[int, ...]) -> str:
    return "x".join(map(str, dict.fromkeys(values)))


class LockedConv(nn.Conv2d):
    """A convolution over blocks that gives what another one gives over pixels.

    Its input is centred pixels, (pixels − `CENTRE`) / `SCALE`.

    Args:
        original: the convolution whose place it takes; gives shapes, dtype and device.
        block: M.
        whole: the kernel covers whole blocks.

    Attributes:
        weight: float (filters · phases, C, `Axis.size`, `Axis.size`), phases row by row.
        offset: float (filters,), added to each output.
        border: float (filters, groups of rows, groups of columns): what each group of taps takes
            off at the places where it lies outside of the image.
        geometry: int64 (2, 6), the fields of both axes, so that a weights file alone tells them.

    Raises:
        SegkeyError: as `axes_of`.
    """

    offset: Tensor
    border: Tensor
    geometry: Tensor

    def __init__(self, original: nn.Conv2d, block: int, whole: bool):
        axes = axes_of(original, block, whole)
        like, filters = original.weight, original.out_channels
        rows, columns = axes
        super().__init__(1, 1, 1)  # sizes follow; random weights of theirs would be drawn in vain
        self.rows, self.columns, self.filters = rows, columns, filters
        self.in_channels, self.out_channels = (
            original.in_channels,
            filters * rows.phases * columns.phases,
        )
        self.kernel_size, self.stride = (rows.size, columns.size), (block, block)
        self.bias = None
        self.weight = nn.Parameter(
            like.new_zeros(self.out_channels, self.in_channels, *self.kernel_size)
        )
        self.offset = nn.Parameter(like.new_zeros(filters))
        sums = like.new_zeros(filters, len(rows.groups), len(columns.groups))
        self.register_buffer("border", sums)
        fields = [list(vars(axis).values()) for axis in axes]
        self.register_buffer("geometry", torch.tensor(fields, dtype=torch.int64))

    def forward(self, centred: Tensor) -> Tensor:
        """float (N, C, H, W), sides multiples of M, to what the original gives, (N, filters, …)."""
        height, width = centred.shape[-2:]
        top, bottom = self.rows.pads(height)
        left, right = self.columns.pads(width)
        padded = F.pad(centred, (left, right, top, bottom))
        out = F.conv2d(padded, self.weight, stride=self.stride)
        out = self._in_place(out)[..., : self.rows.outputs(height), : self.columns.outputs(width)]
        return out + self.constant(height, width).to(out.dtype)

    def _in_place(self, out: Tensor) -> Tensor:
        """(N, filters · phases, blocks, blocks) to (N, filters, outputs, outputs)."""
        p, q = self.rows.phases, self.columns.phases
        if p == q:
            return F.pixel_shuffle(out, p)
        n, _, rows, columns = out.shape
        out = out.view(n, self.filters, p, q, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return out.reshape(n, self.filters, rows * p, columns * q)

    def constant(self, height: int, width: int) -> Tensor:
        """What is added at each output of an image, float (filters, outputs, outputs)."""
        rows = self.rows.inside(height, self.border)
        columns = self.columns.inside(width, self.border)
        with torch.autocast(self.border.device.type, enabled=False):  # it would round to bfloat16
            above_or_below = (1 - rows) @ self.border.sum(-1, keepdim=True)
            beside = rows @ self.border @ (1 - columns).T
        return self.offset[:, None, None] - (above_or_below + beside)

    def over_blocks(self) -> Tensor:
        """The weight over whole blocks: float (filters · phases, C, n·M, n·M).

        Of an encrypted block and its neighbours; zeros where the kernel has been cut out.
        """
        pads = []
        for axis in (self.columns, self.rows):
            whole = Axis(*(list(vars(axis).values())[:-1] + [True]))
            before = axis.first - whole.first
            pads += [before, whole.size - before - axis.size]
        return F.pad(self.weight, pads)

    def extra_repr(self) -> str:
        """What it replaces; shows no secret."""
        return f"{self.in_channels}, {self.filters}, rows={self.rows}, columns={self.columns}"


def put_in_place(network: nn.Module, path: str, block: int, whole: bool) -> LockedConv:
    """Replace the first convolution of a `segkey.model.networks.Segmenter` by a `LockedConv`.

    Its weights are zeros, until those of a locked model are loaded.

    Args:
        network: its ``mean`` and ``std`` are changed, so that the new layer sees centred pixels.
        path: of the convolution.
        block: M.
        whole: the kernel covers whole blocks.

    Raises:
        SegkeyError: no convolution there, or one that cannot be locked.
    """
    parent, _, name = path.rpartition(".")
    try:
        original = network.get_submodule(path)
    except AttributeError:
        original = None
    if not isinstance(original, nn.Conv2d):
        raise SegkeyError(
            f"the network has no convolution '{path}' that a lock could be in",
            "restore the run from a backup, or lock the original again",
        )
    locked = LockedConv(original, block, whole)
    setattr(network.get_submodule(parent), name, locked)
    network.mean, network.std = (
        torch.full_like(network.mean, CENTRE),
        torch.full_like(network.std, SCALE),
    )
    return locked
