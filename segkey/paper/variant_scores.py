"""Scores of the cells put together by method and block size, over their seeds."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, stdev

from segkey.model import comparability
from segkey.paper.results import CellResult
from segkey.paper.variants import variant_label, variant_of

LEARNED = 1.5  # a model has learned something if it reaches this many times the baseline


@dataclass(frozen=True)
class VariantScores:
    """Scores of a method and block size under the same conditions, over all seeds.

    Attributes:
        method, block_size, device: which; the method is that of `variant_of`.
        correct: mean IoU with the correct key, one value per seed.
        plain: with plain images, one value per seed; empty for the baseline.
        wrong: with wrong keys, all of them of all seeds; empty for the baseline.
        majority_class: mean IoU of the majority-class baseline.
        conditions: under which it was trained and tested, see `segkey.model.comparability`.
    """

    method: str
    block_size: int
    device: str
    correct: tuple[float, ...]
    plain: tuple[float, ...]
    wrong: tuple[float, ...]
    majority_class: float
    conditions: dict = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The label of the method and block size; "baseline" for a plain model."""
        return "baseline" if self.method == "none" else variant_label(self.method, self.block_size)

    @property
    def accuracy(self) -> float:
        """Mean IoU with the correct key."""
        return fmean(self.correct)

    @property
    def spread(self) -> float | None:
        """Standard deviation of `accuracy` over the seeds; None for a single seed."""
        return stdev(self.correct) if len(self.correct) > 1 else None

    @property
    def with_plain(self) -> float:
        """Mean IoU with plain images."""
        return fmean(self.plain)

    @property
    def with_wrong(self) -> float:
        """Mean IoU with a wrong key, on average."""
        return fmean(self.wrong)

    @property
    def without_key(self) -> float:
        """Without it: the better of plain images and the mean wrong key."""
        return max(self.with_plain, self.with_wrong)

    @property
    def gap(self) -> float:
        """How much of the accuracy is lost without the key."""
        return self.accuracy - self.without_key

    @property
    def left(self) -> float:
        """Share of the margin over the majority-class baseline that is left without a key.

        At least 0.
        """
        above = self.accuracy - self.majority_class
        return max(0.0, self.without_key - self.majority_class) / above if above > 0 else 0.0

    @property
    def has_learned(self) -> bool:
        """Whether it reaches `LEARNED` times the majority-class baseline."""
        return self.accuracy >= LEARNED * self.majority_class


def models_of(cells: Iterable[CellResult]) -> dict[tuple[str, int], list[VariantScores]]:
    """Cells by variant and block size and then by their conditions.

    Seeds are put together.

    Where a method and block size was trained or tested under several conditions, those with the
    most seeds are first, and of as many seeds those that most cells have. Cells that have no score,
    as every pixel of their test masks was void, are passed over.
    """
    cells = list(cells)
    usual = Counter(comparability.key(cell.made_under) for cell in cells)
    groups: dict[tuple, list[CellResult]] = {}
    for cell in cells:
        if cell.has_score:
            alike = comparability.key(cell.made_under)
            groups.setdefault((variant_of(cell), cell.block_size, alike), []).append(cell)
    models: dict[tuple[str, int], list[VariantScores]] = {}
    for (method, block_size, _), group in groups.items():
        models.setdefault((method, block_size), []).append(
            VariantScores(
                method,
                block_size,
                group[0].device,
                tuple(cell.correct.mean_iou for cell in group),
                _plain_scores(group),
                tuple(value for cell in group if cell.incorrect for value in cell.incorrect.values),
                fmean(cell.majority_class.mean_iou for cell in group),
                group[0].made_under,
            )
        )
    for several in models.values():
        several.sort(
            key=lambda model: (-len(model.correct), -usual[comparability.key(model.conditions)])
        )
    return models


def _plain_scores(group: list[CellResult]) -> tuple[float, ...]:
    """Scores with plain images, divided in the better way.

    Earlier versions tried one way, which counts only if all did.
    """
    scores = [cell.plain for cell in group if cell.plain]
    both = [plain for plain in scores if plain.by_divisor]
    return tuple(plain.mean_iou for plain in both or scores)
