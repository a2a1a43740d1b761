"""Encrypt images to shards, in parallel and resumable.

Worker processes decode, resize, augment, encrypt and pack; this process only writes. None of them
imports torch. Shards are written one after another in the order of the images, so the result does
not depend on the number of workers. The same command, given again after it was killed, goes on with
the first shard that is missing.

Under torchrun, splits are cut into enough shards for all ranks, and each rank makes its own with
its own workers; the images are the same, in the same order.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segkey.crypto.ciphers import Cipher
from segkey.data.items import Item, Problem
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.shards.encryption_plan import TASK_IMAGES, Plan, bytes_needed, plan_shards
from segkey.shards.encryption_result import Encrypted, Result
from segkey.shards.index import index_path, write_index
from segkey.shards.reader import Shard, is_shard
from segkey.shards.writer import Packed, Region, ShardWriter
from segkey.system import distributed
from segkey.system.files import is_there, make_folder, remove
from segkey.system.progress import SILENT, Advance, Progress
from segkey.system.seeds import digest
from segkey.system.workers import Workers, state

__all__ = ["Plan", "Result", "bytes_needed", "encrypt", "plan_shards"]


@dataclass(frozen=True)
class _Work:
    """What is to be done: shards to make, and files of other shards that they replace."""

    missing: list[Plan]
    stale: set[Path]


@dataclass(frozen=True)
class _Task:
    """Some neighbouring images of one shard, for a worker.

    Attributes:
        shard: the number of the shard among those that are made.
        start: the position of the first image in it.
        region: where the shard's images lie in its unfinished file.
        preparation: what is done to the images before they are encrypted.
    """

    shard: int
    start: int
    region: Region
    preparation: Preparation
    items: list[Item]


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
        result, work = Result(), _Work([], set())
        if distributed.is_main():
            work = _look_for_work(plans, out, result, force=force)
            _require_space(out, bytes_needed(work.missing))
            for each in work.missing:  # an earlier index knows nothing of what is made now
                remove(index_path([each.path], each.header.split))
        paths = distributed.broadcast({each.path for each in work.missing})
        mine = distributed.my_share([each for each in plans if each.path in paths])
        name = "encrypt" if distributed.is_single() else f"encrypt ({distributed.rank_name()})"
        with progress.task(name, sum(len(each.items) for each in mine)) as advance:
            _Production(mine, cipher, strict, result, advance).run(workers)
        result = Result.of_ranks(distributed.all_gather(result))
        _require_images(result)
        for path in work.stale - result.written:
            remove(path)
        if distributed.is_main():
            _write_indices(plans)
    result.bytes = sum(each.path.stat().st_size for each in plans if each.path.exists())
    result.seconds = time.monotonic() - started
    return result


def _require_space(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise SegkeyError(
            f"{out}: {needed / 1e9:.4g} GB are needed, {free / 1e9:.4g} GB are free",
            "free some space, choose another --out, or take fewer --views or a smaller --size",
        )


def _require_images(result: Result) -> None:
    if not result.images:
        first = result.problems[0]
        raise SegkeyError(
            f"none of {len(result.problems)} images can be used; {first.name}: {first.why}"
        )


def _write_indices(plans: list[Plan], absent: bool = False) -> None:
    """Write an index for each split of several shards, which then opens faster.

    With ``absent``, only where there is none.
    """
    splits: dict[str, list[Path]] = {}
    for each in plans:
        splits.setdefault(each.header.split, []).append(each.path)
    for split, files in splits.items():
        if len(files) > 1 and not (absent and is_there(index_path(files, split))):
            write_index(files, split)


def _look_for_work(plans: list[Plan], out: Path, result: Result, *, force: bool) -> _Work:
    """Count in ``result`` what an earlier run finished; return what is still to be done."""
    there = {path for path in out.glob("*.h5") if is_there(path)}
    for each in plans:  # before hours of work
        is_there(each.path)
        is_there(index_path([each.path], each.header.split))
    if force:  # a file that is no shard belongs to the user, and stays
        return _Work(plans, {path for path in there if is_shard(path)})
    result.kept += [each.path for each in plans if each.path in there and each.is_made()]
    missing = [each for each in plans if each.path not in result.kept]
    if others := there.difference(result.kept):
        raise _exists(min(others), ", made in another way")
    if not missing:
        _write_indices(plans, absent=True)  # a kill may have come between the shards and these
        raise _exists(result.kept[0])
    for path in result.kept:
        with Shard(path) as shard:
            result.count(shard.header.split, shard.images)
    return _Work(missing, set())


def _exists(path: Path, how: str = "") -> SegkeyError:
    return SegkeyError(
        f"{path} already exists{how}", "choose another --out, or use --force to replace it"
    )


class _Production:
    """Makes some shards: workers put images in place, this process finishes each shard in turn.

    Several shards may be open at once: workers begin the next one before this one is finished.
    """

    def __init__(
        self, plans: list[Plan], cipher: Cipher, strict: bool, result: Result, advance: Advance
    ):
        self.plans, self.cipher, self.strict = plans, cipher, strict
        self.result, self.advance = result, advance
        self.writers: dict[int, ShardWriter] = {}  # of the shards that are open

    def run(self, workers: int | None) -> None:
        try:
            with Workers(workers, self.cipher) as pool:
                for task, outcomes in pool.map_ordered(_prepare_and_encrypt, self._tasks()):
                    self._write(task, outcomes)
                    self.advance(len(task.items))
                    if task.start + len(task.items) == len(self.plans[task.shard].items):
                        self._finish(self.writers.pop(task.shard))
        finally:
            for writer in self.writers.values():
                writer.abandon()

    def _tasks(self) -> Iterator[_Task]:
        for number, plan in enumerate(self.plans):
            writer = self.writers[number] = self._open(plan)
            for start in range(0, len(plan.items), TASK_IMAGES):
                items = plan.items[start : start + TASK_IMAGES]
                yield _Task(number, start, writer.region, plan.preparation, items)

    def _open(self, plan: Plan) -> ShardWriter:
        names, masks = [item.name for item in plan.items], plan.preparation.classes is not None
        return ShardWriter(
            plan.path, plan.header, names, plan.preparation.size, self.cipher.dtype, masks
        )

    def _write(self, task: _Task, outcomes: list[Encrypted | Problem]) -> None:
        for position, outcome in enumerate(outcomes, task.start):
            if isinstance(outcome, Encrypted):
                writer = self.writers[task.shard]
                writer.write(position, outcome.original_size, outcome.rows)
                writer.scaled_images += "scaled" in outcome.peculiar
                header, name = self.plans[task.shard].header, task.items[position - task.start].name
                self.result.see(header.split, name, outcome, header.ignore_index)
            elif self.strict:
                raise SegkeyError(
                    f"{outcome.name}: {outcome.why}", "mend it, or leave out --strict"
                )
            else:
                self.result.problems.append(outcome)

    def _finish(self, writer: ShardWriter) -> None:
        images = writer.finish()
        if images:
            self.result.written.add(writer.path)
            self.result.count(writer.header.split, images)
        elif "-of-" in writer.path.name:  # without it, the split would never be complete
            raise SegkeyError(
                f"{writer.path}: none of its {len(writer.names)} images can be used",
                "remove or mend them",
            )


def _prepare_and_encrypt(task: _Task) -> list[Encrypted | Problem]:
    """In a worker: what became of each image of a task."""
    cipher, outcomes = state(), []
    for position, item in enumerate(task.items, task.start):
        try:
            loaded = task.preparation.load_and_look(item)
        except SegkeyError as error:
            outcomes.append(Problem(item.name, error.what))
            continue
        rows = {"images": task.region.put(position, cipher.encrypt(np.stack(loaded.images)))}
        if loaded.masks:
            rows["masks"] = [Packed.mask(mask) for mask in loaded.masks]
        outcomes.append(Encrypted(loaded.original_size, rows, loaded.counts, loaded.peculiar))
    return outcomes
