"""Names of runs, the run that ``latest`` names, and what a folder of runs holds."""

import json
import os
import shutil

import pytest
from making import copy_of

from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import run_names, run_search
from segkey.model.runs import Run


@pytest.mark.parametrize("name", ["a", "np-m4", "7", "A.b_c-d", "x" * 100, "latest2"])
def test_names_that_a_run_can_have(name):
    assert run_names.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "-a", ".a", "_a", "a/b", "a b", "a\n", "ä", "x" * 101, "latest", "a\0", "a:b"],
)
def test_names_that_no_run_can_have(name):
    with pytest.raises(SegkeyError, match="a run cannot be called") as refused:
        run_names.check_name(name)
    assert refused.value.what.isprintable()


@pytest.mark.parametrize(
    ("method", "m", "name"),
    [
        ("np", 4, "np-m4"),
        ("shf+np", 16, "shf-np-m16"),
        ("none", 1, "plain"),
        ("my method!", 2, "my-method-m2"),
        ("..x..", 2, "x-m2"),
    ],
)
def test_how_a_run_of_a_method_is_called(method, m, name):
    assert run_names.check_name(run_names.of_method(method, m)) == name


def test_a_free_name_counts_on_over_what_is_there(tmp_path):
    assert run_names.free_name(tmp_path, "a") == "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.lock").touch()  # a run that was killed before it wrote anything
    assert run_names.free_name(tmp_path, "a") == "a"
    (tmp_path / "a/run.json").touch()
    (tmp_path / "a-2").touch()
    os.symlink("nowhere", tmp_path / "a-3")
    assert run_names.free_name(tmp_path, "a") == "a-4"


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_latest_names_the_run_and_moves_on(tmp_path, monkeypatch, links):
    def refuse(*given, **how):
        raise OSError(1, "no links here")

    if not links:
        monkeypatch.setattr(os, "symlink", refuse)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run_names.point_to_latest(tmp_path, name)
        assert run_names.named_by(tmp_path / "latest") == name
        assert run_names.resolved(tmp_path / "latest") == tmp_path / name
        assert (tmp_path / "latest").is_symlink() is links
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one", "two"]


@pytest.mark.parametrize(
    "text", ["", "../elsewhere", "/etc", "latest", "a\nb", "x" * 2000, "\udcff"], ids=repr
)
def test_a_latest_that_names_no_run_beside_it_is_refused(tmp_path, text):
    (tmp_path / "latest").write_text(text, errors="surrogateescape")
    with pytest.raises(SegkeyError, match="does not name a run beside it") as refused:
        run_names.resolved(tmp_path / "latest")
    assert refused.value.hint == "give the run's folder"


@pytest.mark.parametrize("target", ["../elsewhere", "/tmp", "a/b", "latest"])
def test_a_link_that_leads_elsewhere_is_refused(tmp_path, target):
    os.symlink(target, tmp_path / "latest")
    with pytest.raises(SegkeyError, match="does not name a run beside it"):
        run_names.resolved(tmp_path / "latest")


def test_a_folder_called_latest_is_a_folder(tmp_path):
    (tmp_path / "latest").mkdir()
    assert run_names.resolved(tmp_path / "latest") == tmp_path / "latest"


def test_a_link_to_a_run_counts_under_the_name_of_the_run(tmp_path):
    (tmp_path / "np-m4").mkdir()
    os.symlink("np-m4", tmp_path / "best")
    assert run_names.under_its_own_name(tmp_path / "best") == tmp_path / "np-m4"
    (tmp_path / "not a name").mkdir()
    with pytest.raises(SegkeyError, match="cannot be called 'not a name'"):
        run_names.under_its_own_name(tmp_path / "not a name")


# ------------------------------------------------------------------ a folder of runs


@pytest.fixture
def folder(tmp_path, trained_run):
    """Three copies of a run, the newest first by name."""
    for name, created in (("a", "2026-03-01"), ("b", "2026-02-01"), ("c", "2026-01-01")):
        copy_of(trained_run, tmp_path / name, name=name, created=f"{created}T00:00:00+00:00")
    run_names.point_to_latest(tmp_path, "b")
    return tmp_path


def names(runs) -> list[str]:
    return [run.name for run in runs]


def test_runs_are_found_oldest_first_and_latest_is_none_of_its_own(folder):
    found, left_out = run_search.survey(folder)
    assert (names(found), left_out) == (["c", "b", "a"], [])


def test_one_run_is_the_only_one_of_its_own_folder(folder):
    assert names(run_search.survey(folder / "a")[0]) == ["a"]
    assert names(run_search.survey(folder / "latest")[0]) == ["b"]


def damage_json(path):
    (path / "run.json").write_text("{")


def remove_json(path):
    (path / "run.json").unlink()


def damage_result(path):
    (path / "evaluate.json").write_text('{"run": 5}')


def damage_history(path):
    (path / "history.jsonl").write_text('{"epoch": "one"}\n')


def remove_weights(path):
    (path / "model.safetensors").unlink()
    for result in ("evaluate.json", "attack.json", "suite.json"):
        (path / result).unlink(missing_ok=True)


def link(path):
    shutil.move(path, path.parent / "moved")
    os.symlink("moved", path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (damage_json, "run.json is not the description of a run"),
        (remove_json, "run"),
        (damage_result, "evaluate.json"),
        (damage_history, "history.jsonl is damaged: in line 1, 'epoch' is 'one'"),
        (remove_weights, "has no weights (model.safetensors) and no results"),
        (link, "is a link"),
    ],
)
def test_a_run_that_cannot_be_used_is_left_out_with_the_reason_and_the_others_stay(
    folder, spoil, why
):
    spoil(folder / "b")
    found, left_out = run_search.survey(folder)
    assert [run.path.name for run in found][-1] == "a"
    assert "c" in [run.path.name for run in found]
    problem = next(each for each in left_out if each.name == "b")
    assert why in problem.why
    with pytest.warns(SegkeyWarning, match="left out b: "):
        run_search.find(folder)


def test_if_none_can_be_used_the_first_reason_is_told(folder):
    for name in ("a", "b"):
        damage_json(folder / name)
    shutil.rmtree(folder / "c")
    with pytest.raises(SegkeyError, match="none of the 2 runs in .* can be used; a: "):
        run_search.survey(folder)
    shutil.rmtree(folder / "b")
    with pytest.raises(SegkeyError, match="the run in .* cannot be used; a: "):
        run_search.survey(folder)


@pytest.mark.parametrize("place", [".", "missing"])
def test_a_folder_without_runs(tmp_path, place):
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(SegkeyError, match="there are no runs in") as refused:
        run_search.survey(tmp_path / place)
    assert "segkey train" in refused.value.hint


def test_results_without_weights_are_enough_for_a_report(folder):
    remove_weights(folder / "a")
    score = {"mean_iou": 0.5, "iou": {}}
    document = {
        "run": "a",
        "split": "test",
        "images": 3,
        "correct": score,
        "majority_class": {"class": "sky", "mean_iou": 0.1},
    }
    (folder / "a/evaluate.json").write_text(json.dumps(document))
    found, left_out = run_search.survey(folder)
    assert names(found) == ["c", "b", "a"]
    assert left_out == []
    assert Run.open(folder / "a").result("evaluate").correct.mean_iou == 0.5
