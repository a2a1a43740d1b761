"""The interface of progress reports, independent of how they are shown."""

import contextlib
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]


class Progress:
    """A no-op. The command line passes one that draws; see `segkey.cli.console`."""

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Begin a task of ``total`` units; call what it yields with how many more are done."""
        yield lambda count: None

    def say(self, text: str) -> None:
        """One line that is worth keeping, such as how long the whole will take."""

    def state(self, text: str) -> None:
        """One line that the next one may replace, such as an epoch's figures.

        If nothing can be replaced, it is printed as by `say`.
        """
        self.say(text)


SILENT = Progress()
