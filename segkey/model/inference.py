"""Networks as evaluation, attacks and prediction run them: the same answers in less time.

Batch normalisation is folded into the convolutions, and on devices that compute in bfloat16 their
weights are rounded once instead of whenever autocast needs them. Scores differ as two roundings of
bfloat16 do, and never under ``--precise``, which takes the network as it is.
"""

import copy

import torch
from torch import nn

from segkey.model import batch_norm_folding
from segkey.model.cpu_convolutions import DepthwiseConv2d, PatientConv2d
from segkey.model.locked_conv import LockedConv
from segkey.model.networks import Segmenter
from segkey.system import devices

# Layers that only use their weights in a product, which autocast rounds anyway.
_PRODUCTS = tuple(
    layer.forward
    for layer in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, DepthwiseConv2d, PatientConv2d)
)
_SIDE = 64  # pixels of the image that our own networks and torchvision's are tried on


def for_inference(
    network: Segmenter, device: torch.device, size: tuple[int, int], precise: bool = False
) -> Segmenter:
    """A copy of a network that gives the same logits sooner, under `devices.mixed_precision`.

    Args:
        network: trained; it is not changed, as attacks look into it and fine-tune it.
        device: where the copy is wanted.
        size: (H, W) that the network takes; some take no other.
        precise: float32, and nothing is folded: the very network.

    Returns:
        The copy, in evaluation mode, channels last.
    """
    if precise:
        return network.eval()
    # On the CPU: convolutions of GPUs round to TF32, so that no comparison would be exact.
    made = copy.deepcopy(network).cpu().eval()
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(1, network.channels, *_smallest(network, size), generator=generator)
    made = batch_norm_folding.fold_batchnorm(made, example)
    if devices.computes_in(device) == "bfloat16":
        _round_weights(made)
    return made.to(device, memory_format=torch.channels_last)


def _smallest(network: Segmenter, size: tuple[int, int]) -> tuple[int, int]:
    """A small image that a network takes; networks of other packages may take one size only."""
    locked = any(isinstance(module, LockedConv) for module in network.modules())
    return size if locked or network.multiple > 1 else (_SIDE, _SIDE)


def _round_weights(network: nn.Module) -> None:
    """Weights of products to bfloat16, in place; autocast goes on deciding about all others."""
    for module in network.modules():
        if type(module).forward in _PRODUCTS:
            module.to(torch.bfloat16)
