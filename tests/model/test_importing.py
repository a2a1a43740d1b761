"""Models that were trained elsewhere become runs, with the scores their own script computed."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from segkey.cli import app
from segkey.crypto import ciphers
from segkey.data import scenes, sources
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import evaluation, evaluation_splits, importing, network_registry, networks
from segkey.model.importing import ImageFacts, import_weights, parse_normalisation
from segkey.model.runs import Run
from segkey.reports.page import html_page
from segkey.shards import encryption

CPU = torch.device("cpu")
SIDE = 64
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Scenes of the size that networks take them in, so that nothing is resized."""
    return scenes.write(tmp_path_factory.mktemp("data"), train=8, val=2, test=5, size=SIDE)


@pytest.fixture(scope="module")
def plain_shards(tmp_path_factory, data):
    out, cipher = tmp_path_factory.mktemp("plain"), ciphers.from_key("none", None, 1)
    plans = encryption.plan_shards(sources.find(data), out, cipher, size=(SIDE, SIDE))
    encryption.encrypt(plans, cipher, workers=1)
    return out


# What a user's own script does, without segkey.


def batch(data, split, mean, std):
    """All images of a split as float (N, 3, H, W), and their masks."""
    files = sorted((data / "images" / split).iterdir())
    pixels = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
    masks = np.stack([np.asarray(Image.open(data / f"masks/{split}/{f.stem}.png")) for f in files])
    pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (mean, std))
    return (pixels - mean) / std, torch.from_numpy(masks).long()


def logits_of(model, images):
    made = model(images)
    return made["out"] if isinstance(made, dict) else made


def trained_elsewhere(model, data, mean, std, steps=12):
    torch.manual_seed(7)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    images, masks = batch(data, "train", mean, std)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(logits_of(model.train(), images), masks, ignore_index=255).backward()
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def own_mean_iou(model, data, mean, std):
    images, masks = batch(data, "test", mean, std)
    predicted, known = logits_of(model, images).argmax(1), masks != 255
    scores = []
    for number in masks[known].unique().tolist():
        one, other = (predicted == number) & known, (masks == number) & known
        scores.append(((one & other).sum() / (one | other).sum()).item())
    return sum(scores) / len(scores)


def torchvisions(classes):
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)


def smps(classes):
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.FPN("tu-mobilenetv3_small_050", encoder_weights=None, classes=classes)


@pytest.mark.parametrize(
    ("make", "network", "normalise"),
    [
        (torchvisions, "lraspp_mobilenet_v3_large", "imagenet"),
        (torchvisions, "lraspp_mobilenet_v3_large", "none"),
        (smps, "smp:FPN/tu-mobilenetv3_small_050", "0.4/0.2"),
    ],
)
def test_the_mean_iou_is_that_of_the_script_that_trained_it(
    tmp_path, monkeypatch, data, plain_shards, make, network, normalise
):
    mean, std = {
        "imagenet": IMAGENET,
        "none": ([0.0] * 3, [1.0] * 3),
        "0.4/0.2": ([0.4] * 3, [0.2] * 3),
    }[normalise]
    names = (data / "classes.txt").read_text().split()
    torch.manual_seed(3)
    model = trained_elsewhere(make(len(names)), data, mean, std)
    torch.save({"epoch": 12, "state_dict": model.state_dict()}, tmp_path / "theirs.pth")
    monkeypatch.chdir(tmp_path)
    words = ["import", "theirs.pth", "--network", network, "--normalise", normalise]
    words += ["--classes", str(data / "classes.txt"), "--size", str(SIDE)]
    done = CliRunner().invoke(app, words + ["--shards", str(plain_shards)])
    assert done.exit_code == 0, done.output
    run = Run.open("runs/theirs")
    result = evaluation.evaluate(
        run, evaluation_splits.open_test_split(run), None, CPU, precise=True
    )
    theirs = own_mean_iou(model, data, mean, std)
    assert result.correct.mean_iou == pytest.approx(theirs, abs=5e-5)
    assert theirs > 0.1  # it has learned something, so that other weights would score otherwise


@pytest.fixture
def tiny(monkeypatch):
    """A registered network, small enough for many tests."""
    network_registry.register_all()
    monkeypatch.setattr(network_registry, "NETWORKS", dict(network_registry.NETWORKS))

    @network_registry.network("tiny", channels=(1, 3, 4))
    def build(classes, channels):
        return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(4, classes, 1))

    return lambda classes=2, channels=3: build(classes, channels).state_dict()


def imported(tmp_path, state, classes=("a", "b"), **facts):
    file = tmp_path / "theirs.pth"
    torch.save(state, file)
    images = ImageFacts(classes, (8, 8), **facts)
    return import_weights(file, tmp_path / "runs", network="tiny", images=images)


@pytest.mark.parametrize("wrapper", ["", "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module."])
def test_wrappers_and_prefixes_are_understood(tmp_path, tiny, wrapper, prefix):
    state = tiny()
    renamed = {prefix + name: each for name, each in state.items()}
    made = imported(tmp_path, {wrapper: renamed, "epoch": 3} if wrapper else renamed)
    kept = made.run.load_model(CPU).weights()
    assert all(torch.equal(kept[name], state[name]) for name in state)
    assert bool(prefix) == any("prefix" in note for note in made.notes)


def test_safetensors_and_the_name_of_the_file(tmp_path, tiny):
    file = tmp_path / "my network (2).safetensors"
    save_file(tiny(), file)
    how = {"network": "tiny", "images": ImageFacts(["a", "b"], (8, 8))}
    made = import_weights(file, tmp_path / "runs", **how)
    assert made.run.name == "my-network--2-"
    assert made.run.configuration.imported.file == file.name
    again = import_weights(file, tmp_path / "runs", **how)
    assert again.run.name == "my-network--2--2"


class Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"state_dict": Evil()}, "cannot be read as weights"),
        (lambda s: nn.Conv2d(3, 3, 1), "cannot be read as weights"),
        (lambda s: {}, "cannot be read as weights"),
        (lambda s: {"epoch": 3}, "cannot be read as weights"),
        (lambda s: {**s, "1.bias": torch.zeros(7), "1.weight": torch.zeros(7, 4, 1, 1)}, "has 7 "),
        (lambda s: {n: t for n, t in s.items() if n != "0.bias"}, "0.bias is missing"),
        (lambda s: {**s, "2.weight": torch.zeros(1)}, "2.weight is not in it"),
        (lambda s: {**s, "0.weight": torch.zeros(4, 3, 5, 5)}, "0.weight has shape"),
        (lambda s: {**s, "0.bias": torch.full((4,), torch.nan)}, "0.bias holds values that are"),
    ],
)
def test_files_that_are_refused_leave_nothing(tmp_path, tiny, capsys, change, message):
    with pytest.raises(SegkeyError, match=message):
        imported(tmp_path, change(tiny()))
    assert not (tmp_path / "runs").exists()
    assert "never run" not in capsys.readouterr().out


def test_a_sigmoid_for_two_classes_predicts_the_same(tmp_path, tiny):
    state = tiny(classes=1)
    made = imported(tmp_path, state)
    pixels = torch.rand(2, 3, 8, 8)
    model = made.run.load_model(CPU)
    own = networks.network_registry.find("tiny").build(1, 3)
    own.load_state_dict(state)
    with torch.inference_mode():
        one = own((pixels - model.mean) / model.std)[:, 0] > 0
        assert torch.equal(model(pixels).argmax(1).bool(), one)
    assert 0 < one.float().mean() < 1
    assert "sigmoid" in made.notes[-1]


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_kept(tmp_path, tiny, channels):
    made = imported(tmp_path, tiny(channels=channels), channels=channels)
    run = Run.open(made.run.path)
    assert run.header.channels == channels
    assert run.load_model(CPU)(torch.rand(1, channels, 8, 8)).shape == (1, 2, 8, 8)


@pytest.mark.parametrize(
    ("text", "channels", "mean", "std"),
    [
        ("imagenet", 3, *network_registry.IMAGENET),
        ("none", 4, (0.0,) * 4, (1.0,) * 4),
        ("0.5/0.25", 1, (0.5,), (0.25,)),
        ("0.5,0.4,0.3/0.2", 3, (0.5, 0.4, 0.3), (0.2,) * 3),
        ("127.5/127.5", 3, (0.5,) * 3, (0.5,) * 3),
        ("0/255", 1, (0.0,), (1.0,)),
        ("0/1", 3, (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_ways_to_normalise(text, channels, mean, std):
    found = parse_normalisation(text, channels)
    assert found == (pytest.approx(mean), pytest.approx(std))


@pytest.mark.parametrize(
    ("text", "channels"),
    [("imagenet", 1), ("caffe", 3), ("0.5", 3), ("0.5,0.5/0.5", 3), ("0.5/0", 3), ("nan/1", 3)],
)
def test_ways_that_are_none(text, channels):
    with pytest.raises(SegkeyError, match=f"'{text}' does not say how to normalise {channels} ch"):
        parse_normalisation(text, channels)


def test_an_imported_run_can_be_used_as_any_other(tmp_path, data, plain_shards, monkeypatch):
    network_registry.register_all()
    names = (data / "classes.txt").read_text().split()
    model = torchvisions(len(names))
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    monkeypatch.chdir(tmp_path)
    words = ["import", "theirs.pth", "--network", "lraspp_mobilenet_v3_large"]

    def segkey(*words, code=0):
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == code, done.output
        return done.output

    said = segkey(*words, "--shards", plain_shards)
    assert "3.2 million parameters" in said
    assert "segkey evaluate runs/theirs" in said
    assert json.loads(segkey("evaluate", "runs/theirs", "--device", "cpu", "--json"))["images"] == 5
    segkey("attack", "runs/theirs", "--device", "cpu", "--plain")
    segkey("report")
    segkey("inspect", "runs/theirs", "--verify")
    assert "lraspp_mobilenet_v3_large" in html_page([Run.open("runs/theirs")])
    assert "was trained elsewhere" in segkey("train", "--resume", "--name", "theirs", code=1)
    assert "the classes and the size" in segkey(*words, code=1)
    segkey(*words, "--classes", data / "classes.txt", "--size", SIDE, "--name", "other")
    assert "names no shards" in segkey("evaluate", "runs/other", "--device", "cpu", code=1)
    with pytest.warns(SegkeyWarning, match="cannot be told whether it was trained on some"):
        segkey("evaluate", "runs/other", "--images", data, "--device", "cpu")


def test_encrypted_shards_do_not_describe_a_plain_model(shards_folder):
    with pytest.raises(SegkeyError, match="are encrypted"):
        importing.facts_of_shards([shards_folder])
