"""The grid: the models to train, one per method, block size and seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import networks, run_names
from segkey.model.lock import SignedPermutation
from segkey.model.locked_conv import axes_of
from segkey.model.stem import find_stem


@dataclass(frozen=True)
class Cell:
    """One model of the grid.

    Attributes:
        method, block_size, seed: which.
        locked: it is the baseline, locked after its training, and not trained on its own.
    """

    method: str
    block_size: int
    seed: int
    locked: bool = False

    @property
    def name(self) -> str:
        """Of its run."""
        name = run_names.of_method(self.method, self.block_size) + "-locked" * self.locked
        return name + (f"-seed{self.seed}" if self.seed else "")


def grid(
    methods: Sequence[str],
    block_sizes: Sequence[int],
    size: tuple[int, int],
    seeds: int = 1,
    locks: Sequence[tuple[str, int]] = (),
) -> list[Cell]:
    """The plain baseline, then all methods by block size, small blocks first, for each seed.

    Args:
        methods, block_sizes: to train a model for each pair of.
        size: (H, W) of images.
        seeds: how many models of each.
        locks: methods and block sizes to lock the baseline with, see `locks_that_fit`.

    Raises:
        SegkeyError: an unknown method, or a block size that does not divide the size.
    """
    for method in methods:
        if method not in ciphers.METHODS or method == "none":
            known = ", ".join(method for method in ciphers.METHODS if method != "none")
            raise SegkeyError(
                f"there is no method '{method}' to reproduce",
                f"methods: {known}; plain is always there",
            )
    for m in block_sizes:
        ciphers.check_size(*size, m)
    return [
        cell
        for seed in range(seeds)
        for cell in (
            Cell("none", 1, seed),
            *(Cell(method, m, seed, locked=True) for method, m in locks),
            *(Cell(method, m, seed) for m in block_sizes for method in methods),
        )
    ]


def locks_that_fit(
    network: str, methods: Sequence[str], block_sizes: Sequence[int]
) -> tuple[list[tuple[str, int]], list[str]]:
    """With which methods and block sizes a network can be locked.

    Returns:
        Pairs of a method and a block size, small blocks first; and for the others, why not.
    """
    stem = find_stem(networks.build(network, ["a", "b"])).convolution
    fitting, refused = [], []
    for m in block_sizes:
        for method in methods:
            try:
                cipher = ciphers.from_key(method, Key(bytes(32)), m)
                axes_of(stem, m, SignedPermutation.of(cipher).moves)
                fitting.append((method, m))
            except SegkeyError as error:
                refused.append(f"{ciphers.method_label(method, m)} is not locked: {error.what}")
    return fitting, refused
