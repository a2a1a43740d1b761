"""How figures are drawn: style, sizes, colours, and how they are saved."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from segkey.system.files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, COLUMN = 7.16, 3.5  # inches: both columns of a page, and one
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "text.usetex": False,  # names are text: $ in them begins no formula
}
# Okabe and Ito's colours, which people with any colour vision tell apart; then Tol's, for images
# with more classes.
COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
    "#332288",
    "#882255",
    "#999933",
    "#44AA99",
    "#DDCC77",
    "#AA4499",
    "#117733",
    "#88CCEE",
)
CORRECT, PLAIN, WRONG = "#0072B2", "#E69F00", "#D55E00"


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in `STYLE`, and leave matplotlib's own settings as they are."""

    @functools.wraps(draw)
    def styled(*args: object) -> Figure:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args)

    return styled


def new_figure(width: float, height: float) -> Figure:
    """A figure of a size in inches that no window opens for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure | Image.Image, path: Path) -> Path:
    """Write a figure or a sheet as PNG; the same figure gives the same bytes."""
    with written_whole(path) as file:
        if isinstance(figure, Image.Image):
            figure.save(file, "PNG")
        else:
            figure.savefig(file, format="png", dpi=300, metadata={"Software": None})
    return path
