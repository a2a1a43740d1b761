"""A run: one training in one folder, with its weights, configuration, history and results."""

import difflib
import errno
import json
import os
import re
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import save

from segkey.crypto.ciphers import METHODS
from segkey.crypto.keys import Key
from segkey.data.decode import MAX_PIXELS
from segkey.data.items import Problem
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import networks, recipes, results, weights
from segkey.model.measurements import authenticated
from segkey.shards import Header
from segkey.shards.header import MAX_BLOCK
from segkey.system import distributed
from segkey.system.files import (
    create,
    explain_os_errors,
    is_folder_there,
    is_held,
    is_there,
    make_folder,
    read_json,
    read_text,
    remove,
    with_checksum,
    without_checksum,
    write_json,
    written_whole,
)
from segkey.system.forms import (
    HEX_64,
    NAME,
    OBJECT,
    PATH,
    YES_OR_NO,
    many,
    misfit,
    named,
    number,
    one_of,
    or_none,
    pattern,
    text,
    whole,
)
from segkey.system.records import Misfit
from segkey.system.shell import word
from segkey.version import VERSION

FORMAT = "segkey-run-v1"
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OF_HEADER = (
    "method",
    "block_size",
    "channels",
    "max_value",
    "key_id",
    "password_hash",
    "ignore_index",
)
_VERSION = text(100)
_KINDS = {  # what run.json holds; some of it was not there from the first version on
    "name": pattern(_NAME.pattern, "letters, digits, '.', '_' and '-'"),
    "created": pattern(
        r"\d{4}-\d\d-\d\d([T ][0-9:.+Z-]{0,30})?", "a time such as 2024-12-31T12:00:00+00:00"
    ),
    "versions": named(_VERSION, 50),
    "device": text(1000),
    "job": or_none(text(1000)),
    "precise": YES_OR_NO,
    "compiled": YES_OR_NO,
    "windowed": YES_OR_NO,
    "seed": whole(-(2**63)),
    "epochs_done": whole(0, 10**9),
    "seconds": number(0),
    "model": OBJECT,
    "model.backbone": one_of(networks.BACKBONES),
    "data": OBJECT,
    "data.method": one_of(METHODS),
    "data.block_size": whole(1, MAX_BLOCK),
    "data.channels": whole(3, 3),
    "data.classes": many(NAME, 255, 1),
    "data.size": many(whole(1, MAX_PIXELS), 2, 2),
    "data.images": named(whole(), 10),
    "data.views": whole(1, 1 << 20),
    "data.on_the_fly": YES_OR_NO,
    "data.shards": many(PATH, 10_000),
    "data.fingerprint": or_none(text(1000)),
    "recipe": OBJECT,
    "weights_sha256": HEX_64,
    "best": OBJECT,
    "best.epoch": whole(1, 10**9),
    "best.val_loss": or_none(number()),
}
_OPTIONAL = (
    "name",
    "versions",
    "device",
    "job",
    "compiled",
    "windowed",
    "data.images",
    "data.views",
    "data.on_the_fly",
    "data.fingerprint",
    "weights_sha256",
    "best",
    "best.epoch",
    "best.val_loss",
)
_LOSS = or_none(number())
_EPOCH = {
    "epoch": whole(1, 10**9),
    "loss": _LOSS,
    "val_loss": _LOSS,
    "seconds": number(0),
    "best": YES_OR_NO,
}
R = TypeVar("R", bound=results.Result)


NAMES = (  # of all files that segkey reads or writes in a run
    "run.json",
    "model.safetensors",
    "resume.pt",
    "history.jsonl",
    "evaluate.json",
    "attack.json",
    "suite.json",
    "cell.json",
    "attack.partial.jsonl",
    ".lock",
)


class Run:
    """A run's folder.

    Attributes:
        path: the folder.
        config: what ``run.json`` holds.
    """

    def __init__(self, path: Path, config: dict):
        self.path, self.config = path, config

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run by its folder, or by ``runs/latest``.

        A folder that the user named may be a link; what ``latest`` names, and every file in a run,
        may not.

        Raises:
            SegkeyError: no run there, or one of another version; one of `NAMES` is no regular file.
        """
        path = Path(path)
        if (
            path.name == "latest"
            and (path.is_symlink() or not path.is_dir())
            and os.path.lexists(path)
        ):
            path = path.parent / _named_by(path)
            is_folder_there(path)
        there = {name: is_there(path / name) for name in NAMES}
        if not there["run.json"]:
            there = [found.name for found in folders(path.parent)]
            near = difflib.get_close_matches(path.name, there, 1)
            hint = "train one with 'segkey train', or give a folder of runs/"
            raise SegkeyError(
                f"there is no run at {path}",
                f"did you mean {word(path.parent / near[0])}?" if near else hint,
            )
        config = read_json(path / "run.json", "the description of a run")
        if config.get("format") != FORMAT:
            raise SegkeyError(
                f"{path} has the format {str(config.get('format'))[:40]!r}, this segkey reads "
                f"{FORMAT!r}",
                "upgrade segkey: pip install --upgrade segkey",
            )
        # Under its own name, which 'latest' is not; and as a relative path, where it was given as
        # one.
        run = cls(path.parent / path.readlink() if path.is_symlink() else path, config)
        run._check()
        return run

    def _check(self) -> None:
        """A run may come from anybody, such as who trained it: its form is checked here, for all
        who use it."""
        if not _NAME.fullmatch(self.name):
            raise SegkeyError(
                f"{self.path}: a run cannot be called {self.name!r}",
                "rename the folder; use letters, digits, '.', '_' and '-'",
            )
        if problem := self._complaint():
            raise SegkeyError(
                f"{self.path}/run.json is damaged: {problem}",
                "restore it from a backup, or train again",
            )

    def _complaint(self) -> str:
        """The field of ``run.json`` that cannot be, and what was expected; or nothing."""
        if problem := misfit(self.config, _KINDS, _OPTIONAL):
            return problem
        missing = [name for name in _OF_HEADER if name not in self.config["data"]]
        if problem := f"{missing[0]!r} is missing" if missing else self.header.complaint():
            return f"in 'data', {problem}"
        if problem := recipes.complaint(self.config["recipe"]):
            return f"in 'recipe', {problem}"
        (height, width), m = self.size, self.header.block_size
        if height * width > MAX_PIXELS or height % m or width % m:
            return f"'data.size' is {height}x{width}; expected sides that M = {m} divides, of at most {MAX_PIXELS} pixels"
        return ""

    @classmethod
    def create(cls, folder: Path, name: str, config: dict) -> "Run":
        """Make a new run and let ``latest`` name it; all ranks have the configuration of the first
        one, which writes it.

        Raises:
            SegkeyError: there is something of that name.
        """
        run = cls(folder / name, distributed.broadcast({"format": FORMAT, "name": name} | config))
        if distributed.is_main():
            check_free(run.path)
            make_folder(run.path)
            run.save()
            point_to_latest(folder, name)
        return run

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name or self.path.absolute().name

    @property
    def header(self) -> Header:
        """What the run was trained on, as a shard would say it."""
        data = self.config["data"]
        return Header(
            split="train",
            classes=tuple(data["classes"]),
            **{name: data[name] for name in _OF_HEADER},
        )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images it was trained on."""
        return tuple(self.config["data"]["size"])

    @property
    def weights_file(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def weights_checksum(self) -> str | None:
        """What ``model.safetensors`` states, and `load_model` compares with the weights; None where
        there are none."""
        if not is_there(self.weights_file):
            return None
        return weights.stated_checksum(self.weights_file)

    @property
    def state_file(self) -> Path:
        """What a training goes on from; there until it has ended."""
        return self.path / "resume.pt"

    @property
    def epochs_missing(self) -> int:
        """Of the recipe's epochs, those that its training has not come to."""
        return max(0, self.config["recipe"].get("epochs", 0) - self.config["epochs_done"])

    @property
    def is_worked_on(self) -> bool:
        """Whether a segkey process, such as its training, is at work in the folder now."""
        return is_held(self.path)

    @property
    def how_to_go_on(self) -> str:
        """The command that goes on with its training."""
        folder = self.path.absolute().parent if self.path.name == "" else self.path.parent
        elsewhere = "" if folder == Path("runs") else f" --runs {word(folder)}"
        return f"segkey train --resume --name {word(self.name)}{elsewhere}"

    def save(self) -> None:
        """Write ``run.json``; under torchrun the first rank does, as with all files of a run."""
        if distributed.is_main():
            write_json(self.path / "run.json", self.config)

    def save_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Write ``model.safetensors`` with its own checksum, which goes into `config` too."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        self.config["weights_sha256"] = weights.checksum(state)
        if not distributed.is_main():
            return
        with written_whole(self.weights_file) as file:
            file.write(save(state, {"sha256": self.config["weights_sha256"]}))

    def load_model(self, device: torch.device) -> networks.Segmenter:
        """The trained network, in evaluation mode.

        Raises:
            SegkeyError: the weights are missing, damaged, or not this run's.
        """
        self.require_weights()
        model = networks.Segmenter(self.config["model"]["backbone"], len(self.header.classes))
        try:
            state, expected = weights.read_safetensors(
                self.weights_file, 2 * model.bytes + (1 << 20)
            )
        except (SafetensorError, OSError, ValueError):
            state, expected = {}, None
        if weights.checksum(state) != expected:
            raise SegkeyError(
                f"{self.weights_file} is damaged: it does not match its checksum",
                "restore it from a backup, or train again",
            )
        model.load_weights(state, str(self.weights_file))
        return model.to(device, memory_format=torch.channels_last).eval()

    def require_weights(self) -> None:
        """Raise `SegkeyError` unless there are weights; it says why there are none, and what to do.

        Asked before the folder is held: to whoever holds it, it looks as if its training were under
            way.
        """
        if is_there(self.weights_file):
            return
        if self.is_worked_on:
            raise SegkeyError(
                f"{self.path} has no weights yet: its training is under way",
                "wait until it saves some",
            )
        if not self.config["epochs_done"]:
            raise SegkeyError(
                f"{self.path} has no weights: its training was cut off before it saved any",
                f"go on with it: {self.how_to_go_on}",
            )
        raise SegkeyError(
            f"{self.path} has no weights (model.safetensors)",
            "copy them from where it was trained, or train again",
        )

    def damage(self) -> list[str]:
        """Read all that is kept of the run and say what does not match its checksum."""
        checks = [lambda: self.load_model(torch.device("cpu")), self.history]
        if is_there(self.state_file):
            model = networks.Segmenter(self.config["model"]["backbone"], len(self.header.classes))
            checks.append(lambda: weights.read_archive(self.state_file, limit=model.state_bytes))
        checks += [lambda name=name: self.result(name) for name in ("evaluate", "attack")]
        found = []
        for check in checks:
            try:
                check()
            except SegkeyError as error:
                found.append(error.what)
        return found

    def history(self) -> list[dict]:
        """One dictionary an epoch."""
        file = self.path / "history.jsonl"
        if not is_there(file):
            return []
        try:
            lines = [json.loads(line) for line in read_text(file).splitlines()]
            epochs = [without_checksum(line, file) for line in lines]
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise SegkeyError(
                f"{file} is damaged", "restore it from a backup, or train again"
            ) from None
        for line, epoch in enumerate(epochs, 1):
            if problem := misfit(epoch, _EPOCH, optional=_EPOCH):
                raise SegkeyError(
                    f"{file} is damaged: in line {line}, {problem}",
                    "restore it from a backup, or train again",
                )
        return epochs

    def write_history(self, epochs: list[dict]) -> None:
        """Write ``history.jsonl``."""
        if not distributed.is_main():
            return
        with written_whole(self.path / "history.jsonl", "w") as file:
            file.writelines(
                json.dumps(with_checksum(epoch), allow_nan=False) + "\n" for epoch in epochs
            )

    def result(self, name: str) -> results.Result | None:
        """A result that was kept: ``evaluate``, ``attack`` or ``suite``; None if there is none.

        Raises:
            SegkeyError: a field is missing or cannot be; the message names it.
        """
        file = self.path / f"{name}.json"
        if not is_there(file):
            return None
        try:
            return results.read(name, read_json(file, "a result"))
        except Misfit as misfit:
            command = results.KINDS[name].command
            raise SegkeyError(
                f"{file} is not a result of {command}: {misfit}",
                f"make it again: {command} {word(self.path)}",
            ) from None

    def keep(self, result: R, key: Key | None = None) -> R:
        """Write a result into the run's folder, and return it.

        Args:
            result: replaces an earlier one of its kind.
            key: the owner's; authenticates the result.
        """
        self.write_result(result.kind, result.document, key)
        return result

    def write_result(self, name: str, document: dict, key: Key | None = None) -> None:
        """Write the JSON of a result; under torchrun, rank 0 does."""
        if distributed.is_main():
            write_json(self.path / f"{name}.json", authenticated(name, document, key))


def _named_by(latest: Path) -> str:
    """The run beside it that ``runs/latest`` names, as a link or, where links cannot be made, as a
    text file."""
    try:
        with explain_os_errors(latest):
            text = (
                os.readlink(latest)
                if latest.is_symlink()
                else read_text(latest, limit=1000).strip()
            )
        return check_name(text)
    except (ValueError, SegkeyError) as error:
        why = f": {error.what}" if isinstance(error, SegkeyError) else ""
        raise SegkeyError(
            f"{latest} does not name a run beside it{why}", "give the run's folder"
        ) from None


def point_to_latest(folder: Path, name: str) -> None:
    """Let ``folder/latest`` name a run: a symbolic link, or a text file where links cannot be
    made."""
    latest, fresh = folder / "latest", folder / ".latest.partial"
    remove(fresh)
    if not latest.is_symlink():
        is_there(latest)
    with explain_os_errors(latest):
        try:
            os.symlink(name, fresh, target_is_directory=True)
        except OSError:
            create(fresh, name + "\n")
        os.replace(fresh, latest)  # the link itself, not what it leads to


def is_taken(path: Path) -> bool:
    """Whether there is anything; a folder with hidden files alone is what a training leaves that is
    killed at once."""
    if path.is_symlink() or not path.is_dir():
        return os.path.lexists(path)
    return any(not each.name.startswith(".") for each in path.iterdir())


def check_free(path: Path) -> None:
    """Raise `SegkeyError` if a run cannot be made at ``path``."""
    if is_taken(path):
        raise SegkeyError(
            f"{path} already exists",
            "choose another --name" + (", or go on with it: --resume" * _can_go_on(path)),
        )


def _can_go_on(path: Path) -> bool:
    """Whether there is a run whose training has not ended."""
    try:
        return Run.open(path).epochs_missing > 0
    except SegkeyError:
        return False


def free_name(folder: Path, wanted: str) -> str:
    """``wanted``, or ``wanted-2`` and so on where that is taken."""
    number, name = 1, wanted
    while is_taken(folder / name):
        number += 1
        name = f"{wanted}-{number}"
    return name


def check_name(name: str) -> str:
    """Raise `SegkeyError` unless a run can be called so."""
    if not _NAME.fullmatch(name) or name == "latest":
        raise SegkeyError(
            f"a run cannot be called {name!r}", "use letters, digits, '.', '_' and '-'"
        )
    return name


def folders(folder: Path, file: str = "run.json") -> list[Path]:
    """The folders in ``folder`` that hold a file of that name, or something else under it;
    ``latest`` is no folder."""
    with explain_os_errors(folder):
        there = sorted(path for path in folder.glob("*") if not path.is_symlink())
    return [path for path in there if os.path.lexists(path / file)]


_FILES = (
    "run.json",
    "model.safetensors",
    "resume.pt",
    "history.jsonl",
    *(f"{name}.json" for name in results.NAMES),
)


def find(folder: Path) -> list[Run]:
    """All runs in a folder, oldest first; warns of those that cannot be used. See `survey`."""
    found, left_out = survey(folder)
    for problem in left_out:
        warnings.warn(f"left out {problem.name}: {problem.why}", SegkeyWarning, stacklevel=2)
    return found


def survey(folder: Path) -> tuple[list[Run], list[Problem]]:
    """All runs in a folder, oldest first, and those that cannot be used, with the reason.

    A folder that is a run itself is the only one.

    Raises:
        SegkeyError: no run there that can be used.
    """
    if os.path.lexists(folder / "run.json") or (os.path.lexists(folder) and not folder.is_dir()):
        return [_usable(folder)], []
    found, left_out = [], []
    for path in _run_folders(folder):
        try:
            found.append(_usable(path))
        except SegkeyError as error:
            left_out.append(Problem(path.name, error.what))
        except OSError as error:
            left_out.append(Problem(path.name, error.strerror or str(error)))
    if left_out and not found:
        what = "the run" if len(left_out) == 1 else f"none of the {len(left_out)} runs"
        raise SegkeyError(
            f"{what} in {folder} can{'not' * (len(left_out) == 1)} be used; {left_out[0].name}: "
            f"{left_out[0].why}",
            "restore it from a backup, or train again",
        )
    if not found:
        raise SegkeyError(f"there are no runs in {folder}", "train one with 'segkey train'")
    return sorted(found, key=lambda run: (str(run.config.get("created", "")), run.name)), left_out


def _run_folders(folder: Path) -> list[Path]:
    """What lies in a folder and is a run, or was one: whatever became of its ``run.json``."""
    try:
        there = sorted(
            path
            for path in folder.iterdir()
            if path.name != "latest" and not path.name.startswith(".")
        )
    except OSError:  # no folder, or one that may not be read
        with explain_os_errors(folder):
            there = sorted(folder.iterdir()) if folder.exists() else []
    return [path for path in there if any(_there(path / name) for name in _FILES)]


def _there(path: Path) -> bool:
    """Whether there is anything of that name; a folder that may not be read counts, to be named for
    it."""
    try:
        os.lstat(path)
        return True
    except OSError as error:
        return error.errno == errno.EACCES


def _usable(path: Path) -> Run:
    """Open a run and read what reports show of it.

    Raises:
        SegkeyError: something of it is damaged, or there is nothing to show.
    """
    if path.is_symlink() and path.name != "latest":
        raise SegkeyError(f"{path} is a link", "give the folder that it leads to")
    run = Run.open(path)
    found = [run.result(name) for name in results.NAMES]
    run.history()
    # Results may be kept without the weights, which are large.
    if not any(found) and not run.weights_file.is_file():
        done = run.config["epochs_done"]
        what = f"{path} has no weights (model.safetensors) and no results"
        raise SegkeyError(
            what if done else f"{what}: no epoch of its training is finished", "train it again"
        )
    return run


def versions() -> dict[str, str]:
    """What could make a difference to a result."""
    modules = {"torch": torch, "torchvision": torchvision, "numpy": np, "h5py": h5py}
    return {"segkey": VERSION} | {name: str(module.__version__) for name, module in modules.items()}


def now() -> str:
    """ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
