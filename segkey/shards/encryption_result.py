"""What an encryption did: counted image by image, put together over ranks, and told at the end."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segkey.data import peculiarities
from segkey.data.class_table import ClassTable
from segkey.data.items import Finding, Problem, Severity, Source
from segkey.shards.writer import Row


@dataclass(frozen=True)
class Encrypted:
    """What became of one image of a task: the arguments of `ShardWriter.write`, what was seen."""

    original_size: tuple[int, int]
    rows: dict[str, list[Row]]
    counts: np.ndarray | None = None
    peculiar: set[str] = field(default_factory=set)


@dataclass
class Result:
    """What `encrypt` did.

    Attributes:
        images: how many, by split.
        problems: images that were left out, with reasons.
        kept: shards of an earlier run that were whole.
        written: shards that were made.
        seconds: how long it took.
        bytes: the size of all shards.
        labels: pixels of whole masks by class number, int64 (256), for each split that was made.
        unlabelled: images without any labelled pixel, for each of those splits.
        peculiar: images by what is unusual about them, see `segkey.data.peculiarities`.
        examples: the name of one, for each of those.
    """

    images: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)
    seconds: float = 0.0
    bytes: int = 0
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    unlabelled: Counter[str] = field(default_factory=Counter)
    peculiar: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def see(self, split: str, name: str, outcome: Encrypted, ignore_index: int) -> None:
        """Add what was seen of an image."""
        if outcome.counts is not None:
            self.labels[split] = self.labels.get(split, 0) + outcome.counts
            labelled = outcome.counts.sum() - outcome.counts[ignore_index]
            self.unlabelled[split] += int(not labelled)
        for kind in outcome.peculiar:
            self.peculiar[kind] += 1
            self.examples.setdefault(kind, name)

    def class_table(self, source: Source) -> ClassTable:
        """How many pixels each class has in the masks that were encrypted."""
        images = {split: self.images.get(split, 0) for split in self.labels}
        return ClassTable(
            list(source.classes or []),
            source.ignore_index,
            dict(self.labels),
            images,
            dict(self.unlabelled),
        )

    def findings(self, source: Source) -> list[Finding]:
        """What is to be said after all images were seen, and was not said before."""
        found = list(peculiarities.lines(self.peculiar, self.examples, sum(self.images.values())))
        table = self.class_table(source)
        if self.kept or not self.labels:
            return found
        counts = sum(self.labels.values())
        missing = [f"'{n}'" for k, n in enumerate(table.classes) if not counts[k]]
        if missing and len(missing) < len(table.classes):
            found.append(
                Finding(
                    Severity.NOTE,
                    f"{len(table.classes)} classes are named, {len(missing)} of them are in no "
                    f"mask: {', '.join(missing[:8])}{', …' if missing[8:] else ''}",
                )
            )
        return found

    def count(self, split: str, images: int) -> None:
        """Add some images of a split."""
        self.images[split] = self.images.get(split, 0) + images

    @staticmethod
    def of_ranks(parts: "Iterable[Result]") -> "Result":
        """What all ranks did; seconds and bytes are not added up."""
        whole = Result()
        for part in parts:
            for split, images in part.images.items():
                whole.count(split, images)
            whole.problems += part.problems
            whole.kept += part.kept
            whole.written |= part.written
            for split, counts in part.labels.items():
                whole.labels[split] = whole.labels.get(split, 0) + counts
            whole.unlabelled.update(part.unlabelled)
            whole.peculiar.update(part.peculiar)
            whole.examples = part.examples | whole.examples
        return whole
