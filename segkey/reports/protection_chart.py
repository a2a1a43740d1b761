"""A figure of `segkey.reports.protections`: what each kind of attacker reaches on each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segkey.reports.drawing import COLOURS, PAGE, new_figure, save, styled
from segkey.reports.protections import KINDS, Column, columns
from segkey.reports.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = "osD^vP*X"  # a shape and a colour for each kind of attacker, for prints in grey


@styled
def chart(found: Sequence[Column]) -> Figure:
    """A row of points per model, on the width of a page: a line for the key, points for attackers.

    Args:
        found: from `segkey.reports.protections.columns`, one or more.
    """
    rows = len(found)
    figure = new_figure(PAGE, 0.8 + 0.42 * rows)
    axes = figure.subplots()
    for row, column in enumerate(found):
        key, plain = (column.reached[kind].mean_iou for kind in KINDS[:2])
        axes.plot([plain, key], [row, row], color="0.85", linewidth=4, zorder=1)
        axes.plot([key, key], [row - 0.42, row + 0.42], color="black", linewidth=1.6, zorder=2)
    for number, kind in enumerate(KINDS[1:]):
        places = [
            (column.reached[kind].mean_iou, row + _apart(number))
            for row, column in enumerate(found)
            if kind in column.reached
        ]
        if places:
            how = {"color": COLOURS[number], "marker": _MARKERS[number], "zorder": 3}
            axes.plot(*zip(*places, strict=True), linestyle="", label=kind, **how)
    axes.plot([], [], color="black", linewidth=1.6, label=KINDS[0])
    axes.set_yticks(range(rows), [column.name for column in found])
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("mean IoU")
    axes.grid(axis="x", color="0.93", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="center right", frameon=False, borderaxespad=0.3)
    figure.tight_layout(pad=0.4, rect=(0, 0, 0.79, 1))
    return figure


def _apart(number: int) -> float:
    """How far below or above its row a kind of attacker is drawn, so that equal scores show."""
    return (number - (len(KINDS) - 2) / 2) * 0.095


def write(rows: Sequence[Row], path: Path) -> Path:
    """Draw the runs that were attacked, as PNG; returns the path.

    Args:
        rows: from `segkey.reports.tables.collect`; one or more of them with a suite.
        path: of the file.
    """
    return save(chart(columns(rows)), path)
