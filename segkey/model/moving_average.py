"""The exponential moving average of a network's weights, which is validated and kept in its place.

torch's own (`torch.optim.swa_utils`), with a decay that grows at first: otherwise a short training
would keep much of its random beginning.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segkey.model import data_parallel
from segkey.model.networks import Segmenter


class MovingAverage:
    """The moving average of a network's weights and buffers.

    Args:
        model: is averaged after every step.
        decay: the part of the average that a step leaves, 0 … 1; after n steps at most
            (1 + n) / (10 + n).
    """

    def __init__(self, model: Segmenter, decay: float):
        def average(averaged: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
            now = min(decay, (1 + int(steps)) / (10 + int(steps)))
            get_ema_multi_avg_fn(now)(averaged, current, steps)

        self._averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self._averaged.n_averaged = self._averaged.n_averaged.cpu()  # no wait for a GPU in a step

    @property
    def model(self) -> Segmenter:
        """The network with the averaged weights."""
        return self._averaged.module

    def update(self, model: nn.Module) -> None:
        """Take the weights after a step into account."""
        self._averaged.update_parameters(model)

    def gather(self) -> None:
        """Make buffers equal on all ranks, before the average is validated."""
        data_parallel.average_buffers(self.model)

    def state(self) -> dict:
        """What `restore` takes."""
        weights = {name: each.detach().clone() for name, each in self.model.weights().items()}
        return {"weights": weights, "steps": int(self._averaged.n_averaged)}

    def restore(self, state: dict) -> None:
        """Go on from a `state`; raises what a damaged one leads to."""
        self.model.fcn.load_state_dict(state["weights"])
        self._averaged.n_averaged = torch.tensor(int(state["steps"]))
