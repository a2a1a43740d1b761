"""Prediction with the network of a run, on the device that PyTorch computes on."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model import inference, tiling
from segkey.model.batches import as_pixels
from segkey.model.networks import Segmenter
from segkey.model.prediction import Model
from segkey.model.runs import Run
from segkey.model.score_resizing import BAND
from segkey.model.tiling import Size
from segkey.system import devices


class RunModel(Model):
    """The trained network of a run.

    Attributes:
        run: where it came from; ``run.header`` names its method, block size, key and classes.
        precise: float32 even where the device computes in bfloat16.
    """

    fixed = None

    def __init__(self, run: Run, device: torch.device, precise: bool = False):
        self.run, self.device, self.precise = run, device, precise
        self.name, self.header, self.size = run.name, run.header, run.size
        self._network = run.load_model(device)
        self._quick = inference.for_inference(self._network, device, run.size, precise)
        self.multiple = tiling.needed_multiple(run.header.block_size, self._network.multiple)

    def __repr__(self) -> str:
        return self._described(self._network.name, str(self.device))

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path

    @property
    def network(self) -> Segmenter:
        """The network, in evaluation mode: float (N, C, H, W) in 0 … 1, encrypted, to logits."""
        return self._network

    def logits(self, images: np.ndarray, divided_by: int | None = None) -> np.ndarray:
        """As `Model.logits`."""
        return self._as_array(self._answer(torch.from_numpy(images).to(self.device), divided_by))

    def _logits(self, pixels: np.ndarray, cipher: Cipher | None, divided_by: int) -> Tensor:
        images = torch.from_numpy(pixels).to(self.device)
        if cipher is None:
            return self._answer(images, divided_by)
        return self._answer(cipher.encrypt(images), cipher.max_value)

    @torch.inference_mode()
    def _answer(self, images: Tensor, divided_by: int | None) -> Tensor:
        pixels = as_pixels(images, divided_by or self.header.max_value)
        with devices.mixed_precision(self.device, not self.precise):
            return self._quick(pixels).float()

    def _check_tile(self, tile: Size) -> None:
        if tile == self.size:
            return
        try:
            self._network.check_size(*tile)
        except SegkeyError as error:
            only = f"{self.size[0]}x{self.size[1]}"
            raise SegkeyError(error.what, f"give --tile {only}, as it was trained") from error

    def _mirrored(self, logits: Tensor) -> Tensor:
        return logits.flip(-1)

    def _as_array(self, logits: Tensor) -> np.ndarray:
        return logits.cpu().numpy()

    @torch.inference_mode()
    def _classes_at(self, logits: Tensor, size: Size) -> np.ndarray:
        return classes_at(logits, size).cpu().numpy()


def classes_at(logits: Tensor, size: Size) -> Tensor:
    """`segkey.model.score_resizing.classes_at` on the logits' own device.

    Args:
        logits: float (classes, h, w).
        size: (H, W).

    Returns:
        uint8 (H, W).
    """
    classes, h, w = logits.shape
    height, width = size
    if (h, w) == (height, width):
        return _likeliest(logits)
    out = torch.empty(size, dtype=torch.uint8, device=logits.device)
    rows = max(1, BAND // (classes * width))
    for top in range(0, height, rows):
        y = torch.arange(top, min(top + rows, height), device=logits.device)
        # where pixels' centres fall, as F.interpolate has it
        y = ((y + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
        above = y.long()
        below = (above + 1).clamp(max=h - 1)
        rows_of = logits.index_select(1, above), logits.index_select(1, below)
        band = torch.lerp(*rows_of, (y - above)[:, None].to(logits.dtype))
        band = F.interpolate(band[None], (len(y), width), mode="bilinear", align_corners=False)[0]
        out[top : top + len(y)] = _likeliest(band)
    return out


def _likeliest(logits: Tensor) -> Tensor:
    """argmax over the first dimension, uint8; on the CPU, `max` is 5 times as fast as `argmax`."""
    return logits.max(0).indices.byte()
