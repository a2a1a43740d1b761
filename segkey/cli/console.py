"""Terminal output: results to stdout, progress, notes, warnings and errors to stderr."""

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from traceback import format_exc

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from segkey.errors import SegkeyWarning
from segkey.system import progress
from segkey.system.wording import duration, printable, visible

# Lines wrap between words on a terminal and never elsewhere: other programs read line by line.
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_WIDE = 70  # columns that a bar with its rate takes
_quiet = False
_speaker = ""
RUN_AGAIN = "run the same command again: what was finished is kept"
_interrupt_hint: str | Callable[[], str] = RUN_AGAIN


def be_quiet(wanted: bool) -> None:
    """From now on, print only results, warnings and errors; or, if not wanted, everything."""
    global _quiet
    _quiet = wanted


def speak_of_errors_only(speaker: str) -> None:
    """From now on, print only errors, prefixed with ``speaker``: the main rank prints the rest."""
    global _speaker
    _speaker, out.quiet, err.quiet = speaker, True, True
    be_quiet(True)


def error(what: str, hint: str = "") -> None:
    """``segkey: error: …``, and the hint on a line of its own."""
    err.quiet = False
    what = f"{_speaker}: {what}" if _speaker else what
    err.print(f"[bold red]segkey: error:[/] {printable(what)}", soft_wrap=not err.is_terminal)
    if hint:
        err.print(f"[bold]segkey: hint:[/] {printable(hint)}", soft_wrap=not err.is_terminal)


def warn(text: object) -> None:
    """``segkey: warning: …``."""
    err.print(f"[bold yellow]segkey: warning:[/] {printable(text)}", soft_wrap=not err.is_terminal)


def note(text: str) -> None:
    """Print a line that is not a result to stderr."""
    if not _quiet:
        err.print(printable(text, keep="\n"), soft_wrap=not err.is_terminal)


def not_kept() -> None:
    """Say that a result was not measured on all of the run's own test split."""
    note("This is not kept with the run: segkey report shows results on all of its own test split.")


def finding(found) -> None:
    """A `segkey.data.items.Finding`, with its cure on the same line."""
    text = f"{found.text}; {found.cure}" if found.cure else found.text
    if found.severity:
        warn(f"refused: {text}" if found.severity > 1 else text)
    else:
        note(text)


def left_out(problems: list, most: int = 10) -> None:
    """Name the first images that could not be used and count the others."""
    for problem in problems[:most]:
        warn(f"left out {problem.name}: {problem.why}")
    if len(problems) > most:
        warn(f"and {len(problems) - most} more")


def show(*tables: object) -> None:
    """Results: Rich tables, or lines of text without markup."""
    for table in tables:
        out.print(
            printable(table, keep="\n") if isinstance(table, str) else table,
            soft_wrap=isinstance(table, str) and not out.is_terminal,
        )


def note_table(table: object) -> None:
    """A table that is not a result, to stderr."""
    if not _quiet:
        err.print(table)


def show_raw(text: str) -> None:
    """Print text for other programs; control characters are made visible for terminals."""
    if not out.quiet:
        sys.stdout.write(visible(text, keep="\n"))


def show_json(document: object) -> None:
    """One JSON document to stdout."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # Outside of strings there are only line feeds; inside, control characters become JSON escapes.
    if not out.quiet:
        sys.stdout.write(
            "".join(
                c if c.isprintable() or c == "\n" else json.dumps(c, allow_nan=False)[1:-1]
                for c in text
            )
            + "\n"
        )


def traceback() -> None:
    """Print the traceback of the exception that is being handled."""
    note(format_exc())


def on_interrupt(hint: str | Callable[[], str]) -> None:
    """Set the hint that is printed after Ctrl-C, or what gives it then."""
    global _interrupt_hint
    _interrupt_hint = hint


def interrupted() -> None:
    """Print the message after Ctrl-C, with its hint."""
    hint = _interrupt_hint if isinstance(_interrupt_hint, str) else _interrupt_hint()
    err.print(f"\nsegkey: stopped; {printable(hint)}", soft_wrap=not err.is_terminal)


def route_warnings() -> None:
    """Print segkey's own warnings as `warn` does; hide libraries' unless -W asks for them."""
    original = warnings.showwarning

    def show_warning(message, category, filename, lineno, file=None, line=None):
        if issubclass(category, SegkeyWarning):
            warn(message)
        elif sys.warnoptions:
            original(message, category, filename, lineno, file, line)

    warnings.showwarning = show_warning
    warnings.simplefilter("always", SegkeyWarning)


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task) -> Text:
        unit = task.fields["unit"]
        return Text(f"{task.speed:,.1f} {unit}/s" if task.speed else f"- {unit}/s", style="cyan")


class TerminalProgress(progress.Progress):
    """A bar on a terminal, one line every ten seconds elsewhere, nothing with ``--quiet``."""

    @contextlib.contextmanager
    def task(
        self, description: str, total: int, unit: str = "images"
    ) -> Iterator[progress.Advance]:
        """Show a task of ``total`` units; call what is yielded with how many more were done."""
        if _quiet:
            yield lambda count: None
            return
        if not err.is_terminal:
            yield _Lines(description, total, unit)
            return
        columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn())
        columns += (_Rate(),) if err.width >= _WIDE else ()  # a narrow terminal would wrap it
        with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as bars:
            bar = bars.add_task(printable(description), total=total, unit=unit)
            yield lambda count: bars.advance(bar, count)

    def say(self, text: str) -> None:
        """Print a line to stderr."""
        note(text)


class _Lines:
    """One plain line every ten seconds, for logs."""

    def __init__(self, description: str, total: int, unit: str):
        self.description, self.total, self.unit, self.done = description, total, unit, 0
        self.began = self.told = time.monotonic()

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.told > 10 and 0 < self.done < self.total:
            self.told, rate = now, self.done / (now - self.began)
            left = (self.total - self.done) / rate
            note(
                f"{self.description}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s, "
                f"{duration(left)} left"
            )
