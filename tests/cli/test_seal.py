"""segkey seal, unseal and what opens sealed runs, as terminal sessions."""

import json
import shutil

import pytest
from making import Tiny
from typer.testing import CliRunner

from segkey.cli import app
from segkey.crypto.age import Identity
from segkey.crypto.keys import Key
from segkey.model import networks
from segkey.model.runs import Run

CPU = ("--device", "cpu")


@pytest.fixture
def work(tmp_path, trained_run, shards_folder, scenes_folder, key, other_key, monkeypatch):
    """A folder with a run of a tiny network, the owner's key, a customer's, and one with a
    passphrase."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "described", lambda model, classes: Tiny(len(classes)))
    shutil.copytree(
        trained_run.path, "runs/small", ignore=shutil.ignore_patterns("model.safetensors")
    )
    run = Run.open("runs/small")
    run.save_weights(Tiny(len(run.header.classes)).weights())
    run.save()
    shutil.copytree(scenes_folder / "images/test", "photos")
    key.save("keys/segkey.key")
    other_key.save("keys/customer.key")
    (tmp_path / "words").write_text("correct horse\n")
    return tmp_path


def segkey(*args) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(app, [str(each) for each in args])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def predict(*args) -> tuple[int, str, str]:
    return segkey("predict", "runs/small", "photos", "--force", *CPU, *args)


def test_a_session_of_an_owner_and_a_customer(work, key, other_key):
    status, shown, _ = segkey("inspect", "keys/customer.key", "--json")
    customer = json.loads(shown)[0]["recipient"]
    assert status == 0
    assert customer == Identity.of(other_key).recipients[0]
    status, shown, said = segkey("seal", "runs/small", "--to", "keys/segkey.key", "--to", customer)
    assert status == 0, said
    assert "sealed for 2 recipients" in shown
    assert customer in shown
    assert not (work / "runs/small/model.safetensors").exists()
    assert predict()[0] == 0
    # The customer's key opens the model; its images still need the key that it was trained with.
    assert predict("--identity", "keys/customer.key")[0] == 0
    assert segkey("inspect", "--verify", "runs/small")[0] == 0
    status, shown, _ = segkey("inspect", "--verify", "runs/small", "--key", "keys/customer.key")
    assert status == 0
    assert "its form" not in shown
    assert segkey("seal", "runs/small", "--to", "keys/segkey.key")[0] == 0
    status, _, said = predict("--identity", "keys/customer.key")
    assert status == 1
    assert "not sealed for key" in said
    assert segkey("unseal", "runs/small")[0] == 0
    assert (work / "runs/small/model.safetensors").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "runs/small", "photos", *CPU),
        ("evaluate", "runs/small", *CPU),
        ("attack", "runs/small", *CPU),
        ("unseal", "runs/small"),
        ("seal", "runs/small", "--to", "keys/segkey.key"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("given", ["no key", "another key"])
def test_without_the_key_one_line_and_nothing_else(work, key, command, given):
    seal = ("seal", "runs/small", "--to", "keys/segkey.key")
    assert segkey(*seal)[0] == 0
    before = sorted(path.name for path in work.rglob("*"))
    more = ("--key", "missing.key") if given == "no key" else ("--key", "keys/customer.key")
    status, shown, said = segkey(*command, *more)
    assert (status, shown) == (1, "")
    assert said.startswith("segkey: error: runs/small is")
    assert ("there is no key" if given == "no key" else "not sealed for key") in said
    assert sorted(path.name for path in work.rglob("*")) == before


def test_a_key_with_a_passphrase_opens_what_was_sealed_for_it(work, monkeypatch):
    Key.generate().save("keys/locked.key", "correct horse")
    words = ("--passphrase-file", "words")
    assert segkey("seal", "runs/small", "--to", "keys/locked.key", *words)[0] == 0
    status, shown, _ = segkey("inspect", "keys/locked.key")
    assert status == 0
    assert "shown with --passphrase-file" in shown
    assert "age1" in segkey("inspect", "keys/locked.key", *words)[1]
    assert segkey("unseal", "runs/small", "--key", "keys/locked.key", *words)[0] == 0


def test_what_would_lock_the_owner_out_is_asked_for_by_name(work, other_key):
    public = Identity.of(other_key).recipients[0]
    status, _, said = segkey("seal", "runs/small", "--to", public)
    assert status == 1
    assert "you could not open" in said
    assert segkey("seal", "runs/small", "--to", public, "--name", "customer")[0] == 0
    assert (work / "runs/small/model.safetensors").exists()
    assert not (work / "runs/customer/model.safetensors").exists()
    assert segkey("seal", "runs/small", "--to", public, "--without-me")[0] == 0


def test_a_plain_file_beside_the_sealed_one_is_told(work, key):
    plain = work / "runs/small/model.safetensors"
    data = plain.read_bytes()
    assert segkey("seal", "runs/small", "--to", "keys/segkey.key")[0] == 0
    plain.write_bytes(data)
    status, _, said = predict()
    assert status == 0
    assert "unencrypted beside the sealed weights" in said.replace("\n", " ")
    assert segkey("inspect", "--verify", "runs/small")[0] == 1
    assert segkey("seal", "runs/small", "--to", "keys/segkey.key")[0] == 0
    assert not plain.exists()
