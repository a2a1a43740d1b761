"""The form of a shard, which may come from an untrusted source, before anything in it is used."""

import json
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np

from segkey.errors import SegkeyError
from segkey.shards.header import FORMAT, MAX_SIDE, OPTIONAL, Header, checksum_attributes, sha256

_MAX_TABLE = 1 << 29  # bytes of names or checksums, which are read whole: a million long names


def refusal(path: Path, why: str) -> SegkeyError:
    """The error that says why a file is no shard."""
    return SegkeyError(
        f"{path} is not a whole segkey shard: {why}", "make it again with 'segkey encrypt'"
    )


class FormCheck:
    """What an open file says of itself, once its form is checked: nothing is sized before that.

    Args:
        path: names the file in errors.
        file: opened by HDF5; nothing in it is followed.
        size: of the file in bytes.

    Attributes:
        header, made_with: what it says about itself.
        images: how many images (N).
        datasets: ``images``, and ``masks`` if there are any.
        offset: of the first image in the file; they lie one after another.
        tables: names, sizes and checksums of rows, by the names of their datasets.
        checksums: of the tables and attributes.

    Raises:
        SegkeyError: anything that the format does not allow.
    """

    def __init__(self, path: Path, file: h5py.File, size: int):
        self.path, self._file, self._bytes = path, file, size
        try:
            attributes = self._attributes()
            self.header = self._read_header(attributes)
            self.made_with = str(attributes["made_with"])
            self.checksums = json.loads(attributes["checksums"])
            self._check_datasets()
            stored = {name: value for name, value in attributes.items() if name != "checksums"}
            if self.checksums["attributes"] != checksum_attributes(stored):
                raise self._refuse("its attributes do not match their checksum")
            self.tables = {
                name: self._read_table(name, self.checksums)
                for name in self.checksums
                if name != "attributes"
            }
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise self._refuse(f"it is damaged ({type(error).__name__})") from None

    def _refuse(self, why: str) -> SegkeyError:
        return refusal(self.path, why)

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
        self.images, self.offset = rows // self.header.views, self._first_byte(images)
        self.datasets = {"images": images}
        if "masks" in self._file:
            masks = self.datasets["masks"] = self._dataset("masks")
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
        shapes |= {f"{kind}_crc32": (rows,) for kind in self.datasets}
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
