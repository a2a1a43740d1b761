"""What is unusual about an image and changes its pixels on decoding; counted, one line per kind."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from PIL import Image

from segkey.data.items import Finding, Severity, counted

Peculiarities = set[str]  # of one image: keys of _LINES

_SAMPLES = 277  # the TIFF tag: bands
_LEAST_CLEAR = 0.5  # of the pixels of a true alpha are 0 or 255
_EXTRA_SAMPLES = 338  # the TIFF tag: 1 is associated alpha, 2 unassociated, 0 anything
_LINES = {
    "frames": ("{n} of several frames or pages: only the first is used", ""),
    "transparent": (
        "{n} with transparent pixels: shown on black",
        "remove the alpha channel if what is under it should be seen",
    ),
    "fourth band": (
        "{n} with a fourth band that is no transparency (near infrared, say): only red, green and "
        "blue are used",
        "",
    ),
    "beyond": (
        "{n} with values beyond the range of pixel values: cut to it",
        "give the range with --range LO:HI",
    ),
    "dark": (
        "{n} of 16 bits whose values are all below a sixteenth of the range: nearly black",
        "give their range with --range, such as --range 12",
    ),
    "scaled": (
        "{n} decoded at a fraction of the size, to at least twice what is wanted (encrypt "
        "--exact-decode decodes every pixel)",
        "",
    ),
    "unknown band": (
        "{n} with more bands than three and no word of what they are: only the first three are "
        "used",
        "",
    ),
}


def has_frames(picture: Image.Image) -> bool:
    """Whether a file holds more images than the first.

    A telephone's second picture for depth or a preview (MPO) does not count.
    """
    if picture.format == "MPO":
        return False
    return getattr(picture, "n_frames", 1) > 1


def summed_up(each: Peculiarities) -> Peculiarities:
    """What is said of an image, from what its strips showed."""
    if "dim" in each and "bright" not in each:
        each = each | {"dark"}
    return each & _LINES.keys()


def opened_tiff(picture: Image.Image, peculiar: Peculiarities) -> Image.Image:
    """A TIFF whose "associated alpha" is no alpha, as RGB; other images as they are.

    Pillow divides colours by associated alpha. In a true one no colour is larger than its alpha,
    and most pixels are opaque or clear; a near-infrared band under that name makes other colours.
    """
    if picture.format != "TIFF" or picture.mode not in ("RGBA", "RGB", "RGBX"):
        return picture
    extra = tuple(picture.tag_v2.get(_EXTRA_SAMPLES, ()))
    if picture.mode != "RGBA" and picture.tag_v2.get(_SAMPLES, 3) > 3:
        peculiar.add("unknown band")
    if picture.mode != "RGBA":
        return picture
    picture.tile = [tile._replace(args=_raw(tile.args)) for tile in picture.tile]
    exif = picture.getexif().tobytes() if picture.getexif() else None
    picture.load()
    bands = np.asarray(picture)
    divided = extra[:1] == (1,)
    above = divided and (bands[..., :3].max(axis=2) > bands[..., 3]).any()
    if above or np.isin(bands[..., 3], (0, 255)).mean() < _LEAST_CLEAR:
        told = Image.fromarray(np.ascontiguousarray(bands[..., :3]))
        peculiar.add("fourth band")
    elif divided:
        told = Image.frombytes("RGBa", picture.size, bands.tobytes()).convert("RGBA")
    else:
        return picture
    if exif:
        told.info["exif"] = exif
    told.format = "TIFF"
    return told


def _raw(args: object) -> object:
    """A decoder's arguments with values as they are, where they would be divided by alpha."""
    if isinstance(args, tuple):
        return tuple("RGBA" if arg in ("RGBa", "RGBX") else arg for arg in args)
    return "RGBA" if args in ("RGBa", "RGBX") else args


def lines(counts: Counter[str], examples: dict[str, str], total: int) -> Iterable[Finding]:
    """One finding per kind of peculiarity.

    Args:
        counts: images by kind.
        examples: the name of one, by kind.
        total: images looked at.
    """
    for kind, (text, cure) in _LINES.items():
        if not counts[kind]:
            continue
        said = text.format(n=counted(counts[kind], "image"))
        severity = Severity.WARN if cure else Severity.NOTE
        yield Finding(severity, f"{said}, such as {examples[kind]} (of {total})", cure)
