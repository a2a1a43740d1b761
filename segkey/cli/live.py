"""A grid that fills before one's eyes; apart from `segkey.cli.console`, as it needs what only long
commands import."""

import contextlib
from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.live import Live
from rich.text import Text

from segkey.cli import console
from segkey.paper import Cell, Meter, Watch, tables
from segkey.system.progress import Advance
from segkey.system.words import rough_duration


class GridWatch(Watch):
    """A live table on a terminal; plain lines elsewhere."""

    def __init__(self):
        super().__init__()
        self._live: Live | None = None
        self._line = ""

    def __enter__(self) -> "GridWatch":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def start(self, cells: Sequence[Cell], results: dict[str, dict], meter: Meter) -> None:
        super().start(cells, results, meter)
        if console.err.is_terminal:
            self._live = Live(
                console=console.err, get_renderable=self._draw, refresh_per_second=2, transient=True
            )
            self._live.start()
        elif results:
            console.note(f"{len(results)} of {len(cells)} models are finished already")

    def _draw(self) -> Group:
        return Group(
            tables.progress_table(self, console.err.width < 60),
            Text(self._line, style="dim", no_wrap=True, overflow="ellipsis"),
        )

    def begin(self, cell: Cell, what: str, unit: float, images: int, done: int = 0) -> None:
        super().begin(cell, what, unit, images, done)
        self._line = ""
        if not self._live and what == "training":
            console.note(f"{len(self.results) + 1}/{len(self.cells)}  {cell.name}")

    def finish(self, cell: Cell, result: dict, units: float) -> None:
        super().finish(cell, result, units)
        if not self._live:
            left = self.meter.seconds_left()
            console.note(
                f"  {tables.cell_sentence(result)}"
                + (f"; about {rough_duration(left)} left" if left else "")
            )

    def say(self, text: str) -> None:
        console.note(f"  {text}" if self.now and not self._live else text)

    def state(self, text: str) -> None:
        self._line = text
        if not self._live:
            self.say(text)

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str = "images") -> Iterator[Advance]:
        with super().task(description, total, unit) as meter:
            if self._live:
                yield meter
                return
            with console.TerminalProgress().task(description, total, unit) as show:
                yield lambda count: (meter(count), show(count))
