"""The weights of a locked stem give its key away: on locked models, whose truth is known."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from making import CPU
from torch import nn

from segkey import Key, SegkeyError, attacks
from segkey.attacks import stem
from segkey.attacks.cipher_parts import agreement
from segkey.attacks.locked_statistics import locked_candidates
from segkey.attacks.statistics import is_folded
from segkey.crypto import ciphers
from segkey.data import scenes
from segkey.model import locked_runs
from segkey.model.batch_norm_folding import fold_batchnorm
from segkey.model.lock import lock_network
from segkey.model.networks import Segmenter
from segkey.model.runs import Run
from segkey.model.stem import find_stem


class Beginning(nn.Module):
    """A network of one convolution, and a normalisation if asked for."""

    def __init__(self, kernel, stride, padding=0, filters=32, norm=False):
        super().__init__()
        self.embed = nn.Conv2d(3, filters, kernel, stride, padding, bias=not norm)
        self.norm = nn.BatchNorm2d(filters) if norm else nn.Identity()
        self.head = nn.Conv2d(filters, 5, 1)

    def forward(self, pixels):
        found = self.head(self.norm(self.embed(pixels)).relu())
        return {"out": nn.functional.interpolate(found, size=pixels.shape[-2:])}


def network(kernel=7, stride=2, padding=3, smooth=False, grey=False, norm=False) -> Segmenter:
    """Random filters, or smooth ones whose channels are alike; padded with grey if asked for."""
    torch.manual_seed(0)
    model = Segmenter("resnet14", 5).eval()
    model.fcn = Beginning(kernel, stride, padding, norm=norm).eval()
    if smooth:
        weight = model.fcn.embed.weight
        filters, channels, height, width = weight.shape
        shape = (filters, 1, height + 8, width + 8)
        drawn = torch.randn(shape) + 0.4 * torch.randn(filters, channels, *shape[2:])
        line = torch.tensor([1.0, 4, 6, 4, 1])
        blur = (line[:, None] * line / 256)[None, None]
        for _ in range(2):
            drawn = nn.functional.conv2d(drawn.flatten(0, 1)[:, None], blur).view(
                filters, channels, drawn.shape[2] - 4, drawn.shape[3] - 4
            )
        weight.data = drawn.contiguous()
    if grey:
        model.mean.fill_(0.5)
    return model


def found(model: Segmenter, cipher) -> stem.Found:
    """What is found in a model; the attack gets a cipher of another key."""
    return stem.recovered_key(model, cipher.rekeyed(Key(bytes(32))), 0)


@pytest.mark.parametrize("method", ["np", "shf", "shf+np"])
@pytest.mark.parametrize("block_size", [2, 4, 8])
def test_the_border_of_a_padded_network_gives_the_key_even_of_random_filters(
    key, method, block_size
):
    cipher = ciphers.from_key(method, key, block_size)
    guess = found(lock_network(network(), cipher), cipher)
    assert guess.source == "the stored border"
    (only,) = guess.candidates
    assert only.same_as(cipher)


@pytest.mark.parametrize("method", ["np", "shf", "shf+np"])
@pytest.mark.parametrize("geometry", [(7, 2, 3), (3, 2, 1), (5, 1, 2)], ids=str)
def test_without_a_telling_border_smooth_filters_leave_a_sign_and_an_order(key, method, geometry):
    cipher = ciphers.from_key(method, key, 4)
    locked = lock_network(network(*geometry, smooth=True, grey=True), cipher)
    guess = found(locked, cipher)
    assert guess.source == "the smoothness of filters"
    assert len(guess.candidates) == {"np": 2, "shf": 6, "shf+np": 12}[method]
    assert sum(each.same_as(cipher) for each in guess.candidates) == 1


@pytest.mark.parametrize(("kernel", "block_size"), [(4, 4), (4, 8), (8, 8)])
def test_patch_embeddings(key, kernel, block_size):
    cipher = ciphers.from_key("np", key, block_size)
    locked = lock_network(network(kernel, kernel, 0, smooth=True), cipher)
    candidates = found(locked, cipher).candidates
    assert len(candidates) == 2
    assert sum(each.same_as(cipher) for each in candidates) == 1


def test_random_patch_embeddings_tell_nothing(key):
    cipher = ciphers.from_key("np", key, 8)
    for each in found(lock_network(network(8, 8, 0), cipher), cipher).candidates:
        assert 0.3 < agreement(cipher, each)["selected"] < 0.7


def test_of_patch_embeddings_trained_under_np_smoothness_tells_the_signs(key):
    """What training would learn: the plain filter, negated where its images are."""
    cipher = ciphers.from_key("np", key, 4)
    model = network(8, 8, 0, smooth=True)
    signs = torch.from_numpy(np.where(cipher.selected, -1.0, 1.0)).float().view(3, 4, 4)
    model.fcn.embed.weight.data *= signs.repeat(1, 2, 2)
    assert any(each.same_as(cipher) for each in found(model, cipher).candidates)


def remembering(model: Segmenter) -> Segmenter:
    """With the statistics of scenes that are darker than grey, as photographs are."""
    images = np.stack([scenes.draw(5, number, 64)[0] for number in range(8)])
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255 * 0.8
    model.fcn.norm.momentum = None
    with torch.no_grad():
        model.train()(pixels)
    return model.eval()


def test_the_stored_mean_tells_which_of_two_signs(key):
    model = remembering(network(smooth=True, grey=True, norm=True))
    cipher = ciphers.from_key("np", key, 4)
    guess = found(lock_network(model, cipher), cipher)
    assert guess.source == "the smoothness of filters"
    (only,) = guess.candidates
    assert only.same_as(cipher)


def test_the_stored_mean_tells_all_signs_of_filters_that_are_not_smooth(key):
    model = remembering(network(grey=True, norm=True))
    cipher = ciphers.from_key("np", key, 4)
    guess = found(lock_network(model, cipher), cipher)
    assert guess.source == "the stored mean"
    (only,) = guess.candidates
    assert only.same_as(cipher)


def told_by_statistics(model: Segmenter, cipher) -> list:
    """Candidates of the attack on statistics, from other scenes than the model remembers."""
    images = np.stack([scenes.draw(6, number, 64)[0] for number in range(8)])
    plain = torch.from_numpy((images.transpose(0, 3, 1, 2) * 0.8).astype(np.uint8))
    target, unknown = SimpleNamespace(model=model), cipher.rekeyed(Key(bytes(32)))
    return locked_candidates(target, plain, unknown, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("method", "block_size"), [("np", 4), ("np", 16), ("shf", 4), ("shf+np", 4)], ids=str
)
@pytest.mark.parametrize("folded", [False, True])
def test_without_a_telling_border_stored_statistics_give_the_key(key, method, block_size, folded):
    model = remembering(network(grey=True, norm=True))
    cipher = ciphers.from_key(method, key, block_size)
    locked = lock_network(model, cipher)
    if folded:
        locked = fold_batchnorm(locked)
    assert is_folded(find_stem(locked)) == folded
    assert not find_stem(locked).convolution.border.any()
    assert told_by_statistics(locked, cipher)[0].same_as(cipher)


def test_what_the_border_tells_needs_no_statistics(key):
    cipher = ciphers.from_key("shf+np", key, 4)
    locked = lock_network(network(norm=True), cipher)  # which stores a mean of 0, a variance of 1
    (only,) = told_by_statistics(locked, cipher)
    assert only.same_as(cipher)


def test_without_a_border_and_where_nothing_was_stored_nothing_is_told(key):
    cipher = ciphers.from_key("np", key, 4)
    candidates = told_by_statistics(lock_network(network(grey=True, norm=True), cipher), cipher)
    assert not any(each.same_as(cipher) for each in candidates)


def test_shuffled_patches_are_refused_by_name(key):
    cipher = ciphers.from_key("shf", key, 4)
    locked = lock_network(network(4, 4, 0, smooth=True), cipher)
    why = "kernel 4 and stride 4 let several pixels"
    with pytest.raises(SegkeyError, match=why):
        found(locked, cipher)
    target = SimpleNamespace(model=locked, cipher=cipher)
    assert why in stem.why_lock_tells_nothing(target)


def test_where_it_does_not_fit(key):
    of = stem.why_stem_tells_nothing
    plain = network()
    assert of(plain, ciphers.from_key("none", None, 1)) == "there is no key"
    assert "like values" in of(plain, ciphers.from_key("ffx", key, 4))
    assert "no multiple of M" in of(plain, ciphers.from_key("np", key, 4))
    assert of(plain, ciphers.from_key("np", key, 2)) == ""
    plain.fcn = Beginning(4, 4, filters=33)
    plain.fcn.embed = nn.Conv2d(3, 33, 4, 4, groups=3)
    assert "with groups" in of(plain, ciphers.from_key("np", key, 4))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["np", "shf+np"])
def test_the_attack_on_a_locked_run_reaches_the_score_of_the_key(
    plain_run, key, attacked, tmp_path, method
):
    run = Run.open(shutil.copytree(plain_run.path, tmp_path / "plain"))
    target = attacked(locked_runs.lock_run(run, key, method, 4))
    line, other = attacks.run_attacks(target, ["stem", "statistics"]).attacks
    assert other.details["found"]
    assert other.mean_iou == line.mean_iou
    assert line.details["found"]
    assert line.details["source"] == "the stored border"
    assert line.mean_iou == target.correct().mean_iou
    assert line.required_access == "the model alone"
    assert not line.chosen_on_test
    assert "parts" not in line.details
    assert isinstance(find_stem(run.load_model(CPU)).convolution, nn.Conv2d)
