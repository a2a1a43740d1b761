"""The shard format ``segkey-shard-v1``: write, read, verify. The layout is described in the README.

One HDF5 file::

    images        (N·V, C, H, W) uint8 or uint16, one uncompressed chunk an image, view by view
    masks         (N·V, H, W) uint8, one gzip chunk a mask; absent where no masks were given
    names         (N,) fixed-length UTF-8
    sizes         (N, 2) int32, height and width before resizing
    images_crc32  (N·V,) uint32; masks_crc32 likewise: CRC-32 of each row's bytes, uncompressed

and the attributes of `Header`, with ``checksums``: JSON, the SHA-256 of ``images_crc32``, ``masks_crc32``,
``names``, ``sizes`` and of the attributes themselves. So every row is checked when it is read, and an
error names the row.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import h5py
import numpy as np

from segkey.errors import SegkeyError
from segkey.files import explain_os_errors, sync_folder
from segkey.version import VERSION

FORMAT = "segkey-shard-v1"
MASK_COMPRESSION = 4  # zlib level
_MAX_SIDE = 1 << 16
_NAME = re.compile(r"(?P<split>.+?)(?:-(?P<index>\d{5})-of-(?P<count>\d{5}))?\.h5")


@dataclass(frozen=True)
class Header:
    """What a shard says about itself; nothing in it is secret.

    Attributes:
        split: ``train``, ``val``, ``test``, ``all`` or another name.
        method: ``shf``, ``np``, ``ffx`` or ``none``.
        block_size: M; 1 for ``none``.
        channels: c.
        max_value: a loader divides by it.
        key_id: names the key; empty for ``none``.
        password_hash: names a fixed FFX password; empty where it is derived from the key.
        classes: names, a JSON list in the file; empty without masks.
        ignore_index: the mask value that means void.
        views: V, how often each image occurs.
        augmented: whether the views are augmented copies, rather than the image itself.
        seed: of the augmentation.
        crop_scale: smallest area of an augmented copy, as a fraction.
    """

    split: str
    method: str
    block_size: int
    channels: int
    max_value: int
    key_id: str = ""
    password_hash: str = ""
    classes: tuple[str, ...] = ()
    ignore_index: int = 255
    views: int = 1
    augmented: bool = False
    seed: int = 0
    crop_scale: float = 1.0

    def attributes(self) -> dict[str, object]:
        """As HDF5 attributes."""
        values = asdict(self) | {"classes": json.dumps(self.classes, ensure_ascii=False)}
        return {"format": FORMAT, "made_with": f"segkey {VERSION}"} | values

    def same_data(self, other: "Header") -> list[str]:
        """The fields, other than the split and its augmentation, in which two headers differ."""
        apart = {"split", "views", "augmented", "seed", "crop_scale"}
        names = [f.name for f in fields(self) if f.name not in apart]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


class ShardWriter:
    """Writes one shard; the final name appears when `finish` has synced a whole file.

    Rows are placed by position, so the bytes of the file do not depend on the order of calls. A position
    that is never written (an unreadable image) is closed up at the end.

    Args:
        path: the final name.
        header: what the shard says about itself.
        names: of all images that may come, in order.
        size: (H, W).
        dtype: ``uint8`` or ``uint16``.
        masks: whether there are masks.
    """

    def __init__(self, path: Path, header: Header, names: list[str], size: tuple[int, int], dtype: str, masks: bool):
        self.path, self.header, self.names, self.views = path, header, names, header.views
        self.partial = path.with_name(path.name + ".partial")
        self._written: dict[int, tuple[int, int]] = {}
        rows, shape = len(names) * header.views, (header.channels, *size)
        with explain_os_errors(self.partial):
            # v110 has a checksum on every piece of metadata, and stores early-allocated chunks without an index.
            self.file = h5py.File(self.partial, "w", libver=("v110", "v110"))
        try:
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_chunk((1, *shape))
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # rows lie in the file in their own order
            self._create("images", (rows, *shape), {"uint8": "<u1", "uint16": "<u2"}[dtype], layout)
            if masks:
                layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                layout.set_chunk((1, *size))
                layout.set_deflate(MASK_COMPRESSION)
                self._create("masks", (rows, *size), "u1", layout)
        except BaseException as error:
            self.abandon()
            with explain_os_errors(self.partial):
                raise error
        self.kinds = ("images", "masks") if masks else ("images",)
        self._crc = {kind: np.zeros(rows, "<u4") for kind in self.kinds}

    def _create(self, name: str, shape: tuple[int, ...], dtype: str, layout) -> None:
        layout.set_obj_track_times(False)  # the same images make the same bytes, whenever
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(self.file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, layout)

    def write(self, position: int, original_size: tuple[int, int], rows: dict[str, list["Packed"]]) -> None:
        """Write the views of the image at ``position``; ``rows`` has a `Packed` a view for each kind."""
        with explain_os_errors(self.partial):
            for kind in self.kinds:
                dataset = self.file[kind]
                for view, packed in enumerate(rows[kind]):
                    row = view * len(self.names) + position
                    dataset.id.write_direct_chunk((row,) + (0,) * (dataset.ndim - 1), packed.data)
                    self._crc[kind][row] = packed.crc32
        self._written[position] = original_size

    def finish(self) -> int:
        """Close up the gaps, write names and checksums, sync, take the final name; returns N.

        A shard of which no image could be read is not made.
        """
        kept = sorted(self._written)
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
                with open(self.partial, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(self.partial, self.path)
                sync_folder(self.path.parent)
        except BaseException:
            self.abandon()
            raise
        return len(kept)

    def _close_up(self, kept: list[int]) -> None:
        """Move rows down over positions that were never written; a row never moves up, so none is lost."""
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
            "sizes": np.array([self._written[position] for position in kept], dtype="<i4"),
        } | {f"{kind}_crc32": self._crc[kind] for kind in self.kinds}
        for name, table in tables.items():
            self.file.create_dataset(name, data=table)
        attributes = self.header.attributes()
        self.file.attrs.update(attributes)
        checksums = {name: _sha256(table.tobytes()) for name, table in tables.items()}
        self.file.attrs["checksums"] = json.dumps(checksums | {"attributes": _checksum_attributes(attributes)})

    def abandon(self) -> None:
        """Leave nothing behind."""
        try:
            self.file.close()
        except (OSError, RuntimeError):  # a full disk also fails the flush that closing tries
            pass
        finally:
            self.partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Packed:
    """A row as it goes into the file, and the CRC-32 of its uncompressed bytes."""

    data: bytes
    crc32: int

    @classmethod
    def image(cls, image: np.ndarray) -> "Packed":
        """uint8 or uint16 (C, H, W), stored as it is, little-endian."""
        data = image.astype(image.dtype.newbyteorder("<"), copy=False).tobytes()
        return cls(data, zlib.crc32(data))

    @classmethod
    def mask(cls, mask: np.ndarray) -> "Packed":
        """uint8 (H, W), compressed here because here is usually a worker process."""
        data = mask.tobytes()
        return cls(zlib.compress(data, MASK_COMPRESSION), zlib.crc32(data))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checksum_attributes(attributes: dict[str, object]) -> str:
    return _sha256(json.dumps(attributes, sort_keys=True, ensure_ascii=True).encode())


# ------------------------------------------------------------------ reading


class Shard:
    """One shard, opened and checked: its form on opening, each row the first time it is read.

    Attributes:
        path, header: where it is and what it says about itself.
        images: how many images (N); there are N·V rows.
        size: (H, W).
        dtype: ``uint8`` or ``uint16``.
        has_masks: whether there are masks.
        made_with: the program and version that wrote it.

    Raises:
        SegkeyError: no such file, no shard, a newer version, or anything in it that the format does not allow.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise SegkeyError(f"there is no shard at {path}", "make shards with 'segkey encrypt'")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError:
            raise self._refuse("is no HDF5 file, or is cut off") from None
        try:
            self._check()
        except BaseException:
            self.close()
            raise
        self._seen = {kind: np.zeros(self.images * self.header.views, bool) for kind in self._datasets}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Shard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The file may come from anybody: nothing in it is followed, sized or trusted before it is checked.

    def _refuse(self, why: str) -> SegkeyError:
        return SegkeyError(f"{self.path} is not a whole segkey shard: {why}", "make it again with 'segkey encrypt'")

    def _check(self) -> None:
        try:
            attributes = self._attributes()
            self.header = self._read_header(attributes)
            self.made_with = str(attributes["made_with"])
            checksums = json.loads(attributes["checksums"])
            self._check_datasets()
            stored = {name: value for name, value in attributes.items() if name != "checksums"}
            if checksums["attributes"] != _checksum_attributes(stored):
                raise self._refuse("its attributes do not match their checksum")
            self._tables = {name: self._read_table(name, checksums) for name in checksums if name != "attributes"}
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise self._refuse(f"it is damaged ({type(error).__name__})") from None

    def _attributes(self) -> dict[str, object]:
        if len(self._file.attrs) > 64:
            raise self._refuse("too many attributes")
        values = {}
        for name in self._file.attrs:
            identifier = self._file.attrs.get_id(name)
            if identifier.get_storage_size() > 1 << 20 or identifier.shape != ():
                raise self._refuse(f"its attribute {name!r} is not a single value")
            value = self._file.attrs[name]
            values[name] = value.item() if isinstance(value, np.generic) else value
        version = values.get("format")
        if version != FORMAT:
            if isinstance(version, str) and version.startswith("segkey-shard-"):
                raise SegkeyError(
                    f"{self.path} has the format {version[:40]!r}, this segkey reads {FORMAT!r}",
                    "upgrade segkey: pip install --upgrade segkey",
                )
            raise self._refuse("it does not say that it is one")
        return values

    def _read_header(self, attributes: dict[str, object]) -> Header:
        values = {f.name: attributes[f.name] for f in fields(Header)}
        values["classes"] = tuple(json.loads(values["classes"]))
        for f in fields(Header):
            if f.type in (int, str, bool, float) and not isinstance(values[f.name], f.type):
                raise self._refuse(f"its attribute {f.name!r} has a wrong type")
        header = Header(**values)
        sane = (
            1 <= header.block_size <= _MAX_SIDE
            and 1 <= header.channels <= 1024
            and 1 <= header.max_value <= 65535
            and 0 <= header.ignore_index <= 255
            and 1 <= header.views <= 1 << 20
            and len(header.classes) <= 255
            and all(isinstance(name, str) for name in header.classes)
        )
        if not sane:
            raise self._refuse("an attribute is out of its range")
        return header

    def _dataset(self, name: str) -> h5py.Dataset:
        """A dataset that is really in this file, in one piece."""
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            raise self._refuse(f"{name!r} is a link to somewhere else")
        dataset = self._file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
            raise self._refuse(f"{name!r} is not stored in the file itself")
        if dataset.dtype.hasobject or dataset.dtype.fields:
            raise self._refuse(f"{name!r} has the type {dataset.dtype}")
        return dataset

    def _check_datasets(self) -> None:
        file_bytes = self.path.stat().st_size
        images = self._dataset("images")
        views = self.header.views
        if images.dtype not in (np.dtype("<u1"), np.dtype("<u2")) or images.ndim != 4 or images.nbytes > file_bytes:
            raise self._refuse(f"its images have type {images.dtype} and shape {images.shape}")
        rows, channels, *size = images.shape
        if not rows or rows % views or channels != self.header.channels or max(size) >= _MAX_SIDE:
            raise self._refuse(f"its images have shape {images.shape}")
        if images.chunks != (1, *images.shape[1:]) or images.id.get_create_plist().get_nfilters():
            raise self._refuse("its images are not stored one by one, uncompressed")
        self.images, self.size, self.dtype = rows // views, tuple(size), images.dtype.name
        self._datasets = {"images": images}
        self.has_masks = "masks" in self._file
        if self.has_masks:
            masks = self._dataset("masks")
            filters = masks.id.get_create_plist()
            if masks.shape != (rows, *size) or masks.dtype != np.uint8 or masks.chunks != (1, *size):
                raise self._refuse(f"its masks have type {masks.dtype} and shape {masks.shape}")
            if filters.get_nfilters() != 1 or filters.get_filter(0)[0] != h5py.h5z.FILTER_DEFLATE:
                raise self._refuse("its masks are not compressed with gzip")
            self._datasets["masks"] = masks

    def _read_table(self, name: str, checksums: dict[str, str]) -> np.ndarray:
        rows = self.images * self.header.views
        shapes = {"names": (self.images,), "sizes": (self.images, 2)}
        shapes |= {f"{kind}_crc32": (rows,) for kind in self._datasets}
        if set(checksums) != {*shapes, "attributes"}:
            raise self._refuse("its checksums are not those of its datasets")
        dataset = self._dataset(name)
        expected = {"names": "S", "sizes": "i"}.get(name, "u")
        if dataset.shape != shapes[name] or dataset.dtype.kind != expected or dataset.dtype.itemsize > 1 << 16:
            raise self._refuse(f"{name!r} has type {dataset.dtype} and shape {dataset.shape}")
        if dataset.nbytes > self.path.stat().st_size:
            raise self._refuse(f"{name!r} is larger than the file")
        table = dataset[()]
        if _sha256(table.tobytes()) != checksums[name]:
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
    def original_sizes(self) -> np.ndarray:
        """(N, 2) heights and widths before resizing."""
        return self._tables["sizes"]

    def read(self, kind: str, row: int) -> np.ndarray:
        """One row of ``images``, (C, H, W), or of ``masks``, (H, W); checked the first time.

        Raises:
            SegkeyError: the row does not match its checksum.
        """
        dataset = self._datasets[kind]
        shape = dataset.shape[1:]
        size = int(np.prod(shape)) * dataset.dtype.itemsize
        try:
            _, data = dataset.id.read_direct_chunk((row,) + (0,) * len(shape))
            if kind == "masks":
                data = zlib.decompressobj().decompress(data, size + 1)
            if len(data) != size:
                raise ValueError
            if not self._seen[kind][row]:
                if zlib.crc32(data) != self._tables[f"{kind}_crc32"][row]:
                    raise ValueError
                self._seen[kind][row] = True
        except (OSError, RuntimeError, ValueError, zlib.error):
            name = self.names[row % self.images]
            raise SegkeyError(
                f"{self.path} is damaged: dataset '{kind}', row {row} ({name}) does not match its checksum",
                "make it again with 'segkey encrypt', or restore it from a backup",
            ) from None
        return np.frombuffer(data, dataset.dtype).reshape(shape)

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


class Split:
    """One split, which may lie in several shards, as one sequence of images.

    Args:
        shards: opened shards, in order.

    Raises:
        SegkeyError: the shards differ in key, method, size, classes or number of views.
    """

    def __init__(self, shards: list[Shard]):
        self.shards = shards
        first = shards[0]
        for shard in shards[1:]:
            check_alike(first, shard)
        self.header, self.size, self.dtype = first.header, first.size, first.dtype
        self.has_masks = first.has_masks
        self._ends = np.cumsum([shard.images for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def names(self) -> list[str]:
        """Paths of all images, relative to the source."""
        return [name for shard in self.shards for name in shard.names]

    @property
    def row_bytes(self) -> int:
        """What an image with its mask takes in memory."""
        pixels = self.size[0] * self.size[1]
        return pixels * (self.header.channels * np.dtype(self.dtype).itemsize + self.has_masks)

    def read(self, kind: str, index: int, view: int = 0) -> np.ndarray:
        """View ``view`` of image ``index``, or of its mask."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[shard - 1]) if shard else 0
        return self.shards[shard].read(kind, view * self.shards[shard].images + index - start)

    def close(self) -> None:
        """Close all files."""
        for shard in self.shards:
            shard.close()


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
            f"{a.path} and {b.path} differ in {what}", "give shards that were made together, with one key and method"
        )


def find_splits(paths: list[Path]) -> dict[str, list[Path]]:
    """Shard files by split, from folders and files.

    Raises:
        SegkeyError: nothing there, or a numbered shard of a split is missing.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise SegkeyError(f"there are no shards at {path}", "make them with 'segkey encrypt IMAGES', or give their folder")
        files += sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not files:
        raise SegkeyError(f"there are no shards in {paths[0]}", "make them with 'segkey encrypt IMAGES'")
    splits: dict[str, list[Path]] = {}
    counts: dict[str, set[str | None]] = {}
    for file in files:
        match = _NAME.fullmatch(file.name)
        split = match["split"] if match else file.stem
        splits.setdefault(split, []).append(file)
        counts.setdefault(split, set()).add(match["count"] if match else None)
    for split, members in splits.items():
        wanted = counts[split]
        if len(wanted) > 1 or (None not in wanted and len(members) != int(next(iter(wanted)))):
            raise SegkeyError(
                f"the shards of split '{split}' are not complete: {len(members)} files, such as {members[0]}",
                "run the same 'segkey encrypt' again to make those that are missing",
            )
    return splits


def open_splits(paths: list[Path], wanted: tuple[str, ...] | None = None) -> dict[str, Split]:
    """Open the splits found at ``paths`` (those ``wanted``, where given), and check that they belong together."""
    found = find_splits(paths)
    chosen = {name: files for name, files in found.items() if wanted is None or name in wanted}
    splits = {name: Split([Shard(file) for file in files]) for name, files in chosen.items()}
    first = next(iter(splits.values()), None)
    for split in splits.values():
        check_alike(first.shards[0], split.shards[0])
    return splits
