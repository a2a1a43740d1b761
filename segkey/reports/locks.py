"""What ``segkey lock`` and ``segkey whose`` show."""

from pathlib import Path

from rich.table import Table

from segkey.crypto.ciphers import method_label
from segkey.reports.text import printable, table_of, visible
from segkey.system.shell_quoting import word


def locked_table(original, made: list) -> Table:
    """Locked runs with their keys, and what to do with them.

    Args:
        original: the run that was locked.
    """
    sealed = made[0].is_sealed  # so are the others
    columns = ("run", "images encrypted with", "key") + ("sealed for",) * sealed
    table = table_of(f"{original.path}, locked", *columns, left=4)
    for run in made:
        header = run.header
        label = method_label(header.method, header.block_size)
        cells = [printable(str(run.path)), printable(label), header.key_id]
        table.add_row(*cells, *["\n".join(map(_shortened, run.recipients))] * sealed)
    table.footnote = (
        "Predictions are those of the original, if images are encrypted with the key. Next: segkey "
        f"evaluate {word(made[0].path)} --key KEY; segkey attack {word(made[0].path)} --key KEY"
    ) + (". segkey inspect shows recipients in full" if sealed else ". Not sealed: see --seal")
    return table


def _shortened(recipient: str) -> str:
    """Enough of a recipient to tell it from others of the same table."""
    return f"{recipient[:16]}…"


def folded_sentence(original, made) -> str:
    """What was folded, and for whom the new run is sealed."""
    pairs, recipients = made.configuration.model.folded, made.recipients
    sealed = f", sealed for {', '.join(recipients)}" if recipients else ""
    return (
        f"{visible(str(made.path))}: {len(pairs)} batch normalisations of "
        f"{visible(original.name)} are folded{sealed}"
    )


def whose_table(model: Path, found: list) -> Table:
    """How well each key explains a model's weights."""
    table = table_of(
        f"Who was {model} locked for?",
        "key file",
        "key",
        "method",
        "explained",
        "by chance",
        left=3,
    )
    for match in found:
        style = "[bold]" if match.is_the_locks else ""
        table.add_row(
            style + printable(match.customer),
            match.key_id,
            printable(match.method),
            f"{match.explained:.1%}",
            f"{match.by_chance:.1%}",
        )
    table.footnote = (
        "explained: how much of the locked weights is a convolution (with --original: how like the "
        "original's they are) once the key has undone the lock; by chance: the most that a "
        "random key explains"
    )
    return table


def whose_sentence(found: list) -> str:
    """The answer."""
    if locks := [match for match in found if match.is_the_locks]:
        names = ", ".join(f"{visible(match.customer)} (key {match.key_id})" for match in locks)
        return f"It was locked with the key of {names}."
    if not any(match.tells for match in found):
        return (
            "The weights alone cannot tell: M is the stride of the first convolution. Give the run "
            "that was locked with --original."
        )
    return "It was locked with none of these keys, or changed too much since."


def whose_document(model: Path, found: list) -> dict:
    """What ``segkey whose --json`` prints."""
    names = ("customer", "key_id", "method", "explained", "by_chance", "is_the_locks")
    keys = [{name: getattr(match, name) for name in names} for match in found]
    return {"model": str(model), "can_be_told": any(m.tells for m in found), "keys": keys}
