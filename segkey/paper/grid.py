"""The grid: the models to train, one per method, block size and seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from segkey.crypto import ciphers
from segkey.errors import SegkeyError
from segkey.model import run_names


@dataclass(frozen=True)
class Cell:
    """One model of the grid."""

    method: str
    block_size: int
    seed: int

    @property
    def name(self) -> str:
        """Of its run."""
        name = run_names.of_method(self.method, self.block_size)
        return name + (f"-seed{self.seed}" if self.seed else "")


def grid(
    methods: Sequence[str], block_sizes: Sequence[int], size: tuple[int, int], seeds: int = 1
) -> list[Cell]:
    """The plain baseline, then all methods by block size, small blocks first, for each seed.

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
            *(Cell(method, m, seed) for m in block_sizes for method in methods),
        )
    ]
