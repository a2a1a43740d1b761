"""What masks and images hold, looked at and counted; nothing is concluded here.

Headers of all files, and pixels of an even share of the masks: decoding them all would take a
noticeable part of the time that encryption takes. Those that are not looked at here are counted
while they are encrypted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segkey.data.decode import DEEP, decode
from segkey.data.deep_colours import deep_values
from segkey.data.file_header import header, upright_size
from segkey.data.items import Item, Source
from segkey.data.mask_pixels import counted_values, edges_of
from segkey.data.masks import COLOUR, PALETTE, grey_of, kind_of, palette_colours, raw_mask
from segkey.data.preparation import why_sizes_differ
from segkey.errors import SegkeyError
from segkey.system import distributed
from segkey.system.progress import SILENT, Progress
from segkey.system.workers import Workers

SHARE = 32  # masks whose pixels are looked at beforehand; all of a small data set
_TASK = 32  # images per task
_IN_WORKERS = 2000  # images; starting processes for fewer takes longer than looking
_MOST_COLOURS = 4096  # that are counted one by one; more are no classes
_MOST_PALETTES = 256
_FEW_COLOURS = 256  # more are a photograph, or outlines that were smoothed or compressed
_EXAMPLES = ("lossy", "transparent", "in_alpha", "negative", "paged", "images_paged")
_EXAMPLES += ("deep", "unread", "damaged", "mismatched")


@dataclass
class Example:
    """How often something was seen, and where first."""

    count: int = 0
    name: str = ""

    def add(self, name: str, count: int = 1) -> None:
        """See it again."""
        self.count, self.name = self.count + count, self.name or name


@dataclass
class Palette:
    """A palette that mask files share: their number, the first of them, the numbers in use."""

    seen: Example = field(default_factory=Example)
    used: set[int] = field(default_factory=set)


@dataclass
class Survey:
    """What was seen.

    Attributes:
        images, masks, read: files whose headers, and masks whose pixels, were looked at.
        values: pixels by value (or packed colour), for each split and kind of mask.
        shades: pixels by packed colour of masks with a palette, for each split.
        few: masks by the one or two values that they hold, for each split and kind.
        holders: masks that hold a value, and the first of them, by kind and value.
        kinds: masks of each kind.
        palettes: palettes of masks, by their colours.
        edges, soft: pixels at edges, and those of them that are a ramp or alone, as anti-aliasing
            and JPEG make them.
        grey_colours: whether all colour masks have equal channels.
        lossy: masks in JPEG files.
        transparent, in_alpha, negative: masks with transparent pixels, those whose pixels differ in
            alpha alone, those with negative numbers.
        paged, images_paged: masks, and images, of several pages or frames.
        turned: images by EXIF data that only the image (``image``), only the mask, or both have.
        deep: images of more than 8 bits; ``low`` and ``high`` are their extreme values.
        unread, damaged: masks, and images, that cannot be read.
        mismatched: masks of another size than their images; the name says why, if that is known.
    """

    images: int = 0
    masks: int = 0
    read: int = 0
    values: dict[tuple[str, str], Counter[int]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    shades: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    few: Counter[tuple[str, str, tuple[int, ...]]] = field(default_factory=Counter)
    holders: dict[tuple[str, int], Example] = field(default_factory=dict)
    kinds: dict[str, Example] = field(default_factory=dict)
    palettes: dict[bytes, Palette] = field(default_factory=dict)
    edges: int = 0
    soft: int = 0
    grey_colours: bool = True
    lossy: Example = field(default_factory=Example)
    transparent: Example = field(default_factory=Example)
    in_alpha: Example = field(default_factory=Example)
    negative: Example = field(default_factory=Example)
    paged: Example = field(default_factory=Example)
    images_paged: Example = field(default_factory=Example)
    turned: dict[str, Example] = field(default_factory=dict)
    deep: Example = field(default_factory=Example)
    low: int | None = None
    high: int | None = None
    unread: Example = field(default_factory=Example)
    damaged: Example = field(default_factory=Example)
    mismatched: Example = field(default_factory=Example)
    _without_header: Path | None = None  # the last mask whose header cannot be read

    def merge(self, other: "Survey") -> None:
        """Add what another share of the files showed."""
        for name in ("images", "masks", "read", "edges", "soft"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for key, counts in other.values.items():
            self.values[key].update(counts)
        for split, counts in other.shades.items():
            self.shades[split].update(counts)
        self.few.update(other.few)
        for name in ("holders", "kinds", "turned"):
            mine = getattr(self, name)
            for key, example in getattr(other, name).items():
                mine.setdefault(key, Example()).add(example.name, example.count)
        for key, palette in other.palettes.items():
            self._palette(key, palette.seen.name, palette.used, palette.seen.count)
        for name in _EXAMPLES:
            theirs = getattr(other, name)
            getattr(self, name).add(theirs.name, theirs.count)
        self.grey_colours = self.grey_colours and other.grey_colours
        self.low, self.high = _least(self.low, other.low), _most(self.high, other.high)

    def of_kind(self, *kinds: str) -> Counter[int]:
        """Pixels by value in all masks of some kinds."""
        whole: Counter[int] = Counter()
        for (_, kind), counts in self.values.items():
            if kind in kinds:
                whole.update(counts)
        return whole

    def complete(self) -> bool:
        """Whether the pixels of all masks were looked at."""
        return self.read + self.unread.count >= self.masks

    def see_headers(self, item: Item) -> None:
        """Look at the headers of an image and of its mask."""
        self.images += 1
        try:
            image = header(item.image)
        except SegkeyError as error:
            image = None
            self.damaged.add(_with_reason(item.name, item.image, error))
        if image and image.deep:
            self.deep.add(item.name)
        if image and image.frames:
            self.images_paged.add(item.name)
        if not item.has_mask:
            return
        self.masks += 1
        file = item.mask
        name = file.name
        try:
            mask = header(file)
        except SegkeyError as error:
            self.unread.add(_with_reason(name, file, error))
            self._without_header = file
            return
        kind = kind_of(mask.mode, mask.bits)
        self.kinds.setdefault(kind, Example()).add(name)
        if mask.frames:
            self.paged.add(name)
        if mask.format == "JPEG":
            self.lossy.add(name)
        if kind == PALETTE:
            self._palette(palette_colours(mask.palette).tobytes(), name, set())
        if image:
            self._see_turned(image.turned, mask.turned, item.name)
            if upright_size(image) != upright_size(mask):
                sizes = [f"{w}x{h}" for w, h in map(upright_size, (mask, image))]
                why = f" (the mask is {sizes[0]}, its image {sizes[1]}{why_sizes_differ(item)})"
                self.mismatched.add(name + why)

    def _see_turned(self, image: int, mask: int, name: str) -> None:
        if image != mask:
            which = "image" if mask == 1 else "mask" if image == 1 else "apart"
            self.turned.setdefault(which, Example()).add(name)

    def _palette(self, key: bytes, name: str, used: set[int], count: int = 1) -> None:
        if key in self.palettes or len(self.palettes) < _MOST_PALETTES:
            palette = self.palettes.setdefault(key, Palette())
            palette.seen.add(name, count)
            palette.used |= used

    def see_pixels(self, item: Item, split: str) -> None:
        """Look at the pixels of a mask."""
        try:
            raw = raw_mask(item.mask)
        except SegkeyError as error:
            if item.mask != self._without_header:  # counted already
                self.unread.add(_with_reason(item.mask.name, item.mask, error))
            return
        self.read += 1
        values, counts = counted_values(raw.values)
        if len(values) > _MOST_COLOURS:
            order = np.argsort(counts)[::-1][:_MOST_COLOURS]
            values, counts = values[order], counts[order]
        self.values[split, raw.kind].update(
            dict(zip(values.tolist(), counts.tolist(), strict=True))
        )
        if len(values) <= 2:
            self.few[split, raw.kind, tuple(values.tolist())] += 1
        for value in values[:64].tolist():
            self.holders.setdefault((raw.kind, value), Example()).add(item.mask.name)
        if raw.kind == PALETTE:
            self._palette(raw.palette.tobytes(), item.mask.name, set(values.tolist()), 0)
            inside = values < len(raw.palette)
            shades = raw.palette[values[inside]].tolist()
            for colour, pixels in zip(shades, counts[inside].tolist(), strict=True):
                self.shades[split][colour] += pixels
        if raw.kind == COLOUR:
            self.grey_colours = self.grey_colours and grey_of(raw.values) is not None
        for name in ("transparent", "in_alpha", "negative"):
            if getattr(raw, name):
                getattr(self, name).add(item.mask.name)
        if raw.kind == COLOUR and len(values) > _FEW_COLOURS:
            return
        edges, soft = edges_of(raw.values)
        self.edges, self.soft = self.edges + edges, self.soft + soft

    def see_depth(self, item: Item) -> None:
        """Look at the values of an image of more than 8 bits."""
        try:
            picture = decode(item.image, deep_colours=True)
        except SegkeyError:
            return
        values = deep_values(picture)
        if values is not None or picture.mode in DEEP:
            low, high = picture.getextrema() if values is None else (values.min(), values.max())
            self.low, self.high = _least(self.low, int(low)), _most(self.high, int(high))


def _with_reason(name: str, file: Path, error: SegkeyError) -> str:
    why = error.what.removeprefix(f"{file}: ")
    return name if why == "not an image that can be read" else f"{name} ({why})"


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _most(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


@dataclass(frozen=True)
class _Task:
    """Some images of a split that are looked at together."""

    items: list[Item]
    split: str
    pixels: frozenset[str]  # names of those whose pixels are looked at
    headers: bool


def _look_at(task: _Task) -> Survey:
    """In a worker, perhaps."""
    seen = Survey()
    for item in task.items:
        before = seen.deep.count
        if task.headers:
            seen.see_headers(item)
        if item.name in task.pixels:
            if item.mask:
                seen.see_pixels(item, task.split)
            if seen.deep.count > before:
                seen.see_depth(item)
    return seen


def look(
    source: Source,
    every: bool = False,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Survey:
    """Look at a source: all headers, and the pixels of an even share of masks or of all.

    Args:
        source: from `segkey.data.sources.find`.
        every: look at the pixels of all masks.
        workers: processes, if there are many images.
        progress: hears of every image.
    """
    whole = Survey()
    count = 1 if len(source) < _IN_WORKERS else workers
    tasks = list(_tasks(source, every))
    mine = distributed.my_share(tasks)
    with (
        Workers(count) as pool,
        progress.task("look at the data", sum(len(task.items) for task in mine)) as advance,
    ):
        for task, seen in pool.map_ordered(_look_at, mine):
            whole.merge(seen)
            advance(len(task.items))
    if distributed.is_single():
        return whole
    gathered = Survey()
    for part in distributed.all_gather(whole):
        gathered.merge(part)
    return gathered


def _tasks(source: Source, every: bool) -> Iterator[_Task]:
    for split, items in source.splits.items():
        step = 1 if every else max(1, len(items) * len(source.splits) // SHARE)
        for start in range(0, len(items), _TASK):
            part = items[start : start + _TASK]
            chosen = (item.name for n, item in enumerate(part, start) if n % step == 0)
            yield _Task(part, split, frozenset(chosen), headers=True)
