"""How far a grid of cells is, and how long the rest will take."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from segkey.system.progress import Advance, Progress


class Meter:
    """Work done and time left, in units of one scored image.

    Args:
        total: the work of all cells.
        done: what an earlier run has done of it.
    """

    def __init__(self, total: float, done: float = 0.0):
        self.total, self.done = total, done
        self._fresh = self._within = 0.0
        self._began = time.monotonic()

    def add(self, units: float) -> None:
        """Some work of the cell that is under way."""
        self._fresh += units
        self._within += units

    def skip(self, units: float) -> None:
        """Work of that cell that an earlier run has done."""
        self._within += units

    def settle(self, units: float) -> None:
        """A cell is finished, which was this much work."""
        self.done, self._within = self.done + units, 0.0

    def seconds_left(self) -> float | None:
        """At the rate so far; None before there is one."""
        elapsed = time.monotonic() - self._began
        left = max(0.0, self.total - self.done - self._within)
        return left * elapsed / self._fresh if self._fresh else None


class Watch(Progress):
    """Hears how a grid fills, and listens to nothing; the command line passes one that draws.

    Attributes:
        meter: of the grid.
        cells: all cells of it.
        results: of those that are finished, by name.
        now: the cell that is under way and what is done with it, ``training`` or ``attack``.
    """

    def __init__(self):
        self.meter, self.cells, self.results = Meter(0.0), [], {}
        self.now, self._unit, self._images, self._done = None, 0.0, 1, 0

    def start(self, cells: Sequence[Any], results: dict[str, dict], meter: Meter) -> None:
        """The grid, and what an earlier run finished of it."""
        self.cells, self.results, self.meter = cells, dict(results), meter

    def begin(self, cell: Any, what: str, unit: float, images: int, done: int = 0) -> None:
        """Something is begun with a cell: so many images, each of which is ``unit`` work; some may
        be done already."""
        self.now, self._unit, self._images, self._done = (cell, what), unit, images, done
        self.meter.skip(done * unit)

    def finish(self, cell: Any, result: dict, units: float) -> None:
        """A cell is finished, which was that much work."""
        self.results[cell.name], self.now = result, None
        self.meter.settle(units)

    @property
    def part(self) -> float:
        """How much of what is under way is done, from 0 to 1."""
        return min(1.0, self._done / self._images)

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str = "images") -> Iterator[Advance]:
        def advance(count: int) -> None:
            self._done += count
            self.meter.add(count * self._unit)

        yield advance
