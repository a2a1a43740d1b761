"""The paper's four findings, tested on the results of a grid of models."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

from segkey.crypto.ciphers import METHODS, method_name
from segkey.model import comparability
from segkey.paper.claims import Claim, Finding, Pair
from segkey.paper.results import CellResult
from segkey.paper.variant_scores import VariantScores, models_of

SMALL_BLOCKS = 4  # "small M" are those up to here; from M = 8 on, the paper's order changes
WORKS_WELL = 0.5  # a model still works well without its key if this part of it is left


def examine(cells: Iterable[CellResult]) -> list[Finding]:
    """The four findings, from the cells of an experiment but for the locked ones."""
    cells = [cell for cell in cells if not cell.locked]
    models = {place: several[0] for place, several in models_of(cells).items()}
    baseline = models.pop(("none", 1), None)
    grid = _Grid(models)
    order = "SHF > NP > FFX at small M; NP is the most accurate from M = 8 on"
    leaks = "FFX separates best, SHF and NP leak at small M, accuracy is traded for control"
    return [
        Finding(1, "accuracy falls as M grows, most steeply for SHF", _falling(grid)),
        Finding(2, order, _order(grid)),
        Finding(3, "every protected model is below the baseline", (_below(grid, baseline),)),
        Finding(4, leaks, _leaks(grid)),
    ]


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


def _falling(grid: _Grid) -> tuple[Claim, ...]:
    steps = [pair for method in grid.methods for pair in pairwise(grid.of_method(method))]
    falls = [_higher(small, large) for small, large in steps]
    steep = [_steeper(grid, method) for method in grid.methods if method != "shf"]
    return (
        Claim("falls from each M to the next, for every method", tuple(falls)),
        Claim("falls most for SHF", tuple(filter(None, steep))),
    )


def _steeper(grid: _Grid, other: str) -> Pair | None:
    """The claim that SHF falls more than another method, over all M that both have."""
    common = [m for m in grid.block_sizes if len(grid.at(m, ("shf", other))) == 2]
    if len(common) < 2:
        return None
    (shf, its), (shf_end, its_end) = (grid.at(m, ("shf", other)) for m in (common[0], common[-1]))
    fall, its_fall = shf.accuracy - shf_end.accuracy, its.accuracy - its_end.accuracy
    what = (
        f"M={common[0]} to {common[-1]}: SHF falls by {fall:.4f}, {method_name(other)} by "
        f"{its_fall:.4f}"
    )
    return Pair(what, fall - its_fall, **_apart(shf, its, shf_end, its_end))


def _order(grid: _Grid) -> tuple[Claim, ...]:
    small, large = [], []
    for m in grid.block_sizes:
        if m <= SMALL_BLOCKS:
            small += [_higher(*two) for two in combinations(grid.at(m, ("shf", "np", "ffx")), 2)]
        elif ("np", m) in grid.models:
            others = grid.at(m, ("shf", "ffx"))
            large += [_higher(grid.models["np", m], other) for other in others]
    return (
        Claim(f"SHF > NP > FFX up to M = {SMALL_BLOCKS}", tuple(small)),
        Claim(f"NP is the most accurate from M = {2 * SMALL_BLOCKS} on", tuple(large)),
    )


def _below(grid: _Grid, baseline: VariantScores | None) -> Claim:
    pairs = [_higher(baseline, model) for model in grid] if baseline else []
    return Claim("each is below it", tuple(pairs))


def _leaks(grid: _Grid) -> tuple[Claim, ...]:
    """Claims on leaks, of models that have learned something; of others they say nothing."""
    learned = _Grid({place: model for place, model in grid.models.items() if model.has_learned})
    separates, keeps, leaks, trade = [], [], [], []
    for m in learned.block_sizes:
        if ("ffx", m) in learned.models:
            ffx, others = learned.models["ffx", m], learned.at(m, ("shf", "np"))
            separates += [_wider(ffx, other) for other in others]
            keeps += [_keeps_more(other, ffx) for other in others]
        if m <= SMALL_BLOCKS:
            for model in learned.at(m, ("shf", "np")):
                what = f"{model.label} ({model.accuracy:.4f}) keeps {model.left:.0%}"
                leaks.append(Pair(what, model.left - WORKS_WELL))
    for a, b in combinations(learned, 2):
        more, less = (a, b) if a.accuracy >= b.accuracy else (b, a)
        trade.append(_keeps_more(more, less))
    small = f"SHF and NP keep half or more without the key, up to M = {SMALL_BLOCKS}"
    return (
        Claim("FFX has the widest gap from the correct key to none, at each M", tuple(separates)),
        Claim("FFX keeps the smallest part without the key, at each M", tuple(keeps)),
        Claim(small, tuple(leaks)),
        Claim("of two models, the more accurate one keeps more without the key", tuple(trade)),
    )
