"""The paper's four findings, tested on the results of a grid of models.

A finding is one or more claims, and a claim is a comparison of pairs: of models, or of what is left
of them. It holds if every pair is as claimed, partly if at least half of them are, and cannot
be told if the grid has no pair.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from statistics import fmean

from segkey.crypto.ciphers import METHODS, method_name
from segkey.model import comparability
from segkey.paper.results import CellResult
from segkey.paper.variant_scores import VariantScores, models_of

HOLDS, PARTLY, FAILS, UNKNOWN = "holds", "holds partly", "does not hold", "cannot be told"

SMALL_BLOCKS = 4  # "small M" are those up to here; from M = 8 on, the paper's order changes
WORKS_WELL = 0.5  # a model still works well without its key if this part of it is left


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

    what: str
    by: float
    within_spread: bool | None = None
    devices: bool = False
    differs: str = ""


@dataclass
class Claim:
    """A claim and the pairs that decide it."""

    text: str
    pairs: list[Pair] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Holds, holds partly, fails, or unknown if there are no pairs."""
        if not self.pairs:
            return UNKNOWN
        right = sum(pair.by > 0 for pair in self.pairs)
        return (
            HOLDS if right == len(self.pairs) else PARTLY if 2 * right >= len(self.pairs) else FAILS
        )

    def decisive(self) -> list[Pair]:
        """The pairs against the claim, the clearest first; if there are none, the two narrowest."""
        ordered = sorted(self.pairs, key=lambda pair: pair.by)
        against = [pair for pair in ordered if pair.by <= 0]
        return against or ordered[:2]

    def document(self) -> dict:
        """The claim and its verdict, as written to JSON."""
        return {
            "claim": self.text,
            "verdict": self.verdict,
            "pairs": len(self.pairs),
            "as_claimed": sum(pair.by > 0 for pair in self.pairs),
            "mean_by": fmean(pair.by for pair in self.pairs) if self.pairs else None,
            "decisive": [pair.__dict__ for pair in self.decisive()],
            "all": [pair.__dict__ for pair in self.pairs],
        }


def examine(cells: Iterable[CellResult]) -> list[dict]:
    """The four findings, as ``results.json`` keeps them, from its cells but for the locked ones."""
    cells = [cell for cell in cells if not cell.locked]
    models = {place: several[0] for place, several in models_of(cells).items()}
    baseline = models.pop(("none", 1), None)
    grid = _Grid(models)
    return [
        _finding(1, "accuracy falls as M grows, most steeply for SHF", _falling(grid)),
        _finding(
            2, "SHF > NP > FFX at small M; NP is the most accurate from M = 8 on", _order(grid)
        ),
        _finding(3, "every protected model is below the baseline", [_below(grid, baseline)]),
        _finding(
            4,
            "FFX separates best, SHF and NP leak at small M, accuracy is traded for control",
            _leaks(grid),
        ),
    ]


def _finding(number: int, text: str, claims: list[Claim]) -> dict:
    verdicts = {claim.verdict for claim in claims} - {UNKNOWN}
    verdict = verdicts.pop() if len(verdicts) == 1 else PARTLY if verdicts else UNKNOWN
    return {
        "finding": number,
        "text": text,
        "verdict": verdict,
        "claims": [claim.document() for claim in claims],
    }


class _Grid:
    """Protected models by method and block size."""

    def __init__(self, models: dict[tuple[str, int], VariantScores]):
        self.models = models
        present = {method for method, _ in models}
        self.methods = [method for method in METHODS if method in present] + sorted(
            present - set(METHODS)
        )
        self.block_sizes = sorted({block_size for _, block_size in models})

    def of_method(self, method: str) -> list[VariantScores]:
        """Small blocks first."""
        return [self.models[method, m] for m in self.block_sizes if (method, m) in self.models]

    def at(self, block_size: int, methods: Sequence[str]) -> list[VariantScores]:
        """Those of some methods that the grid has, in that order."""
        return [
            self.models[method, block_size]
            for method in methods
            if (method, block_size) in self.models
        ]

    def __iter__(self):
        return iter(self.models.values())


def _higher(a: VariantScores, b: VariantScores) -> Pair:
    """The claim that ``a`` is more accurate than ``b``."""
    by, within = a.accuracy - b.accuracy, None
    if a.spread is not None and b.spread is not None:
        within = abs(by) < math.hypot(a.spread, b.spread)
    return Pair(
        f"{a.label} {a.accuracy:.4f}, {b.label} {b.accuracy:.4f}", by, within, **_apart(a, b)
    )


def _wider(a: VariantScores, b: VariantScores) -> Pair:
    """The claim that ``a`` has the wider gap between the correct key and none."""
    what = f"{a.label} {a.gap:.4f}, {b.label} {b.gap:.4f}"
    return Pair(what, a.gap - b.gap, **_apart(a, b))


def _keeps_more(a: VariantScores, b: VariantScores) -> Pair:
    """The claim that ``a`` keeps a larger part without the key than ``b``."""
    first, second = (f"{each.label} ({each.accuracy:.4f})" for each in (a, b))
    what = f"{first} keeps {a.left:.0%}, {second} {b.left:.0%}"
    return Pair(what, a.left - b.left, **_apart(a, b))


def _apart(*models: VariantScores) -> dict:
    """What a pair must say if its models were not trained and tested alike."""
    first, *others = models
    differing = [
        each
        for other in others
        for each in comparability.differences(other.conditions, first.conditions)
    ]
    devices = len({comparability.device_kind(model.device) for model in models}) > 1
    return {"devices": devices, "differs": comparability.joined(list(dict.fromkeys(differing)))}


def _falling(grid: _Grid) -> list[Claim]:
    falls, steep = (
        Claim("falls from each M to the next, for every method"),
        Claim("falls most for SHF"),
    )
    for method in grid.methods:
        falls.pairs += [_higher(small, large) for small, large in pairwise(grid.of_method(method))]
    for other in grid.methods:
        if other == "shf":
            continue
        common = [m for m in grid.block_sizes if len(grid.at(m, ("shf", other))) == 2]
        if len(common) > 1:
            ends = [grid.at(m, ("shf", other)) for m in (common[0], common[-1])]
            (shf, its), (shf_end, its_end) = ends
            fall, its_fall = shf.accuracy - shf_end.accuracy, its.accuracy - its_end.accuracy
            what = (
                f"M={common[0]} to {common[-1]}: SHF falls by {fall:.4f}, {method_name(other)} by "
                f"{its_fall:.4f}"
            )
            steep.pairs.append(
                Pair(what, fall - its_fall, **_apart(*(model for end in ends for model in end)))
            )
    return [falls, steep]


def _order(grid: _Grid) -> list[Claim]:
    small = Claim(f"SHF > NP > FFX up to M = {SMALL_BLOCKS}")
    large = Claim(f"NP is the most accurate from M = {2 * SMALL_BLOCKS} on")
    for m in grid.block_sizes:
        if m <= SMALL_BLOCKS:
            small.pairs += [
                _higher(a, b) for a, b in combinations(grid.at(m, ("shf", "np", "ffx")), 2)
            ]
        elif ("np", m) in grid.models:
            large.pairs += [
                _higher(grid.models["np", m], other) for other in grid.at(m, ("shf", "ffx"))
            ]
    return [small, large]


def _below(grid: _Grid, baseline: VariantScores | None) -> Claim:
    claim = Claim("each is below it")
    if baseline:
        claim.pairs = [_higher(baseline, model) for model in grid]
    return claim


def _leaks(grid: _Grid) -> list[Claim]:
    """Claims on leaks, of models that have learned something; of others they say nothing."""
    learned = _Grid({place: model for place, model in grid.models.items() if model.has_learned})
    separates = Claim("FFX has the widest gap from the correct key to none, at each M")
    keeps = Claim("FFX keeps the smallest part without the key, at each M")
    leaks = Claim(f"SHF and NP keep half or more without the key, up to M = {SMALL_BLOCKS}")
    trade = Claim("of two models, the more accurate one keeps more without the key")

    for m in learned.block_sizes:
        if ("ffx", m) in learned.models:
            ffx, others = learned.models["ffx", m], learned.at(m, ("shf", "np"))
            separates.pairs += [_wider(ffx, other) for other in others]
            keeps.pairs += [_keeps_more(other, ffx) for other in others]
        if m <= SMALL_BLOCKS:
            for model in learned.at(m, ("shf", "np")):
                what = f"{model.label} ({model.accuracy:.4f}) keeps {model.left:.0%}"
                leaks.pairs.append(Pair(what, model.left - WORKS_WELL))
    for a, b in combinations(learned, 2):
        more, less = (a, b) if a.accuracy >= b.accuracy else (b, a)
        trade.pairs.append(_keeps_more(more, less))
    return [separates, keeps, leaks, trade]
