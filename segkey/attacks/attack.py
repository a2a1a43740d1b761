"""What an attack is: a function of a subject, a budget and a seed, registered with what its attacker knows."""

from collections.abc import Callable
from dataclasses import dataclass, field

from segkey.attacks.subject import Subject
from segkey.errors import SegkeyError


@dataclass(frozen=True)
class Budget:
    """What attackers may spend.

    Attributes:
        keys: random wrong keys.
        queries: keys that a search may try.
        images: images an attacker has, where an attack needs a few.
        epochs: of fine-tuning.
        steps: the least of fine-tuning; who has few images goes over them more often.
        percents: parts of the training images a fine-tuner has.
        pairs: numbers of plain images with their encrypted twins.
        per_level: wrong keys for each part of the key that they share with the right one.
    """

    keys: int = 100
    queries: int = 500
    images: int = 32
    epochs: int = 10
    steps: int = 100
    percents: tuple[float, ...] = (1, 5, 10, 50)
    pairs: tuple[int, ...] = (1, 2, 10)
    per_level: int = 3

    def check(self) -> "Budget":
        """Raise `SegkeyError` for a budget that buys nothing; returns the budget."""
        least = {"keys": 1, "queries": 10, "images": 2, "epochs": 1, "steps": 1, "per_level": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                words = {"per_level": "keys a level"}.get(name, name)
                raise SegkeyError(f"{getattr(self, name)} {words} are too few for an attack", f"give at least {lowest}")
        if not self.percents or not all(0 < percent <= 100 for percent in self.percents):
            raise SegkeyError(f"{list(self.percents)} are no percentages of images", "give --fine-tune 1 … 100")
        return self


@dataclass
class Result:
    """What an attack won.

    Attributes:
        mean_iou: on all test images, with the best that the attack has found.
        summary: that, in a few words.
        details: whatever else is worth telling; JSON can hold it.
    """

    mean_iou: float
    summary: str
    details: dict = field(default_factory=dict)


Function = Callable[[Subject, Budget, int], Result]


@dataclass(frozen=True)
class Attack:
    """A registered attack; see `attack`."""

    name: str
    knows: str
    function: Function
    fits: Callable[[Subject], str]
    steals: str


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str, knows: str, fits: Callable[[Subject], str] = lambda subject: "", steals: str = "the model"
) -> Callable[[Function], Function]:
    """Register an attack: a function of a `Subject`, a `Budget` and a seed that returns a `Result`.

    It is deterministic by its seed, asks `Subject.once` to keep what takes long, and `Subject.judge` for what it won.

    Args:
        name: as in ``segkey attack --NAME``.
        knows: what the attacker is assumed to know and have, besides the model; shown beside every figure.
        fits: why the attack does not fit a subject; empty where it fits.
        steals: what must get into the wrong hands for it, for the verdict; empty for what nobody can do, but which
            teaches something.
    """

    def register(function: Function) -> Function:
        ATTACKS[name] = Attack(name, knows, function, fits, steals)
        return function

    return register
