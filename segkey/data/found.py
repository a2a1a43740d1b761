"""A file below the folder that was given, with what its path says."""

from dataclasses import dataclass
from pathlib import Path

from segkey.data.name_roles import Place


@dataclass(frozen=True, slots=True)  # there may be a million
class Found:
    """A file below the folder that was given, and what its path says.

    Attributes:
        name: its name in the source.
        file: itself.
        place: what its path says.
    """

    name: str
    file: Path
    place: Place
