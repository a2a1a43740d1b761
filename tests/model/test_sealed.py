"""Sealed runs: opened in memory only, by their recipients only; bound to their run.json."""

import json
import shutil

import numpy as np
import pyrage
import pytest
import torch
from making import CPU, Tiny, files, held, recipients, same
from safetensors.torch import load, load_file, save

import segkey
from segkey.crypto import age
from segkey.errors import SegkeyError
from segkey.model import networks, run_weights, runs, seal, sealed_runs, weights_files
from segkey.model.run_checks import damage
from segkey.model.runs import Run
from segkey.system.json_files import read_json, write_json


@pytest.fixture
def run(tmp_path, trained_run, monkeypatch) -> Run:
    """The trained run with the weights of a tiny network."""
    monkeypatch.setattr(networks, "described", lambda model, classes: Tiny(len(classes)))
    path = tmp_path / "runs/small"
    ignored = shutil.ignore_patterns("model.safetensors")
    shutil.copytree(trained_run.path, path, ignore=ignored)
    made = Run.open(path)
    made.save_weights(Tiny(len(made.header.classes)).weights())
    made.save()
    return made


@pytest.fixture
def sealed_run(run, key) -> Run:
    return seal.seal(run, recipients(key)).unlock(key)


def reopened(run: Run, key=None) -> Run:
    opened = Run.open(run.path)
    return opened.unlock(key) if key else opened


def plain_weights(run: Run, key) -> dict:
    """As safetensors takes them."""
    state = reopened(run, key).load_model(CPU).weights()
    return {name: tensor.contiguous() for name, tensor in state.items()}


def test_weights_come_back_and_are_in_no_file(run, key):
    before = run.load_model(CPU).weights()
    assert held(run.path, before) == ["model.safetensors"]  # the search finds what is there
    seal.seal(run, recipients(key))
    assert not (run.path / "model.safetensors").exists()
    assert held(run.path.parent, before) == []
    assert same(reopened(run, key).load_model(CPU).weights(), before)
    assert held(run.path.parent, before) == []  # opening leaves none either
    seal.unseal(reopened(run, key))
    assert not (run.path / "model.safetensors.age").exists()
    assert same(load_file(run.path / "model.safetensors"), before)
    assert "sealed" not in Run.open(run.path).configuration.document


def test_a_sealed_run_predicts_what_the_plain_one_does(run, key):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    expected = segkey.load(run.path, device="cpu").predict(image, key)
    seal.seal(run, recipients(key))
    assert np.array_equal(segkey.load(run.path, key, device="cpu").predict(image, key), expected)


@pytest.mark.parametrize("given", ["none", "other"])
def test_it_opens_for_its_recipients_alone(sealed_run, other_key, given, monkeypatch):
    monkeypatch.setattr(age, "decrypted", lambda *_: pytest.fail("half-read"))
    wanted = "no key was given" if given == "none" else f"not sealed for key {other_key.id}"
    with pytest.raises(SegkeyError, match=wanted) as refused:
        segkey.load(sealed_run.path, other_key if given == "other" else None, device="cpu")
    assert "age1" in refused.value.hint
    with pytest.raises(SegkeyError, match="no key was given"):
        Run.open(sealed_run.path).load_model(CPU)


def test_who_is_named_in_run_json_but_not_in_the_file_is_refused(sealed_run, other_key):
    config = read_json(sealed_run.path / "run.json", "")
    config["sealed"]["recipients"] += recipients(other_key)
    write_json(sealed_run.path / "run.json", config)
    with pytest.raises(SegkeyError, match="does not open"):
        reopened(sealed_run, other_key).load_model(CPU)


def test_several_recipients_and_revoking_one(sealed_run, key, other_key):
    seal.seal(sealed_run, recipients(key, other_key))
    before = reopened(sealed_run, other_key).load_model(CPU).weights()
    seal.seal(reopened(sealed_run, key), recipients(key))
    with pytest.raises(SegkeyError, match="not sealed for"):
        reopened(sealed_run, other_key)
    assert same(reopened(sealed_run, key).load_model(CPU).weights(), before)


def test_a_sealed_copy_leaves_the_run_as_it_is(run, other_key):
    before = files(run.path)
    copy = seal.sealed_copy(run, recipients(other_key), "customer")
    assert files(run.path) == before
    state = run.load_model(CPU).weights()
    assert same(reopened(copy, other_key).load_model(CPU).weights(), state)
    assert held(copy.path, state) == []
    assert copy.configuration.name == "customer"
    with pytest.raises(SegkeyError, match="already exists"):
        seal.sealed_copy(run, recipients(other_key), "customer")


def test_a_file_that_age_alone_made_opens(sealed_run, key):
    """Plain safetensors of the same weights, without what segkey adds."""
    state = plain_weights(sealed_run, key)
    made = pyrage.encrypt(save(state), [pyrage.x25519.Recipient.from_str(recipients(key)[0])])
    sealed_run.weights_file.write_bytes(made)
    assert same(reopened(sealed_run, key).load_model(CPU).weights(), state)


def test_age_alone_opens_what_segkey_sealed(run):
    theirs, state = pyrage.x25519.Identity.generate(), run.load_model(CPU).weights()
    seal.seal(run, [str(theirs.to_public())])
    assert same(load(pyrage.decrypt(run.weights_file.read_bytes(), [theirs])), state)


def test_an_age_file_of_another_model_is_refused(sealed_run, key):
    state = plain_weights(sealed_run, key)
    name = next(iter(state))
    state[name] = state[name] + 1
    made = {
        "sha256": weights_files.checksum(state),
        "header": sealed_run.header_digest,
    }
    sealed_run.weights_file.write_bytes(age.encrypted(save(state, made), recipients(key)))
    with pytest.raises(
        SegkeyError, match=r"model.safetensors.age holds other weights than run.json"
    ):
        reopened(sealed_run, key).load_model(CPU)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["data"]["classes"].reverse(),
        lambda config: config["data"].update(size=[64, 64]),
        lambda config: config["data"].update(key_id="0" * 16),
    ],
)
def test_a_changed_header_is_refused(sealed_run, key, change):
    config = read_json(sealed_run.path / "run.json", "")
    change(config)
    write_json(sealed_run.path / "run.json", config)
    with pytest.raises(SegkeyError, match="not the one that model.safetensors.age was sealed with"):
        reopened(sealed_run, key).load_model(CPU)


def test_a_run_of_a_version_with_fewer_fields_opens(sealed_run, key):
    """What it was sealed with is what its run.json holds, not what this version would write."""
    state, config = plain_weights(sealed_run, key), read_json(sealed_run.path / "run.json", "")
    del config["model"]["channels"]  # 3, which early versions did not write
    made = {"sha256": weights_files.checksum(state), "header": sealed_runs.header_digest(config)}
    write_json(sealed_run.path / "run.json", config)
    sealed_run.weights_file.write_bytes(age.encrypted(save(state, made), recipients(key)))
    opened = reopened(sealed_run, key)
    assert opened.configuration.document["model"] != config["model"]
    assert same(opened.load_model(CPU).weights(), state)
    seal.seal(opened, recipients(key))
    assert same(reopened(sealed_run, key).load_model(CPU).weights(), state)


def test_the_digest_of_a_header_stays_what_it_is():
    data = {"method": "np", "key_id": "0" * 16, "classes": ["a", "ü"], "size": [32, 48]}
    unbound = {"shards": ["x"], "images": {"train": 1}, "views": 4, "on_the_fly": True}
    document = {"model": {"name": "resnet14", "channels": 3}, "data": data | unbound, "seed": 1}
    expected = "86d844ea5674b6180a5cf5b55a400e211865827641e5b11165ddee7b78a373f6"
    assert sealed_runs.header_digest(document) == expected
    assert sealed_runs.header_digest(document | {"data": data, "seed": 2}) == expected


def test_paths_of_shards_may_be_taken_out_of_the_header(sealed_run, key):
    config = read_json(sealed_run.path / "run.json", "")
    config["data"]["shards"] = []
    write_json(sealed_run.path / "run.json", config)
    reopened(sealed_run, key).load_model(CPU)


def test_damage_is_found_with_the_key_and_of_the_form_without_it(sealed_run, key):
    assert damage(reopened(sealed_run)) == damage(reopened(sealed_run, key)) == []
    whole, generator = sealed_run.weights_file.read_bytes(), np.random.default_rng(0)
    for bit in [*range(8), *generator.integers(0, 8 * len(whole), 12)]:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        sealed_run.weights_file.write_bytes(data)
        assert any("model.safetensors.age" in each for each in damage(reopened(sealed_run, key)))
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        sealed_run.weights_file.write_bytes(whole[:size])
        assert any("model.safetensors.age" in each for each in damage(reopened(sealed_run, key)))
    sealed_run.weights_file.write_bytes(whole[:100])
    assert any("no age file" in each for each in damage(reopened(sealed_run)))
    sealed_run.weights_file.write_bytes(
        age.encrypted(b"", recipients(key) + recipients(segkey.Key.generate()))
    )
    assert any("2 recipients" in each for each in damage(reopened(sealed_run)))
    sealed_run.weights_file.unlink()
    assert any("has no weights" in each for each in damage(reopened(sealed_run)))


class Killed(BaseException):
    """Nothing of what comes after it happens."""


def killed_at(monkeypatch, step: int):
    """Make the process end at its n-th change of a file."""
    done = 0

    def stopping(really):
        def act(*args, **kwargs):
            nonlocal done
            done += 1
            if done > step:
                raise Killed
            return really(*args, **kwargs)

        return act

    for module, name in ((run_weights, "written_whole"), (runs, "write_json"), (seal, "remove")):
        monkeypatch.setattr(module, name, stopping(getattr(module, name)))


def until_it_ends(monkeypatch, act):
    """Kill an action at each of its steps in turn; yields after each, ends when none is left."""
    for step in range(20):
        with monkeypatch.context() as patched:
            killed_at(patched, step)
            try:
                act()
                return
            except Killed:
                pass
        yield step
    pytest.fail("too many steps")


def test_a_kill_while_sealing_leaves_a_run_that_opens(run, key, monkeypatch):
    state = run.load_model(CPU).weights()
    steps = []
    for step in until_it_ends(monkeypatch, lambda: seal.seal(Run.open(run.path), recipients(key))):
        steps.append(step)
        left = reopened(run, key)
        assert same(left.load_model(CPU).weights(), state)
        assert (run.path / "model.safetensors").exists()
        if left.is_sealed:  # it says what lies there, and sealing again removes it
            assert sealed_runs.left_plain(left) == [run.path / "model.safetensors"]
            assert any("unencrypted" in each for each in damage(left))
            seal.seal(left, recipients(key))
            break
    assert len(steps) == 3
    assert held(run.path, state) == []


def test_a_kill_while_unsealing_or_sealing_anew_leaves_a_run_that_opens(
    sealed_run, key, other_key, monkeypatch
):
    state = reopened(sealed_run, key).load_model(CPU).weights()
    anew = recipients(key, other_key)
    for _ in until_it_ends(monkeypatch, lambda: seal.seal(reopened(sealed_run, key), anew)):
        assert same(reopened(sealed_run, key).load_model(CPU).weights(), state)
    for _ in until_it_ends(monkeypatch, lambda: seal.unseal(reopened(sealed_run, key))):
        left = reopened(sealed_run, key)
        assert same(left.load_model(CPU).weights(), state)
        if not left.is_sealed:
            break
    assert same(reopened(sealed_run).load_model(CPU).weights(), state)


def test_kills_between_two_saves_of_a_sealed_training(sealed_run, key, monkeypatch):
    """``run.json`` is written before the weights, and accepts those that are still there."""
    first = reopened(sealed_run, key).load_model(CPU).weights()
    for number in (1, 2, 3):
        later = {n: t + number if t.is_floating_point() else t for n, t in first.items()}
        with monkeypatch.context() as patched:
            killed_at(patched, 1)
            with pytest.raises(Killed):
                reopened(sealed_run, key).save_weights(later)
        left = reopened(sealed_run, key)
        assert same(left.load_model(CPU).weights(), first)
        assert left.weights_checksum == weights_files.checksum(first)
    left = reopened(sealed_run, key)
    left.save_weights(later)
    left.save()
    assert same(reopened(sealed_run, key).load_model(CPU).weights(), later)
    assert "replaces" not in Run.open(sealed_run.path).configuration.document["sealed"]


def test_what_cannot_be_sealed_or_unsealed_is_named(run, sealed_run, key, tmp_path):
    (run.path / "resume.pt").touch()
    with pytest.raises(SegkeyError, match="has not ended"):
        seal.seal(reopened(run, key), recipients(key))
    (run.path / "resume.pt").unlink()
    with pytest.raises(SegkeyError, match="no key was given"):
        seal.seal(reopened(run), recipients(key))
    seal.unseal(reopened(run, key))
    with pytest.raises(SegkeyError, match="is not sealed"):
        seal.unseal(reopened(run, key))
    (run.path / "model.safetensors").unlink()
    with pytest.raises(SegkeyError, match="has no weights"):
        seal.seal(Run.open(run.path), recipients(key))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"recipients": []},
        {"recipients": ["x"]},
        {"recipients": "age1"},
        {"recipients": ["age1" + "q" * 58] * 1001},
        {"recipients": ["age1" + "q" * 58], "sha256": "x"},
        {"recipients": ["age1" + "q" * 58], "replaces": [1]},
    ],
)
def test_a_header_that_cannot_be_is_refused(sealed_run, value):
    config = read_json(sealed_run.path / "run.json", "")
    write_json(sealed_run.path / "run.json", config | {"sealed": value})
    with pytest.raises(SegkeyError, match="'sealed"):
        Run.open(sealed_run.path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        *(
            len(text).to_bytes(8, "little") + text + bytes(64)
            for text in (
                b"[]",
                b"{}x",
                b"null",
                b"[" * 100_000,
                b'{"a": {"dtype": "F32", "shape": [17], "data_offsets": [0, 68]}}',
                b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
                b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F32", "shape": ["4"], "data_offsets": [0, 16]}}',
                b'{"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}',
                b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [-8, 8]}}',
                b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], '
                b'"data_offsets": [0, 64]}}',
                b'{"a": {"shape": [4], "data_offsets": [0, 16]}}',
                b'{"a": 7}',
            )
        ),
    ],
)
def test_sealed_bytes_that_are_no_safetensors_are_refused(content):
    """Anybody can seal anything for a public recipient."""
    with pytest.raises(ValueError, match="no safetensors"):
        weights_files.parsed(memoryview(bytearray(content)))


def test_tensors_of_every_type_are_parsed_as_the_library_does():
    state = {str(dtype): torch.ones(3, 5).to(dtype) for dtype in weights_files._DTYPES.values()}
    state |= {"empty": torch.empty(0, 4), "scalar": torch.tensor(7.0)}
    found, metadata = weights_files.parsed(memoryview(bytearray(save(state, {"a": "b"}))))
    assert same(found, state)
    assert metadata == {"a": "b"}
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]}}).encode()
    odd = len(text).to_bytes(8, "little") + text + b"\0" + np.array([1, 2], "<f4").tobytes()
    assert weights_files.parsed(memoryview(bytearray(odd)))[0]["a"].tolist() == [1, 2]
