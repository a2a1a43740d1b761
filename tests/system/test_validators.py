"""Kinds of values in untrusted documents: what fits at the ends of each range, and what does
not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkey.system import validators
from segkey.system.validators import shown

FITS = {
    "whole": (
        validators.whole(2, 5),
        [2, 5],
        [1, 6, 2.0, "2", True, None, float("nan"), [2], 10**400],
        "a whole number from 2 to 5",
    ),
    "whole without an end": (
        validators.whole(),
        [0, 2**63 - 1],
        [-1, 2**63, False],
        "a whole number from 0 on",
    ),
    "number": (
        validators.number(0, 1),
        [0, 1, 0.5, -0.0],
        [-1e-9, 1.0000001, math.nan, math.inf, -math.inf, True, "0", None],
        "a number from 0 to 1",
    ),
    "number above": (
        validators.number(0, 1, above=True),
        [1e-300, 1],
        [0, -0.0],
        "a number above 0 and up to 1",
    ),
    "any number": (
        validators.number(),
        [-1e15, 1e15],
        [1.1e15, math.inf, math.nan, 10**400],
        "a number",
    ),
    "text": (
        validators.text(3, 1),
        ["a", "äöü", "a b"],
        ["", "abcd", "a\n", "\x1b", "a\u202eb", None, 5, b"a"],
        "printable text of 1 to 3 characters",
    ),
    "one of": (
        validators.one_of(("a", "b")),
        ["a"],
        ["c", "", None, ["a"], {}],
        "one of those that this segkey knows",
    ),
    "many": (
        validators.many(validators.whole(0, 1), 2, 1),
        [[0], (1, 0)],
        [[], [0, 1, 0], [2], [0, None], "01", {0: 1}, None],
        "a list of 1 to 2 values, each a whole number from 0 to 1",
    ),
    "named": (
        validators.named(validators.YES_OR_NO, 2),
        [{}, {"a": True, "b": False}],
        [{"a": 1}, {"": True}, {"a\n": True}, {1: True}, {"a": True, "b": True, "c": True}, []],
        "an object with values that are true or false",
    ),
    "or none": (
        validators.or_none(validators.whole(1)),
        [None, 1],
        [0, False, ""],
        "a whole number from 1 on, or null",
    ),
    "path": (
        validators.PATH,
        ["a", "/ \n odd", "x" * 4096],
        ["", "a\0b", "x" * 4097, None, 3],
        "a path",
    ),
    "hex": (
        validators.HEX_64,
        ["0123456789abcdef" * 4],
        ["0123456789ABCDEF" * 4, "0" * 63, "0" * 65, "0" * 64 + "\n", 0],
        "64 hex digits",
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_what_fits_a_kind_and_what_does_not(name):
    kind, fitting, others, words = FITS[name]
    assert [value for value in fitting if not kind.fits(value)] == []
    assert [value for value in others if kind.fits(value)] == []
    assert kind.words == words


def test_a_collection_that_grows_is_looked_at_anew():
    known = {"a": 1}
    kind = validators.one_of(known)
    assert not kind.fits("b")
    known["b"] = 2
    assert kind.fits("b")


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_a_value_in_a_message_is_short_and_visible(value):
    assert len(shown(value)) <= 41
    assert shown(value).isprintable()


def test_values_that_python_refuses_to_print_are_told_in_words():
    assert shown(10**10_000) == "something very large"
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "something very large"
    while deep:  # taken apart, as Python's own way to do so is recursive
        deep = deep.pop()
