"""Trainings that never write weights unencrypted."""

import pytest
from making import CPU, Tiny, held, same, trained

from segkey.crypto.age import Identity
from segkey.errors import SegkeyError
from segkey.model import networks, runs, training
from segkey.model.run_checks import damage
from segkey.model.runs import Run
from segkey.model.training_loop import Trainer
from segkey.shards import open_splits


class Stop(Exception):
    """Ends a training after an epoch."""


def test_a_training_that_is_sealed_writes_no_plain_weights_and_resumes_with_a_key(
    tmp_path, shards_folder, key, monkeypatch
):
    """Looked at whenever a file has been written: it has the weights of no epoch in it."""
    seen, really = [], runs.write_json

    def look(path, document):
        really(path, document)
        seen.append(sorted(each.name for each in path.parent.iterdir()))

    monkeypatch.setattr(runs, "write_json", look)
    monkeypatch.setattr(networks, "build", lambda name, classes, *_, **__: Tiny(len(classes)))
    monkeypatch.setattr(networks, "described", lambda model, classes: Tiny(len(classes)))
    how = {"recipients": list(Identity.of(key).recipients), "save_every": 0.0}
    whole = trained(shards_folder, tmp_path / "whole", name="run", save_every=0.0)

    report = Trainer.report
    with monkeypatch.context() as patched, pytest.raises(Stop):

        def stop(self, line):
            report(self, line)
            raise Stop

        patched.setattr(Trainer, "report", stop)
        trained(shards_folder, tmp_path / "cut", name="run", **how)
    left = Run.open(tmp_path / "cut/run")
    assert left.configuration.epochs_done == 1
    assert left.state_file.name == "resume.pt.age"
    assert left.state_file.exists()
    splits = open_splits([shards_folder], ("train", "val"))
    with pytest.raises(SegkeyError, match="no key was given"):
        training.resume(left, splits, device=CPU)
    left = Run.open(left.path).unlock(key)
    assert damage(left) == []
    state = left.read_state()["model"]
    training.resume(left, splits, device=CPU)
    assert same(
        Run.open(left.path).unlock(key).load_model(CPU).weights(), whole.load_model(CPU).weights()
    )
    names = {name for listed in seen[-4:] for name in listed}
    assert not {"model.safetensors", "resume.pt"} & names
    assert held(left.path, state) == held(left.path, whole.load_model(CPU).weights()) == []
    assert not left.state_file.exists()


def test_trusts_only_public_texts_as_recipients(tmp_path, shards_folder):
    with pytest.raises(SegkeyError, match="is no age recipient"):
        trained(shards_folder, tmp_path, name="run", recipients=["keys/segkey.key"])
    assert not (tmp_path / "run").exists()
