"""How tables, numbers and names look, whatever they say."""

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from segkey.system.words import visible

SEARCHABLE_BITS = 40  # a key space that a patient attacker can go through


def number(value: float | None, digits: int = 4) -> str:
    """With a fixed number of digits; n/a where there is none."""
    return "n/a" if value is None else f"{value:.{digits}f}"


class _Titled(Table):
    """A table between lines that may be wider than itself; Rich would wrap a title to the table's
    width."""

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


def printable(value: object) -> str:
    """`visible`, and nothing in it is taken for Rich's markup."""
    return escape(visible(value))


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


_FORMULA = set("=+-@＝＋－﹣−＠﹢﹦﹫")  # and what a spreadsheet may take for them


_UNSEEN = " \"'\u00a0\u200b\u200c\u200d\u2060\ufeff\u3000"


def latex(text: object) -> str:
    """Text in which LaTeX finds no command: every character that means something to it is
    escaped."""
    return "".join(_LATEX.get(c, c) for c in visible(text))


def csv_cell(value: object) -> object:
    """A cell of a CSV file: numbers as they are; text that a spreadsheet would compute gets an
    apostrophe in front."""
    if value is None or isinstance(value, int | float):
        return "" if value is None else value
    text = str(value)
    bare = text.lstrip(_UNSEEN)
    risky = bare[:1] in _FORMULA or not (bare[:1] or "x").isprintable()
    return ("'" if bare and risky else "") + visible(text)


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, in a table too: no markup, no HTML, no link."""
    return "".join("\\" + c if c in _MARKDOWN else c for c in visible(text))
