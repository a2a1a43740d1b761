"""The public weights that a model was fine-tuned from show what a key did to its first layer."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from making import CPU, reconfigure
from safetensors.torch import save_file
from torch import nn

from segkey import Key, SegkeyError, attacks
from segkey.attacks import public_twin
from segkey.attacks.cipher_parts import agreement
from segkey.crypto import ciphers
from segkey.model import locked_runs
from segkey.model.lock import lock_network
from segkey.model.networks import Segmenter
from segkey.model.runs import Run


class Patches(nn.Module):
    """A network that begins with patches."""

    def __init__(self, kernel, padding=0):
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 16, kernel, 4, padding), nn.Conv2d(16, 5, 1)

    def forward(self, pixels):
        found = self.head(self.embed(pixels).relu())
        return {"out": nn.functional.interpolate(found, size=pixels.shape[-2:])}


def network(make=None) -> Segmenter:
    torch.manual_seed(0)
    model = Segmenter("resnet14", 5).eval()
    if make:
        model.fcn = make()
    return model


def fine_tuned(public: Segmenter, path: str, by: float = 0.3) -> Segmenter:
    """A copy whose first layer has changed by a part of its spread."""
    made = network(lambda: type(public.fcn)(8)) if path == "embed" else network()
    made.fcn.load_state_dict(public.fcn.state_dict())
    weight = made.fcn.get_submodule(path).weight
    weight.data += by * weight.std() * torch.randn(weight.shape)
    return made


def guess(model: Segmenter, public: Segmenter, cipher):
    """What is found; the attack gets a cipher of another key."""
    return public_twin.matched(model, public, cipher.rekeyed(Key(bytes(32))))


@pytest.mark.parametrize("method", ["np", "shf", "shf+np"])
@pytest.mark.parametrize("block_size", [2, 8])
def test_a_locked_and_fine_tuned_model_gives_its_key(key, method, block_size):
    public, cipher = network(), ciphers.from_key(method, key, block_size)
    locked = lock_network(fine_tuned(public, "backbone.conv1"), cipher)
    assert guess(locked, public, cipher).same_as(cipher)


@pytest.mark.parametrize("method", ["np", "shf", "shf+np"])
def test_shuffled_patches_too(key, method):
    public, cipher = network(lambda: Patches(8)), ciphers.from_key(method, key, 4)
    locked = lock_network(fine_tuned(public, "embed"), cipher)
    assert guess(locked, public, cipher).same_as(cipher)


@pytest.mark.parametrize(
    ("method", "kernel", "padding"),
    [("np", 4, 0), ("shf", 4, 0), ("shf+np", 4, 0), ("shf+np", 8, 0), ("np", 8, 2)],
)
def test_a_stem_that_sees_every_position_apart_and_learned_the_key(key, method, kernel, padding):
    """What training would learn: each weight where its position has gone."""
    public, cipher = network(lambda: Patches(kernel, padding)), ciphers.from_key(method, key, 4)
    learned = network(lambda: Patches(kernel, padding))
    weight = torch.arange(learned.fcn.embed.weight.numel()).view_as(public.fcn.embed.weight) + 1
    wide = nn.functional.pad(weight, [-padding % 4, 0] * 2)
    wide = nn.functional.pad(wide, [0, -wide.shape[-1] % 4] * 2)
    part = [slice(-padding % 4, -padding % 4 + kernel)] * 2
    blocks = wide.view(16, 3, wide.shape[2] // 4, 4, -1, 4).permute(0, 2, 4, 1, 3, 5)
    flat = blocks.reshape(*blocks.shape[:3], 48)
    order = getattr(cipher, "permutation", np.arange(48))
    signs = np.where(getattr(cipher, "selected", np.zeros(48, bool)), -1, 1)
    moved = (flat[..., torch.from_numpy(order)] * torch.from_numpy(signs)).view(blocks.shape)
    moved = moved.permute(0, 3, 1, 4, 2, 5).reshape(wide.shape)
    source = torch.cat([torch.zeros(1), public.fcn.embed.weight.detach().flatten()])
    kept = moved[:, :, part[0], part[1]]
    learned.fcn.embed.weight.data = source[kept.abs()] * kept.sign()
    assert guess(learned, public, cipher).same_as(cipher)


def test_a_stem_that_sees_several_positions_is_asked_for_what_they_share(key):
    """It says the same of positions a stride apart; of NP's key that is half or more."""
    cipher, public = ciphers.from_key("np", key, 4), network()
    learned = network()
    signs = torch.from_numpy(np.where(cipher.selected, -1.0, 1.0)).view(3, 2, 2, 2, 2)
    shared = signs.mean((1, 3)).float()  # (channel, row, column) within a stride
    taps = (torch.arange(7) - 3) % 2
    learned.fcn.backbone.conv1.weight.data *= shared[:, taps][:, :, taps]
    selected = guess(learned, public, cipher).selected.reshape(3, 2, 2, 2, 2)
    assert (selected == selected[:, :1, :, :1]).all()
    assert agreement(cipher, guess(learned, public, cipher))["selected"] > 0.5


def test_other_public_weights_tell_nothing(key):
    torch.manual_seed(7)
    public, cipher = Segmenter("resnet14", 5).eval(), ciphers.from_key("np", key, 8)
    found = guess(lock_network(network(), cipher), public, cipher)
    assert 0.3 < agreement(cipher, found)["selected"] < 0.7


def test_where_it_does_not_fit(key):
    of = public_twin.why_no_match
    assert of(network(), ciphers.from_key("none", None, 1)) == "there is no key"
    assert "like values" in of(network(), ciphers.from_key("ffx", key, 4))
    assert "no order of a block's positions" in of(network(), ciphers.from_key("shf", key, 4))
    assert of(network(), ciphers.from_key("np", key, 4)) == ""
    other = network(lambda: Patches(8))
    with pytest.raises(SegkeyError, match="another shape"):
        guess(
            lock_network(network(), ciphers.from_key("np", key, 4)),
            other,
            ciphers.from_key("np", key, 4),
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["np", "shf"])
def test_the_attack_on_a_locked_run_whose_starting_weights_are_known(
    plain_run, key, attacked, tmp_path, method
):
    run = Run.open(shutil.copytree(plain_run.path, tmp_path / "plain"))
    bare = attacked(locked_runs.lock_run(run, key, method, 4, "bare"))
    assert "not fine-tuned from public" in attacks.ATTACKS["public-twin"].obstacle(bare)
    public = tmp_path / "public.safetensors"
    start = run.load_model(CPU).weights()
    start["backbone.conv1.weight"] = start["backbone.conv1.weight"] * 1.1 + 0.001
    save_file({name: each.contiguous() for name, each in start.items()}, public)
    recipe = replace(run.configuration.recipe, weights=str(public))
    reconfigure(run, recipe=recipe).save()
    target = attacked(locked_runs.lock_run(run, key, method, 4))
    (line,) = attacks.run_attacks(target, ["public-twin"]).attacks
    assert line.details["found"]
    assert line.mean_iou == target.correct().mean_iou
    public.unlink()
    assert "there are no weights at" in attacks.ATTACKS["public-twin"].obstacle(target)
