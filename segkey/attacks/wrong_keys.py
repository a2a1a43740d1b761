"""Plain images and random wrong keys: the paper's section 4.2, and what its mean does not show."""

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np

from segkey.attacks.key_parts import random_key
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.subject import Subject
from segkey.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.pictures import seeded


def wrong_ciphers(own: Cipher, seed: int) -> Iterator[Cipher]:
    """Ciphers of random keys, none of which means what the owner's does; without end, decided by ``seed``.

    A wrong key that means the owner's transformation by chance (1 in 924 for NP at M = 2) is passed over.
    A fixed FFX password is known to the attacker. Where there is a single key, there is no wrong one.

    Raises:
        SegkeyError: a protected method whose block size leaves it a single key.
    """
    if own.method == "none":
        return
    if own.key_space_bits == 0:
        raise SegkeyError(f"{own.method} with M = {own.block_size} has a single key", "take a larger block size")
    number = 0
    while True:
        cipher, number = own.rekeyed(random_key("segkey-wrong-key", seed, number)), number + 1
        if not cipher.same_as(own):
            yield cipher


def _wrong_scores(subject: Subject, keys: int, seed: int) -> list[float]:
    """Mean IoU with each of some wrong keys; for a model without a key, every key is as good as none."""
    values = [
        subject.judge(f"wrong key {seed}/{number}", cipher)["mean_iou"]
        for number, cipher in enumerate(islice(wrong_ciphers(subject.cipher, seed), keys))
    ]
    return values or [subject.judge("plain", None)["mean_iou"]] * keys


def correct_plain_incorrect(subject: Subject, wrong_keys: int = 100, seed: int = 0) -> dict:
    """Correct key, plain images, and random wrong keys: the paper's section 4.2.

    Args:
        subject: the model under attack.
        wrong_keys: how many.
        seed: decides the wrong keys.

    Returns:
        The document described in segkey/FORMATS.md: ``correct``, ``plain``, ``incorrect``, ``key_space_bits`` and more.
    """
    if wrong_keys < 1:
        raise SegkeyError(f"{wrong_keys} wrong keys are too few", "give at least 1 with --wrong-keys")
    own, images = subject.cipher, len(subject.feed)
    with subject.task("attack", images * (2 + (wrong_keys if subject.protected else 0))):
        correct, plain = dict(subject.correct()), dict(subject.judge("plain", None))
        values = _wrong_scores(subject, wrong_keys, seed)
    constant, constant_iou = correct.pop("constant")
    plain.pop("constant")
    return {
        "run": subject.run.name,
        "method": own.method,
        "block_size": own.block_size,
        "split": subject.feed.split.header.split,
        "images": images,
        "correct": correct,
        "plain": plain,
        "incorrect": {"keys": wrong_keys} | spread(values) | {"values": values},
        "constant": {"class": constant, "mean_iou": constant_iou},
        "key_space_bits": own.key_space_bits,
        "seed": seed,
        "device": subject.settings["device"],
    }


def spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation (of the sample; 0 for one value), least and largest."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return {"mean": mean, "std": math.sqrt(variance), "min": min(values), "max": max(values)}


@attack("plain", "nothing else; the largest value stands in the model's file")
def plain(subject: Subject, budget: Budget, seed: int) -> Result:
    """Feed plain images, divided by 255 and by the method's largest value; the better is the keyless score."""
    with subject.task("plain", len(subject.feed) * (1 + (subject.cipher.max_value != 255))):
        found = {divisor: scores["mean_iou"] for divisor, scores in subject.plain().items()}
    best = max(found, key=found.get)
    return Result(
        found[best],
        f"plain images, divided by {best}",
        {"by_divisor": {str(divisor): value for divisor, value in found.items()}},
    )


@attack("wrong-keys", "the method and M")
def wrong_keys(subject: Subject, budget: Budget, seed: int) -> Result:
    """Random keys: how they spread, and how good the best of many more would be."""
    with subject.task("wrong keys", len(subject.feed) * budget.keys):
        values = _wrong_scores(subject, budget.keys, seed)
    quantiles = {f"{percent} %": float(np.quantile(values, percent / 100)) for percent in (5, 25, 50, 75, 95)}
    best_of = {str(budget.keys * factor): best_of_many(values, budget.keys * factor, seed) for factor in (1, 10, 100)}
    details = {"keys": budget.keys} | spread(values) | {"quantiles": quantiles, "best_of": best_of, "values": values}
    return Result(max(values), f"the best of {budget.keys} random keys", details)


_TAIL = 0.25  # the part of the scores that a tail is fitted to
_LEAST_FOR_TAIL = 40  # scores, for the tail to hold ten of them


def best_of_many(values: list[float], keys: int, seed: int = 0) -> dict[str, float] | None:
    """The expected best mean IoU of ``keys`` random keys, from the scores of some.

    Beyond the number of scores, this extrapolates: a generalised Pareto distribution is fitted to their best quarter
    by probability-weighted moments (Hosking and Wallis 1987), and the bootstrap gives its uncertainty.

    Args:
        values: mean IoU of random keys.
        keys: how many keys are drawn.
        seed: of the bootstrap.

    Returns:
        ``mean``, and ``low`` and ``high``, the 5 % and 95 % quantiles of the bootstrap; None where the scores are too
        few (below 40) to look beyond their number.
    """
    scores = np.sort(np.asarray(values, np.float64))
    if keys > len(scores) and len(scores) < _LEAST_FOR_TAIL:
        return None
    generator = seeded("bootstrap", seed, keys)
    samples = (np.sort(generator.choice(scores, len(scores))) for _ in range(200))
    expected = _expected_best(scores, keys)
    low, high = np.quantile([_expected_best(sample, keys) for sample in samples], (0.05, 0.95))
    return {"mean": expected, "low": float(min(low, expected)), "high": float(max(high, expected))}


def _expected_best(scores: np.ndarray, keys: int) -> float:
    """Of sorted scores; never below the best of them where more keys are drawn than there are scores."""
    if keys <= len(scores) or scores[0] == scores[-1]:
        return float(scores[-1])
    count = max(2, round(len(scores) * _TAIL))
    threshold = (scores[-count - 1] + scores[-count]) / 2
    excess = scores[-count:] - threshold
    mean = excess.mean()
    weighted = ((1 - (np.arange(1, count + 1) - 0.35) / count) * excess).mean()
    shape = mean / (mean - 2 * weighted) - 2  # above 0: the tail ends; below: it is heavier than exponential
    scale = 2 * mean * weighted / (mean - 2 * weighted)
    above = np.linspace(0, 1 - threshold, 4001)  # a mean IoU is at most 1
    survival = np.exp(-above / scale) if abs(shape) < 1e-06 else np.maximum(1 - shape * above / scale, 0) ** (1 / shape)
    # The mean of the largest is the integral of the probability that it is larger.
    larger = 1 - (1 - count / len(scores) * survival) ** keys
    return float(max(threshold + (larger[1:] + larger[:-1]) @ np.diff(above) / 2, scores[-1]))
