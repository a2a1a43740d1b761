"""The registry of attacks: `attack` registers one with what its attacker knows."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from segkey.attacks.target import Target
from segkey.errors import SegkeyError
from segkey.model.results import MODEL
from segkey.system.wording import counted


@dataclass(frozen=True)
class Budget:
    """What attackers may spend.

    Attributes:
        keys: random wrong keys.
        queries: keys that a search may try.
        images: images available to the attacker, if an attack needs a few.
        epochs: of fine-tuning.
        steps: fine-tuning makes at least so many; who has few images goes over them more often.
        percents: parts of the training images a fine-tuner has.
        public_weights: a file of public weights, to fine-tune from, too.
        pairs: numbers of plain images with their encrypted twins.
        per_level: wrong keys for each part of the key that they share with the right one.

    Raises:
        SegkeyError: it buys nothing.
    """

    keys: int = 100
    queries: int = 500
    images: int = 32
    epochs: int = 10
    steps: int = 100
    percents: tuple[float, ...] = (1, 5, 10)
    public_weights: str | None = None
    pairs: tuple[int, ...] = (1, 2, 10)
    per_level: int = 3

    def __post_init__(self):
        for name, (least, option, *words) in _LEAST.items():
            if (given := getattr(self, name)) < least:
                raise SegkeyError(
                    f"{counted(given, *words)} {'is' if given == 1 else 'are'} too few for an "
                    "attack",
                    f"give at least {least}{option and f' with {option}'}",
                )
        if not self.percents or not all(0 < percent <= 100 for percent in self.percents):
            listed = ", ".join(f"{percent:g}" for percent in self.percents) or "none"
            raise SegkeyError(
                f"percentages of images lie between 0 and 100, not {listed}",
                "give --fine-tune 1 … 100",
            )
        if not self.pairs or min(self.pairs) < 1:
            raise SegkeyError(
                "an attack on pairs needs at least one", "give numbers of pairs from 1 on"
            )

    @property
    def document(self) -> dict:
        """What results keep of it: of the file of public weights, its name without its folder."""
        weights = self.public_weights and Path(self.public_weights).name
        return asdict(self) | {"public_weights": weights}


_LEAST = {  # how a user gives it, and what it counts
    "keys": (1, "--wrong-keys", "key"),
    "queries": (10, "--queries", "query", "queries"),
    "images": (2, "--attacker-images", "image"),
    "epochs": (1, "--epochs", "epoch"),
    "steps": (1, "", "step"),
    "per_level": (1, "--per-level", "key per level", "keys per level"),
}


@dataclass
class Result:
    """What an attack achieved.

    Attributes:
        mean_iou: on all test images, with the best that the attack has found.
        summary: that, in a few words.
        details: whatever else is worth telling; JSON can hold it.
        chosen_on_test: whether the attack chose among candidates by their score on the images it is
            judged on, which no attacker can do and which flatters it.
    """

    mean_iou: float
    summary: str
    details: dict = field(default_factory=dict)
    chosen_on_test: bool = False


AttackFunction = Callable[[Target, Budget, int], Result]


@dataclass(frozen=True)
class Attack:
    """A registered attack: the arguments of `attack`, and the function itself."""

    name: str
    attacker_knowledge: str
    function: AttackFunction
    obstacle: Callable[[Target], str]
    required_access: str


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str,
    attacker_knowledge: str,
    obstacle: Callable[[Target], str] = lambda target: "",
    required_access: str = MODEL,
) -> Callable[[AttackFunction], AttackFunction]:
    """Register an attack: a function of a `Target`, a `Budget` and a seed that returns a `Result`.

    It is deterministic by its seed, asks `Target.cached` to keep what takes long, and
    `Target.evaluate` for what it reaches.

    Args:
        name: as in ``segkey attack --attack NAME``.
        attacker_knowledge: what the attacker is assumed to know and have, besides the model; shown
            beside every figure.
        obstacle: says why the attack does not fit a target; "" if it fits.
        required_access: what must fall into the attacker's hands, for the verdict: one of
            `segkey.model.results.ACCESS`, or other words.

    Raises:
        ValueError: there is an attack of that name.
    """

    def register(function: AttackFunction) -> AttackFunction:
        if name in ATTACKS:
            raise ValueError(f"there is an attack '{name}' already")
        ATTACKS[name] = Attack(name, attacker_knowledge, function, obstacle, required_access)
        return function

    return register
