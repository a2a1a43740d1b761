"""Images to shards, in parallel and resumable.

Worker processes decode, resize, augment, encrypt and pack; this process only writes. None of them
imports torch. Shards are written one after another in the order of the images, so the result does not
depend on the number of workers, and a run that was killed goes on with the first shard that is missing.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from segkey.ciphers import Cipher, check_size
from segkey.errors import SegkeyError
from segkey.files import make_folder, sole_writer
from segkey.pictures import load_mask
from segkey.preparation import Preparation
from segkey.progress import SILENT, Progress
from segkey.shards import Header, Packed, Shard, ShardWriter
from segkey.sources import Item, Problem, Source
from segkey.workers import Workers, state

_BATCH = 8  # images a task: few enough that --strict and Ctrl-C act at once, enough to hide the messages' cost


@dataclass
class Result:
    """What `encrypt` did: images by split, images left out, shards kept from an earlier run and written, time and size."""

    images: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)
    seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class _Plan:
    """One shard to be made."""

    path: Path
    header: Header
    items: list[Item]
    preparation: Preparation

    def bytes(self) -> int:
        """Bytes of the images; masks take little beside them."""
        h, w = self.preparation.size
        return (
            len(self.items)
            * self.header.views
            * self.header.channels
            * h
            * w
            * (2 if self.header.max_value > 255 else 1)
        )

    def is_made(self) -> bool:
        """Whether the file is there, whole, and made from the same names in the same way."""
        try:
            with Shard(self.path) as shard:
                return shard.header == self.header and shard.size == self.preparation.size
        except SegkeyError:
            return False


def plan(
    source: Source,
    out: Path,
    cipher: Cipher,
    key_id: str = "",
    size: tuple[int, int] = (256, 256),
    views: int | None = None,
    seed: int = 0,
    crop_scale: float = 0.25,
    shard_bytes: int = 1 << 30,
) -> list[_Plan]:
    """The shards that `encrypt` will make, in order; arguments as there.

    Raises:
        SegkeyError: the block size does not divide the size, or a number is out of its range.
    """
    check_size(*size, cipher.block_size)
    if views is not None and views < 1 or not 0 < crop_scale <= 1 or shard_bytes < 1:
        raise SegkeyError("views must be at least 1, the crop scale between 0 and 1, the shard size positive")
    if source.has_masks and not source.classes:
        raise ValueError("source.classes is not set; count_classes() finds how many there are")
    classes = tuple(source.classes) if source.has_masks else ()
    plans = []
    for split, items in source.splits.items():
        own = views or (4 if split == "train" and source.has_masks and cipher.method != "none" else 1)
        own = own if split == "train" else 1
        preparation = Preparation(
            size,
            len(classes) if source.has_masks else None,
            source.ignore_index,
            own,
            own > 1,
            seed,
            crop_scale,
        )
        header = Header(
            split, cipher.method, cipher.block_size, cipher.channels, cipher.max_value,
            key_id if cipher.method != "none" else "", cipher.password_hash, classes, source.ignore_index,
            own, own > 1, seed if own > 1 else 0, crop_scale if own > 1 else 1.0,
        )  # fmt: skip
        whole = _Plan(out, header, items, preparation)
        each = max(1, int(shard_bytes // max(1, whole.bytes() // len(items))))
        count = math.ceil(len(items) / each)
        for number in range(count):
            name = f"{split}.h5" if count == 1 else f"{split}-{number:05d}-of-{count:05d}.h5"
            part = items[number * each : (number + 1) * each]
            plans.append(_Plan(out / name, replace(header, source_id=_digest(part)), part, preparation))
    return plans


def _digest(items: list[Item]) -> str:
    names = "\0".join(item.name for item in items)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def bytes_needed(plans: Iterable[_Plan]) -> int:
    """The disk space that the images of some shards take."""
    return sum(each.bytes() for each in plans)


def encrypt(
    plans: list[_Plan],
    cipher: Cipher,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> Result:
    """Make the shards that `plan` laid out; shards that an earlier run finished are kept.

    Args:
        plans: from `plan`.
        cipher: the same as given there.
        workers: processes; as many as there are cores, if not given; 1 works in this process.
        strict: stop at the first image that cannot be used, instead of leaving it out.
        force: replace shards that are there.
        progress: hears how far it is.

    Raises:
        SegkeyError: other shards are in the folder, the disk is too small, no image can be read, a worker dies.
    """
    started, out = time.monotonic(), plans[0].path.parent
    make_folder(out)
    with sole_writer(out):
        result, missing, stale = _what_is_missing(plans, out, force)
        free = shutil.disk_usage(out).free
        if bytes_needed(missing) > free:
            raise SegkeyError(
                f"{out}: {bytes_needed(missing) / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
                "free some space, choose another --out, or take fewer --views or a smaller --size",
            )
        with progress.task("encrypt", sum(len(each.items) for each in missing)) as advance:
            _write_shards(missing, cipher, workers, strict, result, advance)
        for path in stale - result.written:
            path.unlink(missing_ok=True)
    if not result.images:
        first = result.problems[0]
        raise SegkeyError(f"none of {len(result.problems)} images can be used; {first.name}: {first.why}")
    result.bytes = sum(each.path.stat().st_size for each in plans if each.path.exists())
    result.seconds = time.monotonic() - started
    return result


def _what_is_missing(plans: list[_Plan], out: Path, force: bool) -> tuple[Result, list[_Plan], set[Path]]:
    """What an earlier run finished, what is still to be made, and which files that replaces."""
    result = Result()
    there = set(out.glob("*.h5"))
    if force:
        return result, plans, there
    for each in plans:
        if each.path in there and each.is_made():
            there.discard(each.path)
            result.kept.append(each.path)
    if there:
        raise SegkeyError(
            f"{min(there)} already exists, made in another way",
            "choose another --out, or use --force to replace it",
        )
    missing = [each for each in plans if each.path not in result.kept]
    if not missing:
        raise SegkeyError(f"{result.kept[0]} already exists", "choose another --out, or use --force to replace it")
    for path in result.kept:
        with Shard(path) as shard:
            result.images[shard.header.split] = result.images.get(shard.header.split, 0) + shard.images
    return result, missing, set()


def _write_shards(
    plans: list[_Plan], cipher: Cipher, workers: int | None, strict: bool, result: Result, advance
) -> None:
    """Let workers prepare the images of all shards, in order, and write what comes back."""
    tasks = [
        (number, start, each.preparation, each.items[start : start + _BATCH])
        for number, each in enumerate(plans)
        for start in range(0, len(each.items), _BATCH)
    ]
    writer: ShardWriter | None = None
    try:
        with Workers(workers, cipher) as pool:
            for (number, start, preparation, items), outcomes in pool.map_ordered(_prepare_and_encrypt, tasks):
                if start == 0:
                    if writer:
                        _finish(writer, result)
                    each, masks = plans[number], preparation.classes is not None
                    names = [item.name for item in each.items]
                    writer = ShardWriter(each.path, each.header, names, preparation.size, cipher.dtype, masks)
                for offset, outcome in enumerate(outcomes):
                    if isinstance(outcome, Problem):
                        if strict:
                            raise SegkeyError(f"{outcome.name}: {outcome.why}", "mend it, or leave out --strict")
                        result.problems.append(outcome)
                    else:
                        writer.write(start + offset, *outcome)
                advance(len(items))
        if writer:
            _finish(writer, result)
            writer = None
    finally:
        if writer:
            writer.abandon()


def _finish(writer: ShardWriter, result: Result) -> None:
    split, images = writer.header.split, writer.finish()
    if not images and "-of-" in writer.path.name:
        raise SegkeyError(f"{writer.path}: none of its {len(writer.names)} images can be used", "remove or mend them")
    if images:
        result.written.add(writer.path)
        result.images[split] = result.images.get(split, 0) + images


# ------------------------------------------------------------------ in worker processes


def _prepare_and_encrypt(task: tuple) -> list:
    """For each image of a task, what `ShardWriter.write` takes after the position, or a `Problem`."""
    _, _, preparation, items = task
    cipher, outcomes = state(), []
    for item in items:
        try:
            images, masks, original_size = preparation.load(item)
            rows = {"images": [Packed.image(image) for image in cipher.encrypt(np.stack(images))]}
            if masks:
                rows["masks"] = [Packed.mask(mask) for mask in masks]
            outcomes.append((original_size, rows))
        except SegkeyError as error:
            outcomes.append(Problem(item.name, error.what))
    return outcomes


def _highest_class(task: tuple) -> list[int]:
    """The largest class number in each mask of a task; -1 where the mask cannot be read."""
    _, _, ignore_index, items = task
    highest = []
    for item in items:
        try:
            counts = np.array(load_mask(item.mask).histogram())
            counts[ignore_index] = 0
            highest.append(int(np.flatnonzero(counts).max(initial=0)))
        except SegkeyError:
            highest.append(-1)
    return highest


def count_classes(source: Source, workers: int | None = None, progress: Progress = SILENT) -> int:
    """How many classes the masks of a source hold, where nothing names them: the largest number, plus 1."""
    items = [item for items in source.splits.values() for item in items if item.mask]
    tasks = [(0, start, source.ignore_index, items[start : start + 32]) for start in range(0, len(items), 32)]
    highest = 0
    with Workers(workers) as pool, progress.task("look for classes", len(items), "masks") as advance:
        for (_, _, _, batch), found in pool.map_ordered(_highest_class, tasks):
            highest = max(highest, *found)
            advance(len(batch))
    return highest + 1
