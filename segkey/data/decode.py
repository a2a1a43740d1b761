"""Decode images: limits, orientation, bit depth. Pillow and NumPy only."""

import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from segkey.data.deep_colours import deep_values, is_deep_colour, lower_bytes
from segkey.data.formats import formats, why_not_read
from segkey.data.peculiarities import Peculiarities, has_frames, opened_tiff
from segkey.errors import SegkeyError
from segkey.system.files import open_regular

MAX_PIXELS = (
    50_000_000  # decoding then takes under 1 GB in every format; a bomb is refused by its header
)


# of a progressive JPEG; a dozen is usual, and every one costs a pass over all pixels in a few bytes
_MAX_SCANS = 100


_ORIENTATION = 0x0112  # the EXIF tag


DEEP = {"I;16", "I;16L", "I;16B", "I;16N", "I"}  # modes of more than 8 bits per value


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


QUIET_PILLOW = _QuietPillow()


if hasattr(
    os, "register_at_fork"
):  # a process that forks while a thread is in it leaves the child a lock that is never released
    os.register_at_fork(after_in_child=QUIET_PILLOW.__init__)


# The (height, width) in pixels that an image of so many must at least be decoded to.
LeastSize = Callable[[int, int], tuple[int, int]]


def decode(
    path: Path,
    peculiar: Peculiarities | None = None,
    deep_colours: bool = False,
    least_size: LeastSize | None = None,
) -> Image.Image:
    """Read a file as an image of at most `MAX_PIXELS`; what is unusual about it is added.

    Args:
        path: the file.
        peculiar: what is unusual about the image is added to it.
        deep_colours: whether the lower bytes of 16-bit colours will be asked for.
        least_size: lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its sides, which takes a third of
            the time; never below this size. `whole_size` tells what it was.

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
        with open_regular(path, follow=True) as file, QUIET_PILLOW:
            picture = Image.open(file, formats=formats())
            if picture.width * picture.height > MAX_PIXELS:
                raise too_large
            if "progressive" in picture.info and _count_scans(path) > _MAX_SCANS:
                raise SegkeyError(
                    f"{path}: a JPEG of more than {_MAX_SCANS} scans", "save it again"
                )
            if picture.mode == "L" and picture.tile:
                picture.info["segkey bits"] = bits_of(picture)
            if peculiar is not None:
                picture = _first_frame(picture, file, peculiar)
                picture = opened_tiff(picture, peculiar)
            if least_size:
                _decode_smaller(picture, least_size, peculiar)
            low = lower_bytes(file) if deep_colours and is_deep_colour(picture) else None
            deep = is_deep_colour(picture)
            picture.load()
            picture.info |= {"segkey lower": low} if low else {}
            picture.info |= {"segkey deep": True} if deep else {}
            return picture
    except SegkeyError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except UnidentifiedImageError:
        raise SegkeyError(f"{path}: not an image that can be read{why_not_read(path)}") from None
    except OSError as error:
        raise SegkeyError(
            f"{path}: {error.strerror or f'truncated or damaged ({error})'}".replace("\n", " ")
        ) from None
    except Exception as error:  # decoders of damaged files raise whatever they meet
        raise SegkeyError(f"{path}: truncated or damaged ({type(error).__name__})") from None


def _decode_smaller(
    picture: Image.Image, least_size: LeastSize, peculiar: Peculiarities | None
) -> None:
    """Let libjpeg scale while it decodes, if the image is large enough and a JPEG."""
    if not isinstance(picture, JpegImageFile) or picture.mode not in ("RGB", "L", "CMYK"):
        return
    whole, turned = picture.size, orientation(picture) > 4
    height, width = whole if turned else whole[::-1]
    least = least_size(height, width)
    picture.draft(None, least if turned else least[::-1])
    if picture.size != whole:
        picture.info[_WHOLE] = (height, width)
        if peculiar is not None:
            peculiar.add("scaled")


_WHOLE = "segkey whole size"


def whole_size(picture: Image.Image) -> tuple[int, int]:
    """(H, W) of an upright image, or of what it would be had it not been decoded smaller."""
    return picture.info.get(_WHOLE, picture.size[::-1])


def _first_frame(picture: Image.Image, file: IO[bytes], peculiar: Peculiarities) -> Image.Image:
    """The image again, after it was asked whether it has more frames."""
    try:
        if has_frames(picture):
            peculiar.add("frames")
        return picture
    except Exception:  # what decoders raise on a damaged second image; the first one is fine
        peculiar.add("frames")
        file.seek(0)
        return Image.open(file, formats=formats())


def bits_of(picture: Image.Image) -> int:
    """Bits per value of a grey file; Pillow spreads 2 and 4 bits over 0 to 255."""
    raw = picture.tile[0].args if picture.tile else "L"
    return {"L;2": 2, "L;4": 4}.get(raw[0] if isinstance(raw, tuple) else raw, 8)


def _count_scans(path: Path) -> int:
    """At most how many scans a JPEG has; read in parts, as the file may hold gigabytes."""
    count, last = 0, b""
    with open_regular(path, follow=True) as file:
        while part := file.read(1 << 20):
            count, last = count + (last + part).count(b"\xff\xda"), part[-1:]
    return count


def load_image(
    path: Path,
    pixel_range: tuple[int, int] | None = None,
    peculiar: Peculiarities | None = None,
    channels: int = 3,
    least_size: LeastSize | None = None,
) -> Image.Image:
    """Decode an image as upright 8-bit RGB, as grey, or with its four bands as they are.

    Args:
        path: the file.
        pixel_range: the values of 16-bit images that become black and white; if not given, 0 and
            65535, of which the upper 8 bits are kept.
        peculiar: what is unusual about the image is added to it.
        channels: 3 for RGB; 1 for grey (mode L); 4 for a file of four bands, such as RGBA.
        least_size: as in `decode`, of the upright image; if not given, it is decoded whole.

    Raises:
        SegkeyError: no image, one that is too large, or one without four bands.
    """
    peculiar = set() if peculiar is None else peculiar
    picture = decode(path, peculiar, pixel_range is not None, least_size)
    return with_channels(picture, channels, path, pixel_range, peculiar)


def with_channels(
    picture: Image.Image,
    channels: int,
    path: Path | str,
    pixel_range: tuple[int, int] | None = None,
    peculiar: Peculiarities | None = None,
) -> Image.Image:
    """An image as `load_image` gives it with so many channels; ``path`` names it in errors."""
    if channels == 4:
        if picture.mode not in FOUR_BANDS:
            raise SegkeyError(
                f"{path}: an image of mode {picture.mode} has no four bands of 8 bits",
                "save it with four bands, such as RGBA, or encrypt with --channels 3",
            )
        return upright(picture)
    picture = to_rgb(picture, path, pixel_range, peculiar)
    return picture.convert("L") if channels == 1 else picture


def to_rgb(
    picture: Image.Image,
    path: Path | str,
    pixel_range: tuple[int, int] | None = None,
    peculiar: Peculiarities | None = None,
) -> Image.Image:
    """An image as `load_image` gives it; ``path`` names it in errors."""
    try:
        if picture.mode in DEEP:
            upper = _by_strips(picture, narrowed(pixel_range, peculiar))
            picture = _keep_orientation(Image.fromarray(upper), picture)
        elif (values := deep_values(picture)) is not None:
            colours = narrowed(pixel_range, peculiar)(values).astype(np.uint8)
            picture = _keep_orientation(Image.fromarray(colours), picture)
        elif picture.info.get("segkey deep") and peculiar is not None:
            most = max(high for _, high in picture.convert("RGB").getextrema())
            peculiar.add("bright" if most >= 16 else "dim")
        elif picture.mode == "F":
            raise SegkeyError(
                f"{path}: floating-point pixels have no known range",
                "save the image with 8 or 16 bits",
            )
        picture = upright(picture)
        if picture.mode in TRANSPARENT or "transparency" in picture.info:
            return _without_alpha(picture, peculiar)
        return (
            picture if picture.mode == "RGB" else picture.convert("RGB")
        )  # both would copy without need
    except SegkeyError:
        raise
    except Exception as error:
        raise SegkeyError(f"{path}: cannot be converted to RGB ({error})") from None


FOUR_BANDS = {"RGBA", "RGBX", "CMYK"}  # of 8 bits
CHANNELS = (1, 3, 4)  # that images can be decoded with
TRANSPARENT = {"RGBA", "LA", "PA", "La", "RGBa"}


def upright(picture: Image.Image) -> Image.Image:
    """An image turned as its EXIF data says."""
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        return ImageOps.exif_transpose(picture)
    return picture


def orientation(picture: Image.Image) -> int:
    """How EXIF data says that the image must be turned: 1 to 8, 1 if not at all."""
    try:
        told = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata
        return 1
    return told if isinstance(told, int) and 1 <= told <= 8 else 1


def _without_alpha(picture: Image.Image, peculiar: Peculiarities | None) -> Image.Image:
    """RGB of an image with alpha, on black; an alpha that is the same everywhere says nothing."""
    whole = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    least, most = whole.getchannel("A").getextrema()
    if least == most:
        return picture.convert("RGB")
    if peculiar is not None:
        peculiar.add("transparent")
    ground = Image.new("RGBA", whole.size, (0, 0, 0, 255))
    ground.alpha_composite(whole)
    return ground.convert("RGB")


def narrowed(
    pixel_range: tuple[int, int] | None, peculiar: Peculiarities | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """What makes 8 bits of deep values: ``pixel_range`` becomes 0 to 255."""
    low, high = pixel_range or (0, 65535)

    def narrow(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.int64)
        if peculiar is not None and values.size:
            if values.min() < low or values.max() > high:
                peculiar.add("beyond")
            peculiar.add("bright" if values.max() > (low + high) // 16 else "dim")
        clipped = np.clip(values, low, high)
        if (low, high) == (0, 65535):
            return clipped >> 8
        return (clipped - low) * 255 // max(1, high - low)

    return narrow


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
