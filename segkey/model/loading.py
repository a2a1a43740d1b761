"""Open a run, or a file that ``segkey export`` made, as a model that is ready to predict."""

from pathlib import Path
from typing import TYPE_CHECKING

from segkey.crypto.age import Identity
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model.onnx_file import OnnxFile

if TYPE_CHECKING:  # a customer's machine has no torch
    import torch

    from segkey.model.prediction import Model
    from segkey.model.runs import Run


def load(
    run: str | Path,
    key: Key | Identity | None = None,
    device: "str | torch.device" = "auto",
    precise: bool = False,
) -> "Model":
    """The model of a run, or of a file that ``segkey export`` made, ready to predict.

    Args:
        run: the run's folder, ``runs/latest``, or an ONNX file, which needs no PyTorch.
        key: opens a sealed run or file, in memory only; others need none here. What images are
            encrypted with is given to `Model.predict`.
        device: ``auto``, ``cuda``, ``cuda:1``, ``mps`` or ``cpu``.
        precise: float32 even where the device computes in bfloat16.

    Raises:
        SegkeyError: no run there, damaged weights, no such device, a sealed run of another key, or
            a file that segkey did not export.
    """
    if key is not None and not isinstance(key, Key | Identity):  # the device once stood second
        key, device = None, key
    return model_of(opened(run).unlock(key), device, precise)


def opened(path: str | Path) -> "Run | OnnxFile":
    """A run, or an exported file, which may have to be unlocked.

    Raises:
        SegkeyError: it is neither.
    """
    if is_exported(Path(path)):
        return OnnxFile.open(path)
    try:
        from segkey.model.runs import Run
    except ModuleNotFoundError as error:
        raise SegkeyError(
            f"{path} is no file that segkey exported, and a run needs {error.name}, which is not "
            "installed",
            "pip install segkey, or let the owner export the run: segkey export RUN --onnx",
        ) from None
    return Run.open(path)


def is_exported(path: Path) -> bool:
    """Whether a path is that of a file, and not of a run; it may not be there."""
    return path.is_file() or (path.suffix in (".onnx", ".age") and not path.is_dir())


def model_of(
    source: "Run | OnnxFile", device: "str | torch.device" = "auto", precise: bool = False
) -> "Model":
    """The model of what was opened and unlocked; ``device`` and ``precise`` as for `load`."""
    if isinstance(source, OnnxFile):
        from segkey.model.onnx_model import OnnxModel

        return OnnxModel(source, str(device))
    from segkey.model.run_model import RunModel
    from segkey.system import devices

    where = devices.choose(device) if isinstance(device, str) else device
    return RunModel(source, where, precise)
