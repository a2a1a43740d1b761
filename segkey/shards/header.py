"""What a shard says about itself, and its checksums."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from segkey.version import VERSION

FORMAT = "segkey-shard-v1"


@dataclass(frozen=True)
class Header:
    """What a shard says about itself; nothing in it is secret.

    Attributes:
        split: ``train``, ``val``, ``test``, ``all`` or another name.
        method: ``shf``, ``np``, ``ffx`` or ``none``.
        block_size: M; 1 for ``none``.
        channels: c.
        max_value: a loader divides by it.
        key_id: names the key; empty for ``none``.
        password_hash: names a fixed FFX password; empty where it is derived from the key.
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
