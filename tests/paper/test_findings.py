"""The paper's findings on made-up grids: on the paper's own numbers, on their opposite, and with
cells missing."""

import json
from dataclasses import replace

import pytest
from making import wrong_keys

from segkey.model.results import MajorityClass, Plain, Score
from segkey.paper import Cell, CellResult, examine, models_of
from segkey.paper.claims import Claim, Finding
from segkey.paper.table1 import BASELINE, TABLE_1
from segkey.system import json_records

MAJORITY_CLASS = 0.035


def cell(method, m, correct, plain=0.0, wrong=(0.0,), seed=0, device="cpu", **how):
    protected = method != "none"
    return CellResult(
        method=method,
        block_size=m,
        seed=seed,
        run=method,
        device=device,
        seconds={},
        correct=Score(mean_iou=correct),
        plain=Plain(mean_iou=plain) if protected else None,
        incorrect=wrong_keys(wrong) if protected else None,
        majority_class=MajorityClass(name="c", mean_iou=MAJORITY_CLASS),
        **how,
    )


def papers_cells(leak=None) -> list[CellResult]:
    """The paper's Table 1, with ``leak(method, M)`` of each model left without its key."""
    leak = leak or (lambda method, m: 0.0)
    above = [
        (me, m, v, MAJORITY_CLASS + leak(me, m) * (v - MAJORITY_CLASS))
        for me, row in TABLE_1.items()
        for m, v in row.items()
    ]
    return [cell("none", 1, BASELINE), *(cell(me, m, v, kept, [kept]) for me, m, v, kept in above)]


def verdicts(cells) -> list[str]:
    return [finding.verdict for finding in examine(cells)]


def claim(cells, number, which=0) -> Claim:
    return examine(cells)[number - 1].claims[which]


def test_the_papers_own_numbers_bear_its_findings_out():
    def leak(method, m):
        return {"ffx": 0.02, "np": 0.6, "shf": 0.7}[method] / (1 if m <= 4 else m)

    findings = examine(papers_cells(leak))
    assert [finding.verdict for finding in findings[:3]] == ["holds"] * 3
    assert len(findings[0].claims[0].pairs) == 21
    assert findings[0].claims[1].pairs[0].by == pytest.approx((0.6597 - 0.0380) - (0.6216 - 0.3007))
    assert (len(findings[1].claims[0].pairs), len(findings[1].claims[1].pairs)) == (6, 12)
    assert findings[2].claims[0].mean_by == pytest.approx(
        sum(BASELINE - v for row in TABLE_1.values() for v in row.values()) / 24
    )
    smallest_part, leaks = findings[3].claims[1:3]
    assert (smallest_part.verdict, leaks.verdict) == ("holds", "holds")
    assert len(smallest_part.pairs) == 15  # at M = 256 SHF has learned nothing
    assert leaks.pairs[0].by == pytest.approx(0.7 - 0.5)
    for finding in findings:
        written = json.loads(json.dumps(finding.document))
        assert json_records.read(Finding, written) == finding
        assert written["claims"][0]["verdict"] == finding.claims[0].verdict


def test_the_opposite_is_told_as_plainly():
    cells = [cell("none", 1, 0.1)]
    for method, start in (("shf", 0.2), ("np", 0.3), ("ffx", 0.4)):
        cells += [cell(method, m, start + m / 100, 0.0) for m in (2, 4)]
    assert verdicts(cells)[:3] == ["does not hold"] * 3
    worst = claim(cells, 3).decisive[0]
    assert worst.what == "baseline 0.1000, FFX M=4 0.4400"
    assert worst.by == pytest.approx(-0.34)


def test_exceptions_are_named_and_the_rest_counted():
    cells = [
        replace(c, correct=Score(mean_iou=0.4400)) if c.cell == Cell("np", 32, 0) else c
        for c in papers_cells()
    ]
    falls = claim(cells, 1)
    assert (falls.verdict, falls.as_claimed, len(falls.pairs)) == ("holds partly", 20, 21)
    assert [pair.what for pair in falls.decisive] == ["NP M=16 0.4329, NP M=32 0.4400"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (lambda c: False, ["cannot be told"] * 4),
        (lambda c: c.method == "none", ["cannot be told"] * 4),
        (lambda c: c.method == "np", ["holds", *["cannot be told"] * 2, "holds partly"]),
        (
            lambda c: c.block_size == 2,
            ["cannot be told", "holds", "cannot be told", "holds partly"],
        ),
        (
            lambda c: (c.method, c.block_size) in (("none", 1), ("ffx", 64)),
            [*["cannot be told"] * 2, "holds", "cannot be told"],
        ),
    ],
)
def test_what_a_grid_with_missing_cells_cannot_tell_is_not_told(keep, expected):
    cells = [
        c
        for c in papers_cells(lambda method, m: {"np": 0.7 / m, "shf": 0.9, "ffx": 0.1}[method])
        if keep(c)
    ]
    assert verdicts(cells) == expected


def test_models_that_learned_nothing_do_not_count_for_what_is_left_of_them():
    cells = [
        cell("np", 2, 1.4 * MAJORITY_CLASS, 1.4 * MAJORITY_CLASS),
        cell("shf", 2, 1.6 * MAJORITY_CLASS, MAJORITY_CLASS),
    ]
    leaks = claim(cells, 4, 2)
    assert [pair.what for pair in leaks.pairs] == ["SHF M=2 (0.0560) keeps 0%"]


def test_what_is_left_is_the_better_of_plain_and_the_mean_wrong_key_above_the_majority_class():
    cells = [cell("shf", 2, 0.535, 0.1, [0.4, 0.17]), cell("shf", 4, 0.535, 0.01, [0.02])]
    models = models_of(cells)
    assert models["shf", 2][0].left == pytest.approx((0.285 - MAJORITY_CLASS) / 0.5)
    assert models["shf", 4][0].left == 0


def test_seeds_are_averaged_and_differences_within_their_spread_said():
    cells = [cell("np", 2, value, seed=seed) for seed, value in enumerate((0.30, 0.34))]
    cells += [cell("np", 4, value, seed=seed) for seed, value in enumerate((0.31, 0.35))]
    ((model,), _) = models_of(cells).values()
    assert model.accuracy == pytest.approx(0.32)
    assert model.spread == pytest.approx(0.04 / 2**0.5)
    (pair,) = claim(cells, 1).pairs
    assert pair.by == pytest.approx(-0.01)
    assert pair.within_spread is True


def test_results_of_different_devices_are_never_averaged_and_pairs_across_them_marked():
    cells = [
        cell("np", 2, 0.5, device="a"),
        cell("np", 2, 0.3, seed=1, device="b"),
        cell("np", 2, 0.4, seed=2, device="b"),
    ]
    cells.append(cell("np", 4, 0.2, device="a"))
    first, second = models_of(cells)["np", 2]
    assert (first.device, first.correct, second.device, second.correct) == (
        "b",
        (0.3, 0.4),
        "a",
        (0.5,),
    )
    (pair,) = claim(cells, 1).pairs
    assert pair.by == pytest.approx(0.15)  # of device b, which has more seeds
    assert pair.devices is True


def test_cells_made_under_other_conditions_are_not_put_together():
    """Seeds are; whatever else differs, such as how images were augmented or the number of test
    images, is not."""
    how = {
        "augmented": True,
        "views": 1,
        "crop scale": 0.08,
        "training in": "float32",
        "test images": 60,
    }
    cells = [cell("np", 2, 0.5, seed=n, conditions=how) for n in range(2)]
    cells += [
        cell("np", 2, 0.9, seed=2, conditions=how | change)
        for change in (
            {"views": 3, "crop scale": 0.9},
            {"augmented": False},
            {"training in": "bfloat16"},
            {"test images": 30},
        )
    ]
    several = models_of(cells)["np", 2]
    assert [len(model.correct) for model in several] == [2, 1, 1, 1, 1]
    assert several[0].accuracy == pytest.approx(0.5)
    cells.append(cell("np", 4, 0.4, conditions=how | {"views": 3}))
    (pair,) = claim(cells, 1).pairs
    assert pair.differs == "views 3 (not 1)"
    assert pair.devices is False


def test_a_cell_of_an_earlier_version_is_put_together_with_its_like_only():
    known = {"augmented": True, "trained on": "cpu"}
    several = models_of(
        [
            cell("np", 2, 0.5),
            cell("np", 2, 0.6, seed=1),
            cell("np", 2, 0.7, seed=2, conditions=known),
        ]
    )["np", 2]
    assert [model.correct for model in several] == [(0.5, 0.6), (0.7,)]


def test_plain_images_of_ffx_count_as_they_are_fed_best():
    both = Plain(mean_iou=0.0969, divided_by=999, by_divisor={"255": 0.0694, "999": 0.0969})
    early, fresh = cell("ffx", 2, 0.4, 0.0694), replace(cell("ffx", 2, 0.4, seed=1), plain=both)
    (model,) = models_of([early, fresh])["ffx", 2]
    assert model.with_plain == 0.0969
    assert models_of([early])["ffx", 2][0].with_plain == 0.0694
