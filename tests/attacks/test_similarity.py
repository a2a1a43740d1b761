"""PSNR and SSIM against the formulas of their papers in plain loops."""

import math

import numpy as np
import pytest
import torch

from segkey.attacks.similarity import psnr, ssim


def pictures(*shape, seed=0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 for one channel of two images, window by window."""
    side = min(11, *a.shape)
    place = np.arange(side) - (side - 1) / 2
    window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for top in range(a.shape[0] - side + 1):
        for left in range(a.shape[1] - side + 1):
            x, y = (each[top : top + side, left : left + side].astype(float) for each in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x = (window * (x - mean_x) ** 2).sum()
            var_y = (window * (y - mean_y) ** 2).sum()
            both = (window * (x - mean_x) * (y - mean_y)).sum()
            found.append(
                (2 * mean_x * mean_y + c1)
                * (2 * both + c2)
                / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
            )
    return float(np.mean(found))


@pytest.mark.parametrize("shape", [(1, 3, 16, 13), (2, 1, 11, 11), (18, 1, 5, 6), (1, 2, 12, 4)])
def test_ssim_is_the_papers_mean_over_windows_channels_and_images(shape):
    images, restored = pictures(*shape), pictures(*shape, seed=1)
    restored = (images.float() * 0.7 + restored.float() * 0.3).byte()
    expected = np.mean(
        [
            slow_ssim(images[n, c].numpy(), restored[n, c].numpy())
            for n in range(shape[0])
            for c in range(shape[1])
        ]
    )
    assert ssim(images, restored) == pytest.approx(expected, abs=2e-3)


def test_ssim_is_1_for_the_same_low_for_noise_and_negative_for_a_negative():
    images = pictures(2, 3, 32, 32)
    assert ssim(images, images) == pytest.approx(1, abs=1e-6)
    assert abs(ssim(images, pictures(2, 3, 32, 32, seed=5))) < 0.1
    assert ssim(images, 255 - images) < -0.8
    assert ssim(images, images.flip(3)) == pytest.approx(ssim(images.flip(3), images))


@pytest.mark.parametrize("off", [1, 5, 255])
def test_psnr_of_a_constant_error(off):
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    expected = 20 * math.log10(255 / off)
    assert psnr(images, images + off) == pytest.approx(expected)


def test_psnr_is_averaged_over_images_and_an_exact_one_hides_no_other():
    images = pictures(3, 3, 8, 8)
    assert psnr(images, images) == math.inf
    restored = images.clone()
    restored[1] = pictures(1, 3, 8, 8, seed=3)[0]
    error = np.mean((images[1].numpy().astype(float) - restored[1].numpy()) ** 2)
    expected = (100 + 10 * math.log10(255**2 / error) + 100) / 3
    assert psnr(images, restored) == pytest.approx(expected, rel=1e-5)


def test_psnr_of_one_wrong_value():
    images = pictures(1, 1, 16, 16)
    restored = images.clone()
    restored[0, 0, 3, 3] ^= 1
    assert psnr(images, restored) == pytest.approx(10 * math.log10(255**2 * 256), rel=1e-5)
