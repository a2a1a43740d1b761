"""Which runs can be compared: those on the same data, trained and tested alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segkey.crypto.ciphers import METHODS, method_name
from segkey.model import comparability
from segkey.reports.text import number
from segkey.system.wording import counted

if TYPE_CHECKING:
    from segkey.reports.tables import Row


def groups_of(rows: list[Row]) -> list[list[Row]]:
    """Runs on the same data, trained alike, together: other numbers cannot be compared."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(comparability.key(row.data), []).append(row)
    return list(groups.values())


def about(group: list[Row]) -> str:
    """What the runs of a group have in common, in short."""
    made = group[0].data
    trained, images = "", group[0].images
    if "network" in made:
        trained = f"{made['network']}, {counted(made['epochs done'], 'epoch')}, "
    classes = counted(len(group[0].classes), "class", "classes")
    tested = counted(images, "test image") if images else "not evaluated yet"
    return f"{trained}{classes}, {made['size']}, {tested}"


def apart(groups: list[list[Row]]) -> list[str]:
    """By group, how it differs from the most similar one before it; empty for the first."""
    told = [""]
    for place, group in enumerate(groups[1:], 1):
        found = [
            comparability.differences(group[0].data, earlier[0].data) for earlier in groups[:place]
        ]
        nearest = min(range(place), key=lambda n: len(found[n]))
        told.append(f"differs from part {nearest + 1} in: {comparability.joined(found[nearest])}")
    return told


def titled(groups: list[list[Row]]) -> list[tuple[list[Row], str, str]]:
    """Each group with its name, and what tells it from the others."""
    names = [about(group) for group in groups]
    if len(groups) > 1:
        names = [f"part {number}: {name}" for number, name in enumerate(names, 1)]
    return list(zip(groups, names, apart(groups), strict=True))


def grid_of(group: list[Row]) -> tuple[list[str], list[int], dict[tuple[str, int], list[float]]]:
    """Methods (columns), block sizes, and the mean IoU of every run by cell, without plain runs.

    A copy of a run, which has the same weights, is counted once.
    """
    cells: dict[tuple[str, int], list[float]] = {}
    seen: set[tuple[str, int, str]] = set()
    for row in group:
        weights = row.result and row.result.tested.get("weights_sha256")
        copy = (row.variant, row.block_size, weights)
        if row.correct is not None and copy not in seen:
            seen |= {copy} if weights else set()
            cells.setdefault((row.variant, row.block_size), []).append(row.correct)
    order = {method: number for number, method in enumerate(METHODS)}
    protected = sorted(
        (row for row in group if row.method != "none" and row.correct is not None),
        key=lambda row: (order.get(row.method, len(order)), row.method, row.how),
    )
    methods = list(dict.fromkeys(row.variant for row in protected))
    return methods, sorted({row.block_size for row in protected}), cells


def is_averaged(cells: dict[tuple[str, int], list[float]]) -> bool:
    """Whether a cell of what `grid_of` gives holds several runs."""
    return any(len(values) > 1 for values in cells.values())


def baseline_of(cells: dict[tuple[str, int], list[float]]) -> str:
    """The mean IoU of plain runs, of what `grid_of` gives."""
    return cell(cells.get((method_name("none"), 1)))


AVERAGED = "(n runs): the mean of n runs, which differ in their seed or key and in nothing else"


def notes_on(group: list[Row]) -> list[str]:
    """What a reader must know to compare the rows of a group: what was not measured alike."""
    counts = sorted({row.incorrect.keys for row in group if row.incorrect})
    notes = []
    if len(counts) > 1:
        notes.append(
            f"different numbers of wrong keys were tried ({', '.join(map(str, counts))}): the best "
            f"of more keys is better"
        )
    return notes + list(dict.fromkeys(row.plain_note for row in group if row.plain_note))


def cell(values: list[float] | None) -> str:
    """One run's value, or the mean of several with their number."""
    if not values:
        return ""
    return number(sum(values) / len(values)) + (f" ({len(values)} runs)" if len(values) > 1 else "")
