"""The attacks of the paper's section 4.2: plain images, and images encrypted with wrong keys."""

import math
import statistics
from collections.abc import Iterator
from itertools import islice

from segkey.attacks.cipher_parts import random_key
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model.evaluation import why_no_score
from segkey.model.results import Attack, Incorrect, Plain


def wrong_ciphers(own: Cipher, seed: int) -> Iterator[Cipher]:
    """Endless ciphers of random keys, from ``seed``; none is equivalent to the owner's.

    A wrong key that means the owner's transformation by chance (1 in 924 for NP at M = 2) is passed
    over. A fixed FFX password is known to the attacker. If there is a single key, there is no
    wrong one.

    Raises:
        SegkeyError: a protected method whose block size leaves it a single key.
    """
    if own.method == "none":
        return
    if own.key_space_bits == 0:
        raise SegkeyError(
            f"{own.method} with M = {own.block_size} has a single key", "take a larger block size"
        )
    number = 0
    while True:
        cipher, number = own.rekeyed(random_key("segkey-wrong-key", seed, number)), number + 1
        if not cipher.same_as(own):
            yield cipher


def _wrong_scores(target: Target, keys: int, seed: int) -> list[float]:
    """Mean IoU with each of some wrong keys, the least first.

    For a model without a key, every key is as good as none. Sorted, as results are published: with
    the seed, which decides the keys, the order would say which key reached what. That names the
    best of them, and from a hundred scores beside their keys the owner's can be estimated.
    """
    values = [
        target.evaluate(f"wrong key {seed}/{number}", cipher).mean_iou
        for number, cipher in enumerate(islice(wrong_ciphers(target.cipher, seed), keys))
    ]
    return sorted(values) or [target.evaluate("plain", None).mean_iou] * keys


def better_plain(target: Target) -> Plain:
    """The score of plain images, fed in the way that is better for an attacker.

    If a method's largest value is not 255, plain images can be divided by either. The better way is
    chosen on the images that judge it.
    """
    found = target.plain()
    best = max(found, key=lambda divisor: _or_least(found[divisor].mean_iou))
    by_divisor = {str(divisor): measured.mean_iou for divisor, measured in found.items()}
    return Plain(**vars(found[best].score), divided_by=best, by_divisor=by_divisor)


def correct_plain_incorrect(target: Target, wrong_keys: int = 100, seed: int = 0) -> Attack:
    """Correct key, plain images, and random wrong keys: the paper's section 4.2.

    Args:
        target: the model under attack.
        wrong_keys: how many.
        seed: decides the wrong keys.

    Returns:
        The result, for `Run.keep`. If every pixel of the test masks is void, scores are None, no
        wrong key is tried, and ``no_score`` says so.
    """
    if wrong_keys < 1:
        raise SegkeyError(
            f"{wrong_keys} wrong keys are too few", "give at least 1 with --wrong-keys"
        )
    own, images = target.cipher, len(target.loader)
    with target.task(
        "attack", images * (1 + target.ways_of_plain + (wrong_keys if target.protected else 0))
    ):
        correct, plain = target.correct(), better_plain(target)
        nothing = why_no_score(correct.mean_iou)
        values = [] if nothing else _wrong_scores(target, wrong_keys, seed)
    return Attack(
        no_score=nothing,
        run=target.run.name,
        method=own.method,
        block_size=own.block_size,
        split=target.loader.split.header.split,
        images=images,
        correct=correct.score,
        plain=plain,
        incorrect=Incorrect(keys=len(values), values=tuple(values), **spread(values)),
        majority_class=correct.majority_class,
        key_space_bits=own.key_space_bits,
        seed=seed,
        device=target.settings["device"],
        tested=target.tested,
    )


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean, standard deviation (of the sample; 0 for one value), least and largest.

    None if there is no value.
    """
    if not values:
        return dict.fromkeys(("mean", "std", "min", "max"))
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    mean = statistics.fmean(values)
    return {"mean": mean, "std": deviation, "min": min(values), "max": max(values)}


def _or_least(score: float | None) -> float:
    """For comparing: no score (images without labels) is less than any."""
    return -math.inf if score is None or math.isnan(score) else score


@attack("plain", "nothing else; the largest value stands in the model's file")
def plain(target: Target, budget: Budget, seed: int) -> Result:
    """Score plain images, divided by 255 and by the method's largest value; the better counts."""
    with target.task("plain", len(target.loader) * target.ways_of_plain):
        found = better_plain(target)
    return Result(
        found.mean_iou,
        f"plain images, divided by {found.divided_by}",
        {"by_divisor": found.by_divisor},
        chosen_on_test=found.chosen_among > 1,
    )


@attack("wrong-keys", "the method and M")
def wrong_keys(target: Target, budget: Budget, seed: int) -> Result:
    """Random keys, and how they spread."""
    with target.task("wrong keys", len(target.loader) * budget.keys):
        values = _wrong_scores(target, budget.keys, seed)
    details = {"keys": budget.keys} | spread(values) | {"values": values}
    summary = f"the best of {budget.keys} random keys"
    return Result(max(values), summary, details, chosen_on_test=len(values) > 1)
