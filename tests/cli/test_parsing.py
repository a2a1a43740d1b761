"""Texts of options as values: the ends of every range, and what is said of the rest."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from segkey.cli import console, given_inputs, option_groups, parsing
from segkey.data.items import Finding, Problem, Severity
from segkey.errors import SegkeyError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", (1, 1)),
        ("256", (256, 256)),
        ("240x320", (240, 320)),
        ("240X320", (240, 320)),
        ("065535", (65535, 65535)),
        ("1x65535", (1, 65535)),
    ],
)
def test_sizes(text, size):
    assert parsing.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "x",
        "1x",
        "x1",
        "0x8",
        "8x0",
        "65536",
        "-8",
        "8.0",
        "1e2",
        "8x8x3",
        "8 x 8",
        "٣",
        "²",
    ],
)
def test_what_is_no_size_is_told_with_examples_and_the_option(text):
    with pytest.raises(typer.BadParameter, match="is not a size; give 256, or HEIGHT") as refused:
        parsing.parse_size(text, of="--tile")
    assert refused.value.param_hint == "--tile"
    assert f"'{text}'" in refused.value.message


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_refused(text):
    try:
        height, width = parsing.parse_size(text)
    except typer.BadParameter:
        return
    assert 0 < height < 65536
    assert 0 < width < 65536


@pytest.mark.parametrize(
    ("text", "seed"),
    [("0", 0), ("-9223372036854775808", -(2**63)), ("9223372036854775807", 2**63 - 1), (7, 7)],
)
def test_seeds(text, seed):
    assert parsing.parse_seed(text) == seed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("9223372036854775808", "does not fit into 64 bits"),
        ("-9223372036854775809", "does not fit into 64 bits"),
        ("1.5", "is not a whole number"),
        ("", "is not a whole number"),
        ("0x10", "is not a whole number"),
        ("9" * 5000, "is not a whole number"),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_seed(text, says):
    with pytest.raises(typer.BadParameter, match=says):
        parsing.parse_seed(text)


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (None, []),
        ([], []),
        (["4"], [4]),
        (["8,2,4"], [2, 4, 8]),
        (["16", "2, 16", "4"], [2, 4, 16]),
    ],
)
def test_block_sizes(texts, numbers):
    assert parsing.parse_block_sizes(texts) == numbers


@pytest.mark.parametrize("texts", [["0"], ["-2"], ["2,"], [""], ["a"], ["2", "4.0"], ["2;4"]])
def test_what_are_no_block_sizes(texts):
    with pytest.raises(typer.BadParameter, match="are not block sizes") as refused:
        parsing.parse_block_sizes(texts)
    assert refused.value.param_hint == "-M"


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (None, []),
        (["NP"], ["np"]),
        (["shf, np", "FFX", "np"], ["shf", "np", "ffx"]),
        (["shf+np"], ["shf+np"]),
    ],
)
def test_methods_in_the_order_given_each_once(texts, names):
    assert parsing.parse_methods(texts) == names


# ------------------------------------------------------------------ groups of options


@dataclass(frozen=True)
class Paint:
    """Two options."""

    colour: Annotated[str, typer.Option()] = "red"
    coats: int = 1


def command(folder: Path, paint: Paint, dry: bool = False) -> None:
    """A command with a group."""


def test_a_group_becomes_its_options_in_place_and_is_gathered_again():
    assert option_groups.groups(command) == {"paint": Paint}
    flat = option_groups.flattened(command)
    assert [each.name for each in flat] == ["folder", "colour", "coats", "dry"]
    assert {each.kind for each in flat} == {each.KEYWORD_ONLY for each in flat}
    assert [each.default for each in flat[1:]] == ["red", 1, False]
    given = {"folder": Path("a"), "colour": "blue", "coats": 3, "dry": True}
    gathered = option_groups.gathered(option_groups.groups(command), given)
    assert gathered == {"folder": Path("a"), "paint": Paint("blue", 3), "dry": True}
    assert given["colour"] == "blue"  # what was given is left alone


# ------------------------------------------------------------------ passphrases and recipients


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [
        (b"open sesame\n", "open sesame"),
        (b"open sesame", "open sesame"),
        (b"open sesame\r\nsecond line\r\n", "open sesame"),
        (b"\xef\xbb\xbfwith a mark\n", "with a mark"),
        ("gr\u00fcn ist  die \n".encode(), "gr\u00fcn ist  die "),
        (b"\nsecond", ""),
    ],
)
def test_a_passphrase_is_the_first_line_of_its_file_as_it_stands(tmp_path, content, passphrase):
    file = tmp_path / "words"
    file.write_bytes(content)
    assert given_inputs.read_passphrase(file) == passphrase


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * ((1 << 20) + 1)], ids=len)
def test_a_file_without_a_passphrase_is_told_without_its_content(tmp_path, content):
    file = tmp_path / "words"
    file.write_bytes(content)
    with pytest.raises(SegkeyError, match="words holds no passphrase") as refused:
        given_inputs.read_passphrase(file)
    assert "xxx" not in str(refused.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_passphrase_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(SegkeyError, match=str(tmp_path)):
        given_inputs.read_passphrase(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("age1abc", True), ("AGE1ABC", True), ("AGE-SECRET-KEY-1X", True), ("keys/a.key", False)],
)
def test_what_is_meant_as_a_recipient(tmp_path, monkeypatch, text, meant):
    monkeypatch.chdir(tmp_path)
    assert given_inputs.is_recipient(text) is meant


def test_a_file_of_that_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("age1.key").touch()
    assert not given_inputs.is_recipient("age1.key")


@pytest.mark.parametrize(
    ("password", "data"),
    [(None, None), ("", b""), ("gr\u00fcn", "gr\u00fcn".encode()), ("\udcff", b"\xff")],
)
def test_a_password_is_the_bytes_that_were_typed(password, data):
    assert given_inputs.encode(password) == data


# ------------------------------------------------------------------ what the console says


@pytest.fixture
def said(monkeypatch, capsys):
    """What was printed to stderr since the last time; wide, and no terminal."""
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=False, width=300))
    return lambda: capsys.readouterr().err


def test_an_error_is_a_line_and_its_hint_another(said):
    console.error("a[b] is\nbroken", "mend \x1b[31m it")
    assert said() == "segkey: error: a[b] is\\nbroken\nsegkey: hint: mend \\x1b[31m it\n"
    console.error("no hint")
    assert said() == "segkey: error: no hint\n"


@pytest.mark.parametrize(
    ("severity", "expected"),
    [
        (Severity.NOTE, "seen; cure\n"),
        (Severity.WARN, "segkey: warning: seen; cure\n"),
        (Severity.REFUSE, "segkey: warning: refused: seen; cure\n"),
    ],
)
def test_findings_are_as_loud_as_they_are_severe(said, severity, expected):
    console.finding(Finding(severity, "seen", "cure"))
    assert said() == expected
    console.finding(Finding(severity, "seen"))
    assert said() == expected.replace("; cure", "")


@pytest.mark.parametrize(("count", "lines", "last"), [(10, 10, "p9"), (11, 11, "and 1 more")])
def test_of_many_images_that_are_left_out_the_first_ten_are_named(said, count, lines, last):
    console.left_out([Problem(f"p{n}", "odd") for n in range(count)])
    told = said().splitlines()
    assert len(told) == lines
    assert told[0] == "segkey: warning: left out p0: odd"
    assert last in told[-1]


def test_no_document_of_json_moves_a_cursor(capsys):
    console.show_json({"name": "\x1b[2J\u202e\u2028\n", "straße": 0.1})
    text = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "straße" in text
    assert json.loads(text) == {"name": "\x1b[2J\u202e\u2028\n", "straße": 0.1}
    with pytest.raises(ValueError, match="JSON"):
        console.show_json({"value": float("nan")})


@pytest.mark.parametrize(
    ("total", "left"), [(100, "2 min left"), (20, "15 s left"), (2000, "50 min left")]
)
def test_the_time_that_is_left_is_told_in_words(said, monkeypatch, total, left):
    now = iter([0, 15, 15])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.TerminalProgress().task("work", total) as advance:
        advance(10)
    assert said() == f"work: 10/{total} images, 0.7/s, {left}\n"


def test_a_task_that_ends_at_once_says_nothing(said, monkeypatch):
    now = iter([0, 5, 100])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.TerminalProgress().task("work", 10) as advance:
        advance(0)
        advance(10)
    assert said() == ""
