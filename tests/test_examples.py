"""The examples run, on built-in scenes and in small; what they promise is true."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkey.crypto.keys import Key
from segkey.model.runs import Run

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "SCENES": "12, 4, 6",
    "SIZE": "32",
    "BACKBONE": "thin",
    "EPOCHS": "1",
    "WRONG_KEYS": "2",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture
def run_example(tmp_path):
    """Run an example in an empty folder, with ``segkey`` and ``python3`` those of this test."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, words in (("segkey", "-m segkey"), ("python3", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (tools / name).chmod(0o755)
    path = os.pathsep.join([str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    here = tmp_path / "here"
    here.mkdir()

    def run(command: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
        variables = (
            os.environ
            | SMALL
            | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": path}
            | environment
        )
        done = subprocess.run(
            [command, *map(str, arguments)],
            cwd=here,
            env=variables,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    run.here = here
    return run


def test_a_customer_gets_masks_from_a_model_on_own_photographs(run_example):
    done = run_example("sh", EXAMPLES / "customer.sh")
    owner, out = run_example.here / "customer.owner", run_example.here / "customer"
    assert (owner / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert Image.open(owner / "stored.png").width > 300
    names = {path.stem for path in (owner / "scenes/images/test").iterdir()}
    assert {path.stem for path in (out / "masks").iterdir()} == names
    assert {path.stem for path in (out / "overlays").iterdir()} == names
    assert {path.stem for path in (out / "stolen/masks").iterdir()} == names
    assert "is not the key of run" in done.stderr


def test_photographs_without_masks_are_encrypted_and_shown(run_example, scenes_folder, tmp_path):
    shutil.copytree(scenes_folder / "images/test", tmp_path / "photos")
    done = run_example(
        "sh", EXAMPLES / "own_photographs.sh", tmp_path / "photos", "out", METHOD="shf"
    )
    assert "nothing to train on" in done.stdout
    assert (run_example.here / "out/shards/all.h5").is_file()


def test_a_training_provider_never_sees_the_key_or_the_test_images(run_example):
    done = run_example("sh", EXAMPLES / "training_provider.sh")
    sent, provider = (
        run_example.here / "training_provider.owner/sent",
        run_example.here / "training_provider",
    )
    assert {path.name for path in sent.iterdir()} == {"train.h5", "val.h5"}
    key = Key.load(run_example.here / "training_provider.owner/owner.key")
    secret = (
        (run_example.here / "training_provider.owner/owner.key")
        .read_text()
        .split('"secret": "')[1]
        .split('"')[0]
    )
    for file in [*provider.rglob("*"), *sent.iterdir()]:
        if file.is_file():
            assert secret.encode() not in file.read_bytes()
            assert key._secret not in file.read_bytes()
    assert Run.open(provider / "runs/latest").configuration.data.key_id == key.id
    assert "incorrect keys, mean of 2" in done.stdout  # the owner tests what came back
    part = (
        (EXAMPLES / "training_provider.sh")
        .read_text()
        .split("# The provider:")[1]
        .split("if [ -n")[0]
    )
    assert "segkey train" in part
    assert "--key" not in part
    assert ".key" not in part


def test_a_method_of_one_s_own_is_measured(run_example):
    assert "with the key" in run_example(sys.executable, EXAMPLES / "own_method.py").stdout


def test_keys_are_estimated_from_encrypted_images(run_example):
    told = run_example(sys.executable, EXAMPLES / "keys_from_encrypted_images.py").stdout
    assert told.startswith("64 encrypted images of 64x64\n")
    assert "np M=4: 100 % of selected" in told
    assert {line.split()[0] for line in told.splitlines()[1:]} == {"np", "shf", "ffx"}


def test_a_method_of_one_s_own_is_known_to_the_command_line(run_example, scenes_folder):
    here, method = run_example.here, {"SEGKEY_METHODS": str(EXAMPLES / "own_method.py")}
    run_example("segkey", "keygen")
    command = ("segkey", "encrypt", scenes_folder, "--method", "add", "--size", 32, "--workers", 2)
    run_example(*command, **method)
    run_example("segkey", "decrypt", "shards/test.h5", "--out", "back", **method)
    plain = Image.open(sorted((scenes_folder / "images/test").iterdir())[0]).resize(
        (32, 32), Image.Resampling.BILINEAR
    )
    assert np.array_equal(
        np.asarray(Image.open(sorted((here / "back/test").iterdir())[0])), np.asarray(plain)
    )
    with pytest.raises(AssertionError, match="there is no method 'add'"):
        run_example(*command, "--out", "other")
    (here / "broken.py").write_text("1 / 0\n")
    with pytest.raises(AssertionError, match="broken.py cannot be imported: ZeroDivisionError"):
        run_example("segkey", "keygen", "k", SEGKEY_METHODS="broken.py")
    (here / "sub").mkdir()
    (here / "sub/json.py").touch()
    with pytest.raises(AssertionError, match="json.py has the name of another module"):
        run_example("segkey", "keygen", "k", SEGKEY_METHODS="sub/json.py")


def test_scenes_are_drawn_into_a_folder(run_example):
    run_example(sys.executable, EXAMPLES / "scenes.py", "scenes", 3, 1, 2, 32)
    assert len(list((run_example.here / "scenes/images/train").iterdir())) == 3
    assert len(list((run_example.here / "scenes/masks/test").iterdir())) == 2
    assert Image.open(sorted((run_example.here / "scenes/images/val").iterdir())[0]).size == (
        32,
        32,
    )


def test_the_picture_of_the_readme_is_drawn_from_a_demo(
    run_example, trained_run, scenes_folder, key
):
    demo = run_example.here / "demo"
    shutil.copytree(scenes_folder, demo / "scenes")
    shutil.copytree(trained_run.path, demo / "runs/np-m4")
    key.save(demo / "keys/demo.key")
    spread = dict.fromkeys(("mean", "min", "max"), 0.1)
    scores = {
        "run": "np-m4",
        "method": "np",
        "block_size": 4,
        "key_space_bits": 9.9,
        "images": 6,
        "correct": {"mean_iou": 0.7},
        "plain": {"mean_iou": 0.2},
        "incorrect": {"keys": 20, "std": 0.0} | spread,
        "majority_class": {"class": None, "mean_iou": 0.1},
    }
    (demo / "runs/np-m4/attack.json").write_text(json.dumps(scores))
    run_example(sys.executable, EXAMPLES / "pictures.py", "demo", "np-m4", "overlay.png")
    drawn, kept = Image.open(run_example.here / "overlay.png"), Image.open(EXAMPLES / "overlay.png")
    assert drawn.size == kept.size
    assert len(drawn.convert("RGB").getcolors(1 << 20)) > 20
    assert (EXAMPLES / "overlay.png").stat().st_size < 150_000


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_plain_sh(script):
    assert subprocess.run(["sh", "-n", script]).returncode == 0
    assert script.read_text().startswith("#!/bin/sh\n")
    assert "[[" not in script.read_text()


def test_words_that_are_not_true_stand_nowhere():
    """Half of the values that NP and FFX store are plain ones; git ignores what a .gitignore
    covers; one salt for all is none."""
    root = EXAMPLES.parent
    files = [
        file for folder in ("segkey", "examples", "keys") for file in (root / folder).rglob("*")
    ]
    texts = [file.read_text() for file in files if file.suffix in (".py", ".md", ".html", ".sh")]
    assert len(texts) > 80
    said = " ".join(" ".join(texts).split()).lower()
    for words in (
        "no plain pixel",
        "ignored by git",
        "git ignores them",
        "salted",
        "neither the key nor a picture",
    ):
        assert words not in said


def test_a_folder_of_voc_with_further_images(run_example, tmp_path):
    voc, more = tmp_path / "VOC2012", tmp_path / "more"
    names = {"train": [f"t{n}" for n in range(6)], "val": ["v0", "v1"]}
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for split, members in names.items():
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(members) + "\n")
        for name in members:
            Image.new("RGB", (8, 8)).save(voc / f"JPEGImages/{name}.jpg")
            Image.new("L", (8, 8), 1).save(voc / f"SegmentationClass/{name}.png")
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        (more / folder).mkdir(parents=True)
        for name in ("m0", "t0"):  # one of them in VOC's own list
            Image.new("L", (8, 8)).save(more / folder / f"{name}.{suffix}")
    done = run_example(sys.executable, EXAMPLES / "voc_folder.py", voc, more, "made")
    assert done.stdout == "train 5, val 2, test 2\n"
    made = run_example.here / "made"
    held = {split.name: sorted(f.stem for f in split.iterdir()) for split in made.glob("masks/*")}
    assert held == {
        "train": ["m0", "t0", "t1", "t3", "t4"],
        "val": ["t2", "t5"],
        "test": names["val"],
    }
    assert len((made / "classes.txt").read_text().splitlines()) == 21
    shown = run_example("segkey", "check", "made").stdout
    assert "9 images (train 5, val 2, test 2)" in " ".join(shown.split())

    Image.new("L", (8, 8)).save(more / "images/v0.jpg")
    with pytest.raises(AssertionError, match="tested on, such as v0"):
        run_example(sys.executable, EXAMPLES / "voc_folder.py", voc, more, "again")


@pytest.mark.slow
def test_what_a_model_reads_is_measured_for_both_halves(run_example):
    python = sys.executable
    run_example(python, EXAMPLES / "scenes.py", "scenes", 12, 4, 6, 32)
    run_example("segkey", "keygen")
    run_example("segkey", "encrypt", "scenes", "--method", "none", "--size", "32", "--out", "plain")
    train = ("--recipe", "scratch", "--network", "thin", "--epochs", "1")
    run_example(
        "segkey", "train", "plain", *train, "--key", "keys/segkey.key", "-m", "ffx", "-M", "4"
    )
    lines = run_example(
        python, EXAMPLES / "what_a_model_reads.py", "runs/latest"
    ).stdout.splitlines()
    assert lines[0].endswith("on 6 test images")
    named = dict(line.split(": ", 1) for line in lines[1:])
    assert list(named) == [
        "the correct key",
        "the selected half replaced by its mean",
        "the other half replaced by its mean",
        "another selection",
        "another table",
    ]
    assert all(0 <= float(value.split()[0]) <= 1 for value in named.values())
    assert "mean of 10" in named["another table"]
