"""Write a shard: one HDF5 file with images, masks, names and checksums."""

import json
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from segkey.shards.header import Header, checksum_attributes, sha256
from segkey.system.files import explain_os_errors, is_there, put_in_place, remove, reopen

# A level of zlib; masks are so simple that higher ones save little and cost three times as much.
MASK_COMPRESSION = 2


class ShardWriter:
    """Writes one shard; the final name appears when `finish` has synced a whole file.

    Rows are placed by position. Images may be put in place by other processes, through `region`. A
    position that is never written (an unreadable image) is closed up at the end. The same calls in
    the same order make the same bytes.

    Args:
        path: the final name.
        header: what the shard says about itself.
        names: of all images that may come, in order.
        size: (H, W).
        dtype: ``uint8`` or ``uint16``.
        masks: whether there are masks.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        names: list[str],
        size: tuple[int, int],
        dtype: str,
        masks: bool,
    ):
        self.path, self.header, self.names, self.views = path, header, names, header.views
        self.partial = path.with_name(path.name + ".partial")
        is_there(path)
        # Heights and widths; 0 for what was not written.
        self._sizes = np.zeros((len(names), 2), "<i4")
        rows = len(names) * header.views
        self.file = self._new_file()
        try:
            self._create_images((rows, header.channels, *size), dtype)
            if masks:
                self._create_masks((rows, *size))
        except BaseException as error:
            self.abandon()
            with explain_os_errors(self.partial):
                raise error
        self.region = self._region(rows)
        self.scaled_images = 0  # that were decoded at a fraction of their size
        self.kinds = ("images", "masks") if masks else ("images",)
        self._crc = {kind: np.zeros(rows, "<u4") for kind in self.kinds}

    def _new_file(self) -> h5py.File:
        with explain_os_errors(self.partial):
            # Of an earlier try; or a link, which "w" would follow and "x" does not.
            remove(self.partial)
            # v110 has a checksum on every piece of metadata, and stores early-allocated chunks
            # without an index.
            try:
                return h5py.File(self.partial, "x", libver=("v110", "v110"))
            except OSError:
                remove(self.partial)  # a full disk may still have room for an empty file
                raise

    def _create_images(self, shape: tuple[int, ...], dtype: str) -> None:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((1, *shape[1:]))
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # rows lie in the file in their own order
        self._create("images", shape, {"uint8": "<u1", "uint16": "<u2"}[dtype], layout)

    def _create_masks(self, shape: tuple[int, ...]) -> None:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((1, *shape[1:]))
        layout.set_deflate(MASK_COMPRESSION)
        self._create("masks", shape, "u1", layout)

    def _region(self, rows: int) -> "Region":
        """Where the images lie in the file, which must be one after another."""
        images = self.file["images"].id
        first, last = (images.get_chunk_info_by_coord((row, 0, 0, 0)) for row in (0, rows - 1))
        if last.byte_offset != first.byte_offset + (rows - 1) * first.size:
            self.abandon()
            raise RuntimeError("HDF5 has not laid the images out one after another")
        return Region(str(self.partial), first.byte_offset, first.size, len(self.names))

    def _create(self, name: str, shape: tuple[int, ...], dtype: str, layout) -> None:
        layout.set_obj_track_times(False)  # the same images make the same bytes, whenever
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(
            self.file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, layout
        )

    def write(
        self, position: int, original_size: tuple[int, int], rows: dict[str, list["Row"]]
    ) -> None:
        """Write one image.

        Args:
            position: its place among ``names``.
            original_size: (H, W) before resizing.
            rows: for ``images`` and ``masks``, one row per view.
        """
        with explain_os_errors(self.partial):
            for kind in self.kinds:
                dataset = self.file[kind]
                for view, row in enumerate(rows[kind]):
                    number = view * len(self.names) + position
                    if isinstance(row, Packed):
                        place = (number,) + (0,) * (dataset.ndim - 1)
                        dataset.id.write_direct_chunk(place, row.data)
                    self._crc[kind][number] = row.crc32
        self._sizes[position] = original_size

    def finish(self) -> int:
        """Close up the gaps, write names and checksums, sync, take the final name; returns N.

        A shard of which no image could be read is not made.
        """
        kept = np.flatnonzero(self._sizes.all(axis=1)).tolist()
        if not kept:
            self.abandon()
            return 0
        try:
            with explain_os_errors(self.partial):
                if len(kept) < len(self.names):
                    self._close_up(kept)
                self._describe(kept)
                self.file.flush()
                self.file.close()
                with reopen(self.partial) as file:
                    os.fsync(file.fileno())
                put_in_place(self.partial, self.path)
        except BaseException:
            self.abandon()
            raise
        return len(kept)

    def _close_up(self, kept: list[int]) -> None:
        """Move rows down over positions that were never written; no row moves up or is lost."""
        n = len(self.names)
        sources = [view * n + position for view in range(self.views) for position in kept]
        for kind in self.kinds:
            dataset, rest = self.file[kind], (0,) * (self.file[kind].ndim - 1)
            for target, source in enumerate(sources):
                if target != source:
                    _, data = dataset.id.read_direct_chunk((source, *rest))
                    dataset.id.write_direct_chunk((target, *rest), data)
            dataset.resize(len(sources), axis=0)
            self._crc[kind] = self._crc[kind][sources]

    def _describe(self, kept: list[int]) -> None:
        names = [self.names[position].encode("utf-8", "surrogateescape") for position in kept]
        width = max(1, *map(len, names))
        tables = {
            "names": np.array(names, dtype=h5py.string_dtype("utf-8", width)),
            "sizes": self._sizes[kept],
        } | {f"{kind}_crc32": self._crc[kind] for kind in self.kinds}
        for name, table in tables.items():
            self.file.create_dataset(name, data=table)
        attributes = replace(self.header, scaled_images=self.scaled_images).attributes()
        for name, value in attributes.items():
            self._set(name, value)
        checksums = {name: sha256(table.tobytes()) for name, table in tables.items()}
        self._set(
            "checksums",
            json.dumps(
                checksums | {"attributes": checksum_attributes(attributes)}, allow_nan=False
            ),
        )

    def _set(self, name: str, value: object) -> None:
        # Text of fixed length: HDF5 keeps variable-length text in a heap without checksum, and may
        # loop on a damaged one.
        self.file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value

    def abandon(self) -> None:
        """Leave nothing behind."""
        try:
            self.file.close()
        except (OSError, RuntimeError):  # a full disk also fails the flush that closing tries
            pass
        finally:
            remove(self.partial)


@dataclass(frozen=True)
class Placed:
    """A row that `Region.put` has written into the file: the CRC-32 of its bytes."""

    crc32: int


@dataclass(frozen=True)
class Packed:
    """A row that is still to be written.

    Attributes:
        data: its bytes as they stand in the file, which for a mask are compressed.
        crc32: the CRC-32 of its uncompressed bytes.
    """

    data: bytes
    crc32: int

    @classmethod
    def image(cls, image: np.ndarray) -> "Packed":
        """uint8 or uint16 (C, H, W), stored as it is, little-endian."""
        data = _little_endian(image).tobytes()
        return cls(data, zlib.crc32(data))

    @classmethod
    def mask(cls, mask: np.ndarray) -> "Packed":
        """uint8 (H, W), compressed here because here is usually a worker process."""
        data = mask.tobytes()
        return cls(zlib.compress(data, MASK_COMPRESSION), zlib.crc32(data))


Row = Packed | Placed


@dataclass(frozen=True)
class Region:
    """Where the images of an unfinished shard lie in its file, so that workers can write them.

    Images are most of a shard; sending them through a pipe to the process that writes costs as much
    as encrypting them.

    Attributes:
        path: the unfinished file.
        offset: of the first row, in bytes.
        row_bytes: bytes per row.
        images: how many images the shard may have; there is a row per view and image.
    """

    path: str
    offset: int
    row_bytes: int
    images: int

    def put(self, position: int, views: np.ndarray) -> list[Placed]:
        """Write the views (V, C, H, W) of the image at ``position``; returns its rows.

        Raises:
            SegkeyError: the system refuses to write.
        """
        with explain_os_errors(Path(self.path)), reopen(Path(self.path)) as file:
            placed = []
            for view, image in enumerate(_little_endian(views)):
                file.seek(self.offset + (view * self.images + position) * self.row_bytes)
                file.write(image)
                placed.append(Placed(zlib.crc32(image)))
            return placed


def _little_endian(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
