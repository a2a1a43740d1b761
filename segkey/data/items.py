"""The result of a search for data: images with masks by split, and what is left out and why."""

from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "val", "test")
ALL = "all"  # the one split of images that are not dealt out


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: a path relative to the source, with ``/``. It is stored in shards, where all who get
            them can read it.
        image, mask: their files; None, if there is no mask.
        dealt_as: what is hashed to deal the image into a split, if that is not the name.
    """

    name: str
    image: Path
    mask: Path | None
    dealt_as: str = ""


@dataclass(frozen=True)
class Problem:
    """An image that is left out, and why."""

    name: str
    why: str


@dataclass
class Source:
    """What was found: items by split, and what was left out.

    Attributes:
        root: the folder that names are relative to.
        kind: the layout that was recognised, in words for the user.
        splits: items by split, each sorted by name.
        classes: class names in order, or None if nothing names them.
        ignore_index: the mask value that means void.
        problems: images that were left out, with reasons.
        notes: things the user should know, in words.
    """

    root: Path
    kind: str
    splits: dict[str, list[Item]]
    classes: list[str] | None = None
    ignore_index: int = 255
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def has_masks(self) -> bool:
        """Whether any image has a mask."""
        return any(item.mask for items in self.splits.values() for item in items)

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))


def counted(count: int, noun: str) -> str:
    """A number of things, in words: ``1 image``, ``2 images``."""
    return f"{count} {noun}{'s' * (count > 1)}"
