"""Whether a run has weights, and whether all that is kept of it is intact."""

from typing import TYPE_CHECKING

import torch

from segkey.errors import SegkeyError
from segkey.model import sealed_runs
from segkey.system.files import is_there

if TYPE_CHECKING:
    from segkey.model.runs import Run


def require_weights(run: "Run") -> None:
    """Raise `SegkeyError` unless there are weights; it says why there are none, and what to do."""
    if is_there(run.weights_file):
        return
    if run.is_worked_on:
        raise SegkeyError(
            f"{run.path} has no weights yet: its training is under way",
            "wait until it saves some",
        )
    if not run.configuration.epochs_done and run.configuration.recipe:
        raise SegkeyError(
            f"{run.path} has no weights: its training was cut off before it saved any",
            f"go on with it: {run.how_to_go_on}",
        )
    raise SegkeyError(
        f"{run.path} has no weights ({run.weights_file.name})",
        "copy them from where it was trained, or train again",
    )


def damage(run: "Run") -> list[str]:
    """Read all that is kept of a run and say what does not match its checksum.

    Of the weights of a sealed run, if `Run.unlock` was not given its key, only the form.
    """
    checks, found = [run.history], []
    if run.is_sealed and (left := sealed_runs.left_plain(run)):
        found.append(sealed_runs.warning_of(left))
    if run.is_sealed and not run.identity:
        checks += [run.require_weights, lambda: found.extend(sealed_runs.damage_of_form(run))]
    else:
        checks.insert(0, lambda: run.load_model(torch.device("cpu")))
        checks += [run.read_state] if is_there(run.state_file) else []
    checks += [lambda name=name: run.result(name) for name in ("evaluate", "attack")]
    for check in checks:
        try:
            check()
        except SegkeyError as error:
            found.append(error.what)
    return found
