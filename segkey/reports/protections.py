"""One table over several suites: each protection, and what every kind of attacker made of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segkey.crypto.ciphers import method_label
from segkey.model.results import (
    ENCRYPTED,
    LABELLED,
    MODEL,
    NOTHING_TO_MEASURE,
    PAIR,
    UNLABELLED,
    AttackLine,
    Suite,
)
from segkey.reports.comparable_runs import groups_of, titled
from segkey.reports.tables import Row, provenance_of
from segkey.reports.text import TextTable, number
from segkey.system.wording import duration, per_cent

WIDEST = 4  # protections side by side that a terminal of 80 columns shows with whole numbers
_WRONG_KEYS, _FINE_TUNE = "wrong-keys", "fine-tune"
_LEAST_WORTH = 0.05  # of the correct score; a key that adds less has no shares to speak of


@dataclass(frozen=True)
class Reached:
    """What one kind of attacker reached on one model.

    Attributes:
        attack: the attack; of several, the one that scores highest. Empty for the owner.
        mean_iou: on all test images.
        recovered: share of the way from plain images to the correct key; None if it is not asked.
        seconds: that the attack took.
    """

    attack: str
    mean_iou: float | None
    recovered: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Column:
    """A protected model, as a column.

    Attributes:
        run: its name.
        name: its protection.
        reached: by kind of attacker, see `KINDS`; kinds that were not tried are missing.
        wrong_keys: how many random ones were tried.
    """

    run: str
    name: str
    reached: dict[str, Reached]
    wrong_keys: int

    @property
    def has_shares(self) -> bool:
        """Whether the key adds enough to speak of parts of it."""
        whole, plain = self.reached[KINDS[0]].mean_iou, self.reached[KINDS[1]].mean_iou
        return whole - plain >= _LEAST_WORTH * whole


KINDS = (
    "correct key",
    "plain images",
    "best wrong key",
    "white-box",
    "search with masks",
    "fine-tuned, 10 %",
    "the same, anew",
    "encrypted images",
    "one pair",
)


def columns(rows: Sequence[Row]) -> list[Column]:
    """A column per run with a suite that measured something."""
    return [
        Column(
            row.run,
            method_label(row.method, row.block_size) + row.how,
            dict(_reached(row)),
            row.incorrect.keys if row.incorrect else 0,
        )
        for row in sorted(rows, key=lambda row: (row.locked, row.method, row.block_size, row.run))
        if row.suite and row.suite.is_measured
    ]


def _reached(row: Row) -> Iterator[tuple[str, Reached]]:
    """By kind of attacker; white-box attacks need weights, and at most images without masks."""
    suite, tenth = row.suite, _tenth(row.suite)
    yield KINDS[0], Reached("", suite.correct.mean_iou)
    yield KINDS[1], Reached("plain", suite.no_key_baseline.mean_iou)
    groups = {
        KINDS[2]: lambda a: a.attack == _WRONG_KEYS,
        KINDS[3]: lambda a: (
            a.required_access in (MODEL, UNLABELLED) and a.attack not in (_WRONG_KEYS, "plain")
        ),
        KINDS[4]: lambda a: a.required_access == LABELLED and a.attack != _FINE_TUNE,
        KINDS[7]: lambda a: a.required_access == ENCRYPTED,
        KINDS[8]: lambda a: a.required_access == PAIR,
    }
    if row.incorrect:  # of `segkey attack`, if the suite has no line of it
        best = row.incorrect.max
        yield KINDS[2], Reached(_WRONG_KEYS, best, _share(suite, best))
    for kind, belongs in groups.items():
        if found := [line for line in suite.attacks if belongs(line)]:
            yield kind, _best(found)
    for kind, name in ((KINDS[5], "stolen"), (KINDS[6], "anew")):
        if tenth and isinstance(tenth.get(name), float):
            yield kind, Reached(_FINE_TUNE, tenth[name], _share(suite, tenth[name]))


def _share(suite: Suite, score: float) -> float:
    plain, whole = suite.no_key_baseline.mean_iou, suite.correct.mean_iou
    return (score - plain) / (whole - plain) if whole > plain else 1.0


def _best(lines: Sequence[AttackLine]) -> Reached:
    line = max(lines, key=lambda line: line.mean_iou or 0.0)
    return Reached(line.attack, line.mean_iou, line.recovered, line.seconds)


def _tenth(suite: Suite) -> dict | None:
    """The point of the curve of fine-tuning with 10 % of the training images."""
    for line in suite.attacks:
        curve = line.details.get("curve") if line.attack == _FINE_TUNE else None
        for point in curve if isinstance(curve, list) else []:
            if isinstance(point, dict) and point.get("percent") == 10:
                return point
    return None


def protection_tables(rows: Sequence[Row], widest: int = WIDEST) -> list[TextTable]:
    """A table per group of runs that can be compared, cut where a terminal ends.

    Args:
        rows: from `segkey.reports.tables.collect`.
        widest: protections side by side.
    """
    made = []
    for group, name, differs in titled(groups_of(list(rows))):
        found = columns(group)
        width = -(-len(found) // -(-len(found) // widest)) if found else 1  # of equal parts
        parts = [found[at : at + width] for at in range(0, len(found), width)]
        for part in parts:
            notes = _notes(found, group, differs) if part is parts[-1] else []
            made.append(_table(f"What each attacker reaches: mean IoU ({name})", part, notes))
    return made


def _notes(found: Sequence[Column], group: list[Row], differs: str) -> list[str]:
    notes = [
        "in brackets: the share recovered, from plain images (0 %) to the correct key (100 %), and "
        "the time that the attack took; of several attacks, the one that scores highest",
        "white-box: from the weights, and at most images without masks; fine-tuned: with 10 % of "
        "the training images and their masks; the same, anew: without the stolen model; one pair: "
        "a plain image and its encrypted twin",
    ]
    counts = sorted({column.wrong_keys for column in found if column.wrong_keys})
    notes += [f"best wrong key: of {' or '.join(map(str, counts))} random ones"] if counts else []
    notes += [
        f"{column.run}: plain images score nearly what the correct key does, or more, so shares "
        "would say nothing"
        for column in found
        if not column.has_shares
    ]
    return [*notes, *([differs] if differs else []), *provenance_of(group)]


def _table(title: str, part: Sequence[Column], notes: Sequence[str]) -> TextTable:
    rows = [
        [kind, *(_cell(column, kind) for column in part)]
        for kind in KINDS
        if any(kind in column.reached for column in part)
    ]
    return TextTable(title, ["with", *(column.name for column in part)], rows, notes)


def _cell(column: Column, kind: str) -> str | None:
    reached = column.reached.get(kind)
    if not reached:
        return None
    # The attack is named if there are several of its kind.
    named = f"{reached.attack}: " if kind in (KINDS[3], KINDS[4]) else ""
    facts = [per_cent(reached.recovered)] if reached.recovered is not None else []
    facts = facts if column.has_shares else []
    facts += [duration(reached.seconds)] if reached.seconds else []
    return named + number(reached.mean_iou) + (f" ({', '.join(facts)})" if facts else "")


def protections_as_csv(rows: Sequence[Row]) -> str:
    """A line per model and kind of attacker, with all digits."""
    head = ("run", "protection", "with", "attack", "mean_iou", "recovered", "seconds")
    lines = [
        [column.run, column.name, kind, r.attack, r.mean_iou, r.recovered, r.seconds]
        for column in columns(rows)
        for kind in KINDS
        if (r := column.reached.get(kind))
    ]
    return TextTable("", head, lines).as_csv()


def why_no_protections(rows: Sequence[Row]) -> str:
    """Why there is no table; empty if there is one."""
    if columns(rows):
        return ""
    if any(row.suite for row in rows):
        return NOTHING_TO_MEASURE
    return "no run here was attacked with 'segkey attack --suite'"
