"""Tables over many runs: Rich, JSON, CSV and LaTeX."""

import csv
import io
from dataclasses import dataclass

from rich.table import Table

from segkey.ciphers import METHODS, method_label, method_name
from segkey.keys import Key
from segkey.reports import provenance
from segkey.reports.attacks import suite_table, suite_verdict
from segkey.reports.layout import number, printable, table_of, visible


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
    attack: dict | None = None  # what `segkey attack` found
    result: dict | None = None  # where the score of the correct key is from
    notes: tuple[str, ...] = ()  # what is wrong with the results, see `segkey.reports.provenance`
    authentic: dict[str, bool] | None = None  # by result, whether the key's owner made it; None: not checked


def collect(runs, key: Key | None = None) -> list[Row]:
    """Read the results of some runs; a run without any has empty cells.

    Args:
        runs: from `segkey.runs.find`.
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
                (header.classes, run.size, result.get("images"), *_training(run), _labels(result)),
                header.classes,
                result.get("correct", {}).get("mean_iou"),
                result.get("correct", {}).get("iou", {}),
                attacked["plain"]["mean_iou"] if attacked else None,
                attacked["incorrect"] if attacked else None,
                result.get("constant", {}).get("mean_iou"),
                result.get("images"),
                found.suite,
                attacked,
                result or None,
                tuple(found.notes),
                found.authentic if key else None,
            )
        )
    return rows


def _training(run) -> tuple:
    """Backbone, finished epochs and recipe of a run."""
    config = run.config
    return config["model"]["backbone"], config["epochs_done"], tuple(sorted(map(str, config["recipe"].items())))


def _labels(result: dict) -> str:
    """What stands for the names and masks of the test images: numbers measured on others cannot be compared."""
    return str(provenance.conditions(result).get("labels", ""))


def provenance_of(rows: list[Row], full: bool = True) -> list[str]:
    """Lines that say on what some runs were tested, what is wrong with their results, and whether they were checked."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        for line in [*([provenance.tested_on(row.result, full)] if row.result else []), *row.notes]:
            lines.setdefault(line, []).append(row.run)
    told = [f"{', '.join(names)}: {line}" for line, names in lines.items()]
    unchecked = any(row.result and row.authentic is None for row in rows)
    return [visible(line) for line in told] + ([provenance.NOT_CHECKED] if unchecked else [])


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


def tables(rows: list[Row], per_class: bool = False) -> list[Table | str]:
    """Method × M like the paper's Table 1, correct beside plain and incorrect like its Figure 6, IoU by class, attacks."""
    made = []
    for group in groups_of(rows):
        methods, block_sizes, cells = grid_of(group)
        if block_sizes:
            table = table_of(f"Mean IoU with the correct key ({about(group)})", "M", *map(method_name, methods))
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
    return made


def _comparison(group: list[Row]) -> Table:
    columns = ("run", "method", "correct", "plain", "incorrect", "best of", "constant")
    table = table_of(f"What the key is worth: mean IoU ({about(group)})", *columns, left=2)
    for row in sorted(group, key=lambda row: (row.method, row.block_size, row.run)):
        wrong = row.incorrect
        table.add_row(
            printable(row.run),
            method_label(row.method, row.block_size),
            number(row.correct),
            number(row.plain),
            f"{wrong['mean']:.4f} ± {wrong['std']:.3f}" if wrong else "n/a",
            f"{wrong['keys']}: {wrong['max']:.4f}" if wrong else "n/a",
            number(row.constant),
        )
    table.footnote = (
        "incorrect: mean ± standard deviation over random wrong keys; best of: the luckiest of them; "
        "constant: answering the commonest class everywhere"
    )
    table.footnote = "\n".join([table.footnote, *provenance_of(group)])
    return table


def _per_class(group: list[Row]) -> Table:
    table = table_of(f"IoU by class, correct key ({about(group)})", "class", *(printable(row.run) for row in group))
    for name in group[0].classes:
        table.add_row(printable(name), *(number(row.iou.get(name)) for row in group))
    return table


def as_json(rows: list[Row]) -> list[dict]:
    """One object a run."""
    return [
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
            "tested": provenance.conditions(row.result or {}) or None,
            "authentic": row.authentic,
            "notes": list(row.notes),
        }
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
            "test_fingerprint",
            "notes",
        ]
    )
    for row in rows:
        wrong = [row.incorrect[name] for name in wrong_names] if row.incorrect else [""] * len(wrong_names)
        values = [row.correct, row.plain, *wrong, row.constant]
        writer.writerow(
            [
                row.run,
                row.method,
                row.block_size,
                row.images or "",
                *("" if value is None else value for value in values),
                str(provenance.conditions(row.result or {}).get("fingerprint", "")),
                "; ".join(row.notes),
            ]
        )
    return file.getvalue()


def as_latex(rows: list[Row]) -> str:
    """The method × M table and the comparison as booktabs tables."""
    parts = []
    for group in groups_of(rows):
        methods, block_sizes, cells = grid_of(group)
        if block_sizes:
            lines = [[str(m), *(cell(cells.get((method, m))) or "--" for method in methods)] for m in block_sizes]
            parts.append(latex_table(["$M$", *map(method_name, methods)], lines))
        lines = [
            [
                latex(row.run),
                method_name(row.method),
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


def latex(text: str) -> str:
    """Text with what LaTeX would take for commands escaped."""
    return "".join("\\" + c if c in "_&%$#{}" else c for c in text)


def demo_sentence(rows: list[Row]) -> str:
    """What the demo's table shows, from its numbers."""
    parts = []
    for row in rows:
        best = max(row.plain, row.incorrect["max"])
        parts.append(
            f"{method_name(row.method)}: {row.correct:.2f} with the right key, {row.incorrect['mean']:.2f} on average with a wrong "
            f"one, {best:.2f} for the best attempt without it (plain images, or the luckiest wrong key)"
        )
    strongest = max(rows, key=lambda row: row.correct - max(row.plain, row.incorrect["max"]))
    return (
        "What this shows, in mean IoU: " + "; ".join(parts) + ". Whoever holds the key gets the model's full quality; "
        f"here {method_name(strongest.method)} keeps the most of it from everybody else. "
        "The scenes are simple and the training short: measure on your own images before you rely on it."
    )
