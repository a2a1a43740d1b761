"""Folded runs: the same predictions, and no statistics of batch normalisation in the weights."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from segkey.errors import SegkeyError
from segkey.model import derived_runs, run_names, runs, sealed_runs
from segkey.model.batch_norm_folding import fold_batchnorm, foldable
from segkey.model.configuration import Configuration
from segkey.model.networks import Segmenter
from segkey.system import distributed


def fold_run(run: runs.Run, name: str | None = None, recipients: Sequence[str] = ()) -> runs.Run:
    """Write a run whose batch normalisation is folded into its convolutions.

    Args:
        run: trained; a sealed one has been given its key (`segkey.model.runs.Run.unlock`),
            the new run is sealed for the same recipients unless others are given.
        name: of the new run, in the same folder; by default the run's with ``-folded``.
        recipients: public texts ``age1…``; seal the new run for these, so that its weights are
            never written unencrypted.

    Raises:
        SegkeyError: it is folded already, nothing in it can be folded, no recipient; or the name is
            taken. Nothing is written then.
    """
    if run.configuration.model.folded:
        raise SegkeyError(f"{run.path} is folded already", "use it as it is")
    run.require_weights()
    path = run.folder / (name or run_names.free_name(run.folder, f"{run.name}-folded"))
    run_names.check_name(path.name)
    runs.check_free(path)
    seal = sealed_runs.sealed_as_made_of(run, recipients)
    distributed.barrier()  # no rank looks for a run that the first one has made since
    if distributed.is_main():
        folded, pairs = _fold(run)
        made = _configuration(run.configuration, path.name, pairs)
        derived_runs.write(run, path, replace(made, sealed=seal), folded.weights())
    distributed.barrier()
    return runs.Run.open(path)


def _fold(run: runs.Run) -> tuple[Segmenter, list[tuple[str, str]]]:
    """The folded network, and the pairs that were folded."""
    network = run.load_model(torch.device("cpu")).float()
    example = torch.rand(1, network.channels, *run.size, generator=torch.Generator().manual_seed(0))
    folded = fold_batchnorm(network, example)
    pairs = [
        pair
        for pair in foldable(network, example)
        if not isinstance(folded.get_submodule(pair[1]), _BatchNorm)
    ]
    if not pairs:
        raise SegkeyError(
            f"no batch normalisation of {run.path} directly follows a convolution",
            "there is nothing to fold in this network",
        )
    return folded, pairs


def _configuration(made: Configuration, name: str, pairs: list[tuple[str, str]]) -> Configuration:
    """``run.json`` of a folded run: that of its original, with what was folded."""
    return replace(made, name=name, model=replace(made.model, folded=tuple(pairs)))
