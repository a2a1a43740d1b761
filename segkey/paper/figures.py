"""The paper's Figures 4, 5 and 6 as PNG: fit for a two-column paper and any colour vision.

Matplotlib is imported where a figure is drawn, as it takes longer than most commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segkey.crypto.ciphers import method_name
from segkey.model import comparability
from segkey.reports.drawing import (
    COLOURS,
    COLUMN,
    CORRECT,
    PAGE,
    PLAIN,
    WRONG,
    new_figure,
    save,
    styled,
)
from segkey.reports.text import number
from segkey.reports.verdicts import plain_one_way
from segkey.system.wording import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from segkey.paper import Example, Results, VariantScores

_GAP = 1 / 32  # between images, as a part of one
_MOST_PANELS = 4  # side by side
_LEAST_WIDTH = 128  # pixels, of an image


def sheet(
    plain: np.ndarray, pictures: dict[str, list[np.ndarray]], block_sizes: Sequence[int]
) -> Image.Image:
    """The paper's Figure 4: an image, and its encryptions by method (row) and block size (column).

    Every pixel is shown as one pixel (of small images, as a square of pixels): resampling would
    invent patterns that the blocks do not have.

    Args:
        plain: uint8 (3, H, W).
        pictures: uint8 (3, H, W) by method, one for each block size, from
            `segkey.reports.preview.encrypted_pictures`.
        block_sizes: M of each column.
    """
    enlarge = max(1, _LEAST_WIDTH // plain.shape[2])
    height, width = enlarge * plain.shape[1], enlarge * plain.shape[2]
    gap = max(2, round(_GAP * width))
    # 8 points, where the sheet is as wide as a page's two columns (7.2 inches); never too wide for
    # an image.
    letters = max(9, min(round((len(block_sizes) + 1) * (width + gap) * 8 / 72 / 7.2), width // 4))
    font, strip = ImageFont.load_default(letters), round(1.6 * letters)
    rows_height = len(pictures) * (height + gap) - gap
    drawn = Image.new(
        "RGB", (width + strip + len(block_sizes) * (width + gap), strip + rows_height), "white"
    )

    def place(picture: np.ndarray, left: int, top: int, label: str = "") -> None:
        """Paste an enlarged picture, with a label above it."""
        large = picture.repeat(enlarge, 1).repeat(enlarge, 2)
        drawn.paste(Image.fromarray(np.ascontiguousarray(large.transpose(1, 2, 0))), (left, top))
        ImageDraw.Draw(drawn).text(
            (left + width // 2, top - strip // 2), label, "black", font, anchor="mm"
        )

    place(plain, 0, strip + (rows_height - height) // 2, "plain")
    for row, (method, line) in enumerate(pictures.items()):
        top = strip + row * (height + gap)
        name = Image.new("RGB", (height, strip), "white")
        ImageDraw.Draw(name).text(
            (height // 2, strip // 2), method_name(method), "black", font, anchor="mm"
        )
        drawn.paste(name.rotate(90, expand=True), (width + gap // 2, top))
        for column, (m, picture) in enumerate(zip(block_sizes, line, strict=True)):
            label = f"M = {m}" if row == 0 else ""
            place(picture, width + strip + gap + column * (width + gap), top, label)
    return drawn


@styled
def predictions(example: Example) -> Figure:
    """The paper's Figure 5: an image above the truth, and each model's input above its output.

    Args:
        example: from `segkey.paper.figure_example`.
    """
    from matplotlib.patches import Patch

    names = [
        "baseline" if v.method == "none" else f"{method_name(v.method)}, M = {v.block_size}"
        for v in example.views
    ]
    columns = len(names) + 1
    height, width = example.truth.shape
    side = min(1.75, PAGE / columns)
    colours, shown = _class_colours(example)
    per_line = max(1, min(len(shown), int(columns * side / 1.15)))
    legend_height = 0.2 * -(-len(shown) // per_line) + 0.1
    tall = 2 * side * height / width + 0.5 + legend_height
    figure = new_figure(columns * side, tall)
    edges = {"left": 0.004, "right": 0.996, "top": 1 - 0.18 / tall, "bottom": legend_height / tall}
    grid = figure.add_gridspec(2, columns, wspace=0.04, hspace=0.16, **edges)

    def show(row: int, column: int, picture: np.ndarray, title: str) -> None:
        """A picture without axes at a place of the grid."""
        axes = figure.add_subplot(grid[row, column])
        axes.imshow(picture, interpolation="nearest")
        axes.set(xticks=[], yticks=[], title=title)
        axes.spines[:].set_visible(False)

    show(0, 0, example.plain.transpose(1, 2, 0), "image")
    show(1, 0, colours[example.truth], "ground truth")
    for column, (view, name) in enumerate(zip(example.views, names, strict=True), 1):
        show(0, column, view.seen.transpose(1, 2, 0), name)
        show(1, column, colours[view.predicted], f"mean IoU {number(view.mean_iou)}")
    handles = [Patch(color=colours[n] / 255, label=str(n)) for n in shown]
    legend = figure.legend(
        handles=handles,
        loc="lower center",
        ncols=per_line,
        frameon=False,
        handlelength=1,
        columnspacing=1,
    )
    for written, n in zip(
        legend.get_texts(), shown, strict=True
    ):  # as a label, a name that begins with _ is left out
        written.set_text(visible(example.classes[n]))
    return figure


def _class_colours(example: Example) -> tuple[np.ndarray, list[int]]:
    """A colour per value of a mask, uint8 (256, 3), and the classes shown, the largest first.

    The first class, which is the background in most data, is light grey; void is white.
    """
    counts = np.bincount(example.truth.reshape(-1), minlength=256)
    counts = counts * 10.0 + sum(
        np.bincount(view.predicted.reshape(-1), minlength=256) for view in example.views
    )
    counts[example.ignore_index] = 0
    shown = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
    colours = np.full((256, 3), 255, np.uint8)
    palette = [tuple(int(text[at : at + 2], 16) for at in (1, 3, 5)) for text in COLOURS]
    for place, n in enumerate(each for each in shown if each or example.classes[0] != "background"):
        colours[n] = palette[place % len(palette)]
    if example.classes[0] == "background":
        colours[0] = (222, 222, 222)
    return colours, shown


@styled
def key_charts(results: Results) -> Figure:
    """The paper's Figure 6, a panel per method: correct, plain and incorrect by M.

    Every wrong key is a dot.

    Args:
        results: of the experiment. Of a method and block size that was made under
            several conditions, those with the most seeds are shown; points of other conditions than
            most are hollow.
    """
    from matplotlib.lines import Line2D

    from segkey.paper.variant_scores import models_of  # imports torch
    from segkey.paper.variants import in_order, variant_name

    models = {place: several[0] for place, several in models_of(results.cells).items()}
    baseline = models.pop(("none", 1), None)
    methods = in_order(method for method, _ in models)
    made = [comparability.key(model.conditions) for model in models.values()]
    usual = max(dict.fromkeys(made), key=made.count, default="")
    rows = -(-len(methods) // _MOST_PANELS) or 1
    in_a_row = -(-len(methods) // rows) or 1
    tall = 2.6 + 2 * (rows - 1)
    figure = new_figure(PAGE if len(methods) > 1 else COLUMN, tall)
    panels = figure.subplots(rows, in_a_row, sharey=True, squeeze=False)
    for axes in panels.flat[len(methods) or 1 :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("mean IoU")
    panels = panels.flat
    for axes, method in zip(panels, methods, strict=False):
        line = sorted(
            (model for (name, _), model in models.items() if name == method),
            key=lambda m: m.block_size,
        )
        _panel(axes, line, baseline, usual)
        axes.set_title(variant_name(method))
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    if any(plain_one_way(cell.method, cell.plain) for cell in results.cells):
        divided = " (FFX's divided by 255 only)"
        labels = [label + divided * (label == "plain images") for label in labels]
    if len(set(made)) > 1:
        hollow = {"linestyle": "", "marker": "o", "color": "black", "markerfacecolor": "white"}
        handles.append(Line2D([], [], **hollow))
        labels.append(f"hollow: {visible(_unlike(list(models.values()), usual))}")
    columns = 3 if len(methods) > 1 else 2
    how = {"ncols": columns, "frameon": False, "columnspacing": 1.5}
    figure.legend(handles, labels, loc="lower center", **how)
    legend = 0.195 * -(-len(labels) // columns) / tall
    figure.tight_layout(pad=0.3, w_pad=0.8, rect=(0, legend, 1, 1))
    return figure


def _unlike(models: list[VariantScores], usual: str) -> str:
    """In what some models differ from most, in the few words that a legend has room for."""
    names = comparability.varying([model.conditions for model in models])
    if set(names) <= {"trained on", "tested on"}:
        alike = (model for model in models if comparability.key(model.conditions) == usual)
        return f"not on {next(alike).device}"
    return "other " + comparability.joined(names, 3)


def _panel(
    axes: Axes, line: list[VariantScores], baseline: VariantScores | None, usual: str
) -> None:
    """One method of `key_charts`."""
    places = np.arange(len(line))
    _draw_wrong_keys(axes, places, line)
    for colour, marker, style, label, values in (
        (CORRECT, "o", "-", "correct key", [m.accuracy for m in line]),
        (PLAIN, "s", "--", "plain images", [m.with_plain for m in line]),
        (WRONG, "^", ":", "wrong keys, mean", [m.with_wrong for m in line]),
    ):
        axes.plot(places, values, style, color=colour, zorder=3)
        for place, (model, value) in enumerate(zip(line, values, strict=True)):
            face = colour if comparability.key(model.conditions) == usual else "white"
            axes.plot(place, value, marker, color=colour, markerfacecolor=face, zorder=4)
        axes.plot([], [], style + marker, color=colour, label=label)
    spreads = [model.spread or 0.0 for model in line]
    if any(spreads):
        accuracy, how = [m.accuracy for m in line], {"fmt": "none", "capsize": 2, "zorder": 3}
        axes.errorbar(places, accuracy, spreads, color=CORRECT, **how)
    if baseline:
        label = "baseline, nothing encrypted"
        axes.axhline(baseline.accuracy, color="black", linewidth=0.8, label=label)
    if line:
        how = {"color": "0.55", "linewidth": 0.8, "dashes": (1, 2)}
        axes.axhline(line[0].majority_class, label="majority class", **how)
    axes.set_xticks(places, [str(model.block_size) for model in line])
    axes.set_xlabel("block size M")
    axes.margins(x=0.06)
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)


def _draw_wrong_keys(axes: Axes, places: np.ndarray, line: list[VariantScores]) -> None:
    """A dot for each wrong key, and the band that they lie in."""
    lower, upper = [min(m.wrong) for m in line], [max(m.wrong) for m in line]
    label = "wrong keys, least to largest"
    axes.fill_between(places, lower, upper, color=WRONG, alpha=0.13, linewidth=0, label=label)
    how = {"markersize": 1.6, "alpha": 0.35, "zorder": 2, "rasterized": True}
    for place, model in zip(places, line, strict=True):
        # Offsets, so that equal values stand apart.
        offsets = np.random.default_rng(0).uniform(-0.13, 0.13, len(model.wrong))
        axes.plot(place + offsets, np.array(model.wrong), ".", color=WRONG, **how)


def write_all(results: Results, example: Example, out: Path) -> list[Path]:
    """Write ``fig4.png``, ``fig5.png`` and ``fig6.png`` of an experiment; returns their paths."""
    made = {"fig5.png": predictions(example), "fig6.png": key_charts(results)}
    if example.encrypted:
        made["fig4.png"] = sheet(example.plain, example.encrypted, example.block_sizes)
    return [save(figure, out / name) for name, figure in sorted(made.items())]
