"""What an image file says of itself before its pixels are decoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from segkey.data.decode import DEEP, QUIET_PILLOW, bits_of, orientation
from segkey.data.deep_colours import is_deep_colour
from segkey.data.formats import formats, why_not_read
from segkey.data.peculiarities import has_frames
from segkey.data.quick_header import quick_header
from segkey.errors import SegkeyError
from segkey.system.files import open_regular


@dataclass(frozen=True)
class FileHeader:
    """What an image file says before its pixels.

    Attributes:
        mode, format, size: as Pillow has them.
        bits: of a grey value.
        turned: EXIF orientation, 1 to 8; an entry behind the pixels of a PNG is not seen.
        palette: its colours, bytes of red, green and blue; empty if there is none.
        deep: more than 8 bits per value.
        frames: the file has several pages or frames.
    """

    mode: str
    format: str
    size: tuple[int, int]
    bits: int = 8
    turned: int = 1
    palette: bytes = b""
    deep: bool = False
    frames: bool = False


def header(path: Path) -> FileHeader:
    """What a file says of itself; its pixels are not decoded.

    Raises:
        SegkeyError: no image, or a file that cannot be read.
    """
    try:
        with open_regular(path, follow=True) as file:
            if quick := quick_header(file):
                return FileHeader(*quick)
            file.seek(0)
            return _by_pillow(file)
    except SegkeyError:
        raise
    except Exception as error:  # decoders of damaged files raise whatever they meet
        raise SegkeyError(f"{path}: not an image that can be read{_why(path)}") from error


def _by_pillow(file: IO[bytes]) -> FileHeader:
    with QUIET_PILLOW:
        picture = Image.open(file, formats=formats())
        early = picture.format != "PNG" or "exif" in picture.info
        return FileHeader(
            picture.mode,
            picture.format,
            picture.size,
            bits_of(picture),
            orientation(picture) if early else 1,
            _palette(picture) if picture.mode == "P" else b"",
            picture.mode in DEEP or is_deep_colour(picture),
            picture.format in _PAGED and has_frames(picture),
        )


_PAGED = {"TIFF", "GIF", "WEBP"}


def _why(path: Path) -> str:
    try:
        return why_not_read(path)
    except (OSError, SegkeyError):
        return ""


def upright_size(header: FileHeader) -> tuple[int, int]:
    """Width and height after the image was turned as its EXIF data says."""
    return header.size[::-1] if header.turned > 4 else header.size


def _palette(picture: Image.Image) -> bytes:
    """Without decoding the pixels, where that is possible."""
    raw = picture.palette
    if raw and (raw.rawmode or raw.mode) == "RGB" and isinstance(raw.palette, bytes):
        return raw.palette
    return bytes(picture.getpalette("RGB") or b"")
