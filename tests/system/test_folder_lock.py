"""One writer for a folder, as long as it lives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import segkey
from segkey.errors import SegkeyError
from segkey.system import folder_lock
from segkey.system.folder_lock import sole_writer

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, locks, limits or modes")


HOLD = """
import sys, time
from pathlib import Path
from segkey.system.folder_lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@posix
def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    here = Path(segkey.__file__).parents[1]
    with subprocess.Popen(command, cwd=here, text=True, stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout.readline() == "held\n"
            with pytest.raises(SegkeyError, match="another segkey process"), sole_writer(tmp_path):
                pytest.fail("two writers")
        finally:
            first.send_signal(signal.SIGKILL)
    with sole_writer(tmp_path):  # what the dead one left is no obstacle
        assert (tmp_path / ".lock").exists()


def test_what_a_killed_writer_left_half_written_is_removed_and_nothing_else(tmp_path):
    left = [
        ".run.json.0123abcd.partial",
        ".a\nb.0123abcd.partial",
        "train-00000-of-00002.h5.partial",
    ]
    others = [
        "film.mp4.partial",
        ".0123abcd.partial",
        ".a.0123abcd.partial.txt",
        "train.h5",
        "attack.partial.json",
    ]
    for name in left + others:
        (tmp_path / name).touch()
    with sole_writer(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {*others, ".lock"}


@posix
def test_a_folder_is_free_again_after_a_failure(tmp_path):
    with pytest.raises(RuntimeError, match="inside"), sole_writer(tmp_path):
        raise RuntimeError("inside")
    with sole_writer(tmp_path), pytest.raises(SegkeyError, match="another"), sole_writer(tmp_path):
        pytest.fail("two writers")


def test_a_writer_that_waits_gives_up_after_a_while(tmp_path, monkeypatch):
    """The other one may have been stopped."""
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.2)
    refused = pytest.raises(SegkeyError, match="another segkey process")
    with sole_writer(tmp_path), refused, sole_writer(tmp_path, wait=True):
        pytest.fail("two writers")
    with sole_writer(tmp_path, wait=True):
        pass
