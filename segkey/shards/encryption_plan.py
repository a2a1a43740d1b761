"""The plan of an encryption: the shards to write, their files, headers and images."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segkey.crypto.ciphers import Cipher, check_size
from segkey.data.decode import CHANNELS
from segkey.data.items import Item, Source
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.shards.header import Header
from segkey.shards.reader import Shard
from segkey.system import distributed
from segkey.system.seeds import digest

# Images per task: few, so that --strict and Ctrl-C act at once; enough to hide the messages' cost.
TASK_IMAGES = 8


@dataclass(frozen=True)
class Plan:
    """One shard to be made.

    Attributes:
        path: its file.
        header: what it will say about itself.
        items: its images, in order.
        preparation: what is done to them before they are encrypted.
    """

    path: Path
    header: Header
    items: list[Item]
    preparation: Preparation

    @property
    def image_bytes(self) -> int:
        """Bytes that all views of one image take in the file; its masks take little beside that."""
        height, width = self.preparation.size
        values = self.header.views * self.header.channels * height * width
        return values * (2 if self.header.max_value > 255 else 1)

    def is_made(self) -> bool:
        """Whether the file is there, whole, and made from the same names in the same way."""
        try:
            with Shard(self.path) as shard:
                made, scaled = shard.header, shard.header.scaled_images
                return (
                    replace(made, scaled_images=0) == self.header
                    and shard.size == self.preparation.size
                    and not (scaled and self.preparation.exact)
                )
        except SegkeyError:
            return False


def bytes_needed(plans: Iterable[Plan]) -> int:
    """The disk space that the images of some shards take."""
    return sum(len(plan.items) * plan.image_bytes for plan in plans)


@dataclass(frozen=True)
class _Augmentation:
    """How the views of a split are made; fields of `Preparation` and of `Header` alike."""

    views: int = 1
    augmented: bool = False
    seed: int = 0
    crop_scale: float = 1.0


def plan_shards(
    source: Source,
    out: Path,
    cipher: Cipher,
    size: tuple[int, int] = (256, 256),
    views: int | None = None,
    seed: int = 0,
    crop_scale: float = 0.25,
    shard_bytes: float = 10**9,
    exact_decode: bool = False,
) -> list[Plan]:
    """Lay out the shards that `segkey.shards.encryption.encrypt` makes.

    Args:
        source: from `segkey.data.sources.find`; with masks, its ``classes`` must be known.
        cipher: from `segkey.ciphers.from_key`.
        size: (H, W) that images are resized to.
        views: augmented copies of a training image; 1 keeps the image as it is. If not given, 4
            for an encrypted training split with masks; other splits always have 1.
        seed: of the augmentation.
        crop_scale: smallest area of a copy, as a fraction.
        shard_bytes: the largest size of a shard.
        exact_decode: decode every pixel of a JPEG, even if a fraction would do.

    Raises:
        SegkeyError: the block size does not divide the size, or a number is out of its range.
    """
    check_size(*size, cipher.block_size)
    _check_ranges(cipher, views, crop_scale, shard_bytes)
    if source.has_masks and not source.classes:
        raise ValueError("source.classes is not set; segkey.data.intake.take_in() sets it")
    if views is None:
        views = 4 if source.has_masks and cipher.method != "none" else 1
    augmentation = _Augmentation(views, True, seed, crop_scale) if views > 1 else _Augmentation()
    plans = []
    for split, items in source.splits.items():
        how = asdict(augmentation if split == "train" else _Augmentation())
        header = _header(source, cipher, split, how)
        preparation = Preparation(
            size,
            len(header.classes) or None,
            source.ignore_index,
            **how,
            reading=source.reading,
            pixel_range=source.pixel_range,
            channels=cipher.channels,
            exact=exact_decode,
        )
        plans.append(Plan(out / f"{split}.h5", header, items, preparation))
    shard_bytes = _part_of_a_rank(plans, shard_bytes)
    return [part for plan in plans for part in _cut(plan, shard_bytes)]


def _check_ranges(cipher: Cipher, views: int | None, crop_scale: float, shard_bytes: float) -> None:
    if cipher.channels not in CHANNELS:
        raise SegkeyError(
            f"images cannot be read with {cipher.channels} channels",
            "give --channels 3, 1 for grey, or 4 for files of four bands",
        )
    for name, value, fine in (
        ("views", views, views is None or 1 <= views <= 1 << 20),
        ("crop scale", crop_scale, 0 < crop_scale <= 1),
        ("shard size", shard_bytes, 1 <= shard_bytes < math.inf),
    ):
        if not fine:
            raise SegkeyError(f"the {name} cannot be {value}", "see segkey encrypt --help")


def _header(source: Source, cipher: Cipher, split: str, how: dict[str, object]) -> Header:
    low_high = source.pixel_range
    return Header(
        split=split,
        method=cipher.method,
        block_size=cipher.block_size,
        channels=cipher.channels,
        max_value=cipher.max_value,
        key_id=cipher.key_id,
        password_hash=cipher.password_hash,
        classes=tuple(source.classes) if source.has_masks else (),
        ignore_index=source.ignore_index,
        reading=source.reading.as_text(),
        pixel_range="" if low_high is None else f"{low_high[0]}:{low_high[1]}",
        **how,
    )


def _part_of_a_rank(plans: list[Plan], shard_bytes: float) -> float:
    """The size at which every rank has an equal part to make, but no less than a task."""
    if distributed.is_single():
        return shard_bytes
    part = bytes_needed(plans) // distributed.world_size()
    return min(shard_bytes, max(part, TASK_IMAGES * max(plan.image_bytes for plan in plans)))


def _cut(whole: Plan, shard_bytes: float) -> Iterator[Plan]:
    """One plan for all images of a split, cut into shards of at most ``shard_bytes``."""
    most = max(1, int(shard_bytes // whole.image_bytes))
    count = math.ceil(len(whole.items) / most)
    for number in range(count):
        items = whole.items[number * most : (number + 1) * most]
        name = f"{whole.path.stem}-{number:05d}-of-{count:05d}.h5" if count > 1 else whole.path.name
        header = replace(whole.header, source_id=digest(item.name for item in items))
        yield Plan(whole.path.with_name(name), header, items, whole.preparation)
