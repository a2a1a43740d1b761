"""Runs commands, given as a JSON list of folders and arguments, in one process; prints a JSON line
a command, and the memory it took.

Modules named as arguments are imported first, and their memory is left out. For `test_hostile`: in
a process of its own, as memory that was once taken is never given back.
"""

import gc
import importlib
import json
import os
import re
import resource
import sys
import time
from pathlib import Path

from typer.testing import CliRunner

from segkey.cli import app


def peak() -> int:
    """The most memory that this program ever had, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss also counts what the parent had when it forked
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (
        20 if sys.platform == "darwin" else 10
    )


for module in sys.argv[1:]:
    importlib.import_module(module)
before = peak() if sys.argv[1:] else 0
gc.freeze()  # modules are not looked through for garbage again and again
for folder, arguments in json.load(sys.stdin):
    os.chdir(folder)
    gc.collect()
    began = time.monotonic()
    done = CliRunner().invoke(app, arguments)
    unexpected = None if isinstance(done.exception, SystemExit | None) else repr(done.exception)
    print(
        json.dumps(
            {
                "arguments": arguments,
                "status": done.exit_code,
                "stdout": done.stdout,
                "stderr": done.stderr,
                "unexpected": unexpected,
                "seconds": time.monotonic() - began,
                "peak": peak() - before,
            }
        ),
        flush=True,
    )
