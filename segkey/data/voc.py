"""PASCAL VOC devkits, and what other tools export in their layout."""

import re
from pathlib import Path

from segkey.data import formats
from segkey.data.items import ALL, Item, Problem, Source, counted
from segkey.data.layouts import hash_of
from segkey.data.name_roles import understood
from segkey.data.names import leads_out
from segkey.data.walking import Walk
from segkey.errors import SegkeyError
from segkey.system.files import read_text

_MAX_LIST_BYTES = 64 << 20
_LISTS = ("train", "val", "test")
_WHOLE = ("default", "trainval", "train", "all")  # of other tools: one list, to be dealt out
_MASKS = ("SegmentationClass", "SegmentationClassPNG")
_NO_IMAGES = (
    "put the images into JPEGImages; tools export masks alone unless told otherwise (CVAT: 'Save "
    "images')"
)
VOC_CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
]  # fmt: skip


def voc_root(path: Path) -> Path | None:
    """The folder of a VOC devkit that holds ImageSets: ``path``, or the newest VOC20xx below it."""
    below = (sorted(path.glob(pattern), reverse=True) for pattern in ("VOC20*", "VOCdevkit/VOC20*"))
    for root in (path, *(folder for folders in below for folder in folders)):
        if next((root / "ImageSets" / "Segmentation").glob("*.txt"), None):
            return root
    return None


def is_voc(source: Source) -> bool:
    """Whether a devkit is PASCAL VOC itself, and not another tool's export in its layout."""
    if re.fullmatch(r"VOC20\d\d", source.root.resolve().name):
        return True
    names = [item.image.stem for item in source.items[:20]]
    return bool(names) and all(re.fullmatch(r"20\d\d_\d{6}", name) for name in names)


def find_voc(root: Path) -> Source:
    """A devkit as it is split.

    Lists train, val and test are taken as they are. VOC's own train and val are split as in the
    paper: 90 % of train are train, 10 % val; val is test. One list alone is dealt out.
    """
    return _Devkit(root).source()


class _Devkit:
    """Reads the lists of a devkit and finds what they name."""

    def __init__(self, root: Path):
        self.root = root
        self.found = Source(root, "PASCAL VOC devkit", {})
        self.images = self._by_name(["JPEGImages", "PNGImages"])
        self.masks = self._by_name(_MASKS)
        self.unused = dict(self.masks)

    def source(self) -> Source:
        lists = self._lists()
        for split, names in self._dealt(lists).items():
            if items := [item for item in map(self._item, names) if item]:
                self.found.splits[split] = items
        self._say_unlisted()
        return self.found

    def _lists(self) -> dict[str, list[str]]:
        folder = self.root / "ImageSets" / "Segmentation"
        self.files = _lists_in(folder)
        names = self.files.keys()
        if names.isdisjoint(_WHOLE) and names.isdisjoint(_LISTS):
            if len(names) > 1:
                raise SegkeyError(
                    f"{folder} holds none of "
                    f"{', '.join(f'{n}.txt' for n in (*_LISTS, *_WHOLE[:2]))}",
                    "name the lists of the splits train.txt, val.txt and test.txt",
                )
            (only,) = names  # CVAT names the list as its subset is called
            return {ALL: self._list(only)}
        known = [name for name in _LISTS if name in names]
        ours = re.fullmatch(r"VOC20\d\d", self.root.resolve().name) and known == ["train"]
        if (
            known in (["train"], [])
            and not ours
            and (whole := [name for name in _WHOLE if name in names])
        ):
            return {ALL: self._list(whole[0])}
        return {name: self._list(name) for name in known}

    def _dealt(self, lists: dict[str, list[str]]) -> dict[str, list[str]]:
        if ALL in lists or any(name in self.masks for name in lists.get("test", ())):
            return lists
        if not {"train", "val"} <= lists.keys():
            missing = "train" if "train" not in lists else "val"
            file = self.root / "ImageSets" / "Segmentation" / f"{missing}.txt"
            raise SegkeyError(f"{file}: No such file or directory", "restore it, or check the path")
        train, test = lists["train"], lists["val"]
        count = max(round(len(train) / 10), 1 if len(train) > 1 else 0)
        val = set(sorted(train, key=hash_of)[:count])
        return {
            "train": [name for name in train if name not in val],
            "val": sorted(val),
            "test": test,
        }

    def _list(self, name: str) -> list[str]:
        file = self.files[name]
        try:
            lines = read_text(file, limit=_MAX_LIST_BYTES, follow=True).splitlines()
        except ValueError:
            raise SegkeyError(
                f"{file} is not a list of names", "restore it from the VOC archive"
            ) from None
        return sorted({self._name(line.strip()) for line in lines if line.strip()})

    def _name(self, line: str) -> str:
        """A line of a list: a name, which may have spaces or a suffix, or a name and a flag."""
        name = line.removeprefix("JPEGImages/").removeprefix("/JPEGImages/")
        for each in (name, name.rsplit(".", 1)[0], name.split()[0]):
            if each in self.images or each in self.masks:
                return each
        return name

    def _by_name(self, folders: list[str] | tuple[str, ...]) -> dict[str, Path]:
        """Files of images below some folders, by their paths without suffix."""
        found: dict[str, Path] = {}
        for folder in (self.root / name for name in folders):
            for file in Walk(folder) if folder.is_dir() else ():
                if formats.is_image(file.suffix):
                    found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)
        return found

    def _item(self, name: str) -> Item | None:
        """The image of that name with its mask, or None and a problem."""
        if leads_out(name):
            why = "the list names an image outside of JPEGImages"
            self.found.problems.append(Problem(f"{name}.jpg", why))
            return None
        image, mask = self.images.get(name), self.masks.get(name)
        wanted = (image, f"JPEGImages/{name}.jpg"), (mask, f"SegmentationClass/{name}.png")
        if missing := [text for file, text in wanted if not file]:
            why = f"{' and '.join(missing)} missing"
            cure = "" if self.images else _NO_IMAGES
            self.found.problems.append(Problem(f"{name}.jpg", why, cure))
            return None
        self.unused.pop(name, None)
        return Item(image.relative_to(self.root).as_posix(), image, mask)

    def _say_unlisted(self) -> None:
        if self.unused:
            self.found.note(
                f"{counted(len(self.unused), 'mask')} in no list of {self.root}/ImageSets/"
                f"Segmentation, such as {min(self.unused)}"
            )
        unread = sorted(self.files.keys() - {*_LISTS, *_WHOLE}) if len(self.files) > 1 else []
        if unread:
            self.found.note(
                f"lists not read: {', '.join(f'{name}.txt' for name in unread)}",
                "a list of images, a tab, masks may be given instead of the folder",
            )


def _lists_in(folder: Path) -> dict[str, Path]:
    """Lists by what they are called; CVAT's ``Train.txt`` and ``Validation.txt`` by their split."""
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.txt"), key=lambda file: (file.stem not in _LISTS, file)):
        told = understood(file.stem)
        split = told[0] if told and not told[1] and file.stem.lower() not in _WHOLE else None
        files.setdefault(split or file.stem.lower(), file)
    return files
