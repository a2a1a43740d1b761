"""What a suite of attacks shows: one table, strongest first, and a verdict in plain words."""

from rich.table import Table

from segkey.ciphers import method_label
from segkey.reports.layout import duration, number, per_cent, printable, table_of, visible
from segkey.reports.provenance import tested_on

_HALF, _NEARLY_ALL = 0.5, 0.9  # of the way from the best keyless score to the correct key's


def strongest_first(document: dict) -> list[dict]:
    """The attacks of a suite, by what they won; what nobody can do, and only teaches, comes last."""
    return sorted(document["attacks"], key=lambda line: (not line["steals"], -line["mean_iou"]))


def suite_table(document: dict) -> Table:
    """Each attack with what its attacker knows, what it cost and what it won."""
    label = method_label(document["method"], document["block_size"])
    if document["fixed_password"]:
        label += ", password fixed"
    heading = f"{document['run']} ({label}): attacks, strongest first, on {document['images']} test images"
    table = table_of(heading, "attack", "keys", "images", "seconds", "mean IoU", "won")
    for line in strongest_first(document):
        table.add_row(
            printable(line["attack"]),
            f"{line['queries']:,}",
            f"{line['images']:,}",
            f"{line['seconds']:.0f}" if line["seconds"] >= 10 else f"{line['seconds']:.1f}",
            number(line["mean_iou"]),
            per_cent(line["won"]),
        )
    table.add_section()
    table.add_row("the correct key", "", "", "", number(document["correct"]["mean_iou"]), "100 %")
    table.add_row("plain images", "", "", "", number(document["keyless"]["mean_iou"]), "0 %")
    table.add_row(
        f"always '{printable(document['constant']['class'])}'", *[""] * 3, number(document["constant"]["mean_iou"]), ""
    )
    notes = [tested_on(document)] if "tested" in document else []
    notes += ["keys: tried; images: through the network; won: of the way from plain images to the correct key"]
    notes += [
        f"{line['attack']}: {line['summary']}. The attacker has {line['knows']}." for line in strongest_first(document)
    ]
    notes += [
        f"{line['attack']} stands last: it is told a part of the key"
        for line in document["attacks"]
        if not line["steals"]
    ]
    notes += [f"{name} does not fit: {why}" for name, why in document["left_out"].items()]
    table.footnote = "\n".join(map(visible, notes))
    return table


def few_images(images: int) -> str:
    """A warning that all that follows rests on little."""
    return f"{images} test images are few: other images may tell otherwise." if images < 20 else ""


def learned_nothing(correct: float, constant: float) -> bool:
    """Whether a model is so bad with its key that attacks tell nothing."""
    return correct < 1.5 * constant


def nothing_to_judge(document: dict) -> str:
    """Why the results of an attack, or of a suite, tell nothing about a key; empty where they do."""
    correct, constant = document["correct"]["mean_iou"], document["constant"]
    if document["method"] == "none":
        return "This model is not protected: it works for everybody."
    if learned_nothing(correct, constant["mean_iou"]):
        return (
            f"The model has learned next to nothing: {correct:.4f} with the key, where always answering "
            f"'{constant['class']}' reaches {constant['mean_iou']:.4f}. This says nothing about the key; train longer first."
        )
    return ""


def suite_verdict(document: dict) -> str:
    """What the key is worth, in plain words: a sentence, and then a line for what each kind of attacker holds.

    The model alone comes first. Lines are separated by newlines.
    """
    correct, keyless = document["correct"]["mean_iou"], document["keyless"]["mean_iou"]
    if nothing := nothing_to_judge(document):
        return nothing
    if keyless >= _NEARLY_ALL * correct:
        return f"The key adds next to nothing: plain images reach {keyless:.4f}, the key {correct:.4f}."
    lines = [
        f"The key is worth {correct:.4f} instead of {keyless:.4f} to those who have it" + _strongest(document) + "."
    ]
    lines += filter(None, [few_images(document["images"])])
    alone = [line for line in document["attacks"] if line["steals"] == "the model" and line["attack"] != "plain"]
    lines += [_against("With the model alone", alone)] if alone else []
    others: dict[str, list[dict]] = {}
    for line in document["attacks"]:
        if line["steals"] not in ("", "the model"):
            others.setdefault(line["steals"], []).append(line)
    lines += [_against(f"With {steals}", attempts) for steals, attempts in others.items()]
    return "\n".join(lines)


def _strongest(document: dict) -> str:
    """The most that anybody reached who was not told a part of the key."""
    tried = [line for line in document["attacks"] if line["steals"]]
    best = max(tried, key=lambda line: line["mean_iou"], default=None)
    return f"; the strongest attack, {best['attack']}, reaches {best['mean_iou']:.4f}" if best else ""


def _against(who: str, lines: list[dict]) -> str:
    """One sentence about the strongest of some attacks."""
    best = max(lines, key=lambda line: line["mean_iou"])
    cost = f"{best['queries']:,} {'try' if best['queries'] == 1 else 'tries'}, {duration(best['seconds'])}"
    reached = f"{best['attack']} ({cost}) reaches {best['mean_iou']:.4f}" + _without_the_theft(best)
    if best["won"] >= _NEARLY_ALL:
        return f"{who}, {reached}: the protection is gone."
    if best["won"] >= _HALF:
        return f"{who}, {reached}: most of the protection is gone."
    if best["won"] >= 0.1:
        return f"{who}, {reached}, {per_cent(best['won'])} of what the key protects."
    return f"{who}, {reached}: next to nothing of what the key protects."


def _without_the_theft(line: dict) -> str:
    """What the same training images reach without the stolen model: only the rest was won by stealing it."""
    anew = line["details"].get("without_the_model")
    return f" ({anew:.4f} without the stolen model)" if isinstance(anew, float) else ""
