"""Workers answer in order, look ahead only so far, and tell what went wrong."""

import os
from dataclasses import dataclass

import pytest

from segkey.errors import SegkeyError
from segkey.system import workers
from segkey.system.file_names import free_path
from segkey.system.workers import Workers


@dataclass
class Named:
    name: str


@dataclass
class Task:
    items: list
    number: int


def tasks(count: int):
    return [Task([Named(f"image {number}")], number) for number in range(count)]


def tripled(task: Task) -> tuple[int, object]:
    if task.number == 99:
        raise SegkeyError("a picture is damaged", "look at it")
    return 3 * task.number, workers.state()


def process(task: Task) -> int:
    return os.getpid()


def die(task: Task) -> int:
    if task.number == 2:
        os._exit(9)
    return task.number


def test_one_worker_is_this_process_and_does_nothing_ahead():
    taken = []

    def source():
        for task in tasks(5):
            taken.append(task.number)
            yield task

    with Workers(1, "secret") as pool:
        for task, (value, state) in pool.map_ordered(tripled, source()):
            assert (value, state) == (3 * task.number, "secret")
            assert taken == list(range(task.number + 1))
        ((_, pid),) = pool.map_ordered(process, tasks(1))
        assert pid == os.getpid()


def test_the_state_of_one_use_does_not_stay_for_the_next():
    with Workers(1, "first") as pool:
        assert [state for _, (_, state) in pool.map_ordered(tripled, tasks(2))] == ["first"] * 2
    with Workers(1) as pool:
        assert [state for _, (_, state) in pool.map_ordered(tripled, tasks(1))] == [None]


def test_an_error_of_a_worker_arrives_as_it_is():
    with Workers(1) as pool, pytest.raises(SegkeyError) as raised:
        list(pool.map_ordered(tripled, [Task([], 1), Task([], 99)]))
    assert (raised.value.what, raised.value.hint) == ("a picture is damaged", "look at it")


@pytest.fixture
def importable(monkeypatch):
    """Workers import this file by its name."""
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)


def test_several_workers_answer_in_the_order_of_the_tasks_and_look_ahead_a_little(importable):
    taken, most = [], 0

    def source():
        for task in tasks(40):
            taken.append(task.number)
            yield task

    with Workers(2, {"key": 7}) as pool:
        for done, (task, (value, state)) in enumerate(pool.map_ordered(tripled, source()), 1):
            assert (task.number, value, state) == (done - 1, 3 * (done - 1), {"key": 7})
            most = max(most, len(taken) - done)
        assert 0 < most <= 4 * 2
        with pytest.raises(SegkeyError, match="a picture is damaged\nlook at it"):
            list(pool.map_ordered(tripled, [Task([], 99)]))


def test_a_worker_that_dies_is_told_with_what_it_worked_on(importable):
    with Workers(2) as pool, pytest.raises(SegkeyError) as raised:
        list(pool.map_ordered(die, tasks(4)))
    assert "a worker process died between image " in raised.value.what
    assert "fewer --workers" in raised.value.hint


@pytest.mark.parametrize(("ranks", "share"), [("1", 1), ("2", 2), ("1000", 1000)])
def test_ranks_share_the_cores_and_each_has_at_least_one(monkeypatch, ranks, share):
    monkeypatch.setattr("segkey.system.distributed.local_size", lambda: int(ranks))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert workers.cores() == max(1, 12 // share)


# ------------------------------------------------------------------ names of their files


NAMES = [
    "a.jpg",
    "a.png",
    "b/a.jpg",
    "b/../../../etc/passwd",
    "/etc/passwd.jpg",
    "..",
    "",
    "b.png/a.jpg",
    "b.png",
    "Straße/ä ö.tiff",
    "x" * 400 + ".jpg",
    "\x1b[31mred\n.jpg",
    'q"u:o?t<e>s|*\\.jpg',
    "é" * 100 + "/" + "é" * 100,
    ".hidden.jpg",
    ".jpg",
    "a\ud800b.jpg",
    "/".join(["deep"] * 40) + "/a.jpg",
]


@pytest.mark.parametrize("ending", [".png", "-overlay.jpg"])
def test_every_image_gets_a_file_of_its_own_below_the_folder(tmp_path, ending):
    taken = set()
    paths = [free_path(tmp_path, name, ending, taken) for name in NAMES * 2]
    assert len(set(paths)) == len(taken) == 2 * len(NAMES)
    for path in paths:  # every one of them can be written
        assert tmp_path in path.parents
        assert path.resolve().is_relative_to(tmp_path.resolve())
        assert path.suffix == "." + ending.rpartition(".")[2]
        assert str(path.relative_to(tmp_path)).isprintable()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    assert all(path.read_text() == path.name for path in paths)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", ["a.png", "a-2.png", "a-3.png"]),
        ("cats/a.b.jpg", ["cats/a.b.png", "cats/a.b-2.png", "cats/a.b-3.png"]),
        ("cats.PNG/a", ["cats.PNG_/a.png", "cats.PNG_/a-2.png", "cats.PNG_/a-3.png"]),
        ("./x/./a.jpg", ["x/a.png", "x/a-2.png", "x/a-3.png"]),
    ],
)
def test_names_stay_recognisable(tmp_path, name, expected):
    taken = set()
    found = [free_path(tmp_path, name, ".png", taken) for _ in expected]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == expected
