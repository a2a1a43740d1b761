"""The results that a run holds: ``evaluate.json``, ``attack.json`` and ``suite.json``.

They may come from elsewhere: `read` checks every field. The JSON of each is described in
segkey/FORMATS.md. Needs no torch.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from segkey.system import json_records
from segkey.system.json_records import Misfit, Several, stated
from segkey.system.validators import (
    ANY,
    NAME,
    OBJECT,
    YES_OR_NO,
    many,
    named,
    number,
    or_none,
    text,
    whole,
)

NOTHING_TO_MEASURE = "nothing to measure: every pixel of the test masks is void"

# Classes of required access: what must fall into an attacker's hands, the least first.
MODEL = "the model alone"
UNLABELLED = "the model and unlabelled images"
LABELLED = "the model and labelled images"
ENCRYPTED = "encrypted images"
PAIR = "a plain/encrypted pair"
KEY_PART = "part of the key"  # no attacker has just that, but it shows how much of the key suffices
ACCESS = (MODEL, UNLABELLED, LABELLED, ENCRYPTED, PAIR, KEY_PART)

_MAYBE = or_none(number(0, 1))
_LONG = text(10_000)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one way of feeding the test images reaches; scores lie in 0 … 1.

    Attributes:
        mean_iou: averaged over the classes that occur; None if all pixels are void.
        pixel_accuracy: fraction of non-void pixels that are correct.
        iou: by class; None for one that does not occur.
    """

    mean_iou: float | None = stated(_MAYBE)
    pixel_accuracy: float | None = stated(_MAYBE, default=None)
    iou: dict[str, float | None] = stated(named(_MAYBE, 255), factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plain(Score):
    """Plain images.

    Attributes:
        divided_by: the divisor that reached most.
        by_divisor: mean IoU by divisor; None if an earlier version tried 255 only.
    """

    divided_by: int | None = stated(or_none(whole(1, 65535)), default=None, omitted=True)
    by_divisor: dict[str, float | None] | None = stated(
        or_none(named(_MAYBE, 100)), default=None, omitted=True
    )

    @property
    def chosen_among(self) -> int:
        """The number of ways to divide that were tried."""
        return len(self.by_divisor or ()) or 1


@dataclass(frozen=True, kw_only=True)
class Incorrect:
    """Mean IoU under random wrong keys.

    Attributes:
        keys: the number of keys; 0 if there was nothing to measure.
        mean, std, min, max: over the keys; None if there are none.
        values: of each key, sorted.
    """

    keys: int = stated(whole())
    mean: float | None = stated(_MAYBE)
    std: float | None = stated(_MAYBE)
    min: float | None = stated(_MAYBE)
    max: float | None = stated(_MAYBE)
    values: tuple[float | None, ...] = stated(many(_MAYBE, 10**7), default=())


@dataclass(frozen=True, kw_only=True)
class MajorityClass:
    """The baseline that needs no model: the most frequent class everywhere."""

    name: str | None = stated(or_none(NAME), "class")
    mean_iou: float | None = stated(_MAYBE)


@dataclass(frozen=True)
class Measured:
    """A score, and the baseline on the same images."""

    score: Score
    majority_class: MajorityClass

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU, 0 … 1; None if it is undefined."""
        return self.score.mean_iou


@dataclass(frozen=True, kw_only=True)
class Result:
    """What all results have.

    Attributes:
        no_score: why there is no score, or None.
        run: the name of the run.
        split: the split that was tested.
        images: the number of test images.
        correct: with the owner's key.
        majority_class: the baseline.
        device: where it was computed.
        tested: all conditions of the measurement; empty if an earlier version made it.
        source: the JSON that it was read from, which its ``hmac`` belongs to.
    """

    kind: ClassVar[str]
    command: ClassVar[str]

    no_score: str | None = stated(ANY, default=None, omitted=True)
    run: str = stated(text())
    split: str | None = stated(or_none(text(64)), default=None)
    images: int = stated(whole())
    correct: Score = stated(Score)
    majority_class: MajorityClass = stated(MajorityClass, "majority_class", "constant")
    device: str | None = stated(or_none(text(1000)), default=None)
    tested: dict = stated(ANY, factory=dict)
    source: dict | None = field(default=None, compare=False, repr=False)

    @property
    def document(self) -> dict:
        """The JSON: as it was read, or as it is written."""
        return json_records.as_json(self) if self.source is None else self.source

    @property
    def is_measured(self) -> bool:
        """False if every pixel of the test masks is void."""
        return self.correct.mean_iou is not None

    def _scores(self) -> dict[str, float | None]:
        """Scores by their place in JSON; all are numbers if `is_measured`."""
        return {"majority_class.mean_iou": self.majority_class.mean_iou}

    def complaint(self) -> str:
        """The score that is missing, or nothing."""
        missing = [place for place, score in self._scores().items() if score is None]
        if not self.is_measured or not missing:
            return ""
        return f"'{missing[0]}' is None; expected a number"


@dataclass(frozen=True, kw_only=True)
class Evaluation(Result):
    """The result of ``segkey evaluate``."""

    kind = "evaluate"
    command = "segkey evaluate"

    split: str = stated(text(64))


@dataclass(frozen=True, kw_only=True)
class _Attacked(Result):
    """What both results of ``segkey attack`` have."""

    method: str = stated(text(64, 1))
    block_size: int = stated(whole(1, 1 << 12))
    key_space_bits: float = stated(number(0))
    seed: int | None = stated(or_none(whole(-(2**63))), default=None)


@dataclass(frozen=True, kw_only=True)
class Attack(_Attacked):
    """The result of ``segkey attack``: correct, plain and incorrect."""

    kind = "attack"
    command = "segkey attack"

    plain: Plain = stated(Plain)
    incorrect: Incorrect = stated(Incorrect)

    def _scores(self) -> dict[str, float | None]:
        names = ("mean", "std", "min", "max")
        spread = {f"incorrect.{name}": getattr(self.incorrect, name) for name in names}
        return super()._scores() | {"plain.mean_iou": self.plain.mean_iou} | spread


@dataclass(frozen=True, kw_only=True)
class AttackLine:
    """One attack of a suite.

    Attributes:
        attack: its name.
        attacker_knowledge: what the attacker is assumed to know.
        required_access: one of `ACCESS`, or words of an attack of one's own.
        queries, images, seconds: what it cost.
        mean_iou: what it reached on all test images.
        recovered: share of the way from the no-key baseline to the correct key's score.
        summary: what it did, in a few words.
        chosen_on_test: True if it chose among candidates on the images that judge it.
        details: whatever else it tells.
    """

    attack: str = stated(NAME)
    attacker_knowledge: str = stated(_LONG, "attacker_knowledge", "knows")
    required_access: str = stated(_LONG, "required_access", "steals")
    queries: int = stated(whole())
    images: int = stated(whole())
    seconds: float = stated(number(0))
    mean_iou: float | None = stated(_MAYBE)
    recovered: float | None = stated(or_none(number()), "recovered", "won")
    summary: str = stated(_LONG)
    chosen_on_test: bool | None = stated(ANY, default=None, omitted=True)
    details: dict = stated(OBJECT)


@dataclass(frozen=True, kw_only=True)
class Suite(_Attacked):
    """The result of ``segkey attack --suite``, or of attacks by name.

    Attributes:
        fixed_password: True if FFX's password was not derived from the key.
        settings: what must agree before results are merged.
        no_key_baseline: plain images, fed in the better way.
        attacks: in the order in which they ran.
        left_out: attacks that do not fit, and why.
        budget: what attackers may spend.
    """

    kind = "suite"
    command = "segkey attack --suite"

    fixed_password: bool = stated(YES_OR_NO)
    settings: dict = stated(ANY, factory=dict)
    no_key_baseline: Plain = stated(Plain, "no_key_baseline", "keyless")
    attacks: tuple[AttackLine, ...] = stated(Several(AttackLine, "an attack"))
    left_out: dict[str, str] = stated(named(_LONG))
    budget: dict = stated(ANY, factory=dict)

    def _scores(self) -> dict[str, float | None]:
        return super()._scores() | {"no_key_baseline.mean_iou": self.no_key_baseline.mean_iou}

    def complaint(self) -> str:
        """What is wrong with the numbers, in words; empty if nothing is."""
        for line in self.attacks if self.is_measured else ():
            if None in (line.mean_iou, line.recovered):
                return f"of an attack, '{line.attack}' has no score; expected a number"
        return super().complaint()


KINDS: dict[str, type[Result]] = {each.kind: each for each in (Evaluation, Attack, Suite)}
NAMES = tuple(KINDS)  # of the results that a run may hold


def read(name: str, document: dict) -> Result:
    """Make a result from its JSON, whatever version wrote it.

    Args:
        name: one of `NAMES`.
        document: as read; untrusted.

    Raises:
        segkey.system.json_records.Misfit: a field is missing or cannot be.
    """
    result = json_records.read(KINDS[name], document)
    if problem := result.complaint():
        raise Misfit(problem)
    tested = result.tested if isinstance(result.tested, dict) else {}
    result = replace(result, tested=tested, source=document)
    if isinstance(result, Suite):
        lines = tuple(_of_this_version(line, result) for line in result.attacks)
        left_out = {EARLIER_NAMES.get(name, name): why for name, why in result.left_out.items()}
        return replace(result, attacks=lines, left_out=left_out)
    return result


_EARLIER_ACCESS = {
    "the model": MODEL,
    "the model and some training images with masks": LABELLED,
    "one plain image with its encrypted twin": PAIR,
    "": KEY_PART,
}
EARLIER_NAMES = {"nearby": "partial-key", "search-blind": "search-unlabelled"}  # of attacks
_EARLIER_ATTACKS = {  # these attacks stood under "the model", which was too little
    "search": LABELLED,
    "search-unlabelled": UNLABELLED,
    "exhaustive": LABELLED,
}


def _of_this_version(line: AttackLine, suite: Suite) -> AttackLine:
    """A line with the words of this version, whatever version wrote it."""
    line = replace(line, attack=EARLIER_NAMES.get(line.attack, line.attack))
    access = _EARLIER_ACCESS.get(line.required_access, line.required_access)
    if line.required_access == "the model":
        access = _EARLIER_ATTACKS.get(line.attack, access)
    chosen = line.chosen_on_test
    chosen = _chose_on_test(line, suite) if chosen is None else chosen is True
    return replace(line, required_access=access, chosen_on_test=chosen)


def _chose_on_test(line: AttackLine, suite: Suite) -> bool:
    """Whether an attack chose on the images that judge it, for lines that do not say so."""
    if line.attack == "plain":
        by_divisor = line.details.get("by_divisor")
        return isinstance(by_divisor, dict) and len(by_divisor) > 1
    if line.attack in ("search", "search-unlabelled"):
        return line.details.get("split") == (suite.split or "test")
    return line.attack in ("wrong-keys", "exhaustive", "fine-tune")
