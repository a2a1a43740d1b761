"""segkey: protect semantic segmentation models with a secret key.

The map of the package. Each wing imports only from those above it in this list::

    errors    SegkeyError, the one kind of failure that is expected, and the kinds of it
    version   the version
    system    what the machine gives: files, seeds, words, workers, devices, torchrun, plug-ins
    crypto    from a key to a cipher: key files, the methods, the ciphers as torch modules
    data      from files to arrays: layouts of folders, decoding, masks, augmentation, scenes
    shards    the format of encrypted data: write, read, encrypt, decrypt, unlock with a key
    model     networks, weights, training, runs, evaluation, prediction
    attacks   what can be tried without the key, and the suite that runs it
    reports   what results look like: tables, verdicts, the page, images
    paper     the paper's experiment: grid, findings, tables, figures; the demo
    cli       the command line: one module for each group of commands

``segkey.ciphers`` and ``segkey.transforms`` are the public names of two modules of ``crypto``.
Importing ``segkey`` loads neither torch nor h5py: the command line must answer ``--help`` at once.
"""

from segkey.errors import SegkeyError, SegkeyWarning
from segkey.system import threads as _threads
from segkey.version import VERSION as __version__

_threads.bound_spinning()  # before torch is imported, which reads it once

__all__ = ["Key", "SegkeyError", "SegkeyWarning", "__version__", "load", "transforms"]


def __getattr__(name: str):
    if name == "Key":  # imports NumPy, which costs more than everything else here
        from segkey.crypto.keys import Key

        return Key
    if name == "load":  # imports torch
        from segkey.model.prediction import load

        return load
    if name == "transforms":  # imports torch
        import importlib

        return importlib.import_module("segkey.transforms")
    raise AttributeError(f"module 'segkey' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
