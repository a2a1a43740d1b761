"""The known-plaintext attack: solve for the key from a plain image and its encrypted version."""

import zlib
from collections.abc import Callable

import numpy as np

from segkey.attacks.cipher_parts import DIGITS, blocks_of
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model.results import PAIR


class NoPairError(SegkeyError):
    """Two images of which one cannot be the other, encrypted."""


def solve(own: Cipher, plain: np.ndarray, encrypted: np.ndarray) -> tuple[Cipher, dict[str, float]]:
    """The cipher that turned some plain images into some encrypted ones, as far as they tell.

    Args:
        own: gives the method, M, c and, if it is fixed, FFX's table; nothing else of it is read.
        plain: uint8 (N, c, H, W).
        encrypted: uint8, or uint16 for FFX, of the same shape.

    Returns:
        A cipher that fits the pairs, and for each of its secret parts the fraction of positions
        that are certain; positions that are not are filled with a choice that fits the pairs as
        well.

    Raises:
        NoPairError: nothing fits; it names the first block that contradicts.
    """
    if plain.shape != encrypted.shape:
        raise NoPairError(
            f"the images have different sizes: {plain.shape[-2:]} and {encrypted.shape[-2:]}"
        )
    x, y = (blocks_of(images, own.block_size).astype(np.int32) for images in (plain, encrypted))
    if own.method == "none":
        _contradict((x != y).any(1), plain, own, "values have changed")
        return own, {}
    parts, certain = _SOLVERS[own.method](own, x, y, plain)
    return own.with_parts(**parts), certain


def _contradict(wrong: np.ndarray, plain: np.ndarray, own: Cipher, why: str) -> None:
    """Raise unless no block is wrong: bool, one for each block."""
    if not wrong.any():
        return
    rows, columns = (side // own.block_size for side in plain.shape[-2:])
    picture, place = divmod(int(wrong.argmax()), rows * columns)
    row, column = divmod(place, columns)
    which = f"of pair {picture + 1} " if len(plain) > 1 else ""
    raise NoPairError(
        f"these images do not belong together: in the block in row {row}, column {column} "
        f"{which}{why}",
        "give an image and its own encrypted twin, with the model's method and block size",
    )


def _solve_negative_positive(own, x, y, plain):
    # 255 is odd, so that x and 255 - x always differ: one block tells all.
    _contradict(
        ((y != x) & (y != 255 - x)).any(1), plain, own, "a value is neither kept nor turned over"
    )
    selected = y[0] != x[0]
    _contradict(
        ((y != x) != selected).any(1),
        plain,
        own,
        "other positions are turned over than in the first block",
    )
    return {"selected": selected}, {"selected": 1.0}


def _solve_ffx(own, x, y, plain):
    """Positions whose values change are selected, and tell the table; the others stay.

    A position that stays may also hold only values that the table keeps.
    """
    if not _explains_ffx(own, x, y):
        first = _first(len(x), lambda count: _explains_ffx(own, x[:count], y[:count]))
        _contradict(
            np.arange(len(x)) == first, plain, own, "a value is not what it became elsewhere"
        )
    selected, table = _ffx_parts(own, x, y)
    known = table >= 0
    # A position that stays is certain as soon as it holds a value that a selected one would have
    # changed.
    certain = selected | (known[x] & (table[x] != x)).any(0)
    half = _half(selected, certain)
    solved, told = {"selected": half}, {"selected": float(certain.mean())}
    if not own.password_hash:
        stayed = np.unique(x[:, half & ~selected])  # so the table keeps what these positions hold
        table[stayed] = np.where(known[stayed], table[stayed], stayed)
        solved["values"] = _fill_table(table)
        told["values"] = float(known.mean())
    return solved, told


def _ffx_parts(own: Cipher, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions that change, bool, and what values become there, int32 (256,); -1 if not seen."""
    selected = (x != y).any(0)
    if own.password_hash:
        return selected, own.values.astype(np.int32)
    table = np.full(256, -1, np.int32)
    table[x[:, selected]] = y[:, selected]
    return selected, table


def _explains_ffx(own: Cipher, x: np.ndarray, y: np.ndarray) -> bool:
    selected, table = _ffx_parts(own, x, y)
    codes = table[table >= 0]
    return (
        bool((np.where(selected, table[x], x) == y).all()) and np.unique(codes).size == codes.size
    )


def _half(selected: np.ndarray, certain: np.ndarray) -> np.ndarray:
    """Select half of all positions: what is missing is taken from the uncertain ones."""
    missing = max(0, selected.size // 2 - int(selected.sum()))
    filled = selected.copy()
    filled[np.flatnonzero(~certain)[:missing]] = True
    return filled


def _fill_table(table: np.ndarray) -> np.ndarray:
    """Complete a table, uint16 (256,): an unseen value maps as the nearest seen one does."""
    seen = np.flatnonzero(table >= 0)
    if not seen.size:
        return np.arange(256, dtype=np.uint16)
    nearest = seen[np.abs(np.arange(256)[:, None] - seen).argmin(1)]
    return np.clip(table[nearest], 0, DIGITS - 1).astype(np.uint16)


def _solve_shuffle(own, x, y, plain):
    """Match columns of values: which plain position each encrypted position holds."""
    _contradict(
        (np.sort(x, 1) != np.sort(y, 1)).any(1),
        plain,
        own,
        "the values are not the same ones in another order",
    )
    if not _explains_shuffle(x, y):
        first = _first(len(x), lambda count: _explains_shuffle(x[:count], y[:count]))
        _contradict(
            np.arange(len(x)) == first,
            plain,
            own,
            "the order is another one than in the blocks before",
        )
    of_plain, of_encrypted = _columns(x, y)
    # Equal columns cannot be told apart; any order among them fits these images as well.
    permutation = np.empty(of_plain.size, np.int64)
    permutation[np.argsort(of_encrypted, kind="stable")] = np.argsort(of_plain, kind="stable")
    certain = np.bincount(of_plain)[of_encrypted] == 1
    return {"permutation": permutation}, {"permutation": float(certain.mean())}


def _solve_shuffle_negative_positive(own, x, y, plain):
    """As SHF, with columns and their negatives taken for the same.

    255 is odd, so that no value is its own negative, and the first block tells them apart.
    """
    inverted_x, inverted_y = x[0] > 127, y[0] > 127
    parts, certain = _solve_shuffle(
        own, np.where(inverted_x, 255 - x, x), np.where(inverted_y, 255 - y, y), plain
    )
    # Columns of which one is the other's negative can change places with it.
    parts["selected"] = inverted_y != inverted_x[parts["permutation"]]
    return parts, certain | {"selected": certain["permutation"]}


def _columns(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each column of both, the same for columns that are equal."""
    _, names = np.unique(np.concatenate([x, y], 1), axis=1, return_inverse=True)
    of_x, of_y = np.split(names.reshape(-1), 2)
    return of_x, of_y


def _explains_shuffle(x: np.ndarray, y: np.ndarray) -> bool:
    of_plain, of_encrypted = _columns(x, y)
    return np.array_equal(np.sort(of_plain), np.sort(of_encrypted))


def _first(blocks: int, explains: Callable[[int], bool]) -> int:
    """The first block that cannot be explained together with those before it; by bisection."""
    low, high = 0, blocks
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if explains(middle) else (low, middle)
    return low


_SOLVERS = {
    "np": _solve_negative_positive,
    "ffx": _solve_ffx,
    "shf": _solve_shuffle,
    "shf+np": _solve_shuffle_negative_positive,
}


def _obstacle(target: Target) -> str:
    method = target.cipher.method
    if method not in (*_SOLVERS, "none"):
        return f"nobody has written down how to solve {method} for its key"
    if target.pair:
        solve(
            target.cipher, *target.pair
        )  # images that do not belong together are refused before anything is done
    return ""


@attack(
    "known-pair",
    "the method, M and plain images with their encrypted twins",
    obstacle=_obstacle,
    required_access=PAIR,
)
def known_pair(target: Target, budget: Budget, seed: int) -> Result:
    """Solve for the key from one, two and ten pairs, or from a pair that is given.

    The images are validation images, if those are at hand.
    """
    own, found = target.cipher, []
    if target.pair:
        # Named by what it holds: a score that was kept of another pair is not this one's.
        (images, encrypted), origin = target.pair, "given"
        name = f"given {zlib.crc32(images.tobytes() + encrypted.tobytes()):08x}"
    else:
        loader = target.images_of("val", max(budget.pairs))
        images = np.concatenate([batch.cpu().numpy() for batch, _ in loader.batches(64)])
        encrypted, origin = own.encrypt(images), loader.split.header.split
        name = origin
    counts = sorted({min(count, len(images)) for count in budget.pairs})
    with target.task("known pair", len(counts) * len(target.loader)):
        for count in counts:
            cipher, certain = solve(own, images[:count], encrypted[:count])
            same = cipher.same_as(own)
            # The owner's key need not be tried again under another name.
            scores = (
                target.correct() if same else target.evaluate(f"known-pair/{name}/{count}", cipher)
            )
            found.append(
                {"pairs": count, "certain": certain, "found": same, "mean_iou": scores.mean_iou}
            )
    first = found[0]
    parts = ", ".join(
        f"{100 * part:.0f} % of the {_WORDS.get(name, name)}"
        for name, part in first["certain"].items()
    )
    pairs = f"{first['pairs']} pair{'s' * (first['pairs'] > 1)}"
    summary = f"{pairs}: {parts or 'nothing to find'} certain"
    return Result(first["mean_iou"], summary, {"pairs_from": origin, "by_pairs": found})


_WORDS = {"selected": "selection", "permutation": "permutation", "values": "table"}
