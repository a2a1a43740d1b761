"""Options of ``segkey encrypt`` and ``check`` that say how images and masks are taken in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from segkey.cli import options, parsing
from segkey.cli.options import OUTPUT, flag, option

_MASKS = "Masks"
Masks = Annotated[
    Path | None,
    option(
        "--masks",
        "FOLDER",
        "Read masks from this folder instead of those beside or among IMAGES; none takes all "
        "files as images.",
        _MASKS,
    ),
]
MaskSuffix = Annotated[
    str | None,
    option(
        "--mask-suffix",
        "TEXT",
        "Pair a.jpg with aTEXT.png, such as _mask, or with a.png if TEXT is .png.",
        _MASKS,
    ),
]
Classes = Annotated[
    Path | None,
    option(
        "--classes",
        "FILE",
        "Read class names from this file: one per line, or as labelme, CVAT, Roboflow and "
        "ADE20K write them.",
        _MASKS,
    ),
]
Colours = Annotated[
    Path | None,
    option(
        "--colors",
        "FILE",
        "Read the colour of each class in masks from this file: 'name red green blue' per "
        "line, CVAT's labelmap.txt, or a CSV.",
        _MASKS,
    ),
]
Map = Annotated[
    list[str] | None,
    option(
        "--map",
        "MAP",
        "Read values of masks as classes: 255=1, 0-127=0, 26=car, 7=void, a CSV with the "
        "columns from and to, cityscapes, or numbers if they are class numbers as they stand.",
        _MASKS,
    ),
]
IgnoreIndex = Annotated[
    str | None,
    option(
        "--ignore-index",
        "N",
        "Treat this value of masks as void instead of 255; several as 0,255, or none.",
        _MASKS,
    ),
]
PixelRange = Annotated[
    str,
    option(
        "--range",
        "RANGE",
        "Take 16-bit images as 8, 10, 12 or 16 bits, or LO:HI; auto looks at their values.",
    ),
]
SplitRatio = Annotated[
    str | None,
    option(
        "--split-ratio",
        "RATIO",
        "Split images by a hash of their names into TRAIN/VAL/TEST per cent, or 'all'; by "
        "default 80/10/10 if images have masks and no split folders.",
    ),
]
DataSheet = Annotated[
    Path | None,
    option("--sheet", "FILE", "Draw some images under the classes of their masks, as PNG.", OUTPUT),
]


@dataclass(frozen=True)
class DataGiven:
    """How data is to be taken in."""

    split: SplitRatio = None
    pixel_range: PixelRange = "auto"
    masks: Masks = None
    mask_suffix: MaskSuffix = None
    classes: Classes = None
    colours: Colours = None
    mapping: Map = None
    ignore_index: IgnoreIndex = None


@dataclass(frozen=True)
class Storing:
    """What of the images is stored."""

    size: options.Size = "256"
    views: Annotated[
        int | None,
        option(
            "--views",
            "N",
            "Store N augmented copies (random crop and flip) per training image, or the image "
            "itself if N is 1; by default 4 if images are encrypted and have masks, otherwise 1.",
            min=1,
        ),
    ] = None
    crop_scale: Annotated[
        float,
        option(
            "--crop-scale",
            "X",
            "Crop augmented copies to at least this fraction of the image's area.",
        ),
    ] = 0.25
    exact_decode: Annotated[
        bool,
        flag(
            "--exact-decode",
            "Decode every pixel of large JPEGs, which takes three times as long, instead of "
            "at least twice the wanted size.",
        ),
    ] = False
    seed: options.Seed = 0
    shard_size: Annotated[
        float, option("--shard-size", "GB", "Cut shards at this size.", OUTPUT)
    ] = 1.0
    channels: Annotated[
        int,
        option(
            "--channels",
            "N",
            "Read images as 3 channels (RGB), 1 (grey), or 4 (files of four bands, such as "
            "RGB and near infrared).",
            min=1,
        ),
    ] = 3

    def plan(self, source, out: Path, cipher):
        """The shards to be made of a source in a folder: `segkey.shards.encryption.plan_shards`."""
        from segkey.shards import encryption

        return encryption.plan_shards(
            source,
            out,
            cipher,
            parsing.parse_size(self.size),
            self.views,
            self.seed,
            self.crop_scale,
            self.shard_size * 10**9,
            self.exact_decode,
        )
