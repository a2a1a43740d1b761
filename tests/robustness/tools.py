"""What the tests of robustness share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import segkey


def amount(name: str, default: int) -> int:
    """How much of a test is wanted: from the environment, or the little that every run of the tests
    does."""
    return int(os.environ.get(name, default))


class Processes:
    """Real processes of segkey, one at a time; see `forks`."""

    def __init__(self):
        self.forks = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forks.py"))],
            env=os.environ | {"PYTHONPATH": str(Path(segkey.__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.forks.stdout.readline() == "ready\n"

    def start(
        self, folder: Path, *arguments: object, limit: int | None = None, **environment: str
    ) -> int:
        """Run a command in a folder; returns the process's number."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        line = {
            "arguments": list(map(str, arguments)),
            "folder": str(folder),
            "limit": limit,
            "environment": environment,
        }
        self.forks.stdin.write(json.dumps(line) + "\n")
        self.forks.stdin.flush()
        return self._told("started")

    def _told(self, what: str) -> int:
        """The number behind a word; nobody may take an exit status for the number of a process, and
        kill that."""
        word, number = self.forks.stdout.readline().split()
        if word != what:
            raise RuntimeError(
                f"expected {what}, not {word}: an earlier test did not wait for its process"
            )
        return int(number)

    def end(self) -> tuple[int, str, str]:
        """Wait; returns the exit status (negative: the signal), stdout and stderr."""
        self.forks.stdin.write("end\n")
        self.forks.stdin.flush()
        status = self._told("ended")
        return status, *((self.folder.parent / name).read_text() for name in ("stdout", "stderr"))

    def run(
        self, folder: Path, *arguments: object, limit: int | None = None, **environment: str
    ) -> tuple[int, str, str]:
        """`start` and `end`."""
        self.start(folder, *arguments, limit=limit, **environment)
        return self.end()

    def close(self) -> None:
        self.forks.stdin.close()
        self.forks.wait()


def memory() -> float:
    """What this process has in memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Growth:
    """Watches memory while ``total`` things are done: what the most is in the first tenth, and in
    all.

    Call it with how many were done since the last call.
    """

    def __init__(self, total: int):
        self.total, self.done, self.early, self.most = total, 0, 0.0, 0.0

    def __call__(self, count: int = 1) -> None:
        self.done += count
        if self.done % max(1, self.total // 200) < count:
            self.most = max(self.most, memory())
            if self.done <= self.total / 10:
                self.early = self.most

    def __str__(self) -> str:
        early, most = f"{self.early:.0f} MB in the first tenth", f"{self.most:.0f} MB in all"
        return f"{self.total:,}: at most {early}, {most}"
