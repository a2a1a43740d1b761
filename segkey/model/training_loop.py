"""The training loop.

`Trainer.fit` goes through the epochs, `Trainer._epoch` through the batches of one, and
`Trainer.step` is a step of the optimizer. Batches come from `segkey.model.batches.BatchLoader`;
`segkey.model.checkpoint` saves and restores.
"""

import copy
import math
import os
import time
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model import cpu_convolutions, data_parallel, logs, network_registry, networks, runs
from segkey.model.batches import SHUFFLE_BUFFER, BatchLoader, as_pixels, fits
from segkey.model.checkpoint import Checkpoint, Saver, copied
from segkey.model.losses import Loss, class_weights
from segkey.model.moving_average import MovingAverage
from segkey.model.recipes import Recipe
from segkey.model.training_forecast import Forecast
from segkey.shards import Split
from segkey.system import devices, distributed, interrupts, out_of_memory, torchrun
from segkey.system.progress import SILENT, Progress
from segkey.system.seeds import seeded
from segkey.system.wording import counted, duration


def _save_every() -> float:
    """Seconds in ``SEGKEY_SAVE_EVERY``; 30 by default, as saving ResNet-50 takes about one."""
    given = os.environ.get("SEGKEY_SAVE_EVERY", "30")
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise SegkeyError(f"SEGKEY_SAVE_EVERY is '{given}'", "give a number of seconds, such as 30")
    return seconds


@dataclass(frozen=True)
class Settings:
    """What a training is made with, besides its data and its device.

    Attributes:
        recipe: how to train, and the starting weights.
        network: a name that `segkey.model.network_registry.find` knows.
        precise: compute in float32, even if the device is made for bfloat16.
        compiled: compile the network with `torch.compile`; takes a minute, and needs a compiler on
            the CPU.
        seed: decides everything that is random.
        resident: keep all images on the device; by default, if they fit in its free memory.
        shuffle_buffer: bytes of the windows in which images are shuffled, 0 for one permutation of
            them all; by default 0 if they fit in the device's memory, else 1 GiB.
        save_every: seconds of finished epochs that a kill may cost; by default 30, or those in the
            environment variable ``SEGKEY_SAVE_EVERY``.
        log: also log epochs as ``csv`` or for ``tensorboard``.
    """

    recipe: Recipe
    network: str = network_registry.DEFAULT
    precise: bool = False
    compiled: bool = False
    seed: int = 0
    resident: bool | None = None
    shuffle_buffer: int | None = None
    save_every: float = field(default_factory=_save_every)
    log: str | None = None


class Trainer:
    """A network, its optimizer and its data.

    Args:
        splits: ``train`` and ``val``, with masks.
        settings: how to train.
        device: where to compute.
        cipher: augment images, then encrypt them with it, on the device; None for images that are
            used as they are.
        progress: hears of every epoch.

    Attributes:
        model: holds the weights; on several GPUs, with synchronised batch normalisation.
    """

    def __init__(
        self,
        splits: dict[str, Split],
        settings: Settings,
        device: torch.device,
        cipher: Cipher | None = None,
        progress: Progress = SILENT,
    ):
        self.settings, self.recipe, self.cipher = settings, settings.recipe, cipher
        self.device, self.progress = device, progress
        logs.check(settings.log)
        header = splits["train"].header
        self.max_value = cipher.max_value if cipher else header.max_value
        self.loss = self._loss_for(splits["train"])
        self._build_network(splits["train"])
        self._open_loaders(splits)
        self.micro_batches = out_of_memory.MicroBatches(
            f"steps go on with batches of {self.recipe.batch_size}, their gradients added up",
            progress.say,
            may_cut=distributed.is_single(),  # ranks would no longer meet at the same steps
        )
        self.steps = math.ceil(len(self.train_loader) / self.recipe.batch_size)
        self.forecast = Forecast(
            self.steps,
            len(self.val_loader) / self.recipe.batch_size,
            self.recipe.epochs,
            self._tell_forecast,
        )

    def _loss_for(self, split: Split) -> Loss:
        weights = class_weights(self.recipe.class_weights, split)
        if weights is not None:
            weights = torch.tensor(weights, device=self.device)
        return Loss(self.recipe.loss, split.header.ignore_index, weights)

    def _build_network(self, split: Split) -> None:
        """The network with its starting weights, and its optimizer."""
        torch.manual_seed(seed_of(self.settings.seed, "start"))
        model = networks.build(
            self.settings.network,
            list(split.header.classes),
            self.recipe.weights,
            channels=split.header.channels,
            encoder_weights=self.recipe.encoder_weights,
        )
        model.check_size(*split.size)
        model = data_parallel.same_weights(model)
        cpu_convolutions.quicken(model).to(self.device, memory_format=torch.channels_last)
        self.model = data_parallel.sync_batchnorm(model, self.device)
        # Validation goes through `network`; training through `parallel`, which averages gradients.
        self.network = torch.compile(self.model) if self.settings.compiled else self.model
        self.parallel = data_parallel.parallel(self.network, self.device)
        self.optimizer = self.recipe.build_optimizer(self.model)
        self.average = MovingAverage(self.model, self.recipe.ema) if self.recipe.ema else None

    @property
    def kept(self) -> networks.Segmenter:
        """The network that is validated and kept: with averaged weights, if there are any."""
        return self.average.model if self.average else self.model

    def _open_loaders(self, splits: dict[str, Split]) -> None:
        resident, buffer = self.settings.resident, self.settings.shuffle_buffer
        if resident is None:
            resident = fits(splits["train"], self.device)
        if buffer is None:  # machines may differ in their memory, but not in the order of images
            buffer = distributed.broadcast(0 if resident else SHUFFLE_BUFFER)
        self.train_loader = BatchLoader(
            splits["train"], self.device, resident=resident, shuffle_buffer=buffer
        )
        self.val_loader = BatchLoader(
            splits["val"], self.device, resident=self.settings.resident, say=self.progress.say
        )

    def fit(self, run: runs.Run, start: Checkpoint) -> None:
        """Train from a checkpoint to the last epoch.

        Whatever stops it, the first rank saves the epochs that are finished.
        """
        reached, saver = start, Saver(run, self.settings.save_every)
        log = logs.opened(self.settings.log, run.path, start.epochs)
        began = time.monotonic() - run.configuration.seconds
        if start.epochs:
            self.progress.say(f"going on after epoch {start.epochs} of {self.recipe.epochs}")
        with interrupts.raised_once() as stops:
            try:
                for epoch in range(start.epochs, self.recipe.epochs):
                    line = self._epoch(epoch)
                    line["seconds"] = round(time.monotonic() - began, 3)
                    reached = reached.after(line, self.kept)
                    if distributed.is_main():
                        saver.latest = self.with_state(reached)
                    self.report(reached.history[-1])
                    saver.save_if_due()
                    log(reached.history)
                    if self.has_ended(reached):
                        break
            except BaseException:  # Ctrl-C, a rank that is gone, a training that diverged, ...
                stops.held = True
                with torchrun.saving:
                    saver.save()
                raise
            finally:
                log.close()
        run.configuration = distributed.broadcast(run.configuration)

    def _epoch(self, epoch: int) -> dict:
        """Train on every image once, then validate; the epoch's line of history."""
        recipe, images = self.recipe, len(self.train_loader)
        ranks = [distributed.rank()] if distributed.rank() else []
        torch.manual_seed(seed_of(self.settings.seed, epoch, *ranks))  # for dropout
        batches = self.train_loader.epoch(
            seeded("epoch", self.settings.seed, epoch),
            epoch,
            recipe.batch_size,
            recipe.crop_scale if self.cipher else None,
        )
        began, total = time.monotonic(), torch.zeros((), device=self.device)
        self.model.train()
        with self.progress.task(f"epoch {epoch + 1}/{recipe.epochs}", images) as advance:
            for step, batch in enumerate(batches):
                lr = recipe.lr_at(epoch, step, self.steps)
                total += self.step(batch.images, batch.masks, lr) * batch.size
                advance(batch.size)
                self.forecast.step()
        # The only wait for the device in an epoch.
        loss = float(distributed.all_reduce_sum(total)) / images
        rate = round(images / (time.monotonic() - began), 2)
        data_parallel.average_buffers(self.model)
        if self.average:
            self.average.gather()
        line = {"epoch": epoch + 1, "loss": loss, "val_loss": self.validate(), "lr": lr}
        return distributed.broadcast(line | {"images_per_second": rate})

    def step(self, images: Tensor, masks: Tensor, lr: float) -> Tensor:
        """One step of the optimizer; the mean loss of the batch, or this rank's part of it.

        If the batch does not fit in the device's memory, it goes through the network in
        micro-batches, and their gradients are added up: the step is still that of the whole batch.
        Batch normalisation then sees the statistics of a micro-batch, so the result is close to
        that of a larger memory, but not the same.

        Args:
            images: uint8 or int16 (N, C, H, W), on the device.
            masks: uint8 (N, H, W), on the device.
            lr: the learning rate.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.micro_batches.run(self.gradients, images, masks)
        self.optimizer.step()
        if self.average:
            self.average.update(self.model)
        return loss

    def gradients(self, micro_batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Leave the gradients of a batch's mean loss with the parameters; returns that loss."""
        self.optimizer.zero_grad(set_to_none=True)
        amount = sum(self.loss.amount(masks) for _, masks in micro_batches)
        divisor = self.loss.divisor(distributed.all_reduce_sum(amount))
        total = torch.zeros((), device=self.device)
        for images, masks in micro_batches:
            with devices.mixed_precision(self.device, not self.settings.precise):
                loss = self._loss(self.parallel, images, masks) / divisor
            # DistributedDataParallel takes the mean of the ranks' gradients; wanted is the sum.
            (loss * distributed.world_size()).backward()
            total += loss.detach()
        return total

    def _loss(self, network: torch.nn.Module, images: Tensor, masks: Tensor) -> Tensor:
        """The loss, summed over the pixels that are not void."""
        images = self.cipher.encrypt(images) if self.cipher else images
        logits = network(as_pixels(images, self.max_value)).float()
        return self.loss.summed(logits, masks)

    @torch.inference_mode()
    def validate(self) -> float:
        """Mean loss over all pixels of the validation split that are not void."""
        self.kept.eval()
        count, size = len(self.val_loader), self.recipe.batch_size
        amount = torch.zeros((), dtype=torch.float64, device=self.device)
        # A place per batch: the sum over ranks is that of one process, to the last digit.
        losses = torch.zeros(math.ceil(count / size), dtype=torch.float64, device=self.device)
        batches = self.val_loader.batches(size, distributed.my_batches(count, size))
        with devices.mixed_precision(self.device, not self.settings.precise):
            for number, (images, masks) in enumerate(batches):
                place = distributed.rank() + number * distributed.world_size()
                losses[place] = self.val_loader.micro_batches.run(self._summed, images, masks)
                amount += self.loss.amount(masks)
        return float(distributed.all_reduce_sum(losses).sum() / distributed.all_reduce_sum(amount))

    def _summed(self, micro_batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        network = self.average.model if self.average else self.network
        return sum(self._loss(network, *each).double() for each in micro_batches)

    def has_ended(self, reached: Checkpoint) -> bool:
        """Whether no epoch follows: it was the last one, or patience has run out."""
        if reached.epochs == self.recipe.epochs:
            return True
        best = max((line["epoch"] for line in reached.history if line["best"]), default=0)
        return 0 < self.recipe.patience <= reached.epochs - best

    def with_state(self, reached: Checkpoint) -> Checkpoint:
        """A checkpoint with what is needed to go on from it, unless it is the last epoch's."""
        if self.has_ended(reached):
            return reached
        state = {
            "model": copied(self.model.weights()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
        }
        if self.average:
            state["average"] = self.average.state()
        return replace(reached, state=state)

    def report(self, line: dict) -> None:
        """Tell an epoch's line of history."""
        done, epochs = line["epoch"], self.recipe.epochs
        left = line["seconds"] / done * (epochs - done)
        self.progress.state(
            f"epoch {done:>3}/{epochs}  loss {line['loss']:.4f}  val {line['val_loss']:.4f}"
            f"{'*' if line['best'] else ' '} lr {line['lr']:.2g}  "
            f"{line['images_per_second']:.1f} images/s  "
            + (f"{duration(left)} left" if left else "done")
        )

    def _tell_forecast(self, seconds: float) -> None:
        self.progress.state(
            f"{counted(self.recipe.epochs, 'epoch')} will take about {duration(seconds)} here "
            f"({devices.describe(self.device)})"
        )


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


def seed_of(*parts: object) -> int:
    """A seed for torch's global generator, 0 … 2⁶² − 1."""
    return int(seeded(*parts).integers(2**62))
