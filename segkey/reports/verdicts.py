"""Verdicts of a suite of attacks: one table, strongest first, and a summary in plain words."""

from rich.table import Table

from segkey.crypto.ciphers import METHODS, Cipher, method_label, method_name
from segkey.model.results import (
    ACCESS,
    ENCRYPTED,
    KEY_PART,
    MODEL,
    NOTHING_TO_MEASURE,
    PAIR,
    UNLABELLED,
    Attack,
    AttackLine,
    Plain,
    Result,
    Suite,
)
from segkey.reports.provenance import tested_on
from segkey.reports.text import number, printable, table_of, visible
from segkey.system.wording import counted, duration, per_cent

_HALF, _NEARLY_ALL = 0.5, 0.9  # of the way from the best score without a key to the correct key's


OPTIMISTIC = "chosen on the test images it is judged on: optimistic for the attacker"


def by_required_access(suite: Suite) -> list[AttackLine]:
    """The attacks of a suite: those that need the least access first, and the strongest of these.

    Attacks that are given part of the key come last, those of a user's own with other words of
    access before them.
    """
    order = {access: place for place, access in enumerate(ACCESS)}
    return sorted(
        suite.attacks,
        key=lambda line: (
            order.get(line.required_access, order[KEY_PART] - 0.5),
            line.required_access,
            -(line.mean_iou or 0.0),
        ),
    )


def plain_in_words(plain: Plain) -> str:
    """In which way plain images were fed; empty if there is one way only."""
    if plain.chosen_among < 2:
        return ""
    if not any(isinstance(value, int | float) for value in plain.by_divisor.values()):
        return ""  # nothing was measured, so nothing was chosen
    ways = ", ".join(
        f"{visible(str(divisor))} gives {number(value)}"
        for divisor, value in plain.by_divisor.items()
    )
    return f"plain images: the better of the ways to divide them ({ways}), {OPTIMISTIC}"


def plain_one_way(method: str, plain: Plain | None) -> str:
    """A warning if an earlier version divided plain images in only one of the method's two ways."""
    if not plain or METHODS.get(method, Cipher).dtype == "uint8" or plain.by_divisor is not None:
        return ""
    return (
        f"{method_name(method)}: plain images were divided by 255 only (an earlier segkey): "
        "divided by the method's largest value they may reach more; measure again"
    )


def suite_table(suite: Suite) -> Table:
    """Each attack with what its attacker knows, what it cost and what it recovered."""
    label = method_label(suite.method, suite.block_size)
    if suite.fixed_password:
        label += ", password fixed"
    heading = f"{suite.run} ({label}): attacks by what they need, on "
    heading += counted(suite.images, "test image")
    table = table_of(heading, "attack", "keys", "images", "seconds", "mean IoU", "recovered")
    access = None
    for line in by_required_access(suite):
        if line.required_access != access:
            access = line.required_access
            table.add_section()
            table.add_row(printable(f"with {access}:"), *[""] * 5)
        table.add_row(
            printable(f"  {line.attack}"),
            f"{line.queries:,}",
            f"{line.images:,}",
            f"{line.seconds:.0f}" if line.seconds >= 10 else f"{line.seconds:.1f}",
            number(line.mean_iou),
            per_cent(line.recovered),
        )
    table.add_section()
    all_of_it, nothing = ("100 %", "0 %") if suite.is_measured else ("n/a", "n/a")
    table.add_row("the correct key", "", "", "", number(suite.correct.mean_iou), all_of_it)
    table.add_row("plain images", "", "", "", number(suite.no_key_baseline.mean_iou), nothing)
    table.add_row(
        printable(majority_answer(suite)),
        *[""] * 3,
        number(suite.majority_class.mean_iou),
        "",
    )
    table.footnote = "\n".join(map(visible, _suite_notes(suite)))
    return table


def _suite_notes(suite: Suite) -> list[str]:
    """What a reader of `suite_table` must know: columns, attacks, and those that are left out."""
    attacks = by_required_access(suite)
    notes = [tested_on(suite)] if suite.tested else []
    notes += [
        "keys: tried; images: through the network; recovered: of the way from plain images to the "
        "correct key"
    ]
    notes += [
        f"{line.attack}: {line.summary}. Requires {line.required_access}; the attacker has "
        f"{line.attacker_knowledge}."
        + (f" {OPTIMISTIC.capitalize()}." if line.chosen_on_test else "")
        for line in attacks
    ]
    notes += [
        f"{line.attack} is listed last: it is given part of the key"
        for line in suite.attacks
        if line.required_access == KEY_PART
    ]
    notes += filter(None, [plain_in_words(suite.no_key_baseline)])
    return notes + [
        f"{name}: {why}" if why == NOTHING_TO_MEASURE else f"{name} does not fit: {why}"
        for name, why in suite.left_out.items()
    ]


def majority_answer(result: Result) -> str:
    """The answer that needs no model, in words."""
    name = result.majority_class.name
    return "always the same class" if name is None else f"always '{visible(name)}'"


def few_images(images: int) -> str:
    """A warning that all that follows rests on little."""
    told = "1 test image is" if images == 1 else f"{images} test images are"
    return f"{told} few: other images may tell otherwise." if images < 20 else ""


def learned_nothing(correct: float, majority_class: float) -> bool:
    """Whether a model is so bad with its key that attacks tell nothing."""
    return correct < 1.5 * majority_class


def nothing_to_judge(result: Attack | Suite) -> str:
    """Why the results of attacks tell nothing about a key; empty if they do."""
    correct, baseline = result.correct.mean_iou, result.majority_class
    if not result.is_measured:
        return NOTHING_TO_MEASURE[0].upper() + NOTHING_TO_MEASURE[1:] + "."
    if result.method == "none":
        return "This model is not protected: it works for everybody."
    if learned_nothing(correct, baseline.mean_iou):
        return (
            f"The model has learned next to nothing: {correct:.4f} with the key, where always "
            f"answering '{baseline.name}' reaches {baseline.mean_iou:.4f}. This says nothing about "
            "the key; train longer first."
        )
    return ""


def suite_verdict(suite: Suite, sealed: bool = False, locked: bool = False) -> str:
    """What the key is worth: a sentence, and a line for what each kind of attacker holds.

    The model alone comes first, then the other classes of `ACCESS`; an attacker with more
    can also do what needs less. Lines are separated by newlines.

    Args:
        suite: what the attacks found.
        sealed: the run's weights are encrypted at rest.
        locked: the run was locked after a plain training. Of a run that is sealed or locked, what
            thieves of the file, of the process and of encrypted images get is told, too.
    """
    correct, without = suite.correct.mean_iou, suite.no_key_baseline.mean_iou
    if nothing := nothing_to_judge(suite):
        return nothing
    if without >= _NEARLY_ALL * correct:
        reached = f"plain images reach {without:.4f}, the key {correct:.4f}"
        return f"The key adds next to nothing: {reached}."
    lines = [
        f"The key is worth {correct:.4f} instead of {without:.4f} to those who have it"
        + _strongest(suite)
        + "."
    ]
    lines += _thieves(suite, sealed) if sealed or locked else []
    lines += filter(None, [few_images(suite.images)])
    by_access: dict[str, list[AttackLine]] = {access: [] for access in ACCESS}
    for line in suite.attacks:
        if line.attack != "plain":  # it is what the others are measured against
            by_access.setdefault(line.required_access, []).append(line)
    del by_access[KEY_PART]
    lines += filter(None, [_weakest_access(by_access)])
    lines += [_against(f"With {access}", tried) for access, tried in by_access.items() if tried]
    return "\n".join(lines)


def _thieves(suite: Suite, sealed: bool) -> list[str]:
    """What thieves get of a run that was sealed or locked, by what they can read."""
    of_memory = f"{_best_of(suite, MODEL)}; {_best_of(suite, UNLABELLED)}"
    return [
        "A thief of the file gets "
        + (
            "nothing: its weights are encrypted."
            if sealed
            else "the weights, as they are not sealed, and so what a thief of the process gets."
        ),
        f"A thief of the process reads the weights in memory: {of_memory}.",
        "A thief of encrypted images who has the weights, too: "
        f"{_best_of(suite, ENCRYPTED)}; {_best_of(suite, PAIR)}.",
    ]


def _best_of(suite: Suite, access: str) -> str:
    """The share that the strongest attack with this access recovers."""
    tried = [line for line in suite.attacks if line.required_access == access]
    best = max(tried, key=lambda line: line.mean_iou, default=None)
    if not best:
        return f"with {access}, not measured"
    return f"with {access}, {per_cent(best.recovered)} of the key's worth ({best.attack})"


def _strongest(suite: Suite) -> str:
    """The best score of an attack that is not given a part of the key."""
    tried = [line for line in suite.attacks if line.required_access != KEY_PART]
    best = max(tried, key=lambda line: line.mean_iou, default=None)
    if not best:
        return ""
    needs = f"which needs {best.required_access}"
    return f"; the strongest attack, {best.attack}, {needs}, reaches {best.mean_iou:.4f}"


def _weakest_access(by_access: dict[str, list[AttackLine]]) -> str:
    """The least access at which more than half is recovered, by which attack."""
    for access, tried in by_access.items():
        best = max(tried, key=lambda line: line.recovered or 0.0, default=None)
        if best and (best.recovered or 0.0) > _HALF:
            return (
                f"More than half of the key's worth falls to an attacker with {access} "
                f"({best.attack})."
            )
    return "No attack that was run recovers more than half of the key's worth."


def _against(who: str, lines: list[AttackLine]) -> str:
    """One sentence about the strongest of some attacks."""
    best = max(lines, key=lambda line: line.mean_iou)
    cost = f"{best.queries:,} {'try' if best.queries == 1 else 'tries'}, {duration(best.seconds)}"
    reached = f"{best.attack} ({cost}) reaches {best.mean_iou:.4f}" + _without_the_theft(best)
    reached += f" ({OPTIMISTIC})" if best.chosen_on_test else ""
    if best.recovered >= _NEARLY_ALL:
        return f"{who}, {reached}: the protection is gone."
    if best.recovered >= _HALF:
        return f"{who}, {reached}: most of the protection is gone."
    if best.recovered >= 0.1:
        return f"{who}, {reached}, {per_cent(best.recovered)} of what the key protects."
    return f"{who}, {reached}: next to nothing of what the key protects."


def _without_the_theft(line: AttackLine) -> str:
    """What the same images reach without the stolen model; only the rest is due to the theft."""
    anew = line.details.get("without_the_model")
    return f" ({anew:.4f} without the stolen model)" if isinstance(anew, float) else ""
