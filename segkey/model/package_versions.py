"""What a run was made with: versions of packages, and the time."""

from datetime import UTC, datetime

import h5py
import numpy as np
import torch
import torchvision

from segkey.version import VERSION


def versions() -> dict[str, str]:
    """What could make a difference to a result."""
    modules = {"torch": torch, "torchvision": torchvision, "numpy": np, "h5py": h5py}
    return {"segkey": VERSION} | {name: str(module.__version__) for name, module in modules.items()}


def now() -> str:
    """ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
