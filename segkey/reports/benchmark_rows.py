"""A row of the benchmark, and how its times are measured."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from segkey.crypto.keys import Key

BLOCK_SIZES = (2, 4, 16, 256)
KEY = Key(bytes(32))  # any key will do: no time depends on it


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: what was measured.
        rate, unit: how fast it went; None if it could not be measured.
        limit: what the machine allows, in the same unit and measured in the same run; None if
            there is no limit.
        alternative: what a user would do instead, in the same unit; None if there is nothing.
        note: what else there is to say, such as what was left out.
        lower_is_better: for times and memory.
    """

    stage: str
    rate: float | None
    unit: str
    limit: float | None = None
    alternative: float | None = None
    note: str = ""
    lower_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """The rate as a fraction of the limit."""
        return self.rate / self.limit if self.rate and self.limit else None

    @property
    def speed_up(self) -> float | None:
        """How many times faster than the alternative."""
        return self.rate / self.alternative if self.rate and self.alternative else None

    def as_json(self) -> dict:
        """All of it."""
        return asdict(self) | {"ratio": self.ratio, "speed_up": self.speed_up}


def best_time(function: Callable[[], object], seconds: float = 0.25) -> float:
    """Seconds of the fastest call, of as many as fit into ``seconds`` and at least 3.

    A first call does not count.
    """
    function()
    times, began = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def in_turn(functions: Sequence[Callable[[], object]], seconds: float = 1.5) -> list[float]:
    """Seconds of the fastest call of each function; they are called in turn, as machines drift.

    At least 3 rounds, and as many as fit into ``seconds``; a first one does not count.
    """
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    began = time.perf_counter()
    while len(times[-1]) < 3 or time.perf_counter() - began < seconds:
        for function, measured in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            measured.append(time.perf_counter() - start)
    return [min(measured) for measured in times]
