"""Folding batch normalisation: the same outputs, and whatever cannot be folded stays."""

import pytest
import torch
from torch import nn

from segkey.crypto import ciphers
from segkey.model import networks
from segkey.model.batch_norm_folding import fold_batchnorm, foldable, put_in_place
from segkey.model.lock import lock_network


def settled(model: nn.Module, shape=(4, 3, 64, 64)) -> nn.Module:
    """A network whose normalisations have seen images, so that their statistics are of some."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2, generator=generator)
            module.bias.data.uniform_(-1, 1, generator=generator)
    model.train()
    with torch.no_grad():
        model(torch.rand(*shape, generator=generator))
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def furthest(model: nn.Module, other: nn.Module, shape=(2, 3, 64, 64)) -> float:
    image = torch.rand(*shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(image)
        return float((other(image) - expected).abs().max() / expected.abs().max())


class Shared(nn.Module):
    """Its first convolution is used twice; the second one's output past its normalisation."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.after_twice = nn.BatchNorm2d(3)
        self.past = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.after_past = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)
        self.after_last = nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.after_twice(self.twice(self.twice(x)))
        y = self.past(x)
        return self.after_last(self.last(self.after_past(y) + y.relu()))


def test_a_network_of_ours_predicts_the_same_without_any_statistics():
    model = settled(networks.Segmenter("resnet14", 5))
    folded = fold_batchnorm(model)
    assert norms(model) > 10
    assert norms(folded) == 0
    assert len(foldable(model)) == norms(model)
    assert foldable(folded) == []
    assert fold_batchnorm(folded) is folded
    assert not any("running" in name for name in folded.state_dict())
    assert furthest(model, folded) < 1e-5


def test_the_model_given_is_not_changed():
    model = settled(networks.Segmenter("resnet14", 5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold_batchnorm(model.train())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_what_is_used_elsewhere_too_is_not_folded():
    model = settled(Shared())
    folded = fold_batchnorm(model)
    assert isinstance(folded.after_twice, nn.BatchNorm2d)
    assert isinstance(folded.after_past, nn.BatchNorm2d)
    assert isinstance(folded.after_last, nn.Identity)
    assert furthest(model, folded) < 1e-5


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 6, 3, stride=2, dilation=2, bias=False),
        nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 6, 3, stride=2),
    ],
    ids=["strided", "grouped", "transposed"],
)
def test_convolutions_of_all_kinds(convolution):
    shape = (2, 4, 32, 32)
    model = settled(nn.Sequential(convolution, nn.BatchNorm2d(6), nn.ReLU()), shape)
    folded = fold_batchnorm(model, torch.rand(1, *shape[1:]))
    assert isinstance(folded[1], nn.Identity)
    assert furthest(model, folded, shape) < 1e-5


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)),
    ],
    ids=["batch statistics", "not next", "grouped transposed", "no batch norm", "no convolution"],
)
def test_what_cannot_be_folded_stays(model):
    assert foldable(model) == []
    assert fold_batchnorm(model) is model


def test_a_network_in_bfloat16_and_with_named_outputs():
    class Named(nn.Sequential):
        def forward(self, x):
            return {"out": super().forward(x), "none": None}

    model = Named(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(torch.bfloat16)
    folded = fold_batchnorm(model)
    assert isinstance(folded[1], nn.Identity)
    assert folded[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["np", "shf+np"])
def test_a_locked_network_with_its_locked_layer(key, method):
    network = settled(networks.Segmenter("resnet14", 5))
    locked = lock_network(network, ciphers.from_key(method, key, 4))
    folded = fold_batchnorm(locked)
    assert norms(folded) == 0
    assert furthest(locked, folded) < 1e-4
    built = lock_network(network, ciphers.from_key(method, key, 4))
    put_in_place(built, foldable(locked))
    built.load_state_dict(folded.state_dict())
    assert furthest(folded, built.eval()) == 0


class Doubled(nn.Conv2d):
    """Its output is not that of its weight alone."""

    def forward(self, x):
        return torch.cat([super().forward(x)] * 2, 1)


def test_a_convolution_with_a_forward_of_its_own_stays():
    model = nn.Sequential(Doubled(3, 4, 3), nn.BatchNorm2d(8))
    assert foldable(model) == []
    assert fold_batchnorm(model) is model
