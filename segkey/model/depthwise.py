"""Depthwise convolutions whose gradients are quick on a CPU.

Two things make them slow in PyTorch 2.14 on CPUs with bfloat16: their gradients have no fast
bfloat16 kernels, and none at all if there is dilation. So they compute in float32, and a
convolution with dilation d as what it is, d² convolutions without, one for each phase of rows and
columns modulo d, which are moved into the batch ("space to batch"). ``timm:tf_efficientnet_lite0``
trains 1.4 to 1.7 times as fast (`examples/results/speed.md`). Names and shapes of weights stay.
"""

import torch
from torch import Tensor, nn


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


def quicken(model: nn.Module) -> nn.Module:
    """Give the depthwise convolutions of a model quick gradients, in place; returns the model.

    Subclasses of `nn.Conv2d` stay as they are: what they do is not known.
    """
    for conv in model.modules():
        if type(conv) is nn.Conv2d and 1 < conv.groups == conv.in_channels == conv.out_channels:
            conv.__class__ = DepthwiseConv2d
    return model
