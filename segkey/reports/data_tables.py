"""Tables about data: which share of the pixels each class has."""

from rich.table import Table

from segkey.data.class_table import ClassTable
from segkey.data.items import Source
from segkey.reports.text import printable, table_of
from segkey.system.wording import counted, per_cent

_MOST = 60  # classes that are shown; others are summed up
_ALL = 30  # classes of which those that no mask holds are shown, too


def class_table(table: ClassTable) -> Table:
    """Classes with their share of the labelled pixels, void, and images without a label."""
    splits = list(table.pixels)
    shown = table_of("Classes and their share of labelled pixels", "class", *splits)
    shares = {split: table.shares(split) for split in splits}
    seen = sum(table.pixels.values())
    rows = [(number, name) for number, name in enumerate(table.classes) if seen[number]]
    if len(rows) == len(table.classes) or len(table.classes) <= _ALL:
        rows = list(enumerate(table.classes))
    for number, name in rows[:_MOST]:
        cells = [_share(shares[split][name], table.pixels[split][number]) for split in splits]
        shown.add_row(printable(name), *cells)
    if rest := rows[_MOST:]:
        cells = [_share(sum(shares[s][name] or 0 for _, name in rest), 1) for s in splits]
        shown.add_row(f"{len(rest)} more", *cells)
    if absent := len(table.classes) - len(rows):
        shown.add_row(f"{absent} in no mask", *("0" for _ in splits))
    shown.add_section()
    shown.add_row("void (of all pixels)", *(_share(table.void(s), 1) for s in splits))
    if any(table.strange.values()):
        shown.add_row("pixels of no class", *(str(table.strange.get(s, 0)) for s in splits))
    shown.add_row("images", *(str(table.images.get(s, 0)) for s in splits))
    if any(table.unlabelled.values()):
        cells = (str(table.unlabelled.get(s, 0)) for s in splits)
        shown.add_row("without any labelled pixel", *cells)
    return shown


def _share(share: float | None, pixels: int) -> str:
    if share is None:
        return "n/a"
    if not pixels or not share:
        return "0"
    return per_cent(share, 1) if share >= 0.001 else "< 0.1 %"


def describe_source(source: Source) -> str:
    """What 'encrypt' would take in."""
    splits = ", ".join(f"{split} {len(items)}" for split, items in source.splits.items())
    text = f"{source.kind}: {counted(len(source), 'image')} ({splits})"
    if source.has_masks:
        text += f", {counted(len(source.classes or []), 'class', 'classes')}"
    else:
        text += ", no masks, so no model can be trained on these"
    return text + (f"; {len(source.problems)} left out" if source.problems else "")
