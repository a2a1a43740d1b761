"""Tables over many runs: Rich, JSON, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from segkey.crypto.ciphers import METHODS, method_label, method_name
from segkey.crypto.keys import Key
from segkey.data.items import Problem
from segkey.model import conditions
from segkey.model.results import NOTHING_TO_MEASURE, is_measured
from segkey.reports import provenance
from segkey.reports.text import csv_cell, latex, number, printable, table_of, visible
from segkey.reports.verdicts import plain_one_way, suite_table, suite_verdict


@dataclass(frozen=True)
class Row:
    """A run with its results, as tables need it."""

    run: str
    method: str
    block_size: int
    # conditions that must agree for two runs to stand in one table, see `segkey.model.conditions`
    data: dict
    classes: tuple[str, ...]
    correct: float | None
    iou: dict[str, float | None]
    plain: float | None
    incorrect: dict | None
    constant: float | None
    images: int | None
    suite: dict | None = None  # what `segkey attack --suite` found
    attack: dict | None = None  # what `segkey attack` found
    result: dict | None = None  # where the score of the correct key is from
    notes: tuple[str, ...] = ()  # what is wrong with the results, see `segkey.reports.provenance`
    authentic: dict[str, bool] | None = (
        None  # by result, whether the key's owner made it; None: not checked
    )
    password_fixed: bool = False
    plain_note: str = ""  # where plain images were fed in one way only

    @property
    def variant(self) -> str:
        """The method as the head of a column: FFX with a fixed password is another method than FFX
        without."""
        return method_name(self.method) + (", password fixed" if self.password_fixed else "")

    @property
    def unmeasured(self) -> bool:
        """Whether it was tested, and there was nothing to measure."""
        return self.images is not None and self.correct is None


def collect(runs, key: Key | None = None) -> list[Row]:
    """Read the results of some runs; a run without any has empty cells.

    Args:
        runs: from `segkey.model.runs.find`.
        key: tells which results its owner made; without it, none is checked.
    """
    rows = []
    for run in runs:
        header, found = run.header, provenance.find(run, key)
        attacked, result = found.attacked, found.result
        rows.append(
            Row(
                run.name,
                header.method,
                header.block_size,
                conditions.of_run(run.config, result),
                header.classes,
                result.get("correct", {}).get("mean_iou"),
                result.get("correct", {}).get("iou", {}),
                attacked["plain"]["mean_iou"] if attacked else None,
                attacked["incorrect"] if attacked and is_measured(attacked) else None,
                result.get("constant", {}).get("mean_iou"),
                result.get("images"),
                found.suite,
                attacked,
                result or None,
                tuple(found.notes),
                found.authentic if key else None,
                bool(header.password_hash),
                plain_one_way(header.method, attacked["plain"]) if attacked else "",
            )
        )
    return rows


def provenance_of(rows: list[Row], full: bool = True) -> list[str]:
    """Lines that say on what some runs were tested, what is wrong with their results, and whether
    they were checked."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        for line in [*([provenance.tested_on(row.result, full)] if row.result else []), *row.notes]:
            lines.setdefault(line, []).append(row.run)
    told = [f"{', '.join(names)}: {line}" for line, names in lines.items()]
    unchecked = any(row.result and row.authentic is None for row in rows)
    return [visible(line) for line in told] + ([provenance.NOT_CHECKED] if unchecked else [])


def groups_of(rows: list[Row]) -> list[list[Row]]:
    """Runs on the same data, trained alike, together: other numbers cannot be compared."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(conditions.key(row.data), []).append(row)
    return list(groups.values())


def about(group: list[Row]) -> str:
    """What the runs of a group have in common, in short."""
    made = group[0].data
    trained = f"{made['network']}, {made['epochs done']} epochs, " if "network" in made else ""
    images = f"{group[0].images} test images" if group[0].images else "not evaluated yet"
    return f"{trained}{len(group[0].classes)} classes, {made['size']}, {images}"


def apart(groups: list[list[Row]]) -> list[str]:
    """For each group, in what it differs from the one before it that is most like it; empty for the
    first."""
    told = [""]
    for place, group in enumerate(groups[1:], 1):
        found = [
            conditions.differences(group[0].data, earlier[0].data) for earlier in groups[:place]
        ]
        nearest = min(range(place), key=lambda n: len(found[n]))
        told.append(f"differs from part {nearest + 1} in: {conditions.joined(found[nearest])}")
    return told


def titled(groups: list[list[Row]]) -> list[tuple[list[Row], str, str]]:
    """Each group with its name, and what tells it from the others."""
    names = [about(group) for group in groups]
    if len(groups) > 1:
        names = [f"part {number}: {name}" for number, name in enumerate(names, 1)]
    return list(zip(groups, names, apart(groups), strict=True))


def grid_of(group: list[Row]) -> tuple[list[str], list[int], dict[tuple[str, int], list[float]]]:
    """Methods as they head columns, block sizes, and the mean IoU of every run in each cell; a
    plain run is in none. A copy of a run, which has the same weights, is not counted again."""
    cells: dict[tuple[str, int], list[float]] = {}
    seen: set[tuple[str, int, str] | None] = set()
    for row in group:
        tested = (row.result or {}).get("tested")
        weights = tested.get("weights_sha256") if isinstance(tested, dict) else None
        name = (row.variant, row.block_size, weights) if isinstance(weights, str) else None
        if row.correct is not None and (name is None or name not in seen):
            seen.add(name)
            cells.setdefault((row.variant, row.block_size), []).append(row.correct)
    order = {method: number for number, method in enumerate(METHODS)}
    protected = sorted(
        (row for row in group if row.method != "none" and row.correct is not None),
        key=lambda row: (order.get(row.method, len(order)), row.method, row.password_fixed),
    )
    methods = list(dict.fromkeys(row.variant for row in protected))
    return methods, sorted({row.block_size for row in protected}), cells


def baseline_of(cells: dict[tuple[str, int], list[float]]) -> str:
    """The mean IoU of plain runs, of what `grid_of` gives."""
    return cell(cells.get((method_name("none"), 1)))


AVERAGED = "(n runs): the mean of n runs, which differ in their seed or key and in nothing else"


def notes_on(group: list[Row]) -> list[str]:
    """What a reader must know to compare the rows of a group: what was not measured alike."""
    counts = sorted({row.incorrect["keys"] for row in group if row.incorrect})
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


def tables(
    rows: list[Row], per_class: bool = False, left_out: Sequence[Problem] = ()
) -> list[Table | str]:
    """Method × M like the paper's Table 1, correct beside plain and incorrect like its Figure 6,
    IoU by class, attacks."""
    made = []
    for group, name, differs in titled(groups_of(rows)):
        methods, block_sizes, cells = grid_of(group)
        if block_sizes:
            table = table_of(
                f"Mean IoU with the correct key ({name})", "M", *map(printable, methods)
            )
            for m in block_sizes:
                table.add_row(str(m), *(cell(cells.get((method, m))) for method in methods))
            baseline = baseline_of(cells)
            notes = [f"baseline, nothing encrypted: {baseline}"] if baseline else []
            notes += [AVERAGED] if any(len(values) > 1 for values in cells.values()) else []
            table.footnote = "\n".join(notes)
            made.append(table)
        made.append(_comparison(group, name, differs))
        if per_class:
            made.append(_per_class(group, name))
        for row in group:
            if row.suite:
                made += [suite_table(row.suite), suite_verdict(row.suite)]
    if left_out:
        made.append(
            f"{len(left_out)} left out: {', '.join(visible(problem.name) for problem in left_out)}"
        )
    return made


def _comparison(group: list[Row], name: str, differs: str) -> Table:
    columns = ("run", "method", "correct", "plain", "incorrect", "best of", "constant")
    table = table_of(f"What the key is worth: mean IoU ({name})", *columns, left=2)
    for row in sorted(group, key=lambda row: (row.method, row.block_size, row.run)):
        wrong = row.incorrect
        table.add_row(
            printable(row.run),
            printable(method_label(row.method, row.block_size))
            + (", password fixed" if row.password_fixed else ""),
            number(row.correct),
            number(row.plain),
            f"{number(wrong['mean'])} ± {number(wrong['std'], 3)}" if wrong else "n/a",
            f"{wrong['keys']}: {number(wrong['max'])}" if wrong else "n/a",
            number(row.constant),
        )
    table.footnote = (
        "incorrect: mean ± standard deviation over random wrong keys; best of: the luckiest of "
        "them; "
        "constant: answering the commonest class everywhere"
    )
    notes = [
        *notes_on(group),
        *([f"this part {differs}; their numbers cannot be compared"] if differs else []),
    ]
    notes += [f"{row.run}: {NOTHING_TO_MEASURE}" for row in group if row.unmeasured]
    notes += provenance_of(group)
    table.footnote = visible("\n".join([table.footnote, *notes]), keep="\n")
    return table


def _per_class(group: list[Row], name: str) -> Table:
    table = table_of(
        f"IoU by class, correct key ({name})", "class", *(printable(row.run) for row in group)
    )
    for name in group[0].classes:
        table.add_row(printable(name), *(number(row.iou.get(name)) for row in group))
    return table


def _parts(rows: list[Row]) -> dict[str, tuple[int, str]]:
    """By run, the number of the part that it stands in, from 1, and in what that differs from
    another part."""
    told = titled(groups_of(rows))
    return {
        row.run: (number, differs)
        for number, (group, _, differs) in enumerate(told, 1)
        for row in group
    }


def as_json(rows: list[Row], left_out: Sequence[Problem] = ()) -> list[dict]:
    """One object a run; of a run that cannot be used, its name and why it is left out."""
    parts = _parts(rows)
    broken = [{"run": problem.name, "left_out": problem.why} for problem in left_out]
    return broken + [
        {
            "run": row.run,
            "method": row.method,
            "block_size": row.block_size,
            "size": [int(side) for side in row.data["size"].split("x")],
            "password_fixed": row.password_fixed,
            "part": parts[row.run][0],
            "differs": parts[row.run][1],
            "conditions": row.data,
            "images": row.images,
            "correct": {"mean_iou": row.correct, "iou": row.iou},
            "plain": {"mean_iou": row.plain},
            "incorrect": row.incorrect,
            "constant": {"mean_iou": row.constant},
            "suite": row.suite,
            "tested": provenance.conditions(row.result or {}) or None,
            "authentic": row.authentic,
            "notes": list(row.notes),
        }
        | ({"no_score": NOTHING_TO_MEASURE} if row.unmeasured else {})
        for row in rows
    ]


def as_csv(rows: list[Row]) -> str:
    """A line a run."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    wrong_names = ("keys", "mean", "std", "min", "max")
    writer.writerow(
        [
            "run",
            "method",
            "block_size",
            "images",
            "correct",
            "plain",
            *(f"incorrect_{n}" for n in wrong_names),
            "constant",
            "password_fixed",
            "part",
            "differs",
            "test_fingerprint",
            "notes",
        ]
    )
    parts = _parts(rows)
    for row in rows:
        wrong = (
            [row.incorrect[name] for name in wrong_names]
            if row.incorrect
            else [None] * len(wrong_names)
        )
        values = [row.correct, row.plain, *wrong, row.constant]
        values += [int(row.password_fixed), *parts[row.run]]
        values += [provenance.conditions(row.result or {}).get("fingerprint"), "; ".join(row.notes)]
        writer.writerow(map(csv_cell, [row.run, row.method, row.block_size, row.images, *values]))
    return file.getvalue()


def as_latex(rows: list[Row]) -> str:
    """The method × M table and the comparison as booktabs tables."""
    parts = []
    for group, name, differs in titled(groups_of(rows)):
        methods, block_sizes, cells = grid_of(group)
        several = any(len(values) > 1 for values in cells.values())
        notes = [
            name,
            *([differs] if differs else []),
            *([AVERAGED] if several else []),
            *notes_on(group),
        ]
        parts.append("\n".join(f"% {visible(note)}" for note in notes))
        if block_sizes:
            lines = [
                [str(m), *(cell(cells.get((method, m))) or "--" for method in methods)]
                for m in block_sizes
            ]
            parts.append(latex_table(["$M$", *map(latex, methods)], lines))
        lines = [
            [
                latex(row.run),
                latex(row.variant),
                str(row.block_size) if row.method != "none" else "--",
                number(row.correct),
                number(row.plain),
                f"${row.incorrect['mean']:.4f} \\pm {row.incorrect['std']:.4f}$"
                if row.incorrect
                else "--",
                number(row.incorrect["max"]) if row.incorrect else "--",
            ]
            for row in sorted(group, key=lambda row: (row.method, row.block_size, row.run))
        ]
        parts.append(
            latex_table(
                ["run", "method", "$M$", "correct", "plain", "incorrect", "best incorrect"], lines
            )
        )
    return "\n".join(parts)


def latex_table(header: list[str], lines: list[list[str]]) -> str:
    """A booktabs table: words in the first column, numbers in the others."""
    rows = [" & ".join(line) + r" \\" for line in lines]
    head = " & ".join(header) + r" \\"
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def demo_sentence(rows: list[Row]) -> str:
    """What the demo's table shows, from its numbers."""
    measured = [row for row in rows if row.correct is not None and row.incorrect]
    if not measured:
        return f"This shows nothing: {NOTHING_TO_MEASURE}."
    parts = []
    for row in measured:
        best = max(row.plain, row.incorrect["max"])
        parts.append(
            f"{method_name(row.method)}: {row.correct:.2f} with the right key, "
            f"{row.incorrect['mean']:.2f} on average with a wrong "
            f"one, {best:.2f} for the best attempt without it (plain images, or the luckiest wrong "
            f"key)"
        )
    strongest = max(measured, key=lambda row: row.correct - max(row.plain, row.incorrect["max"]))
    return (
        "What this shows, in mean IoU: "
        + "; ".join(parts)
        + ". Whoever holds the key gets the model's full quality; "
        f"here {method_name(strongest.method)} keeps the most of it from everybody else. "
        "The scenes are simple and the training short: measure on your own images before you rely "
        "on it."
    )
