"""One table in every format: what means something to a format is escaped in it."""

import csv
import io

import pytest
from rich.console import Console

from segkey.reports.text import TextTable

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
