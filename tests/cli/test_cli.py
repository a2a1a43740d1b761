"""Terminal sessions: what is said where, with which status, and what is left on disk."""

import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import typer
from making import SMALL_NETWORK
from PIL import Image
from typer.testing import CliRunner

from segkey.cli import app, console
from segkey.crypto.keys import Key
from segkey.data import scenes
from segkey.model import recipes
from segkey.shards import Shard

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.fixture
def segkey(tmp_path, monkeypatch):
    """Run a command in an empty folder; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SEGKEY_DEBUG", raising=False)
    monkeypatch.setattr(console.warnings, "showwarning", lambda message, *_: console.warn(message))

    def run(*args: object, input: str | None = None) -> tuple[int, str, str]:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            result = CliRunner().invoke(app, list(map(str, args)), input=input)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def photos(tmp_path) -> Path:
    """A bare folder of photographs, as somebody who has no masks has them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(scenes.draw(0, number, 50)[0]).save(folder / f"photo{number}.jpg")
    return folder


def refused(outcome: tuple[int, str, str], what: str, hint: str = "") -> bool:
    """One line what, one line what to do, nothing on stdout, exit status 1."""
    status, stdout, stderr = outcome
    errors = [line for line in stderr.splitlines() if line.startswith("segkey: error: ")]
    hints = [line for line in stderr.splitlines() if line.startswith("segkey: hint: ")]
    assert (status, stdout, len(errors)) == (1, "", 1), outcome
    assert re.search(what, errors[0]), errors
    assert "Traceback" not in stderr
    assert not hint or re.search(hint, hints[0]), hints
    return True


# ------------------------------------------------------------------ the whole way


def test_the_whole_way(segkey, tmp_path, scenes_folder):
    assert segkey("keygen")[0] == 0
    status, stdout, _ = segkey(
        "encrypt", scenes_folder, "--method", "np", "-M", 4, "--size", 32, "--workers", 1
    )
    assert status == 0
    assert stdout.startswith("22 images (train 12, val 4, test 6) in shards")
    quick = (
        *SMALL_NETWORK,
        "--epochs",
        1,
        "--batch-size",
        4,
        "--device",
        "cpu",
    )
    status, stdout, stderr = segkey("train", *quick)
    assert status == 0
    assert "run runs/np-m4: 1 epoch in" in stdout
    assert re.search(r"epoch +1/1  loss \d\.\d+  val \d+\.\d+", stderr)
    status, stdout, _ = segkey("evaluate", "--json", "--device", "cpu")
    evaluated = json.loads(stdout)
    assert {"run", "split", "images", "correct"} <= evaluated.keys()
    assert (evaluated["run"], evaluated["split"], evaluated["images"]) == ("np-m4", "test", 6)
    assert {"mean_iou", "pixel_accuracy", "iou"} == evaluated["correct"].keys()
    status, stdout, _ = segkey("attack", "--wrong-keys", 2, "--json", "--device", "cpu")
    attacked = json.loads(stdout)
    assert {
        "run",
        "method",
        "block_size",
        "images",
        "correct",
        "plain",
        "incorrect",
        "key_space_bits",
    } <= attacked.keys()
    assert {"keys", "mean", "std", "min", "max", "values"} == attacked["incorrect"].keys()
    assert attacked["correct"] == evaluated["correct"]
    other = json.loads(segkey("evaluate", "--json", "--split", "train", "--device", "cpu")[1])
    assert (other["split"], other["images"]) == ("train", 12)
    (reported,) = json.loads(
        segkey("report", "--json")[1]
    )  # of the test split, whatever was evaluated last
    assert reported["correct"]["mean_iou"] == evaluated["correct"]["mean_iou"]
    assert reported["incorrect"] == attacked["incorrect"]
    shown = segkey("report", "--per-class")[1]
    assert f"{attacked['incorrect']['mean']:.4f}" in shown
    assert "triangle" in shown
    lines = segkey("report", "--csv")[1].splitlines()
    assert lines[0].startswith("run,method,block_size,images,correct,plain,incorrect_keys")
    assert lines[1].startswith(f"np-m4,np,4,6,{evaluated['correct']['mean_iou']}")
    assert r"\begin{tabular}" in segkey("report", "--latex")[1]
    documents = json.loads(
        segkey("inspect", "shards", "keys/segkey.key", "runs/latest", "--verify", "--json")[1]
    )
    assert [each["kind"] for each in documents] == ["shard"] * 3 + ["key", "run"]
    assert all(each.get("damage", []) == [] for each in documents)
    assert (
        len(
            {each["key_id"] for each in documents[:3]}
            | {documents[3]["id"], documents[4]["data"]["key_id"]}
        )
        == 1
    )


def test_a_bare_folder_of_photographs_just_works_and_comes_back(segkey, tmp_path, photos):
    segkey("keygen")
    status, stdout, _ = segkey("encrypt", "photos/", "--method", "np", "-M", "4")
    assert status == 0
    with Shard(tmp_path / "shards/all.h5") as shard:
        assert (shard.images, shard.has_masks, shard.header.views) == (3, False, 1)
    assert segkey("decrypt", "shards", "--out", "back")[1] == "3 images written to back\n"
    for number in range(3):
        plain = Image.open(photos / f"photo{number}.jpg").resize(
            (256, 256), Image.Resampling.BILINEAR
        )
        assert np.array_equal(
            np.asarray(Image.open(tmp_path / f"back/all/photo{number}.png")), np.asarray(plain)
        )


def test_training_on_the_fly_with_a_key_and_a_fixed_password(segkey, scenes_folder):
    segkey("keygen")
    segkey(
        "encrypt", scenes_folder, "--method", "none", "--size", 32, "--out", "plain", "--workers", 1
    )
    quick = (
        *SMALL_NETWORK,
        "--epochs",
        1,
        "--batch-size",
        4,
        "--device",
        "cpu",
    )
    fly = ("--key", "keys/segkey.key", "--method", "ffx", "-M", 2, "--ffx-password", "paper")
    assert segkey("train", "plain", *quick, *fly)[0] == 0
    assert refused(
        segkey("attack", "--wrong-keys", 1), "a fixed FFX password", "same --ffx-password"
    )
    assert refused(segkey("attack", "--ffx-password", "other"), "another FFX password")
    document = json.loads(
        segkey("attack", "--wrong-keys", 1, "--ffx-password", "paper", "--json")[1]
    )
    assert document["key_space_bits"] == pytest.approx(np.log2(924))
    shown = segkey("attack", "--wrong-keys", 1, "--ffx-password", "paper")[1]
    assert "only 924 different keys" in shown


# ------------------------------------------------------------------ keygen


def test_keygen_tells_the_id_and_the_key_space_and_warns(segkey, tmp_path):
    status, stdout, _ = segkey("keygen")
    key = json.loads((tmp_path / "keys/segkey.key").read_text())
    assert status == 0
    assert f"key {key['id']} written to keys/segkey.key" in stdout
    assert key["secret"] not in stdout
    assert "NP has only 924 keys" in stdout
    assert re.search(r"NP +│ +9\.9 │ +45", stdout)
    assert stat.S_IMODE((tmp_path / "keys/segkey.key").stat().st_mode) == 0o600
    assert (tmp_path / "keys/.gitignore").read_text() == "*.key\n*.partial\n"


def test_keygen_never_overwrites(segkey, tmp_path):
    segkey("keygen")
    before = (tmp_path / "keys/segkey.key").read_bytes()
    assert refused(segkey("keygen"), "keys/segkey.key already exists", "--force")
    assert (tmp_path / "keys/segkey.key").read_bytes() == before
    assert segkey("keygen", "--force")[0] == 0
    assert (tmp_path / "keys/segkey.key").read_bytes() != before


def test_a_sealed_key_asks_twice_and_opens_with_its_passphrase_only(segkey, photos, tmp_path):
    status, stdout, _ = segkey(
        "keygen", "sealed", "--passphrase", input="correct horse\ncorrect horse\n"
    )
    assert status == 0
    assert "sealed" in stdout
    assert "secret" not in json.loads((tmp_path / "keys/sealed.key").read_text())
    (tmp_path / "right").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("battery staple\n")
    encrypt = ("encrypt", "photos", "-M", 4, "--key", "keys/sealed.key")
    assert refused(
        segkey(*encrypt, "--passphrase-file", "wrong"), "does not open: the passphrase is wrong"
    )
    assert refused(segkey(*encrypt, "--passphrase-file", "missing"), "no file missing")
    assert not (tmp_path / "shards").exists()
    assert segkey(*encrypt, "--passphrase-file", "right")[0] == 0
    assert segkey("decrypt", "shards", "--key", "keys/sealed.key", input="correct horse\n")[0] == 0


@pytest.mark.parametrize("content", ["", "\n", "   \nwords\n", "\ufeff\n", "\u3000\n"], ids=repr)
def test_an_empty_passphrase_is_refused_from_a_file(segkey, tmp_path, content):
    (tmp_path / "words").write_text(content)
    outcome = segkey("keygen", "sealed", "--passphrase-file", "words")
    assert refused(outcome, "the passphrase is empty|holds no passphrase", "words|passphrase")
    assert not list(tmp_path.glob("**/*.key"))


def test_an_empty_passphrase_is_refused_where_it_is_typed(segkey, tmp_path):
    status, _, stderr = segkey("keygen", "sealed", "--passphrase", input="  \n  \n")
    assert status == 1
    assert "segkey: error: the passphrase is empty" in stderr
    assert not list(tmp_path.glob("**/*.key"))


def test_keygen_force_over_a_hostile_key_file_answers_in_words(segkey, tmp_path):
    segkey("keygen", "mine.key")
    document = json.loads((tmp_path / "mine.key").read_text()) | {"id": "../../\0evil\x1b[2J"}
    (tmp_path / "mine.key").write_text(json.dumps(document))
    status, stdout, stderr = segkey("keygen", "mine.key", "--force")
    assert status == 0
    assert "warning: the earlier file is kept as mine-earlier.key" in stderr
    assert refused(segkey("inspect", "mine-earlier.key"), "mine-earlier.key is not a segkey key")


@pytest.mark.slow
def test_the_four_lines_of_the_card_work_on_any_machine(segkey, tmp_path, monkeypatch):
    """Without a GPU and without reachable weights; another small network, for one epoch."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(recipes._NETWORKS, "laptop", "thin")
    short = replace(recipes.RECIPES["laptop"], epochs=1)
    monkeypatch.setitem(recipes.RECIPES, "laptop", short)
    scenes.write(tmp_path / "images", 4, 1, 1, size=64)
    assert segkey("keygen")[0] == 0
    assert segkey("encrypt", "images/", "--method", "np", "-M", 4)[0] == 0
    status, _, stderr = segkey("train")
    assert status == 0
    assert "There is no GPU here: thin is trained" in stderr
    status, stdout, _ = segkey("attack", "--wrong-keys", 100)
    assert status == 0
    assert "100" in stdout


# ------------------------------------------------------------------ bad input


def test_no_key(segkey, photos):
    assert refused(segkey("encrypt", "photos"), "no key at keys/segkey.key", "segkey keygen")


def test_a_key_that_is_no_key(segkey, photos, tmp_path):
    (tmp_path / "photo.key").write_bytes((photos / "photo0.jpg").read_bytes())
    (tmp_path / "photo.key").chmod(0o600)
    assert refused(
        segkey("encrypt", "photos", "--key", "photo.key"), "photo.key is not a segkey key"
    )


def test_a_key_that_others_can_read_is_warned_about(segkey, photos):
    segkey("keygen")
    os.chmod("keys/segkey.key", 0o644)
    status, _, stderr = segkey("encrypt", "photos")
    assert status == 0
    assert "segkey: warning: keys/segkey.key can be read by others" in stderr


def test_a_folder_without_images(segkey, tmp_path):
    segkey("keygen")
    (tmp_path / "empty").mkdir()
    assert refused(segkey("encrypt", "empty"), "empty holds no images", "jpg")
    assert refused(segkey("encrypt", "nowhere"), "nothing at nowhere")
    assert not (tmp_path / "shards").exists()


def test_a_truncated_image_among_good_ones_is_named_and_the_others_go_on(segkey, photos, tmp_path):
    segkey("keygen")
    whole = (photos / "photo1.jpg").read_bytes()
    (photos / "photo1.jpg").write_bytes(whole[: len(whole) // 2])
    status, stdout, stderr = segkey("encrypt", "photos")
    assert status == 0
    assert "segkey: warning: left out photo1.jpg" in stderr
    assert "1 left out" in stdout
    with Shard(tmp_path / "shards/all.h5") as shard:
        assert shard.names == ["photo0.jpg", "photo2.jpg"]
    assert refused(
        segkey("encrypt", "photos", "--strict", "--out", "strict"),
        "photo1.jpg: .*truncated or damaged",
    )
    assert not list(tmp_path.glob("strict/*.h5*"))


def test_a_block_size_that_does_not_fit(segkey, photos, tmp_path):
    segkey("keygen")
    outcome = segkey("encrypt", "photos", "-M", 24)
    assert refused(
        outcome, "256 is not a multiple of the block size 24", "2, 4, 8, 16, 32, 64, 128, 256"
    )
    assert not (tmp_path / "shards").exists()


def test_an_output_that_exists_is_not_touched(segkey, photos, tmp_path):
    segkey("keygen")
    segkey("encrypt", "photos", "-M", 4)
    before = (tmp_path / "shards/all.h5").read_bytes()
    assert refused(segkey("encrypt", "photos", "-M", 4), "already exists", "--force")
    assert refused(segkey("encrypt", "photos", "-M", 2), "already exists", "--force")
    assert (tmp_path / "shards/all.h5").read_bytes() == before
    assert segkey("encrypt", "photos", "-M", 2, "--force")[0] == 0
    assert (tmp_path / "shards/all.h5").read_bytes() != before


def test_shards_of_different_methods_given_together(segkey, scenes_folder, tmp_path):
    segkey("keygen")
    for method, out in (("np", "a"), ("shf", "b")):
        segkey(
            "encrypt", scenes_folder, "--method", method, "--size", 32, "--out", out, "--workers", 1
        )
    assert refused(
        segkey("train", "a/train.h5", "b/val.h5", "--recipe", "scratch"),
        "a/train.h5 and b/val.h5 differ in method",
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("damage", ["cut", "text", "newer"])
def test_shards_that_are_none(segkey, photos, tmp_path, damage):
    segkey("keygen")
    segkey("encrypt", "photos")
    file = tmp_path / "shards/all.h5"
    data = file.read_bytes()
    if damage == "newer":
        with h5py.File(file, "r+") as shard:
            shard.attrs["format"] = np.bytes_(b"segkey-shard-v2")
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"no shard")
    what = "format 'segkey-shard-v2'" if damage == "newer" else "not a whole segkey shard"
    hint = "upgrade segkey" if damage == "newer" else "make it again"
    assert refused(segkey("inspect", "shards"), what, hint)
    assert refused(segkey("decrypt", "shards"), what, hint)


def test_damage_is_found_named_and_counted(segkey, photos, tmp_path):
    segkey("keygen")
    segkey("encrypt", "photos")
    data = bytearray((tmp_path / "shards/all.h5").read_bytes())
    data[len(data) // 2] ^= 16
    (tmp_path / "shards/all.h5").write_bytes(data)
    status, stdout, stderr = segkey("inspect", "--verify", "shards")
    assert status == 1
    assert "dataset 'images', row 1 (photo1.jpg)" in re.sub(
        r"[\s│]+", " ", stdout
    )  # wherever a long path made it wrap
    assert "1 of 1 files are damaged" in stderr
    assert refused(segkey("decrypt", "shards"), "row 1")


def test_another_key(segkey, photos, tmp_path):
    segkey("keygen")
    segkey("keygen", "other")
    segkey("encrypt", "photos")
    ids = [
        json.loads((tmp_path / f"keys/{name}.key").read_text())["id"]
        for name in ("segkey", "other")
    ]
    outcome = segkey("decrypt", "shards", "--key", "keys/other.key")
    assert refused(outcome, f"made with key {ids[0]}, not with key {ids[1]}", "--key")
    assert not (tmp_path / "decrypted").exists()


def test_a_wrong_key_is_refused_even_where_none_is_needed(segkey, trained_run, key):
    segkey("keygen")
    assert refused(
        segkey("evaluate", trained_run.path, "--key", "keys/segkey.key", "--device", "cpu"),
        f"made with key {key.id}",
    )
    assert segkey("evaluate", trained_run.path, "--device", "cpu")[0] == 0


def test_the_key_that_is_needed_is_named_where_there_is_none(segkey, trained_run, key):
    assert refused(
        segkey("attack", trained_run.path, "--device", "cpu"), f"key {key.id} is needed", "--key"
    )


def test_shards_that_have_moved(segkey, trained_run, tmp_path):
    shutil.copytree(trained_run.path, tmp_path / "run")
    config = json.loads((tmp_path / "run/run.json").read_text())
    config["data"]["shards"] = ["elsewhere"]
    config.pop("checksum")
    (tmp_path / "run/run.json").write_text(json.dumps(config))
    assert refused(
        segkey("evaluate", "run", "--device", "cpu"),
        "run was trained on are not at elsewhere",
        "--shards FOLDER",
    )


def test_images_of_other_classes_are_refused_not_scored_on_the_few_that_fit(
    segkey, trained_run, scenes_folder, tmp_path
):
    shutil.copytree(scenes_folder, tmp_path / "data")
    (tmp_path / "data/classes.txt").unlink()
    for mask in sorted((tmp_path / "data/masks/test").iterdir())[:4]:
        Image.fromarray(np.full((48, 48), 7, np.uint8)).save(mask)
    segkey("keygen")
    outcome = segkey("evaluate", trained_run.path, "--images", "data", "--device", "cpu")
    assert refused(outcome, "4 of 6 images in data cannot be used", "classes")


def test_two_attacks_on_one_run_do_not_mix(segkey, trained_run):
    from segkey.system.folder_lock import sole_writer

    Key(bytes(range(32))).save("keys/segkey.key")
    with sole_writer(trained_run.path):
        assert refused(
            segkey("attack", trained_run.path, "--device", "cpu"),
            "another segkey process is writing to",
        )


def test_no_runs_and_no_shards(segkey):
    assert refused(segkey("train"), "no shards at shards", "segkey encrypt")
    assert refused(segkey("evaluate"), "no run at runs/latest", "segkey train")
    assert refused(segkey("attack"), "no run at runs/latest", "segkey train")
    assert refused(segkey("report"), "no runs in runs", "segkey train")


def test_a_run_without_its_weights(segkey, trained_run, tmp_path):
    shutil.copytree(trained_run.path, tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    assert refused(segkey("evaluate", "run", "--device", "cpu"), "run has no weights")


def test_weights_that_cannot_be_had(segkey, shards_folder, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(
        torch.hub,
        "load_state_dict_from_url",
        lambda *_, **__: (_ for _ in ()).throw(OSError("offline")),
    )
    outcome = segkey("train", shards_folder, "--recipe", "paper")
    assert refused(
        outcome,
        "fcn_resnet50_coco-1167a1af.pth are neither cached nor reachable",
        "--recipe scratch",
    )
    assert not (tmp_path / "runs").exists()


def test_a_device_that_is_not_there(segkey, shards_folder):
    assert refused(
        segkey("train", shards_folder, "--recipe", "scratch", "--device", "cuda:99"),
        "no device 'cuda:99'",
        "cpu",
    )


def test_a_disk_that_fills_up_leaves_the_earlier_files(segkey, photos, tmp_path):
    """A limit on the size of files stands for a full disk: the write fails half-way."""
    segkey("keygen")
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
        "from segkey.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "encrypt", "photos", "--workers", "1"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert refused(
        (process.returncode, process.stdout, process.stderr.split("\n", 1)[1]),
        "shards/all.h5",
        "run the same command",
    )
    assert not list(tmp_path.glob("shards/*.h5*"))


@pytest.mark.parametrize("where", ["encrypt", "train"])
def test_ctrl_c_says_how_to_go_on(tmp_path, where, scenes_folder, shards_folder):
    arguments = {
        "encrypt": [
            "encrypt",
            str(scenes_folder),
            "--method",
            "none",
            "--views",
            "200",
            "--size",
            "256",
        ],
        "train": [
            "train",
            str(shards_folder),
            *SMALL_NETWORK,
            "--epochs",
            "10000",
            "--device",
            "cpu",
        ],
    }[where]
    process = subprocess.Popen(
        [sys.executable, "-m", "segkey", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell that starts tests in the background lets them ignore Ctrl-C, and they hand that
        # on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:  # the first line is told when the work begins
        if "disk" in line or "epoch" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in stderr
    assert ("same command again" if where == "encrypt" else "segkey train --resume") in stderr
    assert "Traceback" not in stderr
    assert (
        not list(tmp_path.glob("shards/*"))
        or where == "train"
        or not list(tmp_path.glob("shards/*.partial"))
    )


# ------------------------------------------------------------------ usage, help and terminals


@pytest.mark.parametrize(
    "arguments",
    [
        ("encrypt",),
        ("encrypt", "x", "--size", "big"),
        ("encrypt", "x", "--size", "0"),
        ("encrypt", "x", "-M", "0"),
        ("nonsense",),
        ("train", "--method", "np"),
        ("train", "--key", "k"),
        ("report", "--csv", "--json"),
        ("train", "--resume", "--recipe", "scratch"),
        ("attack", "--wrong-keys", "0"),
    ],
)
def test_usage_errors_exit_with_2(segkey, arguments):
    status, stdout, stderr = segkey(*arguments)
    assert (status, stdout) == (2, "")
    assert "Usage" in stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(segkey, command):
    status, stdout, _ = segkey(command, "--help")
    assert status == 0
    examples = [
        re.split(r"[(>]", line)[0].split() for line in re.findall(r"Example: segkey (.*)", stdout)
    ]
    assert examples
    group = typer.main.get_command(app)
    for words in examples:
        assert words[0] == command
        group.commands[words[0]].make_context(
            words[0], words[1:], resilient_parsing=False
        )  # raises for unknown options


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["keygen"],
        ["inspect", "keys/segkey.key"],
        ["encrypt", "photos", "--workers", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_no_network_does_not_wait_for_torch(tmp_path, photos, arguments):
    Key.generate().save(
        tmp_path / "keys" / ("other.key" if "keygen" in arguments else "segkey.key")
    )
    script = (
        f"import sys; from segkey.cli import app; app({arguments!r}, standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, capture_output=True)


def test_names_cannot_move_the_cursor_or_colour_the_terminal(segkey, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "\x1b[2Jevil[red]\n.jpg").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(folder / "good.jpg")
    segkey("keygen")
    status, _, stderr = segkey("encrypt", "photos")
    assert status == 0
    assert "\x1b[2J" not in stderr
    assert "\\x1b[2Jevil[red]\\n.jpg" in stderr


HOSTILE = "\x1b[2J\x9b2J\x7f\u202e[red]\r"


def test_json_and_tables_for_programs_cannot_move_the_cursor(capsys):
    console.show_json({"run": HOSTILE, "ä": ["\n", "漢"]})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"run": HOSTILE, "ä": ["\n", "漢"]}
    assert "ä" in shown
    assert "漢" in shown
    console.show_raw(f"run,method\n{HOSTILE},np\n")
    shown += capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_progress_bar_shows_a_name_and_does_not_obey_it(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        console, "err", console.Console(file=screen, force_terminal=True, width=300)
    )
    with console.TerminalProgress().task(f"verify {HOSTILE}", 3) as advance:
        advance(1)
    assert r"verify \x1b[2J\x9b2J\x7f\u202e[red]\r" in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


def test_debugging_shows_the_traceback(segkey, monkeypatch):
    monkeypatch.setenv("SEGKEY_DEBUG", "1")
    status, _, stderr = segkey("evaluate")
    assert status == 1
    assert "Traceback (most recent call last)" in stderr
    assert "segkey: error: there is no run at runs/latest" in stderr


def test_version(segkey):
    assert re.fullmatch(r"segkey \d+\.\d+\.\d+\n", segkey("--version")[1])


# ------------------------------------------------------------------ the demo


def test_demo_goes_the_whole_way_and_keeps_what_it_has_finished(segkey, tmp_path, monkeypatch):
    from segkey.model import training
    from segkey.paper import demonstration

    monkeypatch.setattr(demonstration, "SIZE", (32, 32))
    monkeypatch.setattr(demonstration, "NETWORK", "thin")
    monkeypatch.setattr(demonstration, "SCENES", {"train": 12, "val": 4, "test": 6})
    quick = ("demo", "--epochs", 1, "--wrong-keys", 2, "--device", "cpu", "--method", "ffx")
    status, stdout, _ = segkey(*quick)
    assert status == 0
    assert "What the key is worth" in stdout
    assert "What this shows, in mean IoU: FFX:" in stdout
    made = {"scenes", "shards", "runs", "keys", "overlay.png", "report.html"}
    assert {path.name for path in (tmp_path / "demo").iterdir()} == made
    assert len(list((tmp_path / "demo/scenes/images").rglob("*.jpg"))) == 22
    assert len(Image.open(tmp_path / "demo/overlay.png").convert("RGB").getcolors(1 << 20)) > 20
    assert "ffx-m4" in (tmp_path / "demo/report.html").read_text()
    (tmp_path / "demo/runs/ffx-m4/attack.json").unlink()  # as if it had been stopped there
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", None)
        again = segkey(*quick)
    assert (again[0], again[1].splitlines()[-3:]) == (0, stdout.splitlines()[-3:])
    assert refused(segkey(*quick, "--epochs", 2), "begun with other settings", "--force")


def test_demo_leaves_folders_that_no_demo_made(segkey, tmp_path):
    (tmp_path / "demo/runs").mkdir(parents=True)
    assert refused(segkey("demo"), "demo/runs already exists, and no demo made it", "--force")


def test_every_value_of_a_recipe_can_be_chosen(segkey, tmp_path, shards_folder):
    chosen = {
        "epochs": 1,
        "batch_size": 3,
        "lr": 0.002,
        "lr_min": 0.0005,
        "restart": 3,
        "optimizer": "sgd",
        "momentum": 0.8,
        "weight_decay": 0.02,
        "weights": "none",
        "crop_scale": 0.5,
    }
    options = [
        text for name, value in chosen.items() for text in (f"--{name.replace('_', '-')}", value)
    ]
    assert (
        segkey("train", shards_folder, "--backbone", "resnet14", "--device", "cpu", *options)[0]
        == 0
    )
    recipe = json.loads((tmp_path / "runs/latest/run.json").read_text())["recipe"]
    others = {
        "loss": "ce",
        "class_weights": None,
        "patience": 0,
        "ema": 0.0,
        "encoder_weights": None,
    }
    assert recipe == chosen | others


# ------------------------------------------------------------------ preview


def test_a_preview_needs_neither_key_nor_data(segkey, tmp_path, photos):
    status, stdout, stderr = segkey(
        "preview", photos / "photo0.jpg", "--size", 64, "-M", "4,2", "-m", "np,shf"
    )
    assert status == 0
    assert stdout.replace("\n", "").endswith("photo0.jpg, np, shf, M = 2, 4")
    assert "throw-away key" in stderr
    assert "warning" not in stderr
    assert Image.open(tmp_path / "preview.png").format == "PNG"
    assert not list(tmp_path.glob("**/*.key"))
    assert refused(
        segkey("preview", photos / "photo0.jpg"), "preview.png already exists", "--force"
    )
    assert segkey("preview", photos / "photo0.jpg", "--force")[0] == 0


def test_a_preview_shows_a_key_only_where_it_is_asked_to(segkey, tmp_path, photos):
    segkey("keygen")
    segkey("keygen", "other")
    sheets = {}
    for name, key in (
        ("default", ()),
        ("own", ("-k", "keys/segkey.key")),
        ("other", ("-k", "keys/other.key")),
    ):
        status, _, stderr = segkey(
            "preview", photos / "photo0.jpg", "--size", 32, "-o", f"{name}.png", *key
        )
        assert status == 0
        assert ("warning: keep" in stderr) == bool(key)
        assert ("gives the key away" in " ".join(stderr.split())) == bool(key)
        assert stat.S_IMODE((tmp_path / f"{name}.png").stat().st_mode) & (0o077 if key else 0) == 0
        sheets[name] = (tmp_path / f"{name}.png").read_bytes()
    assert len(set(sheets.values())) == 3


def test_a_preview_under_a_fixed_password_says_that_it_gives_the_password_away(segkey, photos):
    image = photos / "photo0.jpg"
    for methods, more, warned in (
        ("ffx", ("--ffx-password", "mine"), "gives the FFX password away"),
        ("np", ("--ffx-password", "mine"), ""),
        ("ffx", (), ""),
    ):
        status, _, stderr = segkey("preview", image, "--size", 32, "-m", methods, "--force", *more)
        assert status == 0
        assert ("warning" in stderr) == bool(warned)
        assert warned in " ".join(stderr.split())


def test_what_a_preview_refuses(segkey, photos):
    assert refused(
        segkey("preview", photos / "photo0.jpg", "-M", 3),
        "not a multiple of the block size 3",
        "fit: 2, 4",
    )
    assert refused(segkey("preview", photos / "photo0.jpg", "-m", "aes"), "no method 'aes'")
    assert segkey("preview", photos / "photo0.jpg", "-M", "a")[0] == 2
