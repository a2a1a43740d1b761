"""The demo, ``segkey demo``: encrypt, train, evaluate and attack on built-in scenes."""

import shutil
from pathlib import Path

import torch

from segkey import attacks
from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.data import scenes, sources
from segkey.errors import SegkeyError
from segkey.model import evaluation, evaluation_splits, recipes, training
from segkey.model.runs import Run
from segkey.shards import encryption, open_splits
from segkey.system.files import is_folder_there, make_folder
from segkey.system.progress import SILENT, Progress

NETWORK, SIZE = "resnet14", (64, 64)  # a laptop trains it in a minute
SCENES = {"train": 200, "val": 30, "test": 60}
_MADE = ("scenes", "shards", "runs", "keys")


def run(
    out: Path,
    methods: list[str],
    block_size: int,
    wrong_keys: int,
    epochs: int,
    device: torch.device,
    force: bool = False,
    progress: Progress = SILENT,
) -> list[Run]:
    """Draw scenes, make a key, and for each method encrypt, train, evaluate and attack.

    Args:
        out: folder for all of it.
        methods: names of methods.
        block_size: M.
        wrong_keys: how many wrong keys to try.
        epochs: of each training.
        device: where to compute.
        force: remove what an earlier demo left in ``out``.
        progress: hears what happens.

    Returns:
        The finished runs, with their results.
    """
    there = [out / name for name in _MADE if is_folder_there(out / name)]
    if there and not force:
        raise SegkeyError(
            f"{there[0]} already exists", "choose another --out, or use --force to replace it"
        )
    for folder in there:
        shutil.rmtree(folder)
    progress.say(f"1. {sum(SCENES.values())} scenes, drawn into {make_folder(out) / 'scenes'}")
    source = sources.find(scenes.write(out / "scenes", **SCENES, size=96))
    key = Key.generate()
    key.save(out / "keys" / "demo.key")
    progress.say(f"2. key {key.id} in {out / 'keys' / 'demo.key'}")
    recipe, runs = recipes.recipe("scratch", epochs=epochs), []
    for number, method in enumerate(methods, 3):
        cipher, shards = ciphers.from_key(method, key, block_size), out / "shards" / method
        progress.say(
            f"{number}. {method.upper()} with M = {block_size}: encrypt, train, attack with "
            f"{wrong_keys} wrong keys"
        )
        plans = encryption.plan_shards(source, shards, cipher, SIZE)
        encryption.encrypt(plans, cipher, progress=progress)
        trained = training.train(
            open_splits([shards], ("train", "val")),
            out / "runs",
            recipe,
            shards=[shards],
            device=device,
            network=NETWORK,
            progress=progress,
        )
        test = evaluation_splits.open_test_split(trained)
        trained.keep(evaluation.evaluate(trained, test, cipher, device, progress=progress), key)
        target = attacks.Target.create(trained, test, cipher, device, key=key, progress=progress)
        budget = attacks.Budget(keys=wrong_keys)
        attacks.attack_and_keep(target, attacks.Plan(budget=budget))
        runs.append(trained)
    return runs
