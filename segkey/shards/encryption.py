"""Images to shards, in parallel and resumable.

Worker processes decode, resize, augment, encrypt and pack; this process only writes. None of them
imports torch. Shards are written one after another in the order of the images, so the result does
not depend on the number of workers, and a run that was killed goes on with the first shard that is
missing.

Under torchrun, splits are cut into shards enough for all ranks, and each rank makes its own with
its own workers; the images are the same, in the same order.
"""

import math
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from segkey.crypto.ciphers import Cipher, check_size
from segkey.data.items import Item, Problem, Source
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.shards import Header, Packed, Shard, ShardWriter, index_path, is_shard, write_index
from segkey.system import distributed
from segkey.system.files import is_there, make_folder, remove
from segkey.system.progress import SILENT, Advance, Progress
from segkey.system.seeds import digest
from segkey.system.workers import Workers, state

# images a task: few enough that --strict and Ctrl-C act at once, enough to hide the messages' cost
_BATCH = 8


@dataclass
class Result:
    """What `encrypt` did: images by split, images left out, shards kept from an earlier run and
    written, time and size."""

    images: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)
    seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """One shard to be made: its file, what it will say about itself, its images and what is done to
    them."""

    path: Path
    header: Header
    items: list[Item]
    preparation: Preparation

    @property
    def image_bytes(self) -> int:
        """What one image takes in the file, all its views together; its masks take little beside
        that."""
        height, width = self.preparation.size
        return (
            self.header.views
            * self.header.channels
            * height
            * width
            * (2 if self.header.max_value > 255 else 1)
        )

    def is_made(self) -> bool:
        """Whether the file is there, whole, and made from the same names in the same way."""
        try:
            with Shard(self.path) as shard:
                return shard.header == self.header and shard.size == self.preparation.size
        except SegkeyError:
            return False


def bytes_needed(plans: Iterable[Plan]) -> int:
    """The disk space that the images of some shards take."""
    return sum(len(plan.items) * plan.image_bytes for plan in plans)


def plan_shards(
    source: Source,
    out: Path,
    cipher: Cipher,
    key_id: str = "",
    size: tuple[int, int] = (256, 256),
    views: int | None = None,
    seed: int = 0,
    crop_scale: float = 0.25,
    shard_bytes: float = 10**9,
) -> list[Plan]:
    """Lay out the shards that `encrypt` makes.

    Args:
        source: from `segkey.data.sources.find`; with masks, its ``classes`` must be known.
        out: the folder.
        cipher: from `segkey.ciphers.from_key`.
        key_id: of the key that ``cipher`` came from.
        size: (H, W) that images are resized to.
        views: augmented copies of a training image; 1 keeps the image as it is. 4, if not given,
            for an encrypted training split with masks; other splits always have 1.
        seed: of the augmentation.
        crop_scale: smallest area of a copy, as a fraction.
        shard_bytes: where to cut.

    Raises:
        SegkeyError: the block size does not divide the size, or a number is out of its range.
    """
    check_size(*size, cipher.block_size)
    for name, value, fine in (
        ("views", views, views is None or 1 <= views <= 1 << 20),
        ("crop scale", crop_scale, 0 < crop_scale <= 1),
        ("shard size", shard_bytes, 1 <= shard_bytes < math.inf),
    ):
        if not fine:
            raise SegkeyError(f"the {name} cannot be {value}", "see segkey encrypt --help")
    if source.has_masks and not source.classes:
        raise ValueError("source.classes is not set; count_classes() finds how many there are")
    if views is None:
        views = 4 if source.has_masks and cipher.method != "none" else 1
    plans = []
    for split, items in source.splits.items():
        augmented = split == "train" and views > 1
        augmentation = {
            "views": views if augmented else 1,
            "augmented": augmented,
            "seed": seed if augmented else 0,
            "crop_scale": crop_scale if augmented else 1.0,
        }
        classes = tuple(source.classes) if source.has_masks else ()
        preparation = Preparation(size, len(classes) or None, source.ignore_index, **augmentation)
        header = Header(
            split=split,
            method=cipher.method,
            block_size=cipher.block_size,
            channels=cipher.channels,
            max_value=cipher.max_value,
            key_id=key_id if cipher.method != "none" else "",
            password_hash=cipher.password_hash,
            classes=classes,
            ignore_index=source.ignore_index,
            **augmentation,
        )
        plans.append(Plan(out / f"{split}.h5", header, items, preparation))
    if not distributed.is_single():  # an equal part for each rank, but no less than a task
        part = bytes_needed(plans) // distributed.world_size()
        shard_bytes = min(shard_bytes, max(part, _BATCH * max(plan.image_bytes for plan in plans)))
    return [part for plan in plans for part in _cut(plan, shard_bytes)]


def _cut(whole: Plan, shard_bytes: float) -> Iterator[Plan]:
    """One plan for all images of a split, cut into shards of at most ``shard_bytes``."""
    most = max(1, int(shard_bytes // whole.image_bytes))
    count = math.ceil(len(whole.items) / most)
    for number in range(count):
        items = whole.items[number * most : (number + 1) * most]
        name = f"{whole.path.stem}-{number:05d}-of-{count:05d}.h5" if count > 1 else whole.path.name
        header = replace(whole.header, source_id=digest(item.name for item in items))
        yield Plan(whole.path.with_name(name), header, items, whole.preparation)


def encrypt(
    plans: list[Plan],
    cipher: Cipher,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> Result:
    """Make the shards that `plan_shards` laid out; shards that an earlier run finished are kept.

    Args:
        plans: from `plan_shards`.
        cipher: the same as given there.
        workers: processes; as many as there are cores, if not given; 1 works in this process.
        strict: stop at the first image that cannot be used, instead of leaving it out.
        force: replace shards that are there.
        progress: hears how far it is.

    Raises:
        SegkeyError: other shards are in the folder, the disk is too small, no image can be read, a
            worker dies; ranks that found other images.
    """
    started, out = time.monotonic(), plans[0].path.parent
    make_folder(out)
    distributed.require_same(
        {"the images": digest(f"{each.header} {each.preparation}" for each in plans)}, shown=False
    )
    with distributed.sole_writer(out):
        result, missing, stale = _dealt_out(plans, out, force)
        free = shutil.disk_usage(out).free
        if bytes_needed(missing) > free:
            raise SegkeyError(
                f"{out}: {bytes_needed(missing) / 1e9:.4g} GB are needed, {free / 1e9:.4g} GB are "
                f"free",
                "free some space, choose another --out, or take fewer --views or a smaller --size",
            )
        description = (
            "encrypt" if distributed.is_single() else f"encrypt ({distributed.rank_name()})"
        )
        with progress.task(description, sum(len(each.items) for each in missing)) as advance:
            _write_shards(missing, cipher, workers, strict, result, advance)
        result = _added_up(result)
        if not result.images:
            first = result.problems[0]
            raise SegkeyError(
                f"none of {len(result.problems)} images can be used; {first.name}: {first.why}"
            )
        for path in stale - result.written:
            remove(path)
        if distributed.is_main():
            _write_indices(plans)
    result.bytes = sum(each.path.stat().st_size for each in plans if each.path.exists())
    result.seconds = time.monotonic() - started
    return result


def _dealt_out(plans: list[Plan], out: Path, force: bool) -> tuple[Result, list[Plan], set[Path]]:
    """What `_what_is_missing` tells the first rank; of the missing shards, this rank's part."""
    result, missing, stale = (
        _what_is_missing(plans, out, force) if distributed.is_main() else (Result(), [], set())
    )
    free = shutil.disk_usage(out).free
    if bytes_needed(missing) > free:
        raise SegkeyError(
            f"{out}: {bytes_needed(missing) / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
            "free some space, choose another --out, or take fewer --views or a smaller --size",
        )
    for each in missing:  # an earlier index knows nothing of what is made now
        remove(index_path([each.path], each.header.split))
    paths = distributed.broadcast({each.path for each in missing})
    return result, distributed.my_share([each for each in plans if each.path in paths]), stale


def _write_indices(plans: list[Plan]) -> None:
    """Help those who open splits of many shards."""
    splits: dict[str, list[Path]] = {}
    for each in plans:
        splits.setdefault(each.header.split, []).append(each.path)
    for split, files in splits.items():
        if len(files) > 1:
            write_index(files, split)


def _added_up(result: Result) -> Result:
    """What all ranks did."""
    whole = Result()
    for part in distributed.all_gather(result):
        for split, images in part.images.items():
            whole.images[split] = whole.images.get(split, 0) + images
        whole.problems += part.problems
        whole.kept += part.kept
        whole.written |= part.written
    return whole


def _what_is_missing(
    plans: list[Plan], out: Path, force: bool
) -> tuple[Result, list[Plan], set[Path]]:
    """What an earlier run finished, what is still to be made, and which files that replaces."""
    result = Result()
    there = {path for path in out.glob("*.h5") if is_there(path)}
    for each in plans:  # before hours of work
        is_there(each.path)
        is_there(index_path([each.path], each.header.split))
    if force:  # what is no shard is somebody else's, and stays
        return result, plans, {path for path in there if is_shard(path)}
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
        raise SegkeyError(
            f"{result.kept[0]} already exists", "choose another --out, or use --force to replace it"
        )
    for path in result.kept:
        with Shard(path) as shard:
            result.images[shard.header.split] = (
                result.images.get(shard.header.split, 0) + shard.images
            )
    return result, missing, set()


def _write_shards(
    plans: list[Plan],
    cipher: Cipher,
    workers: int | None,
    strict: bool,
    result: Result,
    advance: Advance,
) -> None:
    """Let workers prepare the images of all shards and put them in place, and finish each shard in
    its turn."""
    writers: dict[
        int, ShardWriter
    ] = {}  # of the shard that is being finished and of those that workers began

    def tasks() -> Iterator[tuple]:
        for number, plan in enumerate(plans):
            names, masks = [item.name for item in plan.items], plan.preparation.classes is not None
            writers[number] = ShardWriter(
                plan.path, plan.header, names, plan.preparation.size, cipher.dtype, masks
            )
            for start in range(0, len(plan.items), _BATCH):
                yield (
                    number,
                    start,
                    writers[number].region,
                    plan.preparation,
                    plan.items[start : start + _BATCH],
                )

    try:
        with Workers(workers, cipher) as pool:
            for (number, start, *_, items), outcomes in pool.map_ordered(
                _prepare_and_encrypt, tasks()
            ):
                for position, outcome in enumerate(outcomes, start):
                    if isinstance(outcome, Problem):
                        if strict:
                            raise SegkeyError(
                                f"{outcome.name}: {outcome.why}", "mend it, or leave out --strict"
                            )
                        result.problems.append(outcome)
                    else:
                        writers[number].write(position, *outcome)
                advance(len(items))
                if start + len(items) == len(plans[number].items):
                    _finish(writers.pop(number), result)
    finally:
        for writer in writers.values():
            writer.abandon()


def _finish(writer: ShardWriter, result: Result) -> None:
    split, images = writer.header.split, writer.finish()
    if images:
        result.written.add(writer.path)
        result.images[split] = result.images.get(split, 0) + images
    elif "-of-" in writer.path.name:  # without it, the split would never be complete
        raise SegkeyError(
            f"{writer.path}: none of its {len(writer.names)} images can be used",
            "remove or mend them",
        )


def _prepare_and_encrypt(task: tuple) -> list:
    """For each image of a task, what `ShardWriter.write` takes after the position, or a
    `Problem`."""
    _, start, region, preparation, items = task
    cipher, outcomes = state(), []
    for position, item in enumerate(items, start):
        try:
            images, masks, original_size = preparation.load(item)
        except SegkeyError as error:
            outcomes.append(Problem(item.name, error.what))
            continue
        rows = {"images": region.put(position, cipher.encrypt(np.stack(images)))}
        if masks:
            rows["masks"] = [Packed.mask(mask) for mask in masks]
        outcomes.append((original_size, rows))
    return outcomes
