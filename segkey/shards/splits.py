"""Splits: one or more shards as one sequence of images."""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from segkey.errors import SegkeyError
from segkey.shards.header import sha256
from segkey.shards.index import Entry, entry_of, index_path, read_index
from segkey.shards.reader import Shard
from segkey.system.files import is_there
from segkey.system.wording import counted

_NAME = re.compile(r"(?P<split>.+?)(?:-(?P<index>\d{5})-of-(?P<count>\d{5}))?\.h5")

_OPEN = 32  # shards; each takes two file handles, and its tables of names and checksums


class Shards:
    """Shards by number, opened when they are read, few at a time; thread-safe.

    Args:
        paths: in order.
        split: what each must say it is; whatever it says, if not given.
        index: from `segkey.shards.index.read_index`; without it, every shard is opened once, to
            learn what it holds.

    Raises:
        SegkeyError: the shards differ in key, method, size, classes or number of views, or are not
            those of the index.
    """

    def __init__(
        self, paths: list[Path], split: str | None = None, index: list[Entry] | None = None
    ):
        self.paths, self.split = paths, split
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self.entries = index or []
        self.first = self._checked(0)
        for number in range(len(self.entries), len(paths)):
            self.entries.append(entry_of(self[number]))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Shard:
        with self._lock:
            shard = self._open.pop(number, None) or self._checked(number)
            self._open[number] = shard
            if len(self._open) > _OPEN:
                self._open.popitem(
                    last=False
                )  # closes itself when no other thread reads it any more
            return shard

    def __iter__(self) -> Iterator[Shard]:
        return (self[number] for number in range(len(self)))

    def _checked(self, number: int) -> Shard:
        shard = Shard(self.paths[number])
        if number:
            check_alike(self.first, shard)
            self.check_name(shard)
        if number < len(self.entries) and self.entries[number] != entry_of(shard):
            file = index_path(self.paths, self.split)
            raise SegkeyError(
                f"{shard.path} is not the shard that {file.name} names",
                f"remove {file}: it is made anew",
            )
        return shard

    def check_name(self, shard: Shard) -> None:
        """Raise `SegkeyError` unless a shard says that it is of this split."""
        if self.split is not None and shard.header.split != self.split:
            raise SegkeyError(
                f"{shard.path} holds split '{shard.header.split}', its name says '{self.split}'",
                "give it its old name back",
            )

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for shard in (self.first, *self._open.values()):
                shard.close()
            self._open.clear()


class Split:
    """One split, which may lie in many shards, as one sequence of images.

    Args:
        shards: in order.

    Attributes:
        origin: where it came from and who named it, as
            `segkey.model.evaluation_splits.open_test_split` found out.
    """

    def __init__(self, shards: Shards):
        self.shards, first = shards, shards.first
        self.origin: dict = {}
        self.header, self.size, self.dtype = first.header, first.size, first.dtype
        self.has_masks = first.has_masks
        self._ends = np.cumsum([entry.images for entry in shards.entries])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def names(self) -> list[str]:
        """Paths of all images, relative to the source."""
        return [name for shard in self.shards for name in shard.names]

    @property
    def fingerprint(self) -> str:
        """Fingerprint (hex) of everything in its shards."""
        return sha256("".join(entry.fingerprint for entry in self.shards.entries).encode())

    @property
    def labels_fingerprint(self) -> str:
        """Fingerprint (hex) of all names and masks, independent of encryption and sharding."""
        shards = list(self.shards)
        return labels_fingerprint(
            [name for shard in shards for name in shard.names],
            [sums for shard in shards for sums in shard.mask_checksums],
        )

    @property
    def row_bytes(self) -> int:
        """What an image with its mask takes in memory."""
        pixels = self.size[0] * self.size[1]
        return pixels * (self.header.channels * np.dtype(self.dtype).itemsize + self.has_masks)

    def read(self, kind: str, index: int, view: int = 0) -> np.ndarray:
        """View ``view`` of image ``index``, or of its mask."""
        return self.read_batch(kind, np.array([index]), view)[0]

    def read_batch(self, kind: str, indices: np.ndarray, view: int = 0) -> np.ndarray:
        """View ``view`` of images, (n, C, H, W), or of masks, (n, H, W), in the given order."""
        numbers = np.searchsorted(self._ends, indices, side="right")
        shape = (self.header.channels, *self.size) if kind == "images" else self.size
        out = np.empty((len(indices), *shape), self.dtype if kind == "images" else np.uint8)
        if not len(indices):
            return out
        breaks = np.flatnonzero(np.diff(numbers)) + 1
        for start, end in zip([0, *breaks], [*breaks, len(indices)], strict=True):
            shard, number = self.shards[int(numbers[start])], int(numbers[start])
            first = int(self._ends[number - 1]) if number else 0
            shard.read_rows(kind, view * shard.images + indices[start:end] - first, out[start:end])
        return out

    def close(self) -> None:
        """Close all files."""
        self.shards.close()


def labels_fingerprint(names: list[str], mask_checksums: Iterable[int]) -> str:
    """Fingerprint (hex) of all names and masks, however images are encrypted or cut into shards."""
    return sha256(
        json.dumps([names, [int(each) for each in mask_checksums]], allow_nan=False).encode()
    )


def check_alike(a: Shard, b: Shard) -> None:
    """Raise `SegkeyError` unless two shards can be used together."""
    different = a.header.same_data(b.header)
    if (a.size, a.dtype, a.has_masks) != (b.size, b.dtype, b.has_masks):
        different.append("size" if a.size != b.size else "masks")
    if a.header.split == b.header.split and a.header.views != b.header.views:
        different.append("views")
    if different:
        words = {"key_id": "key", "block_size": "block size", "password_hash": "FFX password"}
        what = " and ".join(words.get(name, name) for name in different)
        raise SegkeyError(
            f"{a.path} and {b.path} differ in {what}",
            "give shards that were made together, with one key and method",
        )


def find_splits(paths: list[Path]) -> dict[str, list[Path]]:
    """Shard files by split, from folders and files.

    A folder or a file that is given may be a link; what is found in a folder may not.

    Raises:
        SegkeyError: nothing there, a link or a pipe among the shards, or a numbered shard of a
            split is missing.
    """
    if not paths:
        raise SegkeyError("no shards are given", "make them with 'segkey encrypt IMAGES'")
    files = [file for path in map(Path, paths) for file in _shard_files(path)]
    if not files:
        raise SegkeyError(
            f"there are no shards in {paths[0]}", "make them with 'segkey encrypt IMAGES'"
        )
    splits: dict[str, list[Path]] = {}
    for file in files:
        match = _NAME.fullmatch(file.name)
        splits.setdefault(match["split"] if match else file.stem, []).append(file)
    for split, members in splits.items():
        _require_complete(split, members)
    return splits


def _shard_files(path: Path) -> list[Path]:
    if not path.exists():
        raise SegkeyError(
            f"there are no shards at {path}",
            "make them with 'segkey encrypt IMAGES', or give their folder",
        )
    if not path.is_dir():
        return [path]
    return [file for file in sorted(path.glob("*.h5")) if is_there(file)]


def _require_complete(split: str, files: list[Path]) -> None:
    """Each file's name says which part of how many it is; all parts must be there, once."""
    parts = []
    for match in (_NAME.fullmatch(file.name) for file in files):
        numbered = match and match["index"]
        parts.append((int(match["index"]), int(match["count"])) if numbered else (0, 1))
    if sorted(parts) != [(number, len(files)) for number in range(len(files))]:
        raise SegkeyError(
            f"the shards of split '{split}' are not complete: {counted(len(files), 'file')}, such "
            f"as {files[0]}",
            "run the same 'segkey encrypt' again to make those that are missing",
        )


def open_splits(paths: list[Path], wanted: tuple[str, ...] | None = None) -> dict[str, Split]:
    """Open the splits found at ``paths``, all or those ``wanted``, which must belong together."""
    found = find_splits(paths)
    chosen = {name: files for name, files in found.items() if wanted is None or name in wanted}
    splits = {
        name: Split(Shards(files, name, read_index(files, name))) for name, files in chosen.items()
    }
    first = next(iter(splits.values()), None)
    for split in splits.values():
        check_alike(first.shards.first, split.shards.first)
        split.shards.check_name(split.shards.first)
    return splits
