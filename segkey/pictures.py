"""One picture at a time: decode, turn upright, resize, augment. Pillow and NumPy only."""

import hashlib
import math
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from segkey.errors import SegkeyError
from segkey.files import open_regular

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
MASK_SUFFIXES = {".png", ".bmp", ".tif", ".tiff"}
# What files are taken for, whatever their names say; Pillow knows many more formats, and starts Ghostscript for one.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 50_000_000  # decoding then takes under 1 GB in every format; a bomb is refused by its header
_MAX_SCANS = 100  # of a progressive JPEG; a dozen is usual, and every one costs a pass over all pixels in a few bytes

_ORIENTATION = 0x0112  # the EXIF tag
_SEVERAL = {".gif", ".png", ".tif", ".tiff", ".webp"}  # kinds of file that can hold several pictures
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N", "I"}


class _QuietPillow:
    """While any thread is in it, Pillow does not warn: sizes are checked here, the rest is about harmless metadata.

    `warnings.catch_warnings` in each thread would not do: threads that overlap give each other's filters back, and one
    that ignores everything stays behind and swallows all later warnings.
    """

    def __init__(self):
        self._lock, self._inside, self._caught = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(*error)


_QUIET_PILLOW = _QuietPillow()
if hasattr(os, "register_at_fork"):  # a process that forks while a thread is in it leaves the child a lock nobody opens
    os.register_at_fork(after_in_child=_QUIET_PILLOW.__init__)


def _decode(path: Path) -> Image.Image:
    """Read a file as a picture of at most `MAX_PIXELS`.

    Raises:
        SegkeyError: no picture, a picture too large, or a file that cannot be read.
    """
    too_large = SegkeyError(f"{path}: too many pixels", f"segkey reads up to {MAX_PIXELS // 10**6} megapixels")
    try:
        if path.exists() and not path.is_file():
            raise SegkeyError(f"{path}: not a file")
        # Opened here, as Pillow would map uncompressed TIFFs into memory and then turn them wrongly.
        with open_regular(path, follow=True) as file, _QUIET_PILLOW:
            picture = Image.open(file, formats=_FORMATS)
            if picture.width * picture.height > MAX_PIXELS:
                raise too_large
            if "progressive" in picture.info and _count_scans(path) > _MAX_SCANS:
                raise SegkeyError(f"{path}: a JPEG of more than {_MAX_SCANS} scans", "save it again")
            picture.load()
            return picture
    except SegkeyError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except UnidentifiedImageError:
        raise SegkeyError(f"{path}: not an image that can be read") from None
    except OSError as error:
        raise SegkeyError(f"{path}: {error.strerror or f'truncated or damaged ({error})'}".replace("\n", " ")) from None
    except Exception as error:  # decoders of damaged files raise whatever they meet
        raise SegkeyError(f"{path}: truncated or damaged ({type(error).__name__})") from None


def _count_scans(path: Path) -> int:
    """How often a JPEG begins a scan, at most; read in parts, as there may be gigabytes behind the picture."""
    count, last = 0, b""
    with open_regular(path, follow=True) as file:
        while part := file.read(1 << 20):
            count, last = count + (last + part).count(b"\xff\xda"), part[-1:]
    return count


def load_image(path: Path) -> Image.Image:
    """Decode an image as upright 8-bit RGB, whatever its mode; 16-bit values keep their upper 8 bits."""
    return to_rgb(_decode(path), path)


def is_animated(path: Path) -> bool:
    """Whether a file that `load_image` takes holds more pictures than the first, which is all it takes."""
    if path.suffix.lower() not in _SEVERAL:
        return False
    try:
        with open_regular(path, follow=True) as file, Image.open(file, formats=_FORMATS) as picture:
            return getattr(picture, "n_frames", 1) > 1
    except Exception:  # what decoders raise on a damaged second picture; the first one was fine
        return True


def to_rgb(picture: Image.Image, path: Path | str) -> Image.Image:
    """A picture as `load_image` gives it; ``path`` names it in errors."""
    try:
        if picture.mode in _SIXTEEN_BIT:
            upper = _by_strips(picture, lambda values: np.clip(values, 0, 65535) >> 8)
            picture = _keep_orientation(Image.fromarray(upper), picture)
        elif picture.mode == "F":
            raise SegkeyError(f"{path}: floating-point pixels have no known range", "save the image with 8 or 16 bits")
        if picture.getexif().get(_ORIENTATION, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        return picture if picture.mode == "RGB" else picture.convert("RGB")  # both would copy without need
    except SegkeyError:
        raise
    except Exception as error:
        raise SegkeyError(f"{path}: cannot be converted to RGB ({error})") from None


def _by_strips(picture: Image.Image, narrow: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What ``narrow`` makes of a picture's values, as uint8 (H, W); at once, NumPy's copies would take four pictures."""
    width, height = picture.size
    result = np.empty((height, width), np.uint8)
    for top in range(0, height, 256):
        strip = picture.crop((0, top, width, min(top + 256, height)))
        result[top : top + 256] = narrow(np.asarray(strip))
    return result


def _keep_orientation(picture: Image.Image, original: Image.Image) -> Image.Image:
    exif = original.getexif()
    if exif:
        picture.info["exif"] = exif.tobytes()
    return picture


def load_mask(path: Path) -> Image.Image:
    """Decode a mask of class numbers, index or palette, as an 8-bit picture (mode L).

    Raises:
        SegkeyError: a colour picture (its colours are not class numbers), or class numbers above 255.
    """
    picture = _decode(path)
    if picture.mode in ("L", "P"):
        values = np.asarray(picture)
    elif picture.mode == "1":
        values = np.asarray(picture).astype(np.uint8)
    elif picture.mode in _SIXTEEN_BIT:

        def classes(strip: np.ndarray) -> np.ndarray:
            for value in (strip.min(), strip.max()):
                if not 0 <= value <= 255:
                    raise SegkeyError(f"{path}: holds class {value}; masks hold classes 0 to 254 and 255 for void")
            return strip

        values = _by_strips(picture, classes)
    else:
        raise SegkeyError(
            f"{path}: a mask of mode {picture.mode} holds colours, not class numbers",
            "save masks as 8-bit PNG with an index or a palette",
        )
    return Image.fromarray(np.ascontiguousarray(values))


def highest_class(mask: Image.Image, ignore_index: int) -> int:
    """The largest class number in a mask from `load_mask`, void left out; 0 where all is void."""
    counts = np.array(mask.histogram())
    counts[ignore_index] = 0
    return int(np.flatnonzero(counts).max(initial=0))


@dataclass(frozen=True)
class Crop:
    """A part of a picture, as fractions of its sides, and whether it is mirrored left to right."""

    left: float
    top: float
    right: float
    bottom: float
    flip: bool


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on ``parts`` alone, so that order and number of processes do not matter."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def random_crops(
    generator: np.random.Generator, sizes: np.ndarray, scale: tuple[float, float], ratio=(3 / 4, 4 / 3)
) -> np.ndarray:
    """Random resized crops with horizontal flips, as torchvision's RandomResizedCrop draws them.

    Ten tries for a part of the wanted area and aspect ratio; the whole picture, cut to the nearest
    allowed ratio at its centre, where none fits.

    Args:
        generator: the source of randomness.
        sizes: (N, 2) heights and widths in pixels.
        scale: least and largest area, as a fraction of the picture.
        ratio: least and largest width / height.

    Returns:
        float64 (N, 5): left, top, right, bottom as fractions of the sides, and 1 where mirrored.
    """
    n = len(sizes)
    heights, widths = sizes[:, 0, None].astype(float), sizes[:, 1, None].astype(float)
    area = heights * widths * generator.uniform(*scale, (n, 10))
    aspect = np.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1]), (n, 10)))
    w, h = np.sqrt(area * aspect), np.sqrt(area / aspect)
    first = np.argmax((w <= widths) & (h <= heights), axis=1)
    rows = np.arange(n)
    fits = (w <= widths)[rows, first] & (h <= heights)[rows, first]
    w = np.where(fits, w[rows, first], np.minimum(widths[:, 0], heights[:, 0] * ratio[1])) / widths[:, 0]
    h = np.where(fits, h[rows, first], np.minimum(heights[:, 0], widths[:, 0] / ratio[0])) / heights[:, 0]
    where = generator.uniform(size=(n, 2))
    where[~fits] = 0.5
    left, top = where[:, 0] * (1 - w), where[:, 1] * (1 - h)
    return np.stack([left, top, left + w, top + h, generator.uniform(size=n) < 0.5], axis=1)


def random_crop(generator: np.random.Generator, height: int, width: int, scale: tuple[float, float]) -> Crop:
    """One of `random_crops`, for a picture of ``height`` x ``width`` pixels."""
    *box, flip = random_crops(generator, np.array([[height, width]]), scale)[0]
    return Crop(*map(float, box), flip=bool(flip))


def as_array(picture: Image.Image, size: tuple[int, int], crop: Crop | None = None) -> np.ndarray:
    """Cut, resize and mirror a picture: RGB with bilinear to uint8 (3, H, W), L with nearest to uint8 (H, W).

    Args:
        picture: mode RGB or L.
        size: (H, W) of the result.
        crop: the part to take; all of it, if not given.
    """
    box = None
    if crop:
        w, h = picture.size
        box = (crop.left * w, crop.top * h, min(crop.right * w, w), min(crop.bottom * h, h))
    how = Image.Resampling.NEAREST if picture.mode == "L" else Image.Resampling.BILINEAR
    picture = picture.resize((size[1], size[0]), how, box=box)
    # Pillow takes channels apart three times as fast as NumPy turns a picture around.
    array = np.stack([np.asarray(band) for band in picture.split()]) if picture.mode == "RGB" else np.asarray(picture)
    return np.ascontiguousarray(array[..., ::-1]) if crop and crop.flip else array
