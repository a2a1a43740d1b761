"""What names of folders and files say: split, image or mask, and what an image and its mask share.

Folders are understood by their words, in any letter case: ``train``, ``Valid``, ``train_labels``,
``trainannot``, ``leftImg8bit``, ``SegmentationClass``. A word counts for a split if it stands in a
row of understood folders at the top, or beside one for images or masks, so that a class of images
called ``train`` is no split.
"""

import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePath

from segkey.data.formats import IMAGE_SUFFIXES

IMAGE, MASK, ASIDE = "image", "mask", "aside"
_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "pngimages", "leftimg8bit", "imagery"}
_IMAGES |= {"ortho", "orthos"}
_MASKS = {"masks", "mask", "labels", "label", "labelled", "labeled", "annotations", "annotation"}
_MASKS |= {"annot", "annots", "ann", "anns", "segmentationclass", "segmentationclasspng"}
_MASKS |= {"segmentation", "segmentations", "seg", "segs", "gt", "gts", "gtfine", "groundtruth"}
_MASKS |= {
    "stuffthingmaps",
    "manual",
    "trimaps",
    "targets",
    "segmentationclassraw",
    "segmentationclassaug",
    "labelids",
}
_ASIDE = {"segmentationobject", "segmentationclassvisualization", "segmentationobjectpng"}
_ASIDE |= {"segmentationclassnpy", "segmentationobjectnpy", "gtcoarse", "overlays", "overlay"}
_ASIDE |= {"panoptic", "instances", "instance", "colormaps", "colormap"}
_ASIDE |= {"maskshuman", "segmentationobjectvisualization", "visualization", "visualizations"}

# Names of several words that mean something else than their parts.
_TOGETHER = {
    "groundtruth": ["groundtruth"],
    "trainval": ["train"],
    "semantic": ["labels"],  # KITTI's; beside other words it says nothing
    "imagestr": ["images", "train"],  # nnU-Net's
    "imagests": ["images", "test"],
    "labelstr": ["labels", "train"],
    "labelsts": ["labels", "test"],
    "maskshuman": ["maskshuman"],  # Supervisely's, in colours; its masks_machine hold numbers
}

# Words that say nothing beside one of the above.
_NEUTRAL = set(
    [
        "png",
        "jpg",
        "tif",
        "raw",
        "fine",
        "binary",
        "class",
        "classes",
        "ids",
        "id",
        "map",
        "maps",
        "new",
        "resized",
        "data",
        "set",
        "dir",
        "1st",
    ]
)
_NEUTRAL |= set(
    [
        "dataset",
        "files",
        "pixel",
        "semantic",
        "sem",
        "human",
        "machine",
        "gray",
        "grey",
        "256",
        "512",
        "1024",
        "all",
        "only",
    ]
)
_PICTURES = {"color", "colors", "colour", "colours", "coloured", "colored", "vis", "viz", "visual"}
_PICTURES |= {"instance", "instances", "rgb", "overlay", "preview"}  # of masks

# What a file's name has behind (or in front of) the part that an image and its mask share. Where
# several masks fit one image, the first of these wins.
_BETTER_MASKS = ("gtfine labeltrainids", "labeltrainids", "gtfine labelids", "labelids")
_BETTER_MASKS += (
    "manual1",
    "1stho",
)  # DRIVE's mask is the field of view; others are second observers
_MASK_WORDS = (*_BETTER_MASKS, "mask", "masks", "seg", "segmentation", "label", "labels", "gt")
_MASK_WORDS += (
    "annotation",
    "annot",
    "ann",
    "groundtruth",
    "ground truth",
    "matte",
    "lab",
    "target",
    "l",
)
_IMAGE_WORDS = ("leftimg8bit", "image", "img", "rgb", "sat", "photo", "im", "input", "original")
# DRIVE: 21_training.tif, 21_manual1.gif; nnU-Net: case_0000.png of its first channel, case.png
_IMAGE_WORDS += ("training", "test", "0000")


@dataclass(frozen=True, slots=True)  # there may be a million
class Place:
    """What a file's path below a folder says.

    Attributes:
        split: ``train``, ``val`` or ``test``, if its folders name one.
        role: `IMAGE`, `MASK`, or `ASIDE` for pictures that are neither; None if nothing says so.
        key: its path without the folders that were understood and without the suffix.
    """

    split: str | None
    role: str | None
    key: str


def place_of(path: PurePath) -> Place:
    """What a path, relative to the folder that was given, says about a file."""
    split, role, kept = told_by(path.parts[:-1])
    return Place(split, role, kept + path.stem)


@functools.lru_cache(maxsize=1 << 12)
def told_by(parts: tuple[str, ...]) -> tuple[str | None, str | None, str]:
    """The split and the role that folders tell, and those that tell nothing, each with ``/``."""
    folders = [understood(part) for part in parts]
    kept, split, role, in_row = [], None, None, True
    for number, (part, told) in enumerate(zip(parts, folders, strict=True)):
        in_row = in_row and told is not None
        beside = any(
            each and each[1]
            for each in (*folders[number - 1 : number], *folders[number + 1 : number + 2])
        )
        if told is None or not (told[1] or in_row or beside):
            kept.append(part + "/")
            continue
        split, role = told[0] or split, told[1] or role
    return split, role, "".join(kept)


@functools.lru_cache(maxsize=1 << 14)
def understood(folder: str) -> tuple[str | None, str | None] | None:
    """The split and the role that a folder's name tells; None if it tells neither."""
    name = folder.casefold()
    words = re.split(r"[\s_.-]+", name)
    joined = re.fullmatch(r"(train|val|test)(annot|annots|mask|masks|label|labels|images?)", name)
    words = list(joined.groups()) if joined else words
    words = _TOGETHER.get("".join(words), words)
    words = [re.sub(r"^(train|val|test)\d{4}$", r"\1", word) for word in words]  # COCO's years
    splits = {_SPLITS[word] for word in words if word in _SPLITS}
    roles = {role for word in words if (role := _role(word))}
    pictures = MASK in roles and bool(_PICTURES & set(words))
    known = _SPLITS.keys() | _NEUTRAL | (_PICTURES if pictures or IMAGE in roles else set())
    if not (splits or roles) or any(not (w in known or w.isdigit() or _role(w)) for w in words):
        return None
    if len(splits) > 1 or (not roles and len(words) > 1 and not splits):
        return None
    role = next((role for role in (ASIDE, MASK, IMAGE) if role in roles), None)
    return next(iter(splits), None), ASIDE if pictures else role


def _role(word: str) -> str | None:
    for words, role in ((_IMAGES, IMAGE), (_MASKS, MASK), (_ASIDE, ASIDE)):
        if word in words:
            return role
    return None


def folded(key: str) -> str:
    """A key in one Unicode form and letter case: file systems and tools differ in both."""
    return unicodedata.normalize("NFC", key).casefold()


def without_image_word(key: str) -> str:
    """A folded key without ``_leftImg8bit``, ``_sat``, ``img_`` and the like."""
    return _stripped(key, _IMAGE_WORDS)[0]


def without_mask_word(key: str, among_images: bool = False) -> tuple[str, str]:
    """A folded key without ``_mask``, ``_labelIds``, ``.jpg`` and the like, and what was there.

    ``among_images``: in a folder of images, where ``_L`` may be a left view, it is no such word.
    """
    return _stripped(key, _MASK_WORDS if not among_images else _MASK_WORDS[:-3])


def rank_of(word: str) -> int:
    """Which of several masks for one image is taken: the one of the lowest rank."""
    name = word.strip("_-. ").replace("_", " ")
    return _BETTER_MASKS.index(name) if name in _BETTER_MASKS else len(_BETTER_MASKS)


@functools.cache
def _patterns(words: tuple[str, ...]) -> tuple[re.Pattern, ...]:
    """A word behind a name, perhaps behind an image's suffix; that suffix; a word in front."""
    spelled = "|".join(word.replace(" ", "[_ ]?") for word in words)
    suffixes = "|".join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))
    behind = rf"(.+?)((?:{suffixes})?[_\-. ](?:{spelled})(?:[_-]\d+)?)"
    front = rf"(?P<word>(?:{spelled})(?:[_\-. ]|(?=\d)))(?P<rest>.+)"
    return tuple(map(re.compile, (behind, rf"(.+?)((?:{suffixes}))", front)))


def _stripped(key: str, words: tuple[str, ...]) -> tuple[str, str]:
    head, _, stem = key.rpartition("/")
    prefix = head + "/" if head else ""
    *behind, front = _patterns(words)
    for pattern in behind:
        if match := pattern.fullmatch(stem):
            return prefix + match[1], match[2]
    if match := front.fullmatch(stem):
        return prefix + match["rest"], match["word"]
    return key, ""
