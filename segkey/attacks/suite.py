"""All attacks that fit a run, one after another, and what they won."""

import json
from dataclasses import asdict

from segkey.attacks.journal import Cost
from segkey.attacks.registry import ATTACKS, Budget
from segkey.attacks.target import Target
from segkey.attacks.wrong_keys import better_plain
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model.evaluation import why_no_score
from segkey.model.measurements import differences, is_authentic
from segkey.model.results import NOTHING_TO_MEASURE
from segkey.system import devices
from segkey.system.json_files import finite


def run_attacks(
    target: Target, names: list[str] | None = None, budget: Budget | None = None, seed: int = 0
) -> dict:
    """Run some attacks, or all that fit.

    Args:
        target: the model under attack.
        names: of `ATTACKS`; all, if not given.
        budget: what the attackers may spend.
        seed: decides everything that is random.

    Returns:
        ``correct`` and ``keyless`` (mean IoU with the owner's key, and the better way to feed plain
        images), ``attacks`` (a list: each attack with what it knows, the access it requires
        (``steals``), cost and won; ``won`` is the part of the way from keyless to correct, 1 for
        all of it; ``chosen_on_test`` says that it chose on the images it is judged on), and
        ``left_out`` (attacks that do not fit, and why). Where every pixel of the test masks is
        void, scores are None, no attack is run, and ``no_score`` says so.

    Raises:
        SegkeyError: an attack that was asked for by name does not fit, or the budget is too small.
    """
    budget = budget or Budget()
    chosen = [_known(name) for name in names] if names else list(ATTACKS.values())
    left_out = {each.name: why for each in chosen if (why := each.obstacle(target))}
    if names and left_out:
        name, why = next(iter(left_out.items()))
        raise SegkeyError(
            f"attack '{name}' does not fit run {target.run.name}: {why}", "leave it out"
        )
    with target.task("correct and plain", len(target.loader) * (1 + target.ways_of_plain)):
        correct = target.correct()
        plain = better_plain(target)
    nothing = why_no_score(correct["mean_iou"])
    if nothing:
        left_out |= {each.name: NOTHING_TO_MEASURE for each in chosen}
    keyless, reached = plain["mean_iou"], correct["mean_iou"]
    lines = []
    for each in chosen:
        if each.name in left_out:
            continue
        target.spent = Cost()
        result = each.function(target, budget, seed)
        lines.append(
            {"attack": each.name, "knows": each.knows, "steals": each.steals}
            | asdict(target.spent)
            | {
                "mean_iou": result.mean_iou,
                "won": won(result.mean_iou, keyless, reached),
                "summary": result.summary,
            }
            | {"chosen_on_test": result.chosen_on_test, "details": finite(result.details)}
        )
    class_name, constant = correct["constant"]
    return nothing | {
        "run": target.run.name,
        "method": target.cipher.method,
        "block_size": target.cipher.block_size,
        "fixed_password": bool(target.cipher.password_hash),
        "key_space_bits": target.cipher.key_space_bits,
        "split": target.settings["split"],
        "images": len(target.loader),
        "settings": target.settings,
        "correct": {"mean_iou": reached},
        "keyless": {name: plain[name] for name in ("mean_iou", "divided_by", "by_divisor")},
        "constant": {"class": class_name, "mean_iou": constant},
        "attacks": lines,
        "left_out": left_out,
        "budget": asdict(budget),
        "seed": seed,
        "device": target.settings["device"],
        "tested": target.tested,
    }


def won(mean_iou: float, keyless: float, correct: float) -> float:
    """The part of the way from the best keyless score to the correct key's; all of it, where the
    key adds nothing."""
    if correct <= keyless:
        return 1.0
    return (mean_iou - keyless) / (correct - keyless)


def merge(earlier: dict | None, document: dict, key: Key | None = None) -> dict:
    """Add the owner's earlier results on the same model and images, except for those that are new.

    Args:
        earlier: what the run's folder holds, if anything; it may come from anybody.
        document: from `run_attacks`.
        key: the owner's. What was not authenticated with it, or was measured under other settings,
            is left out, and that is told.
    """
    if not earlier:
        return document
    if not is_authentic("suite", earlier, key):
        why = (
            f"it was not made with key {key.id}"
            if key
            else "without a key nobody can tell who made it"
        )
        devices.warn(f"the earlier suite.json of {document['run']} is replaced: {why}")
        return document
    # To JSON and back, as what was read was.
    if different := differences(earlier["settings"], json.loads(json.dumps(document["settings"]))):
        devices.warn(
            f"the earlier suite.json of {document['run']} is replaced: {' and '.join(different)} "
            f"changed"
        )
        return document
    fresh = {line["attack"] for line in document["attacks"]}
    kept = [line for line in earlier["attacks"] if line["attack"] not in fresh]
    left_out = {
        k: v for k, v in (earlier["left_out"] | document["left_out"]).items() if k not in fresh
    }
    return document | {"attacks": kept + document["attacks"], "left_out": left_out}


def _known(name: str):
    if name not in ATTACKS:
        raise SegkeyError(f"there is no attack '{name}'", f"attacks: {', '.join(ATTACKS)}")
    return ATTACKS[name]
