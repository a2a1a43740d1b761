"""Shards as a ``torch.utils.data.Dataset``, for training loops of one's own."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segkey.crypto.ciphers import method_label, signed
from segkey.crypto.torchvision_transforms import EncryptedImage
from segkey.errors import SegkeyError
from segkey.shards.header import Header
from segkey.shards.splits import Shards, Split, find_splits, open_splits


class ShardDataset(Dataset):
    """A split of some shards: each view of each image, with its mask.

    An item is ``(image, mask)``, or the image alone if there are no masks: a `tv_tensors.Image`,
    float32 (C, H, W) from 0 to 1 as a network of segkey takes it, and a `tv_tensors.Mask`, int64
    (H, W) of class numbers and `header`'s ``ignore_index``. Works in a DataLoader's processes, and
    threads may share it.

    Args:
        files: the shards, in order.
        name: of the split.
        transform: takes image and mask before the image is scaled, uint8 (or uint16, if FFX made
            it), such as a v2 transform that augments, then one of `segkey.transforms` that
            encrypts.

    Attributes:
        header: what the shards say of their images.
        size: (H, W).
        names: of the images; item n is of ``names[n % len(names)]``.
    """

    def __init__(
        self, files: Sequence[Path], name: str, transform: Callable[..., Any] | None = None
    ):
        self._files, self._name, self.transform = list(files), name, transform
        self._opened: tuple[int, Split] | None = None
        split = self._split()
        self.header: Header = split.header
        self.size: tuple[int, int] = split.size
        self.names: list[str] = split.names

    def __len__(self) -> int:
        return len(self.names) * self.header.views

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        view, row = divmod(index % len(self), len(self.names))
        split = self._split()
        image = self._image(torch.from_numpy(split.read("images", row, view)))
        sample = (image,)
        if split.has_masks:
            mask = torch.from_numpy(split.read("masks", row, view)).long()
            sample = (image, tv_tensors.Mask(mask))
        if self.transform:
            made = self.transform(*sample)
            sample = made if isinstance(made, tuple | list) else (made,)
        sample = (self._scaled(sample[0]), *sample[1:])
        return sample if len(sample) > 1 else sample[0]

    def __repr__(self) -> str:
        header, (height, width) = self.header, self.size
        views = f" × {header.views} views" if header.views > 1 else ""
        return (
            f"<ShardDataset {header.split}: {len(self.names)} images{views} of {height}x{width}, "
            f"{method_label(header.method, header.block_size)}, {len(header.classes)} classes>"
        )

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": None}

    def _split(self) -> Split:
        """The open shards; a forked process opens its own, as HDF5 files cannot be shared."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), Split(Shards(self._files, self._name))
        return self._opened[1]

    def _image(self, image: Tensor) -> tv_tensors.Image:
        if image.dtype == torch.uint8:
            return tv_tensors.Image(image)
        return EncryptedImage.of(image, self.header.max_value)

    def _scaled(self, image: Any) -> Any:
        """0 … 1, whatever a transform has made of it."""
        if not isinstance(image, Tensor) or image.is_floating_point():
            return image
        largest = getattr(image, "max_value", None) or self.header.max_value
        plain = signed(image.as_subclass(Tensor))
        return tv_tensors.Image(plain.to(torch.float32) / largest)


def open_shards(
    paths: str | Path | Sequence[str | Path] = "shards", transform: Callable[..., Any] | None = None
) -> dict[str, ShardDataset]:
    """The splits of some shards as datasets, by name: ``train``, ``val``, ``test``.

    Args:
        paths: a folder of shards, a shard, or several.
        transform: for the items of all splits, see `ShardDataset`.

    Raises:
        SegkeyError: no shards there, damaged ones, or some that do not belong together.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    given = [Path(path) for path in given]
    for split in open_splits(given).values():
        split.close()  # they belong together
    found = find_splits(given)
    if not found:
        raise SegkeyError(f"there are no shards in {given[0]}", "make them with 'segkey encrypt'")
    return {name: ShardDataset(files, name, transform) for name, files in found.items()}
