"""The history of a training: a line of JSON per epoch, and what is no longer one is named."""

import csv
import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkey.errors import SegkeyError
from segkey.model import history, logs

EPOCHS = [
    {"epoch": 1, "loss": 1.5, "val_loss": 2.0, "seconds": 3.25, "best": True},
    {"epoch": 2, "loss": 0.1, "val_loss": None, "seconds": 3.0, "best": False, "lr": 0.01},
]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "history.jsonl"


def test_what_was_written_is_read_to_the_last_digit(file):
    epochs = [EPOCHS[0] | {"loss": 0.1 + 0.2}, EPOCHS[1]]
    history.write(file, epochs)
    assert history.read(file) == epochs
    assert len(file.read_text().splitlines()) == 2
    history.write(file, [])
    assert history.read(file) == []


def test_without_a_file_there_is_no_epoch(tmp_path):
    assert history.read(tmp_path / "history.jsonl") == []


def test_what_json_does_not_have_leaves_the_earlier_history(file):
    history.write(file, EPOCHS)
    with pytest.raises(ValueError, match="JSON"):
        history.write(file, [*EPOCHS, {"epoch": 3, "loss": math.nan}])
    assert history.read(file) == EPOCHS
    assert os.listdir(file.parent) == [file.name]


def test_histories_of_earlier_versions_have_no_checksums_and_may_hold_nan(file):
    file.write_text('{"epoch": 1, "loss": NaN}\n{"epoch": 2, "val_loss": Infinity}\n')
    assert history.read(file) == [{"epoch": 1, "loss": None}, {"epoch": 2, "val_loss": None}]


DAMAGE = {
    "a digit": lambda text: text.replace("1.5", "1.6"),
    "cut off": lambda text: text[:-30],
    "a list": lambda text: "[1]\n",
    "a number": lambda text: "5\n",
    "deep": lambda text: "[" * 100_000,
    "an empty line": lambda text: text + "\n",
    "bytes": lambda text: "\udcff" + text,
    "large": lambda text: text + " " * (8 << 20),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_with_the_file(file, damage):
    history.write(file, EPOCHS)
    file.write_text(damage(file.read_text()), errors="surrogateescape")
    with pytest.raises(SegkeyError, match=r"history\.jsonl (is damaged|does not match)") as told:
        history.read(file)
    assert "restore it from a backup" in told.value.hint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epoch": 0}, "in line 2, 'epoch' is 0"),
        ({"epoch": 1.5}, "'epoch' is 1.5; expected a whole number"),
        ({"loss": "low"}, "'loss' is 'low'; expected a number, or null"),
        ({"seconds": -1}, "'seconds' is -1; expected a number from 0 on"),
        ({"best": 1}, "'best' is 1; expected true or false"),
        ({"loss": 1e300}, "'loss' is 1e+300"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_its_line(file, change, says):
    lines = [json.dumps(EPOCHS[0]), json.dumps(EPOCHS[1] | change)]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(SegkeyError) as told:
        history.read(file)
    assert says in told.value.what


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    )
)
def test_any_line_is_read_or_refused_in_words(tmp_path_factory, value):
    file = tmp_path_factory.mktemp("any") / "history.jsonl"
    file.write_text(json.dumps(value) + "\n", encoding="utf-8")
    try:
        (line,) = history.read(file)
    except SegkeyError as error:
        assert str(file) in error.what
    else:
        assert isinstance(line, dict)


# ------------------------------------------------------------------ logs


def test_the_log_of_other_programs_has_a_line_for_each_epoch_and_empty_cells(tmp_path):
    log = logs.opened("csv", tmp_path, done=0)
    log(EPOCHS[:1])
    log(EPOCHS)
    log.close()
    with open(tmp_path / "log.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert [line["val_loss"] for line in lines] == ["2.0", ""]
    assert [line["lr"] for line in lines] == ["", "0.01"]
    assert {None} & set(lines[0]) == set()


def test_without_a_log_nothing_is_written(tmp_path):
    log = logs.opened(None, tmp_path, done=0)
    log(EPOCHS)
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "log.csv").symlink_to("elsewhere")
    with pytest.raises(SegkeyError, match="is a symbolic link"):
        logs.opened("csv", tmp_path, done=0)
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize("kind", ["wandb", "", "CSV"])
def test_an_unknown_log_is_answered_with_those_there_are(kind):
    with pytest.raises(SegkeyError, match=f"there is no log '{kind}'") as refused:
        logs.check(kind)
    assert refused.value.hint == "logs: csv, tensorboard"
    logs.check(None)
    logs.check("csv")


def test_tensorboard_that_is_not_installed_is_named_before_anything_is_trained(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SegkeyError, match="which is not installed") as refused:
        logs.check("tensorboard")
    assert refused.value.hint == "pip install 'segkey[tensorboard]', or take --log csv"
