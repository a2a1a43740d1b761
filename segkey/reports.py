"""What results look like to people: Rich tables, sentences, CSV and LaTeX, made from results alone."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from segkey.ciphers import METHODS
from segkey.keys import key_space_bits, selections

NAMES = {"none": "plain", "shf": "SHF", "np": "NP", "ffx": "FFX"}
SEARCHABLE_BITS = 40  # a key space that a patient attacker can go through
_BLOCK_SIZES = (2, 4, 8, 16, 32, 64, 128, 256)


def _name(method: str) -> str:
    return NAMES.get(method, method.upper())


def _label(method: str, block_size: int) -> str:
    """A method with its block size, where it has one."""
    return _name(method) + (f" M={block_size}" if method != "none" else "")


def _number(value: float | None, digits: int = 4) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.{digits}f}"


class _Titled(Table):
    """A table under a line that may be wider than itself; Rich would wrap a title to the table's width."""

    def __init__(self, heading: str, **style):
        super().__init__(header_style="bold", caption_justify="left", **style)
        self.heading = _visible(heading)

    def __rich_console__(self, console, options):
        yield Text(self.heading, style="bold")
        yield from super().__rich_console__(console, options)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first ``left`` columns hold words and the others numbers."""
    table = _Titled(title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    return table


def _facts(title: str, facts: Iterable[tuple[str, object]]) -> Table:
    table = _Titled(title, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, _printable(value))
    return table


def _visible(value: object) -> str:
    """Names come from files that anybody may have made: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _printable(value: object) -> str:
    """`_visible`, and nothing in it is taken for Rich's markup."""
    return escape(_visible(value))


# ------------------------------------------------------------------ keygen


KEY_SPACE_ADVICE = (
    f"At M = 2, NP has only {selections(2)} keys, and so has FFX where its password is fixed: trying them all on a "
    "stolen model takes seconds. Take M = 4 or more, or FFX with the password derived from the key (the default)."
)


def key_space_table() -> Table:
    """Bits of key space by method and block size, three channels."""
    table = _table("Key space in bits (images with 3 channels)", "method", *(f"M={m}" for m in _BLOCK_SIZES))
    for label, method, fixed in (("SHF", "shf", False), ("NP", "np", False), ("FFX", "ffx", False),
                                 ("FFX, password fixed", "ffx", True)):  # fmt: skip
        bits = [key_space_bits(method, m, fixed_password=fixed) for m in _BLOCK_SIZES]
        table.add_row(label, *(f"[red]{b:.1f}[/]" if b < SEARCHABLE_BITS else f"{b:.0f}" for b in bits))
    table.caption = "red: within reach of a search; 256 is the key itself"
    return table


# ------------------------------------------------------------------ encrypt


def describe_plan(source, plans, cipher, bytes_needed: int) -> str:
    """What is about to be done, and the disk space it takes."""
    splits = ", ".join(f"{split} {len(items)}" for split, items in source.splits.items())
    views = next((plan.header.views for plan in plans if plan.header.views > 1), 1)
    height, width = plans[0].preparation.size
    parts = [
        f"{source.kind}: {len(source)} images ({splits})",
        f"{_name(cipher.method)}"
        + (f", M = {cipher.block_size}" if cipher.method != "none" else "")
        + f", {height}x{width}",
    ]
    if views > 1:
        parts.append(f"{views} augmented views of each training image")
    return "; ".join(parts) + f"; this takes {_bytes(bytes_needed)} of disk"


def describe_encryption(result, problems, out: Path, cipher) -> str:
    """What was done."""
    total = sum(result.images.values())
    splits = ", ".join(f"{split} {count}" for split, count in result.images.items())
    text = f"{total} images ({splits}) in {out}, {_bytes(result.bytes)}, {result.seconds:.1f} s"
    if result.kept:
        text += f"; {len(result.kept)} finished shards of an earlier run kept"
    if problems:
        text += f"; {len(problems)} left out"
    if 0 < cipher.key_space_bits < SEARCHABLE_BITS:
        text += (
            f"\nOnly {cipher.key_space_bits:.1f} bits of key space: a search finds this key quickly. Take a larger M."
        )
    return text


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000


# ------------------------------------------------------------------ inspect


def inspection_table(document: dict) -> Table:
    """A key, shard or run as two columns."""
    facts = []
    for name, value in document.items():
        if name in ("path", "kind"):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k} {_short(v)}" for k, v in value.items())
        elif isinstance(value, list) and name == "size":
            value = "x".join(map(str, value))
        elif isinstance(value, list) and name == "damage":
            value = "\n".join(value[:20]) or "none: everything matches its checksum"
        elif isinstance(value, list):
            value = f"{len(value)}: {', '.join(map(str, value))}"
        elif name == "bytes":
            value = _bytes(value)
        if value not in ("", None):
            facts.append((name.replace("_", " "), value))
    return _facts(f"{document['kind']}  {document['path']}", facts)


def _short(value: object) -> object:
    return f"({len(value)})" if isinstance(value, list) and len(value) > 4 else value


# ------------------------------------------------------------------ train, evaluate, attack


def describe_training(run) -> str:
    """Where a run is, and how it went."""
    best, config = run.config["best"], run.config
    return (
        f"run {run.path}: {config['epochs_done']} epochs in {config['seconds']:.0f} s, best validation loss "
        f"{best['val_loss']:.4f} in epoch {best['epoch']}\nNext: segkey evaluate {run.path}; segkey attack {run.path}"
    )


def evaluation_table(document: dict) -> Table:
    """Per-class IoU, and the mean beside what a constant answer reaches."""
    table = _table(f"{document['run']}: {document['images']} images of split '{document['split']}'", "class", "IoU")
    for name, value in document["correct"]["iou"].items():
        table.add_row(_printable(name), _number(value))
    table.add_section()
    table.add_row("[bold]mean IoU[/]", f"[bold]{_number(document['correct']['mean_iou'])}[/]")
    table.add_row("pixel accuracy", _number(document["correct"]["pixel_accuracy"]))
    constant = document["constant"]
    table.add_row(f"mean IoU of answering '{_printable(constant['class'])}' everywhere", _number(constant["mean_iou"]))
    return table


def attack_table(document: dict) -> Table:
    """Correct, plain and incorrect, as in the paper's Figure 6, with the spread it does not show."""
    method = _label(document["method"], document["block_size"])
    table = _table(
        f"{document['run']} ({method}): {document['images']} images", "test images", "mean IoU", "of correct"
    )
    correct, wrong = document["correct"]["mean_iou"], document["incorrect"]

    def row(label: str, value: float) -> None:
        table.add_row(label, _number(value), f"{100 * value / correct:.0f} %" if correct else "n/a")

    row("correct key", correct)
    row("plain", document["plain"]["mean_iou"])
    row(f"incorrect keys, mean of {wrong['keys']}", wrong["mean"])
    table.add_row("  standard deviation", _number(wrong["std"]), "")
    row("  worst", wrong["min"])
    row("  best", wrong["max"])
    row(f"always '{_printable(document['constant']['class'])}'", document["constant"]["mean_iou"])
    return table


def attack_sentence(document: dict) -> str:
    """What the table means, in plain words; it flatters nobody."""
    correct, plain, wrong = (
        document["correct"]["mean_iou"],
        document["plain"]["mean_iou"],
        document["incorrect"],
    )
    best = max(plain, wrong["max"])
    way = "plain images" if plain >= wrong["max"] else f"the best of {wrong['keys']} wrong keys"
    if document["method"] == "none":
        return "This model is not protected: it works for everybody."
    text = f"Without the key, {way} reach{'' if plain >= wrong['max'] else 'es'} {best:.4f} where the key reaches {correct:.4f}: "
    if best >= 0.9 * correct:
        text += "the key adds next to nothing."
    elif best >= 0.5 * correct:
        text += "the key protects only a part of the model's worth."
    else:
        text += "against these attempts the model is worth little without its key."
    if document["key_space_bits"] < SEARCHABLE_BITS:
        text += (
            f" But there are only {2 ** document['key_space_bits']:,.0f} different keys: somebody who tries them all "
            "finds yours."
        )
    return text


# ------------------------------------------------------------------ report


@dataclass(frozen=True)
class Row:
    """A run with its results, as tables need it."""

    run: str
    method: str
    block_size: int
    data: tuple  # what must agree for two runs to stand in one table: classes, size, test images
    classes: tuple[str, ...]
    correct: float | None
    iou: dict[str, float | None]
    plain: float | None
    incorrect: dict | None
    constant: float | None
    images: int | None


def collect(runs) -> list[Row]:
    """Read the results of some runs; a run without any has empty cells."""
    rows = []
    for run in runs:
        header, evaluated, attacked = run.header, run.result("evaluate"), run.result("attack")
        result = evaluated or attacked or {}
        rows.append(
            Row(
                run.name,
                header.method,
                header.block_size,
                (header.classes, run.size, result.get("images")),
                header.classes,
                result.get("correct", {}).get("mean_iou"),
                result.get("correct", {}).get("iou", {}),
                attacked["plain"]["mean_iou"] if attacked else None,
                attacked["incorrect"] if attacked else None,
                result.get("constant", {}).get("mean_iou"),
                result.get("images"),
            )
        )
    return rows


def _groups(rows: list[Row]) -> list[list[Row]]:
    """Runs on the same data together: numbers on different images cannot be compared."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.data, []).append(row)
    return list(groups.values())


def _about(group: list[Row]) -> str:
    height, width = group[0].data[1]
    images = f"{group[0].images} test images" if group[0].images else "not evaluated yet"
    return f"{len(group[0].classes)} classes, {height}x{width}, {images}"


def _grid(group: list[Row]) -> tuple[list[str], list[int], dict[tuple[str, int], list[float]]]:
    """Methods, block sizes, and the mean IoU of every run in each cell."""
    cells: dict[tuple[str, int], list[float]] = {}
    for row in group:
        if row.correct is not None:
            cells.setdefault((row.method, row.block_size), []).append(row.correct)
    methods = [method for method in (*METHODS, *{r.method for r in group} - set(METHODS)) if method != "none"]
    methods = [method for method in methods if any(m == method for m, _ in cells)]
    return methods, sorted({m for method, m in cells if method != "none"}), cells


def _cell(values: list[float] | None) -> str:
    """One run's value, or the mean of several with their number."""
    if not values:
        return ""
    return _number(sum(values) / len(values)) + (f" ({len(values)} runs)" if len(values) > 1 else "")


def tables(rows: list[Row], per_class: bool = False) -> list[Table]:
    """Method × M like the paper's Table 1, correct beside plain and incorrect like its Figure 6, IoU by class."""
    made = []
    for group in _groups(rows):
        methods, block_sizes, cells = _grid(group)
        if block_sizes:
            table = _table(f"Mean IoU with the correct key ({_about(group)})", "M", *map(_name, methods))
            for m in block_sizes:
                table.add_row(str(m), *(_cell(cells.get((method, m))) for method in methods))
            if ("none", 1) in cells:
                table.caption = f"baseline, nothing encrypted: {_cell(cells['none', 1])}"
            made.append(table)
        made.append(_comparison(group))
        if per_class:
            made.append(_per_class(group))
    return made


def _comparison(group: list[Row]) -> Table:
    columns = ("run", "method", "correct", "plain", "incorrect", "best of", "constant")
    table = _table(f"What the key is worth: mean IoU ({_about(group)})", *columns, left=2)
    for row in sorted(group, key=lambda row: (row.method, row.block_size, row.run)):
        wrong = row.incorrect
        table.add_row(
            _printable(row.run),
            _label(row.method, row.block_size),
            _number(row.correct),
            _number(row.plain),
            f"{wrong['mean']:.4f} ± {wrong['std']:.3f}" if wrong else "n/a",
            f"{wrong['keys']}: {wrong['max']:.4f}" if wrong else "n/a",
            _number(row.constant),
        )
    table.caption = (
        "incorrect: mean ± standard deviation over random wrong keys; best of: the luckiest of them; "
        "constant: answering the commonest class everywhere"
    )
    return table


def _per_class(group: list[Row]) -> Table:
    table = _table(f"IoU by class, correct key ({_about(group)})", "class", *(_printable(row.run) for row in group))
    for name in group[0].classes:
        table.add_row(_printable(name), *(_number(row.iou.get(name)) for row in group))
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
            ]
        )
    return file.getvalue()


def as_latex(rows: list[Row]) -> str:
    """The method × M table and the comparison as booktabs tables."""
    parts = []
    for group in _groups(rows):
        methods, block_sizes, cells = _grid(group)
        if block_sizes:
            lines = [[str(m), *(_cell(cells.get((method, m))) or "--" for method in methods)] for m in block_sizes]
            parts.append(_latex_table(["$M$", *map(_name, methods)], lines))
        lines = [
            [
                _latex(row.run),
                _name(row.method),
                str(row.block_size) if row.method != "none" else "--",
                _number(row.correct),
                _number(row.plain),
                f"${row.incorrect['mean']:.4f} \\pm {row.incorrect['std']:.4f}$" if row.incorrect else "--",
                _number(row.incorrect["max"]) if row.incorrect else "--",
            ]
            for row in sorted(group, key=lambda row: (row.method, row.block_size, row.run))
        ]
        parts.append(_latex_table(["run", "method", "$M$", "correct", "plain", "incorrect", "best incorrect"], lines))
    return "\n".join(parts)


def _latex_table(header: list[str], lines: list[list[str]]) -> str:
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


def _latex(text: str) -> str:
    return "".join("\\" + c if c in "_&%$#{}" else c for c in text)


# ------------------------------------------------------------------ bench


def bench_table(rows) -> Table:
    """Each stage beside its limit and beside what a user would do instead."""
    table = _table("What this machine does", "stage", "rate", "limit", "ratio", "goal", "alternative", "speed-up")
    for row in rows:
        if row.rate is None:
            table.add_row(_printable(row.stage), f"[dim]{_printable(row.note)}[/]", *[""] * 5)
            continue
        mark = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
        sign = "≤" if row.lower_is_better else "≥"
        table.add_row(
            row.stage,
            f"{_rate(row.rate)} {row.unit}",
            _rate(row.limit),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.goal is None else f"{sign} {row.goal:g} {mark}",
            _rate(row.alternative),
            "" if row.speed_up is None else f"{row.speed_up:,.0f}x",
        )
    return table


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


# ------------------------------------------------------------------ demo


def demo_sentence(rows: list[Row]) -> str:
    """What the demo's table shows, from its numbers."""
    parts = []
    for row in rows:
        best = max(row.plain, row.incorrect["max"])
        parts.append(
            f"{_name(row.method)}: {row.correct:.2f} with the right key, {row.incorrect['mean']:.2f} on average with a wrong "
            f"one, {best:.2f} for the luckiest attempt without it"
        )
    strongest = max(rows, key=lambda row: row.correct - max(row.plain, row.incorrect["max"]))
    return (
        "What this shows, in mean IoU: " + "; ".join(parts) + ". Whoever holds the key gets the model's full quality; "
        f"here {_name(strongest.method)} keeps the most of it from everybody else. "
        "The scenes are simple and the training short: measure on your own images before you rely on it."
    )
