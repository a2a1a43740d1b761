"""Images to shards, in parallel and resumable, and back.

Worker processes decode, resize, augment, encrypt and pack; this process only writes. None of them
imports torch. Shards are written one after another in the order of the images, so the result does not
depend on the number of workers, and a run that was killed goes on with the first shard that is missing.
"""

import math
import multiprocessing
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from segkey import ciphers
from segkey.ciphers import Cipher, check_size
from segkey.errors import KeyMismatchError, SegkeyError
from segkey.files import make_folder, sole_writer, written_whole
from segkey.keys import Key
from segkey.pictures import as_array, load_image, load_mask, random_crop, seeded
from segkey.progress import SILENT, Progress
from segkey.shards import Header, Packed, Shard, ShardWriter, Split
from segkey.sources import Item, Problem, Source

_BATCH = 8  # images a task: few enough that --strict and Ctrl-C act at once, enough to hide the messages' cost


@dataclass(frozen=True)
class Preparation:
    """What is done to every image before it is encrypted.

    Attributes:
        size: (H, W).
        classes: number of classes, or None where there are no masks.
        ignore_index: the mask value that means void.
        views: copies of each image.
        augmented: whether the copies are random crops, or the image itself.
        seed: of the augmentation; a copy depends on it, the image's name and the view's number alone.
        crop_scale: smallest area of a crop, as a fraction.
    """

    size: tuple[int, int]
    classes: int | None = None
    ignore_index: int = 255
    views: int = 1
    augmented: bool = False
    seed: int = 0
    crop_scale: float = 0.25

    def load(self, item: Item) -> tuple[list[np.ndarray], list[np.ndarray], tuple[int, int]]:
        """All views of an image, uint8 (C, H, W), of its mask, uint8 (H, W), and its original (H, W).

        Raises:
            SegkeyError: a file that cannot be read, a mask of another size, a class beyond the classes.
        """
        image = load_image(item.image)
        mask = load_mask(item.mask) if item.mask else None
        if mask is not None:
            self._check_mask(item, image, mask)
        images, masks = [], []
        for view in range(self.views):
            crop = None
            if self.augmented:
                generator = seeded("view", self.seed, item.name, view)
                crop = random_crop(generator, image.height, image.width, (self.crop_scale, 1.0))
            images.append(as_array(image, self.size, crop))
            if mask is not None:
                masks.append(as_array(mask, self.size, crop))
        return images, masks, (image.height, image.width)

    def _check_mask(self, item: Item, image: Image.Image, mask: Image.Image) -> None:
        if mask.size != image.size:
            raise SegkeyError(
                f"{item.mask}: the mask is {mask.width}x{mask.height}, its image {image.width}x{image.height}"
            )
        if self.classes is not None:
            counts = np.array(mask.histogram())
            counts[self.ignore_index] = 0
            highest = int(np.flatnonzero(counts).max(initial=0))
            if highest >= self.classes:
                raise SegkeyError(f"{item.mask}: holds class {highest}, but there are {self.classes} (0 to {self.classes - 1})")


@dataclass
class Result:
    """What `encrypt` did: images by split, images left out, shards kept from an earlier run, time and size."""

    images: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
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
        return len(self.items) * self.header.views * self.header.channels * h * w * (2 if self.header.max_value > 255 else 1)

    def is_made(self) -> bool:
        """Whether the file is there and holds what this plan would make (or that less unreadable images)."""
        if not self.path.exists():
            return False
        with Shard(self.path) as shard:
            alike = shard.header == self.header and shard.size == self.preparation.size
            return alike and set(shard.names) <= {item.name for item in self.items}


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
    classes = tuple(source.classes or ()) if source.has_masks else ()
    plans = []
    for split, items in source.splits.items():
        own = views or (4 if split == "train" and source.has_masks and cipher.method != "none" else 1)
        own = own if split == "train" else 1
        preparation = Preparation(
            size, len(classes) if source.has_masks else None, source.ignore_index, own, own > 1, seed, crop_scale
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
            plans.append(_Plan(out / name, header, items[number * each : (number + 1) * each], preparation))
    return plans


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
        for path in stale:
            path.unlink(missing_ok=True)
    if not result.images:
        first = result.problems[0]
        raise SegkeyError(f"none of {len(result.problems)} images can be used; {first.name}: {first.why}")
    result.bytes = sum(each.path.stat().st_size for each in plans if each.path.exists())
    result.seconds = time.monotonic() - started
    return result


def _what_is_missing(plans: list[_Plan], out: Path, force: bool) -> tuple[Result, list[_Plan], list[Path]]:
    """What an earlier run finished, what is still to be made, and which files that replaces."""
    result = Result()
    there = set(out.glob("*.h5"))
    if force:
        return result, plans, sorted(there - {each.path for each in plans})
    for each in plans:
        if each.path in there and each.is_made():
            there.discard(each.path)
            result.kept.append(each.path)
    if there:
        raise SegkeyError(
            f"{min(there)} already exists, made in another way", "choose another --out, or use --force to replace it"
        )
    missing = [each for each in plans if each.path not in result.kept]
    if not missing:
        raise SegkeyError(f"{result.kept[0]} already exists", "choose another --out, or use --force to replace it")
    for path in result.kept:
        with Shard(path) as shard:
            result.images[shard.header.split] = result.images.get(shard.header.split, 0) + shard.images
    return result, missing, []


def _write_shards(plans: list[_Plan], cipher: Cipher, workers: int | None, strict: bool, result: Result, advance) -> None:
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
        result.images[split] = result.images.get(split, 0) + images


# ------------------------------------------------------------------ worker processes


_cipher: Cipher | None = None


def _begin(cipher: Cipher) -> None:
    global _cipher
    _cipher = cipher
    if multiprocessing.parent_process():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


def _prepare_and_encrypt(task: tuple) -> list:
    """For each image of a task, what `ShardWriter.write` takes after the position, or a `Problem`."""
    _, _, preparation, items = task
    outcomes = []
    for item in items:
        try:
            images, masks, original_size = preparation.load(item)
            rows = {"images": [Packed.image(image) for image in _cipher.encrypt(np.stack(images))]}
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
    with Workers(workers, None) as pool, progress.task("look for classes", len(items), "masks") as advance:
        for (_, _, _, batch), found in pool.map_ordered(_highest_class, tasks):
            highest = max(highest, *found)
            advance(len(batch))
    return highest + 1


class Workers:
    """Worker processes that answer in order, few tasks ahead; one worker is this process itself.

    The standard library's pool notices a worker that dies; this adds bounded look-ahead, so that memory
    does not grow with the number of images, and says what was being worked on.
    """

    def __init__(self, workers: int | None, cipher: Cipher | None):
        self.count = workers or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else workers or os.cpu_count()
        self.cipher = cipher

    def __enter__(self) -> "Workers":
        self.pool = None
        if self.count > 1:
            # Spawned, not forked: the caller may have threads (torch has), which a fork would break.
            context = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(self.count, context, initializer=_begin, initargs=(self.cipher,))
        else:
            _begin(self.cipher)
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def map_ordered(self, function, tasks: list[tuple]) -> Iterator[tuple[tuple, list]]:
        """Yield each task with its result, in order."""
        if not self.pool:
            yield from ((task, function(task)) for task in tasks)
            return
        waiting: deque[tuple[tuple, Future]] = deque()
        ahead = iter(tasks)
        try:
            for task in ahead:
                waiting.append((task, self.pool.submit(function, task)))
                if len(waiting) >= 4 * self.count:
                    yield waiting[0][0], waiting[0][1].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0][0], waiting[0][1].result()
                waiting.popleft()
        except BrokenProcessPool:
            first, last = waiting[0][0][-1][0].name, waiting[-1][0][-1][-1].name
            raise SegkeyError(
                f"a worker process died between {first} and {last} (killed, or out of memory)",
                "run the same command again: finished shards are kept; use fewer --workers if memory is short",
            ) from None


# ------------------------------------------------------------------ the way back


def cipher_for(header: Header, key: Key | None, password: bytes | None, path: Path | str) -> Cipher:
    """The cipher that made what ``header`` describes, from the key and a fixed FFX password, where there is one.

    Raises:
        KeyMismatchError: the key or the password is another one; ``path`` is named.
    """
    if header.method != "none" and (key is None or key.id != header.key_id):
        given = f"key {key.id}" if key else "no key"
        raise KeyMismatchError(
            f"{path} was made with key {header.key_id}, not with {given}", "give the right key file with --key"
        )
    cipher = ciphers.from_key(header.method, key, header.block_size, header.channels, password)
    if cipher.password_hash != header.password_hash:
        wants = "a fixed FFX password" if header.password_hash else "no fixed FFX password"
        if header.password_hash and cipher.password_hash:
            wants = "another FFX password"
        raise KeyMismatchError(f"{path} was made with {wants}", "give the same --ffx-password as for 'segkey encrypt'")
    return cipher


def decrypt(
    splits: dict[str, Split],
    cipher: Cipher,
    out: Path,
    force: bool = False,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> int:
    """Write every image of some splits as PNG, with exactly the pixels that were encrypted.

    Args:
        splits: from `segkey.shards.open_splits`; 
        cipher: what they were encrypted with, from `cipher_for`.
        out: the folder; names from a shard never lead out of it.
        force: write into a folder that is not empty, replacing files.
        workers: threads.
        progress: hears how far it is.

    Returns:
        How many images were written (an image of V views counts V).
    """
    if not force and out.exists() and any(out.iterdir()):
        raise SegkeyError(f"{out} already exists and is not empty", "choose another --out, or use --force")
    make_folder(out)
    jobs = []
    taken: set[Path] = set()
    for name, split in splits.items():
        for index, image in enumerate(split.names):
            for view in range(split.header.views):
                suffix = f".view{view}" if split.header.views > 1 else ""
                jobs.append((split, index, view, _free_name(out / name, image.removeprefix(f"{name}/"), suffix, taken)))

    def write(job: tuple) -> None:
        split, index, view, path = job
        pixels = cipher.decrypt(split.read("images", index, view)[None])[0]
        make_folder(path.parent)
        with written_whole(path) as file:
            picture = np.ascontiguousarray(pixels.transpose(1, 2, 0)) if len(pixels) == 3 else pixels[0]
            Image.fromarray(picture).save(file, format="PNG")

    with progress.task("decrypt", len(jobs)) as advance, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for _ in pool.map(write, jobs):
            advance(1)
    return len(jobs)


def _free_name(folder: Path, name: str, suffix: str, taken: set[Path]) -> Path:
    """A path below ``folder`` for an image's name, whatever the name holds; each path is given once."""
    parts = [
        "".join(c if c.isprintable() and c not in '\\:*?"<>|' else "_" for c in part)[:100]
        for part in name.split("/")
        if part not in ("", ".", "..")
    ]
    stem = Path(*parts[-16:]).with_suffix("") if parts else Path("image")
    path, number = folder / f"{stem}{suffix}.png", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}{suffix}-{number}.png"
    taken.add(path)
    return path
