"""What torchrun starts in test_distributed.py: segkey commands one after another in the same ranks,
as a file of JSON says.

Each step has ``argv`` (or ``argvs``, one a rank) and may have: ``folders``, where each rank works;
``version``, of rank 1; ``cuda``, which of the ranks believe that they have a GPU; ``die``, the
number of a step or shard at which rank 1 kills itself, unless torchrun has started it again;
``interrupt``, see `interrupt`. What is said goes into ``STEP.RANK.out`` and ``.err``, and the exit
status into ``.status``, beside the file of JSON.
"""

import json
import os
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
import torch.nn.functional as F

from segkey.cli import main
from segkey.model import runs
from segkey.model.training_loop import Trainer
from segkey.shards import encryption
from segkey.system import distributed, torchrun

RANK = distributed.rank()


def independent_batches() -> None:
    """Leave nothing that ranks compute in another way than one process: no statistics of batches,
    no dropout."""
    torch.nn.BatchNorm2d.forward = lambda self, images: F.batch_norm(
        images, self.running_mean, self.running_var, self.weight, self.bias
    )
    torch.nn.Dropout.forward = lambda self, images: images


def die_at(module: object, name: str, chosen: int) -> None:
    """Kill rank 1 when it calls a function for the ``chosen`` time."""
    function, calls = getattr(module, name), []

    def dying(*arguments):
        calls.append(1)
        if RANK == 1 and len(calls) == chosen and not distributed.restarted():
            print("these are my last words", file=sys.__stderr__, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    setattr(module, name, dying)


def interrupt(rank: int, function: str, chosen: int, alone: bool) -> None:
    """Ctrl-C when a rank calls a function of the training for the ``chosen`` time, and again while
    the run is saved.

    ``alone``: it reaches that rank and not torchrun, which therefore sends SIGTERM to the other
    one.
    """
    original, save, calls = getattr(Trainer, function), runs.Run.write_history, []

    def interrupted(*arguments):
        calls.append(1)
        if rank == RANK and len(calls) == chosen:
            os.kill(os.getpid() if alone else os.getppid(), signal.SIGINT)
            time.sleep(60)  # until it arrives
        return original(*arguments)

    def impatient(*arguments):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        return save(*arguments)

    setattr(Trainer, function, interrupted)
    runs.Run.write_history = impatient


def run(step: dict, place: Path, number: int) -> None:
    if "die" in step:
        os.environ["SEGKEY_SAVE_EVERY"] = "0"
        die_at(Trainer, "step", step["die"])
        die_at(encryption._Production, "_finish", step["die"])
    if "interrupt" in step:
        interrupt(**step["interrupt"])
    torchrun.VERSION = step.get("version", "1") if RANK == 1 else "1"
    torch.cuda.is_available = lambda: RANK in step.get("cuda", ())
    os.chdir(step["folders"][RANK] if "folders" in step else place)
    sys.argv = ["segkey", *(step["argvs"][RANK] if "argvs" in step else step["argv"])]
    out, err, status = (place / f"{number}.{RANK}.{ending}" for ending in ("out", "err", "status"))
    with (
        open(out, "w") as told,
        open(err, "w") as said,
        redirect_stdout(told),
        redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as leave:
            status.write_text(str(leave.code or 0))
    if "interrupt" in step:
        torchrun.leave(int(status.read_text()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torchrun.GRACE = 0
    independent_batches()
    torchrun.join()  # for all commands, also after those that fail
    plan = Path(sys.argv[1])
    for number, step in enumerate(json.loads(plan.read_text())):
        run(step, plan.parent, number)
    torchrun.leave(0)
