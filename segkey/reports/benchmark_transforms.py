"""The stage of `segkey.reports.benchmark` that encrypts and decrypts in one thread of the CPU."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from segkey.crypto import PROTECTED, ciphers
from segkey.reports.benchmark_rows import BLOCK_SIZES, KEY, Row, best_time


def transforms_on_the_cpu() -> Iterator[Row]:
    """Encrypt and decrypt uint8 64×3×256×256 in one thread.

    Beside a copy of the same bytes, the usual way in float32, and one call of pyffx per value.
    """
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 256, 256), dtype=np.uint8)
    for method in PROTECTED:
        encrypting, decrypting, copying = _rates_of(method, images)
        for way, rates in (("encrypt", encrypting), ("decrypt", decrypting)):
            slowest = min(rates.values())
            note = ", ".join(f"M={m}: {rate:.2f}" for m, rate in rates.items())
            note += f"; slowest M {max(rates.values()) / slowest:.1f}x slower than the fastest"
            yield Row(f"{method} {way}, CPU, one thread", slowest, "GB/s", copying, note=note)
        stage = f"{method} encrypt, M=4, beside float32 torch"
        yield Row(stage, encrypting[4], "GB/s", alternative=_in_float32(method))
    stage = "ffx encrypt, M=4, beside a pyffx call a pixel"
    yield Row(stage, encrypting[4], "GB/s", alternative=_with_pyffx())


def _rates_of(method: str, images: np.ndarray) -> tuple[dict[int, float], dict[int, float], float]:
    """GB/s of encrypting and of decrypting, by block size, and of copying."""
    out, encrypting, decrypting, copying = np.empty_like(images), {}, {}, []

    def rate(function: Callable[[], object], seconds: float = 0.25) -> float:
        return images.nbytes / best_time(function, seconds) / 1e9

    for block_size in BLOCK_SIZES:
        cipher = ciphers.from_key(method, KEY, block_size)
        encrypted = cipher.encrypt(images)
        copying.append(rate(lambda: np.copyto(out, images), 0.1))  # the machine may drift
        encrypting[block_size] = rate(partial(cipher.encrypt, images))
        decrypting[block_size] = rate(partial(cipher.decrypt, encrypted))
    return encrypting, decrypting, float(np.median(copying))


def _in_float32(method: str, m: int = 4) -> float:
    """GB/s (of the uint8 images) of the usual way: float32 torch, segment, index, integrate."""
    import torch

    n, c, side = 8, 3, 256
    images, table = torch.rand(n, c, side, side), torch.rand(256)
    permutation = torch.from_numpy(KEY.permutation(method, m, c))
    chosen = permutation[: c * m * m // 2]

    def transform() -> torch.Tensor:
        grid = images.view(n, c, side // m, m, side // m, m).permute(0, 2, 4, 1, 3, 5)
        blocks = grid.reshape(n, -1, c * m * m)
        if method == "shf":
            blocks = blocks[:, :, permutation]
        elif method == "np":
            blocks[:, :, chosen] = 1 - blocks[:, :, chosen]
        else:
            blocks[:, :, chosen] = table[(blocks[:, :, chosen] * 255).long()]
        grid = blocks.view(n, side // m, side // m, c, m, m).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape(n, c, side, side)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return images.numel() / best_time(transform) / 1e9
    finally:
        torch.set_num_threads(threads)


def _with_pyffx() -> float:
    """GB/s of one call of pyffx per encrypted value: every second one, as FFX encrypts half."""
    import pyffx

    digits, values = pyffx.Integer(b"password", length=3), range(0, 256, 4)
    seconds = best_time(lambda: [digits.encrypt(value) for value in values])
    return 2 * len(values) / seconds / 1e9
