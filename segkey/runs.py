"""A run: one training in one folder, with its weights, configuration, history and results."""

import difflib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from segkey import distributed, models, recipes, results
from segkey.ciphers import METHODS
from segkey.errors import SegkeyError
from segkey.files import (
    explain_os_errors,
    is_held,
    make_folder,
    read_json,
    read_text,
    with_checksum,
    without_checksum,
    write_json,
    written_whole,
)
from segkey.forms import (
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
from segkey.pictures import MAX_PIXELS
from segkey.shards import Header
from segkey.shards.header import MAX_BLOCK
from segkey.shell import word
from segkey.version import VERSION

FORMAT = "segkey-run-v1"
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OF_HEADER = ("method", "block_size", "channels", "max_value", "key_id", "password_hash", "ignore_index")
_VERSION = text(100)
_KINDS = {  # what run.json holds; some of it was not there from the first version on
    "name": pattern(_NAME.pattern, "letters, digits, '.', '_' and '-'"),
    "created": pattern(r"\d{4}-\d\d-\d\d([T ][0-9:.+Z-]{0,30})?", "a time such as 2024-12-31T12:00:00+00:00"),
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
    "model.backbone": one_of(models.BACKBONES),
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
    "name", "versions", "device", "job", "compiled", "windowed", "data.images", "data.views", "data.on_the_fly",
    "data.fingerprint", "weights_sha256", "best", "best.epoch", "best.val_loss",
)  # fmt: skip
_LOSS = or_none(number())
_EPOCH = {"epoch": whole(1, 10**9), "loss": _LOSS, "val_loss": _LOSS, "seconds": number(0), "best": YES_OR_NO}
_MADE_BY = {"suite": "attack --suite"}


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

        Raises:
            SegkeyError: no run there, or one of another version.
        """
        path = Path(path)
        if path.is_file() and path.name == "latest":  # where symbolic links cannot be made, it holds the name
            path = path.parent / _named_by(path)
        if not (path / "run.json").is_file():
            there = sorted(file.parent.name for file in path.parent.glob("*/run.json"))
            near = difflib.get_close_matches(path.name, there, 1)
            hint = "train one with 'segkey train', or give a folder of runs/"
            raise SegkeyError(
                f"there is no run at {path}", f"did you mean {word(path.parent / near[0])}?" if near else hint
            )
        config = read_json(path / "run.json", "the description of a run")
        if config.get("format") != FORMAT:
            raise SegkeyError(
                f"{path} has the format {str(config.get('format'))[:40]!r}, this segkey reads {FORMAT!r}",
                "upgrade segkey: pip install --upgrade segkey",
            )
        # Under its own name, which 'latest' is not; and as a relative path, where it was given as one.
        run = cls(path.parent / path.readlink() if path.is_symlink() else path, config)
        run._check()
        return run

    def _check(self) -> None:
        """A run may come from anybody, such as who trained it: its form is checked here, for all who use it."""
        if not _NAME.fullmatch(self.name):
            raise SegkeyError(
                f"{self.path}: a run cannot be called {self.name!r}",
                "rename the folder; use letters, digits, '.', '_' and '-'",
            )
        if problem := self._complaint():
            raise SegkeyError(f"{self.path}/run.json is damaged: {problem}", "restore it from a backup, or train again")

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
            return (
                f"'data.size' is {height}x{width}; expected sides that M = {m} divides, of at most {MAX_PIXELS} pixels"
            )
        return ""

    @classmethod
    def create(cls, folder: Path, name: str, config: dict) -> "Run":
        """Make a new run and let ``latest`` name it.

        Raises:
            SegkeyError: there is something of that name.
        """
        check_free(folder / name)
        run = cls(make_folder(folder / name), {"format": FORMAT, "name": name} | config)
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
        return Header(split="train", classes=tuple(data["classes"]), **{name: data[name] for name in _OF_HEADER})

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images it was trained on."""
        return tuple(self.config["data"]["size"])

    @property
    def weights_file(self) -> Path:
        return self.path / "model.safetensors"

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
        """Write ``run.json``."""
        write_json(self.path / "run.json", self.config)

    def save_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Write ``model.safetensors`` with its own checksum, which goes into `config` too."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        self.config["weights_sha256"] = models.checksum(state)
        with written_whole(self.weights_file) as file:
            file.write(save(state, {"sha256": self.config["weights_sha256"]}))

    def load_model(self, device: torch.device) -> models.Segmenter:
        """The trained network, in evaluation mode.

        Raises:
            SegkeyError: the weights are missing, damaged, or not this run's.
        """
        self.require_weights()
        try:
            with safe_open(self.weights_file, "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
                expected = (file.metadata() or {}).get("sha256")
        except (SafetensorError, OSError, ValueError):
            state, expected = {}, None
        if models.checksum(state) != expected:
            raise SegkeyError(
                f"{self.weights_file} is damaged: it does not match its checksum",
                "restore it from a backup, or train again",
            )
        model = models.Segmenter(self.config["model"]["backbone"], len(self.header.classes))
        model.load_weights(state, str(self.weights_file))
        return model.to(device, memory_format=torch.channels_last).eval()

    def require_weights(self) -> None:
        """Raise `SegkeyError` unless there are weights; it says why there are none, and what to do.

        Asked before the folder is held: to whoever holds it, it looks as if its training were under way.
        """
        if self.weights_file.is_file():
            return
        if self.is_worked_on:
            raise SegkeyError(f"{self.path} has no weights yet: its training is under way", "wait until it saves some")
        if not self.config["epochs_done"]:
            raise SegkeyError(
                f"{self.path} has no weights: its training was cut off before it saved any",
                f"go on with it: {self.how_to_go_on}",
            )
        raise SegkeyError(
            f"{self.path} has no weights (model.safetensors)", "copy them from where it was trained, or train again"
        )

    def damage(self) -> list[str]:
        """Read all that is kept of the run and say what does not match its checksum."""
        checks = [lambda: self.load_model(torch.device("cpu")), self.history]
        if self.state_file.is_file():
            checks.append(lambda: models.read_archive(self.state_file))
        checks += [lambda name=name: self.result(name) for name in ("evaluate", "attack")]
        found = []
        for check in checks:
            try:
                check()
            except SegkeyError as error:
                found.append(error.what)
        return found

    # ------------------------------------------------------------------ history and results

    def history(self) -> list[dict]:
        """One dictionary an epoch."""
        file = self.path / "history.jsonl"
        if not file.is_file():
            return []
        try:
            lines = [json.loads(line) for line in read_text(file).splitlines()]
            epochs = [without_checksum(line, file) for line in lines]
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise SegkeyError(f"{file} is damaged", "restore it from a backup, or train again") from None
        for line, epoch in enumerate(epochs, 1):
            if problem := misfit(epoch, _EPOCH, optional=_EPOCH):
                raise SegkeyError(
                    f"{file} is damaged: in line {line}, {problem}", "restore it from a backup, or train again"
                )
        return epochs

    def write_history(self, epochs: list[dict]) -> None:
        """Write ``history.jsonl``."""
        with written_whole(self.path / "history.jsonl", "w") as file:
            file.writelines(json.dumps(with_checksum(epoch), allow_nan=False) + "\n" for epoch in epochs)

    def result(self, name: str) -> dict | None:
        """A result that was kept, such as ``evaluate`` or ``attack``; it may come from anybody, so its form is checked."""
        file = self.path / f"{name}.json"
        if not file.is_file():
            return None
        document = read_json(file, "a result")
        if problem := results.complaint(name, document):
            command = f"segkey {_MADE_BY.get(name, name)}"
            raise SegkeyError(
                f"{file} is not a result of {command}: {problem}",
                f"make it again: {command} {word(self.path)}",
            )
        return document

    def write_result(self, name: str, document: dict) -> None:
        """Keep a result; under torchrun the first rank does."""
        if distributed.first():
            write_json(self.path / f"{name}.json", document)


def _named_by(latest: Path) -> str:
    """The run that ``runs/latest`` names where it is a text file."""
    try:
        return check_name(read_text(latest, limit=1000).strip())
    except ValueError:
        raise SegkeyError(f"{latest} does not name a run", "give the run's folder") from None


def point_to_latest(folder: Path, name: str) -> None:
    """Let ``folder/latest`` name a run: a symbolic link, or a text file where links cannot be made."""
    fresh = folder / ".latest.partial"
    with explain_os_errors(folder / "latest"):
        fresh.unlink(missing_ok=True)
        try:
            os.symlink(name, fresh, target_is_directory=True)
        except OSError:
            fresh.write_text(name + "\n", encoding="utf-8")
        os.replace(fresh, folder / "latest")


def is_taken(path: Path) -> bool:
    """Whether there is anything; a folder with hidden files alone is what a training leaves that is killed at once."""
    return path.exists() and (not path.is_dir() or any(not each.name.startswith(".") for each in path.iterdir()))


def check_free(path: Path) -> None:
    """Raise `SegkeyError` if a run cannot be made at ``path``."""
    if is_taken(path):
        raise SegkeyError(f"{path} already exists", "choose another --name, or go on with it: --resume")


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
        raise SegkeyError(f"a run cannot be called {name!r}", "use letters, digits, '.', '_' and '-'")
    return name


def find(folder: Path) -> list[Run]:
    """All runs in a folder, oldest first; a folder that is a run itself is the only one."""
    if (folder / "run.json").is_file() or folder.is_file():
        return [Run.open(folder)]
    found = [Run.open(path.parent) for path in folder.glob("*/run.json") if not path.parent.is_symlink()]
    if not found:
        raise SegkeyError(f"there are no runs in {folder}", "train one with 'segkey train'")
    return sorted(found, key=lambda run: (run.config.get("created", ""), run.name))


def versions() -> dict[str, str]:
    """What could make a difference to a result."""
    modules = {"torch": torch, "torchvision": torchvision, "numpy": np, "h5py": h5py}
    return {"segkey": VERSION} | {name: str(module.__version__) for name, module in modules.items()}


def now() -> str:
    """ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
