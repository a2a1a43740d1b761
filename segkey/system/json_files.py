"""JSON files with a checksum: written whole, read with a limit."""

import hashlib
import json
import math
from pathlib import Path

from segkey.errors import SegkeyError
from segkey.system.files import explain_os_errors, open_regular, written_whole


def write_json(path: Path, document: dict) -> None:
    """Write ``document`` as readable JSON with its checksum, whole or not at all."""
    with written_whole(path, "w") as file:
        json.dump(with_checksum(document), file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def with_checksum(document: dict) -> dict:
    """``document`` with a ``checksum``, as a flipped bit does not always make bad JSON.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON has not.
    """
    return document | {"checksum": _checksum(document, allow_nan=False)}


def without_checksum(document: dict, path: Path) -> dict:
    """``document`` as it was given to `with_checksum`; one without a checksum is taken as it is.

    NaN and the infinities, which earlier versions wrote if there was nothing to measure, become
    null.

    Raises:
        SegkeyError: it is not what was written; ``path`` is named.
    """
    stated = document.pop("checksum", None)
    if stated not in (None, _checksum(document)):
        raise SegkeyError(
            f"{path} does not match its checksum: it is damaged, or was edited by hand",
            "restore it from a backup, or make it again",
        )
    return finite(document)


def _checksum(document: dict, allow_nan: bool = True) -> str:
    """16 hex digits of SHA-256 over the JSON of a document, in any order of its keys (text)."""
    return hashlib.sha256(
        json.dumps(document, sort_keys=True, allow_nan=allow_nan).encode()
    ).hexdigest()[:16]


def finite(value: object) -> object:
    """A value with None for NaN and the infinities, which Python reads and JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if type(value) in (list, tuple):
        return type(value)(map(finite, value))
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    return value


def read_json(path: Path, what: str, limit: int = 16 << 20) -> dict:
    """Read a JSON object of at most ``limit`` bytes, and compare it with its checksum.

    The error calls the file ``what``, such as "a run". The limit is low because JSON of the
    worst form, ``[{},{},…``, takes 25 times as much in memory.

    Raises:
        SegkeyError: no file, no JSON object, or not what `write_json` wrote.
    """
    with explain_os_errors(path), open_regular(path) as file:
        data = file.read(limit + 1)
    try:
        if len(data) > limit:
            raise ValueError
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError
        return without_checksum(document, path)
    except (ValueError, RecursionError):
        raise SegkeyError(
            f"{path} is not {what}", "restore it from a backup, or make it again"
        ) from None
