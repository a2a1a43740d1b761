"""The exhaustive attack: try every key, if the key space is small enough."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from segkey.attacks.cipher_parts import secret_parts, secret_parts_of
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.target import Target
from segkey.crypto.ciphers import METHODS, Cipher, key_space_bits, selections
from segkey.model.results import LABELLED

MOST_KEYS = 20_000  # half an hour for a laptop; NP has 924 keys at M = 2, and 3 · 10¹³ at M = 4
_FINALISTS = 5
_CHUNK = 32  # keys between two savings


def all_ciphers(own: Cipher) -> Iterator[Cipher]:
    """Every cipher of the method and block size, in lexicographic order.

    C(n, n//2) selections or n! permutations.
    """
    n = own.channels * own.block_size**2
    if secret_parts(own) == ("selected",):
        for positions in itertools.combinations(range(n), n // 2):
            selected = np.zeros(n, bool)
            selected[list(positions)] = True
            yield own.with_parts(selected=selected)
    elif secret_parts(own) == ("permutation",):
        for permutation in itertools.permutations(range(n)):
            yield own.with_parts(permutation=np.array(permutation))
    else:
        yield own  # method none: a single key


def number_of_ciphers(own: Cipher) -> float:
    """How many `all_ciphers` gives; infinity if it cannot go through them."""
    return _number(secret_parts(own), own.block_size, own.channels)


def _number(parts: tuple[str, ...], block_size: int, channels: int) -> float:
    n = channels * block_size**2
    known = {
        (): 1,
        ("selected",): selections(block_size, channels),
        ("permutation",): math.factorial(n) if n < 20 else math.inf,
    }
    return known.get(parts, math.inf)


def too_many_keys(
    method: str, block_size: int, channels: int = 3, fixed_password: bool = False
) -> str:
    """Why this attack refuses a method and block size; empty if it goes through all of their keys.

    All advice to use this attack asks here; the attack itself asks the same of a cipher.
    """
    if method not in METHODS:
        return f"there is no method '{method}' here"
    number = _number(secret_parts_of(METHODS[method], fixed_password), block_size, channels)
    return _refusal(number, key_space_bits(method, block_size, channels, fixed_password))


def _refusal(number: float, bits: float) -> str:
    return (
        ""
        if number <= MOST_KEYS
        else f"there are 2^{bits:.0f} keys; it tries at most {MOST_KEYS:,}"
    )


def _obstacle(target: Target) -> str:
    return _refusal(number_of_ciphers(target.cipher), target.cipher.key_space_bits)


@attack(
    "exhaustive",
    "the method and M, and a few labelled images",
    obstacle=_obstacle,
    required_access=LABELLED,
)
def exhaustive(target: Target, budget: Budget, seed: int) -> Result:
    """Try every key on a few images, the best on all of the attacker's, the best of those on test.

    The attacker's images are validation images, if those are at hand. With their masks, keys are
    ranked by mean IoU; what an attacker without masks would do, ranking by the entropy of the
    prediction, is told beside it.
    """
    own, count = target.cipher, int(number_of_ciphers(target.cipher))
    loader, whole = target.images_of("val", budget.images), target.images_of("val")
    tried: list[tuple[float, float]] = []
    everything = list(all_ciphers(own))
    images = count * len(loader) + min(_FINALISTS, count) * len(whole) + len(target.loader)
    with target.task("exhaustive", images):
        for first in range(0, count, _CHUNK):

            def work(chunk: list[Cipher] = everything[first : first + _CHUNK]) -> list:
                scores = [target.score(cipher, loader, entropy=True) for cipher in chunk]
                # Images without a labelled pixel tell their owner nothing: all keys look alike.
                return [(each.mean_iou or 0.0, each.entropy) for each in scores]

            tried += target.cached(f"exhaustive/{len(loader)}/{first}", work)
        by_label, by_entropy = zip(*tried, strict=True)
        ranked = sorted(range(count), key=lambda number: -by_label[number])
        finalists = {
            number: target.cached(
                f"exhaustive/{len(loader)}/finalist {number}",
                lambda cipher=everything[number]: target.score(cipher, whole).mean_iou,
            )
            for number in ranked[:_FINALISTS]
        }
        best = max(finalists, key=finalists.get)
        mean_iou = target.evaluate(f"exhaustive/all {best}", everything[best]).mean_iou
    right = next(number for number, cipher in enumerate(everything) if cipher.same_as(own))
    rank, blind_rank = _rank(by_label, right, -1), _rank(by_entropy, right, 1)
    found = best == right
    details = {
        "keys": count,
        "split": loader.split.header.split,
        "labelled_images": len(loader),
        "found": found,
        "rank_of_the_key": rank,
        "rank_of_the_key_without_labels": blind_rank,
        "second_best": sorted(finalists.values())[-2] if len(finalists) > 1 else None,
        # Sorted: keys are tried in lexicographic order, so the place of the best would be the key.
        "scores": sorted(by_label, reverse=True),
    }
    summary = f"all {count:,} keys tried: the key is {'found' if found else 'not found'}"
    return Result(
        mean_iou, summary, details, chosen_on_test=count > 1 and target.is_judged_on(whole)
    )


def _rank(values: tuple[float, ...], chosen: int, sign: int) -> int:
    """The rank of one value, 1 for the best: smaller is better for ``sign`` 1."""
    return 1 + sum(sign * value < sign * values[chosen] for value in values)
