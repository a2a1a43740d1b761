"""Encrypt a folder of images in one call, as ``segkey encrypt`` does."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.data import sources
from segkey.data.masks import count_classes
from segkey.errors import SegkeyWarning
from segkey.shards import encryption
from segkey.shards.dataset import ShardDataset, open_shards
from segkey.system.progress import SILENT, Progress


def encrypt_folder(
    images: str | Path,
    out: str | Path = "shards",
    key: Key | None = None,
    method: str = "np",
    block_size: int = 4,
    size: int | tuple[int, int] = 256,
    *,
    masks: str | Path | None = None,
    classes: Sequence[str] | None = None,
    views: int | None = None,
    password: bytes | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, ShardDataset]:
    """Encrypt images and their masks into shards, and open them.

    Args:
        images: a VOC devkit, a folder with images/ and masks/, or any folder of images.
        out: the folder of the shards; those that are finished there are kept.
        key: the key; None only for method ``none``.
        method, block_size, password: as for `segkey.ciphers.from_key`.
        size: (H, W) that images are resized to, or the side of a square.
        masks: the folder of masks; found beside or inside ``images`` by itself.
        classes: names; those of classes.txt, or numbers, by default.
        views: augmented copies of each training image; 4 by default if encrypted with masks.
        workers: processes; one per core by default.
        progress: hears of every image.

    Returns:
        Datasets by split; `segkey.shards.dataset.ShardDataset`.

    Raises:
        SegkeyError: no images, a block size that does not fit, other shards in ``out``. Images that
            cannot be used are left out with a `SegkeyWarning` that counts them.
    """
    cipher = ciphers.from_key(method, key, block_size, password=password)
    source = sources.find(Path(images), None if masks is None else Path(masks))
    if classes is not None:
        source.classes = list(classes)
    elif source.has_masks and source.classes is None:
        count = count_classes(source, workers, progress)
        source.classes = [f"class {number}" for number in range(count)]
    height_width = (size, size) if isinstance(size, int) else size
    plans = encryption.plan_shards(source, Path(out), cipher, height_width, views)
    result = encryption.encrypt(plans, cipher, workers, progress=progress)
    if problems := source.problems + result.problems:
        first = problems[0]
        warnings.warn(
            f"{len(problems)} files were left out, such as {first.name}: {first.why}",
            SegkeyWarning,
            stacklevel=2,
        )
    return open_shards(out)
