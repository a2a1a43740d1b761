"""What a suite of attacks shows: one table, strongest first, and a verdict in plain words."""

from rich.table import Table

from segkey.crypto.ciphers import METHODS, Cipher, method_label, method_name
from segkey.model.results import NOTHING_TO_MEASURE, is_measured
from segkey.reports.provenance import tested_on
from segkey.reports.text import number, printable, table_of, visible
from segkey.system.words import duration, per_cent

_HALF, _NEARLY_ALL = 0.5, 0.9  # of the way from the best keyless score to the correct key's


# Classes of required access, as `segkey.attacks.registry` names them, in the order of the verdict's
# lines.
ACCESS = (
    "the model alone",
    "the model and unlabelled images",
    "the model and labelled images",
    "encrypted images",
    "a plain/encrypted pair",
    "part of the key",
)
_ALONE, _KEY_PART = ACCESS[0], ACCESS[-1]
_EARLIER_ACCESS = {  # what earlier versions of segkey wrote
    "the model": _ALONE,
    "the model and some training images with masks": "the model and labelled images",
    "one plain image with its encrypted twin": "a plain/encrypted pair",
    "": _KEY_PART,
}
_EARLIER_ATTACKS = {  # and these attacks stood under "the model", which was too little
    "search": "the model and labelled images",
    "search-blind": "the model and unlabelled images",
    "exhaustive": "the model and labelled images",
}
OPTIMISTIC = "chosen on the test images it is judged on: optimistic for the attacker"


def required_access(line: dict) -> str:
    """What must fall into the attacker's hands for an attack, whatever version wrote its line."""
    steals = line["steals"]
    if steals == "the model":
        return _EARLIER_ATTACKS.get(line["attack"], _ALONE)
    return _EARLIER_ACCESS.get(steals, steals)


def chosen_on_test(line: dict, document: dict) -> bool:
    """Whether an attack chose among candidates on the images it is judged on, whatever version
    wrote its line."""
    if "chosen_on_test" in line:
        return line["chosen_on_test"] is True
    if line["attack"] == "plain":
        by_divisor = line["details"].get("by_divisor")
        return isinstance(by_divisor, dict) and len(by_divisor) > 1
    if line["attack"] in ("wrong-keys", "exhaustive", "fine-tune"):  # in earlier versions
        return True
    return line["attack"] in ("search", "search-blind") and line["details"].get(
        "split"
    ) == document.get("split", "test")


def strongest_first(document: dict) -> list[dict]:
    """The attacks of a suite, by what they won; those that are told a part of the key come last."""
    return sorted(
        document["attacks"],
        key=lambda line: (required_access(line) == _KEY_PART, -(line["mean_iou"] or 0.0)),
    )


def plain_in_words(plain: dict) -> str:
    """In which way plain images were fed, where there are two; of a result's ``plain`` or
    ``keyless``."""
    by_divisor = plain.get("by_divisor")
    if not isinstance(by_divisor, dict) or len(by_divisor) < 2:
        return ""
    if not any(isinstance(value, int | float) for value in by_divisor.values()):
        return ""  # nothing was measured, so nothing was chosen
    ways = ", ".join(
        f"{visible(str(divisor))} gives {number(value)}" for divisor, value in by_divisor.items()
    )
    return f"plain images: the better of the ways to divide them ({ways}), {OPTIMISTIC}"


def plain_one_way(method: str, plain: dict) -> str:
    """A warning where an earlier version fed plain images in one way only, and the method has
    another one."""
    if not plain or METHODS.get(method, Cipher).dtype == "uint8" or "by_divisor" in plain:
        return ""
    return (
        f"{method_name(method)}: plain images were divided by 255 only (an earlier segkey): "
        f"divided by the method's "
        "largest value they may reach more; measure again"
    )


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
    all_of_it, nothing = ("100 %", "0 %") if is_measured(document) else ("n/a", "n/a")
    table.add_row("the correct key", "", "", "", number(document["correct"]["mean_iou"]), all_of_it)
    table.add_row("plain images", "", "", "", number(document["keyless"]["mean_iou"]), nothing)
    table.add_row(
        printable(constant_answer(document)),
        *[""] * 3,
        number(document["constant"]["mean_iou"]),
        "",
    )
    notes = [tested_on(document)] if "tested" in document else []
    notes += [
        "keys: tried; images: through the network; won: of the way from plain images to the "
        "correct key"
    ]
    notes += [
        f"{line['attack']}: {line['summary']}. Requires {required_access(line)}; the attacker has "
        f"{line['knows']}."
        + (f" {OPTIMISTIC.capitalize()}." if chosen_on_test(line, document) else "")
        for line in strongest_first(document)
    ]
    notes += [
        f"{line['attack']} stands last: it is told a part of the key"
        for line in document["attacks"]
        if required_access(line) == _KEY_PART
    ]
    notes += filter(None, [plain_in_words(document["keyless"])])
    notes += [
        f"{name}: {why}" if why == NOTHING_TO_MEASURE else f"{name} does not fit: {why}"
        for name, why in document["left_out"].items()
    ]
    table.footnote = "\n".join(map(visible, notes))
    return table


def constant_answer(document: dict) -> str:
    """The answer that needs no model, in words."""
    name = document["constant"]["class"]
    return "always the same class" if name is None else f"always '{visible(name)}'"


def few_images(images: int) -> str:
    """A warning that all that follows rests on little."""
    return f"{images} test images are few: other images may tell otherwise." if images < 20 else ""


def learned_nothing(correct: float, constant: float) -> bool:
    """Whether a model is so bad with its key that attacks tell nothing."""
    return correct < 1.5 * constant


def nothing_to_judge(document: dict) -> str:
    """Why the results of an attack, or of a suite, tell nothing about a key; empty where they
    do."""
    correct, constant = document["correct"]["mean_iou"], document["constant"]
    if not is_measured(document):
        return NOTHING_TO_MEASURE[0].upper() + NOTHING_TO_MEASURE[1:] + "."
    if document["method"] == "none":
        return "This model is not protected: it works for everybody."
    if learned_nothing(correct, constant["mean_iou"]):
        return (
            f"The model has learned next to nothing: {correct:.4f} with the key, where always "
            f"answering "
            f"'{constant['class']}' reaches {constant['mean_iou']:.4f}. This says nothing about "
            f"the key; train longer first."
        )
    return ""


def suite_verdict(document: dict) -> str:
    """What the key is worth, in plain words: a sentence, and then a line for what each kind of
    attacker holds.

    The model alone comes first, then the other classes of `ACCESS`; whoever has more can also do
    what needs less. Lines are separated by newlines.
    """
    correct, keyless = document["correct"]["mean_iou"], document["keyless"]["mean_iou"]
    if nothing := nothing_to_judge(document):
        return nothing
    if keyless >= _NEARLY_ALL * correct:
        return f"The key adds next to nothing: plain images reach {keyless:.4f}, the key {correct:.4f}."
    lines = [
        f"The key is worth {correct:.4f} instead of {keyless:.4f} to those who have it"
        + _strongest(document)
        + "."
    ]
    lines += filter(None, [few_images(document["images"])])
    by_access: dict[str, list[dict]] = {access: [] for access in ACCESS}
    for line in document["attacks"]:
        if line["attack"] != "plain":  # it is what the others are measured against
            by_access.setdefault(required_access(line), []).append(line)
    del by_access[_KEY_PART]
    lines += [
        _against(f"With {access}", tried, document) for access, tried in by_access.items() if tried
    ]
    return "\n".join(lines)


def _strongest(document: dict) -> str:
    """The most that anybody reached who was not told a part of the key."""
    tried = [line for line in document["attacks"] if required_access(line) != _KEY_PART]
    best = max(tried, key=lambda line: line["mean_iou"], default=None)
    if not best:
        return ""
    needs = f"which needs {required_access(best)}"
    return f"; the strongest attack, {best['attack']}, {needs}, reaches {best['mean_iou']:.4f}"


def _against(who: str, lines: list[dict], document: dict) -> str:
    """One sentence about the strongest of some attacks."""
    best = max(lines, key=lambda line: line["mean_iou"])
    cost = f"{best['queries']:,} {'try' if best['queries'] == 1 else 'tries'}, {duration(best['seconds'])}"
    reached = f"{best['attack']} ({cost}) reaches {best['mean_iou']:.4f}" + _without_the_theft(best)
    reached += f" ({OPTIMISTIC})" if chosen_on_test(best, document) else ""
    if best["won"] >= _NEARLY_ALL:
        return f"{who}, {reached}: the protection is gone."
    if best["won"] >= _HALF:
        return f"{who}, {reached}: most of the protection is gone."
    if best["won"] >= 0.1:
        return f"{who}, {reached}, {per_cent(best['won'])} of what the key protects."
    return f"{who}, {reached}: next to nothing of what the key protects."


def _without_the_theft(line: dict) -> str:
    """What the same training images reach without the stolen model: only the rest was won by
    stealing it."""
    anew = line["details"].get("without_the_model")
    return f" ({anew:.4f} without the stolen model)" if isinstance(anew, float) else ""
