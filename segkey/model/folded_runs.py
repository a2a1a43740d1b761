"""Folded runs: the same predictions, and no statistics of batch normalisation in the weights."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from segkey.errors import SegkeyError
from segkey.model import run_names, runs, sealed
from segkey.model.folding import fold_batchnorm, foldable
from segkey.system import distributed
from segkey.system.files import explain_os_errors, is_folder_there, make_folder, sole_writer


def fold_run(run: runs.Run, name: str | None = None) -> runs.Run:
    """Write a run whose batch normalisation is folded into its convolutions.

    Args:
        run: trained; of a sealed one, which has been given its key, the new run is sealed for the
            same recipients.
        name: of the new run, in the same folder; by default the run's with ``-folded``.

    Raises:
        SegkeyError: it is folded already, nothing in it can be folded, or the name is taken.
            Nothing is written then.
    """
    if run.configuration.model.folded:
        raise SegkeyError(f"{run.path} is folded already", "use it as it is")
    run.require_weights()
    folder = run.path.absolute().parent if run.path.name == "" else run.path.parent
    path = folder / (name or runs.free_name(folder, f"{run.name}-folded"))
    run_names.check_name(path.name)
    runs.check_free(path)
    distributed.barrier()  # no rank looks for a run that the first one has made since
    if distributed.is_main():
        _write(run, path)
    distributed.barrier()
    return runs.Run.open(path)


def _write(run: runs.Run, path: Path) -> None:
    """Write the folded run, whole or not at all."""
    network = run.load_model(torch.device("cpu")).float()
    example = torch.rand(1, network.channels, *run.size, generator=torch.Generator().manual_seed(0))
    folded = fold_batchnorm(network, example)
    pairs = [
        pair
        for pair in foldable(network, example)
        if isinstance(folded.get_submodule(pair[1]), nn.Identity)
    ]
    if not pairs:
        raise SegkeyError(
            f"no batch normalisation of {run.path} directly follows a convolution",
            "there is nothing to fold in this network",
        )
    partial = path.with_name(f".{path.name}.partial")
    is_folder_there(partial)
    made = run.configuration
    configuration = replace(
        made,
        name=path.name,
        sealed=sealed.sealed_for(run.recipients) if run.is_sealed else None,
        model=replace(made.model, folded=tuple(pairs)),
    )
    with sole_writer(make_folder(partial)):
        copy = runs.Run(partial, configuration)
        copy.save_weights(folded.weights())
        copy.write_history(run.history())
        copy.save()
        with explain_os_errors(path):
            os.rename(partial, path)
    run_names.point_to_latest(path.parent, path.name)
