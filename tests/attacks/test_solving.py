"""Whatever a pair tells, the key that is solved for it fits it, and certain positions are right."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkey.attacks.cipher_parts import agreement
from segkey.attacks.known_pair import NoPairError, solve
from segkey.crypto import ciphers
from segkey.crypto.keys import Key

OTHER = Key(bytes(32))  # that of the cipher an attacker begins with


@st.composite
def problems(draw):
    """A block size, channels, and small images of few values, so that much cannot be told."""
    m, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    values = draw(st.lists(st.integers(0, 255), min_size=1, max_size=4, unique=True))
    shape = (draw(st.integers(1, 2)), channels, m * draw(st.integers(1, 2)), m)
    seed = draw(st.integers(0, 2**32 - 1))
    images = np.random.default_rng(seed).choice(np.array(values, np.uint8), shape)
    return m, channels, images, seed, values


@functools.cache
def unknown(method, m, channels, password=None):
    """What an attacker begins with."""
    return ciphers.from_key(method, OTHER, m, channels, password)


def owners(method, m, channels, seed, values, password=None):
    """A random cipher; FFX's table keeps half of the values, which no real one does so often."""
    draw, made = np.random.default_rng(seed), unknown(method, m, channels, password)
    n = channels * m * m
    parts = {"permutation": draw.permutation(n), "selected": draw.permutation(n) < n // 2}
    parts["values"] = draw.permutation(1000)[:256].astype(np.uint16)
    for value in values[::2]:
        parts["values"][parts["values"] == value] = parts["values"][value]
        parts["values"][value] = value
    secret = set(made.PARTS) - ({"values"} if password else set())
    return made.with_parts(**{name: parts[name] for name in secret})


@pytest.mark.parametrize(
    ("method", "password"),
    [("shf", None), ("np", None), ("shf+np", None), ("ffx", None), ("ffx", b"fixed")],
)
@given(problem=problems())
def test_the_key_that_is_solved_fits_and_is_right_where_it_is_certain(method, password, problem):
    m, channels, images, seed, values = problem
    own = owners(method, m, channels, seed, values, password)
    encrypted = own.encrypt(images)
    found, certain = solve(unknown(method, m, channels, password), images, encrypted)
    assert np.array_equal(found.encrypt(images), encrypted)
    agreed = agreement(own, found)
    assert set(certain) == set(agreed)
    for part, share in certain.items():
        assert 0 <= share <= agreed[part] + 1e-12


@pytest.mark.parametrize("method", ["shf", "np", "shf+np", "ffx"])
@given(problem=problems())
def test_more_pairs_never_tell_less(method, problem):
    m, channels, images, seed, values = problem
    own = owners(method, m, channels, seed, values)
    noise = np.random.default_rng(1).integers(0, 256, images.shape, np.uint8)
    more = np.concatenate([images, noise])
    first, both = (solve(own, each, own.encrypt(each))[1] for each in (images, more))
    assert all(both[part] >= first[part] for part in first)


@pytest.mark.parametrize("method", ["shf", "np", "shf+np", "ffx"])
def test_a_value_that_no_key_can_make_is_a_contradiction(method):
    own = ciphers.from_key(method, OTHER, 2)
    images = np.random.default_rng(2).integers(0, 256, (2, 3, 8, 8), np.uint8)
    encrypted = own.encrypt(images)
    block = encrypted[1, :, 4:6, 2:4]
    block[...] = np.where(block == 255, 254, block + 1)
    with pytest.raises(NoPairError, match="row 2, column 1 of pair 2") as refused:
        solve(own, images, encrypted)
    assert "its own encrypted twin" in refused.value.hint
