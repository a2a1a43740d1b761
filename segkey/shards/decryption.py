"""Shards back to images: the cipher for a header, and the PNG files."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.shards import Split
from segkey.system.files import make_folder, written_whole
from segkey.system.names import clean_name, free_path
from segkey.system.progress import SILENT, Progress


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
    if out.exists() and not out.is_dir():
        raise SegkeyError(f"{out} is a file", "choose another --out")
    if not force and out.exists() and any(out.iterdir()):
        raise SegkeyError(
            f"{out} already exists and is not empty", "choose another --out, or use --force"
        )
    make_folder(out)
    jobs = []
    taken: set[Path] = set()
    for name, split in splits.items():
        for index, image in enumerate(split.names):
            for view in range(split.header.views):
                suffix = f".view{view}" if split.header.views > 1 else ""
                path = free_path(
                    out / clean_name(name), image.removeprefix(f"{name}/"), f"{suffix}.png", taken
                )
                jobs.append((split, index, view, path))

    def write(job: tuple) -> None:
        split, index, view, path = job
        pixels = cipher.decrypt(split.read("images", index, view)[None])[0]
        make_folder(path.parent, below=out)
        with written_whole(path) as file:
            picture = (
                np.ascontiguousarray(pixels.transpose(1, 2, 0)) if len(pixels) == 3 else pixels[0]
            )
            Image.fromarray(picture).save(file, format="PNG")

    with (
        progress.task("decrypt", len(jobs)) as advance,
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
    ):
        for _ in pool.map(write, jobs):
            advance(1)
    return len(jobs)
