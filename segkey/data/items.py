"""The result of a search for data: images with masks by split, and what is left out and why."""

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from segkey.data.found import Found
from segkey.data.reading import PLAIN, Reading
from segkey.errors import SegkeyError

SPLITS = ("train", "val", "test")
ALL = "all"  # the one split of images that are not dealt out


class Item:
    """One image; there may be a million, so paths are made when they are asked for.

    Attributes:
        name: a path relative to the source, with ``/``. It is stored in shards, where all who get
            them can read it.
        image, mask: their files; None, if there is no mask.
        dealt_as: what is hashed to deal the image into a split, if that is not the name.
    """

    __slots__ = ("_image", "_image_folder", "_mask", "_mask_folder", "dealt_as", "name")

    def __init__(self, name: str, image: Path, mask: Path | None, dealt_as: str = ""):
        self.name, self.dealt_as = name, dealt_as
        self._image_folder, self._image = None, image
        self._mask_folder, self._mask = None, mask

    @classmethod
    def found(cls, name: str, image: Found, mask: Found | None = None) -> "Item":
        """An item of files whose folders are held once for all of their files."""
        item = cls(name, image.file_name, mask and mask.file_name)
        item._image_folder = image.folder.path
        item._mask_folder = mask and mask.folder.path
        return item

    @property
    def image(self) -> Path:
        """The file of the image."""
        return self._image_folder / self._image if self._image_folder else self._image

    @property
    def image_folder(self) -> Path:
        """Where the image lies."""
        return self._image_folder or self._image.parent

    @property
    def mask(self) -> Path | None:
        """The file of its mask."""
        return self._mask_folder / self._mask if self._mask_folder else self._mask

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask."""
        return self._mask is not None

    def named(self, name: str, dealt_as: str) -> "Item":
        """The same files under another name."""
        return Item(name, self.image, self.mask, dealt_as)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return f"Item({self.name!r}, {self.image!r}, {self.mask!r})"

    def _all(self) -> tuple:
        return self.name, self.image, self.mask, self.dealt_as


@dataclass(frozen=True)
class Problem:
    """An image that is left out, why, and what to do if that is special to its kind."""

    name: str
    why: str
    cure: str = ""


class Severity(IntEnum):
    """How much a finding matters: said, warned of, or the data is not taken in."""

    NOTE = 0
    WARN = 1
    REFUSE = 2


@dataclass(frozen=True)
class Finding:
    """What was noticed about a user's data.

    Attributes:
        severity: whether it is said, warned of, or stops.
        text: one line: what was seen, with a number and an example.
        cure: one line: what to do if that is not meant; empty if nothing need be done.
        named_later: each image it is about is named again, with the reason, when it is left out.
    """

    severity: Severity
    text: str
    cure: str = ""
    named_later: bool = False

    def document(self) -> dict:
        """As ``segkey check --json`` prints it."""
        return {"severity": self.severity.name.lower(), "text": self.text, "cure": self.cure}


def require_none_refused(findings: list[Finding]) -> None:
    """Raise a `SegkeyError` for the first finding with which data is not taken in."""
    for finding in findings:
        if finding.severity is Severity.REFUSE:
            raise SegkeyError(finding.text, finding.cure)


@dataclass
class Source:
    """What was found: items by split, and what was left out.

    Attributes:
        root: the folder that names are relative to.
        kind: the layout that was recognised, in words for the user.
        splits: items by split, each sorted by name.
        classes: class names in order, or None if nothing names them.
        ignore_index: the class number that means void.
        problems: images that were left out, with reasons.
        findings: things the user should know.
        labels: a file of classes or colours that lies beside the images, if there is one.
        reading: how what mask files hold becomes class numbers.
        pixel_range: the values of 16-bit images that become black and white; None for all of them.
    """

    root: Path
    kind: str
    splits: dict[str, list[Item]]
    classes: list[str] | None = None
    ignore_index: int = 255
    problems: list[Problem] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    labels: Path | None = None
    reading: Reading = PLAIN
    pixel_range: tuple[int, int] | None = None

    def add(self, severity: Severity, text: str, cure: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(severity, text, cure))

    def note(self, text: str, cure: str = "") -> None:
        """Add a finding that is said and no more."""
        self.add(Severity.NOTE, text, cure)

    @property
    def notes(self) -> list[str]:
        """The texts of all findings."""
        return [finding.text for finding in self.findings]

    @property
    def has_masks(self) -> bool:
        """Whether any image has a mask."""
        return any(item.has_mask for items in self.splits.values() for item in items)

    @property
    def items(self) -> list[Item]:
        """The items of all splits, one split after another."""
        return [item for items in self.splits.values() for item in items]

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))


def counted(count: int, noun: str) -> str:
    """A number of things, in words: ``1 image``, ``2 images``."""
    return f"{count} {noun}{'s' * (count != 1)}"
