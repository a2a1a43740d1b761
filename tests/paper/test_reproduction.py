"""``segkey reproduce`` on the built-in scenes: whole, killed and gone on with, refused."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from making import SMALL_NETWORK
from PIL import Image
from typer.testing import CliRunner

from segkey import attacks, paper
from segkey.attacks import known_pair
from segkey.cli import app
from segkey.crypto import ciphers
from segkey.data import scenes, voc
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import authenticity, recipes, training
from segkey.model.runs import Run
from segkey.model.training_loop import Trainer
from segkey.paper import cell_runs as cell_runs
from segkey.paper import tables
from segkey.paper.experiment_settings import PASSWORD, differences
from segkey.reports import preview
from segkey.shards import encryption
from segkey.system.folder_lock import sole_writer
from segkey.system.json_files import read_json, write_json
from segkey.system.progress import Progress

GRID = [
    *SMALL_NETWORK,
    "--size",
    "32",
    "--epochs",
    "2",
    "--batch-size",
    "6",
    "--methods",
    "shf,ffx",
    "-M",
    "4",
    "--wrong-keys",
    "2",
    "--device",
    "cpu",
    "--workers",
    "1",
]
CELLS = ["plain", "shf-m4", "ffx-m4"]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory, key) -> Path:
    return key.save(tmp_path_factory.mktemp("keys") / "own.key")


def reproduce(data, out, key_file, *more: str) -> str:
    result = CliRunner().invoke(
        app, ["reproduce", str(data), "--out", str(out), "-k", str(key_file), *GRID, *more]
    )
    assert result.exit_code == 0, result.stderr
    return result.stdout + result.stderr


def refused(data, out, *more: str) -> str:
    """What is said, where segkey refuses."""
    result = CliRunner().invoke(app, ["reproduce", str(data), "--out", str(out), *GRID, *more])
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, scenes_folder, key_file) -> Path:
    """An experiment that nothing interrupted; whoever changes it works on a copy."""
    out = tmp_path_factory.mktemp("whole") / "results"
    reproduce(scenes_folder, out, key_file)
    return out


def numbers(out: Path) -> list[dict]:
    """What an experiment measured, without times."""
    cells = json.loads((out / "results.json").read_text())["cells"]
    return [{k: v for k, v in cell.items() if k not in ("seconds", "created")} for cell in cells]


# ------------------------------------------------------------------ whole


def test_everything_is_there(whole, key):
    document = json.loads((whole / "results.json").read_text())
    read = paper.read_results(whole / "results.json").document
    assert read | {"checksum": document["checksum"]} == document
    assert [cell["run"] for cell in document["cells"]] == CELLS
    assert {path.name for path in whole.iterdir()} >= {
        "settings.json",
        "results.json",
        "table1.txt",
        "table1.csv",
        "table1.md",
        "table1.tex",
        "table1.json",
        "findings.txt",
        "fig4.png",
        "fig5.png",
        "fig6.png",
        "tradeoff.png",
        "plain",
        "runs",
    }
    plain, shf, _ = document["cells"]
    assert (plain["plain"], plain["incorrect"], shf["images"]) == (None, None, 6)
    assert (shf["incorrect"]["keys"], len(shf["incorrect"]["values"])) == (2, 2)
    assert shf["correct"] == json.loads((whole / "runs/shf-m4/attack.json").read_text())["correct"]
    assert all(
        cell["seconds"]["train"] > 0 and cell["seconds"]["attack"] > 0 for cell in document["cells"]
    )
    assert [finding["finding"] for finding in document["findings"]] == [1, 2, 3, 4]
    assert document["settings"]["key_id"] == key.id
    assert document["full_voc"] is False
    assert document["versions"].keys() >= {"segkey", "torch"}
    assert f"{shf['correct']['mean_iou']:.4f}" in (whole / "table1.txt").read_text()
    assert bytes(range(32)).hex() not in (whole / "results.json").read_text()


def test_locked_models_cost_no_training(tmp_path, whole, scenes_folder, key_file, monkeypatch):
    out = shutil.copytree(whole, tmp_path / "results", symlinks=True)

    def never(*_, **__):
        raise AssertionError("a locked model is not trained")

    monkeypatch.setattr(training, "train", never)
    monkeypatch.setattr(training, "resume", never)
    reproduce(scenes_folder, out, key_file, "--locked")
    document = json.loads((out / "results.json").read_text())
    runs = [cell["run"] for cell in document["cells"]]
    assert runs == [*CELLS, "shf-m4-locked"]
    plain, *_, shf = document["cells"]
    assert (shf["method"], shf["locked"], shf["seconds"]["train"]) == ("shf", True, 0.0)
    assert shf["correct"]["mean_iou"] == pytest.approx(plain["correct"]["mean_iou"], abs=2e-3)
    assert len(shf["incorrect"]["values"]) == 2
    assert document["findings"] == json.loads((whole / "results.json").read_text())["findings"]
    assert "SHF locked" in (out / "table1.txt").read_text()
    assert "paper SHF locked" not in (out / "table1.txt").read_text()
    assert (out / "tradeoff.png").stat().st_size > 0
    assert "4 of 4 models are finished already" in reproduce(
        scenes_folder, out, key_file, "--locked"
    )


def test_what_cannot_be_locked_is_told():
    fitting, refused = paper.locks_that_fit("resnet14", ["shf", "np", "ffx"], [3, 4, 16])
    assert fitting == [("shf", 4), ("np", 4), ("np", 16)]
    assert refused[0].startswith("SHF M=3 is not locked: blocks of 3 pixels do not fit")
    assert any(
        line.startswith("FFX M=4 is not locked: a model cannot be locked with") for line in refused
    )
    assert refused[-2].startswith("SHF M=16 is not locked: with blocks of 16 pixels")


def test_every_cell_is_trained_alike_on_the_same_plain_shards(whole):
    configs = [json.loads((whole / f"runs/{name}/run.json").read_text()) for name in CELLS]
    assert (
        len(
            {
                json.dumps([c["recipe"], c["data"]["shards"], c["data"]["images"], c["seed"]])
                for c in configs
            }
        )
        == 1
    )
    assert all(
        config["data"]["on_the_fly"] for config in configs
    )  # the baseline is augmented like the others
    assert [config["data"]["method"] for config in configs] == ["none", "shf", "ffx"]
    assert [bool(config["data"]["password_hash"]) for config in configs] == [False, False, True]


def test_figures_show_the_models_own_predictions(whole, scenes_folder, key):
    settings = paper.Settings(
        (32, 32), recipes.recipe("scratch", epochs=2, batch_size=6), "thin", 2
    )
    source = paper.open_data(scenes_folder, workers=1)
    experiment = paper.Experiment(source, settings, key, whole, torch.device("cpu"))
    shown = paper.example(experiment, paper.read_results(whole / "results.json"))
    assert [(view.method, view.block_size) for view in shown.views] == [
        ("none", 1),
        ("shf", 4),
        ("ffx", 4),
    ]
    masks = [
        np.asarray(Image.open(item.mask).resize((32, 32), 0)) for item in source.splits["test"]
    ]
    assert len(np.unique(shown.truth)) == max(len(np.unique(mask)) for mask in masks)
    for view in shown.views:
        iou = [
            ((view.predicted == c) & (shown.truth == c)).sum()
            / ((view.predicted == c) | (shown.truth == c)).sum()
            for c in np.unique(shown.truth)
        ]
        assert view.mean_iou == pytest.approx(np.mean(iou))
    assert np.array_equal(shown.views[0].seen, shown.plain)
    assert not np.array_equal(shown.views[1].seen, shown.plain)


def _tiles(figure: Path, columns: int, rows: int) -> list[list[np.ndarray]]:
    """The encrypted pictures of Figure 4 as an attacker cuts them out, uint8 (3, 32, 32)."""
    sheet = np.asarray(Image.open(figure).convert("RGB"))
    step = 128 + 4
    left, top = sheet.shape[1] - columns * step + 4, sheet.shape[0] - (rows * step - 4)
    cut = [
        [sheet[top + r * step :, left + c * step :][:128:4, :128:4] for c in range(columns)]
        for r in range(rows)
    ]
    return [[tile.transpose(2, 0, 1).copy() for tile in line] for line in cut]


def test_published_figures_do_not_tell_the_key(whole, scenes_folder, key):
    """From Figure 4 as it is written, and from what Figure 5 shows, an attacker solves for another
    key than the owner's."""
    settings = paper.Settings(
        (32, 32), recipes.recipe("scratch", epochs=2, batch_size=6), "thin", 2
    )
    source = paper.open_data(scenes_folder, workers=1)
    experiment = paper.Experiment(source, settings, key, whole, torch.device("cpu"))
    shown = paper.example(experiment, paper.read_results(whole / "results.json"))
    tiles = _tiles(whole / "fig4.png", columns=1, rows=2)
    for row, (method, view) in enumerate(zip(("shf", "ffx"), shown.views[1:], strict=True)):
        password = PASSWORD.encode() if method == "ffx" else None
        own, public = (
            ciphers.from_key(method, each, 4, 3, password)
            for each in (key, preview.throwaway_key())
        )
        assert np.array_equal(tiles[row][0], shown.encrypted[method][0])  # cut out as it was drawn
        for seen in (tiles[row][0], view.seen):
            assert np.array_equal(seen, preview.as_seen(public, shown.plain))
            assert not np.array_equal(seen, preview.as_seen(own, shown.plain))
    shf = ciphers.from_key("shf", key, 4)

    def told(seen: np.ndarray) -> np.ndarray:
        """What an attacker who solves for the permutation makes of the image with it."""
        return known_pair.solve(shf, shown.plain[None], seen[None])[0].encrypt(shown.plain)

    assert np.array_equal(
        told(shf.encrypt(shown.plain)), shf.encrypt(shown.plain)
    )  # the attack works
    for seen in (tiles[0][0], shown.views[1].seen):
        assert not np.array_equal(told(seen), shf.encrypt(shown.plain))


# ------------------------------------------------------------------ killed, and gone on with


FATAL = """
import os, signal
from segkey.model.training_loop import Trainer

step, steps = Trainer.step, []

def fatal(self, *arguments):
    steps.append(1)
    if len(steps) == 2 * 2 + 2 + 1:  # two batches an epoch: in the second model's second epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)

Trainer.step = fatal
"""


def test_a_killed_experiment_goes_on_and_ends_with_the_same_numbers(
    tmp_path, whole, scenes_folder, key_file
):
    """A real process, killed in the training of the second cell; nothing that it finished is
    computed again."""
    out = tmp_path / "results"
    command = [
        sys.executable,
        "-m",
        "segkey",
        "reproduce",
        str(scenes_folder),
        "--out",
        str(out),
        "-k",
        str(key_file),
        *GRID,
    ]
    (tmp_path / "fatal.py").write_text(FATAL)
    plugins = os.pathsep.join([os.environ["SEGKEY_PLUGINS"], str(tmp_path / "fatal.py")])
    process = subprocess.run(
        command,
        capture_output=True,
        env=os.environ | {"SEGKEY_SAVE_EVERY": "0", "SEGKEY_PLUGINS": plugins},
    )
    assert process.returncode == -signal.SIGKILL
    assert len(json.loads((out / "results.json").read_text())["cells"]) == 1
    kept = [
        *(out / "plain").glob("*.h5"),
        out / "runs/plain/model.safetensors",
        out / "runs/plain/cell.json",
    ]
    before = [path.stat().st_mtime_ns for path in kept]
    said = reproduce(scenes_folder, out, key_file)
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert "1 of 3 models are finished already" in said
    assert "going on after epoch 1 of 2" in said
    assert len(re.findall(r"epoch +1/2 ", said)) == 1  # of ffx-m4 alone
    assert len(re.findall(r"epoch +2/2 ", said)) == 2
    assert numbers(out) == numbers(whole)
    for name in CELLS:
        mine, theirs = (
            Run.open(folder / "runs" / name).configuration.weights_sha256 for folder in (out, whole)
        )
        assert mine == theirs


@pytest.mark.parametrize("broken", ["run.json", "weights", "cell.json"])
def test_a_broken_cell_is_named_and_the_others_are_made(
    tmp_path, monkeypatch, whole, scenes_folder, key, broken
):
    """A damaged run is left out, and stays as it is; a damaged result is measured again."""
    out, said = tmp_path / "results", []
    shutil.copytree(whole, out, symlinks=True)
    for name in ("shf-m4", "ffx-m4"):
        (out / "runs" / name / "cell.json").unlink()
    cell = out / "runs/shf-m4"
    file = {
        "run.json": cell / "run.json",
        "weights": cell / "model.safetensors",
        "cell.json": cell / "cell.json",
    }[broken]
    file.write_text("{")
    settings = paper.Settings(
        (32, 32), recipes.recipe("scratch", epochs=2, batch_size=6), "thin", 2
    )
    source, cells = paper.open_data(scenes_folder, 1), paper.grid(["shf", "ffx"], [4], (32, 32))
    watch = paper.Watch()
    watch.say = said.append
    monkeypatch.setattr(training, "train", None)
    results = paper.Experiment(source, settings, key, out, torch.device("cpu"), watch).run(cells)
    if broken == "cell.json":
        assert numbers(out) == numbers(whole)
        assert not results.left_out
        assert any("shf-m4 is measured again" in line and "cell.json" in line for line in said)
    else:
        assert [cell.run for cell in results.cells] == ["plain", "ffx-m4"]
        assert file.name in results.left_out["shf-m4"]
        assert file.read_text() == "{"
        assert any("shf-m4 is left out" in line and file.name in line for line in said)
        assert "left out, as their runs or results cannot be used: shf-m4" in " ".join(
            tables.Table1(results).notes
        )


def test_a_model_that_cannot_be_loaded_is_left_out_of_the_figures(
    tmp_path, whole, scenes_folder, key_file
):
    out = tmp_path / "results"
    shutil.copytree(whole, out, symlinks=True)
    (out / "runs/plain/model.safetensors").unlink()
    assert "plain is left out of the figures" in reproduce(scenes_folder, out, key_file)
    assert numbers(out) == numbers(whole)


def small_experiment(scenes_folder, out, key, keys=2):
    """The experiment of `GRID`, its cells, and what it says."""
    settings = paper.Settings(
        (32, 32), recipes.recipe("scratch", epochs=2, batch_size=6), "thin", keys
    )
    said, watch = [], paper.Watch()
    watch.say = said.append
    source, cells = paper.open_data(scenes_folder, 1), paper.grid(["shf", "ffx"], [4], (32, 32))
    return paper.Experiment(source, settings, key, out, torch.device("cpu"), watch), cells, said


@pytest.mark.parametrize("lets_go", [True, False])
def test_a_cell_that_another_process_makes_is_left_to_it(
    tmp_path, monkeypatch, whole, scenes_folder, key, lets_go
):
    """The other cells are made; this one too, if the other process has let go of it by then."""
    out = copied(whole, tmp_path, monkeypatch)
    for name in ("shf-m4", "ffx-m4"):
        (out / "runs" / name / "cell.json").unlink()
    experiment, cells, said = small_experiment(scenes_folder, out, key)
    (out / "working/shf-m4").mkdir(parents=True, exist_ok=True)
    make, other = experiment._make, contextlib.ExitStack()

    def make_and_let_go(cell, splits):
        make(cell, splits)
        if lets_go:
            other.close()

    monkeypatch.setattr(experiment, "_make", make_and_let_go)
    with other:
        other.enter_context(sole_writer(out / "working/shf-m4"))
        results = experiment.run(cells)
    assert [cell.run for cell in results.cells] == (CELLS if lets_go else ["plain", "ffx-m4"])
    assert experiment.elsewhere == ([] if lets_go else ["shf-m4"])
    assert any("another process is making this" in line for line in said) == (not lets_go)


def test_a_cell_that_another_process_has_finished_meanwhile_is_not_made_again(
    tmp_path, monkeypatch, whole, scenes_folder, key
):
    out = copied(whole, tmp_path, monkeypatch)
    taken = out / "runs/ffx-m4/cell.json"
    document = taken.read_text()
    taken.unlink()
    experiment, cells, _ = small_experiment(scenes_folder, out, key)
    hold = experiment._hold

    def finish_and_hold(name):
        taken.write_text(document)
        return hold(name)

    monkeypatch.setattr(experiment, "_hold", finish_and_hold)
    monkeypatch.setattr(experiment, "_make", None)
    assert [cell.run for cell in experiment.run(cells).cells] == CELLS


def test_there_may_be_more_wrong_keys_later(tmp_path, monkeypatch, whole, scenes_folder, key):
    """Models are attacked again, not trained; fewer keys are other settings."""
    out = copied(whole, tmp_path, monkeypatch)
    experiment, cells, _ = small_experiment(scenes_folder, out, key, keys=3)
    made = {cell.run: cell for cell in experiment.run(cells).cells}
    before = {cell["run"]: cell for cell in numbers(whole)}
    assert [made[name].incorrect.keys for name in ("shf-m4", "ffx-m4")] == [3, 3]
    for name in ("shf-m4", "ffx-m4"):
        assert set(before[name]["incorrect"]["values"]) <= set(made[name].incorrect.values)
    assert read_json(out / "settings.json", "settings")["settings"]["wrong_keys"] == 3
    with pytest.raises(SegkeyError, match="wrong keys 2, not 3"):
        small_experiment(scenes_folder, out, key, keys=2)[0].run(cells)


class Killed(BaseException):
    pass


class KilledInAttack(paper.Watch):
    def __init__(self, cell, images):
        super().__init__()
        self.cell, self.left = cell, images

    def task(self, description, total, unit="images"):
        from contextlib import nullcontext

        def advance(count):
            if self.now == (self.cell, "attack"):
                self.left -= count
                if self.left < 0:
                    raise Killed

        return nullcontext(advance)


def test_an_interrupted_attack_goes_on_without_training_again(
    tmp_path, monkeypatch, whole, scenes_folder, key
):
    out = tmp_path / "results"
    shutil.copytree(whole, out, symlinks=True)
    for name in ("cell.json", "attack.json"):
        (out / "runs/ffx-m4" / name).unlink()
    settings = paper.Settings(
        (32, 32), recipes.recipe("scratch", epochs=2, batch_size=6), "thin", 2
    )
    source, cells = paper.open_data(scenes_folder, 1), paper.grid(["shf", "ffx"], [4], (32, 32))
    with pytest.raises(Killed):  # in the third of five scores: FFX has two ways of plain images
        paper.Experiment(
            source, settings, key, out, torch.device("cpu"), KilledInAttack("ffx-m4", 2 * 6)
        ).run(cells)
    assert len((out / "runs/ffx-m4/attack.partial.jsonl").read_text().splitlines()) == 1 + 2
    scored = []
    score = attacks.Target.score
    monkeypatch.setattr(
        attacks.Target, "score", lambda self, *a, **k: scored.append(1) or score(self, *a, **k)
    )
    monkeypatch.setattr(training, "train", None)
    monkeypatch.setattr(encryption, "encrypt", None)
    results = paper.Experiment(source, settings, key, out, torch.device("cpu")).run(cells)
    assert len(scored) == 3
    assert numbers(out) == numbers(whole)
    assert results.cells[-1].seconds["attack"] is None  # a part of it was not seen here


def copied(whole, tmp_path, monkeypatch) -> Path:
    """A copy of the experiment, in which nothing may be trained or encrypted again."""
    monkeypatch.setattr(training, "train", None)
    return Path(shutil.copytree(whole, tmp_path / "results", symlinks=True))


def test_results_that_somebody_planted_do_not_count(
    tmp_path, monkeypatch, whole, scenes_folder, key_file, other_key
):
    out = copied(whole, tmp_path, monkeypatch)
    for name, forger in (("shf-m4", None), ("ffx-m4", other_key)):
        cell = read_json(out / "runs" / name / "cell.json", "a cell")
        cell["correct"]["mean_iou"], cell["incorrect"]["mean"] = 0.99, 0.015
        write_json(
            out / "runs" / name / "cell.json",
            authenticity.authenticated("cell", cell, forger) if forger else cell,
        )
    results = read_json(out / "results.json", "results")
    write_json(
        out / "results.json",
        results | {"cells": [cell | {"correct": 0.99} for cell in results["cells"]]},
    )
    said = reproduce(scenes_folder, out, key_file)
    assert said.count("cell.json does not count: it was not made with key") == 2
    assert "1 of 3 models are finished already" in said
    assert numbers(out) == numbers(whole)


def test_results_on_other_weights_or_of_another_version_are_measured_again(
    tmp_path, monkeypatch, whole, scenes_folder, key_file
):
    out = copied(whole, tmp_path, monkeypatch)
    run = Run.open(out / "runs/shf-m4")
    state = run.load_model(torch.device("cpu")).weights()
    state["classifier.4.weight"] *= 0
    state["classifier.4.bias"] = torch.arange(5.0)  # the last class, whatever the image
    run.save_weights(state)
    said = reproduce(scenes_folder, out, key_file)
    assert "shf-m4/cell.json does not count: since it was made, the weights changed" in " ".join(
        said.split()
    )
    assert "2 of 3 models are finished already" in said
    before, after = (
        next(c for c in numbers(each) if c["run"] == "shf-m4") for each in (whole, out)
    )
    assert after["correct"] != before["correct"]
    assert after["weights_sha256"] == run.weights_checksum
    monkeypatch.setattr(cell_runs, "VERSION", "9.9.9")
    monkeypatch.setattr(paper.Experiment, "_train_and_attack", lambda self, cell, splits: None)
    said = reproduce(scenes_folder, out, key_file, "--methods", "shf")
    assert "since it was made, the version of segkey changed" in " ".join(said.split())


def test_corrected_masks_do_not_go_into_an_experiment_that_was_begun_without_them(
    tmp_path, monkeypatch, whole, scenes_folder, key_file
):
    """The masks of the source change, and then those of its plain shards; every name stays."""
    out, data = copied(whole, tmp_path, monkeypatch), tmp_path / "data"
    shutil.copytree(scenes_folder, data)
    mask = sorted((data / "masks/test").iterdir())[0]
    Image.fromarray(np.ones_like(np.array(Image.open(mask)))).save(mask)
    said = refused(data, out, "-k", str(key_file))
    assert "holds results of other settings: data: content: test" in said
    source, plain = paper.open_data(data, 1), ciphers.from_key("none", None, 1)
    plans = encryption.plan_shards(source, out / "plain", plain, size=(32, 32), views=1)
    encryption.encrypt(
        [plan for plan in plans if plan.header.split == "test"], plain, 1, force=True
    )
    said = reproduce(scenes_folder, out, key_file)
    assert said.count("since it was made, the test images or masks changed") == 3
    assert all(
        a["correct"] != b["correct"] for a, b in zip(numbers(out), numbers(whole), strict=True)
    )
    for split in ("train", "val"):
        mask = sorted((data / "masks" / split).iterdir())[0]
        Image.fromarray(np.ones_like(np.array(Image.open(mask)))).save(mask)
    encryption.encrypt(plans, plain, 1, force=True)
    said = refused(scenes_folder, out, "-k", str(key_file))
    assert "was trained on other images or masks than those in" in said


def test_settings_of_an_earlier_version_are_read(
    tmp_path, monkeypatch, whole, scenes_folder, key_file
):
    out = copied(whole, tmp_path, monkeypatch)
    document = read_json(out / "settings.json", "settings")
    content = document["settings"]["data"].pop("content")
    write_json(out / "settings.json", document)
    assert "does not say what the images and masks held" in reproduce(scenes_folder, out, key_file)
    assert read_json(out / "settings.json", "settings")["settings"]["data"]["content"] == content


def test_a_cell_that_was_killed_before_it_had_anything_begins_anew(
    tmp_path, whole, scenes_folder, key_file
):
    out = tmp_path / "results"
    shutil.copytree(whole, out, symlinks=True)
    shutil.rmtree(out / "runs/shf-m4")
    (out / "runs/shf-m4").mkdir()
    (out / "runs/shf-m4/.run.json.1234.partial").write_text("{")
    reproduce(scenes_folder, out, key_file)
    assert numbers(out) == numbers(whole)


def test_the_grid_may_grow(tmp_path, whole, scenes_folder, key_file, monkeypatch):
    """Another block size and another seed belong to the same experiment; what there is stays."""
    out = tmp_path / "results"
    shutil.copytree(whole, out, symlinks=True)
    made = []
    monkeypatch.setattr(
        paper.Experiment, "_train_and_attack", lambda self, cell, splits: made.append(cell.name)
    )
    said = reproduce(scenes_folder, out, key_file, "-M", "2", "--methods", "shf", "--seeds", "2")
    assert "3 of 10 models are finished already" in said
    assert made == [
        "shf-m2",
        "ffx-m2",
        "plain-seed1",
        "shf-m2-seed1",
        "ffx-m2-seed1",
        "shf-m4-seed1",
        "ffx-m4-seed1",
    ]
    assert numbers(out) == numbers(whole)


def test_a_training_that_diverges_costs_its_cell_and_no_other(
    tmp_path, monkeypatch, whole, scenes_folder, key_file
):
    out = tmp_path / "results"
    shutil.copytree(whole, out, symlinks=True)
    for name in ("shf-m4", "ffx-m4"):
        shutil.rmtree(out / "runs" / name)
    epoch, method = Trainer._epoch, []

    def diverging(self, *arguments):
        line = epoch(self, *arguments)
        method.append(self.cipher.method)
        return line | {"loss": math.nan} if self.cipher.method == "shf" else line

    monkeypatch.setattr(Trainer, "_epoch", diverging)
    said = reproduce(scenes_folder, out, key_file)
    assert "shf-m4 is left out: the loss is nan in epoch 1" in said
    assert "missing, as their training diverged: shf-m4" in said
    assert method == ["shf", "ffx", "ffx"]
    assert numbers(out) == [cell for cell in numbers(whole) if cell["method"] != "shf"]


# ------------------------------------------------------------------ refused


def test_class_names_that_differ_are_named():
    names = {"classes": ["ground", "disc", "box"]}
    other = {"classes": ["ground", "dish", "box"]}
    assert differences(names, other) == ["classes dish, not disc"]
    assert differences(names, {"classes": ["ground"]}) == ["classes (1), not (3)"]


@pytest.mark.parametrize(
    ("options", "different"),
    [
        (["--epochs", "3"], "epochs 3, not 2"),
        (["--wrong-keys", "1"], "wrong keys 1, not 2"),
        (["--size", "48"], "size 48x48, not 32x32"),
        (["--backbone", "resnet50"], "network fcn_resnet50, not thin"),
        (["--limit", "3"], "limit 3, not all"),
    ],
)
def test_other_settings_are_refused_and_named(whole, scenes_folder, key_file, options, different):
    said = refused(scenes_folder, whole, "-k", str(key_file), *options)
    assert f"holds results of other settings: {different}" in said
    assert "another folder with --out" in said


def test_another_key_and_other_images_are_refused(
    tmp_path, whole, scenes_folder, key_file, other_key
):
    other = other_key.save(tmp_path / "other.key")
    assert f"key id {other_key.id}, not" in refused(scenes_folder, whole, "-k", str(other))
    shutil.copytree(scenes_folder, tmp_path / "more")
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        folder = tmp_path / "more" / kind / "test"
        shutil.copy(folder / f"scene0000.{suffix}", folder / f"another.{suffix}")
    assert "data: images: test 7, not 6" in refused(tmp_path / "more", whole, "-k", str(key_file))


@pytest.mark.parametrize("name", ["settings.json", "results.json"])
def test_results_of_another_version_are_refused(tmp_path, whole, scenes_folder, name):
    out = tmp_path / "results"
    shutil.copytree(whole, out, symlinks=True)
    document = json.loads((out / name).read_text()) | {"format": "segkey-reproduction-v0"}
    document.pop("checksum")
    write_json(out / name, document)
    said = refused(scenes_folder, out)
    assert (
        f"{name} has the format 'segkey-reproduction-v0', this segkey reads "
        f"'segkey-reproduction-v1'" in said
    )


def test_a_folder_of_somebody_elses_runs_is_left_alone(tmp_path, scenes_folder):
    (tmp_path / "runs").mkdir()
    assert "was not made by segkey reproduce" in refused(scenes_folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_too_few_images_and_masks_of_unknown_classes(tmp_path, scenes_folder):
    shutil.copytree(scenes_folder, tmp_path / "few")
    shutil.rmtree(tmp_path / "few/images/val")
    said = refused(tmp_path / "few", tmp_path / "out")
    assert "too few images for the split val (there are: train 12, val 0, test 6)" in said
    shutil.copytree(scenes_folder, tmp_path / "strange")
    (tmp_path / "strange/classes.txt").write_text("ground\ndisc\nbox\n")
    said = refused(tmp_path / "strange", tmp_path / "out")
    assert "hold class 4, but there are 3 (0 'ground' to 2 'box')" in said
    assert "has no masks" in refused(scenes_folder / "images" / "train", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_grids_that_cannot_be(tmp_path, scenes_folder):
    assert "32 is not a multiple of the block size 24" in refused(
        scenes_folder, tmp_path / "out", "-M", "24"
    )
    assert "no method 'aes' to reproduce" in refused(
        scenes_folder, tmp_path / "out", "--methods", "aes"
    )
    assert [cell.name for cell in paper.grid(["np", "ffx"], [2, 4], (8, 8), 2)] == [
        "plain",
        "np-m2",
        "ffx-m2",
        "np-m4",
        "ffx-m4",
        "plain-seed1",
        "np-m2-seed1",
        "ffx-m2-seed1",
        "np-m4-seed1",
        "ffx-m4-seed1",
    ]


def test_weights_that_are_not_there_are_named_before_anything_is_trained(
    tmp_path, scenes_folder, key_file
):
    said = refused(
        scenes_folder,
        tmp_path / "out",
        "-k",
        str(key_file),
        "--weights",
        str(tmp_path / "none.pth"),
    )
    assert f"there are no weights at {tmp_path / 'none.pth'}" in said
    assert not list((tmp_path / "out").glob("runs/*"))


# ------------------------------------------------------------------ plan, key, data


def test_a_dry_run_measures_and_writes_nothing(tmp_path, scenes_folder):
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app,
        ["reproduce", str(scenes_folder), "--out", str(out), *GRID, "--seeds", "2", "--dry-run"],
    )
    assert result.exit_code == 0, result.stderr
    assert not out.exists()
    text = " ".join(result.stdout.replace("│", " ").split())  # cells may be wrapped
    assert "6: plain, and SHF, FFX with M = 4, 2 seeds each" in text
    assert "train 12, val 4, test 6, at 32x32; 5 classes" in text
    assert re.search(
        r"[\d.,]+ images/s in training, [\d.,]+ images/s scored \(cpu, \d+ threads?\)", text
    )
    assert re.search(r" all about .* \(\d+ s\)", text)


def test_an_estimate_adds_up(scenes_folder, key, tmp_path):
    settings = paper.Settings(
        (32, 32), recipes.recipe("scratch", epochs=5, batch_size=6), "thin", 7
    )
    source = paper.open_data(scenes_folder, 1)
    experiment = paper.Experiment(source, settings, key, tmp_path / "out", torch.device("cpu"))
    cells = paper.grid(["np"], [2, 4], (32, 32), 3)
    found = paper.estimate(experiment, cells)
    epoch = 12 * found.training + 4 * found.scoring
    assert found.protected == pytest.approx(5 * epoch + 9 * 6 * found.scoring)
    assert found.baseline == pytest.approx(5 * epoch + 6 * found.scoring)
    assert found.all == pytest.approx(6 * found.protected + 3 * found.baseline)
    assert found.training > found.scoring > 0


def test_a_key_is_made_for_the_experiment_and_kept(tmp_path):
    key = paper.key_for(tmp_path)
    assert paper.key_for(tmp_path) == key
    assert (tmp_path / "keys/.gitignore").read_text() == "*.key\n*.partial\n"


def test_full_voc_is_known_by_its_numbers():
    settings = {
        "limit": None,
        "data": {
            "images": {"train": 1318, "val": 146, "test": 1449},
            "classes": list(voc.VOC_CLASSES),
        },
    }
    assert paper.is_full_voc(settings)
    assert not paper.is_full_voc(settings | {"limit": 100})
    part = settings["data"] | {"images": {"train": 393, "val": 44, "test": 445}}
    assert not paper.is_full_voc(settings | {"data": part})


def test_images_without_named_classes_get_numbers(tmp_path):
    scenes.write(tmp_path, train=2, val=1, test=1, size=16)
    (tmp_path / "classes.txt").unlink()
    names = paper.open_data(tmp_path, 1).classes
    assert names == [f"class {number}" for number in range(len(names))]
    assert 2 <= len(names) <= 5


def test_a_training_that_goes_on_elsewhere_says_so(tmp_path, monkeypatch, shards_folder):
    from segkey.shards import open_splits

    class Stop(Progress):
        def state(self, text):
            if text.startswith("epoch   2"):
                raise KeyboardInterrupt

    splits, recipe = (
        open_splits([shards_folder], ("train", "val")),
        recipes.recipe("scratch", epochs=3, batch_size=6),
    )
    how = {"device": torch.device("cpu")}
    with pytest.raises(KeyboardInterrupt):
        training.train(
            splits,
            tmp_path,
            recipe,
            shards=[shards_folder],
            network="thin",
            name="a",
            save_every=0,
            progress=Stop(),
            **how,
        )
    first = Run.open(tmp_path / "a").configuration.device
    monkeypatch.setattr(training.devices, "describe", lambda device: "another device")
    with pytest.warns(SegkeyWarning, match=f"device another device .before: {first}."):
        run = training.resume(Run.open(tmp_path / "a"), splits, **how)
    assert (
        run.configuration.device
        == Run.open(tmp_path / "a").configuration.device
        == f"{first}, then another device"
    )
    with pytest.raises(SegkeyError):
        training.resume(run, splits, **how)
