"""What tests make and look at in the same way: small trainings, weights, the bytes of folders."""

from pathlib import Path

import torch

from segkey.model import recipes, training
from segkey.model.networks import Segmenter
from segkey.model.runs import Run
from segkey.shards import open_splits

CPU = torch.device("cpu")

# Options of `segkey train` for the smallest network from random weights; epochs and batch follow.
SMALL_NETWORK = ("--recipe", "scratch", "--backbone", "resnet14")


def trained(
    shards: Path, folder: Path, epochs: int = 2, batch_size: int = 4, lr: float | None = None, **how
) -> Run:
    """A run of resnet14 on the shards in a folder; ``how`` goes to `segkey.model.training.train`."""
    how = {"backbone": "resnet14", "device": CPU, "shards": [shards]} | how
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


class Tiny(Segmenter):
    """A network of a few kilobytes, in the place of one of 60 MB."""

    def __init__(self, classes: int):
        torch.nn.Module.__init__(self)
        self.backbone, self.classes = "resnet14", classes
        layers = [torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.BatchNorm2d(16)]
        self.fcn = torch.nn.Sequential(*layers, torch.nn.Conv2d(16, classes, 3, padding=1))

    def forward(self, pixels):
        return self.fcn(pixels)


def same(one: dict, other: dict) -> bool:
    """Whether two state dicts are equal."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _needles(state: dict) -> list[bytes]:
    """Bytes out of the middle of every tensor that could be recognised."""
    raw = [
        t.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for t in state.values()
        if t.numel()
    ]
    found = [each[len(each) // 2 :][:64] for each in raw if len(each) >= 4 * 64]
    return [each for each in found if len(set(each)) > 8]


def held(folder, state: dict) -> list[str]:
    """Files below a folder that hold bytes of any tensor."""
    wanted = _needles(state)
    assert len(wanted) > 1
    return [n for n, data in files(folder).items() if any(each in data for each in wanted)]
