"""The forecast of how long a training will take, printed once, after its first steps."""

import time
from collections.abc import Callable

_STEPS = 3  # that are timed


class Forecast:
    """Times the steps after the first one, which is slower as kernels are chosen.

    Args:
        steps: training steps per epoch.
        validation_batches: per epoch; forward only, each takes about a third of a step.
        epochs: of the training.
        tell: called once, with the seconds that all epochs will take; never if an epoch has a
            single step.
    """

    def __init__(
        self, steps: int, validation_batches: float, epochs: int, tell: Callable[[float], None]
    ):
        self.timed, self.tell = min(_STEPS, steps - 1), tell
        self.steps_in_all = (steps + validation_batches / 3) * epochs
        self.done, self.first_ended = 0, 0.0

    def step(self) -> None:
        """A step has ended."""
        if self.done == 0:
            self.first_ended = time.monotonic()
        elif self.done == self.timed:
            self.tell((time.monotonic() - self.first_ended) / self.timed * self.steps_in_all)
        self.done += 1
