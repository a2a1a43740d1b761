"""Train a network on shards and keep it as a run, or go on with a run that was cut off.

From encrypted shards the trainer needs no key: epoch e sees view e mod V. With a cipher, images of
plain shards are augmented and then encrypted on the device, anew in every epoch; that is the
paper's protocol. Plain shards without a cipher are augmented in the same way, unless they were
augmented when they were made: the baseline is trained like the models it is compared with. All
randomness comes from the seed and the number of the epoch, so a resumed training ends with the
weights of the uninterrupted one (equal on the CPU).

Under torchrun each rank has its slice of every batch, and gradients are those of the whole batch,
whatever the number of ranks. Two things are not those of one process: each rank draws its own
dropout, and on CPUs (for which torch has no synchronised batch normalisation) batches are
normalised by the statistics of a rank's slice.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model import run_names, run_recording, runs, sealed_runs
from segkey.model.checkpoint import Checkpoint, restore
from segkey.model.configuration import Data
from segkey.model.package_versions import versions
from segkey.model.recipes import Recipe
from segkey.model.training_loop import Settings, Trainer
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system import devices, distributed
from segkey.system.files import is_there, make_folder
from segkey.system.json_records import as_json
from segkey.system.progress import SILENT, Progress


def train(
    splits: dict[str, Split],
    folder: Path,
    recipe: Recipe,
    *,
    shards: list[Path],
    device: torch.device,
    name: str | None = None,
    cipher: Cipher | None = None,
    recipients: Sequence[str] = (),
    progress: Progress = SILENT,
    **settings: object,
) -> runs.Run:
    """Train a network and keep it as a run.

    If torchrun has started its ranks again after a failure, this goes on with the run that the job
    had begun.

    Args:
        splits: ``train`` and ``val``, with masks.
        folder: where runs are kept.
        recipe: how to train.
        shards: where the splits came from; kept in the run, so that later commands find them.
        name: the run's name; by default from method and block size.
        cipher: augments, then encrypts plain shards on the device. Without it, plain shards that
            were not augmented when they were made are augmented on the device too.
        recipients: seal the run for these public texts ``age1…``: neither its weights nor the state
            that a resumption needs are ever written unencrypted.
        settings: other fields of `Settings`: ``network``, ``seed``, ``precise``, ``compiled``,
            ``resident``, ``shuffle_buffer``, ``save_every``.

    Raises:
        SegkeyError: splits that cannot be trained on, weights that are not there, a name that is
            taken.
    """
    chosen = Settings(recipe, **settings)
    promised = sealed_runs.sealed_for(recipients) if recipients else None
    begun = _begun_by_this_job(folder, name) if distributed.is_main() else None
    if begun := distributed.broadcast(begun):
        run = runs.Run.open(begun)
        how = {"device": device, "cipher": cipher, "progress": progress}
        return run if is_finished(run) else resume(run, splits, resident=chosen.resident, **how)
    trainer = _trainer(splits, chosen, device, _cipher_on_device(splits, cipher), progress)
    begun_with = replace(run_recording.configuration(trainer, shards), sealed=promised)
    if note := run_recording.note_on_augmentation(begun_with, cipher):
        progress.say(note)
    path = _make_folder(folder, name, begun_with.data)
    with distributed.sole_writer(path):
        run = runs.Run.create(folder, path.name, begun_with)
        trainer.fit(run, Checkpoint())
    return run


def resume(
    run: runs.Run,
    splits: dict[str, Split],
    *,
    device: torch.device,
    cipher: Cipher | None = None,
    resident: bool | None = None,
    progress: Progress = SILENT,
) -> runs.Run:
    """Go on with a run that was cut off, with the settings that it was begun with.

    Args:
        run: the run; one that is sealed has been given its key (`segkey.model.runs.Run.unlock`).
        splits, device, cipher, progress: as for `train`.
        resident: keep all images on the device; by default, if they fit in its free memory.

    Raises:
        SegkeyError: it is finished, or the splits or the key are not those it was begun with.
    """
    _check_can_go_on(run)
    run.configuration = distributed.broadcast(run.configuration)
    data = run.configuration.data
    if cipher is None and data.method == "none" and data.on_the_fly:
        cipher = ciphers.from_key("none", None, 1, data.channels)
    settings = run_recording.settings_of(run, resident)
    with distributed.sole_writer(run.path):
        saved = is_there(run.state_file)  # if not, it was cut off in its first epoch
        if saved:  # the starting weights need not be there any more
            settings = replace(
                settings, recipe=replace(settings.recipe, weights="none", encoder_weights=None)
            )
        trainer = _trainer(splits, settings, device, cipher, progress)
        _check_same_data(run, trainer)
        start = Checkpoint()
        if saved:
            start = restore(run, trainer.model, trainer.optimizer, trainer.average)
        facts = {"the epochs it goes on after": str(start.history)}
        distributed.require_same(facts, shown=False)
        run_recording.begin_segment(run, trainer, start.epochs)
        trainer.fit(run, start)
    return run


def is_finished(run: runs.Run) -> bool:
    """True if a run has all epochs of its recipe."""
    return run.epochs_missing == 0


def _check_can_go_on(run: runs.Run) -> None:
    if run.is_locked:
        raise SegkeyError(
            f"run {run.name} is locked, so its training cannot go on",
            "go on with the run that it was made of, and lock it again",
        )
    if run.configuration.model.folded:
        raise SegkeyError(
            f"run {run.name} is folded, so its training cannot go on",
            "go on with the run that it was made of, and fold it again",
        )
    if run.configuration.recipe is None:
        raise SegkeyError(
            f"run {run.name} was trained elsewhere: nothing is known of its training",
            f"train a new run that starts from its weights: --weights {run.weights_file}",
        )
    if is_finished(run):
        epochs = run.configuration.epochs_done
        raise SegkeyError(f"run {run.name} has all its {epochs} epochs", "train a new run")


def on_the_fly(splits: dict[str, Split], cipher: Cipher | None) -> bool:
    """True if `train` augments images on the device."""
    return _cipher_on_device(splits, cipher) is not None


def _cipher_on_device(splits: dict[str, Split], cipher: Cipher | None) -> Cipher | None:
    """What encrypts images on the device after augmentation; None if they are augmented already."""
    header = splits["train"].header if "train" in splits else None
    if cipher is None and header and header.method == "none" and not header.augmented:
        return ciphers.from_key("none", None, 1, header.channels)
    return cipher


def _trainer(
    splits: dict[str, Split],
    settings: Settings,
    device: torch.device,
    cipher: Cipher | None,
    progress: Progress,
) -> Trainer:
    """A trainer whose data were checked, the same on all ranks."""
    _check_splits(splits, cipher)
    ranks, batch_size = distributed.world_size(), settings.recipe.batch_size
    if batch_size < ranks:
        raise SegkeyError(
            f"{ranks} ranks have nothing to do with batches of {batch_size} images",
            "start fewer ranks, or take a larger --batch-size",
        )
    fingerprints = {f"the split '{name}'": split.fingerprint for name, split in splits.items()}
    distributed.require_same(fingerprints, shown=False)
    dtype = devices.computes_in(device, settings.precise)
    distributed.require_same(versions() | {"the type that it computes in": dtype})
    return Trainer(splits, settings, device, cipher, progress)


def _make_folder(folder: Path, name: str | None, data: Data) -> Path:
    """The folder of a new run, made by the first rank; refused if it is taken."""
    if name:
        run_names.check_name(name)
    else:
        default = run_names.of_method(data.method, data.block_size)
        name = distributed.broadcast(run_names.free_name(folder, default))
    distributed.barrier()  # no rank looks for a run that the first one has made since
    runs.check_free(folder / name)
    distributed.barrier()
    if distributed.is_main():
        make_folder(folder / name)
    return folder / name


def _begun_by_this_job(folder: Path, name: str | None) -> Path | None:
    """The run (of that name, if given) that torchrun's job had begun before it restarted."""
    if not distributed.restarted():
        return None
    for path in run_names.folders(folder):
        if name in (None, path.name):
            with contextlib.suppress(SegkeyError):  # a broken run is not this job's
                run = runs.Run.open(path)
                if run.configuration.job == distributed.job_id():
                    return run.path
    return None


def _check_same_data(run: runs.Run, trainer: Trainer) -> None:
    """Raise `SegkeyError` unless a run was begun with the trainer's data and key."""
    begun_with = as_json(run.configuration.data)
    for what, value in as_json(run_recording.data_of(trainer)).items():
        if what == "shards":  # they may have moved
            continue
        if what == "fingerprint" and begun_with[what] is None:  # of an earlier version
            continue
        if begun_with.get(what) != value:
            raise SegkeyError(
                f"run {run.name} was begun with {what.replace('_', ' ')} "
                f"{begun_with.get(what)}, not {value}",
                "give the shards and the key that it was begun with, or train a new run",
            )


def _check_splits(splits: dict[str, Split], cipher: Cipher | None) -> None:
    for name, purpose in (
        ("train", "learn"),
        ("val", "measure, so no epoch is the best"),
    ):
        if name not in splits:
            raise SegkeyError(
                f"there is no '{name}' split to train with",
                "encrypt images that have masks, with --split 80/10/10",
            )
        if not splits[name].has_masks:
            raise SegkeyError(
                f"the '{name}' split has no masks",
                "encrypt images together with their masks (--masks DIR)",
            )
        if _is_void(splits[name]):
            raise SegkeyError(
                f"every pixel of the masks of the '{name}' split is void: there is nothing to "
                + purpose,
                "encrypt images whose masks hold classes (see --ignore-index)",
            )
    if cipher and splits["train"].header.method != "none":
        raise SegkeyError(
            "these shards are encrypted already",
            "train on them without --key, or make plain ones with --method none",
        )


def _is_void(split: Split | MemorySplit) -> bool:
    """True if no mask holds a class; for nearly all data, the first mask tells."""
    places = (
        (np.array([row]), view) for view in range(split.header.views) for row in range(len(split))
    )
    return all(
        (split.read_batch("masks", *place) == split.header.ignore_index).all() for place in places
    )
