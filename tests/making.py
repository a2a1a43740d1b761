"""What tests make and look at in the same way: small trainings, weights, the bytes of folders."""

from pathlib import Path

import torch

from segkey.model import recipes, training
from segkey.model.runs import Run
from segkey.shards import open_splits

CPU = torch.device("cpu")

# Options of `segkey train` for the smallest network from random weights; epochs and batch follow.
SMALL_NETWORK = ("--recipe", "scratch", "--backbone", "resnet14")


def trained(
    shards: Path, folder: Path, epochs: int = 2, batch_size: int = 4, lr: float | None = None, **how
) -> Run:
    """A run of resnet14 on the shards in a folder; ``how`` goes to `segkey.model.training.train`."""
    how = {"network": "resnet14", "device": CPU, "shards": [shards]} | how
    recipe = recipes.recipe("scratch", epochs=epochs, batch_size=batch_size, lr=lr)
    return training.train(open_splits([shards], ("train", "val")), folder, recipe, **how)


def weights(run: Run | Path) -> dict[str, torch.Tensor]:
    """The weights that a run kept, by name."""
    return Run.open(run.path if isinstance(run, Run) else run).load_model(CPU).weights()


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder, by name; locks are empty and stay."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
