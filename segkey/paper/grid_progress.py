"""Progress of a grid of models: a single bar for all of it."""

import contextlib
from collections.abc import Iterator

from segkey.system.progress import SILENT, Advance, Progress


class Watch(Progress):
    """Turns the progress of all models of a grid into that of one task.

    Its unit is a pass of an image through a network, so that the time left can be told: a training
    image counts as several.

    Args:
        progress: hears of that task; no-op, if not given.
    """

    def __init__(self, progress: Progress = SILENT):
        self.progress = progress
        self.now = ("", "")  # the name of the model under way, and ``training`` or ``attack``
        self._advance: Advance | None = None
        self._weight = self._counted = self._told = 0.0

    @contextlib.contextmanager
    def grid(self, models: int, passes: float) -> Iterator[None]:
        """While it lasts, all that is done counts as a part of ``passes``."""
        description = f"{models} model{'s' * (models != 1)}"
        self._counted = self._told = 0.0
        try:
            with self.progress.task(description, round(passes), "passes") as self._advance:
                yield
        finally:
            self._advance = None

    def begin(self, model: str, what: str, weight: float, done: int = 0) -> None:
        """``what`` is begun with a model: ``weight`` passes per image, ``done`` images already."""
        self.now, self._weight = (model, what), weight
        self._count(done)

    def end(self) -> None:
        """Nothing is under way."""
        self.now = ("", "")

    def _count(self, images: int) -> None:
        """Tell whole passes; the rest is kept for the next time."""
        self._counted += images * self._weight
        whole = int(self._counted - self._told)
        self._told += whole
        self._advance(whole)

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """A task of the current cell, counted on the bar of the grid."""
        if self._advance:
            yield self._count
        else:  # such as the shards, which are made before any model
            with self.progress.task(description, total, unit) as advance:
                yield advance

    def say(self, text: str) -> None:
        """Print a line, indented while a cell is under way."""
        self.progress.say(f"  {text}" if any(self.now) else text)

    def state(self, text: str) -> None:
        """Show a line that the next may replace, indented while a cell is under way."""
        self.progress.state(f"  {text}" if any(self.now) else text)
