"""Your own network and your own training loop on encrypted images; no run of segkey is needed.

Run it (``python examples/own_network.py``): it draws scenes, encrypts them, trains an smp network
on them with plain PyTorch, and measures it with the right and with a wrong key. It needs
``pip install 'segkey[smp]'``.

The other way round, segkey trains and attacks a network of your own. Let the environment name a
file that registers it::

    export SEGKEY_PLUGINS=examples/own_network.py
    segkey train --network small-unet --recipe scratch
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import segkey
from segkey.data import scenes
from segkey.networks import network


@network("small-unet", channels=(1, 3, 4), encoder="encoder")
def small_unet(classes: int, channels: int) -> torch.nn.Module:
    """float (N, channels, H, W), normalised, to logits (N, classes, H, W)."""
    import segmentation_models_pytorch as smp

    return smp.Unet(
        "tu-mobilenetv3_small_050", encoder_weights=None, in_channels=channels, classes=classes
    )


def train(model: torch.nn.Module, data, epochs: int) -> None:
    """A training loop as any other: images are float from 0 to 1, masks class numbers."""
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(epochs):
        for images, masks in DataLoader(data, 16, shuffle=True):
            loss = F.cross_entropy(model.train()(images), masks, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.inference_mode()
def accuracy(model: torch.nn.Module, data) -> float:
    """The share of pixels that are right."""
    pairs = [(model.eval()(images).argmax(1), masks) for images, masks in DataLoader(data, 16)]
    return torch.cat([(made == masks).float().flatten() for made, masks in pairs]).mean().item()


def main(folder: Path, images: int = 64, epochs: int = 4) -> dict[str, float]:
    """Train on scenes under a key; the accuracy with that key, a wrong one and none."""
    key, wrong = segkey.Key.generate(), segkey.Key.generate()
    source = scenes.write(folder / "scenes", train=images, val=8, test=24, size=64)
    how = {"method": "np", "block_size": 4, "size": 64}
    data = segkey.encrypt_folder(source, folder / "shards", key, **how)
    model = small_unet(len(data["train"].header.classes), 3)
    train(model, data["train"], epochs)
    found = {"right key": accuracy(model, data["test"])}
    plain = segkey.encrypt_folder(source, folder / "plain", method="none", size=64)["test"]
    found["no key"] = accuracy(model, plain)
    plain.transform = segkey.transforms.from_key("np", wrong, block_size=4)
    found["wrong key"] = accuracy(model, plain)
    return found


if __name__ == "__main__":
    for name, value in main(Path(*sys.argv[1:2] or ["own_network"])).items():
        print(f"{name:10} {100 * value:.1f} % of the pixels")
