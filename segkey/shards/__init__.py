"""The shard format ``segkey-shard-v1``: write, read, verify (see segkey/FORMATS.md).

One HDF5 file::

    images        (N·V, C, H, W) uint8 or uint16, one uncompressed chunk per image, view by view
    masks         (N·V, H, W) uint8, one gzip chunk per mask; absent without masks
    names         (N,) fixed-length UTF-8
    sizes         (N, 2) int32, height and width before resizing
    images_crc32  (N·V,) uint32; masks_crc32 likewise: CRC-32 of each row's bytes, uncompressed

and the attributes of `Header` (text as fixed-length UTF-8), with ``checksums``: JSON, the SHA-256
of ``images_crc32``, ``masks_crc32``, ``names``, ``sizes`` and of the attributes themselves. So
every row is checked when it is read, and an error names the row.
"""

from segkey.shards.header import FORMAT, Header

_LAZY = {  # these import h5py, which prediction without PyTorch does without
    "Packed": "writer",
    "Placed": "writer",
    "Shard": "reader",
    "ShardWriter": "writer",
    "Shards": "splits",
    "Split": "splits",
    "check_alike": "splits",
    "find_splits": "splits",
    "index_path": "index",
    "is_shard": "reader",
    "open_splits": "splits",
    "write_index": "index",
}

__all__ = [
    "FORMAT",
    "Header",
    "Packed",
    "Placed",
    "Shard",
    "ShardWriter",
    "Shards",
    "Split",
    "check_alike",
    "find_splits",
    "index_path",
    "is_shard",
    "open_splits",
    "write_index",
]


def __getattr__(name: str):
    import importlib

    if name not in _LAZY:
        raise AttributeError(f"module 'segkey.shards' has no attribute {name!r}")
    return getattr(importlib.import_module(f"segkey.shards.{_LAZY[name]}"), name)
