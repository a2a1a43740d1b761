"""The training loop from top to bottom."""

import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.crypto.ciphers import Cipher
from segkey.data.augment import random_crops
from segkey.errors import DivergedError, SegkeyError
from segkey.model import networks, runs, weights
from segkey.model.batches import BatchLoader, as_pixels, crop_batch
from segkey.model.recipes import Recipe
from segkey.shards import Split
from segkey.shards.memory import MemorySplit
from segkey.system import devices, distributed, interrupts
from segkey.system.files import remove, written_whole
from segkey.system.progress import Progress
from segkey.system.seeds import seeded
from segkey.system.words import duration

SAVE_SECONDS = 30  # how much work a kill may cost; saving takes a second or so for ResNet-50


def _is_void(split: Split | MemorySplit) -> bool:
    """Whether no mask holds a class; of nearly all data, the first mask that is read tells."""
    places = (
        (np.array([row]), view) for view in range(split.header.views) for row in range(len(split))
    )
    return all(
        (split.read_batch("masks", *place) == split.header.ignore_index).all() for place in places
    )


def check_splits(splits: dict[str, Split], cipher: Cipher | None) -> None:
    for name in ("train", "val"):
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
                + ("learn" if name == "train" else "measure, so no epoch is the best"),
                "encrypt images whose masks hold classes (see --ignore-index)",
            )
    if cipher and splits["train"].header.method != "none":
        raise SegkeyError(
            "these shards are encrypted already",
            "train on them without --key, or make plain ones with --method none",
        )


class Trainer:
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
        check_splits(splits, cipher)
        if recipe.batch_size < distributed.world_size():
            raise SegkeyError(
                f"{distributed.world_size()} ranks have nothing to do with batches of "
                f"{recipe.batch_size} images",
                "start fewer ranks, or take a larger --batch-size",
            )
        distributed.require_same(
            {f"the split '{name}'": split.fingerprint for name, split in splits.items()},
            shown=False,
        )
        self.recipe, self.cipher, self.device, self.precise, self.compiled = (
            recipe,
            cipher,
            device,
            precise,
            compiled,
        )
        self.seed, self.progress = seed, progress
        self.dtype = devices.computes_in(device, precise)
        distributed.require_same(runs.versions() | {"the type that it computes in": self.dtype})
        header = splits["train"].header
        self.max_value = cipher.max_value if cipher else header.max_value
        self.backbone, self.classes = backbone, list(header.classes)
        self.start_again(weights)
        self.train_loader = BatchLoader(splits["train"], device, resident=resident)
        self.val_loader = BatchLoader(splits["val"], device, resident=resident)
        self.train_loader.windowed = distributed.broadcast(
            self.train_loader.windowed
        )  # machines may differ in their memory
        self.val_loader.pieces.say = progress.say
        self.pieces = devices.MicroBatches(
            f"steps go on with batches of {recipe.batch_size}, their gradients added up",
            progress.say,
            may_cut=distributed.is_single(),  # ranks would no longer meet at the same steps
        )

    def start_again(self, weights: str) -> None:
        """A new network with its starting weights, and its optimizer."""
        torch.manual_seed(seed_of(self.seed, "start"))
        self.model = distributed.same_weights(networks.build(self.backbone, self.classes, weights))
        self.model.to(self.device, memory_format=torch.channels_last)
        self.model = distributed.sync_batchnorm(self.model, self.device)
        # Weights are those of `model`; `network` is what images go through, and `parallel` those
        # that are trained on.
        self.network = torch.compile(self.model) if self.compiled else self.model
        self.parallel = distributed.data_parallel(self.network, self.device)
        self.optimizer = self.recipe.build_optimizer(self.model)

    def fit(
        self, run: runs.Run, start: int, history: list[dict], best: float, best_state: dict | None
    ) -> None:
        """Train from epoch ``start`` to the last, given what came before it.

        Whatever stops it, the first rank saves the epochs that are finished, as they were at the
        end of the last one.
        """
        began, saved_at = time.monotonic() - run.config["seconds"], time.monotonic()
        finished = saved = (
            None  # what `_save` takes: of the last whole epoch, and what was saved last
        )
        if start:
            self.progress.say(f"going on after epoch {start} of {self.recipe.epochs}")
        with interrupts.raised_once() as stops:
            try:
                for epoch in range(start, self.recipe.epochs):
                    line = self._epoch(epoch, start)
                    line |= {
                        "seconds": round(time.monotonic() - began, 3),
                        "best": line["val_loss"] < best,
                    }
                    if line["best"]:
                        best = line["val_loss"]
                        best_state = {
                            name: tensor.detach().clone()
                            for name, tensor in self.model.weights().items()
                        }
                    for what, value in (
                        ("loss", line["loss"]),
                        ("validation loss", line["val_loss"]),
                    ):
                        if not math.isfinite(value):
                            raise DivergedError(
                                f"the {what} is {value} in epoch {epoch + 1}: training diverged",
                                "take a smaller --lr",
                            )
                    history, last = [*history, line], epoch + 1 == self.recipe.epochs
                    if distributed.is_main():
                        finished = (
                            history,
                            best,
                            best_state,
                            None if last else self._state(len(history)),
                        )
                    self._tell(line, start)
                    if finished and (last or time.monotonic() - saved_at > SAVE_SECONDS):
                        self._save(run, *finished)
                        saved, saved_at = finished, time.monotonic()
            except (
                BaseException
            ):  # Ctrl-C, another rank that is gone, a training that diverged, ...
                stops.held = True
                if finished is not saved:
                    with distributed.saving:
                        self._save(run, *finished)
                raise
        run.config = distributed.broadcast(run.config)

    def _epoch(self, epoch: int, start: int) -> dict:
        """Train on every image once, then validate; the epoch's line of history."""
        torch.manual_seed(
            seed_of(self.seed, epoch, *([distributed.rank()] if distributed.rank() else []))
        )  # for dropout
        generator = seeded("epoch", self.seed, epoch)
        order, ends = self.train_loader.shuffled(generator)
        view = epoch % self.train_loader.views
        crops = None
        if self.cipher:
            sizes = np.broadcast_to(self.train_loader.split.size, (len(order), 2))
            crops = torch.from_numpy(
                random_crops(generator, sizes, (self.recipe.crop_scale, 1.0))
            ).to(self.device)
        size = self.recipe.batch_size
        mine = distributed.my_slices(len(order), size)
        steps, spare = len(mine), not len(mine[-1])
        # the last batch has fewer images than there are ranks: one is seen again, and counts
        # nothing
        if spare:
            mine[-1] = np.array([len(order) - 1])
        if ends is not None:
            ends = np.searchsorted(np.concatenate(mine), ends)
        share, mine = (
            len(mine[0]),
            np.concatenate(mine),
        )  # only the last batch's slice may be smaller
        began, total, done = time.monotonic(), torch.zeros((), device=self.device), 0
        self.model.train()
        with self.progress.task(f"epoch {epoch + 1}/{self.recipe.epochs}", len(order)) as advance:
            slices = self.train_loader.batches(share, order[mine], view, ends)
            for step, (images, masks) in enumerate(slices):
                lr = self.recipe.lr_at(epoch, step, steps)
                count = min(size, len(order) - step * size)  # images of the batch, of all ranks
                if self.cipher:
                    images, masks = crop_batch(
                        images, masks, crops[mine[done : done + len(images)]]
                    )
                done += len(images)
                if spare and step + 1 == steps:
                    masks = torch.full_like(masks, self.train_loader.split.header.ignore_index)
                total += self._step(images, masks, lr) * count
                advance(count)
                if epoch == start and step in (0, min(3, steps - 1)):
                    self._estimate(step, steps)
        loss = float(distributed.all_reduce_sum(total)) / len(
            order
        )  # the only wait for the device in an epoch
        rate = len(order) / (time.monotonic() - began)
        distributed.average_buffers(self.model)
        line = {
            "epoch": epoch + 1,
            "loss": loss,
            "val_loss": self._validate(),
            "lr": lr,
            "images_per_second": round(rate, 2),
        }
        return distributed.broadcast(line)

    def _step(self, images: Tensor, masks: Tensor, lr: float) -> Tensor:
        """One step of the optimizer; the mean loss of the batch, under torchrun this rank's part of
        it.

        Where the batch does not fit in the device's memory it goes through the network in pieces,
        whose gradients are added up, so that the step is still that of the whole batch. Batch
        normalisation then sees the
        statistics of a piece, not of the batch: the result is close to, but not that of a larger
            memory.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.pieces.run(self._gradients, images, masks)
        self.optimizer.step()
        return loss

    def _gradients(self, pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Leave the gradients of a batch's mean loss with the parameters; returns that loss."""
        self.optimizer.zero_grad(set_to_none=True)
        pixels = distributed.all_reduce_sum(sum(self._count(masks) for _, masks in pieces)).clamp(
            min=1
        )
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
        ignore = self.train_loader.split.header.ignore_index
        network = self.parallel if self.model.training else self.network
        return segmentation_loss(network, images, masks, self.max_value, ignore)

    def _count(self, masks: Tensor) -> Tensor:
        """How many pixels are not void."""
        return (masks != self.train_loader.split.header.ignore_index).sum()

    @torch.inference_mode()
    def _validate(self) -> float:
        """Mean cross-entropy over all pixels of the validation split that are not void."""
        self.model.eval()
        size = self.recipe.batch_size
        pixels = torch.zeros((), dtype=torch.int64, device=self.device)
        total = torch.zeros(
            math.ceil(len(self.val_loader) / size), dtype=torch.float64, device=self.device
        )  # a batch each

        def loss_of(pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
            return sum(self._loss(*piece).double() for piece in pieces)

        with devices.mixed_precision(self.device, not self.precise):
            batches = self.val_loader.batches(
                size, distributed.my_batches(len(self.val_loader), size)
            )
            for number, (images, masks) in enumerate(batches):
                loss = self.val_loader.pieces.run(loss_of, images, masks)
                total[distributed.rank() + number * distributed.world_size()] = loss
                pixels += self._count(masks)
        return float(distributed.all_reduce_sum(total).sum() / distributed.all_reduce_sum(pixels))

    def _estimate(self, step: int, steps: int) -> None:
        """After a few steps, say how long the whole will take; the first step is slower, and is not
        counted."""
        if step == 0:
            self._after_first = time.monotonic()
            return
        each = (time.monotonic() - self._after_first) / step
        validation = (
            len(self.val_loader) / self.recipe.batch_size / 3
        )  # forward only: about a third of a step
        seconds = each * (steps + validation) * self.recipe.epochs
        where = devices.describe(self.device)
        self.progress.state(
            f"{self.recipe.epochs} epochs will take about {duration(seconds)} here ({where})"
        )

    def _tell(self, line: dict, start: int) -> None:
        done = line["epoch"]
        left = line["seconds"] / done * (self.recipe.epochs - done)
        self.progress.state(
            f"epoch {done:>3}/{self.recipe.epochs}  loss {line['loss']:.4f}  val "
            f"{line['val_loss']:.4f}"
            f"{'*' if line['best'] else ' '} lr {line['lr']:.2g}  {line['images_per_second']:.1f} "
            f"images/s  " + (f"{duration(left)} left" if left else "done")
        )

    def _state(self, epochs: int) -> dict:
        """What is needed to go on after some epochs, copied, as training changes it in place."""
        model = {name: tensor.detach().clone() for name, tensor in self.model.weights().items()}
        return {
            "epoch": epochs,
            "model": model,
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
        }

    def _save(
        self, run: runs.Run, history: list[dict], best: float, best_state: dict, state: dict | None
    ) -> None:
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
            write_state(
                run.state_file, state | {"best": best, "best_state": best_state, "history": history}
            )
        run.save()
        if not state:
            remove(run.state_file)

    def restore(self, run: runs.Run) -> tuple[int, list[dict], float, dict]:
        """What `fit` needs to go on where the run was saved last."""
        state = weights.read_archive(run.state_file, self.device, self.model.state_bytes)
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
        model: a `segkey.model.networks.Segmenter`.
        images: uint8 or int16 (N, C, H, W), as `segkey.model.batches.BatchLoader` gives them.
        masks: uint8 (N, H, W).
        max_value: what images are divided by.
        ignore_index: void in ``masks``.
    """
    logits = model(as_pixels(images, max_value)).float()
    return F.cross_entropy(logits, masks.long(), ignore_index=ignore_index, reduction="sum")


def write_state(path: Path, state: dict) -> None:
    """`torch.save`, whole or not at all; what stopped it is told as the system told it, not as
    torch does."""
    with written_whole(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def seed_of(*parts: object) -> int:
    return int(seeded(*parts).integers(2**62))
