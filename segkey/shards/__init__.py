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
from segkey.shards.index import index_path, write_index
from segkey.shards.reader import Shard, is_shard
from segkey.shards.splits import Shards, Split, check_alike, find_splits, open_splits
from segkey.shards.writer import Packed, Placed, ShardWriter

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
