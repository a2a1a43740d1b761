"""Run the grid: train and attack one cell after another, and keep each when it is finished."""

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from segkey import attacks
from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.data.items import Source
from segkey.errors import DivergedError, SegkeyError, SegkeyWarning
from segkey.model import authenticity, evaluation, runs, training
from segkey.model.package_versions import now, versions
from segkey.paper.cell_runs import (
    BrokenRunError,
    check_training,
    damage,
    describe,
    locked,
    needed,
)
from segkey.paper.experiment_settings import (
    LEAST,
    PASSWORD,
    WORKING,
    Settings,
    check_folder,
    claim,
    is_full_voc,
)
from segkey.paper.findings import examine
from segkey.paper.finished_cells import FinishedCells
from segkey.paper.grid import Cell
from segkey.paper.grid_progress import Watch
from segkey.paper.results import CellResult, Results
from segkey.paper.tables import cell_sentence
from segkey.shards import Split, encryption, open_splits
from segkey.system import distributed
from segkey.system.files import is_folder_there, make_folder
from segkey.system.json_files import read_json, write_json
from segkey.system.json_records import as_json

_TRAIN_PASSES = 3.0  # a training image takes about three times as long as one that is only scored


class Experiment:
    """A folder of cells that are all made alike; under torchrun all ranks work on each.

    Several processes may work in one folder: each takes cells that no other is making. The folder
    itself is held only while settings, plain shards and ``results.json`` are written.

    Args:
        source: from `open_data`.
        settings: how cells are made.
        key: the correct one.
        watch: hears how far it is.
        workers: processes that prepare images; as many as there are cores, if not given.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        key: Key,
        out: Path,
        device: torch.device,
        watch: Watch | None = None,
        workers: int | None = None,
    ):
        self.source, self.settings, self.key, self.out = source, settings, key, out
        self.device, self.watch, self.workers = device, watch or Watch(), workers
        self.diverged: list[str] = []  # cells whose training did, in this run
        self.elsewhere: list[str] = []  # cells that another process was making at the end
        self.finished = FinishedCells(out / "runs", key, settings.wrong_keys, self.watch.say)

    def run(self, cells: Sequence[Cell]) -> Results:
        """Train and attack what is missing of some cells.

        Returns:
            Everything measured in this folder, in this run or an earlier one.

        Raises:
            SegkeyError: the folder holds results of other settings, of another version, or
                something else; or every cell is broken.
        """
        check_folder(self.out)
        make_folder(self.out)
        with warnings.catch_warnings():
            # What is said of one cell's weights is true of all.
            warnings.simplefilter("once", SegkeyWarning)
            with distributed.sole_writer(self.out, wait=True):
                if distributed.is_main():
                    wanted = self.settings.document(self.source, self.key.id)
                    claim(self.out, wanted, self.watch.say)
                splits = self._open_plain_shards()
            names = {cell.name for cell in cells}
            known = distributed.broadcast(self.finished.read(splits))
            missing = [cell for cell in cells if cell.name not in known]
            if len(missing) < len(cells):
                done = len(cells) - len(missing)
                self.watch.say(f"{done} of {len(cells)} models are finished already")
            self.diverged, left_out = [], self.finished.left_out
            for name, why in left_out.items():
                self.watch.say(
                    f"{name} is {'measured again' if name in names else 'left out'}: {why}"
                )
            with self.watch.grid(len(missing), self._passes(missing)):
                self._make_all(missing, len(cells), splits)
            results = self.write(splits)
            if left_out and not results.cells:
                name, why = next(iter(left_out.items()))
                raise SegkeyError(
                    f"no model can be used; {name}: {why}",
                    "restore its folder, or remove it to begin anew",
                )
            return results

    def _make_all(self, missing: list[Cell], total: int, splits: dict[str, Split]) -> None:
        """Make the cells that no other process is making."""
        number, waiting = total - len(missing), missing
        for _ in range(2):  # the second time, those that another process may have let go of
            held = []
            for cell in waiting:
                with contextlib.ExitStack() as stack:
                    if not all([stack.enter_context(self._hold(name)) for name in needed(cell)]):
                        held.append(cell)
                        continue
                    number += 1
                    if cell.name in distributed.broadcast(self.finished.read(splits)):
                        continue  # another process was faster
                    self.watch.say(f"{number}/{total}  {cell.name}")
                    self._make(cell, splits)
            waiting = held
        self.elsewhere = [cell.name for cell in waiting]
        if self.elsewhere:
            self.watch.say(
                f"{', '.join(self.elsewhere)}: another process is making this; give the command "
                "again when it has ended"
            )

    def _hold(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Keep other processes from making the cell of this name."""
        folder = self.out / WORKING / name
        make_folder(folder)
        return distributed.writer_if_free(folder)

    def _make(self, cell: Cell, splits: dict[str, Split]) -> None:
        """Train and attack a cell, or report why it is left out; overwrites nothing finished."""
        try:
            self._train_and_attack(cell, splits)
            self.watch.end()
        except (DivergedError, BrokenRunError) as error:
            self.watch.end()
            self.watch.say(f"{cell.name} is left out: {error.what}")
            if isinstance(error, DivergedError):
                self.diverged.append(cell.name)
            else:
                self.finished.left_out[cell.name] = error.what

    def _open_plain_shards(self) -> dict[str, Split]:
        """Plain shards, made once, and opened."""
        plain, folder = ciphers.from_key("none", None, 1), self.out / "plain"
        plans = encryption.plan_shards(self.source, folder, plain, size=self.settings.size, views=1)
        if not distributed.broadcast(all(plan.is_made() for plan in plans)):
            self.watch.say(f"plain shards of {len(self.source)} images are made in {folder}")
            result = encryption.encrypt(plans, plain, self.workers, progress=self.watch)
            for problem in result.problems:
                self.watch.say(f"left out {problem.name}: {problem.why}")
        splits = open_splits([folder])
        for name, least in LEAST.items():
            usable = len(splits.get(name, ()))
            if usable < least:
                raise SegkeyError(
                    f"the split '{name}' has {usable} images that can be used; {least} are needed",
                    "give more images, or mend those that are left out (they are named above, with "
                    "the reason)",
                )
        return splits

    def _train_and_attack(self, cell: Cell, splits: dict[str, Split]) -> None:
        cipher = self.cipher(cell)
        run = self._train(cell, cipher, splits)
        self.watch.begin(cell.name, "attack", weight=1.0)
        # Held while results are written, so that what a kill left half-written there goes.
        with distributed.sole_writer(run.path):
            result = self._attack(cell, run, cipher, splits["test"])
            document = authenticity.authenticated("cell", as_json(result), self.key)
            if distributed.is_main():  # the last: with it the cell is finished
                write_json(run.path / "cell.json", document)
        self.watch.say(cell_sentence(result))
        self.write(splits)

    def _attack(self, cell: Cell, run: runs.Run, cipher: ciphers.Cipher, test: Split) -> CellResult:
        """Try a cell's model, and tell all that is known of it."""
        keep, started_at, resumed = run.path / "attack.partial.jsonl", time.monotonic(), False
        if cell.method == "none":
            result = evaluation.evaluate(
                run, test, None, self.device, self.settings.limit, progress=self.watch
            )
            run.keep(result, self.key)
        else:
            target = attacks.Target.create(
                run,
                test,
                cipher,
                self.device,
                self.settings.limit,
                keep=keep,
                key=self.key,
                progress=self.watch,
            )
            resumed = len(target.journal) > 0
            budget = attacks.Budget(keys=self.settings.wrong_keys)
            result = attacks.attack_and_keep(target, attacks.Plan(budget=budget, seed=cell.seed))
        seconds = {
            "train": 0.0 if cell.locked else run.configuration.seconds,
            "attack": None
            if resumed
            else round(time.monotonic() - started_at, 3),  # a part of it was measured before
        }
        return describe(cell, run, result, seconds)

    def cipher(self, cell: Cell) -> ciphers.Cipher:
        """A cell's cipher under the owner's key."""
        password = PASSWORD.encode() if ciphers.has_password(cell.method) else None
        return ciphers.from_key(cell.method, self.key, cell.block_size, password=password)

    def _train(self, cell: Cell, cipher: ciphers.Cipher, splits: dict[str, Split]) -> runs.Run:
        """The cell's run: a new one, the rest of one that was cut off, or one that is finished."""
        folder, recipe = self.out / "runs", self.settings.recipe
        path, images = folder / cell.name, len(splits["train"])
        is_folder_there(path)
        if broken := distributed.broadcast(damage(path, self.key) if distributed.is_main() else ""):
            raise BrokenRunError(broken)
        if cell.locked:
            return locked(path, folder / Cell("none", 1, cell.seed).name, self.key, cell)
        begun = (
            runs.Run.open(path).unlock(self.key)
            if distributed.broadcast(os.path.lexists(path / "run.json"))
            else None
        )
        done = begun.configuration.epochs_done if begun else 0
        self.watch.begin(cell.name, "training", self._training_passes(), done * images)
        if begun and done == recipe.epochs:
            check_training(begun, splits, self.out / "plain")
            return begun
        how = {
            "device": self.device,
            "cipher": cipher,
            "progress": self.watch,
        }
        if begun:
            return training.resume(begun, splits, **how)
        if (
            distributed.is_main() and path.exists()
        ):  # killed before there was anything to go on with
            shutil.rmtree(path)
        shards = [self.out / "plain"]
        return training.train(
            splits,
            folder,
            recipe,
            shards=shards,
            name=cell.name,
            network=self.settings.network,
            seed=cell.seed,
            **how,
        )

    def write(self, splits: dict[str, Split]) -> Results:
        """Write ``results.json`` from all finished cells, and return it."""
        with distributed.sole_writer(self.out, wait=True):
            return self._write(splits)

    def _write(self, splits: dict[str, Split]) -> Results:
        order = {method: number for number, method in enumerate(("none", *ciphers.METHODS))}
        cells = sorted(
            self.finished.read(splits).values(),
            key=lambda c: (c.locked, order.get(c.method, 99), c.method, c.block_size, c.seed),
        )
        stated = read_json(self.out / "settings.json", "the settings of an experiment")
        results = Results(
            written=now(),
            versions=versions(),
            settings=stated["settings"],
            full_voc=is_full_voc(stated["settings"]),
            diverged=tuple(self.diverged),
            left_out=dict(self.finished.left_out),
            cells=tuple(cells),
            findings=tuple(examine(cells)),
        )
        if distributed.is_main():
            write_json(self.out / "results.json", results.document)
        return results

    def images(self) -> dict[str, int]:
        """How many images each split has, of the test split those that are used."""
        images = {split: len(items) for split, items in self.source.splits.items()}
        return images | {"test": min(images["test"], self.settings.limit or images["test"])}

    def _passes(self, cells: Sequence[Cell]) -> float:
        """How much work some cells are, in passes of an image through a network."""
        images, epochs = self.images(), self.settings.recipe.epochs
        training = epochs * images["train"] * self._training_passes()
        return sum(
            training * (not cell.locked) + images["test"] * self.times_tested(cell)
            for cell in cells
        )

    def _training_passes(self) -> float:
        """The work of a training image, with its share of the validation that follows."""
        images = self.images()
        return _TRAIN_PASSES + images["val"] / images["train"]

    def times_tested(self, cell: Cell) -> int:
        """Passes over the test images per cell: correct key, plain in each way, each wrong key."""
        if cell.method == "none":
            return 1
        return 1 + attacks.ways_of_plain(self.cipher(cell)) + self.settings.wrong_keys
