"""One pair gives the key away; two images that do not belong together do not."""

from pathlib import Path

import numpy as np
import pytest

from segkey import attacks
from segkey.attacks.known_pair import NoPairError, blocks_of, solve
from segkey.crypto import ciphers
from segkey.model import evaluation_splits


def test_blocks_are_those_of_the_ciphers(photographs, key):
    cipher = ciphers.from_key("shf", key, 4)
    x, y = blocks_of(photographs, 4), blocks_of(cipher.encrypt(photographs), 4)
    assert np.array_equal(y, x[:, cipher.permutation])


@pytest.mark.parametrize(
    "method, password", [("np", None), ("ffx", b"fixed"), ("shf", None), ("shf+np", None)]
)
@pytest.mark.parametrize("block_size", [2, 4, 16])
def test_one_textured_pair_gives_the_whole_key(photographs, key, method, password, block_size):
    own = ciphers.from_key(method, key, block_size, 3, password)
    found, certain = solve(
        own.rekeyed(type(key)(bytes(32))), photographs[:1], own.encrypt(photographs[:1])
    )
    assert found.same_as(own)
    assert set(certain.values()) == {1.0}


def test_a_derived_ffx_table_is_known_where_its_values_occur(photographs, key):
    own = ciphers.from_key("ffx", key, 4)
    found, certain = solve(own, photographs[:1], own.encrypt(photographs[:1]))
    seen = np.unique(blocks_of(photographs[:1], 4)[:, own.selected])
    assert np.array_equal(found.selected, own.selected)
    assert np.array_equal(found.values[seen], own.values[seen])
    assert certain == {"selected": 1.0, "values": len(seen) / 256}


def test_a_large_permutation_takes_some_pairs(photographs, key):
    own = ciphers.from_key("shf", key, 64)
    parts = [
        solve(own, photographs[:n], own.encrypt(photographs[:n]))[1]["permutation"]
        for n in (1, 2, 8)
    ]
    assert parts[0] < 0.1 < parts[1] < parts[2]
    assert parts[2] > 0.95


@pytest.mark.parametrize(
    "method, password",
    [("np", None), ("ffx", b"fixed"), ("ffx", None), ("shf", None), ("shf+np", None)],
)
def test_what_cannot_be_told_is_filled_so_that_the_pair_still_fits(key, method, password):
    flat = np.full((1, 3, 8, 8), 100, np.uint8)
    own = ciphers.from_key(method, key, 4, 3, password)
    found, certain = solve(own, flat, own.encrypt(flat))
    assert np.array_equal(found.encrypt(flat), own.encrypt(flat))
    if method == "shf":
        assert certain == {"permutation": 0.0}


@pytest.mark.parametrize(
    "method, password",
    [("np", None), ("ffx", b"fixed"), ("ffx", None), ("shf", None), ("shf+np", None)],
)
def test_the_first_block_that_contradicts_is_named(photographs, key, method, password):
    own = ciphers.from_key(method, key, 8, 3, password)
    encrypted = own.encrypt(photographs[:2])
    spoiled = encrypted.copy()
    spoiled[1, :, 16:24, 40:48] = own.encrypt(photographs[5:6])[0, :, 16:24, 40:48]
    with pytest.raises(NoPairError, match="row 2, column 5 of pair 2"):
        solve(own, photographs[:2], spoiled)
    with pytest.raises(NoPairError, match="row 0, column 0"):
        solve(own, photographs[:1], own.encrypt(photographs[1:2]))
    with pytest.raises(NoPairError, match="different sizes"):
        solve(own, photographs[:1, :, :32], encrypted[:1])


def test_none_has_nothing_to_solve(photographs):
    plain = ciphers.from_key("none", None, 1)
    assert solve(plain, photographs, photographs)[1] == {}
    with pytest.raises(NoPairError):
        solve(plain, photographs[:1], photographs[1:2])


def test_the_attack_opens_the_model(target):
    result = attacks.ATTACKS["known-pair"].function(target, attacks.Budget(), 0)
    assert result.mean_iou == target.correct().mean_iou
    assert [line["found"] for line in result.details["by_pairs"]] == [True, True, True]


def test_a_pair_that_is_given(np_run, attacked, learnable):
    item = learnable.splits["test"][0]
    folder = np_run.configuration.data.shards[0]
    pair = evaluation_splits.read_pair(np_run, item.image, Path(folder) / "test.h5")
    result = attacks.ATTACKS["known-pair"].function(
        attacked(np_run, pair=pair), attacks.Budget(), 0
    )
    assert result.details["pairs_from"] == "given"
    assert result.details["by_pairs"][0]["found"]
