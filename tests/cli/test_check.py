"""``segkey check``, and what ``encrypt`` says and refuses, as a terminal shows it."""

import json

import making
import pytest
from laying import few_bits, mask, pairs, photo

from segkey.shards import Shard, open_splits


@pytest.fixture
def segkey(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        result = making.segkey(*arguments)
        return result.exit_code, result.stdout, result.stderr

    return run


PLAIN = ("--method", "none", "--size", 32, "--workers", 1)


def test_check_shows_a_table_and_writes_nothing(segkey, tmp_path):
    pairs(tmp_path / "d", (0, 1, 2, 255))
    before = sorted(tmp_path.rglob("*"))
    status, stdout, stderr = segkey("check", "d")
    assert status == 0
    assert sorted(tmp_path.rglob("*")) == before
    for word in ("class 0", "class 2", "void (of all pixels)", "train", "%", "3 classes"):
        assert word in stdout
    assert "3 classes found" in stderr


def test_check_and_encrypt_agree(segkey, tmp_path):
    pairs(tmp_path / "d", (0, 255), count=12)
    checked = json.loads(segkey("check", "d", "--json")[1])
    status, _, stderr = segkey("encrypt", "d", *PLAIN)
    assert status == 0
    assert "taken as two classes" in stderr
    assert [each["severity"] for each in checked["findings"]] == ["note"]
    assert checked["classes"] == ["background", "foreground"]
    splits = open_splits([tmp_path / "shards"])
    assert {name: len(split) for name, split in splits.items()} == checked["images"]
    shares = checked["splits"]["train"]["classes"]
    line = next(line for line in stderr.splitlines() if "foreground" in line and "%" in line)
    assert f"{shares['foreground']:.1%}".replace("%", " %") in line
    with Shard(tmp_path / "shards/train.h5") as shard:
        assert shard.header.reading == '{"ranges":[[255,255,1]]}'
        assert shard.header.classes == ("background", "foreground")
    (document,) = json.loads(segkey("inspect", "shards/test.h5", "--json")[1])
    assert set(document["class_shares"]) == {"background", "foreground", "void", "of_images"}
    assert "class shares" in segkey("inspect", "shards/test.h5")[1]


@pytest.mark.parametrize("command", ["check", "encrypt"])
@pytest.mark.parametrize(
    "values, what, cure",
    [
        ((0, 85, 170), "grey levels", "--map 85=1"),
        ((255,), "no labelled|no mask", "--ignore-index"),
    ],
)
def test_what_is_refused_has_one_error_and_one_hint(segkey, tmp_path, command, values, what, cure):
    pairs(tmp_path / "d", values)
    status, _, stderr = segkey(command, "d", *(PLAIN if command == "encrypt" else ()))
    assert status == 1
    (error,) = (line for line in stderr.splitlines() if line.startswith("segkey: error:"))
    (hint,) = (line for line in stderr.splitlines() if line.startswith("segkey: hint:"))
    assert any(each in error for each in what.split("|"))
    assert cure in hint
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("command", ["check", "encrypt"])
def test_the_sheet_shows_images_under_their_masks(segkey, tmp_path, command):
    from PIL import Image

    pairs(tmp_path / "d", (0, 1, 2))
    more = PLAIN if command == "encrypt" else ()
    status, _, stderr = segkey(command, "d", "--sheet", "s.png", *more)
    assert status == 0
    assert "s.png: images under their masks" in stderr
    with Image.open(tmp_path / "s.png") as picture:
        assert min(picture.size) > 200
    assert segkey(command, "d", "--sheet", "s.png", *more)[0] == 1  # it is there already


def test_a_class_that_is_ignored_is_in_no_shard(segkey, tmp_path):
    pairs(tmp_path / "d", (0, 1, 2), count=12)
    (tmp_path / "d/classes.txt").write_text("ground\ncat\ndog\n")
    assert segkey("encrypt", "d", "--ignore-index", 0, *PLAIN)[0] == 0
    split = open_splits([tmp_path / "shards"])["train"]
    assert split.header.classes == ("cat", "dog")
    assert set(split.read("masks", 0).reshape(-1).tolist()) == {0, 1, 255}
    assert split.header.ignore_index == 255


def test_shards_of_clean_data_have_no_new_attribute(segkey, tmp_path):
    import h5py

    pairs(tmp_path / "d", (0, 1, 255))
    assert segkey("encrypt", "d", *PLAIN)[0] == 0
    with h5py.File(tmp_path / "shards/train.h5") as file:
        assert not {"reading", "pixel_range"} & set(file.attrs)


def test_four_bit_masks_are_stored_at_their_own_depth(segkey, tmp_path):
    for number in range(6):
        photo(tmp_path / f"d/images/p{number}.jpg")
        few_bits(tmp_path / f"d/masks/p{number}.png", (0, 1, 2), 4, number)
    assert segkey("encrypt", "d", *PLAIN)[0] == 0
    split = open_splits([tmp_path / "shards"])["train"]
    assert set(split.read("masks", 0).reshape(-1).tolist()) == {0, 1, 2}


def test_a_split_without_masks_is_no_crash(segkey, tmp_path):
    for split in ("train", "val", "test"):
        photo(tmp_path / f"d/{split}/images/a.jpg")
        if split != "test":
            mask(tmp_path / f"d/{split}/masks/a.png")
    status, _, stderr = segkey("encrypt", "d", *PLAIN)
    assert status == 0
    assert "test is left out: none of its 1 image has a mask" in stderr
    assert sorted(path.name for path in (tmp_path / "shards").glob("*.h5")) == [
        "train.h5",
        "val.h5",
    ]
    status, _, stderr = segkey("reproduce", "d", "--dry-run")
    assert status == 1
    assert "too few images for the split" in stderr


@pytest.mark.parametrize("given", [("--map", "x"), ("--ignore-index", "x"), ("--range", "x")])
def test_options_that_are_none(segkey, tmp_path, given):
    pairs(tmp_path / "d")
    status, _, stderr = segkey("check", "d", *given)
    assert status == 1
    assert given[0] in stderr
    assert "segkey: hint:" in stderr
