"""Convolutions that train quickly on CPUs: the same numbers, by another way."""

import copy

import pytest
import torch
from torch import nn

from segkey.model.cpu_convolutions import DepthwiseConv2d, PatientConv2d, quicken


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


@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2, "bias": False},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False},
        {"kernel_size": (3, 5), "padding": (1, 2), "stride": (2, 1)},
        {"kernel_size": (1, 3), "padding": (0, 4), "dilation": (1, 4)},
        {"kernel_size": 7, "padding": 3, "stride": 2, "bias": False},
        {"kernel_size": 4, "stride": 4},  # a patch embedding
        {"kernel_size": 2, "stride": 3},  # which skips pixels
    ],
)
@pytest.mark.parametrize("size", [(12, 12), (13, 9)])
def test_patient_gradients_are_those_of_float32_up_to_bfloat16(how, size):
    torch.manual_seed(2)
    conv = nn.Conv2d(5, 4, **how)
    # Whole numbers that bfloat16 holds, so that only sums are rounded.
    inputs = torch.randint(-3, 4, (2, 5, *size)).float()
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-2, 3, conv.weight.shape))
    results = []
    for patient in (False, True):
        model = quicken(nn.Sequential(copy.deepcopy(conv)), patient)
        pixels = inputs.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=patient):
            out = model(pixels)
        signs = (torch.arange(out.numel()) % 3 - 1.0).view_as(out)
        out.backward(signs.to(out.dtype))
        results.append([out, pixels.grad, *(p.grad for p in model.parameters())])
    assert type(model[0]) is PatientConv2d
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other.float(), one, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("unlike", [{"padding": "same"}, {"padding_mode": "reflect"}])
def test_paddings_that_are_no_zeros_stay_as_they_are(unlike):
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 4, 3, **{"padding": 1, **unlike})
    images, results = torch.randn(2, 3, 8, 8), []
    for patient in (False, True):
        model = quicken(nn.Sequential(copy.deepcopy(conv)), patient)
        with torch.autocast("cpu", torch.bfloat16):
            model(images).float().sum().backward()
        results.append(model[0].weight.grad)
    assert torch.equal(*results)


def test_patience_follows_what_the_machine_was_doing(monkeypatch):
    for busy, kind in ((False, nn.Conv2d), (True, PatientConv2d)):
        monkeypatch.setattr("segkey.model.cpu_convolutions.was_busy", lambda busy=busy: busy)
        assert type(quicken(nn.Sequential(nn.Conv2d(3, 4, 3)))[0]) is kind


def test_others_are_left_alone():
    class Own(nn.Conv2d):
        pass

    convs = [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(1, 1, 3), Own(4, 4, 3)]
    kinds = [type(conv) for conv in quicken(nn.Sequential(*convs), patient=True)]
    assert kinds == [PatientConv2d, nn.Conv2d, PatientConv2d, Own]
    assert list(quicken(nn.Conv2d(4, 4, 3, groups=4)).state_dict()) == ["weight", "bias"]
