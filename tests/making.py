"""What tests make and look at in the same way: small trainings, weights, the bytes of folders."""

import shutil
from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path

import numpy as np
import torch
from click.testing import Result
from typer.testing import CliRunner

from segkey.cli import app
from segkey.crypto.age import Identity
from segkey.crypto.keys import Key
from segkey.data import scenes
from segkey.model import network_registry, recipes, training
from segkey.model.networks import Segmenter
from segkey.model.results import Incorrect
from segkey.model.runs import Run
from segkey.shards import open_splits

CPU = torch.device("cpu")

# Options of `segkey train` for the smallest network from random weights; epochs and batch follow.
SMALL_NETWORK = ("--recipe", "scratch", "--network", "thin")


def segkey(*arguments: object) -> Result:
    """Run a command in this process; what is no exit is raised."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def told(*arguments: object, code: int = 0) -> str:
    """What a command that must exit with ``code`` shows, or if that is not 0 says, in one line."""
    result = segkey(*arguments)
    assert result.exit_code == code, result.output
    return " ".join((result.stdout if code == 0 else result.stderr).split())


def recipients(*keys: Key) -> list[str]:
    """The public texts of keys."""
    return [each for key in keys for each in Identity.of(key).recipients]


def unseen_scenes(run: Run, count: int = 24) -> torch.Tensor:
    """Scenes, uint8 (N, 3, H, W), that no training has seen."""
    drawn = [scenes.draw(99, number, run.size[0])[0] for number in range(count)]
    return torch.from_numpy(np.stack(drawn).transpose(0, 3, 1, 2).copy())


def trained(
    shards: Path, folder: Path, epochs: int = 2, batch_size: int = 4, lr: float | None = None, **how
) -> Run:
    """A run of `thin` on the shards in a folder; ``how`` goes to `training.train`."""
    how = {"network": "thin", "device": CPU, "shards": [shards]} | how
    recipe = recipes.recipe("scratch", epochs=epochs, batch_size=batch_size, lr=lr)
    return training.train(open_splits([shards], ("train", "val")), folder, recipe, **how)


def reconfigure(run: Run, **changes) -> Run:
    """Change fields of a run's configuration, those of a part given as a dict; nothing is checked.

    ``reconfigure(run, epochs_done=1, data={"shards": ["x"]})``; the run is returned, not saved.
    """
    run.configuration = _changed(run.configuration, changes)
    return run


def _changed(record, changes: dict):
    values = {}
    for name, value in changes.items():
        part = getattr(record, name)
        if is_dataclass(part) and isinstance(value, dict):
            value = _changed(part, value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return replace(record, **values)


def copy_of(run: Run, folder: Path, *, without: Sequence[str] = (), **changes) -> Run:
    """A run copied to a folder, with other fields (as `reconfigure`), saved.

    ``without``: names of files, with ``*``, that are not copied.
    """
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns(*without))
    copy = reconfigure(Run(folder, run.configuration), **changes)
    copy.save()
    return copy


def wrong_keys(values: Sequence[float]) -> Incorrect:
    """What an attack with random keys found."""
    mean = sum(values) / len(values)
    return Incorrect(
        keys=len(values), mean=mean, std=0.0, min=min(values), max=max(values), values=tuple(values)
    )


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
        self.name, self.classes, self.channels = "thin", classes, 3
        self.entry = network_registry.find(self.name)
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.ones(1, 3, 1, 1), persistent=False)
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
