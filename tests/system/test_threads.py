"""How OpenMP's threads wait: bounded, by the load, and never against the user's own choice."""

import os
import subprocess
import sys

import pytest

from segkey.system import threads


@pytest.fixture(autouse=True)
def _asked_anew():
    """Forget what the machine was doing when segkey was imported, for the time of a test."""
    threads.was_busy.cache_clear()
    yield
    threads.was_busy.cache_clear()


@pytest.mark.parametrize(("load", "rounds"), [(0.0, threads.SPIN), (64.0, threads.SPIN_IF_BUSY)])
def test_a_busy_machine_spins_less(monkeypatch, load, rounds):
    for name in threads._CHOSEN_BY_USER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    threads.bound_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == rounds


@pytest.mark.parametrize("name", threads._CHOSEN_BY_USER)
def test_what_the_user_set_stays(monkeypatch, name):
    for each in threads._CHOSEN_BY_USER:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    threads.bound_spinning()
    assert dict(os.environ) == before


def test_a_system_that_does_not_tell_its_load_counts_as_idle(monkeypatch):
    def unknown():
        raise OSError

    for name in threads._CHOSEN_BY_USER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getloadavg", unknown)
    threads.bound_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == threads.SPIN


def test_importing_segkey_sets_it_before_torch_can_be_imported():
    code = "import os, sys, segkey; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    environment = {k: v for k, v in os.environ.items() if k not in threads._CHOSEN_BY_USER}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.split() in ([b"False", each.encode()] for each in ("10000", "0"))


def test_what_was_found_at_the_start_stays(monkeypatch):
    loads = iter([(0.0, 0.0, 0.0), (64.0, 0.0, 0.0)])
    monkeypatch.setattr(os, "getloadavg", lambda: next(loads))
    assert [threads.was_busy(), threads.was_busy()] == [False, False]
