"""Files that are no images: counted by kind with an example, and annotations that hold masks.

Annotations of other tools (COCO, YOLO, labelme, CVAT) are not read: whether polygons overlap, which
class wins and what void is are decisions that belong to their owner. They are recognised, and the
conversion to run is named.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from segkey.data.formats import ARCHIVES, PLUGINS, UNREAD
from segkey.data.items import Severity, Source, counted
from segkey.data.labels import FILES as LABEL_FILES
from segkey.errors import SegkeyError
from segkey.system.files import open_regular

_HEAD = 1 << 16  # bytes at either end of a file that are looked at
_LOOKED_AT = 64  # files per kind
_SPLIT_LISTS = {
    f"{split}.{kind}"
    for split in ("train", "val", "valid", "test")
    for kind in ("txt", "csv", "lst")
}


@dataclass(frozen=True)
class _Annotations:
    """A way to store polygons, boxes or runs instead of masks: what to call it, what to run."""

    name: str
    cure: str


_COCO = _Annotations(
    "COCO annotations (polygons)",
    "make masks of them with pycocotools: for each image, mask = np.maximum.reduce("
    "[coco.annToMask(a) * a['category_id'] for a in coco.loadAnns(coco.getAnnIds(image_id))])",
)
_YOLO = _Annotations(
    "YOLO labels (polygons or boxes in text files)",
    "export as semantic masks (Roboflow: 'Semantic Segmentation Masks'), or draw polygons with "
    "PIL.ImageDraw.Draw(mask).polygon(points, fill=class + 1)",
)
_LABELME = _Annotations(
    "labelme annotations (polygons)",
    "convert them with labelme's labelme2voc.py DATA OUT --labels labels.txt, then encrypt OUT",
)
_CVAT = _Annotations(
    "CVAT annotations (polygons)",
    "export the task from CVAT again as 'Segmentation mask 1.1'",
)
_BOXES = _Annotations(
    "PASCAL VOC annotations of boxes (XML)", "boxes are no masks; export segmentation masks"
)
_RUNS = _Annotations(
    "masks as runs of pixels in a CSV (Kaggle's run-length encoding)",
    "draw them: for each image, mask.reshape(-1, order='F')[start - 1 : start - 1 + length] = "
    "class for each pair of its runs, and save the mask as PNG under the image's name",
)
_SHAPES = _Annotations(
    "annotations of polygons (JSON)", "export masks of class numbers as PNG from the tool again"
)


_ARRAYS = "PIL.Image.fromarray({load}.astype('uint8')).save(NAME + '.png') saves one"
_SLICES = (
    "save their slices: images as PNG, masks as 8-bit PNG of class numbers under the same names"
)
_UNREAD_CURES = {  # of kinds that are no pictures for a converter
    ".npy": _ARRAYS.format(load="numpy.load(FILE)"),
    ".npz": _ARRAYS.format(load="numpy.load(FILE)[KEY]"),
    ".mat": _ARRAYS.format(load="scipy.io.loadmat(FILE)[KEY]"),
    **dict.fromkeys((".nii", ".nii.gz", ".nrrd", ".mha", ".dcm"), _SLICES),
    **dict.fromkeys((".svg", ".pdf", ".eps"), "draw them as PNG, without anti-aliasing if masks"),
    **dict.fromkeys(ARCHIVES, "unpack it, and give its folder"),
}


@dataclass
class Others:
    """Files below a folder that are not used as images.

    Attributes:
        folder: where.
        again: links to folders that were walked through already.
        masks: masks, where only pictures are wanted.
    """

    folder: Path
    again: list[Path] = field(default_factory=list)
    masks: int = 0
    _kinds: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, Path] = field(default_factory=dict)
    _annotations: Counter[_Annotations] = field(default_factory=Counter)
    _lists: list[str] = field(default_factory=list)
    _looked_at: Counter[str] = field(default_factory=Counter)

    def add(self, file: Path) -> None:
        """Count a file."""
        if file.name in LABEL_FILES:  # said when it is read
            return
        if file.name.lower() in _SPLIT_LISTS and file.parent == self.folder:
            self._lists.append(file.name)
        kind = ".nii.gz" if file.name.lower().endswith(".nii.gz") else file.suffix.lower()
        self._kinds[kind] += 1
        self._examples.setdefault(kind, file)
        if kind in (".json", ".xml", ".txt", ".csv") and self._looked_at[kind] < _LOOKED_AT:
            self._looked_at[kind] += 1
            if found := _annotations_in(file):
                self._annotations[found] += 1
                self._examples.setdefault(found.name, file)

    @property
    def holds_annotations(self) -> bool:
        """Whether polygons, boxes or runs were found, which are told."""
        return bool(self._annotations)

    def tell(self, source: Source, with_masks: bool) -> None:
        """Add what was counted to the findings of a source."""
        kinds = [kind for kind in self._kinds if not _is_unread(kind)]
        count = self.masks + sum(self._kinds[kind] for kind in kinds)
        if count:
            shown = [f"{self._kinds[k]} {k or 'without a suffix'}" for k in kinds[:6]]
            shown += [counted(self.masks, "mask")] if self.masks else []
            source.note(
                f"{counted(count, 'other file')} in {self.folder} ignored ({', '.join(shown)}"
                f"{', …' if len(kinds) > 6 else ''})"
                + (f", such as {self._shown(kinds[0])}" if kinds else "")
            )
        self._tell_unread(source)
        for link in self.again[:3]:
            source.note(f"{link} leads to a folder that was looked through already: not followed")
        if not with_masks:
            self._tell_annotations(source)
        elif self._lists:
            source.add(
                Severity.WARN,
                f"{', '.join(self._lists[:4])} not read: splits come from folders, or are "
                "dealt out",
                "put images into train/, val/ and test/, or give a list of images and masks "
                "(image, a tab, its mask) instead of the folder",
            )

    def _tell_unread(self, source: Source) -> None:
        for kind in filter(_is_unread, self._kinds):
            package = PLUGINS.get(kind, "").replace("_", "-")
            source.add(
                Severity.WARN,
                f"{counted(self._kinds[kind], f'{kind} file')} not read, such as "
                f"{self._shown(kind)}",
                f"pip install {package}, or convert them to JPEG or PNG"
                if package
                else _UNREAD_CURES.get(kind, "convert them to PNG or TIFF (images also to JPEG)"),
            )

    def _tell_annotations(self, source: Source) -> None:
        for found, _ in self._annotations.most_common(2):
            example = self._shown(found.name)
            source.add(
                Severity.WARN, f"{found.name} are there but no masks, such as {example}", found.cure
            )

    def _shown(self, kind: str) -> str:
        return self._examples[kind].relative_to(self.folder).as_posix()


def _is_unread(kind: str) -> bool:
    return kind in PLUGINS or kind in UNREAD or kind in ARCHIVES


def _annotations_in(file: Path) -> _Annotations | None:
    """What annotations a file holds, by a look at its beginning and its end."""
    try:
        with open_regular(file, follow=True) as opened:
            head = opened.read(_HEAD)
            opened.seek(0, 2)
            opened.seek(max(0, opened.tell() - _HEAD))
            text = (head + opened.read(_HEAD)).decode("utf-8", "replace")
    except (OSError, SegkeyError):
        return None
    if file.suffix.lower() == ".csv":
        titles = text.partition("\n")[0].lower()
        return _RUNS if re.search(r"rle|encoded_?pixels|run_?length", titles) else None
    if file.suffix.lower() == ".txt":
        return _YOLO if _is_yolo(text) else None
    if file.suffix.lower() == ".xml":
        return _CVAT if "<image " in text else _BOXES if "<bndbox>" in text else None
    return _in_json(text)


def _in_json(text: str) -> _Annotations | None:
    keys = set(re.findall(r'"(\w+)"\s*:', text))
    if {"annotations", "categories"} <= keys or {"category_id", "segmentation"} <= keys:
        return _COCO
    if "shapes" in keys and {"imagePath", "imageData"} & keys:
        return _LABELME
    return _SHAPES if keys & {"polygon", "points", "all_points_x", "regions", "objects"} else None


def _is_yolo(text: str) -> bool:
    """Whether lines are a class number and at least four numbers from 0 to 1."""
    lines = [line.split() for line in text.splitlines()[:20] if line.strip()]
    return bool(lines) and all(
        len(line) >= 5
        and line[0].isdigit()
        and all(re.fullmatch(r"[01](\.\d+)?(e-\d+)?|0?\.\d+", part) for part in line[1:])
        for line in lines[:-1] or lines
    )
