"""Locked runs: exact, ordinary, refused where they cannot be; and whose lock a model has."""

import json
import shutil

import numpy as np
import pytest
import torch
from making import CPU, files, held, recipients, reconfigure, same, told, unseen_scenes
from torch import nn

from segkey import Key, SegkeyError
from segkey.attacks import Target, correct_plain_incorrect
from segkey.crypto import ciphers
from segkey.model import (
    evaluation,
    evaluation_splits,
    locked_runs,
    run_weights,
    seal,
    training,
)
from segkey.model.batches import BatchLoader, as_pixels
from segkey.model.lock import lock_network
from segkey.model.lock_owner import locked_layer, whose
from segkey.model.locked_conv import LockedConv
from segkey.model.networks import Segmenter
from segkey.model.run_checks import damage
from segkey.model.runs import Run
from segkey.model.stem import find_stem

METHODS = ("np", "shf", "shf+np")


@pytest.fixture
def run(tmp_path, plain_run) -> Run:
    """A copy of the plain run, in a folder of its own."""
    return Run.open(shutil.copytree(plain_run.path, tmp_path / "runs" / "plain"))


def predictions(network, images, cipher=None, kind=torch.float32, autocast=False):
    encrypted = cipher.encrypt(images) if cipher else images
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return network.to(kind)(encrypted.to(kind) / 255).argmax(1)


def apart(predicted, expected) -> float:
    """The share of pixels that differ."""
    return (predicted != expected).float().mean().item()


# ------------------------------------------------------------------ exact


@pytest.mark.parametrize("method", METHODS)
def test_confusion_matrices_are_equal_in_float64(run, key, method):
    made = locked_runs.lock_run(run, key, method, 4)
    original, locked, images = run.load_model(CPU), made.load_model(CPU), unseen_scenes(run)
    expected = predictions(original, images, kind=torch.float64)
    assert len(expected.unique()) > 1
    assert torch.equal(predictions(locked, images, made.cipher(key), torch.float64), expected)
    assert apart(predictions(locked, images, kind=torch.float64), expected) > 0  # without key


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_costs_a_locked_model_no_more_than_the_original(run, key, method):
    """The two round elsewhere, so that they agree as well as each does with float32."""
    made = locked_runs.lock_run(run, key, method, 4)
    original, locked, images = run.load_model(CPU), made.load_model(CPU), unseen_scenes(run)
    exact, rounded = (
        predictions(original, images, autocast=autocast) for autocast in (False, True)
    )
    assert apart(predictions(locked, images, made.cipher(key)), exact) <= 1e-4
    found = predictions(locked, images, made.cipher(key), autocast=True)
    assert apart(found, exact) <= 1.5 * apart(rounded, exact) + 1e-4
    assert apart(found, rounded) <= 2 * apart(rounded, exact) + 1e-4


def test_evaluation_gives_the_same_score_to_the_last_digit(run, key, plain_shards):
    made = locked_runs.lock_run(run, key, "shf+np", 4)
    scores = [
        evaluation.evaluate(
            each, evaluation_splits.open_test_split(each), cipher, CPU, precise=True
        ).correct
        for each, cipher in ((run, None), (made, made.cipher(key)))
    ]
    assert scores[0].mean_iou > 0.05
    assert scores[0] == scores[1]


def test_the_whole_image_counts_up_to_its_corners(run, key):
    """Images of which nothing but the border has any content."""
    made = locked_runs.lock_run(run, key, "np", 4)
    images = torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)
    images[:, :, :2] = images[:, :, -2:] = torch.arange(32, dtype=torch.uint8) * 8
    images[1, :, :, :3] = 255
    images[2, :, :, -1] = 0
    with torch.inference_mode():
        expected = run.load_model(CPU).double()(images.double() / 255)
        found = made.load_model(CPU).double()(made.cipher(key).encrypt(images).double() / 255)
    assert torch.allclose(found, expected, atol=1e-5)


class Patches(nn.Module):
    """A network that begins with patches, as transformers do, without a normalisation.

    Args:
        elsewhere: adds the image itself to the logits, this often.
        scale, constant: of logits.
    """

    def __init__(self, elsewhere=0.0, scale=1.0, constant=0.0):
        super().__init__()
        self.elsewhere, self.scale, self.constant = elsewhere, scale, constant
        self.embed, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 5, 1)

    def forward(self, pixels):
        found = self.head(self.embed(pixels).relu())
        found = nn.functional.interpolate(found, scale_factor=4.0)
        found = found + pixels.mean(1, keepdim=True) * self.elsewhere
        return {"out": found * self.scale + self.constant}


def test_patch_embeddings(key):
    network = Segmenter("resnet14", 5).eval()
    network.fcn = Patches()
    cipher = ciphers.from_key("shf+np", key, 8)
    locked = lock_network(network, cipher)
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 64), dtype=np.uint8)
    with torch.inference_mode():
        expected = network(as_pixels(torch.from_numpy(image), 255))
        found = locked(as_pixels(torch.from_numpy(cipher.encrypt(image)), 255))
    assert torch.allclose(found, expected, atol=1e-5)
    assert isinstance(find_stem(locked).convolution, LockedConv)


TINY_LOGITS = pytest.mark.parametrize(
    "scale, constant", [(1, 0), (1e-9, 0), (1e-3, 1), (1e-4, 1000)]
)


@TINY_LOGITS
def test_a_network_that_uses_the_image_elsewhere_is_refused(key, scale, constant):
    """However small and constant its logits are, and if little of the image goes elsewhere."""
    network = Segmenter("resnet14", 5)
    network.fcn = Patches(0.01, scale, constant)
    with pytest.raises(SegkeyError, match="it uses the image elsewhere too"):
        lock_network(network, ciphers.from_key("np", key, 4))
    assert network.training


def test_a_first_convolution_with_a_way_of_its_own_is_named(key):
    """Such as those of timm's networks that pad as TensorFlow does."""

    class Conv2dSame(nn.Conv2d):
        def forward(self, images):
            return super().forward(nn.functional.pad(images, (0, 1, 0, 1)))

    network = Segmenter("resnet14", 3).eval()
    old = network.fcn.backbone.conv1
    network.fcn.backbone.conv1 = Conv2dSame(3, old.out_channels, 3, stride=2, bias=False)
    with pytest.raises(SegkeyError, match="a Conv2dSame, which computes otherwise"):
        lock_network(network, ciphers.from_key("np", key, 4))


@TINY_LOGITS
def test_one_that_does_not_is_locked_however_small_its_logits_are(key, scale, constant):
    network = Segmenter("resnet14", 5)
    network.fcn = Patches(0, scale, constant)
    assert isinstance(
        find_stem(lock_network(network, ciphers.from_key("np", key, 4))).convolution, LockedConv
    )


def test_a_network_that_predicts_one_thing_is_refused(key):
    network = Segmenter("resnet14", 5)
    network.fcn = Patches(0, 0, 1)
    with pytest.raises(SegkeyError, match="predicts the same for every pixel"):
        lock_network(network, ciphers.from_key("np", key, 4))


def test_the_original_network_stays_as_it_is(key):
    network = Segmenter("resnet14", 5).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    locked = lock_network(network, ciphers.from_key("np", key, 4))
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert not torch.equal(locked.mean, network.mean)
    layer = find_stem(locked).convolution
    assert not layer.offset.any()  # it went into the normalisation that follows
    assert find_stem(locked).normalisation.running_mean.abs().max() > 0


# ------------------------------------------------------------------ ordinary runs


def test_a_locked_run_says_what_it_is_and_the_original_stays(run, key):
    before = files(run.path)
    made = locked_runs.lock_run(run, key, "shf+np", 4)
    assert made.path.name == "plain-locked-shf-np-m4"
    assert files(run.path) == before
    header = made.header
    assert (header.method, header.block_size, header.key_id) == ("shf+np", 4, key.id)
    lock = made.configuration.model.lock
    assert lock.stem == "fcn.backbone.conv1"
    assert lock.original == run.weights_checksum
    assert made.history() == run.history()
    assert made.epochs_missing == 0
    assert damage(made) == []
    assert (made.path.parent / "latest").resolve() == made.path.resolve()
    secret = json.dumps(made.configuration.document)
    assert "selected" not in secret
    assert "permutation" not in secret


def test_an_ordinary_run_can_be_attacked(run, key, plain_shards):
    made = locked_runs.lock_run(run, key, "np", 4)
    test = evaluation_splits.open_test_split(made)
    target = Target.create(made, test, made.cipher(key), CPU, precise=True)
    found = correct_plain_incorrect(target, 3)
    plain = evaluation.evaluate(
        run, evaluation_splits.open_test_split(run), None, CPU, precise=True
    )
    assert found.correct == plain.correct
    assert found.plain.mean_iou < found.correct.mean_iou
    assert BatchLoader(test, CPU).split.header.method == "none"


def test_commands_take_a_locked_run(run, key, tmp_path, scenes_folder):
    key_file = key.save(tmp_path / "keys" / "own.key")
    shown = told("lock", run.path, "--key", key_file, "--name", "mine", "-M", 8)
    assert "NP M=8" in shown
    assert key.id in shown
    made = run.path.parent / "mine"
    assert "mean IoU" in told("evaluate", made, "--key", key_file, "--device", "cpu")
    out = tmp_path / "masks"
    picture = sorted((scenes_folder / "images/test").iterdir())[0]
    told("predict", made, picture, "-k", key_file, "--out", out, "--device", "cpu")
    assert len(list((out / "masks").iterdir())) == 1
    assert "locked" in told("inspect", made)
    told("attack", made, "-k", key_file, "--wrong-keys", 2, "--device", "cpu")
    report = told("report", run.path.parent)
    assert "NP, locked" in report


def test_the_key_of_another_run_is_refused(run, key, other_key, tmp_path):
    made = locked_runs.lock_run(run, key, "np", 4)
    other = other_key.save(tmp_path / "other.key")
    message = told("evaluate", made.path, "--key", other, "--device", "cpu", code=1)
    assert f"was made with key {key.id}, not with key {other_key.id}" in message


# ------------------------------------------------------------------ refused


def test_what_is_locked_or_encrypted_already_is_refused(run, key, trained_run):
    made = locked_runs.lock_run(run, key, "np", 4)
    with pytest.raises(SegkeyError, match="is locked already, with key"):
        locked_runs.lock_run(made, key, "np", 4)
    with pytest.raises(SegkeyError, match="was trained on encrypted images"):
        locked_runs.lock_run(trained_run, key, "np", 4)


@pytest.mark.parametrize(
    "method, block_size, message",
    [
        ("ffx", 4, "a model cannot be locked with FFX"),
        ("none", 4, "method 'none' has no key"),
        ("rot13", 4, "no method 'rot13'"),
        ("np", 3, "32 is not a multiple of the block size 3"),
        ("np", 1, "blocks of 1 pixels do not fit the first convolution, whose stride is 2"),
        ("np", 32, "at most 20,000,000 are possible"),
        ("shf", 16, "would have 28,311,552 weights"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(run, key, method, block_size, message):
    before = files(run.path.parent)
    with pytest.raises(SegkeyError, match=message):
        locked_runs.lock_run(run, key, method, block_size)
    assert files(run.path.parent) == before


def test_a_name_that_is_taken_is_refused(run, key):
    locked_runs.lock_run(run, key, "np", 4, name="mine")
    with pytest.raises(SegkeyError, match="already exists"):
        locked_runs.lock_run(run, key, "np", 4, name="mine")
    again = locked_runs.lock_run(run, key, "np", 4)
    assert locked_runs.lock_run(run, key, "np", 4).name == f"{again.name}-2"


def test_what_a_kill_left_is_written_anew(run, key):
    partial = run.path.parent / ".mine.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    made = locked_runs.lock_run(run, key, "np", 4, name="mine")
    assert damage(made) == []
    assert not partial.exists()


def test_a_link_in_the_place_of_what_is_written_is_refused(run, key, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run.path.parent / ".mine.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegkeyError):
        locked_runs.lock_run(run, key, "np", 4, name="mine")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_training_a_locked_run_on_is_refused(run, key):
    made = locked_runs.lock_run(run, key, "np", 4)
    with pytest.raises(SegkeyError, match="is locked, so its training cannot go on"):
        training.resume(made, {}, device=CPU)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("stem", "fcn.backbone.conv1; rm", "'model.lock.stem' is"),
        ("stem", "fcn.backbone", "no convolution 'fcn.backbone' that a lock could be in"),
        ("stem", "fcn.nowhere", "no convolution 'fcn.nowhere' that a lock could be in"),
        ("stem", "__class__", "no convolution '__class__' that a lock could be in"),
        ("block_size", 8, "expected that of 'data', 4"),
        ("block_size", True, "'model.lock.block_size' is True"),
        ("whole_blocks", 1, "'model.lock.whole_blocks' is 1"),
        ("whole_blocks", True, "has shape"),
        ("original", "abc", "'model.lock.original' is 'abc'"),
    ],
)
def test_a_lock_that_cannot_be_is_refused_by_its_field(run, key, field, value, message):
    made = locked_runs.lock_run(run, key, "np", 4)
    reconfigure(made, model={"lock": {field: value}}).save()
    with pytest.raises(SegkeyError, match=message):
        Run.open(made.path).load_model(CPU)


def test_a_huge_block_in_run_json_takes_no_memory(run, key):
    made = locked_runs.lock_run(run, key, "np", 4)
    data = {"block_size": 4096, "size": [4096, 4096]}
    reconfigure(made, model={"lock": {"block_size": 4096}}, data=data).save()
    with pytest.raises(SegkeyError, match="at most 20,000,000"):
        Run.open(made.path).load_model(CPU)


# ------------------------------------------------------------------ customers, and whose


@pytest.fixture
def keys(tmp_path):
    """The files of three customers' keys."""
    made = {name: Key(bytes([number]) * 32) for number, name in enumerate("abc", 100)}
    return {name: key.save(tmp_path / "keys" / f"{name}.key") for name, key in made.items()}


@pytest.mark.parametrize("method, block_size", [("np", 4), ("np", 8), ("shf", 4), ("shf+np", 4)])
def test_a_run_for_each_customer_and_whose_it_is(run, keys, method, block_size):
    shown = told(
        *("lock", run.path, "--customers", *keys.values(), "-m", method, "-M", block_size),
        *("--name", "for"),
    )
    for name, file in keys.items():
        made = run.path.parent / f"for-{name}"
        assert str(made) in shown.replace(" ", "") or made.name in shown
        found = whose(made, [(each, Key.load(path)) for each, path in keys.items()])
        assert [match.customer for match in found if match.is_the_locks] == [name]
        assert found[0].explained == pytest.approx(1, abs=1e-6)
        assert Key.load(file).id == found[0].key_id


def test_the_weights_are_the_evidence_and_not_what_run_json_says(run, keys, tmp_path):
    made = locked_runs.lock_run(run, Key.load(keys["b"]), "np", 4, name="found")
    reconfigure(made, data={"key_id": Key.load(keys["a"]).id}).save()
    folder = keys["a"].parent
    assert "locked with the key of b" in told("whose", made.path, folder)
    bare = shutil.copy(made.weights_file, tmp_path / "stolen.safetensors")
    found = json.loads(told("whose", bare, folder, "--json"))
    assert [each["customer"] for each in found["keys"] if each["is_the_locks"]] == ["b"]
    assert "none of these keys" in told("whose", bare, keys["a"], keys["c"])


def test_a_model_that_was_trained_on_is_still_known(run, keys):
    made = locked_runs.lock_run(run, Key.load(keys["b"]), "np", 4, name="found")
    network = made.load_model(CPU)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * parameter.std() * torch.randn_like(parameter)
    made.save_weights(network.weights())
    found = whose(made.path, [(name, Key.load(file)) for name, file in keys.items()])
    assert [match.customer for match in found if match.is_the_locks] == ["b"]
    assert 0.9 < found[0].explained < 0.99


def test_where_the_weights_alone_say_nothing_the_original_does(run, keys):
    made = locked_runs.lock_run(run, Key.load(keys["b"]), "np", 2, name="found")
    arguments = ("whose", made.path, keys["b"].parent)
    assert "The weights alone cannot tell" in told(*arguments)
    assert "locked with the key of b" in told(*arguments, "--original", run.path)


def test_what_has_no_lock_is_said_to_have_none(run, keys):
    assert "holds no locked layer" in told("whose", run.path, keys["a"], code=1)


def test_a_folder_without_keys_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there are no keys in" in told("whose", run.path, tmp_path / "empty", code=1)


@pytest.mark.parametrize("damage", ["shape", "negative", "huge", "missing", "uneven"])
def test_a_file_whose_geometry_cannot_be_is_refused(run, key, tmp_path, damage):
    made = locked_runs.lock_run(run, key, "np", 4)
    state = made.load_model(CPU).weights()
    geometry = state["backbone.conv1.geometry"]
    if damage == "shape":
        state["backbone.conv1.geometry"] = geometry[:1]
    elif damage == "missing":
        del state["backbone.conv1.border"]
    else:
        place, value = {"negative": (0, -7), "huge": (4, 1 << 40), "uneven": (4, 8)}[damage]
        geometry[0, place] = value
    file = tmp_path / "found.pth"
    torch.save(dict(state), file)
    with pytest.raises(SegkeyError, match="does not fit its own geometry"):
        locked_layer(file)


def test_customers_need_names_and_keys_of_their_own(run, keys, tmp_path):
    twin = shutil.copy(keys["a"], tmp_path / "keys" / "twin.key")
    before = files(run.path.parent)
    start = ("lock", run.path, "--customers")
    assert "have the same key" in told(*start, keys["a"], twin, code=1)
    (tmp_path / "other").mkdir()
    same = Key(bytes([7]) * 32).save(tmp_path / "other" / "a.key")
    assert "two customers' runs would be called" in told(*start, keys["a"], same, code=1)
    told("lock", run.path, keys["a"], code=2)
    told("lock", run.path, "--customers", code=2)
    assert files(run.path.parent) == before


# ------------------------------------------------------------------ sealed


@pytest.fixture
def written(monkeypatch):
    """The names of all files that are written whole."""
    names, really = [], run_weights.written_whole
    monkeypatch.setattr(
        run_weights,
        "written_whole",
        lambda path, *a, **k: names.append(path.name) or really(path, *a, **k),
    )
    return names


def test_a_lock_that_is_sealed_writes_no_plain_weights(run, key, other_key, written):
    made = locked_runs.lock_run(run, key, "np", 4, recipients=recipients(other_key))
    assert made.recipients == recipients(other_key)
    assert written == ["model.safetensors.age"]
    assert held(run.path.parent, run.load_model(CPU).weights()) == ["plain/model.safetensors"]
    with pytest.raises(SegkeyError, match="not sealed for key"):
        made.unlock(key)
    state = made.unlock(other_key).load_model(CPU).weights()
    assert held(made.path, state) == []
    plainly = locked_runs.lock_run(run, key, "np", 4).load_model(CPU).weights()
    assert same(state, plainly)
    assert damage(made) == []


def test_what_a_kill_left_unencrypted_does_not_stay_in_a_sealed_run(run, key):
    partial = run.path.parent / ".mine.partial"
    partial.mkdir()
    for name in ("model.safetensors", ".model.safetensors.0a0a0a0a.partial"):
        (partial / name).write_bytes(b"half")
    made = locked_runs.lock_run(run, key, "np", 4, "mine", recipients=recipients(key))
    assert sorted(each.name for each in made.path.iterdir() if each.name != ".lock") == [
        *("history.jsonl", "model.safetensors.age", "run.json")
    ]


def test_no_recipient_is_refused_and_nothing_written(run, key):
    before = files(run.path.parent)
    with pytest.raises(SegkeyError, match="is no age recipient"):
        locked_runs.lock_run(run, key, "np", 4, recipients=["age1nobody"])
    with pytest.raises(SegkeyError, match="is no age recipient"):
        locked_runs.lock_for_customers(run, [("a", key)], "np", 4, recipients=["age1nobody"])
    assert files(run.path.parent) == before


def test_each_customer_opens_their_own_run_and_the_owner_all(run, key, keys, tmp_path):
    """``lock --customers --seal``, and what was locked of a sealed original without ``--seal``."""
    owner = key.save(tmp_path / "owner" / "owner.key")
    start = ("lock", run.path, "--customers", keys["a"], keys["b"])
    shown = told(*start, "--seal", owner, "--name", "one")
    assert recipients(key)[0][:16] in shown
    customers = {name: Key.load(keys[name]) for name in "ab"}
    seal.seal(run, recipients(key))
    assert "is not sealed for" in told(*start, "--identity", keys["c"], code=1)
    told(*start, "--key", owner, "--name", "two")
    for base in ("one", "two"):
        for name, customer in customers.items():
            made = Run.open(run.path.parent / f"{base}-{name}")
            assert made.recipients == recipients(key, customer)
            assert not made.weights_file.with_name("model.safetensors").exists()
            state = made.unlock(customer).load_model(CPU).weights()
            assert same(Run.open(made.path).unlock(key).load_model(CPU).weights(), state)
            with pytest.raises(SegkeyError, match="not sealed for"):
                Run.open(made.path).unlock(Key.load(keys["c"]))
    assert "locked with the key of b" in told(
        "whose", run.path.parent / "two-b", owner.parent, keys["b"]
    )
    assert "locked with the key of a" in told(
        *("whose", run.path.parent / "one-a", keys["a"], owner, "--original", run.path)
    )
    assert "not for any of these" in told("whose", run.path.parent / "one-a", keys["c"], code=1)


def test_a_key_that_opens_nothing_is_refused_with_customers(run, keys):
    told("lock", run.path, "--customers", keys["a"], "--key", keys["b"], code=2)
