"""Encrypt a folder of images in one call, as ``segkey encrypt`` does."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.data.intake import take_in
from segkey.data.items import Finding, Problem, Severity
from segkey.data.user_choices import Choices
from segkey.errors import SegkeyWarning
from segkey.shards import encryption
from segkey.shards.dataset import ShardDataset, open_shards
from segkey.system.progress import SILENT, Progress
from segkey.system.wording import counted


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
    ignore_index: int | None = None,
    channels: int = 3,
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
        ignore_index: the mask value that means void; 255 by default.
        channels: 3 for RGB, 1 for grey, 4 for files of four bands.
        views: augmented copies of each training image; 4 by default if encrypted with masks.
        workers: processes; one per core by default.

    Returns:
        Datasets by split; `segkey.shards.dataset.ShardDataset`.

    Raises:
        SegkeyError: no images, masks that are not taken in as they are (`segkey.data.mask_rules`),
            a block size that does not fit, other shards in ``out``. What is odd about the data is a
            `SegkeyWarning`; so is the number of images that cannot be used.
    """
    cipher = ciphers.from_key(method, key, block_size, channels, password)
    void = None if ignore_index is None else frozenset({ignore_index})
    choices = Choices(ignore=void)
    taken = take_in(Path(images), masks, choices, names=classes, workers=workers, progress=progress)
    taken.require()
    source = taken.source
    if classes is not None:
        source.classes = list(classes)
    height_width = (size, size) if isinstance(size, int) else size
    plans = encryption.plan_shards(source, Path(out), cipher, height_width, views)
    result = encryption.encrypt(plans, cipher, workers, progress=progress)
    _warn(source.problems + result.problems, taken.findings + list(result.findings(source)))
    return open_shards(out)


def _warn(problems: list[Problem], findings: list[Finding]) -> None:
    """Say what was left out of the caller's folder, and what is odd about it."""
    if problems:
        first = problems[0]
        files = counted(len(problems), "file was", "files were")
        said = [f"{files} left out, such as {first.name}: {first.why}"]
    else:
        said = []
    for finding in findings:
        if finding.severity > Severity.NOTE and not finding.named_later:
            said.append(f"{finding.text}; {finding.cure}" if finding.cure else finding.text)
    for text in said:
        warnings.warn(text, SegkeyWarning, stacklevel=3)
