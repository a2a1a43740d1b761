"""Read a shard that may come from an untrusted source."""

import json
import os
import threading
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np

from segkey.errors import SegkeyError
from segkey.shards.header import FORMAT, MAX_SIDE, OPTIONAL, Header, checksum_attributes, sha256
from segkey.system.files import explain_os_errors, open_regular

_CHUNK_SLACK = 1 << 16  # bytes; more than zlib adds to a mask that it cannot compress
_MAX_TABLE = 1 << 29  # bytes of names or checksums, which are read whole: a million long names


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
                raise self._refuse("it is no HDF5 file, or cut off") from None
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

    # The file is untrusted: nothing in it is followed, sized or trusted before it is
    # checked.

    @property
    def _bytes(self) -> int:
        """The size of the file."""
        return os.fstat(self._raw.fileno()).st_size

    def _refuse(self, why: str) -> SegkeyError:
        return SegkeyError(
            f"{self.path} is not a whole segkey shard: {why}", "make it again with 'segkey encrypt'"
        )

    def _check_same_file(self) -> None:
        """HDF5 opens by path; it must have come to the file that was looked at."""
        if os.name == "posix":
            ours, its = os.fstat(self._raw.fileno()), os.fstat(self._file.id.get_vfd_handle())
            if not os.path.samestat(ours, its):
                raise self._refuse("it was replaced while it was opened")

    def _check(self) -> None:
        try:
            attributes = self._attributes()
            self.header = self._read_header(attributes)
            self.made_with = str(attributes["made_with"])
            checksums = self._checksums = json.loads(attributes["checksums"])
            self._check_datasets()
            stored = {name: value for name, value in attributes.items() if name != "checksums"}
            if checksums["attributes"] != checksum_attributes(stored):
                raise self._refuse("its attributes do not match their checksum")
            self._tables = {
                name: self._read_table(name, checksums)
                for name in checksums
                if name != "attributes"
            }
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise self._refuse(f"it is damaged ({type(error).__name__})") from None

    def _attributes(self) -> dict[str, object]:
        if len(self._file.attrs) > 64:
            raise self._refuse("too many attributes")
        names = list(self._file.attrs)
        version = self._attribute("format") if "format" in names else None
        if version != FORMAT:
            if isinstance(version, str) and version.startswith("segkey-shard-"):
                raise SegkeyError(
                    f"{self.path} has the format {version[:40]!r}, this segkey reads {FORMAT!r}",
                    "upgrade segkey: pip install --upgrade segkey",
                )
            raise self._refuse("it does not say that it is one")
        return {name: self._attribute(name) for name in names}

    def _attribute(self, name: str) -> object:
        identifier = self._file.attrs.get_id(name)
        # Text of variable length is not read: HDF5 keeps it in a heap without checksum, and may
        # loop on a damaged one.
        if (
            identifier.get_storage_size() > 1 << 16
            or identifier.shape != ()
            or identifier.dtype.kind not in "Siufb"
        ):
            raise self._refuse(
                f"its attribute {name!r} is not a single number or text of fixed length"
            )
        value = self._file.attrs[name]
        value = value.item() if isinstance(value, np.generic) else value
        return value.decode() if isinstance(value, bytes) else value

    def _read_header(self, attributes: dict[str, object]) -> Header:
        values = {
            f.name: attributes[f.name]
            for f in fields(Header)
            if f.name in attributes or f.name not in OPTIONAL
        }
        values["classes"] = tuple(json.loads(values["classes"]))
        header = Header(**values)
        if complaint := header.complaint():
            raise self._refuse(f"its attribute {complaint}")
        return header

    def _dataset(self, name: str) -> h5py.Dataset:
        """A dataset that is stored in this file itself: no link, not virtual, not external."""
        if name not in self._file:
            raise self._refuse(f"{name!r} is missing")
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            raise self._refuse(f"{name!r} is a link to somewhere else")
        dataset = self._file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
            raise self._refuse(f"{name!r} is not stored in the file itself")
        if dataset.dtype.hasobject or dataset.dtype.fields:
            raise self._refuse(f"{name!r} has the type {dataset.dtype}")
        return dataset

    def _check_datasets(self) -> None:
        images = self._dataset("images")
        self._check_images(images)
        rows, _, *size = images.shape
        self.images, self.size = rows // self.header.views, tuple(size)
        self.dtype, self._offset = images.dtype.name, self._first_byte(images)
        self._datasets = {"images": images}
        self.has_masks = "masks" in self._file
        if self.has_masks:
            masks = self._datasets["masks"] = self._dataset("masks")
            self._check_masks(masks, (rows, *size))

    def _check_images(self, images: h5py.Dataset) -> None:
        """Their type and shape must be those that the header tells, and fit into the file."""
        described, header = f"type {images.dtype} and shape {images.shape}", self.header
        known = images.dtype in (np.dtype("<u1"), np.dtype("<u2"))
        if not known or images.ndim != 4 or images.nbytes > self._bytes:
            raise self._refuse(f"its images have {described}")
        rows, channels, *size = images.shape
        if not rows or rows % header.views or channels != header.channels or max(size) >= MAX_SIDE:
            raise self._refuse(f"its images have shape {images.shape}")
        if any(side % header.block_size for side in size):  # a key would be derived for it
            raise self._refuse(
                f"its block size {header.block_size} does not divide {size[0]}x{size[1]}"
            )
        if images.dtype.itemsize != (2 if header.max_value > 255 else 1):
            raise self._refuse(
                f"its images have type {images.dtype}, its largest value is {header.max_value}"
            )
        if images.chunks != (1, *images.shape[1:]) or images.id.get_create_plist().get_nfilters():
            raise self._refuse("its images are not stored one by one, uncompressed")

    def _first_byte(self, images: h5py.Dataset) -> int:
        """Where the images begin in the file, in which they must lie one after another."""
        rows = len(images)
        first, last = (
            images.id.get_chunk_info_by_coord((row, 0, 0, 0)).byte_offset for row in (0, rows - 1)
        )
        if last != first + (rows - 1) * (images.nbytes // rows) or first is None:
            raise self._refuse("its images are not stored one after another")
        return first

    def _check_masks(self, masks: h5py.Dataset, shape: tuple[int, ...]) -> None:
        stored_alone = masks.chunks == (1, *shape[1:])
        if masks.shape != shape or masks.dtype != np.uint8 or not stored_alone:
            raise self._refuse(f"its masks have type {masks.dtype} and shape {masks.shape}")
        filters = masks.id.get_create_plist()
        if filters.get_nfilters() != 1 or filters.get_filter(0)[0] != h5py.h5z.FILTER_DEFLATE:
            raise self._refuse("its masks are not compressed with gzip")

    def _read_table(self, name: str, checksums: dict[str, str]) -> np.ndarray:
        rows = self.images * self.header.views
        shapes = {"names": (self.images,), "sizes": (self.images, 2)}
        shapes |= {f"{kind}_crc32": (rows,) for kind in self._datasets}
        if set(checksums) != {*shapes, "attributes"}:
            raise self._refuse("its checksums are not those of its datasets")
        dataset = self._dataset(name)
        expected = {"names": "S", "sizes": "i"}.get(name, "u")
        if (
            dataset.shape != shapes[name]
            or dataset.dtype.kind != expected
            or dataset.dtype.itemsize > 1 << 16
        ):
            raise self._refuse(f"{name!r} has type {dataset.dtype} and shape {dataset.shape}")
        if dataset.nbytes > min(self._bytes, _MAX_TABLE):
            raise self._refuse(
                f"{name!r} is larger than "
                f"{'the file' if dataset.nbytes > self._bytes else '512 MB'}"
            )
        table = dataset[()]
        if sha256(table.view(np.uint8)) != checksums[name]:  # a view: bytes would be a second copy
            raise SegkeyError(
                f"{self.path} is damaged: dataset {name!r} does not match its checksum",
                "make it again with 'segkey encrypt', or restore it from a backup",
            )
        return table

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
            f"({self.names[row % self.images]}) does not match its "
            "checksum",
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
