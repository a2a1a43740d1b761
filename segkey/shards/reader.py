"""Read a shard that may come from an untrusted source."""

import json
import os
import threading
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from segkey.errors import SegkeyError
from segkey.shards.form_check import FormCheck, refusal
from segkey.shards.header import sha256
from segkey.system.files import explain_os_errors, open_regular

_CHUNK_SLACK = 1 << 16  # bytes; more than zlib adds to a mask that it cannot compress


class Shard:
    """One shard, opened and checked: its form on opening, each row the first time it is read.

    A file that the user named may be a link to a shard; `segkey.shards.find_splits` refuses links
    that it finds in a folder.

    Attributes:
        path, header: where it is and what it says about itself.
        images: how many images (N); there are N·V rows.
        size: (H, W).
        dtype: ``uint8`` or ``uint16``.
        has_masks: whether there are masks.
        made_with: the program and version that wrote it.

    Raises:
        SegkeyError: no such file, no shard, a newer version, or anything in it that the format does
            not allow.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise SegkeyError(f"there is no shard at {path}", "make shards with 'segkey encrypt'")
        with explain_os_errors(self.path):  # HDF5 would not say that a file may not be read
            self._raw = open_regular(self.path, follow=True, buffering=0)
        weakref.finalize(self, self._raw.close)
        self._lock, self._file = threading.Lock(), None
        try:
            self._file = h5py.File(self.path, "r")
            self._check_same_file()
            self._check()
        except BaseException as error:
            self.close()
            if self._file is None and isinstance(error, OSError):
                raise refusal(self.path, "it is no HDF5 file, or cut off") from None
            raise
        self._seen = {
            kind: np.zeros(self.images * self.header.views, bool) for kind in self._datasets
        }

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
        if self._file:
            self._file.close()

    def __enter__(self) -> "Shard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_same_file(self) -> None:
        """HDF5 opens by path; it must have come to the file that was looked at."""
        if os.name == "posix":
            ours, its = os.fstat(self._raw.fileno()), os.fstat(self._file.id.get_vfd_handle())
            if not os.path.samestat(ours, its):
                raise refusal(self.path, "it was replaced while it was opened")

    def _check(self) -> None:
        form = FormCheck(self.path, self._file, os.fstat(self._raw.fileno()).st_size)
        self.header, self.made_with, self._checksums = form.header, form.made_with, form.checksums
        self._datasets, self._offset, self._tables = form.datasets, form.offset, form.tables
        images = self._datasets["images"]
        self.images, self.size = form.images, images.shape[2:]
        self.dtype, self.has_masks = images.dtype.name, "masks" in self._datasets

    @property
    def names(self) -> list[str]:
        """Paths of the images, relative to the source."""
        return [name.decode("utf-8", "surrogateescape") for name in self._tables["names"]]

    @property
    def fingerprint(self) -> str:
        """Hex digits that stand for everything in it."""
        return sha256(json.dumps(self._checksums, sort_keys=True, allow_nan=False).encode())

    @property
    def mask_checksums(self) -> np.ndarray:
        """The CRC-32 of each mask, uint32 (N·V,); empty without masks."""
        return self._tables.get("masks_crc32", np.empty(0, np.uint32))

    @property
    def original_sizes(self) -> np.ndarray:
        """(N, 2) heights and widths before resizing."""
        return self._tables["sizes"]

    def read(self, kind: str, row: int) -> np.ndarray:
        """One row of ``images``, (C, H, W), or of ``masks``, (H, W); checked the first time.

        Raises:
            SegkeyError: the row does not match its checksum.
        """
        return self.read_rows(kind, np.array([row]))[0]

    def read_rows(self, kind: str, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Some rows, in the order given, each checked the first time; safe to call from threads.

        Args:
            kind: ``images`` or ``masks``.
            rows: int (n,).
            out: where to put them; made, if not given.

        Returns:
            (n, C, H, W) or (n, H, W).

        Raises:
            SegkeyError: a row does not match its checksum.
        """
        dataset = self._datasets[kind]
        if out is None:
            out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
        if kind == "images":
            self._read_images(rows, out)
        else:
            for row, place in zip(rows, out, strict=True):
                place[...] = self._read_mask(int(row))
        for row, place in zip(rows, out, strict=True):
            if not self._seen[kind][row]:
                if zlib.crc32(place) != self._tables[f"{kind}_crc32"][row]:
                    raise self._damaged(kind, row)
                self._seen[kind][row] = True
        return out

    def _read_images(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Rows lie one after another in the file: each run of neighbours is one read, past HDF5."""
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, end in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            place = out[start:end]
            with self._lock:
                self._raw.seek(self._offset + int(rows[start]) * out[0].nbytes)
                count = self._raw.readinto(memoryview(place).cast("B"))
            if count != place.nbytes:
                raise self._damaged("images", int(rows[start]) + (count or 0) // out[0].nbytes)

    def _read_mask(self, row: int) -> np.ndarray:
        dataset = self._datasets["masks"]
        size = self.size[0] * self.size[1]
        try:
            if dataset.id.get_chunk_info_by_coord((row, 0, 0)).size > size + _CHUNK_SLACK:
                raise ValueError
            _, data = dataset.id.read_direct_chunk((row, 0, 0))
            data = zlib.decompressobj().decompress(data, size + 1)
            if len(data) != size:
                raise ValueError
            return np.frombuffer(data, np.uint8).reshape(self.size)
        except (OSError, RuntimeError, ValueError, MemoryError, zlib.error):
            raise self._damaged("masks", row) from None

    def _damaged(self, kind: str, row: int) -> SegkeyError:
        return SegkeyError(
            f"{self.path} is damaged: dataset '{kind}', row {row} "
            f"({self.names[row % self.images]}) does not match its checksum",
            "make it again with 'segkey encrypt', or restore it from a backup",
        )

    @property
    def rows(self) -> int:
        """How many rows there are to read, of images and masks together."""
        return sum(map(len, self._datasets.values()))

    def damage(self) -> Iterator[SegkeyError | None]:
        """Read every row; yields an error for each damaged one and None for each whole one."""
        for kind, dataset in self._datasets.items():
            for row in range(len(dataset)):
                self._seen[kind][row] = False
                try:
                    self.read(kind, row)
                    yield None
                except SegkeyError as error:
                    yield error


def is_shard(path: Path) -> bool:
    """Whether a file is a whole shard of this version."""
    try:
        Shard(path).close()
        return True
    except SegkeyError:
        return False
