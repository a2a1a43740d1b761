"""The header of a shard: what it says about its contents, and its checksums."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields

from segkey.data.reading import Reading
from segkey.system import json_records
from segkey.system.json_records import stated
from segkey.system.validators import NAME, YES_OR_NO, Kind, many, number, pattern, text, whole
from segkey.version import VERSION

FORMAT = "segkey-shard-v1"
SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # it becomes the name of a folder
MAX_SIDE = 1 << 16  # pixels
MAX_BLOCK = 1 << 12  # pixels; the key has to be stretched over every value of a block
KEY_ID = pattern("([0-9a-f]{16})?", "16 hex digits, or nothing if there is no key")
PASSWORD_HASH = pattern("[0-9A-Za-z$:+/=.-]{0,256}", "a hash")


def _is_reading(value: object) -> bool:
    try:
        return isinstance(value, str) and len(value) < 1 << 15 and bool(Reading.from_text(value))
    except ValueError:
        return False


READING = Kind("how masks are read, as JSON, or nothing", _is_reading)
PIXEL_RANGE = pattern(r"(-?[0-9]{1,9}:-?[0-9]{1,9})?", "LOW:HIGH, or nothing")
_NEEDED_OF_IMAGES = (
    *("method", "block_size", "channels", "max_value", "key_id", "password_hash"),
    *("classes", "ignore_index"),
)
# Absent where they say nothing, so that shards are the same bytes as those of earlier versions.
OPTIONAL = {"reading", "pixel_range", "scaled_images"}


@dataclass(frozen=True)
class Header:
    """What a shard says about itself; all who get the shard can read it.

    Attributes:
        split: ``train``, ``val``, ``test``, ``all`` or another name.
        method: ``shf``, ``np``, ``ffx``, ``shf+np`` or ``none``.
        block_size: M; 1 for ``none``.
        channels: c.
        max_value: a loader divides by it.
        key_id: names the key; empty for ``none``.
        password_hash: names a fixed FFX password, and lets guesses be tested; empty if it is
            derived from the key.
        classes: names, a JSON list in the file; empty without masks.
        ignore_index: the mask value that means void.
        views: V, how often each image occurs.
        augmented: whether the views are augmented copies, rather than the image itself.
        seed: of the augmentation.
        crop_scale: smallest area of an augmented copy, as a fraction.
        source_id: digest of the names the shard was made from, those of unreadable images too.
        reading: how what mask files held became class numbers, as `segkey.data.reading.Reading`
            writes it; empty if they were class numbers.
        pixel_range: ``LOW:HIGH``, the values of 16-bit images that became black and white; empty
            for 0:65535.
        scaled_images: how many images libjpeg decoded at a fraction of their size, but to at least
            twice the size that is stored; the views of an image count once.
    """

    split: str = stated(pattern(SPLIT_NAME.pattern, "1 to 64 letters, digits, '.', '_' and '-'"))
    method: str = stated(text(64, 1))
    block_size: int = stated(whole(1, MAX_BLOCK))
    channels: int = stated(whole(1, 1024))
    max_value: int = stated(whole(1, 65535))
    key_id: str = stated(KEY_ID, default="")
    password_hash: str = stated(PASSWORD_HASH, default="")
    classes: tuple[str, ...] = stated(many(NAME, 255), default=())
    ignore_index: int = stated(whole(0, 255), default=255)
    views: int = stated(whole(1, 1 << 20), default=1)
    augmented: bool = stated(YES_OR_NO, default=False)
    seed: int = stated(whole(-(2**63)), default=0)
    crop_scale: float = stated(number(0, 1, above=True), default=1.0)
    source_id: str = stated(text(128), default="")
    reading: str = stated(READING, default="")
    pixel_range: str = stated(PIXEL_RANGE, default="")
    scaled_images: int = stated(whole(0, 1 << 40), default=0)

    def complaint(self) -> str:
        """The first field with an impossible value, and what was expected; empty if there is none.

        A header that was read is untrusted.
        """
        if problem := json_records.complaint(self):
            return problem
        twice = len(set(self.classes)) < len(self.classes)
        return "'classes' names a class twice" if twice else ""

    @property
    def range_of_pixels(self) -> tuple[int, int] | None:
        """``pixel_range`` as numbers; None for all of 16 bits."""
        low, _, high = self.pixel_range.partition(":")
        return (int(low), int(high)) if self.pixel_range else None

    def attributes(self) -> dict[str, object]:
        """As attributes of a file."""
        values = asdict(self) | {
            "classes": json.dumps(self.classes, ensure_ascii=False, allow_nan=False)
        }
        values = {k: v for k, v in values.items() if k not in OPTIONAL or v}
        return {"format": FORMAT, "made_with": f"segkey {VERSION}"} | values

    def same_data(self, other: "Header") -> list[str]:
        """The fields, other than the split and its augmentation, in which two headers differ."""
        apart = {"split", "views", "augmented", "seed", "crop_scale", "source_id"} | OPTIONAL
        names = [f.name for f in fields(self) if f.name not in apart]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def needed_of_images(record: object) -> dict[str, object]:
    """The fields that say what images must be like for a model.

    Args:
        record: anything that has them: a header, what a run or an exported file says.
    """
    return {name: getattr(record, name) for name in _NEEDED_OF_IMAGES}


def sha256(data: bytes) -> str:
    """Hex digits."""
    return hashlib.sha256(data).hexdigest()


def checksum_attributes(attributes: dict[str, object]) -> str:
    """SHA-256 of attributes, whatever their order."""
    return sha256(json.dumps(attributes, sort_keys=True, allow_nan=False).encode())
