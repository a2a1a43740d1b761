"""Similarity of a restored image to the original: PSNR and SSIM."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(images: Tensor, restored: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images (N, C, H, W), averaged over images.

    Infinite if all are equal.

    Images that are restored exactly count as 100 dB where others are not, so that they do not hide
    the others.
    """
    error = (images.float() - restored.float()).square().flatten(1).mean(1)
    if not error.any():
        return math.inf
    return float((10 * torch.log10(255**2 / error)).clamp(max=100).mean())


def ssim(images: Tensor, restored: Tensor) -> float:
    """Structural similarity of uint8 images (N, C, H, W), −1 … 1.

    The mean over pixels, channels and images.

    Wang et al. 2004, with their constants: a Gaussian window of 11×11 pixels (or the image's side)
    and sigma 1.5.
    """
    channels, side = images.shape[1], min(11, *images.shape[-2:])
    place = torch.arange(side, device=images.device) - (side - 1) / 2
    weights = torch.exp(-(place**2) / (2 * 1.5**2))
    weights = (weights[:, None] * weights / weights.sum() ** 2).expand(channels, 1, -1, -1)

    def blurred(values: Tensor) -> Tensor:
        return F.conv2d(values, weights, groups=channels)

    total = 0.0
    for a, b in zip(images.split(16), restored.split(16), strict=True):
        a, b = a.float(), b.float()
        mean_a, mean_b = blurred(a), blurred(b)
        var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
        both = blurred(a * b) - mean_a * mean_b
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        like = (
            (2 * mean_a * mean_b + c1)
            * (2 * both + c2)
            / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        )
        total += float(like.mean()) * len(a)
    return total / len(images)
