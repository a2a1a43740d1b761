"""The documents of ``evaluate`` and ``attack``: their form, and what they say where nothing could
be measured."""

from segkey.system.forms import (
    NAME,
    OBJECT,
    YES_OR_NO,
    Kind,
    many,
    misfit,
    named,
    number,
    or_none,
    text,
    whole,
)

NOTHING_TO_MEASURE = "nothing to measure: every pixel of the test masks is void"

SCORE = number(0, 1)
_WON = number()
_MAYBE = or_none(SCORE)
_HEAD = {"run": text(), "images": whole()}
_CONSTANT = {"constant": OBJECT, "constant.class": or_none(NAME)}
_CORRECT = {"correct": OBJECT, "correct.iou": named(_MAYBE, 255), "correct.pixel_accuracy": _MAYBE}
_ATTACKED = {"method": text(64, 1), "block_size": whole(1, 1 << 12), "key_space_bits": number(0)}
_KINDS: dict[str, dict[str, Kind]] = {
    "evaluate": {"run": text(), "split": text(64), "images": whole(), "device": text(1000)}
    | _CORRECT
    | _CONSTANT,
    "attack": _HEAD
    | _CORRECT
    | _CONSTANT
    | _ATTACKED
    | {
        "plain": OBJECT,
        "incorrect": OBJECT,
        "incorrect.keys": whole(),
        "incorrect.values": many(_MAYBE, 10**7),
    }
    | {"seed": whole(-(2**63))},
    "suite": _HEAD
    | _CORRECT
    | _CONSTANT
    | _ATTACKED
    | {"keyless": OBJECT, "keyless.divided_by": whole(1, 65535), "fixed_password": YES_OR_NO}
    | {"left_out": named(text(10_000)), "attacks": many(OBJECT, 10_000)},
}
_OPTIONAL = ("device", "seed", "split", "correct.iou", "correct.pixel_accuracy", "incorrect.values")
_SCORED = {  # where scores stand: in a document, all or none of them are numbers
    "evaluate": ("constant.mean_iou",),
    "attack": (
        "constant.mean_iou",
        "plain.mean_iou",
        *(f"incorrect.{name}" for name in ("mean", "std", "min", "max")),
    ),
    "suite": ("constant.mean_iou", "keyless.mean_iou"),
}
_LINE = {  # an attack of a suite
    "attack": NAME,
    "knows": text(10_000),
    "steals": text(10_000),
    "summary": text(10_000),
    "queries": whole(),
    "images": whole(),
    "seconds": number(0),
    "details": OBJECT,
}


NAMES = tuple(_KINDS)  # of the results that a run may hold


def complaint(name: str, document: dict) -> str:
    """The field of a result that cannot be, and what was expected, or nothing; it may come from
    anybody.

    Args:
        name: ``evaluate``, ``attack`` or ``suite``; of other documents nothing is known.
        document: as read.
    """
    if name not in _KINDS:
        return ""
    if problem := misfit(document, _KINDS[name] | {"correct.mean_iou": _MAYBE}, _OPTIONAL):
        return problem
    measured = is_measured(document)
    if problem := misfit(
        document, {place: SCORE if measured else _MAYBE for place in _SCORED[name]}
    ):
        return problem
    scores = (
        {"mean_iou": SCORE, "won": _WON} if measured else {"mean_iou": _MAYBE, "won": or_none(_WON)}
    )
    for each in document["attacks"] if name == "suite" else ():
        if problem := misfit(each, _LINE | scores):
            return f"of an attack, {problem}"
    return ""


def is_measured(document: dict) -> bool:
    """Whether a result has scores: where every pixel of the test masks is void, there is nothing to
    measure."""
    return document["correct"]["mean_iou"] is not None
