"""The stem of a network is found by what it sees."""

import pytest
import torch
from torch import nn

from segkey.errors import SegkeyError
from segkey.model.networks import Segmenter
from segkey.model.stem import find_stem


class Later(nn.Module):
    """A network whose first registered convolution is not the first that is called."""

    def __init__(self, first: nn.Module):
        super().__init__()
        self.head = nn.Conv2d(8, 2, 1)
        self.first = first
        self.norm = nn.BatchNorm2d(8)

    def forward(self, pixels):
        return {"out": self.head(self.norm(self.first(pixels)))}


def test_the_stem_of_a_resnet():
    stem = find_stem(Segmenter("resnet14", 3))
    assert stem.path == "fcn.backbone.conv1"
    assert stem.convolution.weight.shape == (64, 3, 7, 7)
    assert stem.normalisation.running_mean.shape == (64,)


def test_order_of_calls_decides_not_order_of_definition():
    model = Segmenter("resnet14", 3)
    model.fcn = Later(nn.Conv2d(3, 8, 3))
    stem = find_stem(model)
    assert stem.path == "fcn.first"
    assert stem.normalisation is model.fcn.norm


def test_a_normalisation_after_an_activation_is_not_the_stems():
    model = Segmenter("resnet14", 3)
    model.fcn = Later(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    assert find_stem(model).normalisation is None


def test_a_network_whose_convolution_sees_something_else_has_no_stem():
    model = Segmenter("resnet14", 3)
    model.fcn = Later(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 8, 3)))
    with pytest.raises(SegkeyError, match="no convolution of this network sees the image itself"):
        find_stem(model)


def test_the_mode_of_the_network_is_kept():
    model = Segmenter("resnet14", 3).train()
    find_stem(model)
    assert model.training
    assert torch.equal(model.fcn.backbone.bn1.running_mean, torch.zeros(64))
