"""Checkpoints of a training after whole epochs: saved with the run, and resumed from."""

import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from segkey.crypto import age
from segkey.errors import DivergedError, SegkeyError
from segkey.model import runs
from segkey.model.configuration import Best
from segkey.model.moving_average import MovingAverage
from segkey.model.networks import Segmenter
from segkey.system.files import remove, written_whole


@dataclass(frozen=True)
class Checkpoint:
    """A training after some whole epochs.

    Attributes:
        history: a line per epoch, as in ``history.jsonl``.
        best: the lowest validation loss so far.
        best_weights: the weights at that loss.
        state: of the network (``model``) and of the ``optimizer``; None after the last epoch, and
            on other ranks than the first one.
    """

    history: tuple[dict, ...] = ()
    best: float = math.inf
    best_weights: dict[str, Tensor] | None = None
    state: dict | None = None

    @property
    def epochs(self) -> int:
        """Epochs that are finished."""
        return len(self.history)

    def after(self, line: dict, model: Segmenter) -> "Checkpoint":
        """The checkpoint one epoch later, without its state.

        Args:
            line: of the epoch; ``best`` is added to it.
            model: with the weights at its end.

        Raises:
            DivergedError: a loss is not finite.
        """
        line = line | {"best": line["val_loss"] < self.best}
        for what, value in (("loss", line["loss"]), ("validation loss", line["val_loss"])):
            if not math.isfinite(value):
                raise DivergedError(
                    f"the {what} is {value} in epoch {line['epoch']}: training diverged",
                    "take a smaller --lr",
                )
        later = replace(self, history=(*self.history, line), state=None)
        if not line["best"]:
            return later
        return replace(later, best=line["val_loss"], best_weights=copied(model.weights()))

    def save(self, run: runs.Run) -> None:
        """Save the best weights, the history and the state, in an order that a kill cannot harm.

        After the last epoch, which has no state, the state of earlier ones is removed.
        """
        run.save_weights(self.best_weights)
        run.write_history(list(self.history))
        best_epoch = next(line["epoch"] for line in reversed(self.history) if line["best"])
        run.configuration = replace(
            run.configuration,
            epochs_done=self.epochs,
            seconds=self.history[-1]["seconds"],
            best=Best(epoch=best_epoch, val_loss=self.best),
        )
        if not self.state and run.epochs_missing:  # patience has run out
            run.configuration = replace(run.configuration, stopped_early=True)
        if self.state:
            write_state(
                run.state_file,
                {
                    "epoch": self.epochs,
                    **self.state,
                    "best": self.best,
                    "best_state": self.best_weights,
                    "history": list(self.history),
                },
                run.recipients,
            )
        run.save()
        if not self.state:
            remove(run.state_file)


def restore(
    run: runs.Run,
    model: Segmenter,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None = None,
) -> Checkpoint:
    """Bring a network and its optimizer to the state that a run was saved in last.

    Args:
        run: is gone on with.
        model, optimizer, average: are brought to that state.

    Raises:
        SegkeyError: the state is damaged, of another network, or sealed for another key.
    """
    saved = run.read_state(next(model.parameters()).device)
    try:
        model.fcn.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if average:
            average.restore(saved["average"])
        history = tuple(saved["history"])
        run.configuration = replace(run.configuration, seconds=history[-1]["seconds"])
        return Checkpoint(history, saved["best"], saved["best_state"])
    except Exception as error:
        raise SegkeyError(
            f"{run.state_file} does not fit its run ({type(error).__name__})",
            "restore it from a backup, or train a new run",
        ) from None


class Saver:
    """Saves the checkpoints of a run: every few seconds, after the last epoch, and on request.

    Args:
        every: seconds of work that a kill may cost, besides the epoch that it stops.
    """

    def __init__(self, run: runs.Run, every: float):
        self.run, self.every = run, every
        self.latest: Checkpoint | None = None
        self.saved: Checkpoint | None = None
        self.saved_at = time.monotonic()

    def save_if_due(self) -> None:
        """Save the latest checkpoint if it is the last one, or if the last save is long ago."""
        if self.latest is None:
            return
        if self.latest.state is None or time.monotonic() - self.saved_at > self.every:
            self.save()

    def save(self) -> None:
        """Save the latest checkpoint unless it is saved."""
        if self.latest is not self.saved:
            latest = self.latest
            latest.save(self.run)
            self.saved, self.saved_at = latest, time.monotonic()


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict, which training does not change."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def write_state(path: Path, state: dict, recipients: Sequence[str] = ()) -> None:
    """`torch.save`, whole or not at all; as an age file for recipients, if there are any.

    Raises:
        OSError: the file system's own error, which torch reports as a `RuntimeError`.
    """
    with written_whole(path) as file:
        target = io.BytesIO() if recipients else file
        try:
            torch.save(state, target)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        if recipients:
            file.write(age.encrypted(target.getvalue(), recipients))
