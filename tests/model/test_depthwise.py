"""Depthwise convolutions: the same numbers, by another way."""

import copy

import pytest
import torch
from torch import nn

from segkey.model.depthwise import DepthwiseConv2d, quicken


def _both(conv: nn.Conv2d, size: tuple[int, int]) -> list[list[torch.Tensor]]:
    """Outputs and gradients of a convolution, without and with quick gradients."""
    torch.manual_seed(1)
    inputs = torch.randn(2, conv.in_channels, *size, dtype=torch.double)
    results = []
    for model in (nn.Sequential(copy.deepcopy(conv)), quicken(nn.Sequential(conv))):
        pixels = inputs.clone().requires_grad_()
        out = model(pixels)
        (out * torch.linspace(-1, 1, out.numel(), dtype=torch.double).view_as(out)).sum().backward()
        results.append([out, pixels.grad, *(p.grad for p in model.parameters())])
    assert type(model[0]) is DepthwiseConv2d
    return results


@pytest.mark.parametrize("kernel", [3, 5, (3, 5)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(6, 12), (12, 6), (7, 6), (5, 11)])
def test_outputs_and_gradients_stay_the_same(kernel, dilation, bias, size):
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (dilation * (height // 2), dilation * (width // 2))
    conv = nn.Conv2d(
        6, 6, kernel, padding=padding, dilation=dilation, groups=6, bias=bias, dtype=torch.double
    )
    for one, other in zip(*_both(conv, size), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "unlike",
    [
        {"padding": 1},
        {"padding": 0},
        {"padding": 2, "stride": 2},
        {"padding": 2, "padding_mode": "reflect"},
        {"padding": "same"},
        {"padding": 2, "dilation": (2, 1)},
    ],
)
def test_what_has_no_phases_stays_the_same(unlike):
    conv = nn.Conv2d(4, 4, 3, **{"dilation": 2, "groups": 4, "dtype": torch.double, **unlike})
    for one, other in zip(*_both(conv, (8, 8)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_float32_in_training_under_autocast_and_the_old_way_otherwise():
    model = quicken(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4)))
    images = torch.randn(1, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.train()(images.bfloat16()).dtype == torch.float32
        assert model.eval()(images).dtype == torch.bfloat16


def test_others_are_left_alone():
    class Own(nn.Conv2d):
        pass

    convs = [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(1, 1, 3), Own(4, 4, 3)]
    kinds = [type(conv) for conv in quicken(nn.Sequential(*convs))]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.Conv2d, Own]
    assert list(quicken(nn.Conv2d(4, 4, 3, groups=4)).state_dict()) == ["weight", "bias"]
