"""The training loop from top to bottom.

Two ways of feeding it. From encrypted shards the trainer needs no key: view e mod V in epoch e.
From plain shards with a cipher, images are augmented and then encrypted on the device, anew in
every epoch; that is the paper's protocol. Plain shards without a cipher are augmented in the same
way, unless they were
augmented when they were made: the baseline is trained like the models it is compared with. All
randomness comes from the seed and the number of the epoch, so a training that was cut and resumed
ends where the uninterrupted one ends (equal on the CPU).

Under torchrun each rank has its slice of every batch, and gradients are those of the whole batch,
whatever the number of ranks. Two things are not those of one process: dropout is drawn by each rank
for itself, and on CPUs (for which torch has no synchronised batch normalisation) batches are
normalised by the statistics of a rank's slice.
"""

import contextlib
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher
from segkey.data.augment import random_crops
from segkey.errors import SegkeyError
from segkey.model import run_names, runs
from segkey.model.batches import crop_batch
from segkey.model.recipes import RECIPES, Recipe, recipe_of
from segkey.model.trainer import Trainer
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system import devices, distributed
from segkey.system.files import is_there, make_folder
from segkey.system.progress import SILENT, Progress
from segkey.system.seeds import seeded


def train(
    splits: dict[str, Split],
    folder: Path,
    recipe: Recipe,
    *,
    shards: list[Path],
    device: torch.device,
    name: str | None = None,
    backbone: str = "resnet50",
    cipher: Cipher | None = None,
    key_id: str = "",
    precise: bool = False,
    compiled: bool = False,
    seed: int = 0,
    resident: bool | None = None,
    progress: Progress = SILENT,
) -> runs.Run:
    """Train a network and keep it as a run.

    Where torchrun starts its ranks again after a failure, this goes on with the run that it had
    begun.

    Args:
        splits: ``train`` and ``val``, with masks.
        folder: where runs are kept.
        recipe: how to train.
        shards: where the splits came from; kept in the run, so that later commands find them.
        device: where to compute.
        name: the run's name; made from method and block size, if not given.
        backbone: a name in `segkey.model.networks.BACKBONES`.
        cipher: encrypts plain shards on the device, after augmentation. Without it, plain shards
            that were not augmented when they were made are augmented on the device too.
        key_id: of the key that ``cipher`` came from.
        precise: float32 even where the device computes in bfloat16.
        compiled: let `torch.compile` translate the network first; it takes a minute, and needs a
            compiler on the CPU.
        seed: decides everything that is random.
        resident: keep all images on the device; decided by its memory, if not given.
        progress: hears of every epoch.

    Raises:
        SegkeyError: splits that cannot be trained on, weights that are not there, a name that is
            taken.
    """
    given, cipher = cipher, _cipher_on_device(splits, cipher)
    trainer = Trainer(
        splits,
        recipe,
        backbone,
        recipe.weights,
        cipher,
        device,
        precise,
        seed,
        resident,
        progress,
        compiled,
    )
    if begun := distributed.broadcast(
        _begun_by_this_job(folder, name) if distributed.is_main() else None
    ):
        run = runs.Run.open(begun)
        finished = run.config["epochs_done"] >= recipe.epochs
        return run if finished else _go_on(trainer, run, key_id)
    config = _configuration(trainer, shards, key_id)
    if note := _note_on_augmentation(config, given):
        progress.say(note)
    default = (
        "plain"
        if config["data"]["method"] == "none"
        else "{method}-m{block_size}".format(**config["data"])
    )
    name = (
        run_names.check_name(name)
        if name
        else distributed.broadcast(runs.free_name(folder, default))
    )
    distributed.barrier()  # nobody looks for a run that the first rank has made since
    runs.check_free(folder / name)
    distributed.barrier()
    if distributed.is_main():
        make_folder(folder / name)
    with distributed.sole_writer(folder / name):
        run = runs.Run.create(folder, name, config)
        trainer.fit(run, 0, [], math.inf, None)
    return run


def on_the_fly(splits: dict[str, Split], cipher: Cipher | None) -> bool:
    """Whether `train` augments images on the device."""
    return _cipher_on_device(splits, cipher) is not None


def _cipher_on_device(splits: dict[str, Split], cipher: Cipher | None) -> Cipher | None:
    """What images go through on the device after augmentation; None where they were augmented
    beforehand."""
    header = splits["train"].header if "train" in splits else None
    if cipher is None and header and header.method == "none" and not header.augmented:
        return ciphers.from_key("none", None, 1)
    return cipher


def _begun_by_this_job(folder: Path, name: str | None) -> Path | None:
    """The run (of that name, where one is given) that torchrun's job had begun before it started
    its ranks again."""
    if not distributed.restarted():
        return None
    for path in run_names.folders(folder):
        if name in (None, path.name):
            with contextlib.suppress(SegkeyError):  # a broken run is not this job's
                run = runs.Run.open(path)
                if run.config.get("job") == distributed.job_id():
                    return run.path
    return None


def resume(
    run: runs.Run,
    splits: dict[str, Split],
    *,
    device: torch.device,
    cipher: Cipher | None = None,
    key_id: str = "",
    resident: bool | None = None,
    progress: Progress = SILENT,
) -> runs.Run:
    """Go on with a run that was cut off, with its own settings; the other arguments are those of
    `train`.

    Raises:
        SegkeyError: it is finished, or the splits or the key are not those it was begun with.
    """
    config, recipe = run.config, recipe_of(run)
    if config["epochs_done"] >= recipe.epochs:
        raise SegkeyError(f"run {run.name} has all its {recipe.epochs} epochs", "train a new run")
    if cipher is None and config["data"]["method"] == "none" and config["data"].get("on_the_fly"):
        cipher = ciphers.from_key("none", None, 1)
    trainer = Trainer(
        splits,
        recipe,
        config["model"]["backbone"],
        "none",
        cipher,
        device,
        config["precise"],
        config["seed"],
        resident,
        progress,
        config.get("compiled", False),
    )
    return _go_on(trainer, run, key_id)


def _go_on(trainer: "Trainer", run: runs.Run, key_id: str) -> runs.Run:
    """Train a run on from where it was saved last."""
    run.config = config = distributed.broadcast(run.config)
    trainer.train_loader.windowed = config.get("windowed", trainer.train_loader.windowed)
    for what, value in _configuration(trainer, [], key_id)["data"].items():
        # The shards may have moved; runs of earlier versions have no fingerprint of them.
        if (
            what != "shards"
            and config["data"].get(what, value if what == "fingerprint" else None) != value
        ):
            raise SegkeyError(
                f"run {run.name} was begun with {what.replace('_', ' ')} "
                f"{config['data'].get(what)}, not {value}",
                "give the shards and the key that it was begun with, or train a new run",
            )
    with distributed.sole_writer(run.path):
        if is_there(run.state_file):
            begin = trainer.restore(run)
        else:  # cut off before anything was saved
            trainer.start_again(config["recipe"]["weights"])
            begin = 0, [], math.inf, None
        distributed.require_same({"the epochs it goes on after": str(begin[1])}, shown=False)
        _begin_segment(run, trainer, begin[0])
        trainer.fit(run, *begin)
    return run


_MATTERS = (
    "segkey",
    "torch",
    "torchvision",
    "numpy",
)  # versions that may change what a training ends with


def _segment(trainer: "Trainer", epoch: int) -> dict:
    """With what a part of a training is made: the one that begins after ``epoch`` epochs."""
    return {
        "epoch": epoch,
        "versions": runs.versions(),
        "device": _describe(trainer.device),
        "dtype": trainer.dtype,
        "world_size": distributed.world_size(),
    }


def _begin_segment(run: runs.Run, trainer: "Trainer", epoch: int) -> None:
    """Note with what a training goes on, and warn where that differs from what its earlier epochs
    were made with."""
    config, now = run.config, _segment(trainer, epoch)
    segments = [
        each for each in _segments_of(config) if each["epoch"] < epoch
    ]  # nothing is left of the others
    if segments and (changes := _changes(segments[-1], now)):
        devices.warn(
            f"run {run.name} goes on after epoch {epoch} with {', '.join(changes)}: "
            "its result may differ from that of an uninterrupted training"
        )
    if not segments:
        config |= {"versions": now["versions"], "device": now["device"]}
        config["training"] = _configuration(trainer, [], "")["training"]
    elif now["device"] not in config["device"].split(", then "):
        config["device"] += f", then {now['device']}"
    same = segments and {**segments[-1], "epoch": epoch} == now
    config["segments"] = segments if same else [*segments, now]


def _segments_of(config: dict) -> list[dict]:
    """The segments of a run that may come from anybody; runs of earlier versions have one."""
    versions, device = config.get("versions"), config.get("device")
    first = {
        "epoch": 0,
        "versions": versions if isinstance(versions, dict) else {},
        "device": device,
    }
    known = config.get("segments")
    if not isinstance(known, list) or not all(isinstance(each, dict) for each in known):
        return [first]
    fine = all(
        isinstance(each.get("epoch"), int) and isinstance(each.get("versions"), dict)
        for each in known
    )
    return known if known and fine else [first]


def _changes(before: dict, now: dict) -> list[str]:
    """What differs between two segments, in words; what was not recorded is not compared."""
    pairs = {name: (before["versions"].get(name), now["versions"].get(name)) for name in _MATTERS}
    for what in ("device", "dtype", "world_size"):
        pairs[what.replace("_", " ")] = before.get(what), now[what]
    return [
        f"{name} {new} (before: {old})"
        for name, (old, new) in pairs.items()
        if old is not None and old != new
    ]


def _describe(device: torch.device) -> str:
    """The devices of all ranks, in words."""
    ranks = "" if distributed.is_single() else f"{distributed.world_size()} x "
    return ranks + devices.describe(device)


def seconds_an_image(
    split: Split | MemorySplit,
    recipe: Recipe,
    backbone: str,
    cipher: Cipher | None,
    device: torch.device,
    patience: float = 30.0,
) -> float:
    """How long an image takes in a training step here, from a few real steps; nothing is kept.

    Args:
        split: some images with masks, repeated to fill a batch.
        recipe, backbone, cipher, device: as for `train`; its weights are random, which takes as
            long.
        patience: seconds; where steps of the recipe's batch take longer, smaller batches are
            measured.
    """
    splits = {"train": split, "val": split}
    chosen = replace(
        recipe, weights="none", batch_size=max(recipe.batch_size, distributed.world_size())
    )
    trainer = Trainer(splits, chosen, backbone, "none", cipher, device, False, 0, True, SILENT)
    trainer.model.train()

    def step(count: int) -> float:
        began = time.monotonic()
        order = np.resize(np.arange(len(split)), count)
        ((images, masks),) = trainer.train_loader.batches(count, order)
        if cipher:
            crops = random_crops(
                seeded("measure"), np.broadcast_to(split.size, (count, 2)), (recipe.crop_scale, 1.0)
            )
            images, masks = crop_batch(images, masks, torch.from_numpy(crops))
        float(trainer._step(images, masks, recipe.lr_min))
        return (time.monotonic() - began) / count

    few = min(4, recipe.batch_size)
    step(few)  # the first step is slower: kernels are chosen
    count = min(recipe.batch_size, max(few, int(patience / step(few) / 4)))
    step(count)
    return min(step(count) for _ in range(2))


def _configuration(trainer: "Trainer", shards: list[Path], key_id: str) -> dict:
    """What ``run.json`` says from the beginning."""
    header, cipher = trainer.train_loader.split.header, trainer.cipher
    data = {
        "method": cipher.method if cipher else header.method,
        "block_size": cipher.block_size if cipher else header.block_size,
        "channels": header.channels,
        "max_value": trainer.max_value,
        "key_id": (key_id if cipher.method != "none" else "") if cipher else header.key_id,
        "password_hash": cipher.password_hash if cipher else header.password_hash,
        "classes": list(header.classes),
        "ignore_index": header.ignore_index,
        "size": list(trainer.train_loader.split.size),
        "images": {"train": len(trainer.train_loader), "val": len(trainer.val_loader)},
        "views": header.views,
        "on_the_fly": bool(cipher),
        "shards": [str(path) for path in shards],
        "fingerprint": trainer.train_loader.split.fingerprint,
    }
    training = {
        "on_the_fly": bool(cipher),
        "views": header.views,
        "augmented": bool(cipher) or header.augmented,
        "crop_scale": trainer.recipe.crop_scale if cipher else header.crop_scale,
        "augmentation_seed": trainer.seed if cipher else header.seed,
        "images": data["images"],
        "dtype": trainer.dtype,
        "world_size": distributed.world_size(),
    }
    config = {
        "created": runs.now(),
        "versions": runs.versions(),
        "device": _describe(trainer.device),
        "segments": [_segment(trainer, 0)],
        "job": distributed.job_id(),
        "windowed": trainer.train_loader.windowed,
        "precise": trainer.precise,
        "compiled": trainer.compiled,
        "model": {"backbone": trainer.backbone},
        "data": data,
        "training": training,
        "recipe": asdict(trainer.recipe),
        "seed": trainer.seed,
        "epochs_done": 0,
        "seconds": 0.0,
    }
    difference = _difference_from_paper(trainer.recipe, config)
    return config | ({"differs_from_paper": difference} if difference else {})


def _difference_from_paper(recipe: Recipe, config: dict) -> str:
    """How augmentation differs from the paper's where the recipe is the paper's otherwise; empty if
    it does not."""
    schedule = ("optimizer", "lr", "lr_min", "restart", "momentum", "weight_decay")
    paper, training = RECIPES["paper"], config["training"]
    if training["on_the_fly"] or any(
        getattr(recipe, name) != getattr(paper, name) for name in schedule
    ):
        return ""
    wanted = f"the paper draws new crops in every epoch (here from {paper.crop_scale} of the area)"
    if not training["augmented"]:
        return f"training images are not augmented; {wanted}"
    return (
        f"each training image has {training['views']} fixed views, made beforehand (crops from "
        f"{training['crop_scale']} of the area); {wanted}"
    )


def _note_on_augmentation(config: dict, cipher: Cipher | None) -> str:
    """What a user must know to compare the model with others; empty if it is trained as was asked
    for."""
    training = config["training"]
    if config.get("differs_from_paper"):
        return f"This is not quite the paper's recipe: {config['differs_from_paper']}, as plain shards with --key do."
    if not training["augmented"]:
        return "Training images are not augmented: the shards hold one view of each; segkey encrypt --views makes more."
    if cipher is None and training["on_the_fly"]:
        return (
            f"Plain images are augmented anew in every epoch (crops from {training['crop_scale']} "
            f"of the area), as with "
            "--key; to compare with shards of fixed views, make plain ones with --views too."
        )
    return ""
