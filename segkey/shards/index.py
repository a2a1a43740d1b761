"""``train.index.json``: the number of images in each shard of a split, without opening them.

A shortcut: if it is missing, or names other files, the shards themselves are asked; and each
shard is compared with it when it is opened.
"""

from pathlib import Path
from typing import NamedTuple

from segkey.errors import SegkeyError
from segkey.shards.reader import Shard
from segkey.system.files import is_there, open_regular
from segkey.system.json_files import read_json, write_json

FORMAT = "segkey-index-v1"
_MAX_BYTES = 16 << 20  # of 100,000 shards; more are opened one by one


class Entry(NamedTuple):
    """A shard: its number of images, and `Shard.fingerprint`."""

    images: int
    fingerprint: str


def entry_of(shard: Shard) -> Entry:
    """What an index says about a shard."""
    return Entry(shard.images, shard.fingerprint)


def index_path(files: list[Path], split: str) -> Path:
    """Where the index of some shards is."""
    return files[0].with_name(f"{split}.index.json")


def write_index(files: list[Path], split: str) -> None:
    """Open every shard, and write down what it holds."""
    lines = []
    for file in files:
        with Shard(file) as shard:
            lines.append([file.name, *entry_of(shard)])
    write_json(index_path(files, split), {"format": FORMAT, "split": split, "shards": lines})


def read_index(files: list[Path], split: str) -> list[Entry] | None:
    """What the index says of some shards; None if there is none, or not of just these.

    Raises:
        SegkeyError: the index is no regular file, or far too large.
    """
    path = index_path(files, split)
    if len(files) == 1 or len({file.parent for file in files}) > 1 or not is_there(path):
        return None
    open_regular(path, limit=_MAX_BYTES).close()
    try:
        document = read_json(path, "an index", _MAX_BYTES)
        entries = [
            Entry(int(images), str(fingerprint)) for _, images, fingerprint in document["shards"]
        ]
        names = [name for name, _, _ in document["shards"]]
        ours = document["format"] == FORMAT and names == [file.name for file in files]
        return entries if ours and all(0 < entry.images < 1 << 40 for entry in entries) else None
    except (SegkeyError, KeyError, TypeError, ValueError):
        return None
