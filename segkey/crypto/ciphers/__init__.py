"""The block-wise ciphers: one class a method, the same arithmetic on NumPy arrays and torch
tensors.

The paper's four steps (section 3) are: cut into blocks, flatten each channel first, transform every
vector with the same key, put the blocks back. All blocks are treated alike, so a picture of one
size
needs its positions worked out once: NP is then one XOR with a plane, SHF one gather, FFX one
look-up.

This module imports no torch, so that encrypting a folder does not pay for it; `segkey.transforms`
wraps these classes as ``nn.Module``. Arrays and tensors are both called *images* here.

A new method is a subclass with ``method``, ``PARTS``, ``from_key``, ``_encrypt`` and ``_decrypt``;
decorated with `register`, it is known to every command as ``--method NAME``. What else is to be
said of a method stands in its class
too: ``label``, ``what``, ``has_password``, ``key_space``. Attacks that solve for a method's key
need code for that method: see `segkey.attacks.known_pair` and `segkey.attacks.ciphertext_only`.
"""

from segkey.crypto.ciphers.base import (
    METHODS,
    Cipher,
    Images,
    Plain,
    check_size,
    fitting_block_sizes,
    from_key,
    has_password,
    key_space_bits,
    method_label,
    method_name,
    register,
    signed,
    unsigned,
)

# Imported to register themselves, in the order in which tables show them.
from segkey.crypto.ciphers.shuffle import Shuffle  # isort: skip
from segkey.crypto.ciphers.negative_positive import NegativePositive, selections  # isort: skip
from segkey.crypto.ciphers.ffx import FFX, hash_password  # isort: skip

__all__ = [
    "FFX",
    "METHODS",
    "Cipher",
    "Images",
    "NegativePositive",
    "Plain",
    "Shuffle",
    "check_size",
    "fitting_block_sizes",
    "from_key",
    "has_password",
    "hash_password",
    "key_space_bits",
    "method_label",
    "method_name",
    "register",
    "selections",
    "signed",
    "unsigned",
]
