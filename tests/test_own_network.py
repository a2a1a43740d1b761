"""The example of an own network and training loop, with few images."""

import runpy
from pathlib import Path

import pytest
import torch

from segkey.model import network_registry, networks

EXAMPLE = Path(__file__).parents[1] / "examples/own_network.py"


def test_the_example_learns_under_its_key_and_registers_its_network(tmp_path, monkeypatch):
    pytest.importorskip("segmentation_models_pytorch")
    network_registry.register_all()
    monkeypatch.setattr(network_registry, "NETWORKS", dict(network_registry.NETWORKS))
    torch.manual_seed(1)
    names = runpy.run_path(str(EXAMPLE))
    found = names["main"](tmp_path, images=24, epochs=2)
    assert set(found) == {"right key", "wrong key", "no key"}
    assert all(0 < value < 1 for value in found.values())
    model = networks.build("small-unet", ["a", "b"], channels=4)
    assert model(torch.rand(2, 4, 64, 64)).shape == (2, 2, 64, 64)
