"""Fixtures of the tests of robustness."""

import subprocess
from pathlib import Path

import pytest
from tools import Processes


@pytest.fixture(scope="session")
def processes():
    started = Processes()
    yield started
    started.close()


@pytest.fixture
def small_disk(tmp_path):
    """Mounts file systems of a few megabytes at ``tmp_path/disk``; skips where the machine does not
    allow that."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        how = ["mount", "-t", "tmpfs", "-o", options, "segkey-test", str(disk)]
        try:
            done = subprocess.run(how, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount here")
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return disk

    yield mount
    while disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)
