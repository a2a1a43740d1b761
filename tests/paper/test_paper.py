"""Tables and figures of an experiment, from made-up results."""

import contextlib
import csv
import io
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from making import wrong_keys
from PIL import Image

from segkey.errors import SegkeyError
from segkey.model.recipes import RECIPES
from segkey.model.results import MajorityClass, Plain, Score
from segkey.paper import (
    Cell,
    CellResult,
    Example,
    Results,
    Watch,
    examine,
    figures,
    read_results,
    table1,
    tables,
)
from segkey.paper.figure_example import View
from segkey.paper.results import read_cell
from segkey.reports.text import plain_text
from segkey.system.progress import Progress


def cells_of(
    device="NVIDIA H100", seeds=1, block_sizes=(2, 4), methods=("shf", "np", "ffx")
) -> list[CellResult]:
    def cell(method, m, seed, value):
        values = [value / 4, value / 3, value / 2]
        protected = method != "none"
        return CellResult(
            method=method,
            block_size=m,
            seed=seed,
            run=f"{method}-{m}",
            device=device,
            seconds={},
            images=1449,
            correct=Score(mean_iou=value),
            plain=Plain(mean_iou=value / 3) if protected else None,
            incorrect=wrong_keys(values) if protected else None,
            majority_class=MajorityClass(name="c", mean_iou=0.035),
        )

    places = [("none", 1), *((method, m) for method in methods for m in block_sizes)]
    return [
        cell(method, m, seed, table1.papers_value(method, m) + 0.01 + 0.002 * seed)
        for seed in range(seeds)
        for method, m in places
    ]


def results_of(cells: list[CellResult], full_voc=True, **settings) -> Results:
    made = {
        "size": [256, 256],
        "backbone": "resnet50",
        "wrong_keys": 100,
        "limit": None,
        "recipe": asdict(RECIPES["paper"]),
        "data": {"images": {"train": 1318, "val": 146, "test": 1449}, "classes": ["c"] * 21},
    }
    findings = tuple(examine(cells))
    return Results(
        full_voc=full_voc, settings=made | settings, cells=tuple(cells), findings=findings
    )


def test_on_full_voc_the_papers_value_and_the_difference_stand_beside_each():
    table = tables.Table1(results_of(cells_of()))
    assert table.rows()[0] == [
        "2",
        "0.6697",
        "0.6597",
        "+0.0100",
        "0.6316",
        "0.6216",
        "+0.0100",
        "0.5371",
        "0.5271",
        "+0.0100",
    ]
    assert table.notes == ["baseline, nothing encrypted: 0.7180; in the paper 0.7080 (+0.0100)"]
    rows = list(csv.DictReader(io.StringIO(table.by_line().as_csv())))
    assert (len(rows), rows[0]["method"], float(rows[0]["paper"])) == (7, "none", 0.708)
    assert float(rows[1]["difference"]) == pytest.approx(0.01)


def test_on_other_data_no_difference_is_taken_and_the_papers_columns_say_so():
    table = tables.Table1(results_of(cells_of(), full_voc=False))
    assert table.header() == ["M", "SHF", "NP", "FFX", "paper SHF", "paper NP", "paper FFX"]
    assert table.rows()[1] == ["4", "0.6041", "0.5795", "0.5044", "0.5941", "0.5695", "0.4944"]
    assert any("other images than these" in note for note in table.notes)
    assert all(row["difference"] is None for row in table.as_json()["rows"])
    assert "paper_on_pascal_voc_2012" in table.by_line().as_csv()
    assert "+0.0" not in table.by_block_size().as_markdown() + table.by_block_size().as_latex()


def test_settings_unlike_the_papers_are_named():
    recipe = asdict(RECIPES["paper"]) | {"epochs": 8, "weights": "imagenet"}
    (_, note) = tables.Table1(results_of(cells_of(), backbone="resnet14", recipe=recipe)).notes
    assert note == "unlike in the paper: network resnet14, epochs 8, weights imagenet"


def test_encoder_weights_are_named_without_their_folder():
    recipe = asdict(RECIPES["paper"]) | {
        "weights": "none",
        "encoder_weights": "/home/anna/models/lite0.pth",
    }
    table = tables.Table1(results_of(cells_of(), recipe=recipe, full_voc=False))
    assert "from random weights, the encoder from lite0.pth" in table.title
    (_, note) = tables.Table1(results_of(cells_of(), recipe=recipe)).notes
    assert note.endswith("weights none, encoder weights lite0.pth")
    assert "anna" not in str(table.as_json())


def test_seeds_give_mean_and_deviation_and_devices_stay_apart():
    cells = [
        *cells_of(seeds=3, block_sizes=(2,)),
        *cells_of("cpu, 1 threads", block_sizes=(2,), methods=("np",)),
    ]
    table = tables.Table1(results_of(cells))
    (row,) = table.rows()
    assert row[1] == "0.6717 ± 0.0020 (a)"
    assert row[4] == "0.6336 ± 0.0020 (a) / 0.6316 (b)"
    assert row[6] == "+0.0120 / +0.0100"
    assert "a: NVIDIA H100; b: cpu, 1 threads" in table.notes[-1]
    assert r"0.6717 $\pm$ 0.0020$^{a}$" in table.by_block_size().as_latex()


def test_cells_made_differently_stand_apart_in_table_1_and_are_hollow_in_figure_6():
    how = {"augmented": True, "views": 1, "test images": 1449}
    fewer = how | {"views": 3}
    cells = [
        replace(cell, conditions=fewer if cell.cell == Cell("np", 2, 1) else how)
        for cell in cells_of(seeds=2, block_sizes=(2, 4))
    ]
    table = tables.Table1(results_of(cells))
    assert table.rows()[0][4] == "0.6316 (a) / 0.6336 (b)"  # no mean of the two
    assert table.rows()[1][4] == "0.5805 ± 0.0014 (a)"
    assert table.notes[-1] == (
        "trained or tested differently, which are not averaged: a: views 1; b: views 3"
    )
    assert "over 1 to 2 seeds" in table.notes[-2]
    (line,) = (
        line for line in csv.DictReader(io.StringIO(table.by_line().as_csv())) if line["differs_in"]
    )
    assert (line["method"], line["seeds"], line["differs_in"]) == ("np", "1", "views 3 (not 1)")
    cells = [
        replace(cell, conditions=fewer) if (cell.method, cell.block_size) == ("np", 4) else cell
        for cell in cells
    ]
    figure = figures.key_charts(results_of(cells))
    assert "hollow: other views" in [text.get_text() for text in figure.legends[0].get_texts()]
    told = plain_text(tables.findings_table(results_of(cells)))
    assert "not alike: views 3 (not 1)" in re.sub(r"[\s│]+", " ", told)


def test_missing_cells_are_empty_and_block_sizes_of_the_users_own_have_no_paper():
    cells = [cell for cell in cells_of() if (cell.method, cell.block_size) != ("np", 4)]
    own = replace(next(cell for cell in cells if cell.method == "shf"), block_size=6)
    table = tables.Table1(results_of([*cells, own]))
    assert table.rows()[1][4:7] == ["", "0.5695", ""]
    assert table.rows()[2] == ["6", "0.6697", *[""] * 8]
    assert (
        tables.Table1(results_of(cells[1:]))
        .notes[0]
        .startswith("baseline, nothing encrypted: not there yet")
    )


RESULTS = sorted(Path(__file__).parents[2].glob("examples/results/*/results.json"))


@pytest.mark.parametrize("file", RESULTS, ids=[file.parent.name for file in RESULTS])
def test_results_of_earlier_versions_are_read(file):
    document, read = json.loads(file.read_text()), read_results(file)
    assert len(read.cells) == len(document["cells"]) > 1
    for cell, told in zip(read.document["cells"], document["cells"], strict=True):
        assert told.items() <= cell.items()
    verdicts = [finding["verdict"] for finding in document["findings"]]
    assert [finding.verdict for finding in examine(read.cells)] == verdicts
    assert [finding.verdict for finding in read.findings] == verdicts


def test_a_damaged_result_names_its_field(tmp_path):
    (tmp_path / "results.json").write_text('{"settings": {}, "full_voc": 1, "cells": []}')
    with pytest.raises(SegkeyError, match="'full_voc' is 1; expected true or false"):
        read_results(tmp_path / "results.json")
    (tmp_path / "cell.json").write_text(json.dumps({"method": "np", "block_size": "4"}))
    with pytest.raises(SegkeyError, match="'block_size' is '4'; expected a whole number"):
        read_cell(tmp_path / "cell.json")


def test_all_files_are_written_and_agree(tmp_path):
    results = results_of(cells_of())
    made = tables.write_tables(results, tmp_path)
    assert sorted(path.name for path in made) == [
        "findings.txt",
        "table1.csv",
        "table1.json",
        "table1.md",
        "table1.tex",
        "table1.txt",
    ]
    for name in ("table1.txt", "table1.md", "table1.tex"):
        text = (tmp_path / name).read_text()
        for row in tables.Table1(results).rows():
            assert all(re.search(rf"(?<!\d){re.escape(value)}(?!\d)", text) for value in row), (
                name,
                row,
            )
    told = (tmp_path / "findings.txt").read_text()
    assert "3. every protected model is below the baseline" in told
    assert "6 of 6" in told
    assert "\x1b" not in told
    assert "holds (1 of 2)" in told  # nothing is said of M = 8 and more, which are not there


def test_findings_are_told_with_the_models_that_learned_nothing():
    cells = cells_of(block_sizes=(256,))
    table = tables.findings_table(results_of(cells))
    assert table.footnote.endswith(
        "have learned next to nothing, so that their order is chance: SHF M=256"
    )


# ------------------------------------------------------------------ figures


@pytest.mark.parametrize("methods", [("np",), ("shf", "np", "ffx")])
def test_figure_6_has_a_panel_a_method_with_every_wrong_key(tmp_path, methods):
    cells = cells_of(methods=methods, seeds=2)
    figure = figures.key_charts(results_of(cells))
    assert [axes.get_title() for axes in figure.axes] == [
        {"shf": "SHF", "np": "NP", "ffx": "FFX"}[m] for m in methods
    ]
    for axes, method in zip(figure.axes, methods, strict=True):
        lines = [line for line in axes.lines if len(line.get_ydata())]
        dots = np.concatenate([line.get_ydata() for line in lines if line.get_marker() == "."])
        wrong = [v for c in cells if c.method == method for v in c.incorrect.values]
        assert sorted(dots) == pytest.approx(sorted(wrong))
        correct = next(
            line.get_ydata()
            for line in lines
            if line.get_linestyle() == "-" and len(line.get_ydata()) == 2
        )
        assert correct[0] == pytest.approx(table1.papers_value(method, 2) + 0.011)
    image = Image.open(figures.save(figure, tmp_path / "fig6.png"))
    assert image.width == round(300 * (7.16 if len(methods) > 1 else 3.5))


def test_figure_6_says_where_plain_images_were_fed_in_one_way_only():
    def labels(cells):
        figure = figures.key_charts(results_of(cells))
        return [text.get_text() for text in figure.legends[0].get_texts()]

    cells = cells_of()
    assert "plain images (FFX's divided by 255 only)" in labels(cells)
    for place, cell in enumerate(cells):
        if cell.method == "ffx":
            by_divisor = {"255": 0.01, "999": cell.plain.mean_iou}
            plain = replace(cell.plain, divided_by=999, by_divisor=by_divisor)
            cells[place] = replace(cell, plain=plain)
    assert "plain images" in labels(cells)
    told = plain_text(tables.findings_table(results_of(cells)))
    assert "fed in the better of two ways" in " ".join(told.split())


def test_figure_6_marks_points_of_another_device():
    results = results_of(
        [*cells_of(block_sizes=(2, 4)), *cells_of("cpu", block_sizes=(8,), methods=("np",))[1:]]
    )
    figure = figures.key_charts(results)
    hollow = [
        line for axes in figure.axes for line in axes.lines if line.get_markerfacecolor() == "white"
    ]
    assert len(hollow) == 3  # correct, plain, incorrect of the one model
    assert "hollow: not on NVIDIA H100" in [
        text.get_text() for text in figure.legends[0].get_texts()
    ]


def test_figure_6_of_a_grid_without_protected_models_is_empty_not_an_error(tmp_path):
    assert figures.save(
        figures.key_charts(results_of(cells_of(methods=()))), tmp_path / "fig6.png"
    ).exists()


def example(classes: int, views=2) -> Example:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, classes, (32, 48)).astype(np.uint8)
    truth[:4] = 255
    plain = generator.integers(0, 256, (3, 32, 48)).astype(np.uint8)
    made = [
        View(["none", "np", "shf"][n], 4, plain, truth.clip(0, classes - 1), 0.5)
        for n in range(views)
    ]
    names = ("background", *(f"class {n}" for n in range(1, classes)))
    return Example("a", plain, truth, names, 255, [2, 4], {"np": [plain, plain]}, made)


@pytest.mark.parametrize("classes", [2, 21])
def test_figure_5_shows_image_truth_and_each_models_prediction(classes):
    shown = example(classes)
    figure = figures.predictions(shown)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "image",
        "ground truth",
        "baseline",
        "mean IoU 0.5000",
        "NP, M = 4",
        "mean IoU 0.5000",
    ]
    truth = figure.axes[1].get_images()[0].get_array()
    assert (truth[:4] == 255).all()  # void is white
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert len(labels) == classes
    colours = {tuple(colour) for colour in truth.reshape(-1, 3).tolist()}
    assert len(colours) == min(classes, 17) + 1  # the background, 16 colours, and void


def test_all_figures_are_written(tmp_path):
    made = figures.write_all(results_of(cells_of()), example(5), tmp_path)
    assert [path.name for path in made] == ["fig4.png", "fig5.png", "fig6.png"]
    assert all(Image.open(path).format == "PNG" for path in made)


# ------------------------------------------------------------------ while it runs


class Bar(Progress):
    """A task that keeps what it hears."""

    def __init__(self):
        self.told, self.done, self.said = [], 0, []

    @contextlib.contextmanager
    def task(self, description, total, unit="images"):
        self.told.append((description, total, unit))
        yield self.add

    def add(self, count):
        self.done += count

    def say(self, text):
        self.said.append(text)


def test_a_grid_while_it_fills():
    bar = Bar()
    watch = Watch(bar)
    with watch.task("shards", 8) as advance:  # before the grid, a task of its own
        advance(8)
    assert (bar.told, bar.done) == ([("shards", 8, "images")], 8)
    with watch.grid(3, 300.4):
        assert bar.told[1:] == [("3 models", 300, "passes")]
        watch.say("2/4  np-m2")
        watch.begin("np-m2", "training", 2.5, done=10)
        assert bar.done == 8 + 25  # what an earlier run did is no work left
        with watch.task("epoch 2/4", 10) as advance:
            advance(5)
            assert bar.done == 8 + 37  # whole passes
            advance(5)
        assert bar.done == 8 + 50
        watch.begin("np-m2", "attack", 1.0)
        with watch.task("attack", 6) as advance:
            advance(6)
        watch.say("NP M=2: 0.5000 with the correct key")
        watch.end()
        watch.say("3/4  np-m4")
    assert len(bar.told) == 2
    assert bar.done == 8 + 56
    assert bar.said == ["2/4  np-m2", "  NP M=2: 0.5000 with the correct key", "3/4  np-m4"]


# ------------------------------------------------------------------ locked models


def with_locked() -> list[CellResult]:
    """A grid whose baseline was also locked."""
    cells = cells_of(block_sizes=(4,))
    locked = [replace(cell, locked=True, correct=cells[0].correct) for cell in cells[2:3]]
    return cells + locked


def test_locked_models_stand_in_columns_of_their_own_without_the_papers_values():
    table = tables.Table1(results_of(with_locked()))
    head = ["M", *(f"{m}{part}" for m in ("SHF", "NP", "FFX") for part in ("", " paper", " diff."))]
    assert table.header() == [*head, "NP locked"]
    assert table.rows()[0][-1] == "0.7180"
    assert len(table.rows()[0]) == len(table.header())
    assert any(note.startswith("locked: the baseline itself") for note in table.notes)
    other = tables.Table1(results_of(with_locked(), full_voc=False))
    assert other.header()[:5] == ["M", "SHF", "NP", "FFX", "NP locked"]
    assert len(other.rows()[0]) == len(other.header()) == 8


def test_locked_models_do_not_count_for_the_papers_findings():
    assert examine(with_locked()) == examine(cells_of(block_sizes=(4,)))


def test_figure_6_has_a_panel_for_locked_models():
    figure = figures.key_charts(results_of(with_locked()))
    assert [axes.get_title() for axes in figure.axes] == ["SHF", "NP", "FFX", "NP locked"]
    many = with_locked() + [replace(cell, locked=True) for cell in cells_of()[1:]]
    figure = figures.key_charts(results_of(many))
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == [
        *("SHF", "NP", "FFX", "SHF locked", "NP locked", "FFX locked")
    ]


def test_the_trade_off_has_a_point_for_each_model():
    from segkey.paper import tradeoff

    document = results_of(with_locked())
    points = tradeoff.places_of(document)
    assert {variant: len(models) for variant, models in points.items()} == {
        "shf": 1,
        "np": 1,
        "ffx": 1,
        "np locked": 1,
    }
    (axes,) = tradeoff.chart(document).axes
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    model = points["np locked"][0]
    assert drawn["NP locked"].tolist() == [[model.without_key, model.accuracy]]
    assert model.accuracy == pytest.approx(0.718)


def test_without_a_protected_model_there_is_no_trade_off(tmp_path):
    from segkey.paper import tradeoff

    assert tradeoff.write(results_of(cells_of(methods=())), tmp_path) == []
