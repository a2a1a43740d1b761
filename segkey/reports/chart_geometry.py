"""Geometry of the page's charts, in per cent, so that a chart fits any screen."""

import math
from dataclasses import dataclass

_ROW = 54  # pixels of a run in the chart of keys: its name, and a track below
_CURVE_MARGIN = 0.05


@dataclass(frozen=True)
class Tick:
    """A value on an axis, and where it stands."""

    label: str
    at: float


@dataclass(frozen=True)
class Dot:
    """A value in a chart: ``x`` in per cent, ``y`` in pixels."""

    value: float
    x: float
    y: float


@dataclass(frozen=True)
class KeyRow:
    """A run in the chart of keys."""

    run: str
    label: str
    y: float
    correct: Dot | None
    plain: Dot | None
    mean: Dot | None
    majority_class: Dot | None
    wrong: list[Dot]


@dataclass(frozen=True)
class KeyChart:
    """Correct, plain and every incorrect key of some runs on one axis.

    The paper's Figure 6 has only their means.
    """

    rows: list[KeyRow]
    ticks: list[Tick]
    height: float


def key_chart(rows: list, labels: list[str]) -> KeyChart | None:
    """The chart for some `segkey.reports.Row`; None if nothing was measured."""
    shown = [
        (row, label) for row, label in zip(rows, labels, strict=True) if row.correct is not None
    ]
    values = [
        value
        for row, _ in shown
        for value in (row.correct, row.plain, row.majority_class, *_wrong(row))
        if value is not None
    ]
    if not values:
        return None
    top, step = _nice_top(max(values))
    made = []
    for number, (row, label) in enumerate(shown):
        y = number * _ROW + 36.0

        def dot(value: float | None, y: float = y) -> Dot | None:
            return None if value is None else Dot(value, 100 * value / top, y)

        mean = row.incorrect.mean if row.incorrect else None
        # Up and down in turn, as equal scores would hide each other.
        wrong = [
            dot(value, y + (-6, 0, 6, -3, 3)[place % 5]) for place, value in enumerate(_wrong(row))
        ]
        made.append(
            KeyRow(
                row.run,
                label,
                y,
                dot(row.correct),
                dot(row.plain),
                dot(mean),
                dot(row.majority_class),
                list(filter(None, wrong)),
            )
        )
    ticks = [
        Tick(
            f"{n * step:.1f}".rstrip("0").rstrip(".") if step >= 0.1 else f"{n * step:.2f}",
            100 * n * step / top,
        )
        for n in range(round(top / step) + 1)
    ]
    return KeyChart(made, ticks, len(made) * _ROW + 4)


def _wrong(row) -> list[float]:
    """Every score under a wrong key."""
    return [value for value in row.incorrect.values if value is not None] if row.incorrect else []


def _nice_top(highest: float, most: int = 5) -> tuple[float, float]:
    """The end of an axis from 0 that holds ``highest``, and the step of its ticks.

    There are at most ``most`` ticks.
    """
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        count = max(1, math.ceil(highest / step - 1e-9))
        if count <= most:
            return count * step, step
    return 1.0, 0.2


@dataclass(frozen=True)
class Curve:
    """A line through the epochs of a run."""

    name: str
    points: str
    values: list[float]


@dataclass(frozen=True)
class Curves:
    """Loss by epoch; points are in a square of 100 x 100 with the origin at its top left."""

    curves: list[Curve]
    epochs: int
    ticks: list[Tick]
    best: float | None
    best_epoch: int | None


def training_curves(history: list[dict], best_epoch: int | None) -> Curves | None:
    """Loss on training and validation images; None if any is missing, or for one epoch."""
    series = {
        "training": [e.get("loss") for e in history],
        "validation": [e.get("val_loss") for e in history],
    }
    values = [value for each in series.values() for value in each]
    if len(history) < 2 or not all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    ):
        return None
    low, high = min(values), max(values)
    span = (high - low) * (1 + 2 * _CURVE_MARGIN) or 1.0
    floor = low - _CURVE_MARGIN * span

    def x(index: int) -> float:
        return 100 * index / (len(history) - 1)

    def y(value: float) -> float:
        return 100 * (1 - (value - floor) / span)

    curves = [
        Curve(name, " ".join(f"{x(i):.2f},{y(value):.2f}" for i, value in enumerate(each)), each)
        for name, each in series.items()
    ]
    ticks = [Tick(f"{value:.3g}", y(value)) for value in (high, (low + high) / 2, low)]
    best = x(best_epoch - 1) if best_epoch and best_epoch <= len(history) else None
    return Curves(curves, len(history), ticks, best, best_epoch)
