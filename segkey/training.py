"""The training loop from top to bottom.

Two ways of feeding it. From encrypted shards the trainer needs no key: view e mod V in epoch e. From
plain shards with a cipher, images are augmented and then encrypted on the device, anew in every epoch;
that is the paper's protocol. Plain shards without a cipher are augmented in the same way, unless they were
augmented when they were made: the baseline is trained like the models it is compared with. All randomness comes from the seed and the number of the epoch, so a
training that was cut and resumed ends where the uninterrupted one ends (equal on the CPU).

Under torchrun each rank has its slice of every batch, and gradients are those of the whole batch, whatever the number of
ranks. Two things are not those of one process: dropout is drawn by each rank for itself, and on CPUs (for which torch
has no synchronised batch normalisation) batches are normalised by the statistics of a rank's slice.
"""

import contextlib
import copy
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkey import ciphers, devices, distributed, interrupts, models, runs
from segkey.ciphers import Cipher
from segkey.errors import DivergedError, SegkeyError
from segkey.files import is_there, make_folder, remove, written_whole
from segkey.loading import Feed, MemorySplit, as_pixels, crop_batch
from segkey.pictures import random_crops, seeded
from segkey.progress import SILENT, Progress
from segkey.recipes import RECIPES, Recipe, recipe_of
from segkey.shards import Split

_SAVE_SECONDS = 30  # how much work a kill may cost; saving takes a second or so for ResNet-50


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

    Where torchrun starts its ranks again after a failure, this goes on with the run that it had begun.

    Args:
        splits: ``train`` and ``val``, with masks.
        folder: where runs are kept.
        recipe: how to train.
        shards: where the splits came from; kept in the run, so that later commands find them.
        device: where to compute.
        name: the run's name; made from method and block size, if not given.
        backbone: a name in `segkey.models.BACKBONES`.
        cipher: encrypts plain shards on the device, after augmentation. Without it, plain shards that were not
            augmented when they were made are augmented on the device too.
        key_id: of the key that ``cipher`` came from.
        precise: float32 even where the device computes in bfloat16.
        compiled: let `torch.compile` translate the network first; it takes a minute, and needs a compiler on the CPU.
        seed: decides everything that is random.
        resident: keep all images on the device; decided by its memory, if not given.
        progress: hears of every epoch.

    Raises:
        SegkeyError: splits that cannot be trained on, weights that are not there, a name that is taken.
    """
    given, cipher = cipher, _cipher_on_device(splits, cipher)
    trainer = _Trainer(
        splits, recipe, backbone, recipe.weights, cipher, device, precise, seed, resident, progress, compiled
    )
    if begun := distributed.share(_begun_by_this_job(folder, name) if distributed.first() else None):
        run = runs.Run.open(begun)
        finished = run.config["epochs_done"] >= recipe.epochs
        return run if finished else _go_on(trainer, run, key_id)
    config = _configuration(trainer, shards, key_id)
    if note := _note_on_augmentation(config, given):
        progress.say(note)
    default = "plain" if config["data"]["method"] == "none" else "{method}-m{block_size}".format(**config["data"])
    name = runs.check_name(name) if name else distributed.share(runs.free_name(folder, default))
    distributed.barrier()  # nobody looks for a run that the first rank has made since
    runs.check_free(folder / name)
    distributed.barrier()
    if distributed.first():
        make_folder(folder / name)
    with distributed.sole_writer(folder / name):
        run = runs.Run.create(folder, name, config)
        trainer.fit(run, 0, [], math.inf, None)
    return run


def on_the_fly(splits: dict[str, Split], cipher: Cipher | None) -> bool:
    """Whether `train` augments images on the device."""
    return _cipher_on_device(splits, cipher) is not None


def _cipher_on_device(splits: dict[str, Split], cipher: Cipher | None) -> Cipher | None:
    """What images go through on the device after augmentation; None where they were augmented beforehand."""
    header = splits["train"].header if "train" in splits else None
    if cipher is None and header and header.method == "none" and not header.augmented:
        return ciphers.from_key("none", None, 1)
    return cipher


def _begun_by_this_job(folder: Path, name: str | None) -> Path | None:
    """The run (of that name, where one is given) that torchrun's job had begun before it started its ranks again."""
    if not distributed.restarted():
        return None
    for path in runs.folders(folder):
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
    """Go on with a run that was cut off, with its own settings; the other arguments are those of `train`.

    Raises:
        SegkeyError: it is finished, or the splits or the key are not those it was begun with.
    """
    config, recipe = run.config, recipe_of(run)
    if config["epochs_done"] >= recipe.epochs:
        raise SegkeyError(f"run {run.name} has all its {recipe.epochs} epochs", "train a new run")
    if cipher is None and config["data"]["method"] == "none" and config["data"].get("on_the_fly"):
        cipher = ciphers.from_key("none", None, 1)
    trainer = _Trainer(
        splits, recipe, config["model"]["backbone"], "none", cipher, device, config["precise"],
        config["seed"], resident, progress, config.get("compiled", False),
    )  # fmt: skip
    return _go_on(trainer, run, key_id)


def _go_on(trainer: "_Trainer", run: runs.Run, key_id: str) -> runs.Run:
    """Train a run on from where it was saved last."""
    run.config = config = distributed.share(run.config)
    trainer.train_feed.windowed = config.get("windowed", trainer.train_feed.windowed)
    for what, value in _configuration(trainer, [], key_id)["data"].items():
        # The shards may have moved; runs of earlier versions have no fingerprint of them.
        if what != "shards" and config["data"].get(what, value if what == "fingerprint" else None) != value:
            raise SegkeyError(
                f"run {run.name} was begun with {what.replace('_', ' ')} {config['data'].get(what)}, not {value}",
                "give the shards and the key that it was begun with, or train a new run",
            )
    with distributed.sole_writer(run.path):
        if is_there(run.state_file):
            begin = trainer.restore(run)
        else:  # cut off before anything was saved
            trainer.start_again(config["recipe"]["weights"])
            begin = 0, [], math.inf, None
        distributed.agree({"the epochs it goes on after": str(begin[1])}, shown=False)
        _begin_segment(run, trainer, begin[0])
        trainer.fit(run, *begin)
    return run


_MATTERS = ("segkey", "torch", "torchvision", "numpy")  # versions that may change what a training ends with


def _segment(trainer: "_Trainer", epoch: int) -> dict:
    """With what a part of a training is made: the one that begins after ``epoch`` epochs."""
    return {
        "epoch": epoch,
        "versions": runs.versions(),
        "device": _describe(trainer.device),
        "dtype": trainer.dtype,
        "world_size": distributed.world_size(),
    }


def _begin_segment(run: runs.Run, trainer: "_Trainer", epoch: int) -> None:
    """Note with what a training goes on, and warn where that differs from what its earlier epochs were made with."""
    config, now = run.config, _segment(trainer, epoch)
    segments = [each for each in _segments_of(config) if each["epoch"] < epoch]  # nothing is left of the others
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
    first = {"epoch": 0, "versions": versions if isinstance(versions, dict) else {}, "device": device}
    known = config.get("segments")
    if not isinstance(known, list) or not all(isinstance(each, dict) for each in known):
        return [first]
    fine = all(isinstance(each.get("epoch"), int) and isinstance(each.get("versions"), dict) for each in known)
    return known if known and fine else [first]


def _changes(before: dict, now: dict) -> list[str]:
    """What differs between two segments, in words; what was not recorded is not compared."""
    pairs = {name: (before["versions"].get(name), now["versions"].get(name)) for name in _MATTERS}
    for what in ("device", "dtype", "world_size"):
        pairs[what.replace("_", " ")] = before.get(what), now[what]
    return [f"{name} {new} (before: {old})" for name, (old, new) in pairs.items() if old is not None and old != new]


def _describe(device: torch.device) -> str:
    """The devices of all ranks, in words."""
    ranks = "" if distributed.alone() else f"{distributed.world_size()} x "
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
        recipe, backbone, cipher, device: as for `train`; its weights are random, which takes as long.
        patience: seconds; where steps of the recipe's batch take longer, smaller batches are measured.
    """
    splits = {"train": split, "val": split}
    chosen = replace(recipe, weights="none", batch_size=max(recipe.batch_size, distributed.world_size()))
    trainer = _Trainer(splits, chosen, backbone, "none", cipher, device, False, 0, True, SILENT)
    trainer.model.train()

    def step(count: int) -> float:
        began = time.monotonic()
        order = np.resize(np.arange(len(split)), count)
        ((images, masks),) = trainer.train_feed.batches(count, order)
        if cipher:
            crops = random_crops(seeded("measure"), np.broadcast_to(split.size, (count, 2)), (recipe.crop_scale, 1.0))
            images, masks = crop_batch(images, masks, torch.from_numpy(crops))
        float(trainer._step(images, masks, recipe.lr_min))
        return (time.monotonic() - began) / count

    few = min(4, recipe.batch_size)
    step(few)  # the first step is slower: kernels are chosen
    count = min(recipe.batch_size, max(few, int(patience / step(few) / 4)))
    step(count)
    return min(step(count) for _ in range(2))


def _is_void(split: Split | MemorySplit) -> bool:
    """Whether no mask holds a class; of nearly all data, the first mask that is read tells."""
    places = ((np.array([row]), view) for view in range(split.header.views) for row in range(len(split)))
    return all((split.read_batch("masks", *place) == split.header.ignore_index).all() for place in places)


def _check_splits(splits: dict[str, Split], cipher: Cipher | None) -> None:
    for name in ("train", "val"):
        if name not in splits:
            raise SegkeyError(
                f"there is no '{name}' split to train with",
                "encrypt images that have masks, with --split 80/10/10",
            )
        if not splits[name].has_masks:
            raise SegkeyError(
                f"the '{name}' split has no masks", "encrypt images together with their masks (--masks DIR)"
            )
        if _is_void(splits[name]):
            raise SegkeyError(
                f"every pixel of the masks of the '{name}' split is void: there is nothing to "
                + ("learn" if name == "train" else "measure, so no epoch is the best"),
                "encrypt images whose masks hold classes (see --ignore-index)",
            )
    if cipher and splits["train"].header.method != "none":
        raise SegkeyError(
            "these shards are encrypted already",
            "train on them without --key, or make plain ones with --method none",
        )


def _configuration(trainer: "_Trainer", shards: list[Path], key_id: str) -> dict:
    """What ``run.json`` says from the beginning."""
    header, cipher = trainer.train_feed.split.header, trainer.cipher
    data = {
        "method": cipher.method if cipher else header.method,
        "block_size": cipher.block_size if cipher else header.block_size,
        "channels": header.channels,
        "max_value": trainer.max_value,
        "key_id": (key_id if cipher.method != "none" else "") if cipher else header.key_id,
        "password_hash": cipher.password_hash if cipher else header.password_hash,
        "classes": list(header.classes),
        "ignore_index": header.ignore_index,
        "size": list(trainer.train_feed.split.size),
        "images": {"train": len(trainer.train_feed), "val": len(trainer.val_feed)},
        "views": header.views,
        "on_the_fly": bool(cipher),
        "shards": [str(path) for path in shards],
        "fingerprint": trainer.train_feed.split.fingerprint,
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
        "windowed": trainer.train_feed.windowed,
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
    """How augmentation differs from the paper's where the recipe is the paper's otherwise; empty if it does not."""
    schedule = ("optimizer", "lr", "lr_min", "restart", "momentum", "weight_decay")
    paper, training = RECIPES["paper"], config["training"]
    if training["on_the_fly"] or any(getattr(recipe, name) != getattr(paper, name) for name in schedule):
        return ""
    wanted = f"the paper draws new crops in every epoch (here from {paper.crop_scale} of the area)"
    if not training["augmented"]:
        return f"training images are not augmented; {wanted}"
    return (
        f"each training image has {training['views']} fixed views, made beforehand (crops from "
        f"{training['crop_scale']} of the area); {wanted}"
    )


def _note_on_augmentation(config: dict, cipher: Cipher | None) -> str:
    """What a user must know to compare the model with others; empty if it is trained as was asked for."""
    training = config["training"]
    if config.get("differs_from_paper"):
        return f"This is not quite the paper's recipe: {config['differs_from_paper']}, as plain shards with --key do."
    if not training["augmented"]:
        return "Training images are not augmented: the shards hold one view of each; segkey encrypt --views makes more."
    if cipher is None and training["on_the_fly"]:
        return (
            f"Plain images are augmented anew in every epoch (crops from {training['crop_scale']} of the area), as with "
            "--key; to compare with shards of fixed views, make plain ones with --views too."
        )
    return ""


class _Trainer:
    """The training loop and what it works on."""

    def __init__(
        self,
        splits: dict[str, Split],
        recipe: Recipe,
        backbone: str,
        weights: str,
        cipher: Cipher | None,
        device: torch.device,
        precise: bool,
        seed: int,
        resident: bool | None,
        progress: Progress,
        compiled: bool = False,
    ):
        _check_splits(splits, cipher)
        if recipe.batch_size < distributed.world_size():
            raise SegkeyError(
                f"{distributed.world_size()} ranks have nothing to do with batches of {recipe.batch_size} images",
                "start fewer ranks, or take a larger --batch-size",
            )
        distributed.agree({f"the split '{name}'": split.fingerprint for name, split in splits.items()}, shown=False)
        self.recipe, self.cipher, self.device, self.precise, self.compiled = recipe, cipher, device, precise, compiled
        self.seed, self.progress = seed, progress
        self.dtype = devices.computes_in(device, precise)
        distributed.agree(runs.versions() | {"the type that it computes in": self.dtype})
        header = splits["train"].header
        self.max_value = cipher.max_value if cipher else header.max_value
        self.backbone, self.classes = backbone, list(header.classes)
        self.start_again(weights)
        self.train_feed = Feed(splits["train"], device, resident=resident)
        self.val_feed = Feed(splits["val"], device, resident=resident)
        self.train_feed.windowed = distributed.share(self.train_feed.windowed)  # machines may differ in their memory
        self.val_feed.pieces.say = progress.say
        self.pieces = devices.Pieces(
            f"steps go on with batches of {recipe.batch_size}, their gradients added up",
            progress.say,
            may_cut=distributed.alone(),  # ranks would no longer meet at the same steps
        )

    def start_again(self, weights: str) -> None:
        """A new network with its starting weights, and its optimizer."""
        torch.manual_seed(_seed(self.seed, "start"))
        self.model = distributed.same_weights(models.build(self.backbone, self.classes, weights))
        self.model.to(self.device, memory_format=torch.channels_last)
        self.model = distributed.synchronised(self.model, self.device)
        # Weights are those of `model`; `network` is what images go through, and `parallel` those that are trained on.
        self.network = torch.compile(self.model) if self.compiled else self.model
        self.parallel = distributed.parallel(self.network, self.device)
        self.optimizer = self.recipe.build_optimizer(self.model)

    def fit(self, run: runs.Run, start: int, history: list[dict], best: float, best_state: dict | None) -> None:
        """Train from epoch ``start`` to the last, given what came before it.

        Whatever stops it, the first rank saves the epochs that are finished, as they were at the end of the last one.
        """
        began, saved_at = time.monotonic() - run.config["seconds"], time.monotonic()
        finished = saved = None  # what `_save` takes: of the last whole epoch, and what was saved last
        if start:
            self.progress.say(f"going on after epoch {start} of {self.recipe.epochs}")
        with interrupts.raised_once() as stops:
            try:
                for epoch in range(start, self.recipe.epochs):
                    line = self._epoch(epoch, start)
                    line |= {"seconds": round(time.monotonic() - began, 3), "best": line["val_loss"] < best}
                    if line["best"]:
                        best = line["val_loss"]
                        best_state = {name: tensor.detach().clone() for name, tensor in self.model.weights().items()}
                    for what, value in (("loss", line["loss"]), ("validation loss", line["val_loss"])):
                        if not math.isfinite(value):
                            raise DivergedError(
                                f"the {what} is {value} in epoch {epoch + 1}: training diverged", "take a smaller --lr"
                            )
                    history, last = [*history, line], epoch + 1 == self.recipe.epochs
                    if distributed.first():
                        finished = history, best, best_state, None if last else self._state(len(history))
                    self._tell(line, start)
                    if finished and (last or time.monotonic() - saved_at > _SAVE_SECONDS):
                        self._save(run, *finished)
                        saved, saved_at = finished, time.monotonic()
            except BaseException:  # Ctrl-C, another rank that is gone, a training that diverged, ...
                stops.held = True
                if finished is not saved:
                    with distributed.saving:
                        self._save(run, *finished)
                raise
        run.config = distributed.share(run.config)

    def _epoch(self, epoch: int, start: int) -> dict:
        """Train on every image once, then validate; the epoch's line of history."""
        torch.manual_seed(_seed(self.seed, epoch, *([distributed.rank()] if distributed.rank() else [])))  # for dropout
        generator = seeded("epoch", self.seed, epoch)
        order, ends = self.train_feed.shuffled(generator)
        view = epoch % self.train_feed.views
        crops = None
        if self.cipher:
            sizes = np.broadcast_to(self.train_feed.split.size, (len(order), 2))
            crops = torch.from_numpy(random_crops(generator, sizes, (self.recipe.crop_scale, 1.0))).to(self.device)
        size = self.recipe.batch_size
        mine = distributed.batches_sliced(len(order), size)
        steps, spare = len(mine), not len(mine[-1])
        if spare:  # the last batch has fewer images than there are ranks: one is seen again, and counts nothing
            mine[-1] = np.array([len(order) - 1])
        if ends is not None:
            ends = np.searchsorted(np.concatenate(mine), ends)
        share, mine = len(mine[0]), np.concatenate(mine)  # only the last batch's slice may be smaller
        began, total, done = time.monotonic(), torch.zeros((), device=self.device), 0
        self.model.train()
        with self.progress.task(f"epoch {epoch + 1}/{self.recipe.epochs}", len(order)) as advance:
            slices = self.train_feed.batches(share, order[mine], view, ends)
            for step, (images, masks) in enumerate(slices):
                lr = self.recipe.lr_at(epoch, step, steps)
                count = min(size, len(order) - step * size)  # images of the batch, of all ranks
                if self.cipher:
                    images, masks = crop_batch(images, masks, crops[mine[done : done + len(images)]])
                done += len(images)
                if spare and step + 1 == steps:
                    masks = torch.full_like(masks, self.train_feed.split.header.ignore_index)
                total += self._step(images, masks, lr) * count
                advance(count)
                if epoch == start and step in (0, min(3, steps - 1)):
                    self._estimate(step, steps)
        loss = float(distributed.add_up(total)) / len(order)  # the only wait for the device in an epoch
        rate = len(order) / (time.monotonic() - began)
        distributed.even_out(self.model)
        line = {
            "epoch": epoch + 1,
            "loss": loss,
            "val_loss": self._validate(),
            "lr": lr,
            "images_per_second": round(rate, 2),
        }
        return distributed.share(line)

    def _step(self, images: Tensor, masks: Tensor, lr: float) -> Tensor:
        """One step of the optimizer; the mean loss of the batch, under torchrun this rank's part of it.

        Where the batch does not fit in the device's memory it goes through the network in pieces, whose gradients
        are added up, so that the step is still that of the whole batch. Batch normalisation then sees the
        statistics of a piece, not of the batch: the result is close to, but not that of a larger memory.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.pieces.run(self._gradients, images, masks)
        self.optimizer.step()
        return loss

    def _gradients(self, pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Leave the gradients of a batch's mean loss with the parameters; returns that loss."""
        self.optimizer.zero_grad(set_to_none=True)
        pixels = distributed.add_up(sum(self._count(masks) for _, masks in pieces)).clamp(min=1)
        total = torch.zeros((), device=self.device)
        for images, masks in pieces:
            with devices.mixed_precision(self.device, not self.precise):
                loss = self._loss(images, masks) / pixels
            # DistributedDataParallel takes the mean of the ranks' gradients; theirs is the sum.
            (loss * distributed.world_size()).backward()
            total += loss.detach()
        return total

    def _loss(self, images: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy, summed over the pixels that are not void."""
        images = self.cipher.encrypt(images) if self.cipher else images
        ignore = self.train_feed.split.header.ignore_index
        network = self.parallel if self.model.training else self.network
        return segmentation_loss(network, images, masks, self.max_value, ignore)

    def _count(self, masks: Tensor) -> Tensor:
        """How many pixels are not void."""
        return (masks != self.train_feed.split.header.ignore_index).sum()

    @torch.inference_mode()
    def _validate(self) -> float:
        """Mean cross-entropy over all pixels of the validation split that are not void."""
        self.model.eval()
        size = self.recipe.batch_size
        pixels = torch.zeros((), dtype=torch.int64, device=self.device)
        total = torch.zeros(
            math.ceil(len(self.val_feed) / size), dtype=torch.float64, device=self.device
        )  # a batch each

        def loss_of(pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
            return sum(self._loss(*piece).double() for piece in pieces)

        with devices.mixed_precision(self.device, not self.precise):
            batches = self.val_feed.batches(size, distributed.batches_dealt(len(self.val_feed), size))
            for number, (images, masks) in enumerate(batches):
                loss = self.val_feed.pieces.run(loss_of, images, masks)
                total[distributed.rank() + number * distributed.world_size()] = loss
                pixels += self._count(masks)
        return float(distributed.add_up(total).sum() / distributed.add_up(pixels))

    def _estimate(self, step: int, steps: int) -> None:
        """After a few steps, say how long the whole will take; the first step is slower, and is not counted."""
        if step == 0:
            self._after_first = time.monotonic()
            return
        each = (time.monotonic() - self._after_first) / step
        validation = len(self.val_feed) / self.recipe.batch_size / 3  # forward only: about a third of a step
        seconds = each * (steps + validation) * self.recipe.epochs
        where = devices.describe(self.device)
        self.progress.state(f"{self.recipe.epochs} epochs will take about {in_words(seconds)} here ({where})")

    def _tell(self, line: dict, start: int) -> None:
        done = line["epoch"]
        left = line["seconds"] / done * (self.recipe.epochs - done)
        self.progress.state(
            f"epoch {done:>3}/{self.recipe.epochs}  loss {line['loss']:.4f}  val {line['val_loss']:.4f}"
            f"{'*' if line['best'] else ' '} lr {line['lr']:.2g}  {line['images_per_second']:.1f} images/s  "
            + (f"{in_words(left)} left" if left else "done")
        )

    # ------------------------------------------------------------------ checkpoints

    def _state(self, epochs: int) -> dict:
        """What is needed to go on after some epochs, copied, as training changes it in place."""
        model = {name: tensor.detach().clone() for name, tensor in self.model.weights().items()}
        return {"epoch": epochs, "model": model, "optimizer": copy.deepcopy(self.optimizer.state_dict())}

    def _save(self, run: runs.Run, history: list[dict], best: float, best_state: dict, state: dict | None) -> None:
        """The best weights, the history and, unless it was the last epoch, what is needed to go on.

        In an order that a kill cannot harm.
        """
        run.save_weights(best_state)
        run.write_history(history)
        chosen = next(line["epoch"] for line in reversed(history) if line["best"])
        run.config |= {
            "epochs_done": len(history),
            "seconds": history[-1]["seconds"],
            "best": {"epoch": chosen, "val_loss": best},
        }
        if state:
            _write_state(run.state_file, state | {"best": best, "best_state": best_state, "history": history})
        run.save()
        if not state:
            remove(run.state_file)

    def restore(self, run: runs.Run) -> tuple[int, list[dict], float, dict]:
        """What `fit` needs to go on where the run was saved last."""
        state = models.read_archive(run.state_file, self.device, self.model.state_bytes)
        try:
            self.model.fcn.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            run.config["seconds"] = state["history"][-1]["seconds"]
            return state["epoch"], state["history"], state["best"], state["best_state"]
        except Exception as error:
            raise SegkeyError(
                f"{run.state_file} does not fit its run ({type(error).__name__})",
                "restore it from a backup, or train a new run",
            ) from None


def segmentation_loss(
    model: torch.nn.Module, images: Tensor, masks: Tensor, max_value: int, ignore_index: int
) -> Tensor:
    """Cross-entropy, summed over the pixels that are not void.

    Args:
        model: a `segkey.models.Segmenter`.
        images: uint8 or int16 (N, C, H, W), as `segkey.loading.Feed` gives them.
        masks: uint8 (N, H, W).
        max_value: what images are divided by.
        ignore_index: void in ``masks``.
    """
    logits = model(as_pixels(images, max_value)).float()
    return F.cross_entropy(logits, masks.long(), ignore_index=ignore_index, reduction="sum")


def _write_state(path: Path, state: dict) -> None:
    """`torch.save`, whole or not at all; what stopped it is told as the system told it, not as torch does."""
    with written_whole(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _seed(*parts: object) -> int:
    return int(seeded(*parts).integers(2**62))


def in_words(seconds: float) -> str:
    """A duration for people: 12 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
