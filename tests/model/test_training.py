"""Recipes, the loop, and that a training that was cut off ends where the uninterrupted one ends."""

import contextlib
import json
import math
import os
import shutil
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from making import reconfigure, trained, weights

from segkey.crypto import ciphers
from segkey.data.augment import random_crops
from segkey.errors import DivergedError, SegkeyError, SegkeyWarning
from segkey.model import batches, recipes, run_recording, training
from segkey.model.batches import BatchLoader
from segkey.model.configuration import Best
from segkey.model.package_versions import versions
from segkey.model.run_search import find, survey
from segkey.model.runs import Run
from segkey.model.training_loop import Settings, Trainer
from segkey.shards import Header, encryption, open_splits
from segkey.system import devices, interrupts, json_records
from segkey.system.json_files import read_json
from segkey.system.progress import Progress
from segkey.system.seeds import seeded

CPU = torch.device("cpu")
SMALL = {"epochs": 3, "batch_size": 5}


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory, scenes_source):
    out, plain = tmp_path_factory.mktemp("plain"), ciphers.from_key("none", None, 1)
    encryption.encrypt(
        encryption.plan_shards(scenes_source, out, plain, size=(32, 32)), plain, workers=1
    )
    return out


def train(shards, folder, progress=None, **how):
    return trained(
        shards, folder, **SMALL, progress=progress or Progress(), **{"name": "run"} | how
    )


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------ recipes


def test_the_paper_recipe_is_the_papers_table():
    recipe = recipes.recipe("paper")
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 0.005)
    assert (recipe.lr, recipe.lr_min, recipe.restart) == (0.1, 0.0001, 10)
    assert (recipe.epochs, recipe.batch_size, recipe.weights) == (100, 256, "coco")


def test_the_papers_learning_rate_is_pytorchs_warm_restarts():
    recipe = recipes.recipe("paper")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, T_0=10, eta_min=0.0001
    )
    for epoch in range(25):
        assert recipe.lr_at(epoch, step=3, steps=6) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_the_scratch_recipe_warms_up_and_ends_near_nothing():
    recipe = recipes.recipe("scratch", epochs=40)
    rates = [recipe.lr_at(epoch, step, 5) for epoch in range(40) for step in range(5)]
    assert 0 < rates[0] < rates[5] < max(rates) <= recipe.lr
    assert max(rates) == pytest.approx(recipe.lr, rel=0.01)
    assert rates[-1] < 0.01 * recipe.lr
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    "name, network, starts, has_gpu, chosen",
    [
        ("auto", None, False, False, ("laptop", "resnet14")),
        ("auto", None, False, True, ("paper", "fcn_resnet50")),
        ("auto", "resnet14", False, False, ("paper", "resnet14")),
        ("auto", None, True, False, ("paper", "fcn_resnet50")),
        ("laptop", None, False, True, ("laptop", "resnet14")),
        ("laptop", "fcn_resnet50", False, False, ("laptop", "fcn_resnet50")),
        ("scratch", None, False, False, ("scratch", "fcn_resnet50")),
    ],
)
def test_the_recipe_fits_the_machine_unless_the_user_chose(name, network, starts, has_gpu, chosen):
    assert recipes.choose(name, network, starts, has_gpu) == chosen


@pytest.mark.parametrize(
    ("name", "overrides", "error"),
    [
        ("fast", {}, "no recipe 'fast'"),
        ("scratch", {"lr": 0.0}, "lr must be above 0"),
        ("scratch", {"epochs": -1}, "epochs must be above 0"),
        ("scratch", {"optimizer": "lion"}, "no optimizer 'lion'"),
        ("paper", {"momentum": -0.1}, "momentum must not be below 0"),
        ("paper", {"weight_decay": -1.0}, "weight decay must not be below 0"),
        ("scratch", {"crop_scale": 1.5}, "fraction of the area"),
    ],
)
def test_recipes_that_cannot_be(name, overrides, error):
    with pytest.raises(SegkeyError, match=error):
        recipes.recipe(name, **overrides)


# ------------------------------------------------------------------ the loop


def test_training_learns_and_keeps_the_epoch_of_the_lowest_validation_loss(tmp_path, shards_folder):
    said = []
    listener = Progress()
    listener.say = said.append
    run = train(shards_folder, tmp_path, listener)
    history = run.history()
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]
    lowest = min(history, key=lambda line: line["val_loss"])
    assert run.configuration.best == Best(epoch=lowest["epoch"], val_loss=lowest["val_loss"])
    assert sum("val" in line and "images/s" in line for line in said) == 3
    model, val = (
        run.load_model(CPU),
        BatchLoader(open_splits([shards_folder], ("val",))["val"], CPU),
    )
    ((images, masks),) = val.batches(10)
    with torch.inference_mode():
        loss = torch.nn.functional.cross_entropy(
            model(batches.as_pixels(images, 255)), masks.long(), ignore_index=255
        )
    assert float(loss) == pytest.approx(
        lowest["val_loss"], rel=0.03
    )  # trained in bfloat16 if the CPU has it


def test_the_estimate_is_told_after_a_few_steps(tmp_path, shards_folder):
    said = []
    listener = Progress()
    listener.say = said.append
    recipe = recipes.recipe("scratch", epochs=1, batch_size=2)
    training.train(
        open_splits([shards_folder]),
        tmp_path,
        recipe,
        shards=[shards_folder],
        device=CPU,
        network="thin",
        progress=listener,
    )
    assert "1 epoch will take about" in said[0]
    assert "cpu" in said[0]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path, shards_folder):
    first, again, other = (
        train(shards_folder, tmp_path / name, seed=seed, precise=True, resident=resident)
        for name, seed, resident in (("a", 0, True), ("b", 0, False), ("c", 1, True))
    )
    assert equal(weights(first), weights(again))  # streamed as well as resident
    assert not equal(weights(first), weights(other))


class Stop(KeyboardInterrupt):
    pass


class Said(Progress):
    """Remembers what was said, and may stop the training after some images."""

    def __init__(self, images: float = math.inf):
        self.lines, self.left = [], images

    def say(self, text):
        self.lines.append(text)

    def task(self, description, total, unit="images"):
        return Stopping.task(self, description, total, unit)

    def _advance(self, count):
        Stopping._advance(self, count)


class Stopping(Progress):
    """Stops a training in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, images: int):
        self.left = images

    def task(self, description, total, unit="images"):
        from contextlib import nullcontext

        return nullcontext(self._advance)

    def _advance(self, count):
        self.left -= count
        if self.left <= 0:
            raise Stop


@pytest.mark.parametrize("images", [7, 17, 31])
@pytest.mark.parametrize("on_the_fly", [False, True])
def test_a_training_that_was_cut_off_ends_where_the_uninterrupted_one_ends(
    tmp_path, shards_folder, plain_folder, key, images, on_the_fly
):
    shards = plain_folder if on_the_fly else shards_folder
    how = {"cipher": ciphers.from_key("ffx", key, 4)} if on_the_fly else {}
    whole = train(shards, tmp_path / "whole", **how)
    with pytest.raises(Stop):
        train(shards, tmp_path / "cut", Stopping(images), save_every=0, **how)
    run = Run.open(tmp_path / "cut/latest")
    resumed = training.resume(run, open_splits([shards], ("train", "val")), device=CPU, **how)
    assert equal(weights(resumed), weights(whole))
    ours, theirs = (
        [
            {k: v for k, v in line.items() if k not in ("seconds", "images_per_second")}
            for line in r.history()
        ]
        for r in (resumed, whole)
    )
    assert ours == theirs
    assert not (run.path / "resume.pt").exists()


def test_resume_refuses_other_data_another_key_and_a_finished_run(
    tmp_path, trained_run, shards_folder, plain_folder, key, other_key
):
    with pytest.raises(SegkeyError, match="has all its 2 epochs"):
        training.resume(trained_run, open_splits([shards_folder]), device=CPU)
    cipher = ciphers.from_key("np", key, 4)
    with pytest.raises(Stop):
        train(plain_folder, tmp_path, Stopping(15), cipher=cipher, save_every=0)
    run = Run.open(tmp_path / "run")
    splits = open_splits([plain_folder])
    with pytest.raises(SegkeyError, match=f"key id {key.id}, not {other_key.id}"):
        training.resume(
            run,
            splits,
            device=CPU,
            cipher=ciphers.from_key("np", other_key, 4),
        )
    with pytest.raises(SegkeyError, match="method np, not none"):
        training.resume(run, splits, device=CPU)


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_split_is_named(tmp_path, shards_folder, missing):
    shutil.copytree(shards_folder, tmp_path / "shards")
    (tmp_path / "shards" / f"{missing}.h5").unlink()
    with pytest.raises(SegkeyError, match=f"no '{missing}' split"):
        train(tmp_path / "shards", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_encrypted_shards_are_not_encrypted_twice(tmp_path, shards_folder, key):
    with pytest.raises(SegkeyError, match="encrypted already"):
        train(shards_folder, tmp_path, cipher=ciphers.from_key("np", key, 4))


def test_a_damaged_row_stops_training_before_a_number_is_told(tmp_path, shards_folder):
    shutil.copytree(shards_folder, tmp_path / "shards")
    file = tmp_path / "shards/train.h5"
    data = bytearray(file.read_bytes())
    data[10000] ^= 1  # in the first image
    file.write_bytes(data)
    with pytest.raises(SegkeyError, match="dataset 'images', row"):
        train(tmp_path / "shards", tmp_path / "runs")
    assert not list(tmp_path.glob("runs/*/history.jsonl"))


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_a_wrong_save_every_is_named(tmp_path, monkeypatch, shards_folder, value):
    monkeypatch.setenv("SEGKEY_SAVE_EVERY", value)
    with pytest.raises(SegkeyError, match=f"SEGKEY_SAVE_EVERY is '{value}'"):
        train(shards_folder, tmp_path)


def test_a_diverging_training_says_so(tmp_path, shards_folder):
    recipe = recipes.recipe("scratch", epochs=2, batch_size=4, lr=1e30)
    with pytest.raises(SegkeyError, match="diverged"):
        training.train(
            open_splits([shards_folder]),
            tmp_path,
            recipe,
            shards=[shards_folder],
            device=CPU,
            network="thin",
            precise=True,
        )


def test_a_name_that_is_taken_is_refused(trained_run, shards_folder):
    with pytest.raises(SegkeyError, match="already exists"):
        train(shards_folder, trained_run.path.parent, name="small")


def test_a_training_killed_before_its_first_word_does_not_block_its_name(tmp_path, shards_folder):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").touch()
    (tmp_path / "run/.run.json.01234567.partial").write_text("{")
    assert train(shards_folder, tmp_path).path == tmp_path / "run"
    assert not list(tmp_path.glob("run/.*.partial"))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_flipped_bit_in_what_a_training_goes_on_from_is_noticed(tmp_path, shards_folder, part):
    with pytest.raises(Stop):
        train(shards_folder, tmp_path, Stopping(15), save_every=0)
    file = tmp_path / "run/resume.pt"
    data = bytearray(file.read_bytes())
    data[int(len(data) * part)] ^= 1
    file.write_bytes(data)
    with pytest.raises(SegkeyError, match="resume.pt cannot be read"):
        training.resume(Run.open(tmp_path / "run"), open_splits([shards_folder]), device=CPU)


def test_history_is_checked_line_by_line(tmp_path, trained_run):
    shutil.copytree(trained_run.path, tmp_path / "run")
    file = tmp_path / "run/history.jsonl"
    first = json.loads(file.read_text().splitlines()[0])
    file.write_text(file.read_text().replace(str(first["loss"]), str(first["loss"] / 2)))
    with pytest.raises(SegkeyError, match="history.jsonl does not match its checksum"):
        Run.open(tmp_path / "run").history()


# ------------------------------------------------------------------ runs


@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated"])
def test_a_run_without_its_weights(tmp_path, trained_run, damage):
    shutil.copytree(trained_run.path, tmp_path / "run")
    file = tmp_path / "run/model.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        data[-1000] ^= 4
        file.write_bytes(data if damage == "flipped" else data[: len(data) // 2])
    with pytest.raises(SegkeyError, match="has no weights" if damage == "missing" else "damaged"):
        Run.open(tmp_path / "run").load_model(CPU)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "not the description"),
        ("[]", "not the description"),
        ('{"format": "segkey-run-v9"}', "segkey-run-v9"),
        ('{"format": "segkey-run-v1"}', "damaged"),
    ],
)
def test_descriptions_that_are_none(tmp_path, text, error):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SegkeyError, match=error):
        Run.open(tmp_path)


def test_run_json_describes_itself_and_holds_no_secret(trained_run, shards_folder, key):
    text = (trained_run.path / "run.json").read_text()
    config = json.loads(text)
    assert config["data"]["key_id"] == key.id
    assert config["data"]["shards"] == [str(shards_folder)]
    assert config["versions"].keys() == {"segkey", "torch", "torchvision", "numpy", "h5py"}
    assert bytes(range(32)).hex() not in text
    assert Path(trained_run.path.parent, "latest").resolve() == trained_run.path.resolve()


@pytest.fixture
def broken_runs(tmp_path, trained_run):
    """A whole run among some that are broken, each in its own way; what is told of each by its
    name."""
    folder = tmp_path / "runs"
    shutil.copytree(
        trained_run.path, folder / "whole", ignore=shutil.ignore_patterns("*.safetensors")
    )
    evaluation = {"run": "whole", "split": "test", "images": 6}
    evaluation |= {"correct": {"mean_iou": 0.5}, "constant": {"class": "ground", "mean_iou": 0.1}}
    (folder / "whole/evaluate.json").write_text(json.dumps(evaluation))
    text = (trained_run.path / "run.json").read_text()
    other = json.loads(text)
    del other["checksum"]
    for name, content in {
        "no-format": json.dumps(other | {"format": None}),
        "cut": text[:100],
        "another": '{"format": "segkey-run-v9"}',
        "fields": '{"format": "segkey-run-v1"}',
        "edited": text.replace('"small"', '"large"'),
        "no-weights": text,
        "result": text,
        "history": text,
        "killed": json.dumps(other | {"epochs_done": 0}),
    }.items():
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(content)
    (folder / "result/suite.json").write_text('{"attacks": 7}')
    (folder / "history/history.jsonl").write_text('{"epoch": ')
    (folder / "folder/run.json").mkdir(parents=True)
    shutil.copytree(trained_run.path, folder / "deleted")
    (folder / "deleted/run.json").unlink()
    (folder / "dangling").mkdir()
    (folder / "dangling/run.json").symlink_to("nowhere")
    (folder / "link").symlink_to("whole")
    (folder / "latest").symlink_to("whole")
    (folder / "notes").mkdir()  # somebody's own
    told = {
        "no-format": "has the format 'None'",
        "cut": "not the description",
        "another": "segkey-run-v9",
        "fields": "damaged",
        "edited": "checksum",
        "no-weights": "no weights",
        "result": "suite.json",
        "history": "history.jsonl",
        "killed": "no epoch of its training is finished",
        "folder": "",
        "deleted": "",
        "dangling": "",
        "link": "is a link",
    }
    return folder, told


def test_broken_runs_are_named_and_left_out_of_every_report(tmp_path, monkeypatch, broken_runs):
    from typer.testing import CliRunner

    from segkey.cli import app, completion

    folder, told = broken_runs
    monkeypatch.chdir(tmp_path)

    def report(*more: str):
        result = CliRunner().invoke(app, ["report", "runs", *more])
        assert result.exit_code == 0, result.stderr
        assert result.stderr.count("left out") == 10
        assert f"and {len(told) - 10} more" in result.stderr
        return result.stdout

    with pytest.warns(SegkeyWarning, match="left out "):
        assert [run.name for run in find(Path("runs"))] == ["whole"]
    found, left_out = survey(Path("runs"))
    assert [run.name for run in found] == ["whole"]
    assert {problem.name for problem in left_out} == told.keys()
    assert all(told[problem.name] in problem.why and problem.why for problem in left_out)
    assert "whole" in report("--csv")
    assert "whole" in report("--latex")
    shown = report()
    assert "whole" in shown
    assert all(name in shown for name in told)
    lines = json.loads(report("--json"))
    assert {line["run"] for line in lines if "correct" in line} == {"whole"}
    assert {line["run"]: line["left_out"] for line in lines if "left_out" in line} == {
        p.name: p.why for p in left_out
    }
    report("--html", "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "whole" in page
    assert all(f"<strong>{name}</strong>" in page for name in told)
    assert "runs/latest" in completion.complete_runs("runs/")
    result = CliRunner().invoke(app, ["inspect", "runs", "--json"])
    documents = json.loads(result.stdout)
    assert {Path(each["path"]).name for each in documents if "damage" in each} == told.keys()
    assert result.exit_code == 1
    assert f"{len(told)} of {len(told) + 1} files are damaged" in result.stderr


def test_where_all_runs_are_broken_that_is_the_error(broken_runs):
    folder, told = broken_runs
    (folder / "whole/run.json").write_text("{")
    with pytest.raises(
        SegkeyError,
        match=rf"none of the {len(told) + 1} runs in .* can be used; another: .*segkey-run-v9",
    ):
        survey(folder)
    (folder / "link").unlink()
    for name in told.keys() - {"another", "link"} | {"whole"}:
        shutil.rmtree(folder / name)
    with pytest.raises(SegkeyError, match="the run in .* cannot be used; another"):
        survey(folder)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_run_that_may_not_be_read_is_left_out(broken_runs):
    folder, _ = broken_runs
    (folder / "cut").chmod(0)
    try:
        found, left_out = survey(folder)
    finally:
        (folder / "cut").chmod(0o700)
    assert [run.name for run in found] == ["whole"]
    assert any(problem.name == "cut" and "ermission" in problem.why for problem in left_out)


# ------------------------------------------------------------------ what is recorded


def test_what_decides_a_training_is_recorded(tmp_path, trained_run, plain_folder, key):
    assert json_records.as_json(trained_run.configuration.training) == {
        "on_the_fly": False,
        "views": 4,
        "augmented": True,
        "crop_scale": 0.25,
        "augmentation_seed": 0,
        "images": {"train": 12, "val": 4},
        "dtype": devices.computes_in(CPU),
        "world_size": 1,
    }
    made = trained_run.configuration
    assert made.segments[0].versions == made.versions
    with pytest.raises(Stop):
        cipher = ciphers.from_key("np", key, 4)
        train(plain_folder, tmp_path, Stopping(1), cipher=cipher, precise=True, seed=7)
    assert json_records.as_json(Run.open(tmp_path / "run").configuration.training) == {
        "on_the_fly": True,
        "views": 1,
        "augmented": True,
        "crop_scale": 0.25,
        "augmentation_seed": 7,
        "images": {"train": 12, "val": 4},
        "dtype": "float32",
        "world_size": 1,
    }


def test_plain_shards_are_augmented_like_the_models_they_are_compared_with(
    tmp_path, monkeypatch, plain_folder, key
):
    """Without --key as with it, and also when the training goes on."""
    monkeypatch.setattr(ciphers.METHODS["np"], "encrypt", lambda self, images: images)
    said, how = Said(), {"cipher": ciphers.from_key("np", key, 4)}
    encrypted = train(plain_folder, tmp_path / "encrypted", **how)
    plain = train(plain_folder, tmp_path / "plain", said)
    assert [line["loss"] for line in plain.history()] == [
        line["loss"] for line in encrypted.history()
    ]
    assert plain.configuration.training.augmented
    assert plain.configuration.data.method == "none"
    assert any("augmented anew in every epoch" in line for line in said.lines)
    with pytest.raises(Stop):
        train(plain_folder, tmp_path / "cut", Stopping(31))
    resumed = training.resume(
        Run.open(tmp_path / "cut/run"), open_splits([plain_folder], ("train", "val")), device=CPU
    )
    assert equal(weights(resumed), weights(plain))


@pytest.mark.parametrize(("name", "told"), [("paper", "4 fixed views"), ("scratch", None)])
def test_fixed_views_are_not_the_papers_recipe(tmp_path, shards_folder, name, told):
    said = Said(1)
    recipe = recipes.recipe(name, epochs=1, batch_size=4, weights="none")
    with pytest.raises(Stop):
        training.train(
            open_splits([shards_folder]),
            tmp_path,
            recipe,
            shards=[shards_folder],
            device=CPU,
            name="run",
            network="thin",
            progress=said,
        )
    recorded = Run.open(tmp_path / "run").configuration.differs_from_paper
    lines = [line for line in said.lines if "not quite the paper's recipe" in line]
    assert len(lines) == bool(told) == bool(recorded)
    assert not told or (told in lines[0] and recorded in lines[0])


def test_resuming_under_other_versions_warns_and_records_them(tmp_path, monkeypatch, shards_folder):
    with pytest.raises(Stop):
        train(shards_folder, tmp_path, Stopping(31))
    ours = versions()
    monkeypatch.setattr(
        run_recording,
        "versions",
        lambda: ours | {"torch": "99.1", "segkey": "99.2", "h5py": "99.3"},
    )
    run, splits = Run.open(tmp_path / "run"), open_splits([shards_folder], ("train", "val"))
    with pytest.warns(
        SegkeyWarning, match="may differ from that of an uninterrupted training"
    ) as warned:
        training.resume(run, splits, device=CPU)
    (text,) = (str(each.message) for each in warned)
    assert f"segkey 99.2 (before: {ours['segkey']}), torch 99.1 (before: {ours['torch']})" in text
    assert "after epoch 2" in text
    assert "h5py" not in text
    assert "numpy" not in text
    segments = Run.open(run.path).configuration.segments
    assert [(each.epoch, each.versions["torch"]) for each in segments] == [
        (0, ours["torch"]),
        (2, "99.1"),
    ]


def test_a_run_of_an_earlier_version_is_gone_on_with(tmp_path, monkeypatch, shards_folder):
    """It knows neither how its images were augmented nor its segments; where nothing of it is left,
    nothing differs."""
    for images, warns in ((31, True), (1, False)):
        folder = tmp_path / str(images)
        with pytest.raises(Stop):
            train(shards_folder, folder, Stopping(images))
        run = Run.open(folder / "run")
        versions = run.configuration.versions | {"numpy": "0.1"}
        reconfigure(run, segments=None, training=None, versions=versions).save()
        assert not {"segments", "training"} & set(read_json(run.path / "run.json", ""))
        expected = (
            pytest.warns(SegkeyWarning, match=r"\(before: 0.1\)")
            if warns
            else contextlib.nullcontext()
        )
        with expected:
            training.resume(run, open_splits([shards_folder], ("train", "val")), device=CPU)
        assert len(run.configuration.segments) == 1 + warns
        assert (run.configuration.training is not None) != warns


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save_once_and_later_ones_do_not_stop_that(
    tmp_path, monkeypatch, shards_folder, number
):
    write = Run.write_history

    def impatient(run, epochs):
        for later in (signal.SIGINT, signal.SIGTERM, number):
            os.kill(os.getpid(), later)
        write(run, epochs)

    class Signalled(Stopping):
        def _advance(self, count):
            self.left -= count
            if self.left <= 0:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(Run, "write_history", impatient)
    default = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {
        each: signal.signal(each, handler) for each, handler in default.items()
    }  # tests may be told to ignore them
    try:
        with pytest.raises(interrupts.Stopped) as stopped:
            train(shards_folder, tmp_path, Signalled(15))
        assert stopped.value.number == number
        assert {each: signal.getsignal(each) for each in default} == default
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    run = Run.open(tmp_path / "run")
    assert run.configuration.epochs_done == len(run.history()) == 1
    assert run.state_file.is_file()


def test_a_training_that_diverges_keeps_the_epochs_before(tmp_path, monkeypatch, shards_folder):
    step, calls = Trainer.step, []

    def diverging(*arguments):
        calls.append(1)
        return step(*arguments) * (math.nan if len(calls) > 3 else 1)

    monkeypatch.setattr(Trainer, "step", diverging)
    with pytest.raises(DivergedError):
        train(shards_folder, tmp_path)
    assert [line["epoch"] for line in Run.open(tmp_path / "run").history()] == [1]


# ------------------------------------------------------------------ on the device


def test_crops_on_the_device_agree_between_image_and_mask_and_with_the_flip():
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (3, 4, 4), dtype=np.uint8))
    masks = masks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = masks[:, None].repeat(1, 3, 1, 1) * 60
    crops = torch.from_numpy(random_crops(seeded(1), np.full((3, 2), 32), (0.2, 1.0)))
    cropped, classes = batches.crop_batch(images, masks, crops)
    assert cropped.dtype == classes.dtype == torch.uint8
    inside = (cropped == classes[:, None] * 60).all(1)
    assert (
        inside.float().mean() > 0.6
    )  # bilinear blends the borders between the squares, and nothing else
    whole = torch.tensor([[0.0, 0, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0.5, 1, 0]])
    same, mirrored, left = batches.crop_batch(images, masks, whole)[1]
    assert torch.equal(same, masks[0])
    assert torch.equal(mirrored, masks[1].flip(1))
    assert torch.equal(left[:, ::2], masks[2][:, :16])


@pytest.mark.parametrize("resident", [True, False])
def test_feeds_give_the_rows_they_were_asked_for(shards_folder, resident):
    split = open_splits([shards_folder], ("train",))["train"]
    order = np.array([3, 0, 11, 7, 7])
    batches = list(BatchLoader(split, CPU, resident=resident).batches(2, order, view=2))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    images, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for position, index in enumerate(order):
        assert np.array_equal(images[position].numpy(), split.read("images", index, 2))
        assert np.array_equal(masks[position].numpy(), split.read("masks", index, 2))


def test_an_interrupted_training_keeps_every_finished_epoch(tmp_path, shards_folder):
    """Without waiting for the half minute after which a training is saved anyway."""
    whole = train(shards_folder, tmp_path / "whole")
    with pytest.raises(Stop):
        train(shards_folder, tmp_path / "cut", Stopping(31))
    run, said = Run.open(tmp_path / "cut/run"), []
    assert [line["epoch"] for line in run.history()] == [1, 2]
    listener = Progress()
    listener.say = said.append
    training.resume(
        run, open_splits([shards_folder], ("train", "val")), device=CPU, progress=listener
    )
    assert said[0] == "going on after epoch 2 of 3"
    assert equal(weights(Run.open(tmp_path / "cut/run")), weights(whole))


def test_training_starts_from_the_weights_of_the_recipe(tmp_path, shards_folder):
    start = weights(train(shards_folder, tmp_path / "first"))
    file = tmp_path / "first/run/model.safetensors"
    recipe = recipes.recipe("scratch", weights=str(file))
    splits = open_splits([shards_folder], ("train", "val"))
    trainer = Trainer(splits, Settings(recipe, "thin", seed=1), CPU)
    assert equal(trainer.model.weights(), start)


def test_a_compiled_network_trains_the_same_weights(tmp_path, shards_folder, monkeypatch):
    """What compiling is worth is measured by segkey bench; here, that the right network is
    compiled, and saved."""
    seen = []
    monkeypatch.setattr(
        torch, "compile", lambda model: seen.append(model) or (lambda images: model(images))
    )
    recipe = recipes.recipe("scratch", epochs=1, batch_size=4)
    splits = open_splits([shards_folder], ("train", "val"))
    how = {"shards": [shards_folder], "device": torch.device("cpu"), "network": "thin"}
    eager = training.train(splits, tmp_path, recipe, name="eager", **how)
    compiled = training.train(splits, tmp_path, recipe, name="compiled", compiled=True, **how)
    assert len(seen) == 1
    assert compiled.configuration.compiled
    assert not eager.configuration.compiled
    assert compiled.configuration.weights_sha256 == eager.configuration.weights_sha256


# ------------------------------------------------------------------ bigger than memory


class Rows(SimpleNamespace):
    def __len__(self):
        return self.rows


def rows_of(rows):
    """A split of rows that hold their own numbers; remembers what was read."""
    side = 8
    split = Rows(
        rows=rows,
        header=Header("train", "none", 1, 3, 255, classes=("a", "b")),
        size=(side, side),
        dtype="uint8",
        has_masks=True,
        row_bytes=4 * side * side,
        reads=[],
    )

    def read_batch(kind, indices, view=0):
        split.reads.append((kind, indices))
        shape = (3, side, side) if kind == "images" else (side, side)
        values = indices % 251 if kind == "images" else indices % 2
        return np.broadcast_to(
            values.astype(np.uint8).reshape(-1, *[1] * len(shape)), (len(indices), *shape)
        ).copy()

    split.read_batch = read_batch
    return split


@pytest.mark.parametrize(
    "rows, window_rows, batch",
    [(1000, 64, 7), (1000, 64, 100), (333, 50, 16), (97, 97, 10), (5, 2, 9)],
)
def test_windows_hold_every_image_once_and_stay_in_order_of_the_seed(rows, window_rows, batch):
    split = rows_of(rows)
    buffer = 2 * window_rows * split.row_bytes
    loader = BatchLoader(split, CPU, resident=False, shuffle_buffer=buffer)
    shuffled = loader.shuffled(seeded("epoch", 0, 3))
    order = shuffled.indices
    assert np.array_equal(np.sort(order), np.arange(rows))
    assert np.array_equal(order, loader.shuffled(seeded("epoch", 0, 3)).indices)
    assert rows < 10 or not np.array_equal(order, loader.shuffled(seeded("epoch", 0, 4)).indices)
    batches = list(loader.batches(batch, order, window_ends=shuffled.window_ends))
    assert [len(images) for images, _ in batches] == [
        len(order[i : i + batch]) for i in range(0, rows, batch)
    ]
    images, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert np.array_equal(images[:, 0, 0, 0].numpy(), order % 251)
    assert np.array_equal(masks[:, 0, 0].numpy(), order % 2)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("window_rows", [0, 4])
def test_an_epoch_deals_every_batch_out_to_the_ranks(monkeypatch, ranks, window_rows):
    """11 images in batches of 5: the last batch has one, and a rank without it gets a void mask."""
    split, of_ranks = rows_of(11), []
    buffer = 2 * window_rows * split.row_bytes
    loader = BatchLoader(split, CPU, resident=False, shuffle_buffer=buffer)
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        of_ranks.append(list(loader.epoch(seeded("epoch", 0, 1), 1, 5)))
    seen = []
    for slices in zip(*of_ranks, strict=True):
        assert len({batch.size for batch in slices}) == 1
        rows = [batch.images[:, 0, 0, 0] for batch in slices if (batch.masks != 255).any()]
        assert sum(map(len, rows)) == slices[0].size
        seen += torch.cat(rows).tolist()
    assert [batch.size for batch in of_ranks[0]] == [5, 5, 1]
    assert seen == loader.shuffled(seeded("epoch", 0, 1)).indices.tolist()


def test_windows_are_read_in_the_order_of_the_files_and_bound_the_memory(monkeypatch):
    rows, window_rows, alive, most, read_window = 20_000, 500, 0, 0, BatchLoader._read_window
    split = rows_of(rows)
    buffer = 2 * window_rows * split.row_bytes
    loader = BatchLoader(split, CPU, resident=False, shuffle_buffer=buffer)

    def released(count):
        nonlocal alive
        alive -= count

    def watched(*arguments):
        nonlocal alive, most
        window = read_window(*arguments)
        alive += len(window[0])
        most = max(most, alive)
        weakref.finalize(window[0], released, len(window[0]))
        return window

    monkeypatch.setattr(BatchLoader, "_read_window", watched)
    order = loader.shuffled(seeded("epoch", 0, 0)).indices
    epoch = loader.epoch(seeded("epoch", 0, 0), 0, 32)
    assert sum(len(batch.images) for batch in epoch) == rows
    assert window_rows <= most <= 2 * window_rows, "a window in use, and the next one"
    read = [indices for kind, indices in split.reads if kind == "images"]
    assert all((np.diff(indices) > 0).all() for indices in read)
    assert np.mean(np.concatenate([np.diff(indices) for indices in read]) == 1) > 0.9, (
        "disks read runs"
    )
    runs = order.reshape(-1, window_rows) // (window_rows // 16)
    assert len(np.unique(runs[0])) > 12, "from all over the files"
    assert (np.diff(np.sort(runs[0])) > 1).any(), "from all over the files"


def test_a_training_in_windows_goes_on_as_it_was_begun(tmp_path, shards_folder):
    """With more memory than before, the images come in the same order."""
    windows = {"resident": False, "shuffle_buffer": 5 * 4 * 32 * 32}
    whole = train(shards_folder, tmp_path / "whole", **windows)
    resident = train(shards_folder, tmp_path / "resident", resident=True)
    assert whole.configuration.windowed
    assert not equal(weights(whole), weights(resident))
    with pytest.raises(Stop):
        train(shards_folder, tmp_path / "cut", Stopping(31), **windows)
    run = Run.open(tmp_path / "cut/run")
    training.resume(run, open_splits([shards_folder], ("train", "val")), device=CPU, resident=True)
    assert equal(weights(run), weights(whole))
