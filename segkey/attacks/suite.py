"""The suite: runs all attacks that fit a run, one after another, and compares their results."""

import json
from dataclasses import asdict, dataclass, field, replace

from segkey.attacks.journal import Cost
from segkey.attacks.registry import ATTACKS, Attack, Budget
from segkey.attacks.target import Target
from segkey.attacks.wrong_keys import better_plain, correct_plain_incorrect
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model.authenticity import differences, is_authentic
from segkey.model.evaluation import why_no_score
from segkey.model.results import EARLIER_NAMES, NOTHING_TO_MEASURE, AttackLine, Result, Suite
from segkey.model.runs import Run
from segkey.system import devices
from segkey.system.json_files import finite


@dataclass(frozen=True)
class Plan:
    """Which attacks to run.

    Attributes:
        names: of `ATTACKS`; if none are given, correct, plain and incorrect are measured.
        suite: measure correct, plain and incorrect, and run every attack that fits.
        budget: what attackers may spend.
        seed: decides everything that is random.
        keep: write the results into the run's folder.
    """

    names: tuple[str, ...] = ()
    suite: bool = False
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    keep: bool = True


def attack_and_keep(target: Target, plan: Plan) -> Result:
    """Run the attacks of a plan, keep what they found, and forget the journal.

    Args:
        target: the model under attack; its key authenticates what is kept.
        plan: which attacks, and how.

    Returns:
        The last result: a `segkey.model.results.Suite` if the plan names attacks or is a suite,
        otherwise a `segkey.model.results.Attack`.

    Raises:
        SegkeyError: an attack that was asked for by name does not fit, or ``suite.json`` is damaged
            (a whole suite replaces it).
    """
    run, key, several = target.run, target.key, plan.suite or bool(plan.names)
    earlier = _earlier(run, plan) if several and plan.keep else None  # before anything is computed
    if plan.suite or not several:
        result = correct_plain_incorrect(target, plan.budget.keys, plan.seed)
        if plan.keep:
            run.keep(result, key)
    if several:
        result = run_attacks(target, list(plan.names), plan.budget, plan.seed)
        if plan.keep:
            result = run.keep(merge(earlier, result, key), key)
    target.journal.remove()
    return result


def _earlier(run: Run, plan: Plan) -> Suite | None:
    """The suite that a new one is merged with."""
    try:
        return run.result("suite")
    except SegkeyError:
        if plan.suite:  # which is what the message advises: it replaces what cannot be read
            return None
        raise


def run_attacks(
    target: Target, names: list[str] | None = None, budget: Budget | None = None, seed: int = 0
) -> Suite:
    """Run some attacks, or all that fit.

    Args:
        target: the model under attack.
        names: of `ATTACKS`; all, if not given.
        budget: what the attackers may spend.
        seed: decides everything that is random.

    Returns:
        The result, for `Run.keep`. If every pixel of the test masks is void, scores are None, no
        attack is run, and ``no_score`` says so.

    Raises:
        SegkeyError: an attack that was asked for by name does not fit, or the budget is too small.
    """
    budget = budget or Budget()
    chosen = [known(name) for name in names] if names else list(ATTACKS.values())
    left_out = {each.name: why for each in chosen if (why := each.obstacle(target))}
    if names and left_out:
        name, why = next(iter(left_out.items()))
        raise SegkeyError(
            f"attack '{name}' does not fit run {target.run.name}: {why}", "leave it out"
        )
    with target.task("correct and plain", len(target.loader) * (1 + target.ways_of_plain)):
        correct, plain = target.correct(), better_plain(target)
    if why_no_score(correct.mean_iou):
        left_out |= {each.name: NOTHING_TO_MEASURE for each in chosen}
    lines = []
    for each in chosen:
        if each.name not in left_out:
            line = _run(each, target, budget, seed)
            share = recovered(line.mean_iou, plain.mean_iou, correct.mean_iou)
            lines.append(replace(line, recovered=share))
    return Suite(
        no_score=why_no_score(correct.mean_iou),
        run=target.run.name,
        method=target.cipher.method,
        block_size=target.cipher.block_size,
        fixed_password=bool(target.cipher.password_hash),
        key_space_bits=target.cipher.key_space_bits,
        split=target.settings["split"],
        images=len(target.loader),
        settings=target.settings,
        correct=correct.score,
        no_key_baseline=plain,
        majority_class=correct.majority_class,
        attacks=tuple(lines),
        left_out=left_out,
        budget=budget.document,
        seed=seed,
        device=target.settings["device"],
        tested=target.tested,
    )


def _run(attack: Attack, target: Target, budget: Budget, seed: int) -> AttackLine:
    """Run one attack, and account for what it spends."""
    target.spent = Cost()
    result = attack.function(target, budget, seed)
    return AttackLine(
        attack=attack.name,
        attacker_knowledge=attack.attacker_knowledge,
        required_access=attack.required_access,
        mean_iou=result.mean_iou,
        recovered=None,
        summary=result.summary,
        chosen_on_test=result.chosen_on_test,
        details=finite(result.details),
        **asdict(target.spent),
    )


def recovered(mean_iou: float, no_key_baseline: float, correct: float) -> float:
    """Share of the way from the no-key baseline to the correct key; 1 if the key adds nothing."""
    if correct <= no_key_baseline:
        return 1.0
    return (mean_iou - no_key_baseline) / (correct - no_key_baseline)


def merge(earlier: Suite | None, suite: Suite, key: Key | None = None) -> Suite:
    """Add the owner's earlier results on the same model and images, except for those that are new.

    Args:
        earlier: what the run's folder holds, if anything; untrusted.
        suite: from `run_attacks`.
        key: the owner's. What was not authenticated with it, or was measured under other settings,
            is left out, and that is told.
    """
    if not earlier:
        return suite
    if not is_authentic("suite", earlier.document, key):
        why = (
            f"it was not made with key {key.id}"
            if key
            else "without a key nobody can tell who made it"
        )
        devices.warn(f"the earlier suite.json of {suite.run} is replaced: {why}")
        return suite
    # To JSON and back, as what was read was.
    if different := differences(
        earlier.settings, json.loads(json.dumps(suite.settings, allow_nan=False))
    ):
        what = " and ".join(different)
        devices.warn(f"the earlier suite.json of {suite.run} is replaced: {what} changed")
        return suite
    fresh = {line.attack for line in suite.attacks}
    kept = tuple(line for line in earlier.attacks if line.attack not in fresh)
    left_out = {k: v for k, v in (earlier.left_out | suite.left_out).items() if k not in fresh}
    return replace(suite, attacks=kept + suite.attacks, left_out=left_out)


def known(name: str) -> Attack:
    """The attack of that name, which may be that of an earlier version.

    Raises:
        SegkeyError: there is none.
    """
    name = EARLIER_NAMES.get(name, name)
    if name not in ATTACKS:
        raise SegkeyError(f"there is no attack '{name}'", f"attacks: {', '.join(ATTACKS)}")
    return ATTACKS[name]
