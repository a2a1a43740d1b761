"""What ``run.json`` says of a training: data, network, recipe, and what each part was made with.

A training that is resumed under other versions, on another device or with another number of ranks
has several segments; each names the epoch after which it begins.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from segkey.crypto.ciphers import Cipher
from segkey.model import runs
from segkey.model.batches import SHUFFLE_BUFFER
from segkey.model.network_registry import recorded
from segkey.model.recipes import RECIPES, recipe_of
from segkey.model.trainer import Settings, Trainer
from segkey.system import devices, distributed

_MATTERS = ("segkey", "torch", "torchvision", "numpy")  # their versions may change the weights


def configuration(trainer: Trainer, shards: list[Path]) -> dict:
    """What ``run.json`` says before the first epoch.

    Args:
        trainer: of the run.
        shards: where its splits came from.
    """
    settings = trainer.settings
    config = {
        "created": runs.now(),
        "versions": runs.versions(),
        "device": _describe(trainer.device),
        "segments": [_segment(trainer, 0)],
        "job": distributed.job_id(),
        "windowed": bool(trainer.train_loader.shuffle_buffer),
        "shuffle_buffer": trainer.train_loader.shuffle_buffer,
        "precise": settings.precise,
        "compiled": settings.compiled,
        "model": trainer.model.description,
        "data": data_of(trainer) | {"shards": [str(path) for path in shards]},
        "training": _training_of(trainer),
        "recipe": asdict(settings.recipe),
        "seed": settings.seed,
        "epochs_done": 0,
        "seconds": 0.0,
    }
    difference = _difference_from_paper(trainer, config["training"])
    return config | ({"differs_from_paper": difference} if difference else {})


def settings_of(run: runs.Run, resident: bool | None = None) -> Settings:
    """The settings that a run was begun with.

    Args:
        run: may come from an untrusted source, or from an earlier version.
        resident: keep all images on the device; by default, if they fit in its free memory.

    Raises:
        SegkeyError: its recipe is damaged.
    """
    config = run.config
    buffer = config.get("shuffle_buffer")
    if not isinstance(buffer, int) or buffer < 0:  # earlier versions only say if there is one
        buffer = SHUFFLE_BUFFER * config["windowed"] if "windowed" in config else None
    return Settings(
        recipe_of(run),
        recorded(config["model"]),
        config["precise"],
        config.get("compiled", False),
        config["seed"],
        resident,
        buffer,
    )


def data_of(trainer: Trainer) -> dict:
    """The data that a training goes through, and its cipher."""
    loader = trainer.train_loader
    header = loader.split.header
    encrypted = trainer.cipher or header
    return {
        "method": encrypted.method,
        "block_size": encrypted.block_size,
        "channels": header.channels,
        "max_value": trainer.max_value,
        "key_id": encrypted.key_id,
        "password_hash": encrypted.password_hash,
        "classes": list(header.classes),
        "ignore_index": header.ignore_index,
        "size": list(loader.split.size),
        "images": _images_of(trainer),
        "views": header.views,
        "on_the_fly": bool(trainer.cipher),
        "shards": [],
        "fingerprint": loader.split.fingerprint,
    }


def _training_of(trainer: Trainer) -> dict:
    """How images are augmented and computed with."""
    header, on_the_fly = trainer.train_loader.split.header, bool(trainer.cipher)
    return {
        "on_the_fly": on_the_fly,
        "views": header.views,
        "augmented": on_the_fly or header.augmented,
        "crop_scale": trainer.recipe.crop_scale if on_the_fly else header.crop_scale,
        "augmentation_seed": trainer.settings.seed if on_the_fly else header.seed,
        "images": _images_of(trainer),
        "dtype": _dtype_of(trainer),
        "world_size": distributed.world_size(),
    }


def _images_of(trainer: Trainer) -> dict[str, int]:
    return {"train": len(trainer.train_loader), "val": len(trainer.val_loader)}


def _dtype_of(trainer: Trainer) -> str:
    return devices.computes_in(trainer.device, trainer.settings.precise)


def begin_segment(run: runs.Run, trainer: Trainer, epoch: int) -> None:
    """Note in a run what its training goes on with after ``epoch`` epochs.

    Warns if that differs from what the earlier epochs were made with.
    """
    config, now = run.config, _segment(trainer, epoch)
    # Nothing is left of what was made after that epoch.
    segments = [each for each in _segments_of(config) if each["epoch"] < epoch]
    if segments and (changes := _changes(segments[-1], now)):
        devices.warn(
            f"run {run.name} goes on after epoch {epoch} with {', '.join(changes)}: "
            "its result may differ from that of an uninterrupted training"
        )
    if not segments:
        config |= {"versions": now["versions"], "device": now["device"]}
        config["training"] = _training_of(trainer)
    elif now["device"] not in config["device"].split(", then "):
        config["device"] += f", then {now['device']}"
    same = segments and {**segments[-1], "epoch": epoch} == now
    config["segments"] = segments if same else [*segments, now]


def _segment(trainer: Trainer, epoch: int) -> dict:
    """What the part of a training is made with that begins after ``epoch`` epochs."""
    return {
        "epoch": epoch,
        "versions": runs.versions(),
        "device": _describe(trainer.device),
        "dtype": _dtype_of(trainer),
        "world_size": distributed.world_size(),
    }


def _segments_of(config: dict) -> list[dict]:
    """The segments of a run that may be untrusted; runs of earlier versions have one."""
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


def _difference_from_paper(trainer: Trainer, training: dict) -> str:
    """How augmentation differs from the paper's, if the schedule is the paper's; else empty."""
    schedule = ("optimizer", "lr", "lr_min", "restart", "momentum", "weight_decay")
    recipe, paper = trainer.recipe, RECIPES["paper"]
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


def note_on_augmentation(config: dict, cipher: Cipher | None) -> str:
    """What a user must know to compare the model with others; empty if there is nothing to say.

    Args:
        config: from `configuration`.
        cipher: that the user gave.
    """
    training = config["training"]
    if config.get("differs_from_paper"):
        return (
            f"This is not quite the paper's recipe: {config['differs_from_paper']}, as plain "
            "shards with --key do."
        )
    if not training["augmented"]:
        return (
            "Training images are not augmented: the shards hold one view of each; segkey encrypt "
            "--views makes more."
        )
    if cipher is None and training["on_the_fly"]:
        return (
            f"Plain images are augmented anew in every epoch (crops from {training['crop_scale']} "
            "of the area), as with --key; to compare with shards of fixed views, make plain ones "
            "with --views too."
        )
    return ""
