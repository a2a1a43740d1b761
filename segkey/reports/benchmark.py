"""The benchmark: each stage beside its limit, and beside what a user would do instead.

Every ratio is taken within one run, as absolute times on shared machines mean little; each time is
the best of several. The limits: copying the same bytes (``numpy.copyto``), decoding and resizing
alone, reading the same bytes with ``numpy.fromfile``; on a GPU, those of
`segkey.reports.benchmark_gpu`; on the CPU, also bare forward passes and a bare training loop, see
`segkey.reports.benchmark_cpu`. What the figures should be is no part of it: see
``examples/bench_goals.py``.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segkey.crypto import PROTECTED, ciphers
from segkey.crypto.ciphers import Cipher
from segkey.data import scenes, sources
from segkey.data.items import Item, Source
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.reports.benchmark_rows import KEY, Row, best_time
from segkey.reports.benchmark_transforms import transforms_on_the_cpu
from segkey.shards import Header, Packed, ShardWriter, encryption, open_splits
from segkey.system.progress import SILENT, Progress
from segkey.system.workers import Workers, cores


def run(images: Path | None = None, device: str = "auto", progress: Progress = SILENT) -> list[Row]:
    """Measure every stage.

    Args:
        images: a folder of real images for `encrypt`; JPEGs of the built-in scenes, if not given.
        device: for the stages on the GPU.
        progress: hears which stage is under way.

    Returns:
        The rows of the table; a stage that cannot be measured here has no rate and says why.
    """
    from segkey.reports import benchmark_cpu  # it imports torch

    with tempfile.TemporaryDirectory(prefix="segkey-bench-") as name:
        folder = Path(name)
        stages = {
            "transforms": lambda: transforms_on_the_cpu(),
            "start": lambda: start(),
            "encrypt": lambda: encrypt(folder, images),
            "shards to batches": lambda: reading(folder),
            "memory of encrypt": lambda: memory(folder),
            "photographs, CPU": lambda: benchmark_cpu.photographs(folder),
            "wrong keys, CPU": lambda: benchmark_cpu.wrong_keys(folder),
            "training, CPU": lambda: benchmark_cpu.training(folder),
            "GPU": lambda: on_the_gpu(device),
        }
        rows = []
        with progress.task("bench", len(stages), "stages") as advance:
            for stage, measure in stages.items():
                try:
                    rows += measure()
                except (SegkeyError, OSError) as error:
                    why = str(error).splitlines()[0]
                    rows.append(Row(stage, None, "", note=f"left out: {why}"))
                advance(1)
        return rows


class _Clock(Progress):
    """Notes when how many images were done, so that starting processes does not count."""

    def __init__(self):
        self.times: list[tuple[float, int]] = []

    def task(self, description, total, unit="images"):
        return contextlib.nullcontext(self.advance)

    def advance(self, count: int) -> None:
        self.times.append((time.perf_counter(), count))

    def rate(self) -> float:
        """Images per second, from the time when a fifth was done to the end."""
        counted = self.times[len(self.times) // 5 :]
        return sum(count for _, count in counted[1:]) / (counted[-1][0] - counted[0][0])


@dataclass(frozen=True)
class _Photographs:
    """Some images for a worker."""

    items: list[Item]
    preparation: Preparation


def _decode_and_resize(task: _Photographs) -> None:
    """The limit of encrypt: what must be done to the images anyway."""
    for item in task.items:
        task.preparation.load(item)


def _photographs(folder: Path, images: Path | None, count: int) -> list[Item]:
    """``count`` images: those of a folder, or drawn ones, again and again under other names."""
    if images:
        splits = sources.find(images).splits
        files = [item.image for items in splits.values() for item in items][:200]
    else:
        from PIL import Image

        (folder / "photos").mkdir()
        files = [folder / "photos" / f"{number}.jpg" for number in range(12)]
        for number, file in enumerate(files):
            Image.fromarray(scenes.draw(0, number, 480)[0][:360]).save(file, quality=92)
    return [Item(f"{number:06d}", files[number % len(files)], None) for number in range(count)]


def encrypt(folder: Path, images: Path | None, count: int = 480) -> Iterator[Row]:
    """Images per second with all cores, beside decoding and resizing alone with the same workers.

    The two are measured in turn, as the machine may drift.
    """
    items = _photographs(folder, images, count)
    for method in PROTECTED:
        cipher, alone, rates = ciphers.from_key(method, KEY, 4), [], []
        for number in range(2):
            alone.append(_rate_of_decoding(items))
            rates.append(_rate_of_encrypting(items, cipher, folder / f"encrypt-{method}-{number}"))
        note = f"{cores()} processes; limit: decode and resize alone"
        stage = f"segkey encrypt, {method} M=4, end to end"
        yield Row(stage, max(rates), "images/s", max(alone), note=note)


def _rate_of_decoding(items: list[Item]) -> float:
    clock, preparation = _Clock(), Preparation((256, 256))
    tasks = (_Photographs(items[n : n + 8], preparation) for n in range(0, len(items), 8))
    with Workers(None) as pool:
        for task, _ in pool.map_ordered(_decode_and_resize, tasks):
            clock.advance(len(task.items))
    return clock.rate()


def _rate_of_encrypting(items: list[Item], cipher: Cipher, out: Path) -> float:
    clock, source = _Clock(), Source(out.parent, "photographs", {"all": items})
    plans = encryption.plan_shards(source, out, cipher)
    encryption.encrypt(plans, cipher, progress=clock)
    for file in out.glob("*.h5"):
        file.unlink()
    return clock.rate()


def reading(folder: Path, count: int = 1024) -> Iterator[Row]:
    """Shards to batches, beside ``numpy.fromfile`` of the same bytes, both from the page cache."""
    file = _random_shard(folder / "read", count)
    batches, bytes_of_image = np.arange(count).reshape(-1, 64), 3 * 256 * 256
    gigabytes = count * bytes_of_image / 1e9

    def read_raw() -> None:
        for batch in batches:
            np.fromfile(file, np.uint8, 64 * bytes_of_image, offset=int(batch[0]) * bytes_of_image)

    limit = gigabytes / best_time(read_raw)
    shuffled = np.random.default_rng(0).permutation(count).reshape(-1, 64)
    for label, order in (("in order", batches), ("shuffled", shuffled)):
        split = open_splits([file.parent])["all"]
        read = partial(_read_batches, split, order)
        began = time.perf_counter()
        read()
        first = gigabytes / (time.perf_counter() - began)
        note = f"the first time, with every checksum: {first:.1f} GB/s"
        yield Row(
            f"shards to batches, {label}", gigabytes / best_time(read), "GB/s", limit, note=note
        )
        split.close()


def _random_shard(folder: Path, count: int) -> Path:
    """A shard of one random 256x256 image, again and again."""
    folder.mkdir()
    image = Packed.image(np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8))
    header, names = Header("all", "none", 1, 3, 255), [str(number) for number in range(count)]
    writer = ShardWriter(folder / "all.h5", header, names, (256, 256), "uint8", False)
    for position in range(count):
        writer.write(position, (256, 256), {"images": [image]})
    writer.finish()
    return folder / "all.h5"


def _read_batches(split, order: np.ndarray) -> None:
    for batch in order:
        split.read_batch("images", batch)


# A small process between this one and the measured one: Linux counts the memory of the process that
# forks as its child's.
_MEASURE = """
import os, resource, subprocess, sys
process = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
sys.stderr.write(process.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(process.returncode)
"""


def _peak_memory(arguments: list[str]) -> float:
    """Peak resident memory in MB of the largest of a process and its children."""
    command = [sys.executable, "-c", _MEASURE, *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise SegkeyError(process.stderr.splitlines()[-1] if process.stderr else "a process failed")
    return int(process.stdout) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def memory(folder: Path) -> Iterator[Row]:
    """Peak memory of ``segkey encrypt`` (largest process): 10,000 small images beside 1,000."""
    if os.name != "posix":
        raise SegkeyError("this system does not tell the memory of a process")
    KEY.save(folder / "bench.key")
    few, many = (_peak_of_encrypt(folder, count) for count in (1000, 10_000))
    note = f"1,000 images: {few:.0f} MB, 10,000: {many:.0f} MB"
    stage = "memory of encrypt, 10,000 images beside 1,000"
    yield Row(stage, many, "MB", few, note=note, lower_is_better=True)


def _peak_of_encrypt(folder: Path, count: int) -> float:
    """Peak memory in MB of encrypting ``count`` images of 32x32; most are links to the first 20."""
    from PIL import Image

    place = folder / f"{count}"
    place.mkdir()
    for number in range(count):
        file = place / f"{number:05d}.jpg"
        if number < 20:
            Image.fromarray(scenes.draw(0, number, 32)[0]).save(file)
        else:
            os.link(place / f"{number % 20:05d}.jpg", file)
    command = [sys.executable, "-m", "segkey", "encrypt", str(place), "--size", "32"]
    command += ["--key", str(folder / "bench.key"), "--out", str(folder / f"{count}.shards")]
    return _peak_memory(command)


def start() -> Iterator[Row]:
    """Wall time of ``segkey --help`` beside ``python -c pass``."""
    python, segkey = (
        best_time(
            partial(subprocess.run, [sys.executable, *words], check=True, capture_output=True), 0.5
        )
        for words in (["-c", "pass"], ["-m", "segkey", "--help"])
    )
    note = f"python -c pass takes {python:.2f} s"
    yield Row("segkey --help", segkey, "s", note=note, lower_is_better=True)


def on_the_gpu(device: str) -> Iterator[Row]:
    """Transforms, a training step and an attack on the device, if it is a GPU."""
    from segkey.system import devices

    where = devices.choose(device)
    if where.type != "cuda":
        for stage in ("transforms, GPU", "training step, GPU", "attack, GPU"):
            yield Row(stage, None, "", note="no GPU here")
        return
    from segkey.reports import benchmark_gpu

    yield from benchmark_gpu.transforms(where)
    yield from benchmark_gpu.network(where)
