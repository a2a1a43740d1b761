"""Plug-ins: Python files of the user's that register methods, attacks or networks.

The environment names them: ``SEGKEY_PLUGINS``, or ``SEGKEY_METHODS`` as earlier versions called it.
"""

import importlib
import os
import sys
from pathlib import Path

from segkey.errors import SegkeyError

VARIABLES = ("SEGKEY_PLUGINS", "SEGKEY_METHODS")


def load_named() -> None:
    """Import the files that the environment names; each once.

    Raises:
        SegkeyError: no such file, or one that cannot be imported.
    """
    for variable in VARIABLES:
        load(os.environ.get(variable, ""), variable)


def load(files: str, variable: str = VARIABLES[0]) -> None:
    """Import some files, as ``python file.py`` would run them.

    Only the person at the keyboard can name code to run: no shard, run or folder ever can.

    Args:
        files: Python files, separated as in PATH; each registers its methods with
            `segkey.ciphers.register`, its attacks with `segkey.attacks.attack`, or its networks
            with `segkey.networks.network`.
        variable: that names them, for messages.

    Raises:
        SegkeyError: no such file, or one that cannot be imported.
    """
    for name in filter(None, files.split(os.pathsep)):
        _load(Path(name), variable)


def _load(file: Path, variable: str) -> None:
    if not file.is_file() or file.suffix != ".py":
        raise SegkeyError(
            f"{variable} names {file}, which is no Python file", "give the path of a .py file"
        )
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        # Appended: a file of that folder shall not stand in for a library. Worker processes, which
        # unpickle the cipher, are given sys.path too.
        sys.path.append(folder)
    try:
        module = importlib.import_module(file.stem)
    except Exception as error:
        raise SegkeyError(
            f"{file} cannot be imported: {type(error).__name__}: {error}".replace("\n", " "),
            f"mend it; {variable} names the file",
        ) from error
    if not getattr(module, "__file__", None) or not file.samefile(module.__file__):
        raise SegkeyError(
            f"{file} has the name of another module, {module.__name__}", "give it another name"
        )
