"""Exported files: the classes of PyTorch without PyTorch, the key outside, bad files refused."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making import CPU, copy_of, held
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import segkey
from segkey.crypto.age import Identity
from segkey.data import scenes
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import export as exporting
from segkey.model import folded_runs, locked_runs, network_registry, networks, onnx_file
from segkey.model.onnx_file import OnnxFile
from segkey.model.runs import Run
from segkey.system import json_records

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


def made_of(run, folder: Path, name: str = "tiny", **changes) -> Run:
    """A run with a network of a few kilobytes, whose random weights tell classes apart."""
    made = copy_of(run, folder, without=["*.safetensors"], model={"name": name}, **changes)
    torch.manual_seed(0)
    network = networks.Segmenter(name, len(run.header.classes))
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_(0, 0.3)
    made.save_weights(network.weights())
    made.save()
    return made


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        network_registry.register_all()
        patch.setattr(network_registry, "NETWORKS", dict(network_registry.NETWORKS))

        @network_registry.network("tiny")
        def tiny(classes: int, channels: int) -> nn.Module:
            convolution = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
            layers = [convolution, nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, classes, 3)]
            return nn.Sequential(*layers, nn.ZeroPad2d(1))

        yield


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    return made_of(trained_run, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return exporting.export(run, tmp_path_factory.mktemp("exported") / "tiny.onnx")


@pytest.fixture(scope="module")
def model(exported):
    return segkey.load(exported.path)


@pytest.fixture
def photo() -> np.ndarray:
    return scenes.draw(1, 7, 90)[0][:70]


# ------------------------------------------------------------------ the same classes


@pytest.mark.parametrize(
    "how", [{}, {"flip": True}, {"tile": 64, "overlap": 8}, {"scale": 0.7}], ids=str
)
def test_a_file_predicts_what_its_run_does(model, run, key, photo, how):
    original = segkey.load(run.path, device="cpu", precise=True)
    masks = [each.predict(photo, key, **how) for each in (model, original)]
    assert masks[0].shape == (70, 90)
    assert len(np.unique(masks[0])) > 2
    assert (masks[0] == masks[1]).mean() >= 0.999
    odds = [each.probabilities(photo, key, **how) for each in (model, original)]
    assert np.allclose(*odds, atol=1e-4)


@pytest.mark.slow
def test_a_network_of_torchvision_s(trained_run, key, photo, tmp_path):
    run = made_of(trained_run, tmp_path / "lraspp", name="lraspp_mobilenet_v3_large")
    made = exporting.export(run, tmp_path / "lraspp.onnx")
    assert (made.exported.any_size, made.exported.multiple) == (True, 4)
    assert made.equal >= exporting.LEAST_EQUAL
    original = segkey.load(run.path, device="cpu", precise=True).predict(photo, key)
    assert (segkey.load(made.path).predict(photo, key) == original).mean() >= 0.999


def test_a_failing_exporter_says_it_in_a_line(run, tmp_path, capfd, monkeypatch):
    class Odd(networks.Segmenter):
        def forward(self, pixels):
            return nn.functional.adaptive_avg_pool2d(super().forward(pixels), (7, 5))

    monkeypatch.setattr(exporting, "_ways", lambda: [(True, exporting._traced)])
    monkeypatch.setattr(Run, "load_model", lambda *_: Odd("tiny", 5).eval())
    with pytest.raises(SegkeyError, match="network tiny cannot be exported: .*adaptive_avg"):
        exporting.export(run, tmp_path / "odd.onnx")
    assert "graph" not in "".join(capfd.readouterr())


def test_what_was_compared_is_told(exported, model, run):
    assert exported.equal >= exporting.LEAST_EQUAL
    assert exported.compared.real
    assert exported.compared.origin == "the split test of the run's shards"
    assert exported.exported.any_size
    assert repr(model) == (
        f"<segkey model tiny: tiny, 32x32, 5 classes, NP M=4, key {run.header.key_id}, ONNX on cpu>"
    )
    assert model.header.same_data(run.header) == []


def test_a_file_that_differs_from_pytorch_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_same", lambda *_: 0.98)
    monkeypatch.setattr(exporting, "_ways", lambda: [(True, exporting._traced)])
    with pytest.raises(SegkeyError, match="98.00% of the pixels have the same class"):
        exporting.export(run, tmp_path / "bad.onnx")
    assert not (tmp_path / "bad.onnx").exists()


@pytest.mark.skipif(not os.environ.get("SEGKEY_EXPORTERS"), reason="takes half a minute")
def test_torch_export_takes_over_where_tracing_fails(run, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("cannot be traced")

    monkeypatch.setattr(exporting, "_traced", fails)
    made = exporting.export(run, tmp_path / "tiny.onnx")
    assert made.exported.any_size
    assert made.equal >= exporting.LEAST_EQUAL


def test_a_network_of_one_size(run, tmp_path, monkeypatch, key, photo):
    monkeypatch.setattr(exporting, "_ways", lambda: [(False, exporting._traced)])
    fixed = exporting.export(run, tmp_path / "fixed.onnx")
    assert not fixed.exported.any_size
    model = segkey.load(fixed.path)
    assert model.predict(photo, key, tile=32).shape == (70, 90)
    assert model.predict(photo[:5, :7], key, tile=32).shape == (5, 7)
    for how in ({"tile": 64}, {"scale": 1}):
        with pytest.raises(SegkeyError, match="takes images of 32x32 only"):
            model.predict(photo, key, **how)


def test_locked_folded_and_sealed_runs(run, key, other_key, tmp_path, photo, monkeypatch):
    unencrypted = {"method": "none", "block_size": 1, "key_id": ""}
    plain = made_of(run, tmp_path / "runs/plain", data=unencrypted)
    expected = segkey.load(plain.path, device="cpu", precise=True).predict(photo)
    folded = folded_runs.fold_run(plain, "folded")
    recipients = Identity.of(other_key).recipients
    locked = locked_runs.lock_run(folded, key, "np", 4, "locked", recipients=recipients)
    locked.unlock(other_key)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    made = exporting.export(locked)
    assert made.path == Path("locked.onnx.age")
    assert made.recipients == recipients
    assert not held(tmp_path / "out", locked.load_model(CPU).weights())
    with pytest.raises(SegkeyError, match="sealed, and no key was given"):
        segkey.load(made.path)
    with pytest.raises(SegkeyError, match="is not sealed for key"):
        segkey.load(made.path, key)
    opened = segkey.load(made.path, other_key)
    assert (opened.predict(photo, key) == expected).mean() >= 0.99
    with pytest.warns(SegkeyWarning, match="is not the key of run locked"):
        assert (opened.predict(photo, other_key) == expected).mean() < 0.9


# ------------------------------------------------------------------ what is in the file


def test_nothing_of_the_key_is_in_the_file(exported, key):
    data = exported.path.read_bytes()
    permutation = key.permutation("np", 4, 3)
    for secret in (key._secret, key._secret.hex().encode(), permutation.tobytes()):
        assert secret not in data
    assert key.id.encode() in data


def test_the_format_is_described_and_the_file_is_onnx(exported):
    formats = (Path(segkey.__file__).parent / "FORMATS.md").read_text()
    document = json_records.as_json(exported.exported)
    assert all(f"`{name}`" in formats for name in document)
    assert f"`{onnx_file.FORMAT}`" in formats
    graph = onnx.load(exported.path)
    onnx.checker.check_model(graph)
    (found,) = [each for each in graph.metadata_props if each.key == "segkey"]
    assert json.loads(found.value) == document
    assert onnx_file.read(found.value) == exported.exported
    assert [each.name for each in graph.graph.input] == ["pixels"]


# ------------------------------------------------------------------ bad files


def with_metadata(exported, **changes) -> bytes:
    """The exported file with other metadata behind its own, which then count."""
    described = replace(exported.exported, unknown={})
    text = json.dumps(json_records.as_json(described) | changes)
    pair = onnx_file._field(1, b"segkey") + onnx_file._field(2, text.encode())
    return exported.path.read_bytes() + onnx_file._field(14, pair)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "segkey-onnx-v9"}, "format 'segkey-onnx-v9'"),
        ({"size": [10**6, 10**6]}, "'size'"),
        ({"size": [32, 30]}, "do not fit blocks of 4"),
        ({"multiple": 6}, "do not fit blocks of 4"),
        ({"block_size": 1 << 30}, "'block_size'"),
        ({"channels": 1 << 20}, "'channels'"),
        ({"classes": []}, "'classes'"),
        ({"classes": ["a"] * 256}, "'classes'"),
        ({"classes": ["a", "a"]}, "twice"),
        ({"classes": ["a", "b"]}, "not for the channels and classes"),
        ({"channels": 1, "mean": [0.0], "std": [1.0]}, "not for the channels and classes"),
        ({"std": [0.0, 1.0, 1.0]}, "'std'"),
        ({"mean": [0.5]}, "another number of channels"),
        ({"run": "../../x"}, "'run'"),
        ({"network": "a/../b"}, "'network'"),
        ({"key_id": "x" * 16}, "'key_id'"),
        ({"method": "unheard-of"}, "method 'unheard-of'"),
        ({"created": "\x1b[31m"}, "'created'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_metadata_that_cannot_be_are_refused(exported, tmp_path, changes, said):
    file = tmp_path / "bad.onnx"
    file.write_bytes(with_metadata(exported, **changes))
    with pytest.raises(SegkeyError, match=said) as refused, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        segkey.load(file).predict(np.zeros((40, 40, 3), np.uint8))
    assert "bad.onnx" in refused.value.what


def test_what_segkey_did_not_make_is_refused(exported, tmp_path):
    foreign = onnx.load(exported.path)
    del foreign.metadata_props[:]
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(SegkeyError, match="none.onnx: No such file"):
        segkey.load(tmp_path / "none.onnx")
    bad = {
        "not made by segkey": foreign.SerializeToString(),
        "is not an ONNX file": b"",
        "is not  an ONNX file": (tmp_path / "a.png").read_bytes(),
        "is not   an ONNX file": exported.path.read_bytes()[:-50],
        "damaged: of its metadata": onnx_file._field(
            14, onnx_file._field(1, b"segkey") + onnx_file._field(2, b"[" * 100_000)
        ),
    }
    for said, data in bad.items():
        (tmp_path / "b.onnx").write_bytes(data)
        with pytest.raises(SegkeyError, match=" ".join(said.split())):
            segkey.load(tmp_path / "b.onnx")


def test_a_graph_cannot_read_other_files(exported, tmp_path):
    secret = np.arange(4, dtype=np.float32)
    (tmp_path / "secret.bin").write_bytes(secret.tobytes())
    graph = onnx.load(exported.path)
    stolen = onnx.numpy_helper.from_array(secret, "stolen")
    onnx.external_data_helper.set_external_data(stolen, "secret.bin")
    stolen.ClearField("raw_data")
    graph.graph.initializer.append(stolen)
    graph.graph.node.append(onnx.helper.make_node("Identity", ["stolen"], ["seen"]))
    (tmp_path / "evil.onnx").write_bytes(graph.SerializeToString())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SegkeyError, match="cannot be load"):
        patch.chdir(tmp_path)
        segkey.load("evil.onnx")


def test_a_damaged_sealed_file(exported, key, tmp_path):
    from segkey.crypto import age

    data = age.encrypted(exported.path.read_bytes()[:500], Identity.of(key).recipients)
    (tmp_path / "a.age").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SegkeyError, match="is damaged: it does not open"):
        OnnxFile.open(tmp_path / "a.age").unlock(key)
    (tmp_path / "a.age").write_bytes(data)
    with pytest.raises(SegkeyError, match="is not an ONNX file"):
        OnnxFile.open(tmp_path / "a.age").unlock(key)


# ------------------------------------------------------------------ without PyTorch

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Blocked())
sys.argv[0] = "segkey"
"""
ABSENT = ("torch", "torchvision", "h5py", "safetensors", "scipy", "matplotlib", "jinja2", "onnx")


def test_the_commands_do_without_pytorch(exported, model, key, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    key.save(tmp_path / "a.key")
    code = BLOCKED.format(names=ABSENT) + (
        "from typer.testing import CliRunner\n"
        "import typer\n"
        "from segkey.cli import app\n"
        "def ask(*line):\n"
        "    done = CliRunner().invoke(app, line)\n"
        "    print(done.exit_code, *done.output.split())\n"
        "    return done\n"
        "names = list(typer.main.get_command(app).commands)\n"
        "assert len(names) > 15\n"
        "assert not [n for n in names if CliRunner().invoke(app, [n, '--help']).exit_code]\n"
        "ask('predict', sys.argv[1], 'photo.png', '--key', 'a.key', '--overlay', '--tile', '64')\n"
        "ask('train')\n"
        "import segkey\n"
        "segkey.load(sys.argv[1]).predict('photo.png', segkey.Key.load('a.key'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported.path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("0 ")
    assert second.startswith("1 ")
    assert "pip install segkey" in second
    made = np.asarray(Image.open(tmp_path / "predicted/masks/photo.png"))
    assert np.array_equal(made, model.predict(photo, key, tile=64))


def test_the_command_exports_and_predicts(run, key, tmp_path, monkeypatch):
    shutil.copytree(run.path, tmp_path / "small")
    key.save(tmp_path / "a.key")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scenes.draw(1, 7, 40)[0]).save("photo.png")
    line = ["export", "small", "--onnx", "--images", "photo.png", "--key", "a.key", "--json"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = CliRunner().invoke(segkey_app(), line)
    document = json.loads(done.stdout)
    assert (document["file"], document["key_id"]) == ("small.onnx", key.id)
    assert document["compared"] == {"images": 1, "origin": "photo.png, encrypted", "real": True}
    again = CliRunner().invoke(segkey_app(), line)
    assert again.exit_code == 1
    done = CliRunner().invoke(segkey_app(), ["predict", "small.onnx", "photo.png", "-k", "a.key"])
    assert "1 mask in predicted/masks" in done.output, done.output


def segkey_app():
    from segkey.cli import app

    return app
