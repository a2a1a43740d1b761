"""Decrypt shards back to images, as PNG files."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segkey.crypto.ciphers import Cipher
from segkey.shards import Split
from segkey.system.file_names import clean_name, free_path
from segkey.system.files import make_folder, require_empty, written_whole
from segkey.system.progress import SILENT, Progress


@dataclass(frozen=True)
class _View:
    """One view of an image, and the file it becomes."""

    split: Split
    image: int
    view: int
    path: Path


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
        splits: from `segkey.shards.open_splits`.
        cipher: what they were encrypted with, from `segkey.shards.unlock.cipher_for`.
        out: the folder; names from a shard never lead out of it.
        force: write into a folder that is not empty, replacing files.
        workers: threads.

    Returns:
        How many images were written (an image of V views counts V).

    Raises:
        SegkeyError: ``out`` is a file or not empty, a row is damaged, or the disk is full.
    """
    require_empty(out, force)
    make_folder(out)
    views = list(_views(splits, out))
    with (
        progress.task("decrypt", len(views)) as advance,
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
    ):
        for _ in pool.map(lambda view: _write(view, cipher, out), views):
            advance(1)
    return len(views)


def _views(splits: dict[str, Split], out: Path) -> Iterator[_View]:
    taken: set[Path] = set()
    for name, split in splits.items():
        for number, image in enumerate(split.names):
            for view in range(split.header.views):
                ending = f".view{view}.png" if split.header.views > 1 else ".png"
                folder = out / clean_name(name)
                path = free_path(folder, image.removeprefix(f"{name}/"), ending, taken)
                yield _View(split, number, view, path)


def _write(view: _View, cipher: Cipher, out: Path) -> None:
    pixels = cipher.decrypt(view.split.read("images", view.image, view.view)[None])[0]
    grey = len(pixels) != 3
    picture = pixels[0] if grey else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    make_folder(view.path.parent, below=out)
    with written_whole(view.path) as file:
        Image.fromarray(picture).save(file, format="PNG")
