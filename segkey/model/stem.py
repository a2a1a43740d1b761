"""The stem of a network: the first convolution that sees the image, and its normalisation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segkey.errors import SegkeyError
from segkey.model.networks import Segmenter

_SIDE = 64  # pixels of the image that a network is tried on


@dataclass(frozen=True)
class Stem:
    """The stem of a network.

    Attributes:
        path: of the convolution, as `nn.Module.get_submodule` takes it.
        convolution: its weight is float (filters, C, k, k).
        normalisation: the batch normalisation that follows at once; None if there is none.
    """

    path: str
    convolution: nn.Conv2d
    normalisation: nn.BatchNorm2d | None


def find_stem(model: Segmenter) -> Stem:
    """Find the stem by running a small image through the network.

    Raises:
        SegkeyError: no convolution sees the normalised image itself.
    """
    paths = {module: path for path, module in model.named_modules()}
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        seen.append((module, inputs[0], output))

    hooks = [
        module.register_forward_hook(note)
        for module in paths
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    training = model.training
    try:
        like = model.mean
        image = torch.rand(1, like.shape[1], _SIDE, _SIDE, device=like.device, dtype=like.dtype)
        with torch.inference_mode():
            model.eval()(image)
            normalised = (image - model.mean) / model.std
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    for place, (module, given, output) in enumerate(seen):
        if isinstance(module, nn.Conv2d) and torch.equal(given, normalised):
            return Stem(paths[module], module, _normalisation(seen[place + 1 :], output))
    raise SegkeyError(
        "no convolution of this network sees the image itself",
        "take a network that begins with a convolution",
    )


def _normalisation(later: list, output: Tensor) -> nn.BatchNorm2d | None:
    """The batch normalisation whose input is the convolution's output itself."""
    for module, given, _ in later:
        if given is output and isinstance(module, nn.BatchNorm2d):
            return module
    return None
