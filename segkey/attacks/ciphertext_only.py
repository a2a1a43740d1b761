"""The ciphertext-only attack: estimate the key from the statistics of encrypted images alone.

All blocks of all images are encrypted alike, so that every position of a block can be watched over
thousands of blocks. Values of neighbouring pixels, and of the channels of one pixel, rise and fall
together:

- NP: if they rise and fall against each other, one of them is inverted;
- SHF: how strongly positions go together tells how near they were;
- FFX: values above 255 tell the selection, and the plain neighbours of a code tell its value.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from segkey.attacks.cipher_parts import agreement, grid_of_blocks
from segkey.attacks.layer_statistics import Judge
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.similarity import psnr, ssim
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model.batches import BatchLoader
from segkey.model.results import ENCRYPTED
from segkey.system import distributed

MOST_IMAGES = 256  # encrypted images that are looked at
MOST_SHUFFLED = (
    1000  # positions of a block; the assignment is cubic in them: 768 (M = 16) take seconds
)


def estimate(own: Cipher, encrypted: np.ndarray) -> list[Cipher]:
    """Estimate the cipher of some encrypted images; several, if the images cannot tell them apart.

    Args:
        own: gives the method, M, c and, if it is fixed, FFX's table; nothing else of it is read.
        encrypted: uint8, or uint16 for FFX, (N, c, H, W).
    """
    height, width = encrypted.shape[-2:]
    if own.method == "none":
        return [own]
    if len(encrypted) * height * width < 2 * own.block_size**2:
        raise SegkeyError("one block is too little to learn from", "give more encrypted images")
    return [own.with_parts(**parts) for parts in _ESTIMATES[own.method](own, encrypted)]


def _standardised(blocks: np.ndarray) -> np.ndarray:
    """Each position with mean 0 and variance 1 over all blocks."""
    over = (0, 1, 2)
    spread = blocks.std(over)
    return (blocks - blocks.mean(over)) / np.where(spread > 0, spread, 1)


def _estimate_negative_positive(own: Cipher, encrypted: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Estimate NP: positions are divided along the spanning tree of the surest neighbours.

    Which of the two halves is inverted, the images do not tell.
    """
    c, m = own.channels, own.block_size
    z = _standardised(grid_of_blocks(encrypted, m).astype(np.float32))
    number = np.arange(c * m * m).reshape(c, m, m)
    pairs = [(number[1:], number[:-1], z[..., 1:, :, :], z[..., :-1, :, :])]
    pairs += [(number[:, 1:], number[:, :-1], z[..., 1:, :], z[..., :-1, :])]
    pairs += [(number[..., 1:], number[..., :-1], z[..., 1:], z[..., :-1])]
    together = [
        np.einsum("nhwcyx,nhwcyx->cyx", a, b) / (z.shape[0] * z.shape[1] * z.shape[2])
        for *_, a, b in pairs
    ]
    start = np.concatenate([a.ravel() for a, *_ in pairs])
    end = np.concatenate([b.ravel() for _, b, *_ in pairs])
    together = np.concatenate([each.ravel() for each in together])
    graph = coo_array(
        (2 - np.abs(together), (start, end)), (number.size,) * 2
    )  # sure is near, and 0 is no edge
    order, before = breadth_first_order(minimum_spanning_tree(graph), 0, directed=False)
    against = {
        pair: value < 0 for pair, value in zip(zip(start, end, strict=True), together, strict=True)
    }
    selected = np.zeros(number.size, bool)
    for place in order[1:]:
        previous = before[place]
        selected[place] = selected[previous] ^ against.get(
            (place, previous), against.get((previous, place))
        )
    return [{"selected": selected}, {"selected": ~selected}]


# pixels over which natural images are taken to fade out; short, as only near neighbours tell much
_FADING = 3.0
_ACROSS = 0.97  # how much neighbouring channels are taken to have in common


def _estimate_shuffle(own: Cipher, encrypted: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The arrangement whose expected correlations fit best, within and between blocks.

    Between: to the blocks on the right and below.

    A quadratic assignment, solved by FAQ (Vogelstein et al. 2015). The three channels are alike:
    all their orders are returned.
    """
    c, m = own.channels, own.block_size
    n = c * m * m
    z = _standardised(grid_of_blocks(encrypted, m).astype(np.float32)).reshape(
        *_block_grid(encrypted, m), n
    )

    def together(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a.reshape(-1, n), b.reshape(-1, n)
        return a.T @ b / max(1, len(a))

    seen = [together(z, z), together(z[:, :, :-1], z[:, :, 1:]), together(z[:, :-1], z[:, 1:])]
    channel, row, column = np.unravel_index(np.arange(n), (c, m, m))
    common = _ACROSS ** np.abs(channel[:, None] - channel)

    def expected(down: int, right: int) -> np.ndarray:
        return common * np.exp(
            -np.hypot(row - row[:, None] + down, column - column[:, None] + right) / _FADING
        )

    model = [expected(0, 0), expected(0, m), expected(m, 0)]
    places = _assign([each - each.mean() for each in seen], [each - each.mean() for each in model])
    orders = itertools.permutations(range(c))
    return [
        {"permutation": np.array(order)[channel[places]] * m * m + row[places] * m + column[places]}
        for order in orders
    ]


def _block_grid(images: np.ndarray, m: int) -> tuple[int, int, int]:
    return len(images), images.shape[-2] // m, images.shape[-1] // m


def _assign(seen: list[np.ndarray], model: list[np.ndarray], most_steps: int = 60) -> np.ndarray:
    """FAQ: the place of each item, maximising Σ tr(Aᵀ P B Pᵀ) over pairs of matrices.

    scipy's ``quadratic_assignment`` takes one pair only.
    """
    n = len(seen[0])
    weights = np.full((n, n), 1 / n)
    for _ in range(most_steps):
        gradient = sum(
            a @ weights @ b.T + a.T @ weights @ b for a, b in zip(seen, model, strict=True)
        )
        corner = np.zeros_like(weights)
        corner[linear_sum_assignment(gradient, maximize=True)] = 1
        step = corner - weights
        linear = (gradient * step).sum()
        square = sum(((a @ step @ b.T) * step).sum() for a, b in zip(seen, model, strict=True))
        length = min(1.0, -linear / (2 * square)) if square < 0 else float(linear + square > 0)
        if length < 1e-4 or linear < 1e-9:
            break
        weights = weights + length * step
    return linear_sum_assignment(weights, maximize=True)[1]


def _estimate_ffx(own: Cipher, encrypted: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Estimate FFX: positions that ever hold more than 255 are selected.

    A code is worth the mean of its plain neighbours.
    """
    blocks = grid_of_blocks(encrypted, own.block_size).astype(np.float32)
    selected = (blocks.max((0, 1, 2)) > 255).reshape(-1)
    if own.password_hash:
        return [{"selected": selected}]
    return [
        {"selected": selected, "values": _estimate_table(encrypted.astype(np.int32), selected, own)}
    ]


def _estimate_table(encrypted: np.ndarray, selected: np.ndarray, own: Cipher) -> np.ndarray:
    """uint16 (256,): codes in the order of their neighbours' medians.

    The order is exact if every value occurs.
    """
    c, m = own.channels, own.block_size
    height, width = encrypted.shape[-2:]
    plane = np.tile(selected.reshape(c, m, m), (1, height // m, width // m))
    beside = np.zeros((1000, 256), np.int64)  # how often a plain value stands beside a code
    for axis in (-1, -2, -3):
        for code_first in (True, False):
            ends = [slice(None, -1), slice(1, None)]
            codes, plains = ends if code_first else ends[::-1]
            at_codes, at_plains = [
                (Ellipsis, part, *[slice(None)] * (-1 - axis)) for part in (codes, plains)
            ]
            where = plane[at_codes] & ~plane[at_plains]
            seen, value = encrypted[at_codes][:, where], encrypted[at_plains][:, where]
            beside += np.bincount((seen * 256 + value).ravel(), minlength=256_000).reshape(
                1000, 256
            )
    counts = beside.sum(1)
    codes = np.flatnonzero(counts)
    if not codes.size:
        return np.arange(256, dtype=np.uint16)
    # The median between two values: where half of the neighbours are passed.
    passed = beside[codes].cumsum(1) / counts[codes, None]
    worth = (passed < 0.5).sum(1) + (beside[codes] * np.arange(256)).sum(1) / counts[codes] / 1000
    ordered = codes[np.argsort(worth, kind="stable")][:256]
    if len(ordered) == 256:
        return ordered.astype(np.uint16)
    nearest = np.abs(np.arange(256)[:, None] - np.sort(worth)[: len(ordered)]).argmin(1)
    return ordered[nearest].astype(np.uint16)


_ESTIMATES: dict[str, Callable] = {
    "np": _estimate_negative_positive,
    "shf": _estimate_shuffle,
    "ffx": _estimate_ffx,
}


def _obstacle(target: Target) -> str:
    own = target.cipher
    if own.method not in (*_ESTIMATES, "none"):
        return f"nobody has written down how to estimate the key of {own.method}"
    size = own.channels * own.block_size**2
    if own.method == "shf" and size > MOST_SHUFFLED:
        return (
            f"its assignment takes at most {MOST_SHUFFLED} positions per block, here are {size}; "
            "this proves nothing"
        )
    return ""


@attack(
    "ciphertext-only",
    "the method, M, encrypted images, and a few images of their own without labels",
    obstacle=_obstacle,
    required_access=ENCRYPTED,
)
def ciphertext_only(target: Target, budget: Budget, seed: int) -> Result:
    """Estimate the key from encrypted images alone.

    Among the candidates that are left, the model's stored statistics choose
    (`segkey.attacks.layer_statistics`), or the entropy of its prediction if it has none.
    """
    own = target.cipher
    plain = np.concatenate([batch.cpu().numpy() for batch, _ in target.loader.batches(64)])[
        :MOST_IMAGES
    ]
    encrypted, loader = own.encrypt(plain), target.images_of("val", budget.images)
    candidates = distributed.broadcast(
        estimate(own, encrypted)
    )  # another machine may round in another way
    with target.task("ciphertext only", len(candidates) * len(loader) + len(target.loader)):
        marks = target.cached(
            f"ciphertext-only/{len(loader)}", lambda: _marks(target, loader, candidates)
        )
        cipher = candidates[int(np.argmin(marks))]
        # The owner's key need not be tried again under another name.
        scores = (
            target.correct()
            if cipher.same_as(own)
            else target.evaluate(f"ciphertext-only/all {len(loader)}", cipher)
        )
    images, restored = torch.from_numpy(plain), torch.from_numpy(_restore(cipher, encrypted))
    similarity = psnr(images, restored)
    agree = agreement(own, cipher)
    details = {
        "encrypted_images": len(encrypted),
        "candidates": len(candidates),
        "agreement": agree,
        "found": cipher.same_as(own),
        "restored_exactly": math.isinf(similarity),
        "psnr": None if math.isinf(similarity) else similarity,
        "ssim": ssim(images, restored),
    }
    right = (
        "the key"
        if details["found"]
        else ", ".join(f"{100 * part:.0f} % of the {k}" for k, part in agree.items())
    )
    how = (
        "images restored exactly"
        if math.isinf(similarity)
        else f"PSNR {similarity:.1f} dB, SSIM {details['ssim']:.2f}"
    )
    summary = f"{len(encrypted)} encrypted images give {right or 'all'}; {how}"
    by_test = len(candidates) > 1 and target.is_judged_on(loader)
    return Result(scores.mean_iou, summary, details, chosen_on_test=by_test)


def _marks(target: Target, loader: BatchLoader, candidates: list[Cipher]) -> list[float]:
    """How badly each candidate explains the model; a float each, the least is the best."""
    images = torch.cat([images for images, _ in loader.batches(64)])
    judge = Judge(target, images, len(candidates))
    marks = [judge.divergence(each) for each in candidates]
    if any(map(math.isnan, marks)):
        return [target.score(each, loader, entropy=True).entropy for each in candidates]
    return marks


def _restore(cipher: Cipher, encrypted: np.ndarray) -> np.ndarray:
    """Decrypt with an estimate; an impossible value is replaced by the nearest possible one."""
    if cipher.method != "ffx":
        return cipher.decrypt(encrypted)
    plane = cipher.tiled(cipher.selected, *encrypted.shape[-2:])
    order = np.argsort(cipher.values, kind="stable")
    codes = cipher.values[order].astype(np.int32)
    place = np.searchsorted(codes, encrypted).clip(1, len(codes) - 1)
    nearer = np.abs(codes[place - 1] - encrypted) <= np.abs(codes[place] - encrypted)
    worth = order[place - nearer].astype(np.uint8)
    return np.where(plane, worth, np.minimum(encrypted, 255)).astype(np.uint8)
