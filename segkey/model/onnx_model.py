"""Prediction with an exported file, through ONNX Runtime: NumPy, Pillow and the key, no PyTorch."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model import score_resizing
from segkey.model.network_registry import in_a_line
from segkey.model.onnx_file import INPUT, OUTPUT, OnnxFile
from segkey.model.prediction import Model
from segkey.model.tiling import Size

if TYPE_CHECKING:
    import onnxruntime

_NOWHERE = "/dev/null/no-folder"  # where a graph may look for weights in other files


class OnnxModel(Model):
    """The network in a file that ``segkey export`` made.

    A graph is computed as it stands in the file, by ONNX Runtime; files from a stranger are to be
    trusted as little as a stranger's program is.

    Args:
        file: opened, and unlocked if it is sealed.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Attributes:
        exported: what the file says of itself.

    Raises:
        SegkeyError: ONNX Runtime is missing, or cannot compute there, or cannot load the graph;
            or the graph takes and gives something else than the file says.
    """

    def __init__(self, file: OnnxFile, device: str = "auto"):
        self.exported, self._path = file.exported, file.path
        self.name, self.header = self.exported.run, self.exported.header
        self.size, self.multiple = self.exported.size, self.exported.multiple
        self.fixed = None if self.exported.any_size else self.size
        self._session, self.device = _session(file, device)
        self._check_graph()

    def __repr__(self) -> str:
        return self._described(self.exported.network, self.device, "ONNX ")

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def logits(self, images: np.ndarray, divided_by: int | None = None) -> np.ndarray:
        """As `Model.logits`."""
        pixels = images.astype(np.float32) / np.float32(divided_by or self.header.max_value)
        try:
            made = self._session.run([OUTPUT], {INPUT: pixels})[0]
        except Exception as error:  # ONNX Runtime has no common class of errors
            raise SegkeyError(
                f"{self._path} cannot compute images of {images.shape[2]}x{images.shape[3]}: "
                f"{in_a_line(error)}",
                f"give --tile {self.size[0]}x{self.size[1]}, as it was trained",
            ) from None
        wanted = (len(images), len(self.classes), *images.shape[2:])
        if made.shape != wanted or made.dtype != np.float32:
            raise SegkeyError(
                f"{self._path} gives {made.dtype} {made.shape}, where float32 {wanted} is needed",
                "export the run again",
            )
        return made

    def _logits(self, pixels: np.ndarray, cipher: Cipher | None, divided_by: int) -> np.ndarray:
        if cipher is None:
            return self.logits(pixels, divided_by)
        return self.logits(cipher.encrypt(pixels), cipher.max_value)

    def _mirrored(self, logits: np.ndarray) -> np.ndarray:
        return logits[..., ::-1]

    def _as_array(self, logits: np.ndarray) -> np.ndarray:
        return logits

    def _classes_at(self, logits: np.ndarray, size: Size) -> np.ndarray:
        return score_resizing.classes_at(logits, size)

    def _check_graph(self) -> None:
        """Raise `SegkeyError` unless the graph takes and gives what the file says."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        ends = [(each.name, each.type, len(each.shape or ())) for each in (*inputs, *outputs)]
        if ends == [(INPUT, "tensor(float)", 4), (OUTPUT, "tensor(float)", 4)]:
            found = inputs[0].shape[1], outputs[0].shape[1]
            if not [
                each
                for each, wanted in zip(
                    found, (self.header.channels, len(self.classes)), strict=True
                )
                if isinstance(each, int) and each != wanted
            ]:
                return
        raise SegkeyError(
            f"{self._path} is damaged: its graph is not for the channels and classes that it names",
            "export the run again",
        )


def _session(file: OnnxFile, device: str) -> "tuple[onnxruntime.InferenceSession, str]":
    try:
        import onnxruntime as ort
    except ImportError:
        raise SegkeyError(
            f"{file.path} needs the package onnxruntime, which is not installed",
            "pip install 'segkey[onnx]'",
        ) from None
    provider, device = _provider(ort.get_available_providers(), device)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if threads := os.environ.get("OMP_NUM_THREADS", ""):  # which ONNX Runtime does not ask itself
        options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    # All weights are in the file: one that names others could read what the user can read.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NOWHERE
    )
    try:
        return ort.InferenceSession(file.data, options, providers=[provider]), device
    except Exception as error:  # ONNX Runtime has no common class of errors
        raise SegkeyError(
            f"{file.path} cannot be loaded: {in_a_line(error)}", "export the run again"
        ) from None


def _provider(there: list[str], device: str) -> tuple[object, str]:
    """ONNX Runtime's name of a device, and ours."""
    kind, _, number = device.partition(":")
    cuda = "CUDAExecutionProvider"
    if (kind == "cuda" or device == "auto") and cuda in there and number.isdecimal() | (not number):
        return (cuda, {"device_id": int(number or 0)}), "cuda" if device == "auto" else device
    if device in ("auto", "cpu"):
        return "CPUExecutionProvider", "cpu"
    raise SegkeyError(
        f"ONNX Runtime has no device '{device}' here",
        "devices here: cpu" + ", cuda" * (cuda in there) + "; or --device auto",
    )
