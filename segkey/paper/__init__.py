"""The paper's experiment on any data: a model for every method and block size, trained, attacked.

A cell is one model: a method, a block size and a seed. Plain shards are made once. Every cell
trains on them, augmented and encrypted on the device, and is then tried with the correct key, with
plain images and with wrong keys.
All of it stays in one folder: ``settings.json`` says how every cell there is made, and other
settings are refused; ``plain/`` holds the shards, ``runs/`` a run for each cell with its result,
``results.json`` everything that was measured. What is finished is never computed again; what was
cut off goes on. The grid may grow.
"""

from segkey.paper.estimate import estimate
from segkey.paper.experiment import Experiment
from segkey.paper.experiment_settings import (
    FORMAT,
    Settings,
    check_folder,
    is_full_voc,
    key_for,
    open_data,
)
from segkey.paper.figure_example import Example, example
from segkey.paper.findings import examine
from segkey.paper.grid import Cell, grid, locks_that_fit
from segkey.paper.grid_progress import Watch
from segkey.paper.results import CellResult, Results, read_results
from segkey.paper.variant_scores import VariantScores, models_of
