"""Tables over many runs: Rich, JSON, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from segkey.ciphers import METHODS, method_label, method_name
from segkey.reports.attacks import suite_table, suite_verdict
from segkey.reports.layout import csv_cell, latex, number, printable, table_of, visible
from segkey.results import NOTHING_TO_MEASURE, is_measured
from segkey.sources import Problem


@dataclass(frozen=True)
class Row:
    """A run with its results, as tables need it."""

    run: str
    method: str
    block_size: int
    data: (
        tuple  # what must agree for two runs to stand in one table: classes, size, test images, and how it was trained
    )
    classes: tuple[str, ...]
    correct: float | None
    iou: dict[str, float | None]
    plain: float | None
    incorrect: dict | None
    constant: float | None
    images: int | None
    suite: dict | None = None  # what `segkey attack --suite` found

    @property
    def unmeasured(self) -> bool:
        """Whether it was tested, and there was nothing to measure."""
        return self.images is not None and self.correct is None


def collect(runs) -> list[Row]:
    """Read the results of some runs; a run without any has empty cells."""
    rows = []
    for run in runs:
        header, evaluated, attacked = run.header, run.result("evaluate"), run.result("attack")
        result = evaluated or attacked or {}
        if attacked and evaluated and attacked["images"] != evaluated["images"]:
            result = attacked  # of other test images than the evaluation: one row holds numbers of the same images
        rows.append(
            Row(
                run.name,
                header.method,
                header.block_size,
                (header.classes, run.size, result.get("images"), *_training(run)),
                header.classes,
                result.get("correct", {}).get("mean_iou"),
                result.get("correct", {}).get("iou", {}),
                attacked["plain"]["mean_iou"] if attacked else None,
                attacked["incorrect"] if attacked and is_measured(attacked) else None,
                result.get("constant", {}).get("mean_iou"),
                result.get("images"),
                run.result("suite"),
            )
        )
    return rows


def _training(run) -> tuple:
    """Backbone, finished epochs and recipe of a run."""
    config = run.config
    return config["model"]["backbone"], config["epochs_done"], tuple(sorted(map(str, config["recipe"].items())))


def groups_of(rows: list[Row]) -> list[list[Row]]:
    """Runs on the same data, trained alike, together: other numbers cannot be compared."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.data, []).append(row)
    return list(groups.values())


def about(group: list[Row]) -> str:
    height, width = group[0].data[1]
    trained = f"{group[0].data[3]}, {group[0].data[4]} epochs, " if len(group[0].data) > 3 else ""
    images = f"{group[0].images} test images" if group[0].images else "not evaluated yet"
    return f"{trained}{len(group[0].classes)} classes, {height}x{width}, {images}"


def grid_of(group: list[Row]) -> tuple[list[str], list[int], dict[tuple[str, int], list[float]]]:
    """Methods, block sizes, and the mean IoU of every run in each cell."""
    cells: dict[tuple[str, int], list[float]] = {}
    for row in group:
        if row.correct is not None:
            cells.setdefault((row.method, row.block_size), []).append(row.correct)
    methods = [method for method in (*METHODS, *{r.method for r in group} - set(METHODS)) if method != "none"]
    methods = [method for method in methods if any(m == method for m, _ in cells)]
    return methods, sorted({m for method, m in cells if method != "none"}), cells


def cell(values: list[float] | None) -> str:
    """One run's value, or the mean of several with their number."""
    if not values:
        return ""
    return number(sum(values) / len(values)) + (f" ({len(values)} runs)" if len(values) > 1 else "")


def tables(rows: list[Row], per_class: bool = False, left_out: Sequence[Problem] = ()) -> list[Table | str]:
    """Method × M like the paper's Table 1, correct beside plain and incorrect like its Figure 6, IoU by class, attacks."""
    made = []
    for group in groups_of(rows):
        methods, block_sizes, cells = grid_of(group)
        if block_sizes:
            table = table_of(
                f"Mean IoU with the correct key ({about(group)})", "M", *(printable(method_name(m)) for m in methods)
            )
            for m in block_sizes:
                table.add_row(str(m), *(cell(cells.get((method, m))) for method in methods))
            if ("none", 1) in cells:
                table.footnote = f"baseline, nothing encrypted: {cell(cells['none', 1])}"
            made.append(table)
        made.append(_comparison(group))
        if per_class:
            made.append(_per_class(group))
        for row in group:
            if row.suite:
                made += [suite_table(row.suite), suite_verdict(row.suite)]
    if left_out:
        made.append(f"{len(left_out)} left out: {', '.join(visible(problem.name) for problem in left_out)}")
    return made


def _comparison(group: list[Row]) -> Table:
    columns = ("run", "method", "correct", "plain", "incorrect", "best of", "constant")
    table = table_of(f"What the key is worth: mean IoU ({about(group)})", *columns, left=2)
    for row in sorted(group, key=lambda row: (row.method, row.block_size, row.run)):
        wrong = row.incorrect
        table.add_row(
            printable(row.run),
            printable(method_label(row.method, row.block_size)),
            number(row.correct),
            number(row.plain),
            f"{number(wrong['mean'])} ± {number(wrong['std'], 3)}" if wrong else "n/a",
            f"{wrong['keys']}: {number(wrong['max'])}" if wrong else "n/a",
            number(row.constant),
        )
    table.footnote = (
        "incorrect: mean ± standard deviation over random wrong keys; best of: the luckiest of them; "
        "constant: answering the commonest class everywhere"
    )
    for row in group:
        if row.unmeasured:
            table.footnote += f"\n{visible(row.run)}: {NOTHING_TO_MEASURE}"
    return table


def _per_class(group: list[Row]) -> Table:
    table = table_of(f"IoU by class, correct key ({about(group)})", "class", *(printable(row.run) for row in group))
    for name in group[0].classes:
        table.add_row(printable(name), *(number(row.iou.get(name)) for row in group))
    return table


def as_json(rows: list[Row], left_out: Sequence[Problem] = ()) -> list[dict]:
    """One object a run; of a run that cannot be used, its name and why it is left out."""
    broken = [{"run": problem.name, "left_out": problem.why} for problem in left_out]
    return broken + [
        {
            "run": row.run,
            "method": row.method,
            "block_size": row.block_size,
            "size": list(row.data[1]),
            "images": row.images,
            "correct": {"mean_iou": row.correct, "iou": row.iou},
            "plain": {"mean_iou": row.plain},
            "incorrect": row.incorrect,
            "constant": {"mean_iou": row.constant},
            "suite": row.suite,
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
        ]
    )
    for row in rows:
        wrong = [row.incorrect[name] for name in wrong_names] if row.incorrect else [None] * len(wrong_names)
        values = [row.correct, row.plain, *wrong, row.constant]
        writer.writerow(map(csv_cell, [row.run, row.method, row.block_size, row.images, *values]))
    return file.getvalue()


def as_latex(rows: list[Row]) -> str:
    """The method × M table and the comparison as booktabs tables."""
    parts = []
    for group in groups_of(rows):
        methods, block_sizes, cells = grid_of(group)
        if block_sizes:
            lines = [[str(m), *(cell(cells.get((method, m))) or "--" for method in methods)] for m in block_sizes]
            parts.append(latex_table(["$M$", *(latex(method_name(m)) for m in methods)], lines))
        lines = [
            [
                latex(row.run),
                latex(method_name(row.method)),
                str(row.block_size) if row.method != "none" else "--",
                number(row.correct),
                number(row.plain),
                f"${row.incorrect['mean']:.4f} \\pm {row.incorrect['std']:.4f}$" if row.incorrect else "--",
                number(row.incorrect["max"]) if row.incorrect else "--",
            ]
            for row in sorted(group, key=lambda row: (row.method, row.block_size, row.run))
        ]
        parts.append(latex_table(["run", "method", "$M$", "correct", "plain", "incorrect", "best incorrect"], lines))
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
            f"{method_name(row.method)}: {row.correct:.2f} with the right key, {row.incorrect['mean']:.2f} on average with a wrong "
            f"one, {best:.2f} for the best attempt without it (plain images, or the luckiest wrong key)"
        )
    strongest = max(measured, key=lambda row: row.correct - max(row.plain, row.incorrect["max"]))
    return (
        "What this shows, in mean IoU: " + "; ".join(parts) + ". Whoever holds the key gets the model's full quality; "
        f"here {method_name(strongest.method)} keeps the most of it from everybody else. "
        "The scenes are simple and the training short: measure on your own images before you rely on it."
    )
