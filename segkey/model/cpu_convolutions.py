"""Convolutions whose gradients are quick on a CPU, also on one that others use.

PyTorch 2.14 leaves three gaps on CPUs with bfloat16. What fills them computes the same:

- Gradients of depthwise convolutions have no fast bfloat16 kernels. `DepthwiseConv2d` computes in
  float32.
- They have none at all if there is dilation. A convolution with dilation d is d² convolutions
  without, one for each phase of rows and columns modulo d: they are moved into the batch ("space to
  batch").
- oneDNN's gradient of the weights in bfloat16 lets its threads spin at a barrier. If another
  process has the core of one of them, each layer waits for a time slice (some 70 ms instead of 1).
  On a machine that was busy at the start, `PatientConv2d` computes this gradient as a product of
  matrices, which has no barrier, but copies each pixel for each filter tap.

Ratios: `examples/results/speed.md`. Names and shapes of weights stay.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segkey.system.threads import was_busy


def quicken(model: nn.Module, patient: bool | None = None) -> nn.Module:
    """Give the convolutions of a model quick gradients, in place; returns the model.

    Subclasses of `nn.Conv2d` stay as they are: what they do is not known.

    Args:
        model: any.
        patient: expect other processes to keep the cores; if not given, as they did at the start.
    """
    patient = was_busy() if patient is None else patient
    for conv in model.modules():
        if type(conv) is not nn.Conv2d:
            continue
        if 1 < conv.groups == conv.in_channels == conv.out_channels:
            conv.__class__ = DepthwiseConv2d
        elif conv.groups == 1 and patient:
            conv.__class__ = PatientConv2d
    return model


class PatientConv2d(nn.Conv2d):
    """An `nn.Conv2d` that meets no barrier in reduced precision training on CPUs."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Floats (N, C, H, W) to floats (N, C', H', W')."""
        plain = isinstance(self.padding, tuple) and self.padding_mode == "zeros"
        reduced = inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not (self.training and reduced and plain):
            return super().forward(inputs)
        dtype = torch.get_autocast_dtype("cpu")
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast("cpu", enabled=False):
            return _Convolution.apply(
                inputs.to(dtype, memory_format=torch.channels_last),
                self.weight.to(dtype),
                bias,
                (self.stride, self.padding, self.dilation),
            )


class _Convolution(torch.autograd.Function):
    """A convolution whose gradient of the weights is a product of matrices."""

    @staticmethod
    def forward(ctx, inputs, weight, bias, how):
        ctx.save_for_backward(inputs, weight)
        ctx.how, ctx.has_bias = how, bias is not None
        return F.conv2d(inputs, weight, bias, *how)

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_inputs = of_weight = None
        if ctx.needs_input_grad[0]:
            of_inputs = torch.ops.aten.convolution_backward(
                gradient, inputs, weight, None, *ctx.how, False, [0, 0], 1, [True, False, False]
            )[0]
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(gradient, inputs, weight.shape[-2:], *ctx.how)
        of_bias = gradient.sum((0, 2, 3)) if ctx.has_bias else None
        return of_inputs, of_weight, of_bias, None


def _gradient_of_weight(
    gradient: Tensor,
    inputs: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Gradients at the outputs, times the windows of inputs that these were made of.

    Returns:
        (C', C, kH, kW).
    """
    height, width = gradient.shape[-2:]
    rows = F.pad(inputs, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1)
    taps = [
        rows[
            :,
            i * dilation[0] : i * dilation[0] + stride[0] * (height - 1) + 1 : stride[0],
            j * dilation[1] : j * dilation[1] + stride[1] * (width - 1) + 1 : stride[1],
        ]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    windows = torch.cat(taps, -1).reshape(-1, len(taps) * inputs.shape[1])
    outputs = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])
    product = outputs.t() @ windows
    return product.view(-1, *kernel, inputs.shape[1]).permute(0, 3, 1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """An `nn.Conv2d` with one filter per channel; what it does differently, it does in training."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Floats (N, C, H, W) to floats (N, C, H', W'), float32 instead of bfloat16."""
        if not (self.training and inputs.device.type == "cpu"):
            return super().forward(inputs)
        if inputs.dtype == torch.bfloat16:
            inputs = inputs.float()
        with torch.autocast("cpu", enabled=False):
            if self._keeps_size() and not any(n % self.dilation[0] for n in inputs.shape[-2:]):
                return self._by_phases(inputs)
            return super().forward(inputs)

    def _keeps_size(self) -> bool:
        """Dilated, with a padding that leaves height and width as they are."""
        d = self.dilation[0]
        return (
            d > 1
            and self.dilation == (d, d)
            and self.stride == (1, 1)
            and all(size % 2 for size in self.kernel_size)
            and self.padding == tuple(d * (size // 2) for size in self.kernel_size)
            and self.padding_mode == "zeros"
        )

    def _by_phases(self, inputs: Tensor) -> Tensor:
        n, c, height, width = inputs.shape
        d = self.dilation[0]
        h, w = height // d, width // d
        # Channels come last throughout, which the fast kernels need.
        rows = inputs.permute(0, 2, 3, 1).reshape(n, h, d, w, d, c)
        phases = rows.permute(0, 2, 4, 1, 3, 5).reshape(n * d * d, h, w, c).permute(0, 3, 1, 2)
        padding = [size // 2 for size in self.kernel_size]
        out = nn.functional.conv2d(phases, self.weight, self.bias, 1, padding, 1, self.groups)
        rows = out.permute(0, 2, 3, 1).reshape(n, d, d, h, w, c).permute(0, 3, 1, 4, 2, 5)
        return rows.reshape(n, height, width, c).permute(0, 3, 1, 2)
