"""A figure that the paper has not: accuracy with the key against what is left without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segkey.paper.variant_scores import VariantScores, models_of
from segkey.paper.variants import LOCKED, in_order, variant_name
from segkey.reports.drawing import COLOURS, COLUMN, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from segkey.paper.results import Results


def places_of(results: Results) -> dict[str, list[VariantScores]]:
    """The points of `chart`: protected models by variant, small blocks first.

    Of a variant and block size that was made under several conditions, those with the most seeds.
    """
    models = [several[0] for several in models_of(results.cells).values()]
    protected = [model for model in models if model.method != "none"]
    return {
        variant: sorted(
            (model for model in protected if model.method == variant),
            key=lambda model: model.block_size,
        )
        for variant in in_order(model.method for model in protected)
    }


@styled
def chart(results: Results) -> Figure:
    """A point per model: right is leaky, up is accurate; best is the upper left corner.

    Args:
        results: of an experiment.
    """
    figure = new_figure(COLUMN, 3.2)
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for variant, models in places_of(results).items():
        method = variant.removesuffix(LOCKED)
        colour = colours.setdefault(method, COLOURS[len(colours) % len(COLOURS)])
        left, accuracy = [m.without_key for m in models], [m.accuracy for m in models]
        how = {"marker": "*", "markersize": 7} if variant != method else {"marker": "o"}
        axes.plot(left, accuracy, linestyle="", color=colour, label=variant_name(variant), **how)
        for model, x, y in zip(models, left, accuracy, strict=True):
            axes.annotate(
                str(model.block_size), (x, y), (3, 2), textcoords="offset points", fontsize=6
            )
    _lines(axes, results)
    axes.set_xlabel("mean IoU without the key:\nplain images or wrong keys, the better")
    axes.set_ylabel("mean IoU with the key")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_title("numbers at the points: block size M")
    _, labels = axes.get_legend_handles_labels()
    figure.legend(loc="lower center", ncols=2, frameon=False, columnspacing=1.5)
    figure.tight_layout(pad=0.3, rect=(0, 0.06 * -(-len(labels) // 2), 1, 1))
    return figure


def _lines(axes, results: Results) -> None:
    """What the points are compared with: the baseline, the majority class, and no protection."""
    models = {place: several[0] for place, several in models_of(results.cells).items()}
    if baseline := models.get(("none", 1)):
        axes.axhline(baseline.accuracy, color="black", linewidth=0.8, label="baseline")
    if models:
        majority = next(iter(models.values())).majority_class
        axes.axvline(majority, color="0.55", linewidth=0.8, dashes=(1, 2), label="majority class")
    axes.axline((0, 0), slope=1, color="0.8", linewidth=0.8, label="no protection")


def write(results: Results, out: Path) -> list[Path]:
    """Write ``tradeoff.png`` if there is any protected model; returns the paths written."""
    return [save(chart(results), out / "tradeoff.png")] if places_of(results) else []
