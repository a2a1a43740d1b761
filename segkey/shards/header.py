"""What a shard says about itself, and its checksums."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields

from segkey.version import VERSION

FORMAT = "segkey-shard-v1"
SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # it becomes the name of a folder
MAX_SIDE = 1 << 16  # pixels
MAX_BLOCK = 1 << 12  # pixels; the key has to be stretched over every value of a block


@dataclass(frozen=True)
class Header:
    """What a shard says about itself, for whoever gets it to read.

    Attributes:
        split: ``train``, ``val``, ``test``, ``all`` or another name.
        method: ``shf``, ``np``, ``ffx`` or ``none``.
        block_size: M; 1 for ``none``.
        channels: c.
        max_value: a loader divides by it.
        key_id: names the key; empty for ``none``.
        password_hash: names a fixed FFX password, and lets guesses be tested; empty where it is
            derived from the key.
        classes: names, a JSON list in the file; empty without masks.
        ignore_index: the mask value that means void.
        views: V, how often each image occurs.
        augmented: whether the views are augmented copies, rather than the image itself.
        seed: of the augmentation.
        crop_scale: smallest area of an augmented copy, as a fraction.
        source_id: digest of the names the shard was made from, those of unreadable images too.
    """

    split: str
    method: str
    block_size: int
    channels: int
    max_value: int
    key_id: str = ""
    password_hash: str = ""
    classes: tuple[str, ...] = ()
    ignore_index: int = 255
    views: int = 1
    augmented: bool = False
    seed: int = 0
    crop_scale: float = 1.0
    source_id: str = ""

    def complaint(self) -> str:
        """What is wrong with a header that was read, or nothing: it may come from anybody."""
        for f in fields(self):
            if f.type in (int, str, bool, float) and not isinstance(getattr(self, f.name), f.type):
                return f"attribute {f.name!r} has a wrong type"
        sane = (
            1 <= self.block_size <= MAX_BLOCK
            and 1 <= self.channels <= 1024
            and 1 <= self.max_value <= 65535
            and 0 <= self.ignore_index <= 255
            and 1 <= self.views <= 1 << 20
            and len(self.classes) <= 255
            and all(isinstance(name, str) for name in self.classes)
            and SPLIT_NAME.fullmatch(self.split)
        )
        return "" if sane else "attribute is out of its range"

    def attributes(self) -> dict[str, object]:
        """As attributes of a file."""
        values = asdict(self) | {"classes": json.dumps(self.classes, ensure_ascii=False)}
        return {"format": FORMAT, "made_with": f"segkey {VERSION}"} | values

    def same_data(self, other: "Header") -> list[str]:
        """The fields, other than the split and its augmentation, in which two headers differ."""
        apart = {"split", "views", "augmented", "seed", "crop_scale", "source_id"}
        names = [f.name for f in fields(self) if f.name not in apart]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def sha256(data: bytes) -> str:
    """Hex digits."""
    return hashlib.sha256(data).hexdigest()


def checksum_attributes(attributes: dict[str, object]) -> str:
    """SHA-256 of attributes, whatever their order."""
    return sha256(json.dumps(attributes, sort_keys=True, ensure_ascii=True).encode())
