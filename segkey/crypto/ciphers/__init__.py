"""The block-wise ciphers: one class per method, the same arithmetic on NumPy arrays and tensors.

The paper's four steps (section 3) are: cut into blocks, flatten each channel first, transform every
vector with the same key, put the blocks back. All blocks are treated alike, so the positions are
worked out once per image size: NP is then one XOR with a plane, SHF one gather, FFX one look-up,
SHF+NP a gather and an XOR.

This module imports no torch, so that encrypting a folder does not pay for it; `segkey.transforms`
wraps these classes as ``nn.Module``. Arrays and tensors are both called *images* here.

A new method is a subclass with ``method``, ``PARTS``, ``from_key``, ``encrypt_images`` and
``decrypt_images``; once decorated with `register`, commands take it as ``--method NAME``. Its class
may also have ``label``, ``what``, ``has_password`` and ``key_space``. Attacks that solve for a key
need code for each method: see `segkey.attacks.known_pair` and `segkey.attacks.ciphertext_only`.
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
from segkey.crypto.ciphers.shuffle_negative_positive import ShuffleNegativePositive  # isort: skip

__all__ = [
    "FFX",
    "METHODS",
    "Cipher",
    "Images",
    "NegativePositive",
    "Plain",
    "Shuffle",
    "ShuffleNegativePositive",
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
