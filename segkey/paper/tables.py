"""Tables of an experiment: the findings beside the paper's, the plan, the result files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from segkey.model.results import NOTHING_TO_MEASURE
from segkey.paper.claims import Claim, Finding, Pair
from segkey.paper.grid import Cell
from segkey.paper.results import CellResult, Results
from segkey.paper.table1 import Table1, weights_in_words
from segkey.paper.variant_scores import models_of
from segkey.paper.variants import variant_label, variant_name, variant_of
from segkey.reports.text import facts_of, number, plain_text, table_of
from segkey.reports.verdicts import plain_one_way
from segkey.system.files import written_whole
from segkey.system.json_files import write_json
from segkey.system.wording import duration, in_bytes, printable, visible

if TYPE_CHECKING:  # it imports experiments, and these import this
    from segkey.paper.estimate import Estimate

_MOST_PAIRS = 3  # that are shown of those which decide a claim


def findings_table(results: Results) -> Table:
    """The paper's four findings: the verdict here, the mean difference, and the decisive pairs."""
    table = table_of(
        "The paper's findings, here",
        "finding, its claims, and the pairs that decide",
        "here",
        "pairs",
        "by",
        left=2,
    )
    for finding in results.findings:
        table.add_section()
        told = sum(bool(claim.pairs) for claim in finding.claims)
        judged = f" ({told} of {len(finding.claims)})" if 0 < told < len(finding.claims) else ""
        table.add_row(
            f"[bold]{finding.number}. {printable(finding.text)}[/]", _verdict(finding) + judged
        )
        for claim in finding.claims if told else ():
            _add_claim(table, claim)
    table.footnote = _footnote(results)
    return table


def _add_claim(table: Table, claim: Claim) -> None:
    """A row with the claim, the pairs that decide it, and its verdict."""
    text = Padding(printable(claim.text), (0, 0, 0, 2))
    if not claim.pairs:
        table.add_row(text, _verdict(claim))
        return
    pairs = Padding(escape(_decisive(claim)), (0, 0, 0, 4), style="dim")
    right = f"{claim.as_claimed} of {len(claim.pairs)}"
    table.add_row(Group(text, pairs), _verdict(claim), right, f"{claim.mean_by:+.4f}")


def _footnote(results: Results) -> str:
    """What a reader of the findings must know."""
    note = (
        "(1 of 2): one of two claims could be told; by: the difference in the claim's favour, on "
        "average; the pairs that decide: those against it, the clearest first, or the narrowest if "
        "all are as claimed; keeps: of what is above the majority-class baseline; finding 4 is "
        "tested on models that reach 1.5 times that baseline"
    )
    if any(cell.plain and cell.plain.chosen_among > 1 for cell in results.cells):
        note += (
            "; plain images of FFX are fed in the better of two ways, chosen on the test images: "
            "optimistic for the attacker"
        )
    older = (plain_one_way(cell.method, cell.plain) for cell in results.cells)
    if first := next(filter(None, older), ""):
        note += f"\n{first}"
    unlearned = [
        m for several in models_of(results.cells).values() for m in several if not m.has_learned
    ]
    if unlearned:
        names = ", ".join(model.label for model in unlearned[:6])
        names += f" and {len(unlearned) - 6} more" if len(unlearned) > 6 else ""
        note += f"\nhave learned next to nothing, so that their order is chance: {visible(names)}"
    return note


def _verdict(told: Finding | Claim) -> str:
    styles = {"holds": "green", "holds partly": "yellow", "does not hold": "red"}
    return f"[{styles.get(told.verdict, 'dim')}]{told.verdict}[/]"


def _decisive(claim: Claim) -> str:
    """The pairs that decide a claim, a line each."""
    lines = [
        visible(pair.what)
        + (" (within the spread of the seeds)" if pair.within_spread else "")
        + _apart(pair)
        for pair in claim.decisive[:_MOST_PAIRS]
    ]
    more = len(claim.decisive) - _MOST_PAIRS
    if claim.as_claimed < len(claim.pairs) and more > 0:
        lines.append(f"and {more} more")
    return "\n".join(lines)


def _apart(pair: Pair) -> str:
    """What a pair says whose models were not trained and tested alike."""
    if pair.differs:
        return f" (not alike: {pair.differs})"
    return " (different devices)" if pair.devices else ""


def plan_table(cells: Sequence[Cell], settings: dict, estimate: "Estimate") -> Table:
    """What would be done, and how long it would take."""
    recipe, images = settings["recipe"], estimate.images
    height, width = settings["size"]
    protected = f"{duration(estimate.protected)} ({estimate.protected:.0f} s)"
    facts = [
        ("models", _models_in_words(cells)),
        (
            "images",
            f"train {images['train']}, val {images['val']}, test {images['test']}, at "
            f"{height}x{width}; {len(settings['data']['classes'])} classes",
        ),
        (
            "training",
            f"{settings['network']} from {weights_in_words(settings)}, {recipe['epochs']} epochs, "
            f"batches of {recipe['batch_size']}, {recipe['optimizer']}",
        ),
        ("attack", f"the correct key, plain images, {settings['wrong_keys']} wrong keys"),
        ("disk", in_bytes(estimate.disk_bytes)),
        (
            "measured",
            f"{1 / estimate.training:.1f} images/s in training, {1 / estimate.scoring:.1f} "
            f"images/s scored ({estimate.device})",
        ),
        ("a model", f"about {protected}; plain: {duration(estimate.baseline)}"),
        ("all", f"about {duration(estimate.all)} ({estimate.all:.0f} s), from the beginning"),
    ]
    return facts_of("What segkey reproduce would do", facts)


def _models_in_words(cells: Sequence[Cell]) -> str:
    """How many models of which methods and block sizes."""
    variants = dict.fromkeys(variant_of(cell) for cell in cells)
    methods = [variant_name(variant) for variant in variants if variant != "none"]
    sizes = sorted({cell.block_size for cell in cells if cell.method != "none"})
    seeds = len({cell.seed for cell in cells})
    several = f", {seeds} seeds each" if seeds > 1 else ""
    of = f"{', '.join(methods)} with M = {', '.join(map(str, sizes))}"
    return f"{len(cells)}: plain, and {of}{several}"


def write_tables(results: Results, out: Path) -> list[Path]:
    """Write ``table1.{txt,csv,md,tex,json}`` and ``findings.txt``; returns their paths."""
    table1 = Table1(results)
    shown = table1.by_block_size()
    texts = {
        "table1.txt": plain_text(shown.as_rich()),
        "table1.csv": table1.by_line().as_csv(),
        "table1.md": shown.as_markdown(),
        "table1.tex": shown.as_latex(),
        "findings.txt": plain_text(findings_table(results)),
    }
    for name, text in texts.items():
        with written_whole(out / name, "w") as file:
            file.write(text)
    write_json(out / "table1.json", table1.as_json())
    return [out / name for name in (*texts, "table1.json")]


def cell_sentence(cell: CellResult) -> str:
    """A finished cell in one line."""
    label = variant_label(variant_of(cell), cell.block_size)
    if not cell.has_score:
        return f"{label}: {NOTHING_TO_MEASURE}"
    text = f"{label}: {number(cell.correct.mean_iou)} with the correct key"
    if wrong := cell.incorrect:
        text += (
            f", {number(cell.plain.mean_iou)} plain, {number(wrong.mean)} with wrong keys "
            f"(the luckiest {number(wrong.max)})"
        )
    return text
