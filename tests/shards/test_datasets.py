"""Splits and datasets: any rows in any order are those that were written, however they lie."""

import copy
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laying import photo
from torchvision import tv_tensors
from torchvision.transforms import v2

import segkey
from segkey.crypto import ciphers
from segkey.data import sources
from segkey.errors import KeyMismatchError, SegkeyError
from segkey.shards import Header, Packed, ShardWriter, encryption, open_splits
from segkey.shards.unlock import cipher_for

VIEWS, SIZE = 2, (4, 6)


def row(number: int, view: int, kind: str) -> np.ndarray:
    """What was written for an image and view."""
    draw = np.random.default_rng([number, view, kind == "masks"])
    shape, values = (SIZE, 3) if kind == "masks" else ((3, *SIZE), 256)
    return draw.integers(0, values, shape, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven images with two views each, in three shards of 3, 1 and 3."""
    out, number = tmp_path_factory.mktemp("several"), 0
    header = Header("train", "np", 2, 3, 255, key_id="0" * 16, classes=("a", "b", "c"), views=VIEWS)
    for part, count in enumerate((3, 1, 3)):
        names = [f"{n}.png" for n in range(number, number + count)]
        path = out / f"train-{part:05}-of-00003.h5"
        writer = ShardWriter(path, header, names, SIZE, "uint8", True)
        for place in range(count):
            rows = {
                "images": [Packed.image(row(number, v, "images")) for v in range(VIEWS)],
                "masks": [Packed.mask(row(number, v, "masks")) for v in range(VIEWS)],
            }
            writer.write(place, (8, 12), rows)
            number += 1
        writer.finish()
    return out


@pytest.fixture(scope="module")
def split(folder):
    return open_splits([folder])["train"]


@given(st.lists(st.integers(0, 6), max_size=12), st.integers(0, VIEWS - 1))
def test_any_rows_in_any_order_are_those_that_were_written(split, numbers, view):
    for kind in ("images", "masks"):
        found = split.read_batch(kind, np.array(numbers, int), view)
        assert found.shape == (len(numbers), *row(0, 0, kind).shape)
        assert found.dtype == np.uint8
        for made, number in zip(found, numbers, strict=True):
            assert np.array_equal(made, row(number, view, kind))


def test_items_of_a_dataset_go_through_all_images_of_a_view_and_then_the_next(folder):
    data = segkey.open_shards(folder)["train"]
    assert len(data) == 7 * VIEWS
    assert data.names == [f"{n}.png" for n in range(7)]
    for number, (image, mask) in enumerate(data):
        view, place = divmod(number, 7)
        assert np.allclose(image.numpy(), row(place, view, "images") / 255)
        assert np.array_equal(mask.numpy(), row(place, view, "masks"))
    assert number == 13
    assert torch.equal(data[-1][0], data[13][0])
    for index in (14, -15):
        with pytest.raises(IndexError, match=f"item {index} of 14"):
            data[index]


@pytest.mark.parametrize("send", [copy.copy, lambda data: pickle.loads(pickle.dumps(data))])
def test_a_dataset_that_was_sent_elsewhere_opens_its_shards_there(folder, send):
    data = segkey.open_shards(folder)["train"]
    other = send(data)
    assert torch.equal(other[3][0], data[3][0])
    assert repr(other) == repr(data)
    assert "7 images × 2 views of 4x6" in repr(data)


def test_a_transform_sees_whole_numbers_and_its_result_is_scaled(folder):
    seen = []

    def look(image, mask):
        seen.append((image.dtype, type(image), type(mask), mask.dtype))
        return 255 - image, mask

    data = segkey.open_shards(folder, look)["train"]
    image, mask = data[4]
    assert seen == [(torch.uint8, tv_tensors.Image, tv_tensors.Mask, torch.int64)]
    assert np.allclose(image.numpy(), (255 - row(4, 0, "images")) / 255)
    assert np.array_equal(mask.numpy(), row(4, 0, "masks"))
    assert isinstance(image, tv_tensors.Image)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (lambda image, mask: image, "images"),
        (lambda image, mask: [image, mask, 7], "both"),
        (v2.ToDtype(torch.float32, scale=True), "both"),
    ],
    ids=["image alone", "more than two", "scaled already"],
)
def test_whatever_a_transform_returns_the_image_is_from_0_to_1(folder, transform, expected):
    made = segkey.open_shards(folder, transform)["train"][2]
    image = made if expected == "images" else made[0]
    assert np.allclose(image.numpy(), row(2, 0, "images") / 255)
    assert image.dtype == torch.float32


def test_images_of_ffx_are_divided_by_their_own_largest_value(tmp_path, scenes_source, key):
    cipher = ciphers.from_key("ffx", key, 4)
    plans = encryption.plan_shards(scenes_source, tmp_path, cipher, size=(32, 32), views=1)
    encryption.encrypt(plans, cipher, workers=1)
    data = segkey.open_shards(tmp_path)["test"]
    raw = open_splits([tmp_path], ("test",))["test"].read("images", 1)
    assert raw.dtype == np.uint16
    image, _ = data[1]
    assert np.allclose(image.numpy(), raw / cipher.max_value)
    assert image.max() <= 1


def test_a_shard_that_is_gone_since_is_told(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "copy")
    data = pickle.loads(pickle.dumps(segkey.open_shards(tmp_path / "copy")["train"]))
    (tmp_path / "copy/train-00001-of-00003.h5").unlink()
    with pytest.raises(SegkeyError, match="there is no shard at .*00001-of-00003"):
        data[0]


def test_one_file_alone_of_several_is_not_complete(folder):
    with pytest.raises(SegkeyError, match="the shards of split 'train' are not complete: 1 file,"):
        segkey.open_shards(folder / "train-00000-of-00003.h5")


def test_masks_that_have_the_same_names_and_content_have_one_fingerprint(
    shards_folder, plain_shards
):
    """However images are encrypted; the fingerprint of all is another."""
    encrypted = open_splits([shards_folder])
    plain = open_splits([plain_shards])
    assert encrypted["test"].labels_fingerprint == plain["test"].labels_fingerprint
    assert encrypted["test"].fingerprint != plain["test"].fingerprint
    assert encrypted["test"].labels_fingerprint != encrypted["val"].labels_fingerprint


def test_what_a_row_takes_in_memory(split, plain_shards):
    assert split.row_bytes == 4 * 6 * (3 + 1)
    assert open_splits([plain_shards])["val"].row_bytes == 32 * 32 * 4


# ------------------------------------------------------------------ from a key to a cipher


def header(**about) -> Header:
    return Header(**{"split": "test", "method": "np", "block_size": 4, "channels": 3} | about)


def test_the_cipher_of_a_header_is_that_of_its_key(key):
    made = cipher_for(header(key_id=key.id, max_value=255), key, None, "a.h5")
    assert made.same_as(ciphers.from_key("np", key, 4))
    plain = cipher_for(header(method="none", block_size=1, max_value=255), key, None, "a.h5")
    assert plain.method == "none"


@pytest.mark.parametrize("given", ["no key", "key "])
def test_another_key_or_none_is_named_with_the_one_that_is_needed(key, other_key, given):
    used = None if given == "no key" else other_key
    said = f"a.h5 was made with key {key.id}, not with {given}"
    with pytest.raises(KeyMismatchError, match=said):
        cipher_for(header(key_id=key.id, max_value=255), used, None, "a.h5")


def test_a_largest_value_that_no_cipher_has_is_damage(key):
    with pytest.raises(SegkeyError, match="its largest value is not that of its key"):
        cipher_for(header(key_id=key.id, max_value=254), key, None, "a.h5")


@pytest.mark.parametrize(
    ("stored", "given", "what"),
    [
        (b"one", b"two", "another FFX password"),
        (b"one", None, "a fixed FFX password"),
        (None, b"two", "no fixed FFX password"),
    ],
)
def test_another_password_is_told_without_saying_what_it_is(key, stored, given, what):
    made = ciphers.from_key("ffx", key, 4, password=stored)
    about = {"password_hash": made.password_hash, "max_value": made.max_value}
    with pytest.raises(KeyMismatchError, match=f"was made with {what}") as refused:
        cipher_for(header(method="ffx", key_id=key.id, **about), key, given, "a.h5")
    assert "--ffx-password" in refused.value.hint
    assert "two" not in str(refused.value)


def test_a_folder_in_one_call_tells_how_many_files_it_left_out(tmp_path, key):
    for number in range(3):
        photo(tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/odd.png").write_bytes(b"no image")
    with pytest.warns(segkey.SegkeyWarning, match="1 file was left out, such as odd.png: "):
        data = segkey.encrypt_folder(
            tmp_path / "photos", tmp_path / "out", key, "shf", 2, size=16, workers=1
        )
    assert [len(each) for each in data.values()] == [3]
    assert sources.find(tmp_path / "photos").has_masks is False
