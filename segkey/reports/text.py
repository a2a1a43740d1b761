"""Text formatting: numbers, tables and escaping for the terminal, LaTeX, CSV and Markdown."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segkey.system.wording import printable, visible

SEARCHABLE_BITS = 40  # a key space that a patient attacker can go through


def number(value: float | None, digits: int = 4) -> str:
    """With a fixed number of digits; n/a for None."""
    return "n/a" if value is None else f"{value:.{digits}f}"


class _Titled(Table):
    """A table between lines, under a title that may be wider than it (Rich would wrap it)."""

    def __init__(self, heading: str, **style):
        super().__init__(header_style="bold", **style)
        self.heading, self.footnote = visible(heading), ""

    def __rich_console__(self, console, options):
        yield Text(self.heading, style="bold")
        yield from super().__rich_console__(console, options)
        if self.footnote:
            yield Text(self.footnote, style="dim")


def table_of(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first ``left`` columns hold words and the others numbers."""
    table = _Titled(title)
    for index, column in enumerate(columns):
        # Where a terminal is too narrow, a number goes on in the next line: half of one would be
        # another.
        table.add_column(column, justify="left" if index < left else "right", overflow="fold")
    return table


def facts_of(title: str, facts: Iterable[tuple[str, object]]) -> Table:
    """Names and values as two columns."""
    table = _Titled(title, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, printable(value))
    return table


_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: "\\" + c for c in "_&%$#{}"},
    **{
        c: f"{{{c}}}" for c in "[]*"
    },  # behind the end of a line of a table, they would be its arguments
}

_MARKDOWN = set("\\`*_[]<>|~$#&!")

# GitHub makes links of addresses that stand in a text; without its scheme or www it is none.
_ADDRESS = re.compile(r"(?<=www)(?=\.)|(?=://)|(?<=mailto)(?=:)", re.IGNORECASE)

_FORMULA = set("=+-@＝＋－﹣−＠﹢﹦﹫")  # and what a spreadsheet may take for them
_UNSEEN = " \"'\u00a0\u200b\u200c\u200d\u2060\ufeff\u3000"


def latex(text: object) -> str:
    """Text escaped for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in visible(text))


def csv_cell(value: object) -> object:
    """A cell of a CSV file: numbers as they are, text without formulas.

    Text that a spreadsheet would compute gets an apostrophe in front.
    """
    if value is None or isinstance(value, int | float):
        return "" if value is None else value
    text = str(value)
    bare = text.lstrip(_UNSEEN)
    risky = bare[:1] in _FORMULA or not (bare[:1] or "x").isprintable()
    return ("'" if bare and risky else "") + visible(text)


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, in a table too: no markup, no HTML, no link."""
    shown = "".join("\\" + c if c in _MARKDOWN else c for c in visible(text))
    return _ADDRESS.sub(r"\\", shown)


class Shown(str):
    """A cell that LaTeX writes otherwise: ``tex`` is its LaTeX, taken as it is."""

    tex: str

    def __new__(cls, text: str, tex: str) -> "Shown":
        cell = super().__new__(cls, text)
        cell.tex = tex
        return cell


Cell = str | float | None


@dataclass(frozen=True)
class TextTable:
    """A table that every format shows as text: what means something to a format is escaped.

    Attributes:
        title: what the numbers are of.
        head: names of the columns.
        rows: the cells; None is empty.
        notes: what a reader must know, one line each.
        left: how many columns hold words; the others hold numbers.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    left: int = 1

    def as_rich(self) -> Table:
        """For the terminal."""
        table = table_of(self.title, *map(printable, self.head), left=self.left)
        for row in self.rows:
            table.add_row(*map(printable, _texts(row)))
        table.footnote = "\n".join(map(visible, self.notes))
        return table

    def as_csv(self) -> str:
        """Head and rows, with all digits of numbers."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        for row in (self.head, *self.rows):
            writer.writerow(map(csv_cell, row))
        return file.getvalue()

    def as_markdown(self) -> str:
        """Title, table and notes."""
        rows = [list(map(markdown, _texts(row))) for row in (self.head, *self.rows)]
        rows.insert(1, ["---"] * self.left + ["---:"] * (len(self.head) - self.left))
        table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        return "\n\n".join([markdown(self.title), table, *map(markdown, self.notes)]) + "\n"

    def as_latex(self) -> str:
        """A booktabs table; title and notes are comments above it."""
        head = ["$M$" if name == "M" else latex(name) for name in self.head]
        lines = [f"% {latex(line)}" for line in (self.title, *self.notes) if line]
        lines += [rf"\begin{{tabular}}{{{'l' * self.left}{'r' * (len(head) - self.left)}}}"]
        lines += [r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
        lines += [" & ".join(map(_latex_cell, row)) + r" \\" for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _texts(row: Sequence[Cell]) -> list[str | float]:
    return ["" if cell is None else cell for cell in row]


def _latex_cell(cell: Cell) -> str:
    if isinstance(cell, Shown):
        return cell.tex
    return "--" if cell in (None, "") else latex(cell)


def plain_text(table: Table, width: int = 140) -> str:
    """As a terminal of so many columns shows it, without colours."""
    file = io.StringIO()
    Console(file=file, width=width, no_color=True, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
