"""Starts segkey again and again without importing torch as often: a process that forks one for each
line it reads.

A line is JSON: ``{"arguments": […], "folder": …, "limit": bytes a file may have, or null,
"environment": {…}}``. The answer is ``started`` and the process's number; after the line ``end``,
``ended`` and its exit status (negative: the signal). What it says goes to the files ``stdout`` and
``stderr`` of the folder above.
"""

import json
import os
import resource
import sys
from pathlib import Path


def main() -> None:
    # Not at the top: worker processes that a command spawns import this file too.
    from segkey import cli
    from segkey.model import training_loop  # noqa: F401  (its imports take the longest)

    os.environ["SEGKEY_SAVE_EVERY"] = (
        "0"  # after every epoch, so that a short training has something to lose
    )
    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            run(cli, **json.loads(line))
        print("started", process, flush=True)
        if (
            sys.stdin.readline() != "end\n"
        ):  # until then its number stays its own, even after it has ended
            raise RuntimeError("two processes at once")
        print("ended", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def run(
    cli, arguments: list[str], folder: str, limit: int | None, environment: dict[str, str]
) -> None:
    os.chdir(folder)
    os.environ |= environment
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        file = os.open(Path(folder).parent / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["segkey", *arguments]
    status = 1
    try:
        cli.main()
    except SystemExit as end:
        status = end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
