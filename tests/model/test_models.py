"""The network and its starting weights, with state dicts of torchvision's real names and shapes."""

import contextlib

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet50
from torchvision.models.segmentation import FCN_ResNet50_Weights, fcn_resnet50

from segkey.data.voc import VOC_CLASSES
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import networks, weights_files


@pytest.fixture(scope="module")
def coco() -> dict:
    """What FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1 holds, with random values."""
    torch.manual_seed(1)
    return fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).state_dict()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torchvision's, and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def unreachable(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def same(state: dict, other: dict, names) -> bool:
    return all(torch.equal(state[name], other[name]) for name in names)


@pytest.mark.parametrize("backbone", ["resnet14", "resnet50"])
def test_logits_have_the_size_of_the_input_and_a_stride_of_eight_inside(backbone):
    model = networks.build(backbone, ["a", "b", "c"]).eval()
    with torch.inference_mode():
        assert model(torch.rand(2, 3, 32, 40)).shape == (2, 3, 32, 40)
        assert model.fcn.backbone(torch.rand(2, 3, 32, 40))["out"].shape == (2, 2048, 4, 5)


def test_the_network_is_torchvisions(coco):
    model = networks.build("resnet50", VOC_CLASSES)
    reference = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21)
    reference.load_state_dict(model.weights())
    pixels = torch.rand(1, 3, 32, 32)
    normalised = (pixels - model.mean) / model.std
    with torch.inference_mode():
        assert torch.equal(model.eval()(pixels), reference.eval()(normalised)["out"])


def test_coco_head_is_used_for_vocs_classes(cache, coco):
    torch.save(coco, cache / "fcn_resnet50_coco-1167a1af.pth")
    model = networks.build("resnet50", VOC_CLASSES, "coco")
    assert same(model.weights(), coco, model.weights())


@pytest.mark.parametrize("classes", [[f"class {n}" for n in range(21)], ["a", "b"]])
def test_coco_head_is_replaced_for_other_classes_and_it_is_said(cache, coco, classes):
    torch.save(coco, cache / "fcn_resnet50_coco-1167a1af.pth")
    with pytest.warns(SegkeyWarning, match="21-class head .* replaced"):
        model = networks.build("resnet50", classes, "coco")
    state = model.weights()
    head = {"classifier.4.weight", "classifier.4.bias"}
    assert same(state, coco, set(state) - head)
    assert state["classifier.4.weight"].shape[0] == len(classes)
    assert len(classes) != 21 or not torch.equal(
        state["classifier.4.weight"], coco["classifier.4.weight"]
    )


def test_imagenet_weights_go_into_the_backbone(cache):
    state = resnet50(weights=None).state_dict()
    torch.save(state, cache / "resnet50-0676ba61.pth")
    model = networks.build("resnet50", ["a", "b"], "imagenet")
    assert same(
        {n.removeprefix("backbone."): t for n, t in model.weights().items()},
        state,
        [n for n in state if "fc." not in n],
    )


@pytest.mark.parametrize("names", ["voc", "other"])
def test_coco_weights_given_as_a_file_are_those_of_the_cache(tmp_path, coco, names):
    """With the auxiliary classifier that the file holds and the network lacks."""
    assert sum(name.startswith("aux_classifier.") for name in coco) == 8
    torch.save(coco, tmp_path / "fcn_resnet50_coco-1167a1af.pth")
    classes = VOC_CLASSES if names == "voc" else [f"class {n}" for n in range(21)]
    with (
        pytest.warns(SegkeyWarning, match="replaced")
        if names == "other"
        else contextlib.nullcontext()
    ):
        state = networks.build(
            "resnet50", classes, str(tmp_path / "fcn_resnet50_coco-1167a1af.pth")
        ).weights()
    head = {"classifier.4.weight", "classifier.4.bias"}
    assert same(state, coco, set(state) - (head if names == "other" else set()))
    assert torch.equal(state["classifier.4.weight"], coco["classifier.4.weight"]) == (
        names == "voc"
    )


def test_torchvisions_names_of_vocs_classes_are_vocs(cache, coco):
    torch.save(coco, cache / "fcn_resnet50_coco-1167a1af.pth")
    names = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert names != VOC_CLASSES  # "__background__"
    assert same(
        networks.build("resnet50", names, "coco").weights(),
        coco,
        ["classifier.4.weight", "classifier.4.bias"],
    )


def test_imagenet_weights_given_as_a_file(tmp_path):
    state = resnet50(weights=None).state_dict()
    torch.save(state, tmp_path / "resnet50-0676ba61.pth")
    model = networks.build("resnet50", ["a", "b"], str(tmp_path / "resnet50-0676ba61.pth"))
    names = [name for name in state if "fc." not in name]
    assert same({n.removeprefix("backbone."): t for n, t in model.weights().items()}, state, names)


@pytest.mark.parametrize("damage", ["empty", "a page in HTML"])
def test_a_broken_file_in_the_cache_is_named(cache, damage):
    (cache / "fcn_resnet50_coco-1167a1af.pth").write_text("" if damage == "empty" else "<html>")
    with pytest.raises(
        SegkeyError, match="fcn_resnet50_coco-1167a1af.pth cannot be read as weights"
    ):
        networks.build("resnet50", VOC_CLASSES, "coco")


@pytest.mark.parametrize(
    ("backbone", "weights", "name"),
    [
        ("resnet50", "coco", "fcn_resnet50_coco-1167a1af.pth"),
        ("resnet50", "imagenet", "resnet50-0676ba61.pth"),
        ("resnet101", "coco", "fcn_resnet101_coco-7ecb50ca.pth"),
        ("resnet101", "imagenet", "resnet101-63fe2227.pth"),
    ],
)
def test_weights_neither_cached_nor_reachable_name_the_file_and_the_way_out(
    cache, backbone, weights, name
):
    with pytest.raises(SegkeyError) as caught:
        networks.build(backbone, VOC_CLASSES, weights)
    assert f"the {weights} weights {name} are neither cached nor reachable" in caught.value.what
    assert f"put it at {cache / name}" in caught.value.hint
    assert "--weights FILE" in caught.value.hint
    assert "--recipe scratch" in caught.value.hint


def test_there_are_no_weights_for_resnet14():
    with pytest.raises(SegkeyError, match="no coco weights for resnet14"):
        networks.build("resnet14", ["a"], "coco")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file(tmp_path, suffix):
    torch.manual_seed(3)
    state = networks.build("resnet14", ["a", "b"]).weights()
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save({"model": state}, file)
    assert same(networks.build("resnet14", ["a", "b"], str(file)).weights(), state, state)


class Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_pickle_that_runs_code_is_refused(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(SegkeyError, match="cannot be read as weights"):
        networks.build("resnet14", ["a"], str(tmp_path / "evil.pth"))
    assert "never run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("backbone.layer3.0.conv1.weight"), "layer3.0.conv1.weight is missing"),
        (lambda s: s.update({"backbone.extra": torch.zeros(1)}), "backbone.extra is not in it"),
        (
            lambda s: s.update({"backbone.conv1.weight": torch.zeros(1)}),
            "backbone.conv1.weight has shape",
        ),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, change, message):
    state = dict(networks.build("resnet14", ["a", "b"]).weights())
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(SegkeyError, match=message):
        networks.build("resnet14", ["a", "b"], str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("name", ["missing.pth", "text.pth", "text.safetensors"])
def test_files_that_are_no_weights(tmp_path, name):
    if name.startswith("text"):
        (tmp_path / name).write_text("no weights")
    with pytest.raises(SegkeyError, match=name):
        networks.build("resnet14", ["a"], str(tmp_path / name))


def test_checksum_sees_names_and_values():
    state = {"a": torch.arange(4.0), "b": torch.tensor(3)}
    assert weights_files.checksum(state) == weights_files.checksum(dict(reversed(state.items())))
    for other in (
        {"a": state["a"], "c": state["b"]},
        state | {"a": torch.tensor([0.0, 1, 2, 4])},
        {"a": state["a"]},
    ):
        assert weights_files.checksum(other) != weights_files.checksum(state)


def test_unknown_backbone():
    with pytest.raises(SegkeyError, match="no network 'vgg'.*\n?.*"):
        networks.build("vgg", ["a"])
