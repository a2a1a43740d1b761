"""What must agree before numbers are compared, and how differences are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkey.model import comparability as c

VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(0, 1)
CONDITIONS = st.dictionaries(st.sampled_from(["size", "epochs", "lr", "classes"]), VALUES)


@given(CONDITIONS, CONDITIONS)
def test_a_difference_is_told_exactly_where_the_keys_differ(one, other):
    assert (c.key(one) == c.key(other)) == (c.differences(one, other) == [])
    assert len(c.differences(one, other)) == len(c.differences(other, one))
    assert c.key(one) == c.key(dict(reversed(one.items())))
    assert (c.varying([one, other]) == []) == (c.key(one) == c.key(other))
    assert c.varying([one]) == c.varying([one, one]) == []


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"size": "64x64"}, {"size": "64x64"}, []),
        ({"size": "64x64"}, {"size": "32x32"}, ["size 64x64 (not 32x32)"]),
        ({"lr": 0.1}, {"lr": None}, ["lr not recorded there"]),
        ({}, {"lr": 0.1}, ["lr not recorded"]),
        ({"lr": None}, {}, []),
        ({"augmented": True}, {"augmented": False}, ["augmented"]),
        ({"augmented": False}, {"augmented": True}, ["not augmented"]),
        ({"classes": ["a"]}, {"classes": ["b"]}, ["other classes"]),
        ({"test masks": "ab"}, {"test masks": "cd"}, ["other test images"]),
        ({"epochs": 1}, {"epochs": True}, ["epochs 1 (not true)"]),
        ({"weights": "x" * 99}, {"weights": "y"}, [f"weights {'x' * 57}… (not y)"]),
        (
            {"a": 1, "b": 2},
            {"b": 3, "c": 4},
            ["a not recorded there", "b 2 (not 3)", "c not recorded"],
        ),
    ],
)
def test_differences_in_words(one, other, told):
    assert c.differences(one, other) == told


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lr", 0.1, "lr 0.1"),
        ("lr", None, "lr not recorded"),
        ("compiled", True, "compiled"),
        ("compiled", False, "not compiled"),
        ("classes", ["a", "b"], "other classes"),
        ("class weights", [1, 2], "class weights [1, 2]"),
    ],
)
def test_a_condition_in_words(name, value, words):
    assert c.in_words(name, value) == words


def test_many_differences_are_counted_beyond_six():
    differing = [f"d{n}" for n in range(9)]
    assert c.joined(differing[:6]) == "d0, d1, d2, d3, d4, d5"
    assert c.joined(differing) == "d0, d1, d2, d3, d4, d5 and 3 more"
    assert c.joined(differing, most=1) == "d0 and 8 more"
    assert c.joined([]) == ""


@pytest.mark.parametrize(
    ("version", "part"),
    [
        ("2.11.0+cu130", "2"),
        ("0.1.0", "0.1"),
        ("0.0.3", "0.0.3"),
        ("0.12", "0.12"),
        ("10", "10"),
        ("0", "0"),
        ("x", None),
        ("", None),
        (None, None),
        (2, None),
    ],
)
def test_the_significant_part_of_a_version(version, part):
    assert c.significant(version) == part


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("cpu, 2 threads", "cpu"),
        ("cpu, 1 thread", "cpu"),
        ("NVIDIA H100", "NVIDIA H100"),
        ("cpu, 2 threads, tested on cpu, 16 threads", "cpu, tested on cpu"),
        (None, None),
        (5, None),
    ],
)
def test_the_number_of_threads_is_no_condition(device, kind):
    assert c.device_kind(device) == kind
