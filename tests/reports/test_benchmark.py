"""The bench measures what it says, says what it leaves out, and its goals can fail."""

import json
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from segkey.cli import app
from segkey.errors import SegkeyError
from segkey.model import evaluation
from segkey.model.cpu_convolutions import DepthwiseConv2d
from segkey.reports import benchmark, benchmark_cpu
from segkey.reports.benchmark_rows import Row, in_turn

WAYS = ("encrypt", "decrypt")


EXAMPLES = Path(__file__).parents[2] / "examples"
goals = ModuleType("bench_goals")
exec((EXAMPLES / "bench_goals.py").read_text(encoding="utf-8"), goals.__dict__)


@pytest.mark.parametrize(
    ("row", "goal", "ratio", "met"),
    [
        (Row("a", 8.0, "GB/s", limit=10.0), 0.8, 0.8, True),
        (Row("a", 7.0, "GB/s", limit=10.0), 0.8, 0.7, False),
        (Row("a", 1.2, "MB", limit=1.0, lower_is_better=True), 1.1, 1.2, False),
        (Row("a", 0.3, "s", lower_is_better=True), 0.4, None, True),
        (Row("a", 0.5, "s", lower_is_better=True), 0.4, None, False),
        (Row("a", 9.0, "GB/s", alternative=1.0), 8, None, True),
        (Row("a", 9.0, "GB/s", alternative=1.0), 10, None, False),
        (Row("a", None, ""), 0.4, None, None),
        (Row("a", 1.0, "GB/s"), None, None, None),
    ],
)
def test_goals_can_be_met_and_missed(row, goal, ratio, met):
    assert (row.ratio, goals.is_met(row, goal)) == (ratio, met)
    assert json.loads(json.dumps(row.as_json()))["ratio"] == ratio


def test_goals_are_compared_with_what_was_measured(tmp_path, monkeypatch, capsys):
    rows = goals.rows_of(EXAMPLES / "results/bench-2-cores.json")
    assert {row.stage for row in rows if row.rate is not None} <= goals.GOALS.keys()
    monkeypatch.setattr(sys, "argv", ["", str(EXAMPLES / "results/bench-2-cores.json")])
    assert goals.main() == 1
    told = capsys.readouterr().out
    missed = [line.split("  ")[1].split(":")[0] for line in told.splitlines() if "MISSED" in line]
    assert missed == [f"{m} {way}, CPU, one thread" for m in ("np", "shf") for way in WAYS]
    assert "met     segkey --help: 0.159, goal <= 0.4" in told


def test_speed_up_is_against_the_alternative():
    assert Row("a", 8.0, "GB/s", alternative=0.5).speed_up == 16


def test_every_stage_has_a_row_and_what_fails_is_left_out_by_name(monkeypatch):
    """Stages are replaced by quick ones: how long they take is for `segkey bench` itself."""
    for name in ("transforms_on_the_cpu", "start"):
        monkeypatch.setattr(benchmark, name, lambda n=name: [Row(n, 1.0, "GB/s", 2.0)])
    for name in ("photographs", "wrong_keys", "training"):
        monkeypatch.setattr(benchmark_cpu, name, lambda _, n=name: [Row(n, 3.0, "images/s")])
    for name in ("encrypt", "reading", "memory"):
        monkeypatch.setattr(
            benchmark, name, lambda *_: (_ for _ in ()).throw(SegkeyError("no room here"))
        )
    result = CliRunner().invoke(app, ["bench", "--json", "--device", "cpu"])
    rows = json.loads(result.stdout)
    assert [row["stage"] for row in rows] == [
        "transforms_on_the_cpu",
        "start",
        "encrypt",
        "shards to batches",
        "memory of encrypt",
        "photographs",
        "wrong_keys",
        "training",
        "transforms, GPU",
        "training step, GPU",
        "attack, GPU",
    ]
    why = ["left out: no room here"] * 3 + [""] * 3 + ["no GPU here"] * 3
    assert [row["note"] for row in rows[2:]] == why
    assert [row["rate"] for row in rows[2:]] == [None] * 3 + [3.0] * 3 + [None] * 3
    shown = CliRunner().invoke(app, ["bench", "--device", "cpu"], env={"COLUMNS": "140"}).stdout
    assert "no GPU here" in shown
    assert "0.50" in shown
    assert "met" not in shown
    assert "goal" not in shown


def test_encrypt_is_measured_end_to_end(tmp_path, scenes_folder, monkeypatch):
    monkeypatch.setattr(benchmark, "PROTECTED", ("np",))  # each starts eight processes
    rows = list(benchmark.encrypt(tmp_path, scenes_folder, count=96))
    assert [row.stage.split(",")[1].strip() for row in rows] == ["np M=4"]
    assert all(row.rate > 0 and row.limit > 0 for row in rows)
    assert not list(tmp_path.rglob("*.h5"))


@pytest.fixture
def small(monkeypatch):
    """The stages on the CPU with little to do; the figures are as true, and worth nothing."""
    how = {"SIZE": (32, 32), "_SCORED": 4, "_TRAINED": 2, "_NETWORK": "thin"}
    how["in_turn"] = partial(in_turn, seconds=0)
    for name, value in how.items():
        monkeypatch.setattr(benchmark_cpu, name, value)


@pytest.mark.parametrize(
    ("pixels", "told"), [((1200, 1600), r"\d\d dB$"), ((600, 800), "the same pixels$")]
)
def test_photographs_are_decoded_both_ways(tmp_path, small, monkeypatch, pixels, told):
    monkeypatch.setattr(benchmark_cpu, "_PHOTOGRAPH", pixels)
    (row,) = benchmark_cpu.photographs(tmp_path)
    assert re.search(told, row.note)
    assert row.rate > 0 < row.alternative


def test_wrong_keys_are_scored_on_all_images_each_time_with_another_key(
    tmp_path, small, monkeypatch
):
    scored, true_score = [], evaluation.score

    def score(model, loader, max_value, cipher):
        scored.append((len(loader), cipher.key_id))
        return true_score(model, loader, max_value, cipher)

    monkeypatch.setattr(evaluation, "score", score)
    (row,) = benchmark_cpu.wrong_keys(tmp_path)
    assert row.rate > 0 < row.limit
    assert {images for images, _ in scored} == {4}
    assert len({key for _, key in scored}) == len(scored) == 4


def test_training_is_measured_and_a_network_that_is_not_installed_is_left_out(
    tmp_path, small, monkeypatch
):
    monkeypatch.setattr(benchmark_cpu, "_DEPTHWISE", "timm:no_such_network")
    step, depthwise = benchmark_cpu.training(tmp_path)
    assert step.rate > 0 < step.limit
    assert depthwise.rate is None
    assert depthwise.note.startswith("left out: ")


def test_depthwise_steps_are_those_of_the_quick_and_of_the_usual_layers(
    tmp_path, small, monkeypatch
):
    pytest.importorskip("timm")
    seen, bare = [], benchmark_cpu._bare_step

    def noted(network, images, masks):
        seen.append(sum(isinstance(each, DepthwiseConv2d) for each in network.modules()))
        return bare(network, images, masks)

    monkeypatch.setattr(benchmark_cpu, "_bare_step", noted)
    _, row = benchmark_cpu.training(tmp_path)
    assert seen[1] > 10
    assert seen[0] == seen[2] == 0
    assert row.speed_up > 0


def test_memory_is_that_of_the_process_and_not_of_this_one(tmp_path):
    small = benchmark._peak_memory([sys.executable, "-c", "pass"])
    large = benchmark._peak_memory([sys.executable, "-c", "x = bytearray(200 << 20)"])
    assert 5 < small < 100
    assert 190 < large - small < 230
    with pytest.raises(SegkeyError, match="ValueError: no"):
        benchmark._peak_memory([sys.executable, "-c", "raise ValueError('no')"])
