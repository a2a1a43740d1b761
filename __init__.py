"""Lets ``import segkey`` work in the folder that holds a clone of the repository called segkey.

Python would take the clone's folder for a package without code (a namespace package), before it
looks for the one that an editable install names. The package itself is the folder segkey/ in here.
"""

import importlib.util
import sys
from pathlib import Path

if __name__ == "segkey":
    _spec = importlib.util.spec_from_file_location(
        __name__, Path(__file__).resolve().parent / "segkey" / "__init__.py"
    )
    sys.modules[__name__] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__name__])
