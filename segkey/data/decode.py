"""Decode images and masks: limits, orientation, bit depth. Pillow and NumPy only."""

import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from segkey.errors import SegkeyError
from segkey.system.files import open_regular

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


MASK_SUFFIXES = {".png", ".bmp", ".tif", ".tiff"}


# What files are taken for, whatever their names say; Pillow knows many more formats, and starts
# Ghostscript for one.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


MAX_PIXELS = (
    50_000_000  # decoding then takes under 1 GB in every format; a bomb is refused by its header
)


# of a progressive JPEG; a dozen is usual, and every one costs a pass over all pixels in a few bytes
_MAX_SCANS = 100


_ORIENTATION = 0x0112  # the EXIF tag


_SEVERAL = {
    ".gif",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
}  # kinds of file that can hold several images


_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N", "I"}


class _QuietPillow:
    """Silences Pillow while any thread is in it: sizes are checked here.

    The other warnings are about harmless metadata.

    `warnings.catch_warnings` in each thread would not do: threads that overlap give each other's
    filters back, and one that ignores everything stays behind and swallows all later warnings.
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


if hasattr(
    os, "register_at_fork"
):  # a process that forks while a thread is in it leaves the child a lock that is never released
    os.register_at_fork(after_in_child=_QUIET_PILLOW.__init__)


def _decode(path: Path) -> Image.Image:
    """Read a file as an image of at most `MAX_PIXELS`.

    Raises:
        SegkeyError: no image, an image too large, or a file that cannot be read.
    """
    too_large = SegkeyError(
        f"{path}: too many pixels", f"segkey reads up to {MAX_PIXELS // 10**6} megapixels"
    )
    try:
        if path.exists() and not path.is_file():
            raise SegkeyError(f"{path}: not a file")
        # Opened here, as Pillow would map uncompressed TIFFs into memory and then turn them
        # wrongly.
        with open_regular(path, follow=True) as file, _QUIET_PILLOW:
            picture = Image.open(file, formats=_FORMATS)
            if picture.width * picture.height > MAX_PIXELS:
                raise too_large
            if "progressive" in picture.info and _count_scans(path) > _MAX_SCANS:
                raise SegkeyError(
                    f"{path}: a JPEG of more than {_MAX_SCANS} scans", "save it again"
                )
            picture.load()
            return picture
    except SegkeyError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except UnidentifiedImageError:
        raise SegkeyError(f"{path}: not an image that can be read") from None
    except OSError as error:
        raise SegkeyError(
            f"{path}: {error.strerror or f'truncated or damaged ({error})'}".replace("\n", " ")
        ) from None
    except Exception as error:  # decoders of damaged files raise whatever they meet
        raise SegkeyError(f"{path}: truncated or damaged ({type(error).__name__})") from None


def _count_scans(path: Path) -> int:
    """At most how many scans a JPEG has; read in parts, as the file may hold gigabytes."""
    count, last = 0, b""
    with open_regular(path, follow=True) as file:
        while part := file.read(1 << 20):
            count, last = count + (last + part).count(b"\xff\xda"), part[-1:]
    return count


def load_image(path: Path) -> Image.Image:
    """Decode an image as upright 8-bit RGB; 16-bit values keep their upper 8 bits."""
    return to_rgb(_decode(path), path)


def is_animated(path: Path) -> bool:
    """Whether a file holds more than one image; `load_image` takes the first."""
    if path.suffix.lower() not in _SEVERAL:
        return False
    try:
        with open_regular(path, follow=True) as file, Image.open(file, formats=_FORMATS) as picture:
            return getattr(picture, "n_frames", 1) > 1
    except Exception:  # what decoders raise on a damaged second image; the first one was fine
        return True


def to_rgb(picture: Image.Image, path: Path | str) -> Image.Image:
    """An image as `load_image` gives it; ``path`` names it in errors."""
    try:
        if picture.mode in _SIXTEEN_BIT:
            upper = _by_strips(picture, lambda values: np.clip(values, 0, 65535) >> 8)
            picture = _keep_orientation(Image.fromarray(upper), picture)
        elif picture.mode == "F":
            raise SegkeyError(
                f"{path}: floating-point pixels have no known range",
                "save the image with 8 or 16 bits",
            )
        if picture.getexif().get(_ORIENTATION, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        return (
            picture if picture.mode == "RGB" else picture.convert("RGB")
        )  # both would copy without need
    except SegkeyError:
        raise
    except Exception as error:
        raise SegkeyError(f"{path}: cannot be converted to RGB ({error})") from None


def _by_strips(picture: Image.Image, narrow: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``narrow`` applied to an image's values in parts, as uint8 (H, W), to save memory.

    At once, NumPy's copies would take the memory of four images.
    """
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
    """Decode a mask of class numbers, index or palette, as an 8-bit image (mode L).

    Raises:
        SegkeyError: a colour image (its colours are not class numbers), or class numbers above
            255.
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
                    raise SegkeyError(
                        f"{path}: holds class {value}; masks hold classes 0 to 254 and 255 for void"
                    )
            return strip

        values = _by_strips(picture, classes)
    else:
        raise SegkeyError(
            f"{path}: a mask of mode {picture.mode} holds colours, not class numbers",
            "save masks as 8-bit PNG with an index or a palette",
        )
    return Image.fromarray(np.ascontiguousarray(values))
