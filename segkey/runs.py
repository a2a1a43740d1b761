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

from segkey import distributed, models
from segkey.ciphers import METHODS
from segkey.errors import SegkeyError
from segkey.files import (
    explain_os_errors,
    make_folder,
    read_json,
    read_text,
    with_checksum,
    without_checksum,
    write_json,
    written_whole,
)
from segkey.keys import Key
from segkey.measurements import authenticated
from segkey.pictures import MAX_PIXELS
from segkey.shards import Header
from segkey.version import VERSION

FORMAT = "segkey-run-v1"
_KINDS = {  # what run.json always holds
    "created": str, "precise": bool, "model": dict, "data": dict, "recipe": dict, "seed": int, "epochs_done": int,
    "seconds": float | int,
}  # fmt: skip


_SCORED = {"correct": ["mean_iou"], "constant": ["mean_iou"]}
_RESULTS = {  # the numbers that reports and inspect read from results
    "evaluate": _SCORED,
    "attack": _SCORED | {"plain": ["mean_iou"], "incorrect": ["keys", "mean", "std", "min", "max"]},
    "suite": _SCORED | {"keyless": ["mean_iou", "divided_by"]},
}
_MADE_BY = {"suite": "attack --suite"}
_SUITE = {"run": str, "method": str, "block_size": int, "images": int, "fixed_password": bool, "left_out": dict}
_ATTACK = {  # a line of a suite
    "attack": str, "knows": str, "steals": str, "summary": str, "queries": int, "images": int, "seconds": float | int,
    "mean_iou": float | int, "won": float | int, "details": dict,
}  # fmt: skip


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
            raise SegkeyError(f"there is no run at {path}", f"did you mean {path.parent / near[0]}?" if near else hint)
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
        try:
            header, (height, width), data = self.header, self.size, self.config["data"]
            fine = (
                all(isinstance(self.config[name], kind) for name, kind in _KINDS.items())
                and not header.complaint()
                and isinstance(height, int)
                and isinstance(width, int)
                and min(height, width) > 0
                and height * width <= MAX_PIXELS
                and not (height % header.block_size or width % header.block_size)
                and header.channels == 3
                and header.method in METHODS
                and self.config["model"]["backbone"] in models.BACKBONES
                and len(header.classes) > 0
                and isinstance(data["shards"], list)
                and all(isinstance(path, str) and "\0" not in path for path in data["shards"])
                and isinstance(self.config.get("best", {}).get("val_loss", 0.0), float | int)
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            fine = False
        if not fine:
            raise SegkeyError(f"{self.path}/run.json is damaged", "restore it from a backup, or train again")

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
        return self.path.name

    @property
    def header(self) -> Header:
        """What the run was trained on, as a shard would say it."""
        data = self.config["data"]
        names = ("method", "block_size", "channels", "max_value", "key_id", "password_hash", "ignore_index")
        return Header(split="train", classes=tuple(data["classes"]), **{name: data[name] for name in names})

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images it was trained on."""
        return tuple(self.config["data"]["size"])

    @property
    def weights_file(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def weights_checksum(self) -> str | None:
        """What ``model.safetensors`` states, and `load_model` compares with the weights; None where there are none."""
        if not self.weights_file.is_file():
            return None
        try:
            with safe_open(self.weights_file, "pt") as file:
                return (file.metadata() or {}).get("sha256")
        except (SafetensorError, OSError, ValueError):
            return None

    @property
    def state_file(self) -> Path:
        """What a training goes on from; there until it has ended."""
        return self.path / "resume.pt"

    @property
    def epochs_missing(self) -> int:
        """Of the recipe's epochs, those that its training has not come to."""
        wanted = self.config["recipe"].get("epochs", 0)
        return max(0, wanted - self.config["epochs_done"]) if isinstance(wanted, int) else 0

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
        if not self.weights_file.is_file():
            raise SegkeyError(
                f"{self.path} has no weights (model.safetensors)",
                f"finish its training: segkey train --resume --name {self.name}",
            )
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
            return [without_checksum(line, file) for line in lines]
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise SegkeyError(f"{file} is damaged", "restore it from a backup, or train again") from None

    def write_history(self, epochs: list[dict]) -> None:
        """Write ``history.jsonl``."""
        with written_whole(self.path / "history.jsonl", "w") as file:
            file.writelines(json.dumps(with_checksum(epoch)) + "\n" for epoch in epochs)

    def result(self, name: str) -> dict | None:
        """A result that was kept, such as ``evaluate`` or ``attack``; it may come from anybody, so its form is checked."""
        file = self.path / f"{name}.json"
        if not file.is_file():
            return None
        document = read_json(file, "a result")
        parts = _RESULTS.get(name, {}).items()
        fine = all(_has_numbers(document.get(part), names) for part, names in parts)
        fine = fine and isinstance(document.get("images", 0), int)
        if name == "suite":
            lines = document.get("attacks")
            fine = fine and _has_types(document, _SUITE) and isinstance(lines, list)
            fine = fine and all(isinstance(line, dict) and _has_types(line, _ATTACK) for line in lines)
        if not fine:
            command = _MADE_BY.get(name, name)
            raise SegkeyError(f"{file} is not a result of segkey {command}", f"run segkey {command} {self.path} again")
        return document

    def write_result(self, name: str, document: dict, key: Key | None = None) -> None:
        """Keep a result, authenticated with the owner's key where that is given; under torchrun the first rank does."""
        if distributed.first():
            write_json(self.path / f"{name}.json", authenticated(name, document, key))


def _has_types(part: dict, types: dict) -> bool:
    """Whether a part of a result holds values of some types."""
    return all(isinstance(part.get(name), kind) for name, kind in types.items())


def _has_numbers(part: object, names: list[str]) -> bool:
    """Whether a part of a result holds some numbers, and numbers or nothing for the classes."""
    if not isinstance(part, dict) or not isinstance(part.get("iou", {}), dict):
        return False
    values = [part.get(name) for name in names] + [v for v in part.get("iou", {}).values() if v is not None]
    return all(isinstance(value, float | int) for value in values)


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
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == "latest":
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
