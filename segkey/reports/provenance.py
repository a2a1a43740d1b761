"""Provenance of a report's numbers: what was tested, and whether the key's owner measured it.

A run's folder, and its results with it, may come from an untrusted source; they are labelled so.
"""

from dataclasses import dataclass, field
from pathlib import PurePath

from segkey.crypto.keys import Key
from segkey.model.authenticity import differences, is_authentic
from segkey.model.results import Attack, Evaluation, Result, Suite
from segkey.system.wording import visible

NOT_CHECKED = (
    "Results are as found in the folders of the runs and are not checked: anyone who had a folder "
    "may have written them."
)
_NUMBERS = (  # what must agree before two results stand for the same measurement
    "weights_sha256",
    "split",
    "images",
    "fingerprint",
    "labels",
    "dtype",
    "precise",
    "batch_size",
    "versions",
)


@dataclass
class Found:
    """What a run's folder holds that can stand in one row.

    Attributes:
        evaluated, attacked, suite: results on the run's present weights.
        result: the one that the row takes the correct key's score from.
        notes: what was left out, and what does not go together, in words.
        authentic: by result, whether the owner of the key made it; empty without a key.
    """

    evaluated: Evaluation | None = None
    attacked: Attack | None = None
    suite: Suite | None = None
    result: Evaluation | Attack | None = None
    notes: list[str] = field(default_factory=list)
    authentic: dict[str, bool] = field(default_factory=dict)


def find(run, key: Key | None = None) -> Found:
    """Read the results of a `segkey.model.runs.Run`, and compare what they say about themselves."""
    found, results, weights = Found(), {}, run.weights_checksum
    for name in ("evaluate", "attack", "suite"):
        result = run.result(name)
        if not result:
            continue
        stated = result.tested.get("weights_sha256")
        if stated and weights and stated != weights:
            found.notes.append(
                f"{name}.json is left out: it was measured on other weights than those in the "
                "folder"
            )
            continue
        results[name] = result
        if key and run.header.key_id == key.id:
            found.authentic[name] = is_authentic(name, result.document, key)
            if not found.authentic[name]:
                found.notes.append(
                    f"{name}.json is not authenticated with key {key.id}: anyone who had the "
                    "folder may have written it"
                )
        elif key:
            found.notes.append(
                f"{name}.json is not checked: the run does not belong to key {key.id}"
            )
    found.evaluated, found.attacked, found.suite = map(results.get, ("evaluate", "attack", "suite"))
    found.result = found.evaluated or found.attacked
    if (
        found.evaluated
        and found.attacked
        and (different := _different(found.evaluated, found.attacked))
    ):
        found.result = found.attacked  # numbers in one row are of one measurement
        found.notes.append(f"evaluate.json is left out: it differs from attack.json in {different}")
    reference = found.attacked or found.evaluated
    if found.suite and reference and (different := _different(reference, found.suite)):
        found.notes.append(f"suite.json differs from the results beside it in {different}")
    return found


def _different(one: Result, other: Result) -> str:
    """In what two results of a run differ, in words; empty if they can stand beside each other."""
    if one.tested and other.tested:
        wanted = [{name: each.tested.get(name) for name in _NUMBERS} for each in (one, other)]
        return " and ".join(differences(*wanted))
    if one.images != other.images:
        return "the number of test images"
    # Results of earlier versions do not say more; the same images give the correct key the same
    # score.
    return "" if _score(one) == _score(other) else "the score of the correct key"


def _score(result: Result) -> float | None:
    value = result.correct.mean_iou
    return None if value is None else round(value, 6)


def tested_on(result: Result, full: bool = True) -> str:
    """The images that a result was measured on, in a few words.

    Args:
        result: of ``segkey evaluate`` or ``segkey attack``.
        full: folders as they were given; their last names, if not, for what goes to other people.
    """
    tested = result.tested
    if not tested:
        return "an earlier version of segkey measured this and did not record which images"
    source = tested.get("source")
    names = [str(path) for path in source] if isinstance(source, list) else []
    names = names if full else [PurePath(path.replace("\\", "/")).name for path in names]
    by = {"run": " (named by the run itself)", "user": ""}.get(str(tested.get("named_by")), "")
    fingerprint = str(tested.get("fingerprint"))[:16]
    text = f"tested on {', '.join(names) or 'images'}{by}, fingerprint {fingerprint}"
    if tested.get("training_data") == "other":
        text += "; the training images beside them are not those that the run was trained on"
    return visible(text)
