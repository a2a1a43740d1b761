"""The ciphers against golden bytes, against the paper's steps in plain loops, and back again."""

import functools
import hashlib
import math
import pickle

import numpy as np
import pyffx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkey.crypto import ciphers
from segkey.crypto.ciphers.base import band_height
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError

KEY = Key(bytes(range(32)))
OTHER = Key(bytes(32))
METHODS = ["none", "shf", "np", "ffx", "shf+np"]

every_method = pytest.mark.parametrize("method", METHODS)
containers = pytest.mark.parametrize(
    "container", [np.asarray, torch.from_numpy], ids=["numpy", "torch"]
)


def picture(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


GOLDEN_TABLES = {
    None: (
        998,
        [903, 548, 338, 902],
        "264ac7bd191bb65bf73bb2452a5de7ad2606960044a62f95f20ffc952380b9f5",
    ),
    b"fixed": (
        996,
        [463, 436, 425, 39],
        "17aaa9f84ee330f8168cf14c8e45a3a22db435ed4bd44acb9c8faf62099e7c6e",
    ),
}


@pytest.mark.parametrize("password", GOLDEN_TABLES, ids=["derived", "fixed"])
def test_golden_ffx_table(password):
    cipher = ciphers.from_key("ffx", KEY, 2, password=password)
    digest = hashlib.sha256(cipher.values.astype("<u2").tobytes()).hexdigest()
    assert (cipher.max_value, cipher.values[:4].tolist(), digest) == GOLDEN_TABLES[password]
    assert cipher.values.shape == (256,)
    assert cipher.max_value == cipher.values.max()


GOLDEN_IMAGES = {
    "none": "0 10 20 30 40 50 60 70 80 90 100 110 120 130 140 150 160 170 180 190 200 210 220 230",
    "shf": "210 200 230 220 40 10 60 30 170 50 190 70 130 90 150 110 160 80 180 100 0 120 20 140",
    "np": "0 245 20 225 215 50 195 70 175 165 155 145 120 130 140 150 95 170 75 190 200 45 220 25",
    "ffx": "903 10 502 30 279 483 845 533 80 90 100 110 569 130 233 150 597 139 632 612 200 210 "
    "220 230",
    "shf+np": "50 215 70 195 95 170 75 190 45 55 25 35 130 80 150 100 0 135 20 115 245 90 225 110",
}


@every_method
def test_golden_image(method):
    image = np.arange(0, 240, 10, dtype=np.uint8).reshape(3, 2, 4)
    encrypted = ciphers.from_key(method, KEY, 2).encrypt(image)
    assert " ".join(map(str, encrypted.reshape(-1))) == GOLDEN_IMAGES[method]


feistel = functools.cache(pyffx.Integer(KEY.ffx_password(), length=3).encrypt)


def transform(method, x, permutation, m):
    if method == "shf+np":  # the second secret has a label of its own
        shuffled = [x[place] for place in permutation]
        second = KEY.permutation("shf+np/np", m, len(x) // m**2).tolist()
        return transform("np", shuffled, second, m)
    half = set(permutation[: len(x) // 2])
    change = {"none": lambda value: value, "np": lambda value: 255 - value, "ffx": feistel}
    if method == "shf":
        return [x[place] for place in permutation]
    return [change[method](value) if place in half else value for place, value in enumerate(x)]


def naive(method, image, m):
    c, height, width = image.shape
    out, permutation = np.zeros(image.shape, dtype=int), KEY.permutation(method, m, c).tolist()
    for top in range(0, height, m):  # 1. cut into blocks
        for left in range(0, width, m):
            places = [(k, top + i, left + j) for k in range(c) for i in range(m) for j in range(m)]
            x = [int(image[place]) for place in places]  # 2. flatten, channel first
            y = transform(method, x, permutation, m)  # 3. transform with the same key
            for place, value in zip(places, y, strict=True):  # 4. put back
                out[place] = value
    return out


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 8])
@every_method
def test_encrypt_is_the_papers_four_steps(method, block_size, channels):
    cipher = ciphers.from_key(method, KEY, block_size, channels)
    for rows, columns in [(2, 3), (3, 2), (1, 1)]:  # one cipher, pictures of several sizes
        image = picture(channels, rows * block_size, columns * block_size)
        encrypted = cipher.encrypt(image)
        assert np.array_equal(encrypted, naive(method, image, block_size))
        assert encrypted.dtype == cipher.dtype
        assert encrypted.max() <= cipher.max_value


@st.composite
def problems(draw):
    m, c = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    height, width = m * draw(st.integers(1, 4)), m * draw(st.integers(1, 4))
    leading = draw(st.lists(st.integers(1, 3), max_size=2))
    return m, c, draw(hnp.arrays(np.uint8, (*leading, c, height, width)))


@containers
@every_method
@settings(max_examples=50, deadline=None, derandomize=True)
@given(problem=problems(), secret=st.binary(min_size=32, max_size=32))
def test_round_trip(method, container, problem, secret):
    m, c, array = problem
    images, before = container(array), array.copy()
    cipher = ciphers.from_key(method, Key(secret), m, c)
    encrypted = cipher.encrypt(images)
    seen = np.asarray(encrypted).copy()
    decrypted = cipher.decrypt(encrypted)
    assert type(encrypted) is type(decrypted) is type(images)
    assert np.asarray(encrypted).dtype == cipher.dtype
    assert decrypted.dtype == images.dtype
    assert encrypted.shape == images.shape
    assert np.array_equal(np.asarray(decrypted), before)
    # The inputs are as they were, and the results have memory of their own.
    assert np.array_equal(array, before)
    assert np.array_equal(np.asarray(encrypted), seen)
    assert not np.shares_memory(array, encrypted)
    assert not np.shares_memory(encrypted, decrypted)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=["CHW", "NCHW", "ABCHW"])
@every_method
def test_images_of_a_batch_are_encrypted_each_by_itself(method, leading):
    images, cipher = picture(*leading, 3, 4, 6), ciphers.from_key(method, KEY, 2)
    encrypted = cipher.encrypt(images)
    assert encrypted.shape == images.shape
    assert all(
        np.array_equal(encrypted[i], cipher.encrypt(images[i])) for i in np.ndindex(*leading)
    )


LAYOUTS = {
    "channels last": picture(2, 8, 8, 3).transpose(0, 3, 1, 2),
    "strided": picture(2, 3, 16, 16)[..., ::2, ::2],
    "reversed": picture(2, 3, 8, 8)[::-1, ::-1, :, ::-1],
    "broadcast": np.broadcast_to(picture(3, 8, 8), (2, 3, 8, 8)),
    "read-only": np.frombuffer(picture(2, 3, 8, 8).tobytes(), np.uint8).reshape(2, 3, 8, 8),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@every_method
def test_any_memory_layout(method, layout):
    images, cipher = LAYOUTS[layout], ciphers.from_key(method, KEY, 4)
    encrypted = cipher.encrypt(images)
    assert np.array_equal(encrypted, cipher.encrypt(images.copy("C")))
    assert np.array_equal(cipher.decrypt(np.asfortranarray(encrypted)), images)


@pytest.mark.parametrize("password", [b"password", b"", b"123456"])
def test_ffx_brings_all_256_values_back(password):
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    cipher = ciphers.FFX(np.ones(1), 1, password)
    encrypted = cipher.encrypt(image)
    assert len(np.unique(encrypted)) == 256
    assert np.array_equal(cipher.decrypt(encrypted), image)


@pytest.mark.parametrize(
    "arguments, message, hint",
    [
        (("rot13", KEY, 2), "no method 'rot13'", "none, shf, np, ffx, shf+np"),
        (("shf", KEY, 0), "3x0x0 are not possible", "at least 1"),
        (("np", KEY, -4), "3x-4x-4 are not possible", "at least 1"),
        (("shf", None, 2), "'shf' needs a key", "segkey keygen"),
        (("shf", KEY, 2, 3, b"x"), "'shf' has no password", "--ffx-password"),
        (("np", KEY, 2, 3, b""), "'np' has no password", "--ffx-password"),
        (("none", None, 2, 3, b"x"), "'none' has no password", "--ffx-password"),
    ],
)
def test_from_key_refuses(arguments, message, hint):
    with pytest.raises(SegkeyError, match=message) as refusal:
        ciphers.from_key(*arguments)
    assert hint in refusal.value.hint


@pytest.mark.parametrize("sides", [(24, 16), (16, 24)])
@pytest.mark.parametrize("method", METHODS[1:])
def test_a_block_size_that_does_not_fit_is_refused_and_others_named(method, sides):
    cipher = ciphers.from_key(method, KEY, 16)
    for attempt, dtype in [(cipher.encrypt, "uint8"), (cipher.decrypt, cipher.dtype)]:
        with pytest.raises(
            SegkeyError, match="24 is not a multiple of the block size 16"
        ) as refusal:
            attempt(np.zeros((3, *sides), dtype))
        assert "block sizes that fit: 2, 4, 8;" in refusal.value.hint


@pytest.mark.parametrize(
    ("size", "block_size", "fitting"),
    [
        ((240, 320), 7, "2, 4, 8, 16"),
        ((225, 75), 2, "3, 5, 15, 25, 75"),  # no power of two, but others
        ((9, 9), 4, "3, 9"),
        ((7, 9), 2, "none but 1"),
        ((6, 10), 4, "2"),
    ],
)
def test_block_sizes_that_are_advised_fit(size, block_size, fitting):
    with pytest.raises(SegkeyError) as refusal:
        ciphers.check_size(*size, block_size)
    assert refusal.value.hint == f"block sizes that fit: {fitting}; or choose another --size"
    for each in fitting.split(", ") if fitting[0].isdigit() else ["1"]:
        ciphers.check_size(*size, int(each))


@containers
@every_method
def test_a_wrong_dtype_is_refused(method, container):
    cipher = ciphers.from_key(method, KEY, 2)
    other = "uint8" if method == "ffx" else "uint16"
    for attempt, dtype in [
        (cipher.encrypt, "float32"),
        (cipher.encrypt, "uint16"),
        (cipher.decrypt, other),
    ]:
        with pytest.raises(TypeError, match=f"not {dtype}"):
            attempt(container(np.zeros((3, 4, 4), dtype)))


@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 4), (2, 4, 4, 3)], ids=str)
@every_method
def test_wrong_channels_are_refused(method, shape):
    with pytest.raises(ValueError, match=r"\(\.\.\., 3, H, W\) is needed"):
        ciphers.from_key(method, KEY, 2).encrypt(np.zeros(shape, np.uint8))


@containers
@pytest.mark.parametrize("value", [999, 1000, 1024, 1024 + 463, 2048, 32767, 32768, 40000, 65535])
@pytest.mark.parametrize("selected", [0, 1], ids=["stays", "selected"])
def test_ffx_refuses_values_that_the_key_cannot_have_made(container, value, selected):
    cipher = ciphers.FFX(np.full(1, selected), 1, b"fixed")  # 0 becomes 463; the largest is 996
    encrypted = cipher.encrypt(picture(1, 4, 4))
    encrypted[0, 1, 1] = value
    with pytest.raises(SegkeyError, match="cannot have made") as refusal:
        cipher.decrypt(container(encrypted))
    assert "FFX password" in refusal.value.hint


NO_PERMUTATIONS = [[0, 0, 1, 2], [1, 2, 3, 4], [-1, 0, 1, 2], [0, 1, 2], [], [[0, 1], [2, 3]]]


@pytest.mark.parametrize("positions", NO_PERMUTATIONS, ids=str)
def test_what_is_not_a_permutation_is_refused(positions):
    with pytest.raises(ValueError, match="not a permutation|do not make blocks of side 2"):
        ciphers.Shuffle(positions, 2)


@every_method
def test_pickle_brings_the_same_cipher_without_the_key_and_without_tables(method):
    cipher = ciphers.from_key(method, KEY, 2, password=b"a fixed one" if method == "ffx" else None)
    untouched, images = pickle.dumps(cipher), picture(3, 64, 64)
    encrypted, sent = cipher.encrypt(images), pickle.dumps(cipher)
    assert len(sent) == len(untouched)
    assert bytes(range(32)) not in sent
    assert b"a fixed one" not in sent
    again = pickle.loads(sent)
    assert again.same_as(cipher)
    assert again.password_hash == cipher.password_hash
    assert np.array_equal(again.encrypt(images), encrypted)


def test_same_as_tells_keys_methods_and_passwords_apart():
    ours, theirs = (
        [ciphers.from_key(method, key, 2) for method in METHODS[1:]] for key in (KEY, OTHER)
    )
    assert all(a.same_as(b) == (a is b) for a in ours for b in ours + theirs)
    assert ours[0].same_as(ciphers.from_key("shf", KEY, 2))
    assert not ours[2].same_as(ciphers.from_key("ffx", KEY, 2, password=b"fixed"))


def test_a_fixed_password_is_named_by_its_hash_and_is_the_same_for_every_key():
    derived, fixed = (
        ciphers.from_key("ffx", KEY, 2),
        ciphers.from_key("ffx", KEY, 2, password=b"fixed"),
    )
    assert derived.password_hash == ""
    assert derived.key_space_bits == 256
    assert fixed.password_hash == "909c153ae9252df3"
    assert fixed.key_space_bits == pytest.approx(np.log2(924))
    other = ciphers.from_key("ffx", OTHER, 2, password=b"fixed")
    assert np.array_equal(other.values, fixed.values)
    assert not np.array_equal(other.selected, fixed.selected)


@every_method
def test_an_empty_batch_stays_empty(method):
    cipher = ciphers.from_key(method, KEY, 2)
    encrypted = cipher.encrypt(np.empty((0, 3, 4, 4), np.uint8))
    assert cipher.decrypt(encrypted).shape == encrypted.shape == (0, 3, 4, 4)


def test_same_as_sees_the_block_size():
    order = np.arange(4)[::-1]
    assert not ciphers.Shuffle(order, 1).same_as(ciphers.Shuffle(order, 2))


@pytest.mark.parametrize("selected", [[0, 1, 2, 3], [0.5, 1, 1, 0]])
def test_a_selection_is_not_a_list_of_indices(selected):
    with pytest.raises(ValueError, match="selection is bool"):
        ciphers.NegativePositive(np.array(selected), 2)


def test_tables_of_many_sizes_are_forgotten():
    cipher = ciphers.from_key("shf", KEY, 2)
    for side in range(2, 82, 2):
        cipher.encrypt(np.zeros((3, side, 2), np.uint8))
    assert len(cipher._tables) == 16


# ------------------------------------------------------------------ how many keys there are


WAYS = {
    ("none", 4, 3): 1,
    ("shf", 2, 3): math.factorial(12),
    ("shf", 8, 3): 2**256,  # never more than the key has
    ("np", 1, 3): 3,
    ("np", 2, 3): 924,
    ("np", 3, 1): 126,
    ("np", 8, 3): math.comb(192, 96),
    ("np", 16, 3): 2**256,
    ("ffx", 2, 3): 2**256,
    ("shf+np", 2, 3): math.factorial(12) * 924,
    ("shf+np", 8, 3): 2**256,
}


@pytest.mark.parametrize("method, m, c", WAYS)
def test_key_space_bits(method, m, c):
    assert ciphers.key_space_bits(method, m, c) == pytest.approx(
        math.log2(WAYS[method, m, c]), rel=1e-12
    )


def test_selections_are_the_key_space_of_np_and_of_ffx_with_a_fixed_password():
    assert ciphers.selections(2, 3) == 924
    assert ciphers.selections(3, 1) == 126
    for m in (1, 2, 4, 256):
        assert ciphers.key_space_bits("ffx", m, fixed_password=True) == ciphers.key_space_bits(
            "np", m
        )


@pytest.mark.parametrize("method", METHODS)
def test_a_cipher_carries_the_id_of_its_key(method):
    def expected(key):
        return "" if method == "none" else key.id

    cipher = ciphers.from_key(method, KEY, 2)
    assert cipher.key_id == expected(KEY)
    assert cipher.rekeyed(OTHER).key_id == expected(OTHER)
    assert pickle.loads(pickle.dumps(cipher)).key_id == expected(KEY)
    assert cipher.with_parts().key_id == ""  # an estimate or a change is no key's
    if method == "ffx":
        fixed = ciphers.from_key(method, KEY, 2, password=b"fixed")
        assert fixed.rekeyed(OTHER).key_id == OTHER.id


def test_a_method_with_the_names_of_version_0_1_still_works():
    class Earlier(ciphers.Cipher):
        method, PARTS = "earlier", ()

        def _encrypt(self, images):
            ones = np.ones(12, np.uint8)
            return images ^ self._table(images, "ones", lambda h, w: self._plane(ones, h, w))

        _decrypt = _encrypt

    class Child(Earlier):
        pass

    image = picture(3, 4, 4)
    for cipher in (Earlier(2, 3), Child(2, 3)):
        assert np.array_equal(cipher.encrypt(image), image ^ 1)
        assert np.array_equal(cipher.decrypt(cipher.encrypt(image)), image)


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize(("m", "height"), [(4, 148), (4, 160), (16, 144), (200, 400)])
def test_large_images_go_in_bands_and_give_what_their_parts_give(method, m, height):
    cipher, images = ciphers.from_key(method, KEY, m), picture(2, 3, height, 800)
    encrypted = cipher.encrypt(images)
    middle = height // m // 2 * m
    upper, lower = images[..., :middle, :], images[..., middle:, :]
    parts = [cipher.encrypt(part[..., at : at + 400]) for part in (upper, lower) for at in (0, 400)]
    rows = [np.concatenate(parts[at : at + 2], -1) for at in (0, 2)]
    assert np.array_equal(encrypted, np.concatenate(rows, -2))
    assert np.array_equal(cipher.decrypt(encrypted), images)


@pytest.mark.parametrize(
    ("height", "width", "m", "rows"),
    [(256, 256, 4, 256), (1024, 2048, 4, 8), (1024, 2048, 32, 32), (148, 1024, 4, 4), (0, 9, 3, 0)],
)
def test_bands_are_whole_blocks_and_all_alike(height, width, m, rows):
    assert band_height(height, width, 3, m) == rows


def test_a_value_that_is_impossible_is_found_in_the_last_band():
    cipher = ciphers.from_key("ffx", KEY, 4)
    encrypted = cipher.encrypt(np.zeros((3, 148, 1024), np.uint8))
    encrypted[-1, -1, -1] = 1000
    with pytest.raises(SegkeyError, match="cannot have made"):
        cipher.decrypt(encrypted)
