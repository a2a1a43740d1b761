"""A run: one training in one folder, with its weights, configuration, history and results."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from segkey.crypto.age import Identity
from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import (
    configuration,
    history,
    networks,
    results,
    run_checks,
    run_names,
    run_weights,
    sealed_runs,
    weights_files,
)
from segkey.model.authenticity import authenticated
from segkey.model.configuration import FORMAT, Configuration
from segkey.shards import Header
from segkey.shards.unlock import cipher_for
from segkey.system import distributed
from segkey.system.files import is_there, make_folder
from segkey.system.folder_lock import is_held
from segkey.system.json_files import read_json, write_json
from segkey.system.json_records import Misfit
from segkey.system.shell_quoting import word

R = TypeVar("R", bound=results.Result)

NAMES = (  # of all files that segkey reads or writes in a run
    "run.json",
    "model.safetensors",
    "model.safetensors.age",
    "resume.pt",
    "resume.pt.age",
    "history.jsonl",
    "evaluate.json",
    "attack.json",
    "suite.json",
    "cell.json",
    "attack.partial.jsonl",
    "log.csv",
    ".lock",
)


class Run:
    """A run's folder.

    Attributes:
        configuration: what ``run.json`` holds; to change it, assign a changed copy
            (`dataclasses.replace`) and `save`.
        identity: opens the weights of a sealed run; from `unlock`.
    """

    def __init__(self, path: Path, configuration: Configuration):
        self.path, self.configuration = path, configuration
        self.identity: Identity | None = None
        self._digest_in_file: str | None = None

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run by its folder, or by ``runs/latest``.

        A folder that the user named may be a link; what ``latest`` names, and every file in a run,
        may not.

        Raises:
            SegkeyError: no run there, or one of another version; one of `NAMES` is no regular file.
        """
        path = run_names.resolved(Path(path))
        there = {name: is_there(path / name) for name in NAMES}
        if not there["run.json"]:
            raise run_names.no_run_at(path)
        document = read_json(path / "run.json", "the description of a run")
        if document.get("format") != FORMAT:
            raise SegkeyError(
                f"{path} has the format {str(document.get('format'))[:40]!r}, this segkey reads "
                f"{FORMAT!r}",
                "upgrade segkey: pip install --upgrade segkey",
            )
        path = run_names.under_its_own_name(path)
        try:
            run = cls(path, configuration.read(document))
        except Misfit as misfit:
            raise SegkeyError(
                f"{path}/run.json is damaged: {misfit}", "restore it from a backup, or train again"
            ) from None
        run._digest_in_file = sealed_runs.header_digest(document) if run.is_sealed else None
        return run

    @classmethod
    def create(cls, folder: Path, name: str, begun_with: Configuration | Mapping) -> "Run":
        """Make a new run and let ``latest`` name it.

        All ranks have the configuration of the first one, which writes it.

        Args:
            folder: of runs.
            name: of the run.
            begun_with: its configuration, or the JSON of one.

        Raises:
            SegkeyError: there is something of that name.
        """
        if isinstance(begun_with, Mapping):
            begun_with = configuration.read({"format": FORMAT, **begun_with})
        run = cls(folder / name, distributed.broadcast(replace(begun_with, name=name)))
        if distributed.is_main():
            check_free(run.path)
            make_folder(run.path)
            run.save()
            run_names.point_to_latest(folder, name)
        return run

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name or self.path.absolute().name

    @property
    def folder(self) -> Path:
        """The folder that it lies in."""
        return self.path.parent if self.path.name else self.path.absolute().parent

    @property
    def header(self) -> Header:
        """What the run was trained on, as a shard would say it."""
        return self.configuration.header

    def cipher(self, key: Key | None, password: bytes | None = None) -> Cipher:
        """The cipher it was trained with.

        Args:
            key: the run's key; None only if it was trained on plain images.
            password: the FFX password, if a fixed one was given to encrypt.

        Raises:
            KeyMismatchError: the key or the password is another one.
        """
        return cipher_for(self.header, key, password, self.path)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images it was trained on."""
        return tuple(self.configuration.data.size)

    @property
    def is_sealed(self) -> bool:
        """Whether its weights are encrypted."""
        return self.configuration.sealed is not None

    @property
    def recipients(self) -> list[str]:
        """For whom its weights are encrypted: public texts ``age1…``; none if they are not."""
        return list(self.configuration.sealed.recipients) if self.is_sealed else []

    def unlock(self, key: Key | Identity | None) -> "Run":
        """Give a sealed run the key that opens it, for all that loads its weights later.

        Without effect on a run that is not sealed. Returns the run.

        Raises:
            SegkeyError: no key, or one that it was not sealed for.
        """
        if self.is_sealed:
            self.identity = Identity.of(key) if isinstance(key, Key) else key
            sealed_runs.require(self)
        return self

    @property
    def header_digest(self) -> str:
        """What the weights of a sealed run are bound to: that of ``run.json`` as it was read."""
        return self._digest_in_file or sealed_runs.header_digest(self.configuration.document)

    def _file(self, name: str) -> Path:
        return self.path / (name + sealed_runs.SUFFIX * self.is_sealed)

    @property
    def weights_file(self) -> Path:
        """``model.safetensors``, or ``model.safetensors.age``; it may not exist yet."""
        return self._file("model.safetensors")

    @property
    def weights_checksum(self) -> str | None:
        """The checksum that the weights state, or those of a sealed run should have.

        None if there are no weights. `load_model` compares it with them.
        """
        if not is_there(self.weights_file):
            return None
        if self.is_sealed:
            return self.configuration.sealed.sha256
        return weights_files.stated_checksum(self.weights_file)

    @property
    def state_file(self) -> Path:
        """What a training goes on from; there until it has ended."""
        return self._file("resume.pt")

    @property
    def epochs_missing(self) -> int:
        """Of the recipe's epochs, those that its training has not come to; 0 for a locked run."""
        made = self.configuration
        if self.is_locked or made.recipe is None or made.stopped_early:
            return 0
        return max(0, made.recipe.epochs - made.epochs_done)

    @property
    def starting_weights(self) -> str | None:
        """The weights that its training began with (`Recipe.weights`), if it had one."""
        recipe = self.configuration.recipe
        return recipe.weights if recipe else None

    @property
    def is_locked(self) -> bool:
        """Whether it was locked after its training (`segkey.model.lock`)."""
        return self.configuration.model.lock is not None

    @property
    def is_worked_on(self) -> bool:
        """Whether a segkey process, such as its training, is at work in the folder now."""
        return is_held(self.path)

    @property
    def how_to_go_on(self) -> str:
        """The command that goes on with its training."""
        elsewhere = "" if self.folder == Path("runs") else f" --runs {word(self.folder)}"
        return f"segkey train --resume --name {word(self.name)}{elsewhere}"

    def save(self) -> None:
        """Write ``run.json``; under torchrun the first rank does, as with all files of a run."""
        if distributed.is_main():
            write_json(self.path / "run.json", self.configuration.document)
        self._digest_in_file = None

    def save_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Write ``model.safetensors`` with its checksum, which goes into `configuration` too.

        Those of a run that was made to be sealed are encrypted in memory, and ``run.json``, which
        they are bound to, is written before them.
        """
        self.configuration = replace(
            self.configuration, weights_sha256=weights_files.checksum(state)
        )
        if self.is_sealed:
            self.configuration = sealed_runs.expect(self.configuration)
            self.save()
        if distributed.is_main():
            run_weights.write(self, state)
        self.configuration = sealed_runs.settle(self.configuration)

    def load_model(self, device: torch.device) -> networks.Segmenter:
        """The trained network, in evaluation mode.

        Raises:
            SegkeyError: the weights are missing, damaged, or do not fit the run's network; or
                they are sealed, and `unlock` was not given their key. They are compared with the
                checksum in their own file, not with that in run.json, from which a kill between two
                writes may leave them apart.
        """
        return run_weights.load(self, device)

    def read_state(self, device: torch.device | str = "cpu") -> dict:
        """What a training goes on from.

        Raises:
            SegkeyError: it is damaged, or sealed, and `unlock` was not given its key.
        """
        return run_weights.read_state(self, device)

    def require_weights(self) -> None:
        """Raise `SegkeyError` unless there are weights; it says why there are none, and what to do.

        Asked before the folder is locked: while it is, its training seems to be under way.
        """
        run_checks.require_weights(self)

    def history(self) -> list[dict]:
        """One dictionary per epoch."""
        return history.read(self.path / "history.jsonl")

    def write_history(self, epochs: list[dict]) -> None:
        """Write ``history.jsonl``; under torchrun, rank 0 does."""
        if distributed.is_main():
            history.write(self.path / "history.jsonl", epochs)

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


def check_free(path: Path) -> None:
    """Raise `SegkeyError` if a run cannot be made at ``path``."""
    if run_names.is_taken(path):
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
