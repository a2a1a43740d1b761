"""``segkey report --attacks``: one table of all attacked runs, in each form."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from segkey.cli import app
from segkey.reports.drawing import COLOURS
from segkey.reports.protections import KINDS

RESULTS = Path(__file__).parents[2] / "examples" / "results"
SUITES = str(RESULTS / "camvid-128-suite-100-keys")


def _run(*arguments: str):
    return CliRunner().invoke(app, ["report", *arguments], env={"COLUMNS": "200"})


def test_text_has_every_protection_and_kind():
    shown = _run(SUITES, "--attacks").stdout
    # Of any width: cells may go on in the next line, numbers may not.
    for words in ("locked", "FFX", "white-box", "one pair", "statistics:", "0.3840", "0.3808"):
        assert words in shown, words


def test_csv_reads_back():
    lines = list(csv.DictReader(io.StringIO(_run(SUITES, "--attacks", "--csv").stdout)))
    stem = [x for x in lines if x["run"] == "np-m4-locked" and x["with"] == "white-box"]
    assert [line["attack"] for line in stem] == ["stem"]
    assert float(stem[0]["mean_iou"]) == pytest.approx(0.3808, abs=5e-5)


def test_latex_is_one_tabular_of_all_runs():
    text = _run(SUITES, "--attacks", "--latex").stdout
    assert text.count(r"\begin{tabular}") == 1
    runs = len(list(Path(SUITES).glob("*/suite.json")))
    assert rf"\begin{{tabular}}{{l{'r' * runs}}}" in text
    assert r"\%" in text


def test_the_chart_is_a_page_wide_and_shows_every_kind(tmp_path):
    file = tmp_path / "attacks.png"
    result = _run(SUITES, "--attacks", "--chart", str(file))
    assert result.exit_code == 0, result.stderr
    assert "attacks.png" in result.stderr
    with Image.open(file) as image:
        assert image.width == round(7.16 * 300)
        seen = {color for _, color in image.convert("RGB").getcolors(1 << 24)}
    for colour in COLOURS[: len(KINDS) - 1]:
        assert tuple(bytes.fromhex(colour[1:])) in seen


def test_a_chart_without_attacks_is_a_usage_error(tmp_path):
    assert _run(SUITES, "--chart", str(tmp_path / "x.png")).exit_code == 2


def test_a_chart_replaces_nothing_but_a_file(tmp_path):
    result = _run(SUITES, "--attacks", "--chart", str(tmp_path))
    assert result.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", ["--json", "--per-class", "--html=page.html"])
def test_what_it_cannot_be_combined_with_is_a_usage_error(other):
    result = _run(SUITES, "--attacks", other)
    assert result.exit_code == 2
    assert "--attacks" in result.stderr


def test_runs_that_were_not_attacked_say_what_to_do():
    result = _run(str(RESULTS / "demo"), "--attacks")
    assert result.exit_code == 1
    assert "attack RUN --suite" in result.stderr
