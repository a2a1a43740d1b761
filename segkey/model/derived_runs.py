"""Runs that are made of other runs, as locking and folding do: written whole or not at all."""

import os
from pathlib import Path

from torch import Tensor

from segkey.model import run_names, runs
from segkey.model.configuration import Configuration
from segkey.system.files import explain_os_errors, is_folder_there, make_folder, remove
from segkey.system.folder_lock import sole_writer


def write(
    original: runs.Run, path: Path, configuration: Configuration, state: dict[str, Tensor]
) -> None:
    """Write a run beside its original, and let ``latest`` name it.

    What a kill leaves is a folder whose name begins with a dot, which the next call writes anew.

    Args:
        original: its history is the new run's, too.
        path: of the new run; `runs.check_free` was asked.
        configuration: if it is sealed, weights are never written unencrypted.
        state: the weights.
    """
    partial = path.with_name(f".{path.name}.partial")
    is_folder_there(partial)
    with sole_writer(make_folder(partial)):
        for left in sorted(partial.iterdir()):  # by a kill; it may be less sealed than this run
            if left.name != ".lock":
                remove(left)
        made = runs.Run(partial, configuration)
        made.save_weights(state)
        made.write_history(original.history())
        made.save()
        with explain_os_errors(path):
            os.rename(partial, path)
    run_names.point_to_latest(path.parent, path.name)
