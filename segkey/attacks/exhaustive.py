"""Try every key, where there are few."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from segkey.attacks.key_parts import secret_parts
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.subject import Subject
from segkey.ciphers import Cipher, selections

MOST_KEYS = 20_000  # half an hour for a laptop; NP has 924 keys at M = 2, and 3 · 10¹³ at M = 4
_FINALISTS = 5
_CHUNK = 32  # keys between two savings


def all_ciphers(own: Cipher) -> Iterator[Cipher]:
    """Every cipher of the method and block size, in lexicographic order: C(n, n//2) selections or n! permutations."""
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
    """How many `all_ciphers` gives; infinity where it cannot go through them."""
    n = own.channels * own.block_size**2
    known = {
        (): 1,
        ("selected",): selections(own.block_size, own.channels),
        ("permutation",): math.factorial(n) if n < 20 else math.inf,
    }
    return known.get(secret_parts(own), math.inf)


def _too_many(subject: Subject) -> str:
    if number_of_ciphers(subject.cipher) <= MOST_KEYS:
        return ""
    return f"there are 2^{subject.cipher.key_space_bits:.0f} keys; it tries at most {MOST_KEYS:,}"


@attack("exhaustive", "the method and M, and a few labelled images", obstacle=_too_many)
def exhaustive(subject: Subject, budget: Budget, seed: int) -> Result:
    """Try every key on a few images, then the best on all.

    The attacker's images are validation images, where those are at hand. With their masks, keys are ranked by mean IoU;
    what an attacker without masks would do, ranking by the entropy of the prediction, is told beside it.
    """
    own, count = subject.cipher, int(number_of_ciphers(subject.cipher))
    feed = subject.images_of("val", budget.images)
    tried: list[tuple[float, float]] = []
    everything = list(all_ciphers(own))
    with subject.task("exhaustive", count * len(feed) + _FINALISTS * len(subject.feed)):
        for first in range(0, count, _CHUNK):

            def work(chunk: list[Cipher] = everything[first : first + _CHUNK]) -> list:
                scores = [subject.score(cipher, feed, entropy=True) for cipher in chunk]
                # Images without a labelled pixel tell their owner nothing: all keys look alike.
                return [(each.mean_iou or 0.0, each.entropy) for each in scores]

            tried += subject.once(f"exhaustive/{len(feed)}/{first}", work)
        by_label, by_doubt = zip(*tried, strict=True)
        ranked = sorted(range(count), key=lambda number: -by_label[number])
        finalists = {n: subject.judge(f"exhaustive/all {n}", everything[n])["mean_iou"] for n in ranked[:_FINALISTS]}
    right = next(number for number, cipher in enumerate(everything) if cipher.same_as(own))
    rank, blind_rank = _rank(by_label, right, -1), _rank(by_doubt, right, 1)
    best = max(finalists, key=finalists.get)
    found = best == right
    details = {
        "keys": count, "split": feed.split.header.split, "labelled_images": len(feed), "found": found,
        "rank_of_the_key": rank, "rank_of_the_key_without_labels": blind_rank,
        "second_best": sorted(finalists.values())[-2] if len(finalists) > 1 else None, "scores": list(by_label),
    }  # fmt: skip
    return Result(finalists[best], f"all {count:,} keys tried: the key is {'found' if found else 'not found'}", details)


def _rank(values: tuple[float, ...], chosen: int, sign: int) -> int:
    """The place of one value, 1 for the first, among those that are better (smaller, for ``sign`` 1)."""
    return 1 + sum(sign * value < sign * values[chosen] for value in values)
