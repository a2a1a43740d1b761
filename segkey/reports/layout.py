"""How tables, numbers and names look, whatever they say."""

import math
from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from segkey.files import visible

SEARCHABLE_BITS = 40  # a key space that a patient attacker can go through


def number(value: float | None, digits: int = 4) -> str:
    """With a fixed number of digits; n/a where there is none."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.{digits}f}"


class _Titled(Table):
    """A table between lines that may be wider than itself; Rich would wrap a title to the table's width."""

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
        # Where a terminal is too narrow, a number goes on in the next line: half of one would be another.
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


def per_cent(part: float, digits: int = 0) -> str:
    """A part of 1 as per cent."""
    return f"{100 * part:.{digits}f} %"


def duration(seconds: float) -> str:
    """With the unit that makes it short."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def in_bytes(count: float) -> str:
    """With the unit that makes it short."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
