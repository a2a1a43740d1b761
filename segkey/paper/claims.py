"""Findings as records: claims, the pairs that decide them, and the verdicts that follow.

A finding is one or more claims, and a claim is a comparison of pairs: of models, or of what is left
of them. It holds if every pair is as claimed, partly if at least half of them are, and cannot
be told if the grid has no pair.
"""

from dataclasses import dataclass
from statistics import fmean

from segkey.system.json_records import Several, as_json, stated
from segkey.system.validators import YES_OR_NO, number, or_none, text, whole

HOLDS, PARTLY, FAILS, UNKNOWN = "holds", "holds partly", "does not hold", "cannot be told"
_WORDS = text(10_000)


@dataclass(frozen=True)
class Pair:
    """Two things compared.

    Attributes:
        what: the comparison, in words.
        by: how clearly it is as claimed; negative if it is not.
        within_spread: whether the difference is smaller than the spread of the seeds; None for
            single seeds.
        devices: whether they were computed on different devices.
        differs: all conditions in which they differ, in words; empty if they can be compared.
    """

    what: str = stated(_WORDS)
    by: float = stated(number())
    within_spread: bool | None = stated(or_none(YES_OR_NO), default=None)
    devices: bool = stated(YES_OR_NO, default=False)
    differs: str = stated(_WORDS, default="")


@dataclass(frozen=True)
class Claim:
    """A claim and the pairs that decide it."""

    text: str = stated(_WORDS, "claim")
    pairs: tuple[Pair, ...] = stated(Several(Pair, "a pair", 1_000_000), "all")

    @property
    def as_claimed(self) -> int:
        """How many pairs are."""
        return sum(pair.by > 0 for pair in self.pairs)

    @property
    def mean_by(self) -> float | None:
        """How clearly the pairs are as claimed, on average; None without any."""
        return fmean(pair.by for pair in self.pairs) if self.pairs else None

    @property
    def verdict(self) -> str:
        """Holds, holds partly, fails, or unknown if there are no pairs."""
        if not self.pairs:
            return UNKNOWN
        if self.as_claimed == len(self.pairs):
            return HOLDS
        return PARTLY if 2 * self.as_claimed >= len(self.pairs) else FAILS

    @property
    def decisive(self) -> list[Pair]:
        """The pairs against the claim, the clearest first; if there are none, the two narrowest."""
        ordered = sorted(self.pairs, key=lambda pair: pair.by)
        against = [pair for pair in ordered if pair.by <= 0]
        return against or ordered[:2]

    @property
    def document(self) -> dict:
        """The claim and its verdict, as written to JSON."""
        return {
            "claim": self.text,
            "verdict": self.verdict,
            "pairs": len(self.pairs),
            "as_claimed": self.as_claimed,
            "mean_by": self.mean_by,
            "decisive": [as_json(pair) for pair in self.decisive],
            "all": [as_json(pair) for pair in self.pairs],
        }


@dataclass(frozen=True)
class Finding:
    """A finding of the paper, and the claims that it consists of."""

    number: int = stated(whole(1), "finding")
    text: str = stated(_WORDS)
    claims: tuple[Claim, ...] = stated(Several(Claim, "a claim"))

    @property
    def verdict(self) -> str:
        """That of its claims, if those that can be told agree; partly, if they do not."""
        verdicts = {claim.verdict for claim in self.claims} - {UNKNOWN}
        return verdicts.pop() if len(verdicts) == 1 else PARTLY if verdicts else UNKNOWN

    @property
    def document(self) -> dict:
        """The finding as ``results.json`` keeps it."""
        return {
            "finding": self.number,
            "text": self.text,
            "verdict": self.verdict,
            "claims": [claim.document for claim in self.claims],
        }
