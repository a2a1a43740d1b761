"""The secret parts of a cipher: guess, change and compare them.

Parts are those of `segkey.ciphers.Cipher.PARTS`: a ``permutation``, a selection (``selected``), a
table of ``values``. A kind of part that is new needs a line in ``_KINDS``.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key

DIGITS = 1000  # FFX's three digits


def random_key(*label: object) -> Key:
    """A key that the label decides."""
    return Key(hashlib.shake_256("/".join(map(str, label)).encode()).digest(32))


def secret_parts(cipher: Cipher) -> tuple[str, ...]:
    """The parts that an attacker does not know: all, but for the table of a fixed FFX password."""
    return secret_parts_of(type(cipher), bool(cipher.password_hash))


def secret_parts_of(method: type[Cipher], fixed_password: bool) -> tuple[str, ...]:
    """`secret_parts` of all ciphers of a method."""
    return tuple(part for part in method.PARTS if not (part == "values" and fixed_password))


def changeable(cipher: Cipher) -> str:
    """Why the parts of a cipher cannot be changed a little; empty if they can."""
    return changeable_parts(secret_parts(cipher))


def changeable_parts(parts: tuple[str, ...]) -> str:
    """`changeable`, of the names of parts."""
    unknown = set(parts) - set(_KINDS)
    return (
        f"this does not know how to change a part of a key like {', '.join(sorted(unknown))}"
        if unknown
        else ""
    )


def sharing(cipher: Cipher, share: float, generator: np.random.Generator) -> Cipher:
    """A random cipher that shares ``share`` (0 … 1) of the positions of each secret part."""
    return cipher.with_parts(
        **{
            name: _KINDS[name].complete(getattr(cipher, name), share, generator)
            for name in secret_parts(cipher)
        }
    )


def changed(cipher: Cipher, pairs: int, generator: np.random.Generator) -> Cipher:
    """A cipher in which ``pairs`` pairs of positions of one secret part have changed places."""
    parts = secret_parts(cipher)
    name = parts[generator.integers(len(parts))]
    return cipher.with_parts(**{name: _KINDS[name].change(getattr(cipher, name), pairs, generator)})


def agreement(cipher: Cipher, other: Cipher) -> dict[str, float]:
    """For each secret part, the fraction of its positions in which two ciphers agree."""
    return {
        name: float(np.mean(getattr(cipher, name) == getattr(other, name)))
        for name in secret_parts(cipher)
    }


def _given(size: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """Which positions an attacker is given: bool (size,)."""
    given = np.zeros(size, bool)
    given[generator.permutation(size)[: round(share * size)]] = True
    return given


def _complete_permutation(
    own: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    drawn = own.copy()
    rest = np.flatnonzero(~_given(own.size, share, generator))
    drawn[rest] = own[generator.permutation(rest)]
    return drawn


def _complete_selection(
    own: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """Half of all positions are selected: of the rest, as many as are missing."""
    given = _given(own.size, share, generator)
    drawn, rest = own & given, np.flatnonzero(~given)
    drawn[generator.permutation(rest)[: own.sum() - drawn.sum()]] = True
    return drawn


def _complete_table(own: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    given = _given(own.size, share, generator)
    drawn = own.copy()
    free = np.setdiff1d(np.arange(DIGITS), own[given])
    drawn[~given] = generator.permutation(free)[: (~given).sum()]
    return drawn


def _swap(values: np.ndarray, pairs: int, generator: np.random.Generator) -> np.ndarray:
    drawn, places = values.copy(), generator.permutation(values.size)
    pairs = min(pairs, values.size // 2)
    drawn[places[:pairs]], drawn[places[pairs : 2 * pairs]] = (
        values[places[pairs : 2 * pairs]],
        values[places[:pairs]],
    )
    return drawn


def _swap_selected(own: np.ndarray, pairs: int, generator: np.random.Generator) -> np.ndarray:
    """Selected positions become unselected, and as many the other way."""
    drawn = own.copy()
    chosen, others = (
        generator.permutation(np.flatnonzero(own)),
        generator.permutation(np.flatnonzero(~own)),
    )
    pairs = min(pairs, chosen.size, others.size)
    drawn[chosen[:pairs]], drawn[others[:pairs]] = False, True
    return drawn


class _Kind(NamedTuple):
    """How to handle a kind of part: complete a share of it at random, change some positions."""

    complete: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    change: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


_KINDS = {
    "permutation": _Kind(_complete_permutation, _swap),
    "selected": _Kind(_complete_selection, _swap_selected),
    "values": _Kind(_complete_table, _swap),
}


def grid_of_blocks(images: np.ndarray, m: int) -> np.ndarray:
    """(N, c, H, W) as (N, H/M, W/M, c, M, M)."""
    n, c, height, width = images.shape
    grid = images.reshape(n, c, height // m, m, width // m, m)
    return grid.transpose(0, 2, 4, 1, 3, 5)


def blocks_of(images: np.ndarray, m: int) -> np.ndarray:
    """(N, c, H, W) as flattened blocks (N·H/M·W/M, c·M·M), image by image, row by row."""
    return grid_of_blocks(images, m).reshape(-1, images.shape[1] * m * m)
