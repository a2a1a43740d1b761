"""Hill-climbing: change a wrong key a little, and keep what makes the model happier."""

import numpy as np

from segkey.attacks.attack import Budget, Result, attack
from segkey.attacks.guessing import agreement, changeable, changed, secret_parts
from segkey.attacks.subject import Subject
from segkey.attacks.wrong_keys import random_key
from segkey.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.evaluation import Scores
from segkey.pictures import seeded

_CHUNK = 25  # queries between two savings
_RANDOM = 0.2  # the part of the queries that go to random keys; the climb starts from the best of them


def _fits(subject: Subject) -> str:
    return changeable(subject.cipher)


@attack("search", "the method and M, and a few labelled images; asks the model at will", fits=_fits)
def search(subject: Subject, budget: Budget, seed: int) -> Result:
    """Climb towards the key by the mean IoU of a few labelled images."""
    return climb(subject, budget, seed, labels=True)


@attack("search-blind", "the method and M, and a few images without labels; asks the model at will", fits=_fits)
def search_blind(subject: Subject, budget: Budget, seed: int) -> Result:
    """Climb towards the key by the entropy of the model's prediction: a model that is given what it knows is certain."""
    return climb(subject, budget, seed, labels=False)


def climb(subject: Subject, budget: Budget, seed: int, labels: bool) -> Result:
    """The best of some random keys, then changes of 1 … n/8 pairs of its positions, kept unless they make it worse.

    Args:
        subject: the model under attack; its validation images are the attacker's, where they are at hand.
        budget: ``queries`` keys on ``images`` images.
        seed: decides the random keys and the changes.
        labels: climb by mean IoU; by the entropy of the prediction, if not.
    """
    if budget.queries < 10:
        raise SegkeyError(f"{budget.queries} queries are too few to search with", "give at least 10 with --queries")
    own, feed = subject.cipher, subject.images_of("val", budget.images)
    name = "search" if labels else "search-blind"
    randoms = max(1, round(_RANDOM * budget.queries))
    score, accepted = None, []
    with subject.task(name.replace("-", " "), len(feed) * budget.queries + len(subject.feed)):
        for first in range(0, budget.queries, _CHUNK):
            queries = range(first, min(first + _CHUNK, budget.queries))

            def work(queries: range = queries, best: float | None = score, accepted: list = accepted) -> list:
                cipher, accepted = _replay(own, accepted, randoms, seed), list(accepted)
                for query in queries:
                    candidate = _candidate(own, cipher, query, randoms, seed)
                    score = _happiness(subject.score(candidate, feed, entropy=not labels), labels)
                    if best is None or score >= best:
                        accepted.append([query, score])
                        best, cipher = score, candidate
                return [best, accepted]

            score, accepted = subject.once(f"{name}/{seed}/{len(feed)}/{budget.queries}/{first}", work)
        cipher = _replay(own, accepted, randoms, seed)
        won = subject.judge(f"{name}/{seed}/{len(feed)}/{budget.queries}/all", cipher)["mean_iou"]
    details = {
        "split": feed.split.header.split, "images": len(feed), "queries": budget.queries, "random_keys": randoms,
        "criterion": "mean IoU" if labels else "entropy of the prediction", "agreement": agreement(own, cipher),
        "found": cipher.same_as(own), "accepted": accepted,
    }  # fmt: skip
    how = "by mean IoU" if labels else "by entropy, without labels"
    return Result(won, f"{budget.queries} keys, climbing {how}", details)


def _candidate(own: Cipher, cipher: Cipher, query: int, randoms: int, seed: int) -> Cipher:
    """A random key at first, then the best so far with some pairs of positions changed, few more often than many."""
    if not secret_parts(own):
        return own
    if query < randoms:
        return own.rekeyed(random_key("segkey-search", seed, query))
    generator = seeded("search", seed, query)
    most = max(1, own.channels * own.block_size**2 // 8)
    return changed(cipher, round(np.exp(generator.uniform(0, np.log(most)))), generator)


def _happiness(scores: Scores, labels: bool) -> float:
    return scores.mean_iou if labels else -scores.entropy


def _replay(own: Cipher, accepted: list, randoms: int, seed: int) -> Cipher:
    """The cipher that some accepted queries led to. So a file needs to hold their numbers only, and no key."""
    cipher = own
    for query, _ in accepted:
        cipher = _candidate(own, cipher, query, randoms, seed)
    return cipher
