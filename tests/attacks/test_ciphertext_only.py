"""Encrypted images of a natural kind give the key away; noise does not."""

import numpy as np
import pytest
import torch

from segkey import attacks
from segkey.attacks.cipher_parts import agreement
from segkey.attacks.ciphertext_only import _restore, estimate
from segkey.attacks.similarity import psnr, ssim
from segkey.crypto import ciphers
from segkey.errors import SegkeyError


def best_agreement(own, images):
    return max(
        min(agreement(own, cipher).values(), default=1.0)
        for cipher in estimate(own, own.encrypt(images))
    )


@pytest.mark.parametrize("block_size", [2, 4, 16, 32])
def test_the_selection_of_np(photographs, key, block_size):
    assert best_agreement(ciphers.from_key("np", key, block_size), photographs) == 1.0


@pytest.mark.parametrize("block_size", [2, 4, 8])
def test_the_permutation_of_shf(photographs, key, block_size):
    """All six orders of the channels are candidates; these channels are alike, so one of them is
    the key."""
    own = ciphers.from_key("shf", key, block_size)
    candidates = estimate(own, own.encrypt(photographs))
    assert len(candidates) == 6
    assert best_agreement(own, photographs) == 1.0


@pytest.mark.parametrize("block_size", [2, 8, 32])
def test_the_selection_and_the_table_of_ffx(photographs, key, block_size):
    own = ciphers.from_key("ffx", key, block_size)
    (found,) = estimate(own, own.encrypt(photographs))
    assert np.array_equal(found.selected, own.selected)
    restored = _restore(found, own.encrypt(photographs))
    assert psnr(torch.from_numpy(photographs), torch.from_numpy(restored)) > 30
    fixed = ciphers.from_key("ffx", key, block_size, 3, b"known to all")
    assert best_agreement(fixed, photographs) == 1.0


def test_nothing_of_the_owners_key_is_looked_at(photographs, key, other_key):
    for method in ("np", "shf", "ffx"):
        own = ciphers.from_key(method, key, 4)
        encrypted = own.encrypt(photographs)
        mine, others = estimate(own, encrypted), estimate(own.rekeyed(other_key), encrypted)
        assert all(a.same_as(b) for a, b in zip(mine, others, strict=True))


def test_noise_gives_nothing_away(key):
    noise = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8)
    own = ciphers.from_key("shf", key, 4)
    assert best_agreement(own, noise) < 0.3
    assert best_agreement(ciphers.from_key("np", key, 4), noise) < 0.9


def test_one_block_is_too_little(key):
    with pytest.raises(SegkeyError, match="too little"):
        estimate(ciphers.from_key("np", key, 8), np.zeros((1, 3, 8, 8), np.uint8))


def test_large_permutations_are_left_out_and_said_so(target, key, monkeypatch):
    monkeypatch.setattr(target, "cipher", ciphers.from_key("shf", key, 32))
    assert "3072" in attacks.ATTACKS["ciphertext-only"].obstacle(target)


def test_the_attack(target):
    result = attacks.ATTACKS["ciphertext-only"].function(target, attacks.Budget(images=8), 0)
    assert set(result.details["agreement"]) == {"selected"}
    assert result.details["found"] == (result.details["agreement"]["selected"] == 1.0)
    assert result.details["restored_exactly"] == result.details["found"]
    if result.details["found"]:
        assert result.mean_iou == target.correct().mean_iou


def test_likeness():
    """SSIM beside scikit-image's (gaussian_weights, sigma 1.5, no sample covariance, its border of
    5 pixels cut off)."""
    images = (torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32) * 7 % 256).to(torch.uint8)
    assert psnr(images, images) == float("inf")
    assert ssim(images, images) == pytest.approx(1)
    darker = (images.float() * 0.5).to(torch.uint8)
    error = np.mean((images.numpy().astype(float) - darker.numpy()) ** 2, axis=(1, 2, 3))
    assert psnr(images, darker) == pytest.approx(np.mean(10 * np.log10(255**2 / error)))
    assert ssim(images, darker) == pytest.approx(0.6405033, abs=1e-6)
    assert ssim(images, 255 - images) == pytest.approx(-0.8970439, abs=1e-5)
