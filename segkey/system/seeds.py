"""Random generators and digests from a seed and text alone, never from global state."""

import hashlib
from collections.abc import Iterable

import numpy as np


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on ``parts`` alone, not on the order or number of processes."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def digest(names: Iterable[str]) -> str:
    """16 hex digits that stand for some names in their order."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]
