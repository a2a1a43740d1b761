"""segkey: protect semantic segmentation models with a secret key.

To begin with::

    import segkey

    key = segkey.Key.generate()                    # key.save("keys/segkey.key") keeps it
    segkey.encrypt_folder("photos", "shards", key, method="np", block_size=4)
    data = segkey.open_shards("shards")            # torch datasets: data["train"], data["test"]
    encrypt = segkey.transforms.from_key("np", key, block_size=4)    # a torchvision v2 transform
    model = segkey.load("runs/latest")             # after segkey train, on the command line
    mask = model.predict("photo.jpg", key)         # model.probabilities(…) for all classes

A network of your own is registered with ``segkey.networks.network``; ``segkey --help`` lists the
commands, which do everything else.

The map of the package. Each wing imports only from those above it in this list::

    errors    SegkeyError, the one kind of failure that is expected, and the kinds of it
    version   the version
    system    what the machine gives: files, seeds, words, workers, devices, torchrun, plug-ins
    crypto    from a key to a cipher: key files, the methods, the ciphers as torch modules
    data      from files to arrays: layouts of folders, decoding, masks, augmentation, scenes
    shards    the format of encrypted data: write, read, encrypt, decrypt, unlock with a key
    model     networks, weights, training, runs, evaluation, prediction, export
    attacks   what can be tried without the key, and the suite that runs it
    reports   what results look like: tables, verdicts, the page, images
    paper     the paper's experiment: grid, findings, tables, figures; the demo
    cli       the command line: one module for each group of commands

``segkey.ciphers`` and ``segkey.transforms`` are the public names of two modules of ``crypto``,
``segkey.networks`` is that of the registry of ``model``.
Importing ``segkey`` loads neither torch nor h5py: the command line must answer ``--help`` at once.
"""

from segkey.errors import SegkeyError, SegkeyWarning
from segkey.system import threads as _threads
from segkey.version import VERSION as __version__

_threads.bound_spinning()  # before torch is imported, which reads it once

_LAZY = {  # public names, and the module that each comes from: these import NumPy or torch
    "Key": "segkey.crypto.keys",
    "ciphers": "",
    "encrypt_folder": "segkey.shards.folders",
    "load": "segkey.model.loading",
    "networks": "",
    "open_shards": "segkey.shards.dataset",
    "transforms": "",
}

__all__ = [
    "Key",
    "SegkeyError",
    "SegkeyWarning",
    "__version__",
    "ciphers",
    "encrypt_folder",
    "load",
    "networks",
    "open_shards",
    "transforms",
]


def __getattr__(name: str):
    import importlib

    if name not in _LAZY:
        raise AttributeError(f"module 'segkey' has no attribute {name!r}")
    if not _LAZY[name]:
        return importlib.import_module(f"segkey.{name}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
