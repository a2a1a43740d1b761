"""Plug-ins: Python files of the user's that register ciphers or attacks.

The environment names them (``SEGKEY_METHODS``).
"""

import importlib
import os
import sys
from pathlib import Path

from segkey.errors import SegkeyError


def load(files: str) -> None:
    """Import the files that ``SEGKEY_METHODS`` names, as ``python file.py`` would run them.

    Only the person at the keyboard can name code to run: no shard, run or folder ever can.

    Args:
        files: Python files, separated as in PATH; each registers its ciphers with
            `segkey.ciphers.register`, or attacks with `segkey.attacks.attack`.

    Raises:
        SegkeyError: no such file, or one that cannot be imported.
    """
    for name in filter(None, files.split(os.pathsep)):
        file = Path(name)
        if not file.is_file() or file.suffix != ".py":
            raise SegkeyError(
                f"SEGKEY_METHODS names {file}, which is no Python file",
                "give the path of a .py file",
            )
        folder = str(file.resolve().parent)
        if (
            folder not in sys.path
        ):  # appended: a file of that folder shall not stand in for a library
            sys.path.append(
                folder
            )  # worker processes, which unpickle the cipher, are given sys.path too
        try:
            module = importlib.import_module(file.stem)
        except Exception as error:
            raise SegkeyError(
                f"{file} cannot be imported: {type(error).__name__}: {error}".replace("\n", " "),
                "mend it; SEGKEY_METHODS names the file",
            ) from error
        if not getattr(module, "__file__", None) or not file.samefile(module.__file__):
            raise SegkeyError(
                f"{file} has the name of another module, {module.__name__}", "give it another name"
            )
