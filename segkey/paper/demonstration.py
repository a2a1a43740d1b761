"""The demo, ``segkey demo``: encrypt, train, evaluate and attack on built-in scenes."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from segkey import attacks
from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.data import scenes, sources
from segkey.data.items import Source
from segkey.errors import SegkeyError
from segkey.model import authenticity, evaluation, evaluation_splits, recipes, runs, training
from segkey.shards import encryption, open_splits
from segkey.system.files import is_folder_there, is_there, make_folder
from segkey.system.progress import SILENT, Progress

NETWORK, SIZE = "resnet14", (64, 64)  # a laptop trains it in a minute
SCENES = {"train": 200, "val": 30, "test": 60}
_MADE = ("scenes", "shards", "runs", "keys")
_KEY = "keys/demo.key"
_OTHER = "choose another --out, or use --force to replace it"


@dataclass(frozen=True)
class Demo:
    """A demo in a folder.

    Attributes:
        out: folder for all of it.
        methods: each gets a model of its own.
        block_size: M.
        wrong_keys: how many are tried on each model.
        epochs: of each training.
        device: where to compute.
        progress: hears what happens.
    """

    out: Path
    methods: Sequence[str]
    block_size: int
    wrong_keys: int
    epochs: int
    device: torch.device
    progress: Progress = SILENT

    def run(self, force: bool = False) -> list[runs.Run]:
        """Draw scenes, make a key, and for each method encrypt, train, evaluate and attack.

        What an earlier demo finished in the folder is kept, and what was cut off goes on.

        Args:
            force: begin again: remove what an earlier demo left in the folder.

        Returns:
            The finished runs, with their results.

        Raises:
            SegkeyError: the folder holds something else, or models trained for other epochs.
        """
        out, say = self.out, self.progress.say
        _make_room(out, force)
        key = _key(make_folder(out) / _KEY)  # first, as a folder with it is known as a demo's
        say(f"1. key {key.id} in {out / _KEY}")
        say(f"2. {sum(SCENES.values())} scenes, drawn into {out / 'scenes'}")
        source, finished = _scenes(out / "scenes"), []
        for number, method in enumerate(self.methods, 3):
            say(
                f"{number}. {method.upper()} with M = {self.block_size}: encrypt, train, attack "
                f"with {self.wrong_keys} wrong keys"
            )
            cipher = ciphers.from_key(method, key, self.block_size)
            trained = self._train(source, cipher)
            self._measure(trained, cipher, key)
            finished.append(trained)
        return finished

    def _train(self, source: Source, cipher: ciphers.Cipher) -> runs.Run:
        """The run of a method: a new one, the rest of one that was cut off, or a finished one."""
        shards = self.out / "shards" / cipher.method
        plans = encryption.plan_shards(source, shards, cipher, SIZE)
        if not all(plan.is_made() for plan in plans):
            encryption.encrypt(plans, cipher, progress=self.progress)
        splits = open_splits([shards], ("train", "val"))
        recipe = recipes.recipe("scratch", epochs=self.epochs)
        path = self.out / "runs" / f"{cipher.method}-m{cipher.block_size}"
        how = {"device": self.device, "progress": self.progress}
        if not is_there(path / "run.json"):
            how |= {"shards": [shards], "name": path.name, "network": NETWORK}
            return training.train(splits, path.parent, recipe, **how)
        begun = runs.Run.open(path)
        if begun.configuration.recipe != recipe:
            raise SegkeyError(f"{path} was begun with other settings, such as --epochs", _OTHER)
        if begun.configuration.epochs_done < self.epochs:
            return training.resume(begun, splits, **how)
        return begun

    def _measure(self, run: runs.Run, cipher: ciphers.Cipher, key: Key) -> None:
        """Evaluate a run; attack it, unless an earlier demo has, with as many keys."""
        test, progress = evaluation_splits.open_test_split(run), self.progress
        run.keep(evaluation.evaluate(run, test, cipher, self.device, progress=progress), key)
        if _is_attacked(run, key, self.wrong_keys):
            return
        target = attacks.Target.create(run, test, cipher, self.device, key=key, progress=progress)
        attacks.attack_and_keep(target, attacks.Plan(budget=attacks.Budget(keys=self.wrong_keys)))


def _make_room(out: Path, force: bool) -> None:
    """Remove what an earlier demo left (``force``), or refuse a folder that no demo made."""
    there = [out / name for name in _MADE if is_folder_there(out / name)]
    if force:
        for folder in there:
            shutil.rmtree(folder)
    elif there and not is_there(out / _KEY):
        raise SegkeyError(f"{there[0]} already exists, and no demo made it", _OTHER)


def _scenes(folder: Path) -> Source:
    """The scenes, drawn if they are not there; the same ones every time."""
    if not is_there(folder / "classes.txt"):  # the last file that is written
        scenes.write(folder, **SCENES, size=96)
    return sources.find(folder)


def _key(file: Path) -> Key:
    """The demo's key, made if it is not there."""
    if is_there(file):
        return Key.load(file)
    key = Key.generate()
    key.save(file)
    return key


def _is_attacked(run: runs.Run, key: Key, wrong_keys: int) -> bool:
    """Whether an earlier demo has attacked the run with as many keys."""
    attack = run.result("attack")
    return bool(
        attack
        and attack.incorrect.keys == wrong_keys
        and authenticity.is_authentic("attack", attack.document, key)
    )
