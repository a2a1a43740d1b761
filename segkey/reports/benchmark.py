"""What this machine does, each stage beside its limit and beside what a user would do instead.

Every ratio is taken within one run, as absolute times on shared machines mean little; each time is
the best of several. The limits: copying the same bytes (``numpy.copyto``, a device-to-device copy),
decoding and resizing alone, reading the same bytes with ``numpy.fromfile``, a bare forward pass, a
large bf16 matrix product.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher
from segkey.crypto.keys import Key
from segkey.data import scenes, sources
from segkey.data.items import Item, Source
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.shards import Header, Packed, ShardWriter, encryption, open_splits
from segkey.system.progress import SILENT, Progress
from segkey.system.workers import Workers, cores

BLOCK_SIZES = (2, 4, 16, 256)
_KEY = Key(bytes(32))  # any key will do: no time depends on it
_METHODS = ("np", "shf", "ffx")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: what was measured.
        rate, unit: how fast it went.
        limit: the same unit; what the machine allows, measured in the same run. None where there is
            none.
        goal: the ratio to the limit that is wanted; where there is none, the speed-up; where there
            is neither, the rate.
        alternative: the same unit; what a user would do instead. None where there is nothing.
        note: what else there is to say, such as what was left out.
        lower_is_better: for times and memory.
    """

    stage: str
    rate: float | None
    unit: str
    limit: float | None = None
    goal: float | None = None
    alternative: float | None = None
    note: str = ""
    lower_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """The rate as a part of the limit."""
        return self.rate / self.limit if self.rate and self.limit else None

    @property
    def speed_up(self) -> float | None:
        """How many times faster than the alternative."""
        return self.rate / self.alternative if self.rate and self.alternative else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none, or nothing was measured."""
        if self.goal is None or self.rate is None:
            return None
        value = self.ratio or self.speed_up or self.rate
        return value <= self.goal if self.lower_is_better else value >= self.goal

    def as_json(self) -> dict:
        """All of it."""
        return self.__dict__ | {"ratio": self.ratio, "speed_up": self.speed_up, "met": self.met}


def run(images: Path | None = None, device: str = "auto", progress: Progress = SILENT) -> list[Row]:
    """Measure every stage.

    Args:
        images: a folder of real images for `encrypt`; JPEGs of the built-in scenes, if not given.
        device: for the stages on the GPU.
        progress: hears which stage is under way.

    Returns:
        The rows of the table; a stage that cannot be measured here has no rate and says why.
    """
    with tempfile.TemporaryDirectory(prefix="segkey-bench-") as name:
        folder = Path(name)
        stages = [
            ("transforms", transforms_on_the_cpu),
            ("start", start),
            ("encrypt", lambda: encrypt(folder, images)),
            ("shards to batches", lambda: reading(folder)),
            ("memory of encrypt", lambda: memory(folder)),
            ("GPU", lambda: on_the_gpu(device)),
        ]
        rows = []
        with progress.task("bench", len(stages), "stages") as advance:
            for stage, measure in stages:
                try:
                    rows += measure()
                except (SegkeyError, OSError) as error:
                    rows.append(
                        Row(stage, None, "", note=f"left out: {str(error).splitlines()[0]}")
                    )
                advance(1)
        return rows


def best_time(function: Callable[[], object], seconds: float = 0.25) -> float:
    """The shortest of as many calls as fit into ``seconds``, at least three, after one that is not
    counted."""
    function()
    times, began = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def transforms_on_the_cpu() -> Iterator[Row]:
    """Encrypt and decrypt uint8 64×3×256×256 in one thread, beside a copy, the float32 way, and a
    pyffx call a pixel."""
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 256, 256), dtype=np.uint8)
    out = np.empty_like(images)
    goals = {"np": 0.8, "shf": 0.06, "ffx": 0.03}
    for method in _METHODS:
        rates: dict[str, dict[int, float]] = {"encrypt": {}, "decrypt": {}}
        copies = []
        for block_size in BLOCK_SIZES:
            cipher = ciphers.from_key(method, _KEY, block_size)
            encrypted = cipher.encrypt(images)
            copies.append(
                best_time(lambda: np.copyto(out, images), 0.1)
            )  # again each time: the machine may drift
            for way, call in (
                ("encrypt", lambda c=cipher: c.encrypt(images)),
                ("decrypt", lambda c=cipher, e=encrypted: c.decrypt(e)),
            ):
                rates[way][block_size] = images.nbytes / best_time(call) / 1e9
        copy = images.nbytes / float(np.median(copies)) / 1e9
        for way, by_size in rates.items():
            slowest, fastest = min(by_size.values()), max(by_size.values())
            note = ", ".join(f"M={m}: {rate:.2f}" for m, rate in by_size.items())
            note += (
                f"; slowest M {fastest / slowest:.1f}x slower than the fastest (goal: at most 2x)"
            )
            yield Row(
                f"{method} {way}, CPU, one thread", slowest, "GB/s", copy, goals[method], note=note
            )
        yield Row(
            f"{method} encrypt, M=4, beside float32 torch",
            rates["encrypt"][4],
            "GB/s",
            alternative=_float_way(method),
            goal={"np": 80, "shf": 10, "ffx": 8}[method],
        )
    yield _a_call_a_pixel(rates["encrypt"])


def _float_way(method: str, block_size: int = 4) -> float:
    """GB/s (of the uint8 images) of the usual implementation: float32 torch, segment, index,
    integrate."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        n, c, side, m = 8, 3, 256, block_size
        images = torch.rand(n, c, side, side)
        permutation = torch.from_numpy(_KEY.permutation(method, m, c))
        chosen = permutation[: c * m * m // 2]
        table = torch.rand(256)

        def transform() -> torch.Tensor:
            blocks = (
                images.view(n, c, side // m, m, side // m, m)
                .permute(0, 2, 4, 1, 3, 5)
                .reshape(n, -1, c * m * m)
            )
            if method == "shf":
                blocks = blocks[:, :, permutation]
            elif method == "np":
                blocks[:, :, chosen] = 1 - blocks[:, :, chosen]
            else:
                blocks[:, :, chosen] = table[(blocks[:, :, chosen] * 255).long()]
            return (
                blocks.view(n, side // m, side // m, c, m, m)
                .permute(0, 3, 1, 4, 2, 5)
                .reshape(n, c, side, side)
            )

        return images.numel() / best_time(transform) / 1e9
    finally:
        torch.set_num_threads(threads)


def _a_call_a_pixel(rates: dict[int, float]) -> Row:
    """FFX beside a call of pyffx for every value."""
    import pyffx

    digits = pyffx.Integer(b"password", length=3)
    seconds = best_time(lambda: [digits.encrypt(value) for value in range(0, 256, 4)])
    call = (
        2 * 64 / seconds / 1e9
    )  # a call for every second value: half of the positions are encrypted
    return Row(
        "ffx encrypt, M=4, beside a pyffx call a pixel",
        rates[4],
        "GB/s",
        alternative=call,
        goal=10_000,
    )


class _Clock(Progress):
    """Notes when how many images were done, so that starting processes does not count."""

    def __init__(self):
        self.times: list[tuple[float, int]] = []

    def task(self, description, total, unit="images"):
        from contextlib import nullcontext

        return nullcontext(self._advance)

    def _advance(self, count: int) -> None:
        self.times.append((time.perf_counter(), count))

    def rate(self) -> float:
        """Images a second, from when a fifth was done to the end."""
        skip = len(self.times) // 5
        counted = self.times[skip:]
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
        files = [item.image for items in sources.find(images).splits.values() for item in items][
            :200
        ]
    else:
        from PIL import Image

        (folder / "photos").mkdir()
        files = []
        for number in range(12):
            files.append(folder / "photos" / f"{number}.jpg")
            Image.fromarray(scenes.draw(0, number, 480)[0][:360]).save(files[-1], quality=92)
    return [Item(f"{number:06d}", files[number % len(files)], None) for number in range(count)]


def encrypt(folder: Path, images: Path | None, count: int = 480) -> Iterator[Row]:
    """Images a second with all cores, beside decoding and resizing alone with the same workers."""
    items = _photographs(folder, images, count)
    preparation = Preparation((256, 256))

    def limit() -> float:
        clock = _Clock()
        tasks = (_Photographs(items[n : n + 8], preparation) for n in range(0, count, 8))
        with Workers(None) as pool:
            for task, _ in pool.map_ordered(_decode_and_resize, tasks):
                clock._advance(len(task.items))
        return clock.rate()

    def measured(cipher: Cipher, number: int) -> float:
        clock, out = _Clock(), folder / f"encrypt-{cipher.method}-{number}"
        source = Source(folder, "photographs", {"all": items})
        encryption.encrypt(encryption.plan_shards(source, out, cipher), cipher, progress=clock)
        for file in out.glob("*.h5"):
            file.unlink()
        return clock.rate()

    for method, goal in (("np", 0.9), ("shf", 0.9), ("ffx", 0.85)):
        cipher = ciphers.from_key(method, _KEY, 4)
        pairs = [
            (limit(), measured(cipher, number)) for number in range(2)
        ]  # in turn, as the machine may drift
        alone, rate = max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
        note = f"{cores()} processes; limit: decode and resize alone"
        yield Row(
            f"segkey encrypt, {method} M=4, end to end", rate, "images/s", alone, goal, note=note
        )


def reading(folder: Path, count: int = 1024) -> Iterator[Row]:
    """Shards to batches, beside ``numpy.fromfile`` of the same bytes, both from the page cache."""
    (folder / "read").mkdir()
    image = Packed.image(np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8))
    names = [str(number) for number in range(count)]
    writer = ShardWriter(
        folder / "read/all.h5", Header("all", "none", 1, 3, 255), names, (256, 256), "uint8", False
    )
    for position in range(count):
        writer.write(position, (256, 256), {"images": [image]})
    writer.finish()
    size = count * 3 * 256 * 256
    limit = (
        size
        / best_time(
            lambda: [
                np.fromfile(folder / "read/all.h5", np.uint8, 64 * 196608, offset=o * 196608)
                for o in range(0, count, 64)
            ]
        )
        / 1e9
    )
    batches = [np.arange(start, start + 64) for start in range(0, count, 64)]
    for label, order in (
        ("in order", batches),
        ("shuffled", np.random.default_rng(0).permutation(count).reshape(-1, 64)),
    ):
        split = open_splits([folder / "read"])["all"]
        began = time.perf_counter()
        for batch in order:
            split.read_batch("images", batch)
        first = size / (time.perf_counter() - began) / 1e9
        rate = (
            size
            / best_time(lambda s=split, o=order: [s.read_batch("images", batch) for batch in o])
            / 1e9
        )
        note = f"the first time, with every checksum: {first:.1f} GB/s"
        yield Row(f"shards to batches, {label}", rate, "GB/s", limit, 0.7, note=note)
        split.close()


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
    process = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], capture_output=True, text=True
    )
    if process.returncode:
        raise SegkeyError(process.stderr.splitlines()[-1] if process.stderr else "a process failed")
    return int(process.stdout) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def memory(folder: Path) -> Iterator[Row]:
    """Peak memory of ``segkey encrypt`` (the largest of its processes) for 1,000 and 10,000 small
    images."""
    if os.name != "posix":
        raise SegkeyError("this system does not tell the memory of a process")
    from PIL import Image

    few, many = folder / "few", folder / "many"
    for place, count in ((few, 1000), (many, 10000)):
        place.mkdir()
        for number in range(count):
            if number < 20:
                Image.fromarray(scenes.draw(0, number, 32)[0]).save(place / f"{number:05d}.jpg")
            else:
                os.link(place / f"{number % 20:05d}.jpg", place / f"{number:05d}.jpg")
    _KEY.save(folder / "bench.key")
    command = [
        sys.executable,
        "-m",
        "segkey",
        "encrypt",
        "--key",
        str(folder / "bench.key"),
        "--size",
        "32",
    ]
    peaks = [
        _peak_memory([*command, str(place), "--out", str(place.with_suffix(".shards"))])
        for place in (few, many)
    ]
    note = f"1,000 images: {peaks[0]:.0f} MB, 10,000: {peaks[1]:.0f} MB; goal: within 10 %, under 600 MB"
    yield Row(
        "memory of encrypt, 10,000 images beside 1,000",
        peaks[1],
        "MB",
        peaks[0],
        1.1,
        note=note,
        lower_is_better=True,
    )


def start() -> Iterator[Row]:
    """Wall time of ``segkey --help`` beside ``python -c pass``."""
    times = []
    for arguments in (["-c", "pass"], ["-m", "segkey", "--help"]):
        command = [sys.executable, *arguments]
        times.append(
            best_time(lambda c=command: subprocess.run(c, check=True, capture_output=True), 0.5)
        )
    note = f"python -c pass takes {times[0]:.2f} s; goal: under 0.4 s"
    yield Row("segkey --help", times[1], "s", goal=0.4, note=note, lower_is_better=True)


def on_the_gpu(device: str) -> Iterator[Row]:
    """Transforms, a training step and an attack on the device, where there is one."""
    import torch

    from segkey.system import devices

    where = devices.choose(device)
    if where.type != "cuda":
        for stage in ("transforms, GPU", "training step, GPU", "attack, GPU"):
            yield Row(stage, None, "", note="no GPU here")
        return

    def seconds(function: Callable[[], object]) -> float:
        def synchronised() -> None:
            function()
            torch.cuda.synchronize(where)

        return best_time(synchronised, 0.5)

    images = torch.randint(0, 256, (256, 3, 256, 256), dtype=torch.uint8, device=where)
    target = torch.empty_like(images)
    copy = images.numel() / seconds(lambda: target.copy_(images)) / 1e9
    for method, goal in (("np", 0.8), ("shf", 0.5), ("ffx", 0.5)):
        by_size = {}
        for block_size in BLOCK_SIZES:
            cipher = ciphers.from_key(method, _KEY, block_size)
            by_size[block_size] = images.numel() / seconds(lambda c=cipher: c.encrypt(images)) / 1e9
        note = ", ".join(f"M={m}: {rate:.0f}" for m, rate in by_size.items())
        yield Row(f"{method} encrypt, GPU", min(by_size.values()), "GB/s", copy, goal, note=note)
    yield from _network_on_the_gpu(where, seconds)


def _network_on_the_gpu(where, seconds: Callable[[Callable[[], object]], float]) -> Iterator[Row]:
    """Training step against a bf16 matrix product, encryption's part of it, and an attack against
    the forward pass."""
    import torch
    import torch.nn.functional as F
    from torch.utils.flop_counter import FlopCounterMode

    from segkey.data.augment import random_crops
    from segkey.model import evaluation, recipes
    from segkey.model.batches import as_pixels, crop_batch
    from segkey.model.networks import Segmenter
    from segkey.system import devices
    from segkey.system.seeds import seeded

    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=where) for _ in range(2))
    product = 2 * 8192**3 / seconds(lambda: a @ b) / 1e12
    n = 128
    images = torch.randint(0, 256, (n, 3, 256, 256), dtype=torch.uint8, device=where)
    masks = torch.randint(0, 21, (n, 256, 256), dtype=torch.uint8, device=where)
    cipher = ciphers.from_key("ffx", _KEY, 4)
    model = Segmenter("resnet50", 21).to(where, memory_format=torch.channels_last)
    optimizer = recipes.recipe("paper").build_optimizer(model)
    crops = torch.from_numpy(random_crops(seeded("bench"), np.full((n, 2), 256), (0.25, 1.0)))

    def step(on_the_fly: bool, network: torch.nn.Module = model) -> None:
        pixels, target = (crop_batch(images, masks, crops)) if on_the_fly else (images, masks)
        pixels = cipher.encrypt(pixels) if on_the_fly else pixels
        with devices.mixed_precision(where):
            loss = F.cross_entropy(network(as_pixels(pixels, 255)).float(), target.long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step(False)
    plain, fly = seconds(lambda: step(False)), seconds(lambda: step(True))
    achieved = counter.get_total_flops() / plain / 1e12
    note = f"{n / plain:.0f} images/s; augmentation and encryption on the fly cost {100 * (fly / plain - 1):.1f} % (goal 2 %)"
    yield Row("training step, FCN-ResNet-50, GPU", achieved, "TFLOP/s", product, 0.45, note=note)

    yield _compiled_step(lambda network: step(False, network), model, seconds, n / plain, n)

    model.eval()
    with torch.inference_mode(), devices.mixed_precision(where):
        forward = n / seconds(lambda: model(as_pixels(images, 255)))

        def attack() -> None:
            predicted = model(as_pixels(cipher.encrypt(images), cipher.max_value)).argmax(1)
            evaluation.confusion_matrix(masks, predicted, 21, 255)

        rate = n / seconds(attack)
    yield Row("attack, GPU", rate, "images/s", forward, 0.95, note="limit: the bare forward pass")


def _compiled_step(step: Callable, model, seconds: Callable, eager: float, n: int) -> Row:
    """The training step with ``torch.compile``, beside the step without, and when it has earned its
    time back."""
    import torch

    stage, network = "training step, compiled, GPU", torch.compile(model)
    began = time.perf_counter()
    try:
        step(network)
    except Exception as error:  # it needs a compiler, and says so in many ways
        return Row(
            stage, None, "", note=f"torch.compile does not work here ({type(error).__name__})"
        )
    spent, rate = time.perf_counter() - began, n / seconds(lambda: step(network))
    earned = (
        f"earned back after {spent / (1 / eager - 1 / rate):,.0f} images"
        if rate > eager
        else "never earned back"
    )
    return Row(
        stage,
        rate,
        "images/s",
        eager,
        note=f"limit: the step as it is; compiling took {spent:.0f} s, {earned}",
    )


def unmet(rows: list[Row]) -> list[Row]:
    """The rows whose goal is missed."""
    return [row for row in rows if row.met is False]
