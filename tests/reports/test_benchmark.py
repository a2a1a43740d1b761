"""The bench measures what it says, says what it leaves out, and its goals can fail."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from segkey.cli import app
from segkey.errors import SegkeyError
from segkey.reports import benchmark
from segkey.reports.benchmark_rows import Row

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
        "transforms, GPU",
        "training step, GPU",
        "attack, GPU",
    ]
    assert [row["note"] for row in rows[2:]] == ["left out: no room here"] * 3 + ["no GPU here"] * 3
    assert all(row["rate"] is None for row in rows[2:])
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


def test_memory_is_that_of_the_process_and_not_of_this_one(tmp_path):
    small = benchmark._peak_memory([sys.executable, "-c", "pass"])
    large = benchmark._peak_memory([sys.executable, "-c", "x = bytearray(200 << 20)"])
    assert 5 < small < 100
    assert 190 < large - small < 230
    with pytest.raises(SegkeyError, match="ValueError: no"):
        benchmark._peak_memory([sys.executable, "-c", "raise ValueError('no')"])
