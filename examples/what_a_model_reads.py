"""Measure which half of the values a model reads: those that NP or FFX encrypt, or the others.

Run it: ``python examples/what_a_model_reads.py RUN [SHARDS] [KEY] [PASSWORD]``, with the run of a
model that was trained with NP or FFX. Its test images are encrypted with the correct key; then one
half of their values is replaced by that half's mean, so that nothing can be read from it. If the
score stays, the model does without that half. For FFX, another table stands beside that.
"""

import sys
from pathlib import Path

import torch

import segkey
from segkey.attacks import Target
from segkey.crypto.ciphers import Cipher
from segkey.crypto.ciphers.ffx import FFX
from segkey.model.evaluation_splits import open_test_split
from segkey.model.runs import Run
from segkey.system import devices

KEYS = 10  # wrong keys


class Blinded:
    """A cipher after which one half of the values is constant.

    Args:
        cipher: NP or FFX.
        half: 1 for the selected half, 0 for the other.
        value: what stands there instead.
    """

    def __init__(self, cipher: Cipher, half: int, value: int):
        self.cipher, self.half, self.value = cipher, half, value
        self.max_value = cipher.max_value

    def encrypt(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) to the cipher's own values."""
        encrypted = self.cipher.encrypt(images)
        selected = self.cipher.tiled(self.cipher.selected, *images.shape[-2:])
        blind = torch.from_numpy(selected == bool(self.half)).to(images.device)
        return torch.where(blind, torch.full_like(encrypted, self.value), encrypted)


def mean_of_half(cipher: Cipher, images: torch.Tensor, half: int) -> int:
    """The mean of one half of encrypted images, as a whole number."""
    encrypted = cipher.encrypt(images)
    selected = torch.from_numpy(cipher.tiled(cipher.selected, *images.shape[-2:]))
    return round(encrypted.cpu()[:, selected == bool(half)].double().mean().item())


run = Run.open(Path(sys.argv[1]))
shards = Path(sys.argv[2]) if len(sys.argv) > 2 else None
key = segkey.Key.load(sys.argv[3] if len(sys.argv) > 3 else "keys/segkey.key")
password = sys.argv[4].encode() if len(sys.argv) > 4 else None
cipher = run.cipher(key, password)
if not hasattr(cipher, "selected"):
    sys.exit(f"{run.name} is protected by {cipher.method}, which selects no half")
target = Target.create(run, open_test_split(run, shards), cipher, devices.choose("auto"))

images = next(iter(target.loader.batches(32)))[0]
ways: dict[str, list] = {
    "the correct key": [cipher],
    "the selected half replaced by its mean": [Blinded(cipher, 1, mean_of_half(cipher, images, 1))],
    "the other half replaced by its mean": [Blinded(cipher, 0, mean_of_half(cipher, images, 0))],
    "another selection": [cipher.rekeyed(segkey.Key.generate()) for _ in range(KEYS)],
}
if isinstance(cipher, FFX):
    ways["another table"] = [
        FFX(cipher.selected, cipher.block_size, segkey.Key.generate().ffx_password())
        for _ in range(KEYS)
    ]
print(f"{run.name}: mean IoU on {len(target.loader)} test images")
for name, ciphers in ways.items():
    scores = [target.score(each).mean_iou for each in ciphers]
    several = f" (mean of {len(scores)}; {min(scores):.4f} to {max(scores):.4f})"
    print(f"{name}: {sum(scores) / len(scores):.4f}{several * (len(scores) > 1)}", flush=True)
