"""What was tested, and who measured it: results in a run's folder are the owner's only if the
owner's key says so."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from making import copy_of, reconfigure
from typer.testing import CliRunner

from segkey.cli import app
from segkey.errors import SegkeyWarning
from segkey.model import authenticity
from segkey.model.run_search import find
from segkey.model.runs import Run
from segkey.reports.page import html_page
from segkey.system.json_files import read_json, write_json


def segkey(*arguments) -> tuple[str, str]:
    """What is shown, and what is told beside it."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", SegkeyWarning)
        result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    told = [result.stderr, *(str(each.message) for each in warned)]
    return result.stdout, " ".join(" ".join(told).split())


def flat(text: str) -> str:
    """Text without white space: lines are wrapped as wide as the terminal is."""
    return "".join(text.split())


@pytest.fixture
def returned(trained_run, shards_folder, key, tmp_path, monkeypatch) -> Path:
    """A run in runs/ that came back from a provider, beside the owner's own shards and key."""
    shutil.copytree(shards_folder, tmp_path / "shards")
    # Other tests may have measured the run that they share.
    measured = ("evaluate.json", "attack.json", "suite.json")
    shards = {"shards": ["shards"]}
    run = copy_of(trained_run, tmp_path / "runs/small", without=measured, data=shards)
    key.save(tmp_path / "keys/segkey.key")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    return run.path


def correct_masks(corrected_shards: Path) -> None:
    shutil.copy(corrected_shards / "test.h5", "shards/test.h5")


ATTACK = ("attack", "runs/small", "--device", "cpu")


def test_a_planted_suite_is_not_merged_with_the_owners_and_the_owners_is(returned, other_key):
    segkey(*ATTACK, "--plain")
    genuine = read_json(returned / "suite.json", "a suite")
    forged = genuine["attacks"][0] | {"attack": "exhaustive", "mean_iou": 0.015, "won": 0.0}
    assert segkey(*ATTACK, "--known-pair")[1].count("suite.json") == 0
    assert [line["attack"] for line in read_json(returned / "suite.json", "")["attacks"]] == [
        "plain",
        "known-pair",
    ]
    planted = genuine | {"attacks": [*genuine["attacks"], forged]}
    without = {name: value for name, value in planted.items() if name != "hmac"}
    for document in (without, planted, authenticity.authenticated("suite", planted, other_key)):
        write_json(returned / "suite.json", document)
        told = segkey(*ATTACK, "--known-pair")[1]
        assert "the earlier suite.json of small is replaced: it was not made with key" in told
        assert [line["attack"] for line in read_json(returned / "suite.json", "")["attacks"]] == [
            "known-pair"
        ]


def test_another_kind_of_result_does_not_pass_for_a_suite(returned, key):
    document = {"attacks": [], "n": {1: 2}}
    made = json.loads(json.dumps(authenticity.authenticated("suite", document, key)))
    assert authenticity.is_authentic("suite", made, key)
    assert not authenticity.is_authentic("attack", made, key)
    assert not authenticity.is_authentic("suite", made | {"attacks": [1]}, key)
    assert not authenticity.is_authentic("suite", made | {"hmac": ["a"]}, key)
    assert not authenticity.is_authentic("suite", made, None)


def test_a_suite_on_masks_that_were_corrected_since_is_replaced(returned, corrected_shards):
    segkey(*ATTACK, "--plain")
    correct_masks(corrected_shards)
    told = segkey(*ATTACK, "--known-pair")[1]
    assert "the earlier suite.json of small is replaced: the test images or masks" in told
    assert [line["attack"] for line in read_json(returned / "suite.json", "")["attacks"]] == [
        "known-pair"
    ]


def test_results_on_other_masks_do_not_stand_in_one_row_without_a_word(returned, corrected_shards):
    segkey("evaluate", "runs/small", "--device", "cpu")
    before = read_json(returned / "evaluate.json", "")["correct"]["mean_iou"]
    correct_masks(corrected_shards)
    segkey(*ATTACK, "--wrong-keys", 2)
    attacked = read_json(returned / "attack.json", "")
    assert attacked["correct"]["mean_iou"] != before
    (row,) = json.loads(segkey("report", "--json")[0])
    assert row["correct"]["mean_iou"] == attacked["correct"]["mean_iou"]
    (note,) = row["notes"]
    assert (
        "evaluate.json is left out: it differs from attack.json in the test images or masks" in note
    )
    assert flat(note) in flat(segkey("report")[0])
    assert note in segkey("report", "--csv")[0]
    assert note in html_page(find(Path("runs")))


def test_results_of_an_earlier_version_are_compared_by_the_correct_keys_score(returned):
    segkey("evaluate", "runs/small", "--device", "cpu")
    segkey(*ATTACK, "--wrong-keys", 2)
    for name in ("evaluate", "attack"):
        document = read_json(returned / f"{name}.json", "")
        old = {part: value for part, value in document.items() if part not in ("tested", "hmac")}
        write_json(returned / f"{name}.json", old)
    (row,) = json.loads(segkey("report", "--json")[0])
    assert row["notes"] == []
    assert row["tested"] is None
    assert flat("did not record which images") in flat(segkey("report")[0])
    old["correct"]["mean_iou"] = 0.4368
    write_json(returned / "attack.json", old)
    (row,) = json.loads(segkey("report", "--json")[0])
    assert row["correct"]["mean_iou"] == 0.4368
    assert row["notes"] == [
        "evaluate.json is left out: it differs from attack.json in the score of the correct key"
    ]


def test_runs_tested_before_and_after_masks_were_corrected_stand_in_two_tables(
    returned, corrected_shards
):
    shutil.copytree(returned, "runs/second")
    segkey("evaluate", "runs/small", "--device", "cpu")
    correct_masks(corrected_shards)
    segkey("evaluate", "runs/second", "--device", "cpu")
    assert segkey("report")[0].count("What the key is worth") == 2
    segkey("evaluate", "runs/small", "--device", "cpu")
    assert segkey("report")[0].count("What the key is worth") == 1


def test_results_on_other_weights_are_left_out_of_the_report(returned):
    segkey("evaluate", "runs/small", "--device", "cpu")
    run = Run.open(returned)
    weights = run.load_model(torch.device("cpu")).weights()
    run.save_weights({name: tensor + 1 for name, tensor in weights.items()})
    (row,) = json.loads(segkey("report", "--json")[0])
    assert row["correct"]["mean_iou"] is None
    assert row["notes"] == [
        "evaluate.json is left out: it was measured on other weights than those in the folder"
    ]


def test_the_report_says_that_it_checked_nothing_or_what_it_checked(returned, key, other_key):
    segkey(*ATTACK, "--wrong-keys", 2)
    document = read_json(returned / "attack.json", "")
    planted = document | {"correct": document["correct"] | {"mean_iou": 0.99}}
    assert flat("anyone who had a folder may have written them") in flat(segkey("report")[0])
    found = find(Path("runs"))
    assert "anyone who had a folder may have written them" in html_page(found)
    page = html_page(found, None, key=key)
    assert "attack.json: made by the owner of the key (authenticated)" in page
    assert "may have written" not in page
    assert f"does not belong to key {other_key.id}" in html_page(found, None, key=other_key)
    write_json(returned / "attack.json", planted)
    page = html_page(found, None, key=key)
    assert f"attack.json is not authenticated with key {key.id}" in page
    assert "(authenticated)" not in page
    assert "as found in the folder, not checked" in segkey("inspect", "runs/small")[0]


def test_it_is_told_which_shards_were_tested_and_who_named_them(returned, key):
    fingerprint = json.loads(segkey("evaluate", "runs/small", "--device", "cpu", "--json")[0])[
        "tested"
    ]["fingerprint"]
    named = f"tested on shards (named by the run itself), fingerprint {fingerprint[:16]}"
    assert flat(named) in flat(segkey("evaluate", "runs/small", "--device", "cpu")[0])
    assert flat(named) in flat(segkey(*ATTACK, "--wrong-keys", 2)[0])
    assert flat(named) in flat(segkey(*ATTACK, "--plain")[0])
    assert flat(named) in flat(segkey("report")[0])
    assert named.removeprefix("tested on ") in html_page(find(Path("runs")))
    out = segkey("evaluate", "runs/small", "--shards", "shards", "--device", "cpu")[0]
    assert f"tested on shards, fingerprint {fingerprint[:16]}" in out


def test_a_provider_does_not_choose_what_the_owner_compares_with(returned, shards_folder, tmp_path):
    """run.json names shards of the provider's; the owner's own are compared all the same."""
    run, absolute = Run.open(returned), tmp_path / "of the provider"
    shutil.copytree(shards_folder, absolute)
    reconfigure(run, data={"shards": [str(absolute)]}).save()
    out, told = segkey("evaluate", "runs/small", "--device", "cpu")
    assert flat(f"tested on {absolute} (named by the run itself)") in flat(out)
    assert "not those" not in told
    page = html_page(find(Path("runs")))
    assert "of the provider (named by the run itself)" in page
    assert str(absolute.parent) not in page
    out, told = segkey("evaluate", "runs/small", "--shards", "shards", "--device", "cpu")
    assert "named by the run" not in out
    assert "not those" not in told
    tested = read_json(returned / "evaluate.json", "")[
        "tested"
    ]  # the owner's shards are those it was trained on
    assert (tested["named_by"], tested["source"], tested["training_data"]) == (
        "user",
        ["shards"],
        "same",
    )
    # Trained on something else, which its own shards would not show.
    reconfigure(run, data={"fingerprint": "0" * 64}).save()
    out, told = segkey("evaluate", "runs/small", "--shards", "shards", "--device", "cpu")
    assert "the shards in shards are not those that run small was trained on" in told
    assert "are not those that the run was trained on" in out


@pytest.mark.parametrize("shards", [["x" * 5000], ["shards", "shards"], ["gone"], []])
def test_shards_that_a_run_cannot_name_are_refused_in_words(returned, shards):
    reconfigure(Run.open(returned), data={"shards": shards}).save()
    result = CliRunner().invoke(app, ["evaluate", "runs/small", "--device", "cpu"])
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "segkey: error" in result.stderr


def test_damaged_training_images_beside_the_tested_ones_are_told(returned):
    Path("shards/train.h5").write_bytes(b"no shard")
    _, told = segkey("evaluate", "runs/small", "--shards", "shards/test.h5", "--device", "cpu")
    assert "nobody can tell whether run small was trained on some of these test images" in told


def test_planted_entries_do_not_become_the_owners_measurement(returned):
    """The case that was seen: 0.99, 0.02 and 0.015 in the folder of a run that came back."""
    expected = json.loads(segkey(*ATTACK, "--wrong-keys", 2, "--json")[0])
    score = expected["correct"] | {"majority_class": ["ground", 0.1]}
    lines = [f"{'0' * 64} {json.dumps(expected['tested'])}\n"]
    for name, value in {
        "correct": 0.99,
        "plain": 0.02,
        "wrong key 0/0": 0.015,
        "wrong key 0/1": 0.015,
    }.items():
        piece = {
            "value": score | {"mean_iou": value},
            "cost": {"queries": 1, "images": 6, "seconds": 0.1},
        }
        lines.append(f"{'0' * 64} {json.dumps([name, piece])}\n")
    (returned / "attack.partial.jsonl").write_text("".join(lines))
    out, told = segkey(*ATTACK, "--wrong-keys", 2, "--json")
    assert "attack.partial.jsonl is not used: it is damaged, or was not written with key" in told
    assert json.loads(out) == expected
    assert not (returned / "attack.partial.jsonl").exists()
