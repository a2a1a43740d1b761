"""The bench measures what it says, says what it leaves out, and its goals can fail."""

import json

import pytest
from typer.testing import CliRunner

from segkey.cli import app
from segkey.errors import SegkeyError
from segkey.reports import benchmark
from segkey.reports.benchmark import Row


@pytest.mark.parametrize(
    ("row", "ratio", "met"),
    [
        (Row("a", 8.0, "GB/s", limit=10.0, goal=0.8), 0.8, True),
        (Row("a", 7.0, "GB/s", limit=10.0, goal=0.8), 0.7, False),
        (Row("a", 1.2, "MB", limit=1.0, goal=1.1, lower_is_better=True), 1.2, False),
        (Row("a", 0.3, "s", goal=0.4, lower_is_better=True), None, True),
        (Row("a", 0.5, "s", goal=0.4, lower_is_better=True), None, False),
        (Row("a", 9.0, "GB/s", alternative=1.0, goal=8), None, True),
        (Row("a", 9.0, "GB/s", alternative=1.0, goal=10), None, False),
        (Row("a", None, "", goal=0.4), None, None),
        (Row("a", 1.0, "GB/s"), None, None),
    ],
)
def test_goals_can_be_met_and_missed(row, ratio, met):
    assert (row.ratio, row.met) == (ratio, met)
    assert (row in benchmark.unmet([row])) == (met is False)
    assert json.loads(json.dumps(row.as_json()))["met"] == met


def test_speed_up_is_against_the_alternative():
    assert Row("a", 8.0, "GB/s", alternative=0.5).speed_up == 16


def test_every_stage_has_a_row_and_what_fails_is_left_out_by_name(monkeypatch):
    """Stages are replaced by quick ones: how long they take is for `segkey bench` itself."""
    for name in ("transforms_on_the_cpu", "start"):
        monkeypatch.setattr(benchmark, name, lambda n=name: [Row(n, 1.0, "GB/s", 2.0, 0.4)])
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
    assert "met" in shown


def test_encrypt_is_measured_end_to_end(tmp_path, scenes_folder):
    rows = list(benchmark.encrypt(tmp_path, scenes_folder, count=96))
    assert [row.stage.split(",")[1].strip() for row in rows] == ["np M=4", "shf M=4", "ffx M=4"]
    assert all(row.rate > 0 and row.limit > 0 for row in rows)
    assert not list(tmp_path.rglob("*.h5"))


def test_memory_is_that_of_the_process_and_not_of_this_one(tmp_path):
    import sys

    small = benchmark._peak_memory([sys.executable, "-c", "pass"])
    large = benchmark._peak_memory([sys.executable, "-c", "x = bytearray(200 << 20)"])
    assert 5 < small < 100
    assert 190 < large - small < 230
    with pytest.raises(SegkeyError, match="ValueError: no"):
        benchmark._peak_memory([sys.executable, "-c", "raise ValueError('no')"])
