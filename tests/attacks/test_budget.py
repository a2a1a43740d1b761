"""Budgets that buy nothing are refused with the option that helps; attacks are registered once."""

import math

import pytest

from segkey.attacks import registry
from segkey.attacks.registry import ATTACKS, Budget
from segkey.attacks.suite import known, recovered
from segkey.attacks.wrong_keys import spread
from segkey.errors import SegkeyError
from segkey.model.results import ACCESS, MODEL


@pytest.mark.parametrize(
    ("values", "what", "hint"),
    [
        ({"keys": 0}, "0 keys are too few for an attack", "at least 1 with --wrong-keys"),
        ({"queries": 9}, "9 queries are too few", "at least 10 with --queries"),
        ({"images": 1}, "1 image is too few", "at least 2 with --attacker-images"),
        ({"epochs": 0}, "0 epochs are too few", "at least 1 with --epochs"),
        ({"steps": -1}, "-1 steps are too few", "give at least 1"),
        ({"per_level": 0}, "0 keys per level are too few", "at least 1 with --per-level"),
        ({"percents": ()}, "between 0 and 100, not none", "--fine-tune 1 … 100"),
        ({"percents": (5, 0)}, "between 0 and 100, not 5, 0", "--fine-tune"),
        ({"percents": (100.5,)}, "between 0 and 100, not 100.5", "--fine-tune"),
        ({"percents": (math.nan,)}, "between 0 and 100, not nan", "--fine-tune"),
        ({"pairs": ()}, "needs at least one", "pairs from 1 on"),
        ({"pairs": (3, 0)}, "needs at least one", "pairs from 1 on"),
    ],
    ids=str,
)
def test_what_buys_nothing_is_refused(values, what, hint):
    with pytest.raises(SegkeyError, match=what) as refused:
        Budget(**values)
    assert hint in refused.value.hint


def test_the_least_that_is_allowed_is_allowed():
    least = Budget(
        keys=1, queries=10, images=2, epochs=1, steps=1, percents=(100,), pairs=(1,), per_level=1
    )
    assert least.document["percents"] == (100,)


def test_results_name_the_file_of_public_weights_without_its_folder():
    assert Budget(public_weights="/home/me/secret project/w.pth").document["public_weights"] == (
        "w.pth"
    )
    assert Budget().document["public_weights"] is None


def test_every_attack_says_what_its_attacker_knows_and_needs():
    for name, each in ATTACKS.items():
        assert each.name == name
        assert each.attacker_knowledge.strip()
        assert each.required_access in ACCESS
        assert known(name) is each


def test_an_unknown_attack_is_answered_with_those_there_are():
    with pytest.raises(SegkeyError, match="there is no attack 'guess'") as refused:
        known("guess")
    assert all(name in refused.value.hint for name in ATTACKS)


def test_an_attack_of_ones_own_has_a_name_of_its_own(monkeypatch):
    monkeypatch.setattr(registry, "ATTACKS", dict(ATTACKS))

    @registry.attack("segkey-test-own", "nothing")
    def mine(target, budget, seed):
        """Give up."""

    made = registry.ATTACKS["segkey-test-own"]
    assert (made.function, made.required_access, made.obstacle(None)) == (mine, MODEL, "")
    with pytest.raises(ValueError, match="there is an attack 'plain' already"):
        registry.attack("plain", "")(mine)
    assert registry.ATTACKS["plain"].function is not mine


@pytest.mark.parametrize(
    ("reached", "without", "correct", "share"),
    [
        (0.8, 0.2, 0.8, 1.0),
        (0.2, 0.2, 0.8, 0.0),
        (0.5, 0.2, 0.8, 0.5),
        (0.1, 0.2, 0.8, -1 / 6),
        (0.95, 0.2, 0.8, 1.25),
    ],
)
def test_recovered_is_the_share_of_the_way_to_the_correct_key(reached, without, correct, share):
    assert recovered(reached, without, correct) == pytest.approx(share)


@pytest.mark.parametrize("reached", [0.1, 0.5, 0.9])
def test_where_the_key_is_worth_nothing_recovered_is_a_number_all_the_same(reached):
    assert math.isfinite(recovered(reached, 0.5, 0.5))
    assert math.isfinite(recovered(reached, 0.5, 0.4))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (None, None, None, None)),
        ([0.25], (0.25, 0.0, 0.25, 0.25)),
        ([0.1, 0.3], (0.2, 0.1 * 2**0.5, 0.1, 0.3)),
        ([0.3, 0.3, 0.3], (0.3, 0.0, 0.3, 0.3)),
    ],
)
def test_the_spread_of_wrong_keys_is_that_of_a_sample(values, expected):
    found = spread(values)
    assert list(found) == ["mean", "std", "min", "max"]
    assert [found[name] for name in found] == [
        None if each is None else pytest.approx(each) for each in expected
    ]
