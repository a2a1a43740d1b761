"""How far the activations of some images are from the statistics that a network stores.

Every batch normalisation keeps the running mean and variance of its input in training, that is,
under the right key. Images encrypted with another key miss them, in every layer.
"""

import math

import torch
from torch import Tensor, nn

from segkey.attacks.stem_moments import gaussian_divergence
from segkey.model.networks import Segmenter


def has_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation that stores running statistics."""
    return (
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and module.running_var is not None
    )


class _DeepEnough(Exception):
    """Ends a forward pass after the last layer that is looked at."""


class LayerStatistics:
    """The divergence of the activations of images from what a network stores.

    Args:
        model: in evaluation mode.
        depth: look at so many normalisations, in the order in which they are used; all, if None.
    """

    def __init__(self, model: Segmenter, depth: int | None = None):
        self.model, self.depth = model, depth

    def divergence(self, pixels: Tensor) -> Tensor:
        """Divergence of stored Gaussians from those of the images, in nats per channel, summed.

        Args:
            pixels: float (N, C, H, W), encrypted images divided by the method's largest value; may
                need a gradient.

        Returns:
            A scalar, the sum over layers of the mean over their channels.
        """
        losses: list[Tensor] = []

        def look(module: nn.Module, inputs: tuple) -> None:
            given = inputs[0].float()
            mean = given.mean((0, 2, 3))
            variance = given.var((0, 2, 3), correction=0).clamp(min=1e-8)
            stored = module.running_mean.float(), module.running_var.float().clamp(min=1e-8)
            losses.append(gaussian_divergence(mean, variance, *stored).mean())
            if len(losses) == self.depth:
                raise _DeepEnough

        hooks = [
            module.register_forward_pre_hook(look)
            for module in self.model.modules()
            if has_statistics(module)
        ]
        try:
            self.model(pixels)
        except _DeepEnough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(losses).sum() if losses else pixels.new_tensor(math.nan)
