"""What ``run.json`` says of a training: data, network, recipe, and what each part was made with.

A training that is resumed under other versions, on another device or with another number of ranks
has several segments; each names the epoch after which it begins.
"""

from dataclasses import replace
from pathlib import Path

import torch

from segkey.crypto.ciphers import Cipher
from segkey.model import runs
from segkey.model.batches import SHUFFLE_BUFFER
from segkey.model.configuration import Configuration, Data, Network, Segment, Training
from segkey.model.package_versions import now, versions
from segkey.model.recipes import RECIPES
from segkey.model.training_loop import Settings, Trainer
from segkey.shards.header import needed_of_images
from segkey.system import devices, distributed

_MATTERS = ("segkey", "torch", "torchvision", "numpy")  # their versions may change the weights


def configuration(trainer: Trainer, shards: list[Path]) -> Configuration:
    """What ``run.json`` says before the first epoch.

    Args:
        trainer: of the run.
        shards: where its splits came from.
    """
    settings = trainer.settings
    buffer = trainer.train_loader.shuffle_buffer
    training = _training_of(trainer)
    return Configuration(
        created=now(),
        versions=versions(),
        device=_describe(trainer.device),
        segments=(_segment(trainer, 0),),
        job=distributed.job_id(),
        windowed=bool(buffer),
        shuffle_buffer=buffer,
        precise=settings.precise,
        compiled=settings.compiled,
        model=Network(**trainer.model.description),
        data=replace(data_of(trainer), shards=tuple(str(path) for path in shards)),
        training=training,
        recipe=settings.recipe,
        log=settings.log,
        seed=settings.seed,
        epochs_done=0,
        seconds=0.0,
        differs_from_paper=_difference_from_paper(trainer, training),
    )


def settings_of(run: runs.Run, resident: bool | None = None) -> Settings:
    """The settings that a run was begun with.

    Args:
        run: may come from an untrusted source, or from an earlier version.
        resident: keep all images on the device; by default, if they fit in its free memory.
    """
    made = run.configuration
    buffer = made.shuffle_buffer
    if buffer is None and made.windowed is not None:  # earlier versions only say if there is one
        buffer = SHUFFLE_BUFFER * made.windowed
    return Settings(
        made.recipe,
        made.model.network,
        made.precise,
        bool(made.compiled),
        made.seed,
        resident,
        buffer,
        log=made.log,
    )


def data_of(trainer: Trainer) -> Data:
    """The data that a training goes through, and its cipher."""
    loader = trainer.train_loader
    header, by_cipher = loader.split.header, ("method", "block_size", "key_id", "password_hash")
    needed = needed_of_images(header) | {"max_value": trainer.max_value}
    if trainer.cipher:
        needed |= {name: getattr(trainer.cipher, name) for name in by_cipher}
    return Data(
        **needed,
        size=tuple(loader.split.size),
        images=_images_of(trainer),
        views=header.views,
        on_the_fly=bool(trainer.cipher),
        shards=(),
        fingerprint=loader.split.fingerprint,
        reading=header.reading or None,
        pixel_range=header.pixel_range or None,
    )


def _training_of(trainer: Trainer) -> Training:
    """How images are augmented and computed with."""
    header, on_the_fly = trainer.train_loader.split.header, bool(trainer.cipher)
    return Training(
        on_the_fly=on_the_fly,
        views=header.views,
        augmented=on_the_fly or header.augmented,
        crop_scale=trainer.recipe.crop_scale if on_the_fly else header.crop_scale,
        augmentation_seed=trainer.settings.seed if on_the_fly else header.seed,
        images=_images_of(trainer),
        dtype=_dtype_of(trainer),
        world_size=distributed.world_size(),
    )


def _images_of(trainer: Trainer) -> dict[str, int]:
    return {"train": len(trainer.train_loader), "val": len(trainer.val_loader)}


def _dtype_of(trainer: Trainer) -> str:
    return devices.computes_in(trainer.device, trainer.settings.precise)


def begin_segment(run: runs.Run, trainer: Trainer, epoch: int) -> None:
    """Note in a run what its training goes on with after ``epoch`` epochs.

    Warns if that differs from what the earlier epochs were made with.
    """
    made, now = run.configuration, _segment(trainer, epoch)
    # Nothing is left of what was made after that epoch.
    segments = tuple(each for each in _segments_of(made) if each.epoch < epoch)
    if segments and (changes := _changes(segments[-1], now)):
        devices.warn(
            f"run {run.name} goes on after epoch {epoch} with {', '.join(changes)}: "
            "its result may differ from that of an uninterrupted training"
        )
    if not segments:
        made = replace(
            made, versions=now.versions, device=now.device, training=_training_of(trainer)
        )
    elif now.device not in (made.device or "").split(", then "):
        device = f"{made.device}, then {now.device}" if made.device else now.device
        made = replace(made, device=device)
    same = segments and replace(segments[-1], epoch=epoch) == now
    run.configuration = replace(made, segments=segments if same else (*segments, now))


def _segment(trainer: Trainer, epoch: int) -> Segment:
    """What the part of a training is made with that begins after ``epoch`` epochs."""
    return Segment(
        epoch=epoch,
        versions=versions(),
        device=_describe(trainer.device),
        dtype=_dtype_of(trainer),
        world_size=distributed.world_size(),
    )


def _segments_of(made: Configuration) -> tuple[Segment, ...]:
    """The segments of a run; runs of earlier versions have one."""
    first = Segment(epoch=0, versions=made.versions or {}, device=made.device)
    return made.segments or (first,)


def _changes(before: Segment, now: Segment) -> list[str]:
    """What differs between two segments, in words; what was not recorded is not compared."""
    pairs = {name: (before.versions.get(name), now.versions.get(name)) for name in _MATTERS}
    for what in ("device", "dtype", "world_size"):
        pairs[what.replace("_", " ")] = getattr(before, what), getattr(now, what)
    return [
        f"{name} {new} (before: {old})"
        for name, (old, new) in pairs.items()
        if old is not None and old != new
    ]


def _describe(device: torch.device) -> str:
    """The devices of all ranks, in words."""
    ranks = "" if distributed.is_single() else f"{distributed.world_size()} x "
    return ranks + devices.describe(device)


def _difference_from_paper(trainer: Trainer, training: Training) -> str | None:
    """How augmentation differs from the paper's, if the schedule is the paper's."""
    schedule = ("optimizer", "lr", "lr_min", "restart", "momentum", "weight_decay")
    recipe, paper = trainer.recipe, RECIPES["paper"]
    if training.on_the_fly or any(
        getattr(recipe, name) != getattr(paper, name) for name in schedule
    ):
        return None
    wanted = f"the paper draws new crops in every epoch (here from {paper.crop_scale} of the area)"
    if not training.augmented:
        return f"training images are not augmented; {wanted}"
    return (
        f"each training image has {training.views} fixed views, made beforehand (crops from "
        f"{training.crop_scale} of the area); {wanted}"
    )


def note_on_augmentation(made: Configuration, cipher: Cipher | None) -> str:
    """What a user must know to compare the model with others; empty if there is nothing to say.

    Args:
        made: from `configuration`.
        cipher: that the user gave.
    """
    training = made.training
    if made.differs_from_paper:
        return (
            f"This is not quite the paper's recipe: {made.differs_from_paper}, as plain "
            "shards with --key do."
        )
    if not training.augmented:
        return (
            "Training images are not augmented: the shards hold one view of each; segkey encrypt "
            "--views makes more."
        )
    if cipher is None and training.on_the_fly:
        return (
            f"Plain images are augmented anew in every epoch (crops from {training.crop_scale} "
            "of the area), as with --key; to compare with shards of fixed views, make plain ones "
            "with --views too."
        )
    return ""
