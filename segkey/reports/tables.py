"""Tables over many runs: Rich, JSON, CSV and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from segkey.crypto.ciphers import method_label, method_name
from segkey.crypto.keys import Key
from segkey.data.items import Problem
from segkey.model import comparability
from segkey.model.results import NOTHING_TO_MEASURE, Attack, Evaluation, Incorrect, Suite
from segkey.reports import provenance
from segkey.reports.comparable_runs import (
    AVERAGED,
    baseline_of,
    cell,
    grid_of,
    groups_of,
    is_averaged,
    notes_on,
    titled,
)
from segkey.reports.text import Shown, TextTable, number, visible
from segkey.reports.verdicts import plain_one_way, suite_table, suite_verdict
from segkey.system.json_records import as_json as as_document


@dataclass(frozen=True)
class Row:
    """A run with its results, as tables need it."""

    run: str
    method: str
    block_size: int
    # conditions that must agree in one table, see `segkey.model.comparability`
    data: dict
    classes: tuple[str, ...]
    correct: float | None
    iou: dict[str, float | None]
    plain: float | None
    incorrect: Incorrect | None
    majority_class: float | None
    images: int | None
    suite: Suite | None = None  # what `segkey attack --suite` found
    attack: Attack | None = None  # what `segkey attack` found
    result: Evaluation | Attack | None = None  # where the score of the correct key is from
    notes: tuple[str, ...] = ()  # what is wrong with the results, see `segkey.reports.provenance`
    authentic: dict[str, bool] | None = (
        None  # by result, whether the key's owner made it; None: not checked
    )
    password_fixed: bool = False
    plain_note: str = ""  # where plain images were fed in one way only
    locked: bool = False  # after a plain training
    sealed: bool = False  # its weights are encrypted at rest

    @property
    def variant(self) -> str:
        """The method as the head of a column; FFX with a fixed password is another method.

        So is a method that a plainly trained model was locked with.
        """
        return method_name(self.method) + self.how

    @property
    def how(self) -> str:
        """What stands behind the method."""
        return ", password fixed" * self.password_fixed + ", locked" * self.locked

    @property
    def unmeasured(self) -> bool:
        """Whether it was tested, and there was nothing to measure."""
        return self.images is not None and self.correct is None


def collect(runs, key: Key | None = None) -> list[Row]:
    """Read the results of some runs; a run without any has empty cells.

    Args:
        runs: from `segkey.model.run_search.find`.
        key: tells which results its owner made; without it, none is checked.
    """
    rows = []
    for run in runs:
        header, found = run.header, provenance.find(run, key)
        attacked, result = found.attacked, found.result
        wrong = attacked.incorrect if attacked and attacked.is_measured else None
        rows.append(
            Row(
                run=run.name,
                method=header.method,
                block_size=header.block_size,
                data=comparability.of_run(run.configuration, result),
                classes=header.classes,
                correct=result and result.correct.mean_iou,
                iou=result.correct.iou if result else {},
                plain=attacked and attacked.plain.mean_iou,
                incorrect=wrong,
                majority_class=result and result.majority_class.mean_iou,
                images=result and result.images,
                suite=found.suite,
                attack=attacked,
                result=result,
                notes=tuple(found.notes),
                authentic=found.authentic if key else None,
                password_fixed=bool(header.password_hash),
                plain_note=plain_one_way(header.method, attacked and attacked.plain),
                locked=run.is_locked,
                sealed=run.is_sealed,
            )
        )
    return rows


def provenance_of(rows: list[Row], full: bool = True) -> list[str]:
    """Notes on runs: what they were tested on, what is wrong, whether results were checked."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        for line in [*([provenance.tested_on(row.result, full)] if row.result else []), *row.notes]:
            lines.setdefault(line, []).append(row.run)
    told = [f"{', '.join(names)}: {line}" for line, names in lines.items()]
    unchecked = any(row.result and row.authentic is None for row in rows)
    return [visible(line) for line in told] + ([provenance.NOT_CHECKED] if unchecked else [])


def tables(
    rows: list[Row], per_class: bool = False, left_out: Sequence[Problem] = ()
) -> list[Table | str]:
    """Method × M like the paper's Table 1 and Figure 6, IoU by class, attacks."""
    made = []
    for group, name, differs in titled(groups_of(rows)):
        if grid_of(group)[0]:
            made.append(_by_block_size(group, name).as_rich())
        made.append(_comparison(group, name, differs).as_rich())
        if per_class:
            made.append(_per_class(group, name).as_rich())
        for row in group:
            if row.suite:
                verdict = suite_verdict(row.suite, row.sealed, row.locked)
                made += [suite_table(row.suite), verdict]
    if left_out:
        made.append(
            f"{len(left_out)} left out: {', '.join(visible(problem.name) for problem in left_out)}"
        )
    return made


def _by_block_size(group: list[Row], name: str) -> TextTable:
    """The mean IoU of each method and block size, as in the paper's Table 1."""
    methods, block_sizes, cells = grid_of(group)
    baseline = baseline_of(cells)
    notes = [f"baseline, nothing encrypted: {baseline}"] if baseline else []
    return TextTable(
        f"Mean IoU with the correct key ({name})",
        ["M", *methods],
        [[m, *(cell(cells.get((method, m))) for method in methods)] for m in block_sizes],
        notes + ([AVERAGED] if is_averaged(cells) else []),
    )


def _in_order(group: list[Row]) -> list[Row]:
    return sorted(group, key=lambda row: (row.method, row.block_size, row.run))


def _comparison(group: list[Row], name: str, differs: str) -> TextTable:
    """Correct beside plain and incorrect, as in the paper's Figure 6."""
    rows = [
        [
            row.run,
            method_label(row.method, row.block_size) + row.how,
            number(row.correct),
            number(row.plain),
            f"{number(wrong.mean)} ± {number(wrong.std, 3)}" if wrong else "n/a",
            f"{wrong.keys}: {number(wrong.max)}" if wrong else "n/a",
            number(row.majority_class),
        ]
        for row in _in_order(group)
        for wrong in [row.incorrect]
    ]
    notes = [_COLUMNS, *notes_on(group)]
    notes += [f"this part {differs}; their numbers cannot be compared"] if differs else []
    notes += [f"{row.run}: {NOTHING_TO_MEASURE}" for row in group if row.unmeasured]
    notes += provenance_of(group)
    head = ("run", "method", "correct", "plain", "incorrect", "best of", "majority")
    return TextTable(f"What the key is worth: mean IoU ({name})", head, rows, notes, left=2)


_COLUMNS = (
    "incorrect: mean ± standard deviation over random wrong keys; best of: the luckiest of them; "
    "majority: answering the commonest class everywhere"
)


def _per_class(group: list[Row], name: str) -> TextTable:
    rows = [[label, *(number(row.iou.get(label)) for row in group)] for label in group[0].classes]
    head = ["class", *(row.run for row in group)]
    return TextTable(f"IoU by class, correct key ({name})", head, rows)


def _parts(rows: list[Row]) -> dict[str, tuple[int, str]]:
    """By run, the number of its part, from 1, and how that differs from another part."""
    told = titled(groups_of(rows))
    return {
        row.run: (number, differs)
        for number, (group, _, differs) in enumerate(told, 1)
        for row in group
    }


def as_json(rows: list[Row], left_out: Sequence[Problem] = ()) -> list[dict]:
    """One object per run; of a run that cannot be used, its name and why it is left out."""
    parts = _parts(rows)
    broken = [{"run": problem.name, "left_out": problem.why} for problem in left_out]
    return broken + [
        {
            "run": row.run,
            "method": row.method,
            "block_size": row.block_size,
            "size": [int(side) for side in row.data["size"].split("x")],
            "password_fixed": row.password_fixed,
            "locked": row.locked,
            "part": parts[row.run][0],
            "differs": parts[row.run][1],
            "conditions": row.data,
            "images": row.images,
            "correct": {"mean_iou": row.correct, "iou": row.iou},
            "plain": {"mean_iou": row.plain},
            "incorrect": row.incorrect and as_document(row.incorrect),
            "majority_class": {"mean_iou": row.majority_class},
            "suite": row.suite and row.suite.document,
            "tested": (row.result and row.result.tested) or None,
            "authentic": row.authentic,
            "notes": list(row.notes),
        }
        | ({"no_score": NOTHING_TO_MEASURE} if row.unmeasured else {})
        for row in rows
    ]


_WRONG = ("keys", "mean", "std", "min", "max")
_CSV = ("run", "method", "block_size", "images", "correct", "plain")
_CSV += tuple(f"incorrect_{name}" for name in _WRONG)
_CSV += ("majority_class", "password_fixed", "part", "differs", "test_fingerprint", "notes")
_CSV += ("locked",)


def as_csv(rows: list[Row]) -> str:
    """One line per run."""
    parts, lines = _parts(rows), []
    for row in rows:
        values = [row.run, row.method, row.block_size, row.images, row.correct, row.plain]
        values += [getattr(row.incorrect, name) if row.incorrect else None for name in _WRONG]
        values += [row.majority_class, int(row.password_fixed), *parts[row.run]]
        values += [row.result and row.result.tested.get("fingerprint"), "; ".join(row.notes)]
        values += [int(row.locked)]
        lines.append(values)
    return TextTable("", _CSV, lines).as_csv()


def as_latex(rows: list[Row]) -> str:
    """The method × M table and the comparison as booktabs tables."""
    made = []
    for group, name, differs in titled(groups_of(rows)):
        methods, _, cells = grid_of(group)
        told = [_for_latex(group)]
        if methods:
            told.insert(0, replace(_by_block_size(group, name), title="", notes=()))
        notes = [differs, *([AVERAGED] if is_averaged(cells) else []), *notes_on(group)]
        told[0] = replace(told[0], title=name, notes=notes)
        made += told
    return "\n".join(table.as_latex() for table in made)


def _for_latex(group: list[Row]) -> TextTable:
    """The comparison in columns that a paper has."""
    rows = [
        [
            row.run,
            row.variant,
            row.block_size if row.method != "none" else None,
            number(row.correct),
            number(row.plain),
            _plus_minus(wrong.mean, wrong.std) if wrong else None,
            number(wrong.max) if wrong else None,
        ]
        for row in _in_order(group)
        for wrong in [row.incorrect]
    ]
    head = ("run", "method", "M", "correct", "plain", "incorrect", "best incorrect")
    return TextTable("", head, rows)


def _plus_minus(mean: float, std: float) -> Shown:
    return Shown(f"{mean:.4f} ± {std:.4f}", rf"${mean:.4f} \pm {std:.4f}$")


def demo_sentence(rows: list[Row]) -> str:
    """What the demo's table shows, from its numbers."""
    measured = [row for row in rows if row.correct is not None and row.incorrect]
    if not measured:
        return f"This shows nothing: {NOTHING_TO_MEASURE}."
    parts = []
    for row in measured:
        best = max(row.plain, row.incorrect.max)
        parts.append(
            f"{method_name(row.method)}: {row.correct:.2f} with the right key, "
            f"{row.incorrect.mean:.2f} on average with a wrong one, {best:.2f} for the best "
            "attempt without it (plain images, or the luckiest wrong key)"
        )
    strongest = max(measured, key=lambda row: row.correct - max(row.plain, row.incorrect.max))
    return (
        "What this shows, in mean IoU: "
        + "; ".join(parts)
        + f". Of these attempts, {method_name(strongest.method)} withstands the most here. "
        "Stronger attacks are not among them: from the weights and a few photographs, 'segkey "
        "attack RUN --statistics' computes what these keys keep secret in seconds. The scenes are "
        "simple and the training short: measure on your own images before you rely on it."
    )
