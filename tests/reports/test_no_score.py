"""Where there is nothing to measure, every command says so, JSON stays JSON, and no report
stops."""

import ast
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import making
import numpy as np
import pytest
import torch
from making import copy_of, reconfigure
from PIL import Image
from test_paper import cells_of, example, results_of
from typer.testing import CliRunner

import segkey as package
from segkey import attacks, reports
from segkey.cli import app
from segkey.crypto import ciphers
from segkey.data import sources
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import evaluation, evaluation_splits, recipes, training
from segkey.model.results import NOTHING_TO_MEASURE, Incorrect, MajorityClass, Plain, Score
from segkey.model.run_search import find
from segkey.model.runs import Run
from segkey.paper import CellResult, examine, figures, tables
from segkey.reports import gallery
from segkey.reports.page import html_page
from segkey.shards import encryption, open_splits
from segkey.system.folder_lock import is_held, sole_writer
from segkey.system.json_files import finite, read_json, with_checksum, write_json

CPU = torch.device("cpu")


def no_constant(name: str):
    raise AssertionError(f"{name} is no JSON")


def strict(text: str):
    """JSON as other programs read it."""
    return json.loads(text, parse_constant=no_constant)


def void_masks(folder: Path, *splits: str, keep: int = 0) -> None:
    """Void in every pixel of some splits' masks, but for the first ``keep`` of each."""
    for split in splits:
        for file in sorted((folder / "masks" / split).iterdir())[keep:]:
            with Image.open(file) as mask:
                Image.fromarray(np.full_like(np.asarray(mask), 255)).save(file)


def shards_of(folder: Path, out: Path, key) -> Path:
    cipher = ciphers.from_key("np", key, 4)
    plans = encryption.plan_shards(sources.find(folder), out, cipher, size=(32, 32), views=1)
    encryption.encrypt(plans, cipher, workers=1)
    return out


@pytest.fixture(scope="module")
def void_shards(tmp_path_factory, scenes_folder, key):
    """The scenes, with test masks that hold nothing but void."""
    folder = Path(shutil.copytree(scenes_folder, tmp_path_factory.mktemp("void") / "scenes"))
    void_masks(folder, "test")
    return shards_of(folder, folder.parent / "shards", key)


@pytest.fixture
def ready(tmp_path, monkeypatch, trained_run, void_shards, key):
    """Runs ``good`` and ``void``; test masks of the second hold nothing but void."""
    monkeypatch.chdir(tmp_path)
    key.save(tmp_path / "keys/segkey.key")
    for name, shards in (("good", None), ("void", void_shards)):
        run = copy_of(trained_run, tmp_path / "runs" / name, name=name)
        if shards:
            reconfigure(run, data={"shards": [str(shards)], "fingerprint": None}).save()
    return tmp_path


def segkey(*arguments: object) -> str:
    result = making.segkey(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


REPORTS = [
    ("--json",),
    ("--csv",),
    ("--latex",),
    ("--per-class",),
    ("--html", "r.html"),
    ("--html", "r.html", "--key", "keys/segkey.key", "--device", "cpu"),
]


def test_void_test_masks_from_evaluation_to_every_report(ready):
    document = strict(segkey("evaluate", "runs/void", "--device", "cpu", "--json"))
    assert document["correct"]["mean_iou"] is document["correct"]["pixel_accuracy"] is None
    assert document["constant"] == {"class": None, "mean_iou": None}
    assert document["no_score"] == NOTHING_TO_MEASURE
    assert NOTHING_TO_MEASURE in segkey("evaluate", "runs/void", "--device", "cpu")
    shown = segkey("attack", "runs/void", "--wrong-keys", 3, "--device", "cpu")
    assert "Nothing to measure: every pixel of the test masks is void." in shown
    assert "nan" not in shown
    assert "worth" not in shown
    assert "always the same class" in shown
    document = strict(segkey("attack", "runs/void", "--wrong-keys", 3, "--device", "cpu", "--json"))
    assert document["incorrect"] == {
        "keys": 0,
        "mean": None,
        "std": None,
        "min": None,
        "max": None,
        "values": [],
    }
    document = strict(segkey("attack", "runs/void", "--suite", "--device", "cpu", "--json"))
    assert document["attacks"] == []
    assert set(document["left_out"].values()) >= {NOTHING_TO_MEASURE}
    assert "Nothing to measure" in segkey(
        "attack", "runs/void", "--plain", "--search", "--device", "cpu"
    )
    segkey("evaluate", "runs/good", "--device", "cpu")
    segkey("attack", "runs/good", "--wrong-keys", 2, "--device", "cpu")
    for how in REPORTS:
        shown = segkey("report", *how)
        if how[0] == "--html":
            page = Path("r.html").read_text(encoding="utf-8")
            assert page.count("Nothing to measure: every pixel of the test masks is void.") == 1
            assert ">nan<" not in page
            assert "NaN" not in page
        assert "nan" not in shown.lower()
    rows = {row["run"]: row for row in strict(segkey("report", "--json"))}
    assert rows["void"]["no_score"] == NOTHING_TO_MEASURE
    assert rows["good"]["correct"]["mean_iou"] > 0
    assert f"void: {NOTHING_TO_MEASURE}" in segkey("report")
    assert strict(segkey("inspect", "--json", "runs/void"))[0]["evaluate"] == {"correct": None}
    assert "correct n/a" in segkey("inspect", "runs/void")


def as_earlier_versions_wrote(file: Path, document: dict) -> None:
    """With NaN where there was no score, and a checksum over that."""

    def with_nan(value):
        if isinstance(value, dict):
            return {name: with_nan(each) for name, each in value.items() if name != "no_score"}
        if isinstance(value, list):
            return [with_nan(each) for each in value]
        return math.nan if value is None else value

    import hashlib

    document = with_nan(document)
    text = json.dumps(document, sort_keys=True)
    file.write_text(
        json.dumps(document | {"checksum": hashlib.sha256(text.encode()).hexdigest()[:16]})
    )


def test_results_of_earlier_versions_that_hold_nan_are_read_as_no_score(ready, trained_run):
    run = Run.open("runs/void")
    line = {
        "attack": "wrong-keys",
        "knows": "m",
        "steals": "the model",
        "queries": 3,
        "images": 18,
        "seconds": 2.0,
        "mean_iou": None,
        "won": 1.0,
        "summary": "s",
        "details": {"best_of": {"100": {"mean": None}}, "values": [None]},
    }
    attack = {
        "run": "void",
        "method": "np",
        "block_size": 4,
        "split": "test",
        "images": 6,
        "key_space_bits": 44.9,
        "seed": 0,
        "correct": {"mean_iou": None, "pixel_accuracy": None},
        "plain": {"mean_iou": None},
        "device": "cpu",
        "incorrect": {
            "keys": 2,
            "mean": None,
            "std": None,
            "min": None,
            "max": None,
            "values": [None, None],
        },
        "constant": {"class": "ground", "mean_iou": 0.0},
    }
    suite = {
        name: attack[name]
        for name in (
            "run",
            "method",
            "block_size",
            "images",
            "key_space_bits",
            "correct",
            "constant",
        )
    }
    suite |= {
        "fixed_password": False,
        "keyless": {"mean_iou": None, "divided_by": 255},
        "left_out": {},
        "attacks": [line],
    }
    for name, document in (("evaluate", attack), ("attack", attack), ("suite", suite)):
        as_earlier_versions_wrote(run.path / f"{name}.json", document)
        assert run.result(name).correct.mean_iou is None
        for how in REPORTS:
            segkey("report", *how)
        assert "othing to measure" in html_page(find(Path("runs")))
    assert "Nothing to measure" in reports.suite_verdict(run.result("suite"))
    assert (
        reports.attack_sentence(run.result("attack"))
        == "Nothing to measure: every pixel of the test masks is void."
    )


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_that_holds_no_number_is_read_as_null(tmp_path, text):
    (tmp_path / "a.json").write_text(f'{{"a": [{text}, 1.5], "b": {{"c": {text}}}}}')
    assert read_json(tmp_path / "a.json", "a thing") == {"a": [None, 1.5], "b": {"c": None}}


def test_no_json_is_written_that_is_none(tmp_path):
    for value in (math.nan, math.inf, [-math.inf]):
        with pytest.raises(ValueError):
            write_json(tmp_path / "a.json", {"a": value})
        with pytest.raises(ValueError):
            with_checksum({"a": value})
    assert list(tmp_path.iterdir()) == []
    assert finite((1, math.nan, {"a": math.inf})) == (1, None, {"a": None})


def test_every_writer_of_json_refuses_nan():
    """Of all calls in the package; the one that compares a checksum must know what earlier versions
    wrote."""
    calls = []
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dump", "json.dumps"):
                calls.append(file.name)
                (how,) = (
                    ast.unparse(word.value) for word in node.keywords if word.arg == "allow_nan"
                )
                assert how == "False" or (file.name, how) == ("json_files.py", "allow_nan"), (
                    file,
                    node.lineno,
                )
    assert {
        "json_files.py",
        "history.py",
        "console.py",
        "journal.py",
        "keys.py",
        "writer.py",
    } <= set(calls)


# ------------------------------------------------------------------ training


@pytest.mark.parametrize(
    ("split", "says"), [("val", "no epoch is the best"), ("train", "nothing to learn")]
)
def test_void_masks_are_no_divergence(tmp_path, scenes_folder, key, split, says):
    folder = Path(shutil.copytree(scenes_folder, tmp_path / "scenes"))
    void_masks(folder, split)
    splits = open_splits([shards_of(folder, tmp_path / "shards", key)], ("train", "val"))
    recipe = recipes.recipe("scratch", epochs=1, batch_size=4)
    with pytest.raises(
        SegkeyError, match=f"every pixel of the masks of the '{split}' split is void"
    ) as refusal:
        training.train(splits, tmp_path / "runs", recipe, shards=[], device=CPU, network="thin")
    assert says in refusal.value.what
    assert "--lr" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()


def test_masks_of_which_some_are_void_and_a_class_that_never_occurs(
    tmp_path, trained_run, scenes_folder, key
):
    folder = Path(shutil.copytree(scenes_folder, tmp_path / "scenes"))
    void_masks(folder, "train", "val", "test", keep=1)
    file = sorted((folder / "masks/test").iterdir())[0]
    with Image.open(file) as mask:
        Image.fromarray(np.zeros_like(np.asarray(mask))).save(file)  # of class 0 alone
    splits = open_splits([shards_of(folder, tmp_path / "shards", key)])
    recipe = recipes.recipe("scratch", epochs=1, batch_size=1)  # steps whose batch holds void alone
    run = training.train(splits, tmp_path / "runs", recipe, shards=[], device=CPU, network="thin")
    assert all(math.isfinite(line["loss"] + line["val_loss"]) for line in run.history())
    document = evaluation.evaluate(trained_run, splits["test"], None, CPU).document
    assert [value is None for value in document["correct"]["iou"].values()] == [
        False,
        True,
        True,
        True,
        True,
    ]
    assert document["correct"]["mean_iou"] == document["correct"]["iou"]["ground"]
    assert "no_score" not in document


def test_attackers_whose_images_are_void_learn_nothing_and_do_not_fail(
    trained_run, tmp_path, scenes_folder, key
):
    folder = Path(shutil.copytree(scenes_folder, tmp_path / "scenes"))
    void_masks(folder, "train", "val")
    shards = shards_of(folder, tmp_path / "shards", key)
    with pytest.warns(SegkeyWarning, match="are not those that run small was trained on"):
        tested = evaluation_splits.open_test_split(trained_run, [shards])
    cipher = trained_run.cipher(key)
    splits = evaluation_splits.attackers_splits(trained_run, [shards])
    target = attacks.Target.create(trained_run, tested, cipher, CPU, splits=splits)
    budget = attacks.Budget(keys=1, queries=10, images=2, epochs=1, steps=1, percents=(20,))
    document = attacks.run_attacks(target, ["search", "fine-tune"], budget).document
    strict(json.dumps(document))
    assert all(0 <= line["mean_iou"] <= 1 for line in document["attacks"])


def test_spread_of_no_score_and_of_tied_scores():
    from segkey.attacks.wrong_keys import spread

    assert spread([]) == {"mean": None, "std": None, "min": None, "max": None}
    assert spread([0.25] * 40) == {"mean": 0.25, "std": 0.0, "min": 0.25, "max": 0.25}
    assert not hasattr(attacks, "best_of_many")


# ------------------------------------------------------------------ a run without weights


@pytest.fixture
def killed(ready):
    """A run that was killed in its first epoch."""
    run = Run.open("runs/good")
    for name in ("model.safetensors", "history.jsonl"):
        (run.path / name).unlink()
    reconfigure(run, weights_sha256=None, best=None, epochs_done=0).save()
    return Run.open("runs/good")


COMMANDS = [
    ("evaluate", "runs/good"),
    ("attack", "runs/good"),
    ("attack", "runs/good", "--plain"),
    ("predict", "runs/good", "photo.png"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_without_weights_is_told_in_a_sentence(killed, command):
    Image.new("RGB", (32, 32)).save("photo.png")
    result = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert (
        "segkey: error: runs/good has no weights: its training was cut off before it saved any"
        in result.stderr
    )
    assert "segkey: hint: go on with it: segkey train --resume --name good\n" in result.stderr
    assert "best weights" not in result.stderr
    with sole_writer(Path("runs/good")):
        result = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert "no weights yet: its training is under way" in result.stderr
    assert "cut off" not in result.stderr


def test_a_run_without_weights_stops_no_report(killed, key):
    for how in REPORTS:
        shown = segkey("report", *how)
        # CSV and LaTeX hold runs alone; who is left out stands on stderr.
        assert "good" in shown or how[0] in ("--html", "--csv", "--latex")
    strict(segkey("inspect", "--json", "runs/good"))
    notes = gallery.of_runs([killed], key, None, CPU).notes
    assert "has no weights" in notes["good"]


def test_a_training_that_is_alive_was_not_cut_off(ready):
    run = reconfigure(Run.open("runs/good"), recipe={"epochs": 5})
    run.save()
    before = sorted(path.name for path in run.path.iterdir())
    result = CliRunner().invoke(app, ["evaluate", "runs/good", "--device", "cpu"])
    assert (
        "training of good was cut off: these are its best weights after 2 of 5 epochs"
        in result.stderr
    )
    assert "go on with: segkey train --resume --name good\n" in result.stderr
    assert not is_held(run.path)
    with sole_writer(run.path):
        assert is_held(run.path)
        result = CliRunner().invoke(app, ["evaluate", "runs/good", "--device", "cpu"])
    assert (
        "training of good is under way: these are its best weights after 2 of 5 epochs\n"
        in result.stderr
    )
    assert "cut off" not in result.stderr
    assert not is_held(run.path)
    assert {path.name for path in run.path.iterdir()} - set(before) <= {".lock", "evaluate.json"}


@pytest.mark.parametrize("kind", ["none", "link", "pipe", "folder"])
def test_asking_whether_a_folder_is_held_makes_and_follows_nothing(tmp_path, kind):
    import os

    (tmp_path / "run").mkdir()
    (tmp_path / "key").write_text("secret")
    lock = tmp_path / "run/.lock"
    {
        "none": lambda: None,
        "link": lambda: lock.symlink_to(tmp_path / "key"),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
    }[kind]()
    assert not is_held(tmp_path / "run")
    assert (tmp_path / "key").read_text() == "secret"
    assert lock.exists() == (kind != "none")


# ------------------------------------------------------------------ an experiment


def test_an_experiment_whose_cells_have_no_score(tmp_path):
    def without(cell: CellResult) -> CellResult:
        protected = cell.method != "none"
        return replace(
            cell,
            correct=Score(mean_iou=None),
            plain=Plain(mean_iou=None) if protected else None,
            incorrect=Incorrect(keys=0, mean=None, std=None, min=None, max=None)
            if protected
            else None,
            majority_class=MajorityClass(name=None, mean_iou=None),
        )

    shown = example(2)
    (view, *_) = shown.views
    shown = shown.__class__(
        **shown.__dict__ | {"views": [view.__class__(**view.__dict__ | {"mean_iou": None})]}
    )
    whole = cells_of()
    for cells in ([without(cell) for cell in whole], [without(whole[1]), *whole[:1], *whole[2:]]):
        results = results_of(cells)
        strict(json.dumps([finding.document for finding in examine(cells)]))
        tables.write_tables(results, tmp_path)
        figures.write_all(results, shown, tmp_path)
        assert (
            "nan"
            not in (tmp_path / "table1.txt").read_text() + (tmp_path / "findings.txt").read_text()
        )
        assert NOTHING_TO_MEASURE in (tmp_path / "table1.txt").read_text()
        strict((tmp_path / "table1.json").read_text())
        assert tables.cell_sentence(replace(cells[0], method="np")).endswith(
            NOTHING_TO_MEASURE if cells[0].correct.mean_iou is None else "key"
        )
    assert [finding.verdict for finding in examine([without(cell) for cell in whole])] == [
        "cannot be told"
    ] * 4


def test_nothing_is_chosen_where_nothing_is_measured():
    from segkey.model import results
    from segkey.reports.verdicts import plain_in_words
    from segkey.system import json_records

    def plain(mean_iou, **by_divisor):
        divided = {name.strip("_"): value for name, value in by_divisor.items()}
        document = {"mean_iou": mean_iou, "divided_by": 996, "by_divisor": divided}
        return json_records.read(results.Plain, document)

    assert plain_in_words(plain(None, _255=None, _996=None)) == ""
    assert "996 gives 0.2" in plain_in_words(plain(0.2, _255=0.1, _996=0.2))
