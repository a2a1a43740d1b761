"""The cells of an experiment's folder that are finished, and whether their results count."""

from collections.abc import Callable
from pathlib import Path

from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import run_names
from segkey.paper.cell_runs import why_stale
from segkey.paper.results import CellResult, read_cell
from segkey.shards import Split

_RESULT = "cell.json"


class FinishedCells:
    """Results below a folder of runs, read anew each time, as other processes add some.

    Args:
        folder: of the runs.
        key: the experiment's.
        wrong_keys: how many must have been tried.
        say: hears why a result does not count, once.

    Attributes:
        left_out: cells that cannot be used, and why, by the names of their runs; whoever cannot
            make one puts it down here.
    """

    def __init__(self, folder: Path, key: Key, wrong_keys: int, say: Callable[[str], None]):
        self.folder, self.key, self.wrong_keys = folder, key, wrong_keys
        self.left_out: dict[str, str] = {}
        self._say, self._said = say, set[str]()

    def read(self, splits: dict[str, Split]) -> dict[str, CellResult]:
        """Results of all finished cells in the folder by run name; unusable ones are left out.

        A result counts only if the owner of the key made it, from the images and the weights that
        are there now, with this version; otherwise that is told, and the cell is measured again.
        """
        results = {}
        for name in [name for name in self.left_out if (self.folder / name / _RESULT).exists()]:
            del self.left_out[name]  # it may have been mended
        for folder in run_names.folders(self.folder, _RESULT):
            try:
                cell = read_cell(folder / _RESULT)
            except SegkeyError as error:
                self.left_out[folder.name] = error.what
                continue
            if why := why_stale(folder, cell, splits, self.key, self.wrong_keys):
                self._say_once(f"{folder / _RESULT} does not count: {why}")
            else:
                results[folder.name] = cell
        return results

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)
