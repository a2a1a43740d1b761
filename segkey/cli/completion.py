"""What the shell offers for the rest of a word."""

import contextlib
import os
from pathlib import Path

from segkey.cli.paths import DEFAULT_KEY, DEFAULT_RUNS, LATEST
from segkey.crypto import METHODS

KNOWN_METHODS = (*METHODS, "none")


def _beginning(incomplete: str, known: list[str]) -> list[str]:
    """Shell completions: known names with this prefix; if there are none, files and folders."""
    found = [name for name in known if name.startswith(incomplete)]
    head, tail = os.path.split(incomplete)
    return found or sorted(
        str(path) + ("/" if path.is_dir() else "")
        for path in Path(head).glob("*")
        if path.name.startswith(tail) and not path.name.startswith(".")
    )


def complete_runs(incomplete: str) -> list[str]:
    """Runs in ``runs/``, newest last, and ``runs/latest``."""

    def changed(path: Path) -> float:
        """When it was changed last."""
        try:
            return path.stat().st_mtime
        except OSError:  # a dangling link, or a folder that may not be read
            return 0.0

    found = sorted(DEFAULT_RUNS.glob("*/run.json"), key=changed)
    names = dict.fromkeys(
        [*(str(path.parent) for path in found if path.parent != LATEST), str(LATEST)]
    )
    return _beginning(incomplete, list(names) if found else [])


def complete_keys(incomplete: str) -> list[str]:
    """Keys in ``keys/``."""
    return _beginning(incomplete, sorted(map(str, DEFAULT_KEY.parent.glob("*.key"))))


def complete_methods(incomplete: str) -> list[str]:
    """Built-in methods: plug-ins are loaded only when a command runs."""
    return [name for name in KNOWN_METHODS if name.startswith(incomplete)]


def complete_networks(incomplete: str) -> list[str]:
    """Built-in networks; those of smp and timm once their prefix is typed."""
    from segkey.model.network_registry import BUILT_IN

    names = [*BUILT_IN, "smp:", "timm:"]
    if incomplete.startswith(("smp:", "timm:")):
        from segkey.model import networks

        with contextlib.suppress(ImportError):
            names = networks.names_of_family(incomplete.partition(":")[0])
    return [name for name in names if name.startswith(incomplete)]
