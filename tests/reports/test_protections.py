"""One table over several suites, made from results that were measured."""

import csv
import io
import json
from pathlib import Path

import pytest

from segkey import reports
from segkey.model.run_search import survey
from segkey.reports import protections

RESULTS = Path(__file__).parents[2] / "examples" / "results"
SUITES = RESULTS / "camvid-128-suite-100-keys"


@pytest.fixture(scope="module")
def rows():
    return reports.collect(survey(SUITES)[0])


def _suite(run: str) -> dict:
    return json.loads((SUITES / run / "suite.json").read_text())


def _lines(suite: dict, *access: str) -> list[dict]:
    return [line for line in suite["attacks"] if line["required_access"] in access]


def _column(rows, run: str) -> protections.Column:
    (column,) = [each for each in protections.columns(rows) if each.run == run]
    return column


def test_every_run_with_a_suite_is_a_column_and_locked_ones_come_last(rows):
    names = [column.name for column in protections.columns(rows)]
    assert len(names) == len(list(SUITES.glob("*/suite.json")))
    locked = [name.endswith("locked") for name in names]
    assert any(locked)
    assert locked == sorted(locked)


@pytest.mark.parametrize("run", sorted(folder.name for folder in SUITES.iterdir()))
def test_scores_are_those_of_the_files(rows, run):
    suite, reached = _suite(run), _column(rows, run).reached
    assert reached["correct key"].mean_iou == suite["correct"]["mean_iou"]
    assert reached["plain images"].mean_iou == suite["no_key_baseline"]["mean_iou"]
    wrong = json.loads((SUITES / run / "attack.json").read_text())["incorrect"]
    assert reached["best wrong key"].mean_iou == max(wrong["values"])
    for kind, access in (("encrypted images", "encrypted images"), ("one pair", "a plain/enc")):
        best = max(
            x["mean_iou"] for x in suite["attacks"] if x["required_access"].startswith(access)
        )
        assert reached[kind].mean_iou == best


@pytest.mark.parametrize("run", ["np-m4", "np-m4-locked"])
def test_the_best_white_box_attack_is_named(rows, run):
    known = ("the model alone", "the model and unlabelled images")
    lines = [x for x in _lines(_suite(run), *known) if x["attack"] not in ("plain", "wrong-keys")]
    best = max(lines, key=lambda line: line["mean_iou"])
    reached = _column(rows, run).reached["white-box"]
    assert (reached.attack, reached.mean_iou) == (best["attack"], best["mean_iou"])
    assert reached.recovered == best["recovered"]
    assert reached.seconds == best["seconds"]


def test_fine_tuning_stands_beside_training_anew(rows):
    (line,) = [x for x in _suite("np-m4")["attacks"] if x["attack"] == "fine-tune"]
    (tenth,) = [point for point in line["details"]["curve"] if point["percent"] == 10]
    reached = _column(rows, "np-m4").reached
    assert reached["fine-tuned, 10 %"].mean_iou == tenth["stolen"]
    assert reached["the same, anew"].mean_iou == tenth["anew"]
    correct, plain = reached["correct key"].mean_iou, reached["plain images"].mean_iou
    share = (tenth["anew"] - plain) / (correct - plain)
    assert reached["the same, anew"].recovered == pytest.approx(share)


def test_a_key_that_adds_next_to_nothing_has_no_shares(rows):
    assert not _column(rows, "shf-m4").has_shares
    assert _column(rows, "np-m4").has_shares
    text = "\n".join(table.as_markdown() for table in protections.protection_tables(rows, widest=9))
    assert "shf-m4: plain images score nearly" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| one pair")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    names = [column.run for column in protections.columns(rows)]
    assert "%" not in cells[1 + names.index("shf-m4")]
    assert "100 %" in cells[1 + names.index("np-m4")]


@pytest.mark.parametrize("widest", [1, 2, 3, 4, 9])
def test_wide_tables_are_cut_into_equal_parts(rows, widest):
    tables = protections.protection_tables(rows, widest)
    widths = [len(table.head) - 1 for table in tables]
    assert max(widths) <= widest
    assert max(widths) - min(widths) <= max(1, widest - 1)
    shown = [name for table in tables for name in table.head[1:]]
    assert shown == [column.name for column in protections.columns(rows)]
    assert [bool(table.notes) for table in tables] == [False] * (len(tables) - 1) + [True]


def test_csv_has_a_line_per_run_and_kind_with_all_digits(rows):
    lines = list(csv.DictReader(io.StringIO(protections.protections_as_csv(rows))))
    found = {(line["run"], line["with"]): line for line in lines}
    assert len(found) == len(lines)
    for column in protections.columns(rows):
        for kind, reached in column.reached.items():
            assert float(found[column.run, kind]["mean_iou"]) == reached.mean_iou


def test_runs_without_a_suite_say_what_to_do():
    rows = reports.collect(survey(RESULTS / "demo")[0])
    assert rows
    assert "attack --suite" in protections.why_no_protections(rows)
    assert protections.protection_tables(rows) == []


def test_the_page_of_results_opens_with_the_table_of_these_files(rows):
    (table,) = protections.protection_tables(rows, widest=20)
    lines = [line for line in table.as_markdown().splitlines() if line.startswith("|")]
    page = (RESULTS / "README.md").read_text()
    assert "\n".join(lines) in page[: len(page) // 4]
