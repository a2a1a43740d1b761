"""The registry of networks: built in, of smp and timm, and of the user's own."""

import pytest
import torch
from torch import nn

from segkey import networks as public
from segkey.errors import SegkeyError
from segkey.model import network_registry, networks
from segkey.model.configuration import Network
from segkey.model.stem import find_stem
from segkey.system import json_records, plugins

OTHERS = ["smp:Unet/resnet18", "smp:DeepLabV3Plus/tu-resnet18", "timm:mobilenetv3_small_050"]
SMALL = ["resnet14", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]


@pytest.fixture
def registry(monkeypatch):
    """A registry of which nothing is left."""
    monkeypatch.setattr(network_registry, "NETWORKS", dict(network_registry.NETWORKS))
    return network_registry.NETWORKS


def wanted(name: str) -> str:
    for prefix, package in (("smp:", "segmentation_models_pytorch"), ("timm:", "timm")):
        if name.startswith(prefix):
            pytest.importorskip(package)
    return name


def small(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1))


def test_the_names_for_completion_are_those_that_are_registered():
    network_registry.register_all()
    assert set(network_registry.BUILT_IN) <= set(network_registry.NETWORKS)
    built_in = [each for each in network_registry.NETWORKS.values() if each.origin != "own"]
    assert [each.name for each in built_in] == list(network_registry.BUILT_IN)


@pytest.mark.parametrize("name", [*SMALL, *OTHERS])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_logits_have_the_size_of_the_image_and_the_stem_sees_all_channels(name, channels):
    model = networks.build(wanted(name), ["a", "b", "c"], channels=channels).eval()
    with torch.inference_mode():
        assert model(torch.rand(2, channels, 64, 96)).shape == (2, 3, 64, 96)
    assert model.mean.shape == model.std.shape == (1, channels, 1, 1)
    assert find_stem(model).convolution.in_channels == channels


@pytest.mark.parametrize("name", ["resnet14", *OTHERS])
def test_what_a_run_records_builds_the_network_again(name):
    model = networks.build(wanted(name), ["a", "b"])
    again = networks.described(model.description, ("a", "b"))
    again.load_weights(model.weights(), "them")
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.eval()(pixels), again.eval()(pixels))
    assert again.description == model.description


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet14"])
def test_runs_of_earlier_versions_name_a_backbone(name):
    proper = name if name == "resnet14" else f"fcn_{name}"
    assert network_registry.recorded({"backbone": name}) == proper
    assert json_records.read(Network, {"backbone": name}).name == name
    if name == "resnet14":
        assert networks.described({"backbone": name}, ("a",)).name == proper


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "os:system", "a b", "smp:../x", "smp:a/b/c"]
)
def test_a_run_cannot_name_anything_but_a_network(name):
    with pytest.raises(json_records.Misfit, match="expected a network's name"):
        json_records.read(Network, {"name": name})


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("resnet5", "there is no network 'resnet5'", "did you mean resnet50"),
        ("mine", "there is no network 'mine'", "SEGKEY_PLUGINS"),
        ("hub:unet", "there is no network 'hub:unet'", "smp: or timm:"),
        ("smp:Unett/resnet34", "no network 'Unett/resnet34'", "did you mean smp:Unet/resnet34"),
        ("timm:nothing_of_the_kind", "no network 'nothing_of_the_kind'", "segkey networks timm:"),
    ],
)
def test_an_unknown_name_is_refused_with_a_cure(name, what, hint):
    with pytest.raises(SegkeyError) as caught:
        network_registry.find(wanted(name))
    assert what in caught.value.what
    assert hint in caught.value.hint


@pytest.mark.parametrize("prefix", ["smp", "timm"])
def test_a_missing_package_is_named(monkeypatch, prefix):
    family = network_registry.FAMILIES[prefix]

    def missing(rest):
        raise ModuleNotFoundError("no", name=family.package.replace("-", "_"))

    monkeypatch.setitem(
        network_registry.FAMILIES,
        prefix,
        network_registry.Family(missing, family.package, family.extra, list),
    )
    with pytest.raises(SegkeyError) as caught:
        network_registry.find(f"{prefix}:Anything/at_all")
    assert f"needs the package {family.package}, which is not installed" in caught.value.what
    assert caught.value.hint == f"pip install 'segkey[{prefix}]'"


def test_a_network_of_ones_own(registry):
    @public.network("tiny", channels=(1, 3), mean=(0.5,) * 3, std=(0.5,) * 3)
    def tiny(classes, channels):
        return small(classes, channels)

    model = networks.build("tiny", ["a", "b"], channels=3)
    model.check_size(20, 24)
    assert model.description == {"name": "tiny", "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert find_stem(model).path == "fcn.0"
    with pytest.raises(SegkeyError, match="network tiny takes images with 1 or 3 channels, not 4"):
        networks.build("tiny", ["a"], channels=4)


@pytest.mark.parametrize("name", ["resnet50", "resnet14", "smp:Own", "a/b", "", "9lives"])
def test_names_that_are_taken_or_none(registry, name):
    with pytest.raises(ValueError, match="network"):
        public.network(name)


def test_a_file_that_the_environment_names_is_loaded_when_a_network_is_not_known(
    registry, tmp_path, monkeypatch
):
    file = tmp_path / "segkey_plugin_of_a_test.py"
    file.write_text(
        "import torch\nfrom segkey.networks import network\n"
        "@network('from-a-file')\ndef build(classes, channels):\n"
        "    return torch.nn.Conv2d(channels, classes, 3, padding=1)\n"
    )
    with pytest.raises(SegkeyError, match="no network 'from-a-file'"):
        networks.build("from-a-file", ["a"])
    monkeypatch.setenv("SEGKEY_PLUGINS", str(file))
    assert networks.build("from-a-file", ["a"]).name == "from-a-file"


@pytest.mark.parametrize("variable", ["SEGKEY_PLUGINS", "SEGKEY_METHODS"])
def test_a_plugin_that_is_missing_is_named_with_its_variable(monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, str(tmp_path / "none.py"))
    with pytest.raises(SegkeyError, match=f"{variable} names .*none.py"):
        plugins.load_named()


def raising(classes, channels):
    raise RuntimeError("out of\nluck")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (raising, "cannot be made for 2 classes and 3 channels: RuntimeError: out of luck"),
        (lambda classes, channels: "no module", "is no torch.nn.Module but a str"),
        (lambda classes, channels: small(classes + 1, channels), r"makes \(1, 3, 32, 32\) of an"),
        (lambda classes, channels: nn.Conv2d(channels, classes, 2, 2), r"\(1, 2, 16, 16\) of an"),
        (lambda classes, channels: small(classes, 5), "does not take images of 32x32"),
        (lambda classes, channels: nn.Flatten(), r"makes \(1, 3072\) of an image"),
    ],
)
def test_factories_that_fail_are_named(registry, factory, message):
    public.network("bad")(factory)
    with pytest.raises(SegkeyError, match=message) as caught:
        networks.build("bad", ["a", "b"]).check_size(32, 32)
    assert "factory" in caught.value.hint or "--size" in caught.value.hint


def test_a_network_without_a_convolution_has_no_stem(registry):
    public.network("flat")(lambda classes, channels: nn.AvgPool2d(1))
    with pytest.raises(SegkeyError, match="no convolution of this network"):
        find_stem(networks.build("flat", ["a", "b", "c"]))


def test_weights_of_a_run_are_complete(registry):
    public.network("small")(small)
    model = networks.build("small", ["a", "b"])
    for name in model.weights():
        state = {each: tensor for each, tensor in model.weights().items() if each != name}
        with pytest.raises(SegkeyError, match=f"{name} is missing"):
            model.load_weights(state, "the file")


# Weights for an encoder alone.


def saved(tmp_path, state, name="weights.pth"):
    torch.save(state, tmp_path / name)
    return str(tmp_path / name)


def encoder_of(model) -> dict:
    return model.fcn.get_submodule(model.entry.encoder).state_dict()


def renamed(state: dict) -> dict:
    """Other names of the same kinds in the same order, as another library has them."""
    return {
        f"_{n}.x.{name.rpartition('.')[2]}": each for n, (name, each) in enumerate(state.items())
    }


@pytest.mark.parametrize("shape", ["by name", "in a wrapper", "by order", "without counters"])
def test_weights_of_a_classifier_go_into_timms_encoder(tmp_path, shape):
    timm = pytest.importorskip("timm")
    torch.manual_seed(5)
    classifier = timm.create_model("mobilenetv3_small_050").state_dict()
    state = dict(classifier)
    if shape == "in a wrapper":
        state = {"state_dict": {f"module.{name}": each for name, each in state.items()}, "epoch": 3}
    elif shape != "by name":
        state = renamed(state)
    if shape == "without counters":
        state = {name: each for name, each in state.items() if "num_batches" not in name}
    model = networks.build(
        "timm:mobilenetv3_small_050", ["a"], encoder_weights=saved(tmp_path, state)
    )
    for name, each in encoder_of(model).items():
        assert torch.equal(each, classifier[name]), name


def swapped(state: dict) -> dict:
    """Scale and shift of a normalisation, which have one shape, the wrong way round."""
    names = list(state)
    place = next(n for n, name in enumerate(names) if name.endswith("bn1.weight"))
    names[place], names[place + 1] = names[place + 1], names[place]
    return {name: state[name] for name in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: renamed(dict(list(s.items())[:-9])), "it has .* tensors, needed are"),
        (lambda s: renamed(swapped(s)), "stands where bn1.weight"),
        (lambda s: renamed(dict(reversed(s.items()))), "stands where conv_stem.weight"),
        (lambda s: {**s, "blocks.99.weight": torch.zeros(3)}, "blocks.99.weight is not in it"),
        (lambda s: {**s, "conv_stem.weight": torch.zeros(3, 3)}, "has shape"),
    ],
)
def test_encoder_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    timm = pytest.importorskip("timm")
    state = change(timm.create_model("mobilenetv3_small_050").state_dict())
    with pytest.raises(SegkeyError, match=message):
        networks.build("timm:mobilenetv3_small_050", ["a"], encoder_weights=saved(tmp_path, state))


def test_a_deeper_network_of_the_same_kind_is_refused(tmp_path):
    from torchvision.models import resnet101

    file = saved(tmp_path, resnet101().state_dict())
    with pytest.raises(SegkeyError, match="fcn_resnet50's encoder: backbone.layer3.6.* is not in"):
        networks.build("fcn_resnet50", ["a"], encoder_weights=file)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_weights_for_colours_are_adapted_to_other_channels(tmp_path, channels):
    source = networks.build("resnet14", ["a", "b"])
    file = saved(tmp_path, source.weights())
    model = networks.build("resnet14", ["a", "b"], file, channels=channels)
    old = source.weights()["backbone.conv1.weight"]
    new = model.weights()["backbone.conv1.weight"]
    if channels == 1:
        assert torch.equal(new, old.sum(1, keepdim=True))
    else:
        assert torch.allclose(new[:, :2], old[:, :2] * 3 / channels)
    assert torch.equal(
        model.weights()["classifier.4.weight"], source.weights()["classifier.4.weight"]
    )


def test_a_network_that_names_no_encoder_says_so(registry, tmp_path):
    public.network("small")(small)
    with pytest.raises(SegkeyError, match="does not say which part of it is its encoder"):
        networks.build("small", ["a"], encoder_weights=saved(tmp_path, {"x": torch.zeros(1)}))
