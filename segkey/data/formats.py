"""Which files are images: suffixes, what Pillow may take them for, kinds that it cannot read."""

import functools
import importlib
import os
from pathlib import Path

from PIL import Image

from segkey.system.files import open_regular

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_RARER = (".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm")
IMAGE_SUFFIXES = {*_COMMON, *_RARER}

# Read only if a plug-in of Pillow is installed: the suffix, and the package.
PLUGINS = {".heic": "pillow_heif", ".heif": "pillow_heif", ".hif": "pillow_heif"}

# Photographs in formats that nothing here reads; they are named with what to do.
UNREAD = {".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".psd", ".exr"}
UNREAD |= {
    ".hdr",
    ".dcm",
    ".nii",
    ".nii.gz",
    ".nrrd",
    ".mha",
    ".npy",
    ".npz",
    ".mat",
    ".svg",
    ".pdf",
    ".eps",
}

ARCHIVES = {".zip", ".rar", ".7z", ".tar", ".tgz", ".gz"}  # that may hold images

# Lossless, so that a mask can be in it; of two files for one mask these are taken.
LOSSLESS = {".png", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"}

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"}

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")


@functools.cache
def load_plugin(package: str) -> bool:
    """Whether a plug-in of Pillow is installed; from then on Pillow reads what it can read."""
    try:
        importlib.import_module(package).register_heif_opener()
        return True
    except (ImportError, AttributeError):
        return False


def is_image(suffix: str) -> bool:
    """Whether files with this suffix are read as images; ``suffix`` in any letter case."""
    suffix = suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix in PLUGINS and load_plugin(PLUGINS[suffix]))


def is_image_file(name: str) -> bool:
    """`is_image` of a file's name."""
    return is_image(os.path.splitext(name)[1])


def formats() -> tuple[str, ...]:
    """What files are taken for, whatever their names say.

    Pillow knows many more formats, and starts Ghostscript for one.
    """
    return (*_FORMATS, "HEIF") if "HEIF" in Image.OPEN else _FORMATS


def why_not_read(path: Path) -> str:
    """What is known of a file that Pillow does not know; empty, or behind a colon."""
    with open_regular(path, follow=True) as file:
        head = file.read(24)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return (
            ": a TIFF of more than four bands, or of a kind that Pillow does not decode; save "
            "three bands of 8 or 16 bits"
        )
    if head.startswith(b"version https://git-lfs"):
        return ": a pointer of Git LFS; git lfs pull fetches the file"
    if head[:1] == b"<":
        return ": it holds HTML or XML"
    if not head:
        return ": it is empty"
    return ": HEIC; pip install pillow-heif" if head[4:8] == b"ftyp" else ""
