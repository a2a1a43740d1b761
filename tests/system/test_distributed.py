"""Two ranks of torchrun against one process: the same shards, the same scores, nearly the same
weights; and what goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from making import SMALL_NETWORK, weights
from typer.testing import CliRunner

from segkey.cli import app
from segkey.model import recipes
from segkey.model.runs import Run
from segkey.model.training_loop import Settings, Trainer
from segkey.shards import Shard, open_splits
from segkey.system import distributed, torchrun

CPU, HERE = torch.device("cpu"), Path(__file__).parent
TRAIN = [
    *SMALL_NETWORK,
    "--epochs",
    "3",
    "--batch-size",
    "5",
    "--precise",
]
ENCRYPT = ["-m", "np", "-M", "4", "--size", "32", "--key", "k.key"]
ATTACK = ["--wrong-keys", "3", "--batch-size", "2", "--json", "--key", "k.key"]


class Outcome:
    """What the ranks of a torchrun said, by step and rank."""

    def __init__(self, folder: Path, process: subprocess.CompletedProcess, seconds: float):
        self.folder, self.status, self.summary, self.seconds = (
            folder,
            process.returncode,
            process.stderr,
            seconds,
        )

    def read(self, step: int, ending: str, rank: int = 0) -> str:
        return (self.folder / f"{step}.{rank}.{ending}").read_text()


def ranks(folder: Path, *steps: dict, restarts: int = 0) -> Outcome:
    (folder / "plan.json").write_text(json.dumps(steps, default=str))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += [f"--max-restarts={restarts}", str(HERE / "ranks.py"), str(folder / "plan.json")]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path]),
    }
    began = time.monotonic()
    process = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        # A shell that starts tests in the background lets them ignore Ctrl-C, and they hand that
        # on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    return Outcome(folder, process, time.monotonic() - began)


def images(folder: Path) -> dict:
    """All that is in some shards, whatever files they are cut into."""
    found = {}
    for name, split in open_splits([folder]).items():
        views, every = range(split.header.views), np.arange(len(split))
        kinds = ("images", "masks") if split.has_masks else ("images",)
        found[name] = (
            split.names,
            [split.read_batch(kind, every, view).tobytes() for kind in kinds for view in views],
        )
    return found


def without_times(document: dict) -> dict:
    return {key: value for key, value in document.items() if key != "seconds"}


def without_rate(line: dict) -> dict:
    return {
        key: value for key, value in line.items() if key not in ("seconds", "images_per_second")
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory, scenes_folder, shards_folder, trained_run, key):
    """What one process made, and beside it, the same by two ranks."""
    place = tmp_path_factory.mktemp("two")
    key.save(place / "k.key")
    for copy in ("one", "two"):
        shutil.copytree(trained_run.path, place / copy / "small")
    shutil.copytree(scenes_folder, place / "few")
    for file in sorted((place / "few/images").rglob("*.*"))[1:]:
        file.unlink()
    return place


@pytest.fixture(scope="module")
def refused(place, scenes_folder, shards_folder) -> list[tuple[dict, str]]:
    """Steps in which ranks differ or have nothing to do, and what is said of each."""
    homes = [place / "a", place / "b"]
    for home in homes:
        home.mkdir()
        shutil.copy(place / "k.key", home)
        shutil.copytree(shards_folder, home / "shards")
    shutil.copytree(place / "few", homes[0] / "scenes")
    shutil.copytree(scenes_folder, homes[1] / "scenes")
    train = ["train", "shards", *TRAIN]
    seeds = [[*train, "--seed", seed] for seed in "12"]
    other = ["encrypt", scenes_folder, "--out", "x", *ENCRYPT]
    return [
        ({"argv": other, "version": "2"}, "in segkey: 2, not 1"),
        ({"argvs": seeds, "folders": homes}, "in --seed"),
        ({"argv": train, "folders": homes, "cuda": [0]}, "in its device: cpu, not cuda"),
        ({"argv": train, "folders": homes}, "does not see what rank 0 wrote to runs"),
        (
            {"argv": ["encrypt", "scenes", "--out", "x", *ENCRYPT], "folders": homes},
            "in the images",
        ),
        (
            {"argv": ["train", shards_folder, *TRAIN, "--batch-size", "1"]},
            "2 ranks have nothing to do with batches of 1",
        ),
    ]


ENCRYPT_ALL = [*ENCRYPT, "--shard-size", "0.00004"]


@pytest.fixture(scope="module")
def two(place, scenes_folder, shards_folder, refused):
    """All that two ranks do undisturbed: a launch imports torch three times."""
    return ranks(
        place,
        {"argv": ["encrypt", scenes_folder, "--out", "shards", *ENCRYPT_ALL]},
        {"argv": ["encrypt", "few", "--out", "one-image", *ENCRYPT]},
        {"argv": ["evaluate", "two/small", "--json", "--batch-size", "2"]},
        {"argv": ["evaluate", "two/small", "--json", "--limit", "1"]},
        {"argv": ["attack", "two/small", *ATTACK]},
        {"argv": ["attack", "two/small", *ATTACK, "--search", "--queries", "12", "--few", "4"]},
        {"argv": ["train", shards_folder, *TRAIN, "--runs", "runs", "--name", "whole"]},
        {"argv": ["keygen", "another"]},
        *(step for step, _ in refused),
    )


@pytest.fixture
def one(place, monkeypatch):
    """Run a command in this process, with as many threads as a rank has; returns what it said."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(place)

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return result.stdout

    yield run
    torch.set_num_threads(threads)


def test_only_the_first_rank_speaks_and_all_succeed(two):
    assert two.status == 0, two.summary
    for step in range(7):
        assert two.read(step, "status") == two.read(step, "status", 1) == "0", two.read(step, "err")
        assert two.read(step, "out")
        assert not two.read(step, "out", 1)
        assert not two.read(step, "err", 1)


def test_two_ranks_encrypt_the_same_images(two, place, shards_folder):
    assert images(place / "shards") == images(shards_folder)
    assert len(list((place / "shards").glob("train-*-of-*.h5"))) > 2


def test_more_ranks_than_images(two, place, one):
    assert [len(split) for split in open_splits([place / "one-image"]).values()] == [1]
    expected = one("evaluate", "one/small", "--json", "--limit", 1)
    assert json.loads(two.read(3, "out")) == json.loads(expected)


def test_two_ranks_evaluate_to_the_last_digit(two, place, one):
    expected = json.loads(one("evaluate", "one/small", "--json", "--batch-size", 2))
    assert json.loads(two.read(2, "out")) == expected
    assert Run.open(place / "two/small").result("evaluate").document == expected


def test_two_ranks_attack_to_the_last_digit(two, place, one):
    assert json.loads(two.read(4, "out")) == json.loads(one("attack", "one/small", *ATTACK))
    told = json.loads(two.read(5, "out"))
    expected = json.loads(
        one("attack", "one/small", *ATTACK, "--search", "--queries", 12, "--few", 4)
    )
    assert [*map(without_times, told.pop("attacks"))] == [
        *map(without_times, expected.pop("attacks"))
    ]
    assert told == expected
    assert not (place / "two/small/attack.partial.jsonl").exists()


def furthest(a: dict, b: dict) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a if a[name].is_floating_point())


def test_two_ranks_train_nearly_the_same_weights(two, place, one, shards_folder, monkeypatch):
    import ranks as patches

    for layer in (torch.nn.BatchNorm2d, torch.nn.Dropout):
        monkeypatch.setattr(layer, "forward", layer.forward)  # put back afterwards
    patches.independent_batches()
    one("train", shards_folder, *TRAIN, "--runs", "alone", "--name", "whole")
    alone, whole = Run.open(place / "alone/whole"), Run.open(place / "runs/whole")
    for a, b in zip(alone.history(), whole.history(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-3)
    splits = open_splits([shards_folder], ("train", "val"))
    settings = Settings(recipes.recipe("scratch"), "thin")
    start = Trainer(splits, settings, CPU).model.weights()
    moved = furthest(weights(alone.path), start)
    assert furthest(weights(alone.path), weights(whole.path)) < moved / 50
    assert whole.configuration.device == "2 x cpu, 1 threads"


# Rank, function of the trainer, which call of it, if torchrun hears nothing, how many epochs all
# ranks have finished.
MOMENTS = [
    (0, "validate", 2, False, 1),
    (1, "step", 8, True, 2),
    (1, "step", 5, False, 1),
    (0, "step", 2, False, 0),
    (0, "report", 2, False, 2),
    (1, "step", 1, True, 0),
    (0, "step", 9, True, 2),
    (1, "validate", 3, True, 2),
    (1, "step", 6, False, 1),
    (0, "with_state", 2, False, 1),
]


@pytest.fixture(scope="module")
def interrupts(place, shards_folder) -> list[tuple[dict, int, Path, Outcome]]:
    """How each training was interrupted, the epochs it had then finished, its folder, what it
    said."""
    found = []
    for number in range(int(os.environ.get("SEGKEY_INTERRUPTS", 2))):
        rank, function, chosen, alone, finished = MOMENTS[number % len(MOMENTS)]
        (folder := place / f"interrupted{number}").mkdir()
        how = {"rank": rank, "function": function, "chosen": chosen, "alone": alone}
        argv = ["train", shards_folder, *TRAIN, "--runs", "runs"]
        found.append((how, finished, folder, ranks(folder, {"argv": argv, "interrupt": how})))
    return found


@pytest.fixture(scope="module")
def cut(place, scenes_folder) -> Outcome:
    """An encryption in which a rank was killed."""
    (folder := place / "cut").mkdir()
    shutil.copy(place / "k.key", folder)
    argv = ["encrypt", scenes_folder, "--out", "shards", *ENCRYPT_ALL]
    return ranks(folder, {"argv": argv, "die": 2})


@pytest.fixture(scope="module")
def gone_on(place, scenes_folder, interrupts, cut) -> Outcome:
    """Copies of what was interrupted and of what was cut, gone on with in one launch."""
    (folder := place / "on").mkdir()
    shutil.copy(place / "k.key", folder)
    for each in (*(each for _, _, each, _ in interrupts), cut.folder):
        shutil.copytree(each, folder / each.name, symlinks=True)
    resume = [["train", "--resume", "--runs", f"{f.name}/runs"] for _, _, f, _ in interrupts]
    encrypt = ["encrypt", scenes_folder, "--out", "cut/shards", *ENCRYPT_ALL]
    return ranks(folder, *({"argv": argv} for argv in (*resume, encrypt)))


def test_two_ranks_are_interrupted_and_end_where_the_uninterrupted_ones_end(
    two, interrupts, gone_on
):
    """Ctrl-C at different moments (10 with SEGKEY_INTERRUPTS=10), each followed by more signals
    while the run is saved."""
    assert gone_on.status == 0, gone_on.summary
    whole = Run.open(two.folder / "runs/whole")
    for how, finished, folder, outcome in interrupts:
        run = Run.open(folder / "runs/latest")  # whole, and not of another format
        assert run.configuration.epochs_done == len(run.history()) == finished, (
            how,
            outcome.read(0, "err"),
        )
        assert not list(run.path.glob(".*.partial"))
        if not how["alone"]:
            assert outcome.read(0, "status") == outcome.read(0, "status", 1) == "130"
            assert outcome.read(0, "err").count("go on with: segkey train --resume") == 1
            assert not outcome.read(0, "err", 1)
            assert not outcome.read(0, "out", 1)
        run = Run.open(gone_on.folder / folder.name / "runs/latest")
        assert furthest(weights(run.path), weights(whole.path)) == 0, how
        assert [*map(without_rate, run.history())] == [*map(without_rate, whole.history())], how


def test_a_rank_that_is_not_the_first_writes_nothing(tmp_path, monkeypatch, trained_run):
    monkeypatch.setenv("RANK", "1")
    run = Run.create(tmp_path / "runs", "run", trained_run.configuration)
    run.path.mkdir(parents=True)
    run.save()
    run.write_history([{"epoch": 1}])
    run.save_weights(weights(trained_run.path))
    run.write_result("evaluate", {})
    assert run.configuration.format == "segkey-run-v1"
    assert list(tmp_path.rglob("*")) == [tmp_path / "runs", run.path]


def test_what_cannot_be_dealt_out_is_refused(two):
    assert two.read(7, "status") == "1"
    assert "segkey keygen has nothing to deal out to 2 ranks" in two.read(7, "err")
    assert "rank 1 of 2" in two.read(7, "err", 1)


def test_a_killed_rank_is_named_and_the_training_goes_on_after_the_last_epoch(
    two, place, shards_folder
):
    (place / "killed").mkdir()
    step = {
        "argv": ["train", shards_folder, *TRAIN, "--runs", "runs"],
        "die": 8,
    }  # the second step of the third epoch
    killed = ranks(place / "killed", step, restarts=1)
    assert killed.status == 0, killed.summary
    assert "local_rank: 1" in killed.summary
    assert "these are my last words" in killed.summary
    assert "going on after epoch 2 of 3" in killed.read(0, "err")
    (run,) = {path.resolve() for path in (place / "killed/runs").glob("*")}
    assert furthest(weights(run), weights(place / "runs/whole")) == 0


def test_a_killed_rank_ends_the_job_and_a_restart_makes_what_is_missing(two, cut, gone_on):
    assert cut.status == 1
    assert cut.seconds < 60
    assert "Signal 9 (SIGKILL)" in cut.summary
    assert "rank      : 1" in cut.summary
    kept = list((cut.folder / "shards").glob("*.h5"))
    assert kept, "at least the first shard of rank 1"
    for file in kept:
        Shard(file).close()
    assert gone_on.status == 0, gone_on.summary
    again = gone_on.folder / "cut/shards"
    assert images(again) == images(two.folder / "shards")
    assert all((again / f.name).stat().st_mtime_ns == f.stat().st_mtime_ns for f in kept)


def test_ranks_that_differ_are_told_in_what(two, refused):
    for number, (_, complaint) in enumerate(refused, start=8):
        told = " ".join(two.read(number, "err").split())
        assert complaint in told, (number, told)
        assert "segkey: hint:" in told, (number, told)
        assert two.read(number, "status") == two.read(number, "status", 1) == "1"


# ------------------------------------------------------------------ one process


def test_one_process_needs_no_torch_and_no_torchrun(scenes_folder, tmp_path, key):
    key.save(tmp_path / "k.key")
    code = (
        "import sys; from segkey.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "encrypt",
        str(scenes_folder),
        "--out",
        "x",
        *ENCRYPT,
        "--workers",
        "1",
    ]
    process = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
    )
    assert process.stdout.endswith("False\n"), process.stderr


@pytest.mark.parametrize(
    "count, size, world", [(10, 3, 2), (7, 8, 3), (1, 5, 4), (24, 6, 4), (11, 5, 5)]
)
def test_every_image_is_dealt_out_once(monkeypatch, count, size, world):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    batches, slices = [], []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        batches.append(distributed.my_batches(count, size))
        slices.append(distributed.my_slices(count, size))
        assert all(len(part) <= len(slices[-1][0]) for part in slices[-1]), (
            "batches of one size, but for the last"
        )
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(count))
    whole = [np.sort(np.concatenate(parts)) for parts in zip(*slices, strict=True)]
    assert [part.tolist() for part in whole] == [
        list(range(i, min(i + size, count))) for i in range(0, count, size)
    ]


def test_without_torchrun_nothing_is_done(tmp_path):
    assert distributed.is_single()
    assert distributed.is_main()
    assert not distributed.restarted()
    assert distributed.all_gather("a") == ["a"]
    assert distributed.broadcast("a") == "a"
    assert distributed.my_share([1, 2]) == [1, 2]
    with distributed.sole_writer(tmp_path), torchrun.job("keygen", {}):
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(("status", "code"), [(None, 0), (0, 0), (2, 2), ("words", 1)])
def test_a_rank_leaves_with_its_status_and_all_it_printed(status, code):
    program = (
        "import atexit, sys; from segkey.system import torchrun; atexit.register(print, "
        f"'bye');print('result'); torchrun.leave({status!r})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (code, "result\nbye\n")


def test_a_job_is_told_apart_without_naming_the_machine(monkeypatch):
    """It stands in run.json, which is given away."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(distributed.socket, "gethostname", lambda: "annas-laptop")
    job = distributed.job_id()
    assert job == distributed.job_id()
    assert "anna" not in job
    assert str(distributed.os.getppid()) != job
    monkeypatch.setattr(distributed.socket, "gethostname", lambda: "another")
    assert distributed.job_id() != job
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert distributed.job_id() == "mine"
