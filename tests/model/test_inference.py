"""Networks as they are scored: the same answers, the network they came from as it was."""

import pytest
import torch
from test_folding import furthest, norms, settled
from torch import nn

from segkey.crypto import ciphers
from segkey.model import inference, networks
from segkey.model.batch_norm_folding import fold_batchnorm, foldable, put_in_place
from segkey.model.lock import lock_network
from segkey.system import devices

CPU, SIZE = torch.device("cpu"), (64, 64)


@pytest.fixture(scope="module")
def network():
    return settled(networks.Segmenter("resnet14", 5))


def computing_in(monkeypatch, dtype: str) -> None:
    monkeypatch.setattr(devices, "computes_in", lambda device, precise=False: dtype)


def test_in_float32_the_logits_are_the_same_without_normalisations(monkeypatch, network):
    computing_in(monkeypatch, "float32")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = inference.for_inference(network, CPU, SIZE)
    assert norms(made) == 0 < norms(network)
    assert not made.training
    assert furthest(network, made) < 1e-5
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_in_bfloat16_weights_are_rounded_once_and_errors_are_those_of_rounding(
    monkeypatch, network
):
    computing_in(monkeypatch, "bfloat16")
    made = inference.for_inference(network, CPU, SIZE)
    products = [each for each in made.modules() if isinstance(each, nn.Conv2d)]
    assert {each.weight.dtype for each in products} == {torch.bfloat16}
    image = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            usual, quick = network(image), made(image)
    assert quick.dtype == usual.dtype == torch.bfloat16
    assert error(quick, exact) < 2 * error(usual, exact) < 0.1


def error(logits, exact) -> float:
    """Root mean square, as a fraction of the deviation of the exact logits."""
    return float((logits.float() - exact).square().mean().sqrt() / exact.std())


def test_what_autocast_leaves_in_float32_stays_so(monkeypatch):
    class Standardised(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight / self.weight.std(), self.bias)

    network = networks.Segmenter("resnet14", 5)
    network.fcn.classifier[4] = Standardised(512, 5, 1)
    network.fcn.classifier[1] = nn.GroupNorm(4, 512)
    computing_in(monkeypatch, "bfloat16")
    made = inference.for_inference(network, CPU, SIZE)
    assert {made.fcn.classifier[at].weight.dtype for at in (1, 4)} == {torch.float32}
    assert made.fcn.classifier[0].weight.dtype == torch.bfloat16


def test_precise_takes_the_network_as_it_is(network):
    assert inference.for_inference(network, CPU, SIZE, precise=True) is network


def test_a_network_of_timm_is_folded_with_its_activations(monkeypatch):
    pytest.importorskip("timm")
    network = settled(networks.Segmenter("timm:tf_efficientnet_lite0", 5))
    pairs = foldable(network)
    folded = fold_batchnorm(network)
    assert len(pairs) > 40
    assert norms(folded) == norms(network) - len(pairs)
    assert furthest(network, folded) < 1e-4
    built = networks.Segmenter("timm:tf_efficientnet_lite0", 5)
    put_in_place(built, pairs)
    built.load_state_dict(folded.state_dict())
    assert furthest(folded, built.eval()) == 0


def test_a_locked_network_stays_locked_and_is_tried_on_whole_blocks(monkeypatch, key):
    network = settled(networks.Segmenter("thin", 3))
    cipher = ciphers.from_key("np", key, 12)
    locked = lock_network(network, cipher)
    computing_in(monkeypatch, "float32")
    made = inference.for_inference(locked, CPU, (48, 48))
    assert norms(made) == 0 < norms(locked)
    assert furthest(locked, made, (2, 3, 48, 48)) < 1e-4
