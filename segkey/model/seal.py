"""Seal a run for recipients, and unseal it: in an order in which a kill leaves a run that opens.

Files are written beside and renamed; ``run.json`` says which of them counts, and the other one is
removed last. What lies unencrypted after a kill is named whenever the run is opened.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from segkey.errors import SegkeyError
from segkey.model import run_weights, runs, sealed_runs, weights_files
from segkey.system.files import is_there, remove
from segkey.system.folder_lock import sole_writer

_PLAIN = "model.safetensors"


def seal(run: runs.Run, recipients: Sequence[str]) -> runs.Run:
    """Encrypt a run's weights in place, for exactly these recipients.

    Args:
        run: finished; one that is sealed already has been given its key (`runs.Run.unlock`), and is
            sealed anew. Whoever is not among the recipients any more cannot open the new file; what
            they have opened they keep.
        recipients: public texts ``age1…``, from `segkey.crypto.age.Identity.recipients`.

    Raises:
        SegkeyError: no weights, an unfinished training, or something that is no recipient.
    """
    promised = sealed_runs.sealed_for(recipients)
    with sole_writer(run.path):
        state = _finished_weights(run)
        promised = replace(promised, sha256=weights_files.checksum(state))
        run.configuration = replace(run.configuration, sealed=promised)
        run_weights.write(run, state)
        run.save()
        remove(run.path / _PLAIN)
    return run


def sealed_copy(run: runs.Run, recipients: Sequence[str], name: str) -> runs.Run:
    """A new run beside this one with the same weights, sealed; this one stays as it is.

    Results, which name the owner's test images, are not copied.

    Args:
        run, recipients: as for `seal`.
        name: of the new run.

    Raises:
        SegkeyError: as for `seal`, or the name is taken.
    """
    runs.run_names.check_name(name)
    begun_with = replace(run.configuration, sealed=sealed_runs.sealed_for(recipients))
    state, history = _finished_weights(run), run.history()
    copy = runs.Run.create(run.folder, name, begun_with)
    with sole_writer(copy.path):
        copy.save_weights(state)
        copy.write_history(history)
        copy.save()
    return copy


def unseal(run: runs.Run) -> runs.Run:
    """Decrypt a sealed run's weights in place.

    Args:
        run: has been given its key (`runs.Run.unlock`).

    Raises:
        SegkeyError: it is not sealed, its training has not ended, or it does not open.
    """
    if not run.is_sealed:
        raise SegkeyError(f"{run.path} is not sealed", "nothing is to be done")
    with sole_writer(run.path):
        state, age_file = _finished_weights(run), run.weights_file
        run.configuration = replace(run.configuration, sealed=None)
        run_weights.write(run, state)
        run.save()
        remove(age_file)
    return run


def _finished_weights(run: runs.Run) -> dict[str, torch.Tensor]:
    """The weights of a run whose training has ended, so that no other file holds them."""
    run.require_weights()
    states = [run.path / name for name in ("resume.pt", "resume.pt" + sealed_runs.SUFFIX)]
    if any(map(is_there, states)):
        raise SegkeyError(
            f"the training of {run.path} has not ended, and its resume.pt holds the weights too",
            f"go on with it first: {run.how_to_go_on}",
        )
    return run.load_model(torch.device("cpu")).weights()
