"""How far the activations of some images are from the statistics that a network stores.

Every batch normalisation keeps the running mean and variance of its input in training, that is,
under the right key. Images encrypted with another key miss them, in every layer.

In a network whose normalisations were folded into convolutions, the outputs of these have a mean
of about 0 and a variance of about 1: the offset and scale of a normalisation begin there in
training, and stay near.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from segkey.attacks.stem_moments import LEAST_VARIANCE, gaussian_divergence
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.model.batches import as_pixels
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
            If the network has none with statistics, convolutions with a bias take their place, as
            they are after folding; but not the last one, which gives the logits.
        first: the weight of the first one; that of others is 1.
    """

    def __init__(self, model: Segmenter, depth: int | None = None, first: float = 1.0):
        self.model, self.depth, self.first = model, depth, first
        self.folded = not any(map(has_statistics, model.modules()))

    def divergence(self, pixels: Tensor) -> Tensor:
        """Divergence of stored Gaussians from those of the images, in nats per channel, summed.

        Args:
            pixels: float (N, C, H, W), encrypted images divided by the method's largest value; may
                need a gradient.

        Returns:
            A scalar, the weighted sum over layers of the mean over their channels.
        """
        losses: list[Tensor] = []

        def look(given: Tensor, mean: Tensor, variance: Tensor, eps: float) -> None:
            given = given.float()
            found = given.mean((0, 2, 3)), given.var((0, 2, 3), correction=0)
            losses.append(gaussian_divergence(*found, mean, variance, eps).mean())
            if len(losses) == self.depth:
                raise _DeepEnough

        hooks = self._after_convolutions(look) if self.folded else self._before_norms(look)
        try:
            self.model(pixels)
        except _DeepEnough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        losses = losses[:-1] if self.folded and len(losses) != self.depth else losses
        if not losses:
            return pixels.new_tensor(math.nan)
        return torch.stack(losses).sum() + (self.first - 1) * losses[0]

    def _before_norms(self, look: Callable) -> list:
        """Let ``look`` see the input of every normalisation, beside what it stores."""

        def see(module: nn.Module, inputs: tuple) -> None:
            stored = module.running_mean.float(), module.running_var.float()
            look(inputs[0], *stored, module.eps)

        norms = filter(has_statistics, self.model.modules())
        return [norm.register_forward_pre_hook(see) for norm in norms]

    def _after_convolutions(self, look: Callable) -> list:
        """Let ``look`` see the output of every convolution with a bias, beside what is usual."""

        def see(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            stored = output.new_zeros(output.shape[1]), output.new_ones(output.shape[1])
            look(output, *stored, LEAST_VARIANCE)

        return [
            module.register_forward_hook(see)
            for module in self.model.modules()
            if isinstance(module, nn.Conv2d) and module.bias is not None
        ]


_JUDGED = 16  # images that all layers look at, fewer if there are more candidates than
_FEW_CANDIDATES = 24


class Judge:
    """Compares ciphers by the statistics of all layers, on the same images.

    Args:
        target: the model under attack.
        images: plain ones of the attacker's, uint8 (N, C, H, W).
        candidates: how many ciphers will be compared; the more, the fewer images are looked at.
    """

    def __init__(self, target: Target, images: Tensor, candidates: int = 1):
        many = max(1, candidates // _FEW_CANDIDATES)
        self._target, self._images = target, images[: max(4, _JUDGED // many)]
        self._layers = LayerStatistics(target.model)

    @torch.inference_mode()
    def divergence(self, cipher: Cipher) -> float:
        """`LayerStatistics.divergence` under a cipher; NaN if there is nothing to compare with."""
        self._target.spend(len(self._images))
        pixels = as_pixels(cipher.encrypt(self._images), self._target.cipher.max_value)
        return float(self._layers.divergence(pixels))
