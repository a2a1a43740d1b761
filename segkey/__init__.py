"""segkey: protect semantic segmentation models with a secret key.

The package follows the data: ``sources`` → ``encryption`` → ``shards`` → ``training`` → ``runs`` →
``evaluation`` and ``attacks`` → ``reports``. Each module imports only from those left of it.

Importing ``segkey`` loads neither torch nor h5py: the command line must answer ``--help`` at once.
"""

from segkey.errors import SegkeyError, SegkeyWarning
from segkey.version import VERSION as __version__

__all__ = ["Key", "SegkeyError", "SegkeyWarning", "__version__", "load"]


def __getattr__(name: str):
    if name == "Key":  # imports NumPy, which costs more than everything else here
        from segkey.keys import Key

        return Key
    if name == "load":  # imports torch
        from segkey.prediction import load

        return load
    raise AttributeError(f"module 'segkey' has no attribute {name!r}")
