"""The hill-climbing attack: change a wrong key step by step, and keep what is not worse."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from segkey.attacks.cipher_parts import agreement, changeable, changed, random_key, secret_parts
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.model.batches import BatchLoader
from segkey.model.evaluation import Scores
from segkey.model.results import LABELLED, UNLABELLED
from segkey.system.seeds import seeded

_CHUNK = 25  # queries between two savings
_RANDOM = (
    0.2  # the part of the queries that go to random keys; the climb starts from the best of them
)


def _obstacle(target: Target) -> str:
    return changeable(target.cipher)


@dataclass(frozen=True)
class _Criterion:
    """What an attacker can see of a key: ``value`` is the larger, the better."""

    name: str
    words: str
    value: Callable[[Scores], float]
    entropy: bool


# Images without a labelled pixel tell their owner nothing: all keys look alike.
_BY_LABELS = _Criterion("search", "mean IoU", lambda scores: scores.mean_iou or 0.0, False)
_BY_ENTROPY = _Criterion(
    "search-unlabelled", "entropy of the prediction", lambda scores: -scores.entropy, True
)


@attack(
    "search",
    "the method and M, and a few labelled images; asks the model at will",
    obstacle=_obstacle,
    required_access=LABELLED,
)
def search(target: Target, budget: Budget, seed: int) -> Result:
    """Climb towards the key by the mean IoU of a few labelled images."""
    return _climb(target, budget, seed, _BY_LABELS)


@attack(
    "search-unlabelled",
    "the method and M, and a few images without labels; asks the model at will",
    obstacle=_obstacle,
    required_access=UNLABELLED,
)
def search_unlabelled(target: Target, budget: Budget, seed: int) -> Result:
    """Climb towards the key by the entropy of the prediction, which is low near the key."""
    return _climb(target, budget, seed, _BY_ENTROPY)


def _climb(target: Target, budget: Budget, seed: int, criterion: _Criterion) -> Result:
    """Take the best of some random keys, then keep changes that do not make it worse."""
    own, loader = target.cipher, target.images_of("val", budget.images)
    walk = _Walk(own, max(1, round(_RANDOM * budget.queries)), seed)
    name = f"{criterion.name}/{seed}/{len(loader)}/{budget.queries}"
    accepted: list[list] = []
    with target.task(
        criterion.name.replace("-", " "), len(loader) * budget.queries + len(target.loader)
    ):
        for first in range(0, budget.queries, _CHUNK):
            queries = range(first, min(first + _CHUNK, budget.queries))
            # The chunk and what was accepted before it are bound now, not when the work is done.
            work = _Chunk(target, loader, walk, criterion, queries, accepted)
            accepted = target.cached(f"{name}/{first}", work)
        found = walk.replay(accepted)
        mean_iou = target.evaluate(f"{name}/all", found).mean_iou
    details = {
        "split": loader.split.header.split,
        "images": len(loader),
        "queries": budget.queries,
        "random_keys": walk.randoms,
        "criterion": criterion.words,
        "agreement": agreement(own, found),
        "found": found.same_as(own),
        # Values alone: with the seed, the numbers of the queries would be the key that was found.
        "accepted": [value for _, value in accepted],
    }
    summary = f"{budget.queries} keys, climbing by {criterion.words}"
    return Result(mean_iou, summary, details, chosen_on_test=target.is_judged_on(loader))


@dataclass(frozen=True)
class _Walk:
    """The keys that are tried: each follows from the best before it and the number of the query."""

    own: Cipher  # gives the method, M, and a fixed FFX table; its secret parts are never looked at
    randoms: int
    seed: int

    def candidate(self, best: Cipher | None, query: int) -> Cipher:
        """A random key at first, then the best so far with some pairs of positions changed."""
        if not secret_parts(self.own):  # method none: the only key
            return self.own
        if query < self.randoms or best is None:
            return self.own.rekeyed(random_key("segkey-search", self.seed, query))
        generator = seeded("search", self.seed, query)
        most = max(1, self.own.channels * self.own.block_size**2 // 8)
        # Log-uniform: large steps far from the key, small ones near it, and the attacker
        # does not know which it is.
        return changed(best, round(math.exp(generator.uniform(0, math.log(most)))), generator)

    def replay(self, accepted: list[list]) -> Cipher | None:
        """The key that some accepted queries led to.

        So their numbers are as secret as a key: only journal entries of an attack that is under
        way hold them, its result does not.
        """
        best = None
        for query, _ in accepted:
            best = self.candidate(best, query)
        return best


@dataclass(frozen=True)
class _Chunk:
    """Some queries in a row; gives all that were accepted so far, as [query, value]."""

    target: Target
    loader: BatchLoader
    walk: _Walk
    criterion: _Criterion
    queries: range
    before: list[list]

    def __call__(self) -> list[list]:
        accepted, best = list(self.before), self.walk.replay(self.before)
        for query in self.queries:
            candidate = self.walk.candidate(best, query)
            value = self.criterion.value(
                self.target.score(candidate, self.loader, entropy=self.criterion.entropy)
            )
            if not accepted or value >= accepted[-1][1]:
                accepted.append([query, value])
                best = candidate
        return accepted
