"""Networks and imported models as tables."""

from collections.abc import Sequence

from rich.table import Table

from segkey.reports.text import facts_of, table_of
from segkey.system.shell_quoting import word


def network_table(listing) -> Sequence[object]:
    """The networks of a `segkey.model.network_list.Listing`, and what else there is."""
    if not listing.networks:
        return listing.more
    table = table_of("networks", "name", "of", "weights", "channels", "parameters", left=3)
    for each in listing.networks:
        count = "" if each.parameters is None else f"{each.parameters / 1e6:.1f} million"
        channels = _span(each.channels)
        table.add_row(each.name, each.origin, ", ".join(each.weights), channels, count)
    return [table, *listing.more]


def _span(numbers: Sequence[int]) -> str:
    whole = len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} … {numbers[-1]}" if whole else ", ".join(map(str, numbers))


def import_table(made) -> Table:
    """What a `segkey.model.importing.Imported` is, and what can be done with it."""
    run = made.run
    model, header = run.configuration.model, run.header
    per_channel = [
        f"({', '.join(f'{value:g}' for value in getattr(model, kind))})" for kind in ("mean", "std")
    ]
    folder = word(run.path)
    test = "" if run.configuration.data.shards else " --images FOLDER"
    facts = [
        ("network", f"{model.name}, {made.parameters / 1e6:.1f} million parameters"),
        ("images", f"{run.size[0]}×{run.size[1]} pixels, {header.channels} channels"),
        ("normalised by", "mean {}, std {} of pixels 0 … 1".format(*per_channel)),
        ("classes", f"{len(header.classes)}: {', '.join(header.classes[:5])}"),
        *(("note", note) for note in made.notes),
        ("next", f"segkey evaluate {folder}{test}"),
    ]
    return facts_of(f"run {run.path}", facts)
