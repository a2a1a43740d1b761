"""An experiment beside the paper: its Table 1 and its findings, for people, spreadsheets and
LaTeX."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from segkey.crypto.ciphers import METHODS, method_label, method_name
from segkey.model import conditions
from segkey.model.recipes import RECIPES
from segkey.model.results import NOTHING_TO_MEASURE, Plain
from segkey.paper.findings import Model, has_score, models_of
from segkey.paper.metering import Watch
from segkey.reports.tables import latex_table
from segkey.reports.text import (
    csv_cell,
    facts_of,
    latex,
    markdown,
    number,
    printable,
    table_of,
    visible,
)
from segkey.reports.verdicts import plain_one_way
from segkey.system.files import written_whole
from segkey.system.json_files import write_json
from segkey.system.records import read
from segkey.system.words import in_bytes, rough_duration

# Table 1 of the paper: mean IoU on the 1449 validation images of PASCAL VOC 2012, correct key.
BASELINE = 0.7080
TABLE_1 = {
    "shf": {
        2: 0.6597,
        4: 0.5941,
        8: 0.4723,
        16: 0.2958,
        32: 0.1575,
        64: 0.0693,
        128: 0.0600,
        256: 0.0380,
    },
    "np": {
        2: 0.6216,
        4: 0.5695,
        8: 0.5173,
        16: 0.4329,
        32: 0.3880,
        64: 0.3733,
        128: 0.3218,
        256: 0.3007,
    },
    "ffx": {
        2: 0.5271,
        4: 0.4944,
        8: 0.4651,
        16: 0.3444,
        32: 0.2763,
        64: 0.2628,
        128: 0.2417,
        256: 0.2367,
    },
}
PAPERS_SETTINGS = {
    "backbone": "resnet50",
    "size": [256, 256],
}  # and its recipe, see segkey.model.recipes.RECIPES

_MARKS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Line:
    """A method and block size under one set of conditions, with the paper's value.

    Attributes:
        method, block_size, device: which.
        seeds: how many were trained.
        mean, std: mean IoU with the correct key over them; std is None for one.
        paper: the paper's, on PASCAL VOC 2012; None where it has none.
        difference: ``mean`` less ``paper``; None where the images are not the paper's.
        differs: in which conditions it differs from most of the table, in words.
        variant: the number of its conditions among those of the table, from 0.
    """

    method: str
    block_size: int
    device: str
    seeds: int
    mean: float
    std: float | None
    paper: float | None
    difference: float | None
    differs: str = ""
    variant: int = 0


def papers_value(method: str, block_size: int) -> float | None:
    """Mean IoU in the paper's Table 1; None where it has none."""
    return BASELINE if method == "none" else TABLE_1.get(method, {}).get(block_size)


def lines_of(document: dict) -> list[Line]:
    """A line for each method and block size of an experiment, and for each of the conditions it was
    made under."""
    several = variants_of(document)
    usual = usual_of(document)

    def line(model: Model) -> Line:
        paper = papers_value(model.method, model.block_size)
        difference = model.accuracy - paper if document["full_voc"] and paper is not None else None
        return Line(
            model.method,
            model.block_size,
            model.device,
            len(model.correct),
            model.accuracy,
            model.spread,
            paper,
            difference,
            conditions.joined(conditions.differences(model.conditions, usual)),
            list(several).index(conditions.key(model.conditions)),
        )

    return [line(model) for several in models_of(document["cells"]).values() for model in several]


def variants_of(document: dict) -> dict[str, dict]:
    """The conditions under which cells of an experiment were made, by their key, with the device as
    it describes itself."""
    found: dict[str, dict] = {}
    for cell in document["cells"]:
        made = conditions.of_cell(cell)
        found.setdefault(conditions.key(made), made | {"device": cell["device"]})
    return found


def usual_of(document: dict) -> dict:
    """The conditions that most cells have."""
    found = [conditions.of_cell(cell) for cell in document["cells"]]
    counts = Counter(map(conditions.key, found))
    return max(found, key=lambda made: counts[conditions.key(made)], default={})


class Table1:
    """The paper's Table 1 with this experiment's values.

    The paper's stand beside each value, with the difference, where the images are the paper's;
    otherwise in columns of their own, labelled as those of other images, and no difference is
    taken.
    """

    def __init__(self, document: dict):
        self.document, self.lines = document, lines_of(document)
        self.full = document["full_voc"]
        methods = {line.method for line in self.lines} - {"none"}
        self.methods = [m for m in METHODS if m in methods] + sorted(methods - set(METHODS))
        self.block_sizes = sorted({line.block_size for line in self.lines if line.method != "none"})
        self.variants = list(variants_of(document).values())

    @property
    def title(self) -> str:
        """What the numbers are of."""
        settings = self.document["settings"]
        height, width = settings["size"]
        images = max((cell["images"] for cell in self.document["cells"]), default=0)
        return (
            f"Mean IoU with the correct key ({settings['backbone']}, "
            f"{settings['recipe']['epochs']} epochs from "
            f"{_weights(settings)}, {settings['data']['images']['train']} training images, "
            f"{height}x{width}, "
            f"{images} test images, {len(settings['data']['classes'])} classes)"
        )

    @property
    def notes(self) -> list[str]:
        """What a reader must know to compare."""
        notes = [
            f"baseline, nothing encrypted: {self._own('none', 1) or 'not there yet'}; in the paper "
            f"{BASELINE:.4f}"
        ]
        if self.full:
            if difference := self._difference("none", 1):
                notes[0] += f" ({difference})"
            different = _unlike_the_paper(self.document["settings"])
            if different:
                notes.append(f"unlike in the paper: {', '.join(different)}")
        else:
            notes.append(
                "paper: measured on PASCAL VOC 2012 with COCO weights, other images than these; "
                "compare the order and the "
                "trend, not the values"
            )
        seeds = sorted({line.seeds for line in self.lines})
        if seeds and seeds[-1] > 1:
            number_of = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
            notes.append(
                f"±: mean and standard deviation over {number_of} seeds, which differ in nothing "
                f"else"
            )
        if self.document.get("left_out"):
            notes.append(
                f"left out, as their runs or results cannot be used: "
                f"{', '.join(self.document['left_out'])}"
            )
        if unmeasured := sum(not has_score(cell) for cell in self.document["cells"]):
            notes.append(
                f"{unmeasured} model{'s' * (unmeasured > 1)} missing: {NOTHING_TO_MEASURE}"
            )
        if self.document["diverged"]:
            notes.append(
                f"missing, as their training diverged: {', '.join(self.document['diverged'])}"
            )
        if len(self.variants) > 1:
            notes.append(self._variants())
        return notes

    def _variants(self) -> str:
        """What the letters of the table mean."""
        varying = conditions.varying(self.variants)
        others = [name for name in varying if name not in ("device", "trained on", "tested on")]

        def told(variant: dict) -> str:
            words = [variant["device"]] if "device" in varying else []
            return ", ".join(
                [*words, *(conditions.in_words(name, variant.get(name)) for name in others)]
            )

        marks = "; ".join(f"{_mark(n)}: {told(variant)}" for n, variant in enumerate(self.variants))
        how = "trained or tested differently" if others else "computed on different devices"
        return f"{how}, which are not averaged: {marks}"

    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        if self.full:
            return [
                "M",
                *(
                    f"{method_name(m)}{part}"
                    for m in self.methods
                    for part in ("", " paper", " diff.")
                ),
            ]
        return [
            "M",
            *map(method_name, self.methods),
            *(f"paper {method_name(m)}" for m in self.methods),
        ]

    def rows(self, mark: str = " ({})", plus_minus: str = " ± ") -> list[list[str]]:
        """The cells of the table as text, a row a block size.

        Args:
            mark: how the letter of a line's conditions is shown, where there are several.
            plus_minus: between mean and standard deviation.
        """

        def own(method: str, m: int) -> str:
            return self._own(method, m, mark, plus_minus)

        rows = []
        for m in self.block_sizes:
            if self.full:
                parts = [
                    part
                    for x in self.methods
                    for part in (own(x, m), self._papers(x, m), self._difference(x, m))
                ]
            else:
                parts = [
                    *(own(x, m) for x in self.methods),
                    *(self._papers(x, m) for x in self.methods),
                ]
            rows.append([str(m), *parts])
        return rows

    def _lines(self, method: str, m: int) -> list[Line]:
        return [line for line in self.lines if (line.method, line.block_size) == (method, m)]

    def _own(self, method: str, m: int, mark: str = " ({})", plus_minus: str = " ± ") -> str:
        """What was measured here; under each of the conditions, where there are several."""
        return " / ".join(
            number(line.mean)
            + (f"{plus_minus}{line.std:.4f}" if line.std is not None else "")
            + (mark.format(_mark(line.variant)) if len(self.variants) > 1 else "")
            for line in self._lines(method, m)
        )

    def _difference(self, method: str, m: int) -> str:
        return " / ".join(
            f"{line.difference:+.4f}"
            for line in self._lines(method, m)
            if line.difference is not None
        )

    @staticmethod
    def _papers(method: str, m: int) -> str:
        value = papers_value(method, m)
        return "" if value is None else number(value)

    def as_table(self) -> Table:
        """For the terminal."""
        table = table_of(self.title, *map(printable, self.header()))
        for row in self.rows():
            table.add_row(*map(printable, row))
        table.footnote = "\n".join(map(visible, self.notes))
        return table

    def as_csv(self) -> str:
        """A line for each method, block size and set of conditions, with all digits."""
        paper = "paper" if self.full else "paper_on_pascal_voc_2012"
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                "method",
                "block_size",
                "device",
                "seeds",
                "mean_iou",
                "std",
                paper,
                "difference",
                "differs_in",
            ]
        )
        for line in self.lines:
            values = asdict(line)
            del values["variant"]
            writer.writerow(map(csv_cell, values.values()))
        return file.getvalue()

    def as_markdown(self) -> str:
        """A table of Markdown, with its notes."""
        rows = [list(map(markdown, row)) for row in (self.header(), *self.rows())]
        rows.insert(1, ["---", *["---:"] * (len(self.header()) - 1)])
        table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        return "\n\n".join([markdown(self.title), table, *map(markdown, self.notes)]) + "\n"

    def as_latex(self) -> str:
        """A table of booktabs; what it is of stands above it as comments."""
        rows = self.rows("$^{{{}}}$", r" $\pm$ ")
        rows = [[f"${cell}$" if cell[:1] in "+-" else cell for cell in row] for row in rows]
        head = ["$M$", *map(latex, self.header()[1:])]
        comments = [f"% {latex(line)}" for line in (self.title, *self.notes)]
        return "\n".join([*comments, latex_table(head, rows)])

    def as_json(self) -> dict:
        """All of it for programs."""
        lines = [asdict(line) for line in self.lines]
        return {"title": self.title, "notes": self.notes, "full_voc": self.full, "rows": lines}


def _mark(variant: int) -> str:
    """A letter for conditions; two from the 27th on."""
    more, last = divmod(variant, len(_MARKS))
    return (_MARKS[more - 1] if more else "") + _MARKS[last]


def _weights(settings: dict) -> str:
    weights = settings["recipe"]["weights"]
    known = {"none": "random weights", "coco": "COCO weights", "imagenet": "ImageNet weights"}
    return (
        known.get(weights) or weights.replace("\\", "/").rsplit("/", 1)[-1]
    )  # a table goes to other people


def _unlike_the_paper(settings: dict) -> list[str]:
    """In what settings differ from the paper's."""
    papers = asdict(RECIPES["paper"])
    different = [
        f"{name} {settings[name]}"
        for name, value in PAPERS_SETTINGS.items()
        if settings[name] != value
    ]
    recipe = settings["recipe"]
    different += [
        f"{name.replace('_', ' ')} {recipe[name]}"
        for name in papers
        if recipe[name] != papers[name]
    ]
    if settings["wrong_keys"] != 100:
        different.append(f"{settings['wrong_keys']} wrong keys")
    return different


def findings_table(document: dict) -> Table:
    """The paper's four findings: what became of each here, by how much on average, and which pairs
    decide."""
    table = table_of(
        "The paper's findings, here",
        "finding, its claims, and the pairs that decide",
        "here",
        "pairs",
        "by",
        left=2,
    )
    for finding in document["findings"]:
        table.add_section()
        claims = finding["claims"]
        told = sum(claim["pairs"] > 0 for claim in claims)
        judged = f" ({told} of {len(claims)})" if 0 < told < len(claims) else ""
        table.add_row(
            f"[bold]{finding['finding']}. {finding['text']}[/]", _verdict(finding) + judged
        )
        for claim in claims if told else []:
            if not claim["pairs"]:
                table.add_row(Padding(printable(claim["claim"]), (0, 0, 0, 2)), _verdict(claim))
                continue
            table.add_row(
                Group(
                    Padding(printable(claim["claim"]), (0, 0, 0, 2)),
                    Padding(escape(_decisive(claim)), (0, 0, 0, 4), style="dim"),
                ),
                _verdict(claim),
                f"{claim['as_claimed']} of {claim['pairs']}",
                f"{claim['mean_by']:+.4f}",
            )
    table.footnote = (
        "(1 of 2): one of two claims could be told; by: the difference in the claim's favour, on "
        "average; the pairs "
        "that decide: those against it, the clearest first, or the narrowest where all are as "
        "claimed; keeps: of what is above the constant "
        "answer; finding 4 is tested on models that reach 1.5 times that answer"
    )
    if any(len((cell["plain"] or {}).get("by_divisor", {})) > 1 for cell in document["cells"]):
        table.footnote += "; plain images of FFX are fed in the better of two ways, chosen on the test images: optimistic for the attacker"
    if older := [
        note
        for cell in document["cells"]
        if (note := plain_one_way(cell["method"], cell["plain"] and read(Plain, cell["plain"])))
    ]:
        table.footnote += f"\n{older[0]}"
    unlearned = [
        m for several in models_of(document["cells"]).values() for m in several if not m.has_learned
    ]
    if unlearned:
        names = ", ".join(model.label for model in unlearned[:6])
        names += f" and {len(unlearned) - 6} more" if len(unlearned) > 6 else ""
        table.footnote += (
            f"\nhave learned next to nothing, so that their order is chance: {visible(names)}"
        )
    return table


def _verdict(document: dict) -> str:
    style = {"holds": "green", "holds partly": "yellow", "does not hold": "red"}.get(
        document["verdict"], "dim"
    )
    return f"[{style}]{document['verdict']}[/]"


def _decisive(claim: dict, most: int = 3) -> str:
    """The pairs that decide a claim, a line each."""
    against = claim["as_claimed"] < claim["pairs"]
    lines = [
        visible(pair["what"])
        + (" (within the spread of the seeds)" if pair["within_spread"] else "")
        + _apart(pair)
        for pair in claim["decisive"][:most]
    ]
    if against and len(claim["decisive"]) > most:
        lines.append(f"and {len(claim['decisive']) - most} more")
    return "\n".join(lines)


def _apart(pair: dict) -> str:
    """What a pair says whose models were not trained and tested alike."""
    if pair.get("differs"):
        return f" (not alike: {pair['differs']})"
    return " (different devices)" if pair["devices"] else ""


def plan_table(cells: Sequence, settings: dict, estimate: dict) -> Table:
    """What would be done, and how long it would take."""
    methods = [method_name(m) for m in dict.fromkeys(cell.method for cell in cells) if m != "none"]
    sizes, seeds = (
        sorted({c.block_size for c in cells if c.method != "none"}),
        len({cell.seed for cell in cells}),
    )
    recipe, images = settings["recipe"], estimate["images"]
    height, width = settings["size"]
    facts = [
        (
            "models",
            f"{len(cells)}: plain, and {', '.join(methods)} with M = {', '.join(map(str, sizes))}"
            + (f", {seeds} seeds each" if seeds > 1 else ""),
        ),
        (
            "images",
            f"train {images['train']}, val {images['val']}, test {images['test']}, at "
            f"{height}x{width}; "
            f"{len(settings['data']['classes'])} classes",
        ),
        (
            "training",
            f"{settings['backbone']} from {_weights(settings)}, {recipe['epochs']} epochs, batches "
            f"of "
            f"{recipe['batch_size']}, {recipe['optimizer']}",
        ),
        ("attack", f"the correct key, plain images, {settings['wrong_keys']} wrong keys"),
        ("disk", in_bytes(estimate["disk_bytes"])),
        (
            "measured",
            f"{1 / estimate['training']:.1f} images/s in training, {1 / estimate['scoring']:.1f} "
            f"images/s scored "
            f"({estimate['device']})",
        ),
        (
            "a model",
            f"about {rough_duration(estimate['protected'])} ({estimate['protected']:.0f} s); "
            f"plain: "
            f"{rough_duration(estimate['baseline'])}",
        ),
        (
            "all",
            f"about {rough_duration(estimate['all'])} ({estimate['all']:.0f} s), from the beginning",
        ),
    ]
    return facts_of("What segkey reproduce would do", facts)


def progress_table(watch: Watch, narrow: bool = False) -> Table:
    """A grid while it fills: what is finished, what is under way, and how long the rest will
    take."""
    finished = len(watch.results)
    table = table_of("Mean IoU with the correct key", "M")
    methods = [m for m in METHODS if m != "none" and any(cell.method == m for cell in watch.cells)]
    for method in methods:
        table.add_column(
            printable(method_name(method)), justify="right", min_width=None if narrow else 13
        )
    for m in sorted({cell.block_size for cell in watch.cells if cell.method != "none"}):
        table.add_row(str(m), *(_state(watch, method, m) for method in methods))
    table.add_section()
    table.add_row("plain", _state(watch, "none", 1))
    left = watch.meter.seconds_left()
    table.footnote = f"{finished} of {len(watch.cells)} models" + (
        f", about {rough_duration(left)} left" if left else ""
    )
    return table


def _state(watch: Watch, method: str, block_size: int) -> str:
    """What became of the cells of a method and block size so far."""
    cells = [cell for cell in watch.cells if (cell.method, cell.block_size) == (method, block_size)]
    results = [watch.results[cell.name] for cell in cells if cell.name in watch.results]
    done: dict[str, list[float]] = {}  # what was made under other conditions is not averaged
    for result in results:
        done.setdefault(conditions.key(conditions.of_cell(result)), []).append(
            result["correct"]["mean_iou"]
        )
    if watch.now and watch.now[0] in cells:
        return f"[cyan]{watch.now[1]} {watch.part:.0%}[/]"
    if not done:
        return "[dim]·[/]"
    scores = [[value for value in values if value is not None] for values in done.values()]
    shown = " / ".join(number(sum(values) / len(values) if values else None) for values in scores)
    return shown + (f" ({len(results)}/{len(cells)})" if len(cells) > 1 else "")


def write_tables(document: dict, out: Path) -> list[Path]:
    """Write ``table1.{txt,csv,md,tex,json}`` and ``findings.txt``; returns their paths."""
    table = Table1(document)
    texts = {
        "table1.txt": _plain_text(table.as_table()),
        "table1.csv": table.as_csv(),
        "table1.md": table.as_markdown(),
        "table1.tex": table.as_latex(),
        "findings.txt": _plain_text(findings_table(document)),
    }
    for name, text in texts.items():
        with written_whole(out / name, "w") as file:
            file.write(text)
    write_json(out / "table1.json", table.as_json())
    return [out / name for name in (*texts, "table1.json")]


def _plain_text(table: Table) -> str:
    """As the terminal shows it, without colours, 140 columns wide."""
    file = io.StringIO()
    Console(file=file, width=140, no_color=True, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def cell_sentence(cell: dict) -> str:
    """A finished cell in one line."""
    label = method_label(cell["method"], cell["block_size"])
    if not has_score(cell):
        return f"{label}: {NOTHING_TO_MEASURE}"
    text = f"{label}: {number(cell['correct']['mean_iou'])} with the correct key"
    wrong = cell["incorrect"]
    if wrong:
        text += (
            f", {number(cell['plain']['mean_iou'])} plain, {number(wrong['mean'])} with wrong keys "
            f"(the luckiest "
            f"{number(wrong['max'])})"
        )
    return text
