"""Where things lie unless an option says otherwise."""

from pathlib import Path

DEFAULT_KEY = Path("keys/segkey.key")
DEFAULT_SHARDS = Path("shards")
DEFAULT_RUNS = Path("runs")
LATEST = DEFAULT_RUNS / "latest"
