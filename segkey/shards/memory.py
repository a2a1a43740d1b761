"""Images and masks from files, held in memory with the interface of a split of shards."""

import functools
import hashlib
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np

from segkey.data.items import Item, Problem
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError
from segkey.shards import Header
from segkey.shards.splits import labels_fingerprint


class MemorySplit:
    """Images and masks from files, held in memory with the interface of `segkey.shards.Split`.

    Args:
        items: images with masks.
        preparation: their size and classes.
        header: what to say about them; method ``none``.

    Attributes:
        problems: images that could not be used; the others are there.
        origin: where it came from and who named it, as
            `segkey.model.evaluation_splits.open_test_split` found out.
    """

    def __init__(self, items: list[Item], preparation: Preparation, header: Header):
        self.header, self.size, self.dtype, self.problems = header, preparation.size, "uint8", []
        self.origin: dict = {}

        def load(item: Item):
            """A name, an image and its mask; or why it cannot be used."""
            try:
                images, masks, _ = preparation.load(item)
                return item.name, images[0], masks[0] if masks else None
            except SegkeyError as error:
                return Problem(item.name, error.what)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            loaded = list(pool.map(load, items))
        self.problems = [each for each in loaded if isinstance(each, Problem)]
        self._rows = [each for each in loaded if not isinstance(each, Problem)]
        if not self._rows:
            raise SegkeyError(f"none of {len(items)} images can be used; {self.problems[0].why}")
        self.has_masks = self._rows[0][2] is not None
        self.names = [name for name, _, _ in self._rows]
        self.row_bytes = self.size[0] * self.size[1] * (self.header.channels + self.has_masks)

    def __len__(self) -> int:
        return len(self._rows)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint (hex) of all images, masks, names and their header."""
        content = hashlib.sha256(
            json.dumps([asdict(self.header), self.size, self.names], allow_nan=False).encode()
        )
        for _, *row in self._rows:
            for part in row:
                content.update(b"" if part is None else np.ascontiguousarray(part))
        return content.hexdigest()

    @functools.cached_property
    def labels_fingerprint(self) -> str:
        """Fingerprint (hex) of all names and masks, as that of `segkey.shards.Split`."""
        masks = [mask for _, _, mask in self._rows if mask is not None]
        return labels_fingerprint(
            self.names, [zlib.crc32(np.ascontiguousarray(mask)) for mask in masks]
        )

    def read_batch(self, kind: str, indices: np.ndarray, view: int = 0) -> np.ndarray:
        """The images or the masks at ``indices``."""
        return np.stack([self._rows[index][1 if kind == "images" else 2] for index in indices])
