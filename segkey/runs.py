"""A run: one training in one folder, with its weights, configuration, history and results."""

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
from segkey.errors import SegkeyError
from segkey.files import explain_os_errors, make_folder, read_json, write_json, written_whole
from segkey.shards import Header
from segkey.version import VERSION

FORMAT = "segkey-run-v1"


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
            path = path.parent / path.read_text(encoding="utf-8").strip()
        if not (path / "run.json").is_file():
            raise SegkeyError(f"there is no run at {path}", "train one with 'segkey train', or give a folder of runs/")
        config = read_json(path / "run.json", "the description of a run")
        if config.get("format") != FORMAT:
            raise SegkeyError(
                f"{path} has the format {str(config.get('format'))[:40]!r}, this segkey reads {FORMAT!r}",
                "upgrade segkey: pip install --upgrade segkey",
            )
        run = cls(path.resolve() if path.is_symlink() else path, config)
        run._check()
        return run

    def _check(self) -> None:
        try:
            header = self.header
            numbers = (self.config["seed"], self.config["epochs_done"], *self.config["data"]["size"])
            fine = (
                all(isinstance(number, int) for number in numbers)
                and len(self.config["data"]["size"]) == 2
                and self.config["model"]["backbone"] in models.BACKBONES
                and len(header.classes) > 0
                and isinstance(self.config["recipe"], dict)
            )
        except (KeyError, TypeError):
            fine = False
        if not fine:
            raise SegkeyError(f"{self.path}/run.json is damaged", "restore it from a backup, or train again")

    @classmethod
    def create(cls, folder: Path, name: str, config: dict) -> "Run":
        """Make the folder of a new run and let ``latest`` name it."""
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

    # ------------------------------------------------------------------ history and results

    def history(self) -> list[dict]:
        """One dictionary an epoch."""
        file = self.path / "history.jsonl"
        if not file.is_file():
            return []
        try:
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        except ValueError:
            raise SegkeyError(f"{file} is damaged", "restore it from a backup, or train again") from None

    def write_history(self, epochs: list[dict]) -> None:
        """Write ``history.jsonl``."""
        with written_whole(self.path / "history.jsonl", "w") as file:
            file.writelines(json.dumps(epoch) + "\n" for epoch in epochs)

    def result(self, name: str) -> dict | None:
        """A result that was kept, such as ``evaluate`` or ``attack``."""
        file = self.path / f"{name}.json"
        return read_json(file, "a result") if file.is_file() else None

    def write_result(self, name: str, document: dict) -> None:
        """Keep a result; under torchrun the first rank does."""
        if distributed.first():
            write_json(self.path / f"{name}.json", document)


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


def free_name(folder: Path, wanted: str) -> str:
    """``wanted``, or ``wanted-2`` and so on where that is taken."""
    number, name = 1, wanted
    while (folder / name).exists():
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
