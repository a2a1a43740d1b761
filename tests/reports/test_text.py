"""One table in every format: what means something to a format is escaped in it."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from segkey.reports.text import TextTable, markdown, number, plain_text, table_of

HOSTILE = r"=1+1|<b>\input{x} $x$ [red]"
TABLE = TextTable(
    "Scores of 5 %",
    ("run", "M", "mean IoU"),
    [(HOSTILE, 4, 0.123456), ("b", 8, None)],
    notes=("one & only",),
)


def lines_of_csv() -> list[list[str]]:
    return list(csv.reader(io.StringIO(TABLE.as_csv())))


def test_csv_has_all_digits_and_no_formulas():
    head, first, second = lines_of_csv()
    assert head == ["run", "M", "mean IoU"]
    assert first[0] == "'" + HOSTILE
    assert first[1:] == ["4", "0.123456"]
    assert second == ["b", "8", ""]


@pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t=", " =", "\uff1d"])
def test_what_a_spreadsheet_takes_for_a_formula_is_text(beginning):
    table = TextTable("", ("name",), [(beginning + "cmd",)])
    (_, (cell,)) = csv.reader(io.StringIO(table.as_csv()))
    assert cell.startswith("'")


def test_negative_numbers_stay_numbers():
    table = TextTable("", ("difference",), [(-0.5,)])
    (_, (cell,)) = csv.reader(io.StringIO(table.as_csv()))
    assert float(cell) == -0.5


def test_markdown_keeps_its_columns_and_holds_no_html():
    rows = [line for line in TABLE.as_markdown().splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert all(row.replace(r"\|", "").count("|") == 4 for row in rows)
    assert "<b>" not in TABLE.as_markdown()
    assert rows[1].count("---:") == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://evil.example/a", r"https\://evil.example/a"),
        ("see ftp://x and HTTP://y", r"see ftp\://x and HTTP\://y"),
        ("www.evil.example", r"www\.evil.example"),
        ("WWW.evil", r"WWW\.evil"),
        ("mailto:me", r"mailto\:me"),
        ("run: 0.5034 of 4.0", "run: 0.5034 of 4.0"),
        ("a_b*c", r"a\_b\*c"),
        ("two\nlines", r"two\\nlines"),
    ],
)
def test_markdown_makes_no_link_of_an_address(text, shown):
    assert markdown(text) == shown


@given(st.text(), st.text(alphabet="ab|\\`*_\n-=+@'\"", max_size=8))
def test_a_cell_stays_one_cell_in_every_format(one, other):
    table = TextTable("t", ("a", "b"), [(one, other), (other, one)])
    *_, first, second = [line for line in table.as_markdown().splitlines() if line.strip()]
    for line in (first, second):
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3
    rows = list(csv.reader(io.StringIO(table.as_csv())))
    assert [len(row) for row in rows] == [2, 2, 2]
    for row in table.as_latex().split("\\midrule\n")[1].splitlines()[:2]:
        assert len(re.findall(r"(?<!\\)&", row)) == 1
        assert row.endswith(r" \\")
        assert row.count(r"\\") == 1
    shown = plain_text(table.as_rich(), width=10_000)
    assert all(line.isprintable() for line in shown.splitlines())


@pytest.mark.parametrize("rows", [[], [("a", 1.0, None)]])
def test_a_table_of_no_row_and_of_one(rows):
    table = TextTable("few", ("run", "x", "y"), rows)
    assert len(list(csv.reader(io.StringIO(table.as_csv())))) == 1 + len(rows)
    assert sum(line.startswith("|") for line in table.as_markdown().splitlines()) == 2 + len(rows)
    assert table.as_latex().count(r" \\") == 1 + len(rows)
    assert "few" in plain_text(table.as_rich())


def test_what_is_missing_is_empty_or_a_dash_and_never_none():
    table = TextTable("", ("a", "b"), [(None, None)], left=2)
    assert table.as_csv() == "a,b\n,\n"
    assert table.as_markdown().splitlines()[-1] == "|  |  |"
    assert r"-- & -- \\" in table.as_latex()
    assert "None" not in plain_text(table.as_rich())


def test_a_number_in_a_narrow_terminal_is_folded_and_not_cut():
    table = table_of("t", "name", "number")
    table.add_row("a-name-that-is-long", "0.123456789")
    digits = "".join(re.findall(r"[\d.]", plain_text(table, width=16)))
    assert digits == "0.123456789"


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(None, 4, "n/a"), (0.0, 4, "0.0000"), (0.12345, 3, "0.123"), (1, 0, "1"), (-0.5, 1, "-0.5")],
)
def test_numbers_have_a_fixed_number_of_digits(value, digits, expected):
    assert number(value, digits) == expected


def test_latex_holds_no_command_of_a_name():
    text = TABLE.as_latex()
    assert r"\input{" not in text
    assert "$x$" not in text
    assert text.count(r"\\") == 3
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lrr}"
    assert body[-1] == r"\end{tabular}"


def test_the_terminal_shows_markup_and_does_not_obey_it():
    file = io.StringIO()
    Console(file=file, width=120).print(TABLE.as_rich())
    assert "[red]" in file.getvalue()
    assert "one & only" in file.getvalue()
