"""Variants: the columns of an experiment's tables, a method that was trained or locked with."""

from collections.abc import Iterable

from segkey.crypto.ciphers import METHODS, method_label, method_name
from segkey.paper.grid import Cell
from segkey.paper.results import CellResult

LOCKED = " locked"  # behind the method of a model that was locked after its training


def variant_of(cell: Cell | CellResult) -> str:
    """The column of a cell: its method, and whether it was locked with it."""
    return cell.method + LOCKED * cell.locked


def variant_name(variant: str) -> str:
    """A variant as it stands in tables."""
    method = variant.removesuffix(LOCKED)
    return method_name(method) + variant[len(method) :]


def variant_label(variant: str, block_size: int) -> str:
    """A variant with its block size as it stands in tables."""
    method = variant.removesuffix(LOCKED)
    return method_label(method, block_size) + variant[len(method) :]


def in_order(variants: Iterable[str]) -> list[str]:
    """Variants as tables show them: trained before locked, both in the order of the methods."""
    order = {method: number for number, method in enumerate(METHODS)}

    def place(variant: str) -> tuple:
        """Trained before locked, then by method; those of a user by name."""
        method = variant.removesuffix(LOCKED)
        return variant != method, order.get(method, len(order)), method

    return sorted(set(variants), key=place)
