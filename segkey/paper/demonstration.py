"""The demo, ``segkey demo``: encrypt, train, evaluate and attack on built-in scenes."""

import shutil
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


def run(
    out: Path,
    methods: list[str],
    block_size: int,
    wrong_keys: int,
    epochs: int,
    device: torch.device,
    force: bool = False,
    progress: Progress = SILENT,
) -> list[runs.Run]:
    """Draw scenes, make a key, and for each method encrypt, train, evaluate and attack.

    What an earlier demo finished in the folder is kept, and what was cut off goes on.

    Args:
        out: folder for all of it.
        block_size: M.
        wrong_keys: how many wrong keys to try.
        epochs: of each training.
        force: begin again: remove what an earlier demo left in ``out``.

    Returns:
        The finished runs, with their results.

    Raises:
        SegkeyError: the folder holds something else, or models trained for other epochs.
    """
    there = [out / name for name in _MADE if is_folder_there(out / name)]
    if force:
        for folder in there:
            shutil.rmtree(folder)
    elif there and not is_there(out / _KEY):
        raise SegkeyError(f"{there[0]} already exists, and no demo made it", _OTHER)
    key = _key(make_folder(out) / _KEY)  # first, as a folder with it is known as a demo's
    progress.say(f"1. key {key.id} in {out / _KEY}")
    progress.say(f"2. {sum(SCENES.values())} scenes, drawn into {out / 'scenes'}")
    source = _scenes(out / "scenes")
    finished = []
    for number, method in enumerate(methods, 3):
        progress.say(
            f"{number}. {method.upper()} with M = {block_size}: encrypt, train, attack with "
            f"{wrong_keys} wrong keys"
        )
        cipher = ciphers.from_key(method, key, block_size)
        trained = _train(out, source, cipher, epochs, device, progress)
        test = evaluation_splits.open_test_split(trained)
        trained.keep(evaluation.evaluate(trained, test, cipher, device, progress=progress), key)
        if not _is_attacked(trained, key, wrong_keys):
            target = attacks.Target.create(
                trained, test, cipher, device, key=key, progress=progress
            )
            plan = attacks.Plan(budget=attacks.Budget(keys=wrong_keys))
            attacks.attack_and_keep(target, plan)
        finished.append(trained)
    return finished


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


def _train(
    out: Path,
    source: Source,
    cipher: ciphers.Cipher,
    epochs: int,
    device: torch.device,
    progress: Progress,
) -> runs.Run:
    """The run of one method: a new one, the rest of one that was cut off, or a finished one."""
    shards = out / "shards" / cipher.method
    plans = encryption.plan_shards(source, shards, cipher, SIZE)
    if not all(plan.is_made() for plan in plans):
        encryption.encrypt(plans, cipher, progress=progress)
    splits = open_splits([shards], ("train", "val"))
    recipe = recipes.recipe("scratch", epochs=epochs)
    path = out / "runs" / f"{cipher.method}-m{cipher.block_size}"
    if not is_there(path / "run.json"):
        return training.train(
            splits,
            out / "runs",
            recipe,
            shards=[shards],
            device=device,
            name=path.name,
            network=NETWORK,
            progress=progress,
        )
    begun = runs.Run.open(path)
    if begun.configuration.recipe != recipe:
        raise SegkeyError(f"{path} was begun with other settings, such as --epochs", _OTHER)
    if begun.configuration.epochs_done < epochs:
        return training.resume(begun, splits, device=device, progress=progress)
    return begun


def _is_attacked(run: runs.Run, key: Key, wrong_keys: int) -> bool:
    """Whether an earlier demo has attacked the run with as many keys."""
    attack = run.result("attack")
    return bool(
        attack
        and attack.incorrect.keys == wrong_keys
        and authenticity.is_authentic("attack", attack.document, key)
    )
