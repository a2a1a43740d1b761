"""Guesses at parts of a key: what they share with it, and that they stay keys of the method."""

import numpy as np
import pytest

from segkey.attacks.cipher_parts import (
    DIGITS,
    agreement,
    blocks_of,
    changeable,
    changed,
    grid_of_blocks,
    random_key,
    secret_parts,
    sharing,
)
from segkey.crypto import ciphers
from segkey.crypto.keys import Key

KEY = Key(bytes(range(32)))
METHODS = ("shf", "np", "ffx", "shf+np")


def cipher(method: str, m: int = 4, channels: int = 3, password: bytes | None = None):
    return ciphers.from_key(method, KEY, m, channels, password)


def assert_is_a_key(made, own) -> None:
    """Every part is one that some key of the method could have."""
    for name in own.PARTS:
        part, mine = getattr(made, name), getattr(own, name)
        assert part.shape == mine.shape
        assert part.dtype == mine.dtype
        if name == "permutation":
            assert sorted(part) == list(range(part.size))
        elif name == "selected":
            assert part.sum() == mine.sum()
        else:
            assert len(set(part.tolist())) == 256
            assert 0 <= part.min() <= part.max() < DIGITS


@pytest.mark.parametrize(
    ("method", "password", "parts"),
    [
        ("none", None, ()),
        ("shf", None, ("permutation",)),
        ("np", None, ("selected",)),
        ("ffx", None, ("selected", "values")),
        ("ffx", b"fixed", ("selected",)),
        ("shf+np", None, ("permutation", "selected")),
    ],
)
def test_a_fixed_password_leaves_only_the_selection_secret(method, password, parts):
    assert secret_parts(cipher(method, password=password)) == parts


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("m", "channels"), [(1, 3), (3, 1), (4, 3)])
@pytest.mark.parametrize("method", METHODS)
def test_a_shared_part_is_right_at_least_where_it_is_given(method, m, channels, share):
    own = cipher(method, m, channels)
    for seed in range(5):
        made = sharing(own, share, np.random.default_rng(seed))
        assert_is_a_key(made, own)
        for name, agreed in agreement(own, made).items():
            size = getattr(own, name).size
            assert agreed >= round(share * size) / size
    assert sharing(own, 1.0, np.random.default_rng(0)).same_as(own)


def test_what_is_not_given_is_drawn_at_random():
    """A selection is right by chance at half of the positions, a permutation at one."""
    own, found = cipher("shf+np", 8), {"permutation": [], "selected": []}
    for seed in range(40):
        made = sharing(own, 0.0, np.random.default_rng(seed))
        for name, agreed in agreement(own, made).items():
            found[name].append(agreed)
    assert np.mean(found["selected"]) == pytest.approx(0.5, abs=0.02)
    assert np.mean(found["permutation"]) * 192 == pytest.approx(1, abs=0.6)


@pytest.mark.parametrize("pairs", [0, 1, 3, 10_000])
@pytest.mark.parametrize("method", METHODS)
def test_a_change_moves_two_positions_for_each_pair_of_one_part(method, pairs):
    own = cipher(method)
    for seed in range(8):
        made = changed(own, pairs, np.random.default_rng(seed))
        assert_is_a_key(made, own)
        moved = {
            name: round((1 - agreed) * getattr(own, name).size)
            for name, agreed in agreement(own, made).items()
        }
        assert sum(count > 0 for count in moved.values()) == (pairs > 0)
        most = max(getattr(own, name).size // 2 * 2 for name in moved)
        assert sum(moved.values()) in {min(2 * pairs, most), min(2 * pairs, 48)}


def test_the_owners_cipher_is_never_changed_by_guesses():
    for method in METHODS:
        own, same = cipher(method), cipher(method)
        for seed in range(3):
            sharing(own, 0.3, np.random.default_rng(seed))
            changed(own, 2, np.random.default_rng(seed))
        assert own.same_as(same)
        assert sharing(own, 0.5, np.random.default_rng(0)).key_id == ""


def test_guesses_depend_on_their_generator_alone():
    own = cipher("ffx")
    one, other = (sharing(own, 0.5, np.random.default_rng(7)) for _ in range(2))
    assert one.same_as(other)
    assert not one.same_as(sharing(own, 0.5, np.random.default_rng(8)))


def test_parts_of_a_method_of_ones_own_are_refused_by_name():
    class Odd(ciphers.Cipher):
        method, PARTS = "odd", ("permutation", "rotor", "angle")

    assert changeable(Odd(2, 3)).endswith("a part of a key like angle, rotor")
    assert changeable(cipher("shf+np")) == ""


def test_random_keys_follow_from_their_label():
    assert random_key("a", 1) == random_key("a", 1) == random_key("a/1")
    assert len({random_key("a", n).id for n in range(50)}) == 50


@pytest.mark.parametrize(("n", "c", "m", "rows", "columns"), [(2, 3, 2, 3, 1), (1, 1, 4, 1, 2)])
def test_blocks_are_flattened_channel_first_image_by_image_row_by_row(n, c, m, rows, columns):
    images = np.arange(n * c * m * rows * m * columns).reshape(n, c, m * rows, m * columns)
    blocks = blocks_of(images, m)
    expected = [
        [
            images[image, channel, m * row + i, m * column + j]
            for channel in range(c)
            for i in range(m)
            for j in range(m)
        ]
        for image in range(n)
        for row in range(rows)
        for column in range(columns)
    ]
    assert np.array_equal(blocks, expected)
    assert grid_of_blocks(images, m).shape == (n, rows, columns, c, m, m)


@pytest.mark.parametrize("method", ["shf", "np", "shf+np"])
def test_blocks_are_those_that_ciphers_transform(method):
    own = cipher(method, 2)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 6), dtype=np.uint8)
    x, y = blocks_of(images, 2), blocks_of(own.encrypt(images), 2)
    if "permutation" in own.PARTS:
        x = x[:, own.permutation]
    if "selected" in own.PARTS:
        x = np.where(own.selected, 255 - x, x)
    assert np.array_equal(x, y)
