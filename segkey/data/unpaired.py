"""Masks that no rule pairs with images, known by how tools name them: said with what to do."""

import re
from collections import Counter, defaultdict
from pathlib import Path

from segkey.data.found import Found
from segkey.data.items import Severity, Source, counted
from segkey.data.likely_masks import holds_classes, holds_numbers
from segkey.data.name_roles import folded, without_mask_word

_LABEL_STUDIO = re.compile(r"task-\d+-annotation-\d+-by-\d+-tag-(.+)-\d+")
_JOIN_LABELS = (
    "Label Studio writes one mask per label: draw those of a task into one array "
    "(mask[label > 0] = number), and save it under the image's name"
)
_LABELME = {"img", "label"}  # of labelme_json_to_dataset, in a folder per image
_SHARE = 3  # if one of so many images has a longer name than another, that is no accident
_LONGEST = 40  # characters of an ending
_CUT = 20_000  # names that are searched for endings


def say_unpaired(images: list[Found], source: Source) -> None:
    """Refuse images without masks if some of them are masks; each kind with its cure."""
    for kind in (_label_studio, _labelme_folders, _same_ending, _masks_alone):
        if found := kind(images):
            source.add(Severity.REFUSE, *found)
            return


def _label_studio(images: list[Found]) -> tuple[str, str] | None:
    named = [each for each in images if _LABEL_STUDIO.fullmatch(each.stem)]
    if not named:
        return None
    return f"{counted(len(named), 'mask')} of single labels, such as {named[0].name}", _JOIN_LABELS


def _labelme_folders(images: list[Found]) -> tuple[str, str] | None:
    stems: dict[Path, set[str]] = defaultdict(set)
    for each in images:
        stems[each.folder.path].add(folded(each.stem))
    folders = [folder for folder, held in stems.items() if held >= _LABELME]
    if not folders or 2 * len(folders) < len(stems):
        return None
    return (
        f"{counted(len(folders), 'folder')} with an img and a label, such as {folders[0].name}, as "
        f"labelme_json_to_dataset makes them",
        "make one data set of all with labelme's labelme2voc.py DATA OUT --labels labels.txt: it "
        "numbers classes alike in all masks",
    )


def _same_ending(images: list[Found]) -> tuple[str, str] | None:
    """Files that hold classes and whose names are those of others with one ending behind them."""
    keys = {folded(each.key) for each in images}
    named: dict[str, list[Found]] = defaultdict(list)
    looked = images[:: max(1, len(images) // _CUT)]
    for each in looked:
        key = folded(each.key)
        cuts = [cut for cut in range(max(1, len(key) - _LONGEST), len(key)) if key[:cut] in keys]
        # The shortest name that ends before a mark: not "1" of "10_mask", nor "a_x" of "a_x_mask".
        if cut := next((cut for cut in cuts if not key[cut].isalnum()), cuts[-1] if cuts else 0):
            named[key[cut:]].append(each)
    bare = len(looked) - sum(map(len, named.values()))
    often = {e: f for e, f in named.items() if _SHARE * len(f) >= bare and re.search(r"[a-z]", e)}
    # Of several, class numbers go before colours, and the shorter of two endings.
    for holds in (holds_numbers, holds_classes):
        for ending, those in sorted(often.items(), key=lambda each: (_rank(each[0]), each[0])):
            if holds(those[0].file):
                return _looks_like_masks(ending, those)
    return None


def _rank(ending: str) -> tuple[bool, int]:
    return "instance" in ending or "panoptic" in ending, "semantic" not in ending


def _looks_like_masks(ending: str, those: list[Found]) -> tuple[str, str]:
    given = f"'{ending}'" if " " in ending else ending
    return (
        f"{counted(len(those), 'image')} named as others with '{ending}' behind, such as "
        f"{those[0].name}: they look like masks",
        f"give --mask-suffix {given} if they are, or --masks none to take all files as images",
    )


def _masks_alone(images: list[Found]) -> tuple[str, str] | None:
    """Files that are named as masks and hold classes, and no image beside them."""
    words = [bool(without_mask_word(folded(e.key), among_images=True)[1]) for e in images]
    if not images or not all(words) or not all(holds_classes(e.file) for e in images[:3]):
        return None
    return (
        f"{counted(len(images), 'mask')}, by names such as {images[0].name}, and no images",
        "give the folder that holds the images too, or --masks none to take all files as images",
    )


class UnpairedMasks:
    """What masks that no rule pairs may be: looked through once, asked for each image."""

    def __init__(self, images: list[Found], masks: list[Found]):
        self._of_labels = any(_LABEL_STUDIO.fullmatch(mask.stem) for mask in masks)
        self._images = Counter(folder_of(image) for image in images)
        self._masks = Counter(folder_of(mask) for mask in masks)
        self._where = {folder_of(mask): mask.folder.path for mask in masks}

    def cure(self, image: Found) -> str:
        """What to do about an image without a mask if masks are of single labels or objects."""
        if self._of_labels:
            return _JOIN_LABELS
        folder = folder_of(image)
        if folder and self._images[folder] == 1 and self._masks[folder] > 1:
            return (
                f"{self._where[folder]} seems to hold a mask per object: merge them into one under "
                f"the image's name (numpy.maximum.reduce, if there is one class)"
            )
        return ""


def folder_of(each: Found) -> str:
    """The folder that an image and its mask share, below those that were understood."""
    return each.key.rpartition("/")[0]
