"""Folded runs: the same predictions, no statistics of training images, ordinary in all else."""

import json

import pytest
import torch
from making import (
    CPU,
    copy_of,
    files,
    held,
    recipients,
    reconfigure,
    same,
    told,
    unseen_scenes,
)
from safetensors import safe_open
from torch import nn

from segkey import SegkeyError
from segkey.attacks import Target
from segkey.attacks.statistics import is_folded, why_no_statistics
from segkey.model import evaluation_splits, folded_runs, locked_runs, seal, training
from segkey.model.run_checks import damage
from segkey.model.runs import Run
from segkey.model.stem import find_stem


@pytest.fixture
def run(tmp_path, plain_run) -> Run:
    """A copy of the plain run, in a folder of its own."""
    copy_of(plain_run, tmp_path / "runs" / "plain", name="plain")
    return Run.open(tmp_path / "runs" / "plain")


def predictions(run: Run, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return run.load_model(CPU)(images.float() / 255).argmax(1)


def test_predictions_are_the_originals_and_no_statistics_are_left(run):
    before, images = files(run.path), unseen_scenes(run)
    made = folded_runs.fold_run(run)
    expected = predictions(run, images)
    assert len(expected.unique()) > 1
    assert (predictions(made, images) == expected).float().mean() >= 0.9999
    with safe_open(run.weights_file, "pt") as file:
        normalised = sum("running_mean" in name for name in file.keys())  # noqa: SIM118
    with safe_open(made.weights_file, "pt") as file:
        assert not [n for n in file.keys() if "running" in n or "tracked" in n]  # noqa: SIM118
    assert len(made.configuration.model.folded) == normalised > 3
    assert not any(isinstance(m, nn.BatchNorm2d) for m in made.load_model(CPU).modules())
    assert made.name == "plain-folded"
    assert files(run.path) == before
    assert made.history() == run.history()
    assert damage(made) == []
    assert (made.path.parent / "latest").resolve() == made.path.resolve()
    assert "folded" not in run.configuration.document["model"]


def test_a_locked_run_can_be_folded_and_stays_locked(run, key):
    locked, images = locked_runs.lock_run(run, key, "shf+np", 4), unseen_scenes(run)
    made, encrypted = folded_runs.fold_run(locked), locked.cipher(key).encrypt(images)
    assert made.is_locked
    same_pixels = predictions(made, encrypted) == predictions(run, images)
    assert same_pixels.float().mean() >= 0.9999
    assert not any("running" in name for name in made.load_model(CPU).weights())


def test_the_attack_on_statistics_takes_a_folded_run_by_what_is_usual(
    run, key, trained_run, tmp_path
):
    copied = copy_of(trained_run, tmp_path / "runs" / "np", name="np")
    made = folded_runs.fold_run(Run.open(copied.path))
    test = evaluation_splits.open_test_split(made)
    target = Target.create(made, test, made.cipher(key), CPU, precise=True)
    assert is_folded(find_stem(target.model))
    assert why_no_statistics(target) == ""


def test_commands_show_and_take_a_folded_run(run, tmp_path, key):
    shown = told("fold", run.path, "--name", "mine")
    assert "batch normalisations of plain are folded" in shown
    made = Run.open(run.path.parent / "mine")
    (document,) = json.loads(told("inspect", made.path, "--json"))
    assert document["model"]["folded"] == [list(pair) for pair in made.configuration.model.folded]
    assert "folded" in told("inspect", made.path)
    assert told("inspect", "--verify", made.path)
    assert "mean IoU" in told("evaluate", made.path, "--device", "cpu")
    assert "is folded already" in told("fold", made.path, code=1)


def test_what_cannot_be_is_refused_and_nothing_written(run, key, monkeypatch):
    made = folded_runs.fold_run(run, "mine")
    before = files(run.path.parent)
    with pytest.raises(SegkeyError, match="is folded already"):
        folded_runs.fold_run(made)
    with pytest.raises(SegkeyError, match="already exists"):
        folded_runs.fold_run(run, "mine")
    with pytest.raises(SegkeyError, match="so its training cannot go on"):
        training.resume(made, {}, device=CPU)
    with pytest.raises(SegkeyError, match="is no age recipient"):
        folded_runs.fold_run(run, recipients=["age1nobody"])
    monkeypatch.setattr(folded_runs, "foldable", lambda *_: [])
    with pytest.raises(SegkeyError, match="directly follows a convolution"):
        folded_runs.fold_run(run)
    assert files(run.path.parent) == before


def test_what_a_kill_left_is_written_anew_and_a_link_is_refused(run, tmp_path):
    partial, elsewhere = run.path.parent / ".mine.partial", tmp_path / "elsewhere"
    elsewhere.mkdir()
    partial.symlink_to(elsewhere)
    with pytest.raises(SegkeyError, match="is a symbolic link"):
        folded_runs.fold_run(run, "mine")
    assert not list(elsewhere.iterdir())
    partial.unlink()
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert damage(folded_runs.fold_run(run, "mine")) == []
    assert not partial.exists()


@pytest.mark.parametrize("sealed_before", [False, True])
def test_a_fold_that_is_sealed_writes_no_plain_weights(run, key, other_key, sealed_before):
    state = folded_runs.fold_run(run, "plainly").load_model(CPU).weights()
    if sealed_before:
        seal.seal(run, recipients(key))
        run = Run.open(run.path).unlock(key)
        opener, made = key, folded_runs.fold_run(run)
    else:
        opener, made = other_key, folded_runs.fold_run(run, recipients=recipients(other_key))
    assert made.recipients == recipients(opener)
    assert held(made.path, state) == []
    assert same(made.unlock(opener).load_model(CPU).weights(), state)
    assert damage(made) == []


@pytest.mark.parametrize(
    "pairs, message",
    [
        ([["fcn.nowhere", "fcn.backbone.bn1"]], "there is nothing to fold at fcn.nowhere"),
        ([["fcn.backbone.bn1", "fcn.backbone.conv1"]], "there is nothing to fold"),
        ([["fcn.backbone.conv1", "__class__"]], "there is nothing to fold"),
        ([["fcn.backbone.conv1"]], "'model.folded' is"),
        ([["fcn.backbone.conv1; rm", "x"]], "'model.folded' is"),
        ("fcn.backbone.conv1", "'model.folded' is"),
    ],
)
def test_pairs_that_cannot_be_are_refused_by_their_field(run, pairs, message):
    made = folded_runs.fold_run(run)
    pairs = tuple(map(tuple, pairs)) if isinstance(pairs, list) else pairs
    reconfigure(made, model={"folded": pairs}).save()
    with pytest.raises(SegkeyError, match=message):
        Run.open(made.path).load_model(CPU)
