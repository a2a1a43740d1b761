"""The journal: finished steps outlive a kill, and only the owner's count."""

import json
import os

import pytest

from segkey.attacks.journal import Cost, Journal
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError, SegkeyWarning

KEY, OTHER = Key(bytes(range(32))), Key(bytes(32))
SETTINGS = {"run": "a", "seed": 3, "pair": (1, 2)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "attack.partial.json"


def begun(path, key=KEY, settings=SETTINGS, names="abc") -> Journal:
    """A journal that was killed after some entries."""
    journal = Journal(path, settings, key)
    for number, name in enumerate(names):
        journal.add(name, {"value": number / 7, "found": [number], "none": None})
    return journal


def entries(path, key=KEY, settings=SETTINGS) -> dict:
    journal = Journal(path, settings, key)
    found = {name: journal.get(name) for name in "abcd" if journal.get(name)}
    assert len(journal) == len(found)
    return found


def test_what_was_added_is_there_again_to_the_last_digit(path):
    begun(path)
    assert entries(path) == {
        name: {"value": n / 7, "found": [n], "none": None} for n, name in enumerate("abc")
    }
    assert Journal(path, SETTINGS, KEY).get("d") is None


def test_a_journal_that_goes_on_keeps_both_parts(path):
    begun(path, names="ab")
    again = Journal(path, SETTINGS, KEY)
    again.add("c", {"value": 9})
    again.add("b", {"value": 8})  # measured anew
    found = entries(path)
    assert (list(found), found["b"], found["c"]) == (["a", "b", "c"], {"value": 8}, {"value": 9})


def test_nothing_is_written_before_the_first_entry_and_nothing_stays_at_the_end(path):
    journal = Journal(path, SETTINGS, KEY)
    assert not path.exists()
    journal.add("a", {})
    assert path.exists()
    journal.remove()
    assert not path.exists()
    journal.remove()  # twice is no error


@pytest.mark.parametrize("cut", [1, 20, 70])
def test_the_line_that_a_kill_cut_is_measured_again_and_then_whole(path, cut):
    begun(path)
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    assert list(entries(path)) == ["a", "b"]
    journal = Journal(path, SETTINGS, KEY)
    journal.add("c", {"value": 5})
    assert entries(path)["c"] == {"value": 5}
    assert all(line.count(" ") for line in path.read_text().splitlines())


@pytest.mark.parametrize("where", range(0, 4))
def test_a_byte_that_was_changed_takes_its_line_only_or_all_if_it_is_the_first(path, where):
    begun(path)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    lines[where] = lines[where].replace("0", "1").replace("3", "4").replace("2", "3")
    path.write_text("".join(lines))
    said = "is not used: it is damaged" if where == 0 else "1 of 3 lines of .* not used"
    with pytest.warns(SegkeyWarning, match=said):
        found = entries(path)
    assert list(found) == ([] if where == 0 else [n for n in "abc" if n != "abc"[where - 1]])


def test_another_key_reads_nothing_and_says_so(path):
    begun(path, OTHER)
    with pytest.warns(SegkeyWarning, match=f"was not written with key {KEY.id}"):
        assert entries(path) == {}


def test_without_a_key_nothing_is_read_or_written(path):
    begun(path)
    before = path.read_bytes()
    with pytest.warns(SegkeyWarning, match="without a key nobody can tell who wrote it"):
        journal = Journal(path, SETTINGS, None)
    journal.add("d", {})
    assert journal.get("d") == {}
    assert journal.get("a") is None
    journal.remove()
    assert path.read_bytes() == before
    nowhere = Journal(None, SETTINGS, KEY)
    nowhere.add("a", {"x": 1})
    assert nowhere.get("a") == {"x": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, "since it was written, .*seed.* changed"),
        ({"run": "b", "seed": 4}, "run.* and .*seed.* changed"),
        ({"more": 1}, "more.* changed"),
    ],
)
def test_other_settings_use_nothing_and_name_what_changed(path, change, said):
    begun(path)
    with pytest.warns(SegkeyWarning, match=said):
        assert entries(path, settings=SETTINGS | change) == {}


def test_lines_of_another_journal_of_the_same_owner_do_not_count(path, tmp_path):
    """Entries belong to their settings: a line cannot be moved from one journal to another."""
    begun(path)
    other = tmp_path / "other"
    begun(other, settings=SETTINGS | {"seed": 9}, names="d")
    path.write_text(path.read_text() + other.read_text().splitlines(keepends=True)[1])
    with pytest.warns(SegkeyWarning, match="1 of 4 lines"):
        assert list(entries(path)) == ["a", "b", "c"]


HOSTILE = {
    "nothing": b"",
    "no line": b"a" * 100,
    "bytes": b"\xff\xfe\n" * 3,
    "deep": b"0 " + b"[" * 100_000 + b"\n",
    "no JSON": b"0123 {\n",
    "a blank line": b"\n\n\n",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_journal_is_not_used_and_is_replaced(path, content):
    path.write_bytes(content)
    with pytest.warns(SegkeyWarning, match="is not used"):
        journal = Journal(path, SETTINGS, KEY)
    assert len(journal) == 0
    journal.add("a", {"value": 1})
    assert entries(path) == {"a": {"value": 1}}


def test_a_journal_that_is_too_large_or_a_link_is_refused(path, tmp_path):
    with open(path, "wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(SegkeyError, match="16777217 bytes, where at most 16777216"):
        Journal(path, SETTINGS, KEY)
    path.unlink()
    begun(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(SegkeyError, match="is a symbolic link"):
        Journal(path, SETTINGS, KEY)


def test_what_json_does_not_have_is_not_kept(path):
    journal = Journal(path, SETTINGS, KEY)
    with pytest.raises(ValueError, match="JSON"):
        journal.add("a", {"value": float("nan")})
    assert not path.exists() or "NaN" not in path.read_text()


def test_the_journal_holds_no_secret(path):
    begun(path)
    text = path.read_text()
    assert bytes(range(32)).hex() not in text
    assert all(json.loads(line.partition(" ")[2]) for line in text.splitlines())


def test_costs_add_up():
    cost = Cost(1, 20, 0.5)
    cost.add(Cost(2, 3, 0.25))
    cost.add(Cost())
    assert cost == Cost(3, 23, 0.75)
