"""Killed at any moment and started again, segkey ends with what an uninterrupted run makes.

SEGKEY_KILLS says how often each command is killed.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from making import SMALL_NETWORK, files
from tools import amount
from typer.testing import CliRunner

from segkey.cli import app
from segkey.model.runs import Run

KILLS = amount("SEGKEY_KILLS", 2)
EPOCHS = 20

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and locks")


class Encrypt:
    """Some shards of two images in 24 views."""

    locked, again = "shards", ()

    def __init__(self, scenes_folder, **_):
        self.first = (
            "encrypt",
            scenes_folder,
            "--size",
            64,
            "--views",
            24,
            "--shard-size",
            0.0006,
            "--workers",
            1,
        )

    def prepare(self, folder, key):
        key.save(folder / "keys/segkey.key")

    def made(self, folder):
        return files(folder / "shards")


class EncryptWithWorkers(Encrypt):
    """The same, in worker processes."""

    def __init__(self, scenes_folder, **_):
        super().__init__(scenes_folder)
        self.first = (*self.first[:-1], 2)


class Train:
    """Some epochs, saved after each."""

    locked, again = "runs/cut", ("train", "--resume", "--name", "cut", "--device", "cpu")

    def __init__(self, shards_folder, **_):
        how = (
            *SMALL_NETWORK,
            "--epochs",
            EPOCHS,
            "--batch-size",
            6,
            "--device",
            "cpu",
            "--optimizer",
            "sgd",
            "--lr",
            0.01,
        )
        self.first = ("train", shards_folder, *how, "--name", "cut")

    def prepare(self, folder, key):
        pass

    def made(self, folder):
        run = Run.open(folder / "runs/cut")
        told = [
            {k: v for k, v in line.items() if k not in ("seconds", "images_per_second")}
            for line in run.history()
        ]
        return run.configuration.weights_sha256, told, (run.path / "resume.pt").exists()


class Attack:
    """Some wrong keys."""

    locked, again = "run", ()

    def __init__(self, trained_run, **_):
        self.trained, self.first = (
            trained_run,
            ("attack", "run", "--wrong-keys", 60, "--device", "cpu"),
        )

    def prepare(self, folder, key):
        key.save(folder / "keys/segkey.key")
        shutil.copytree(self.trained.path, folder / "run")

    def made(self, folder):
        return json.loads((folder / "run/attack.json").read_text()), (
            folder / "run/attack.partial.jsonl"
        ).exists()


class Reproduce:
    """A baseline and one encrypted model, each trained and attacked; a process may make each."""

    locked, again = "results/working/plain", ()

    def __init__(self, scenes_folder, **_):
        self.first = (
            "reproduce",
            scenes_folder,
            "--out",
            "results",
            "--methods",
            "np",
            "-M",
            4,
            "--size",
            32,
            *SMALL_NETWORK,
            "--epochs",
            2,
            "--wrong-keys",
            3,
            "--key",
            "keys/segkey.key",
            "--device",
            "cpu",
        )

    def prepare(self, folder, key):
        key.save(folder / "keys/segkey.key")

    def made(self, folder):
        cells = json.loads((folder / "results/results.json").read_text())["cells"]
        told = (
            "method",
            "block_size",
            "best",
            "weights_sha256",
            "correct",
            "plain",
            "incorrect",
            "constant",
        )
        return [{name: cell[name] for name in told} for cell in cells]


COMMANDS = {
    "encrypt": Encrypt,
    "encrypt with workers": EncryptWithWorkers,
    "train": Train,
    "attack": Attack,
    "reproduce": Reproduce,
}
# A command that computes for long joins here: what is called first, what again, and what it makes.


@pytest.fixture(params=COMMANDS.values(), ids=COMMANDS)
def command(request, scenes_folder, shards_folder, trained_run):
    return request.param(
        scenes_folder=scenes_folder, shards_folder=shards_folder, trained_run=trained_run
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, processes, key):
    """What a command makes that nobody disturbs, and the seconds it takes; each is run once."""
    known = {}

    def run(command) -> tuple[object, float]:
        if type(command) not in known:
            folder, started = (
                prepared(command, tmp_path_factory.mktemp("whole") / "work", key),
                time.monotonic(),
            )
            assert processes.run(folder, *command.first)[0] == 0
            known[type(command)] = command.made(folder), time.monotonic() - started
            shutil.rmtree(folder)
        return known[type(command)]

    return run


def prepared(command, folder: Path, key) -> Path:
    folder.mkdir(parents=True)
    command.prepare(folder, key)
    return folder


def next_arguments(command, folder: Path) -> tuple:
    """What somebody types after a crash: the same again, or what goes on, once there is something
    to go on with."""
    return (
        command.again
        if command.again and (folder / command.locked / "run.json").exists()
        else command.first
    )


def test_killed_at_random_moments_and_started_again(
    tmp_path, processes, key, command, uninterrupted
):
    expected, seconds = uninterrupted(command)
    random, kills, ends = np.random.default_rng(0), 0, 0
    while kills < KILLS:
        folder, tries = prepared(command, tmp_path / f"cut{ends}/work", key), 0
        while True:
            process = processes.start(folder, *next_arguments(command, folder))
            if kills < KILLS and tries < 8:  # so that the work also ends now and then
                time.sleep(random.uniform(0, seconds))
                os.kill(process, signal.SIGKILL)
            status, _, stderr = processes.end()
            if status != -signal.SIGKILL:
                break
            kills, tries = kills + 1, tries + 1
        assert status == 0 or (status == 1 and finished(stderr)), stderr
        assert command.made(folder) == expected
        assert not [path for path in folder.rglob("*.partial")]
        ends += 1
        shutil.rmtree(folder)
    print(f"{kills} kills, {ends} runs ended with what the uninterrupted one made")


def finished(stderr: str) -> bool:
    """Whether the work was done when the kill came, so that starting again had nothing to do."""
    return any(words in stderr for words in ("already exists", f"has all its {EPOCHS} epochs"))


def children(process: int) -> list[int]:
    """The worker processes of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == process and b"spawn_main" in (status.parent / "cmdline").read_bytes():
                found.append(int(status.parent.name))
        except (OSError, ValueError):  # it ended meanwhile
            pass
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds worker processes in /proc")
def test_a_worker_process_that_is_killed_is_noticed_within_seconds_and_named(
    tmp_path, processes, scenes_folder, key
):
    folder = tmp_path / "work"
    key.save(folder / "keys/segkey.key")
    process = processes.start(
        folder, "encrypt", scenes_folder, "--size", 128, "--views", 400, "--workers", 2
    )
    try:
        deadline = time.monotonic() + 60
        while len(workers := children(process)) < 2 or not list(folder.glob("shards/*.partial")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(workers[0], signal.SIGKILL)
        killed = time.monotonic()
    finally:
        status, _, stderr = processes.end()
    assert status == 1
    assert time.monotonic() - killed < 10
    assert "a worker process died between train/scene0000.jpg and" in stderr
    assert "Traceback" not in stderr
    assert not files(folder / "shards")


# ------------------------------------------------------------------ two at once


def is_locked(folder: Path) -> bool:
    try:
        with open(folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def test_a_second_process_is_refused_while_the_first_lives_and_goes_on_after_it_died(
    tmp_path, monkeypatch, processes, key, command, uninterrupted
):
    folder = prepared(command, tmp_path / "cut/work", key)
    monkeypatch.chdir(folder)
    process = processes.start(folder, *command.first)
    try:
        again = command.again or command.first
        while not is_locked(folder / command.locked) or next_arguments(command, folder) != again:
            time.sleep(0.001)
        os.kill(process, signal.SIGSTOP)  # it lives, and takes its time
        second = CliRunner().invoke(app, list(map(str, again)))
        shares = isinstance(command, Reproduce)
        assert second.exit_code == (0 if shares else 1), second.stderr
        told = "plain: another process is making this" if shares else "another segkey process is"
        assert told in " ".join(second.stderr.split()), second.stderr
    finally:
        os.kill(process, signal.SIGKILL)
        processes.end()
    assert processes.run(folder, *again)[0] == 0
    assert command.made(folder) == uninterrupted(command)[0]


# ------------------------------------------------------------------ a full disk, a read-only one


LIMITS = {"only the weights fit": 600_000} | ({"nothing fits": 1_000} if KILLS > 2 else {})


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_a_training_that_cannot_write_goes_on_when_it_can(
    tmp_path, processes, key, shards_folder, uninterrupted, limit
):
    """A limit on the size of files stands for a full disk."""
    train = Train(shards_folder)
    cut = prepared(train, tmp_path / "cut/work", key)
    status, _, stderr = processes.run(cut, *train.first, limit=limit)
    assert status == 1
    assert "Traceback" not in stderr
    assert "File too large" in stderr, stderr
    assert "ulimit -f" in stderr, stderr
    assert "No such" not in stderr, stderr
    assert not list(cut.rglob("*.partial"))
    assert processes.run(cut, *next_arguments(train, cut))[0] == 0
    assert train.made(cut) == uninterrupted(train)[0]


def test_a_full_disk_leaves_the_earlier_shards_and_a_roomier_one_gets_the_rest(
    small_disk, processes, scenes_folder, key, uninterrupted
):
    command = Encrypt(scenes_folder)
    expected, _ = uninterrupted(command)
    images, whole = (12 * 24 + 4 + 6) * 3 * 64 * 64, sum(map(len, expected.values()))
    disk = small_disk("size=20m")
    folder = prepared(command, disk / "work", key)
    # The images alone would fit, which is looked at beforehand; with their masks they do not.
    (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - (images + whole) // 2))
    status, _, stderr = processes.run(folder, *command.first)
    assert status == 1, stderr
    assert "No space left on device" in stderr, stderr
    assert "free some space" in stderr, stderr
    there = command.made(folder)
    assert there
    assert there.items() < expected.items()  # what was finished is whole, nothing is half made
    (disk / "other").unlink()
    assert processes.run(folder, *command.first)[0] == 0
    assert command.made(folder) == expected


def test_a_read_only_disk_is_named_and_nothing_on_it_changes(
    small_disk, monkeypatch, scenes_folder, shards_folder, trained_run, key
):
    disk = small_disk("size=200m")
    key.save(disk / "keys/segkey.key")
    shutil.copytree(trained_run.path, disk / "run")
    before = files(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    monkeypatch.chdir(disk)
    train = (*SMALL_NETWORK, "--epochs", 1, "--device", "cpu")
    for arguments in (
        ("keygen", "other"),
        ("encrypt", scenes_folder, "--workers", 1),
        ("decrypt", shards_folder),
        ("train", shards_folder, *train),
        ("evaluate", "run", "--device", "cpu"),
        ("attack", "run", "--device", "cpu"),
    ):
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 1, (
            arguments,
            done.exception,
        )
        assert isinstance(done.exception, SystemExit), (
            arguments,
            done.exception,
        )
        assert "Read-only file system" in done.stderr, (
            arguments,
            done.stderr,
        )
        assert "choose another place" in done.stderr, (
            arguments,
            done.stderr,
        )
    assert files(disk) == before
