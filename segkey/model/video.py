"""Masks for the frames of a video, and the video under its classes' colours.

ffmpeg, in a process of its own, reads and writes videos (package imageio-ffmpeg). Frames go through
the network in batches, so memory does not depend on how long the video is.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from segkey.data import decode
from segkey.data.formats import VIDEO_SUFFIXES
from segkey.data.items import Item
from segkey.data.palette import blended, palette_mask
from segkey.errors import SegkeyError
from segkey.model.folder_prediction import Predicted, Settings
from segkey.model.prediction import Inference, Model
from segkey.model.prediction_files import Outputs
from segkey.system.file_names import clean_name
from segkey.system.files import (
    is_there,
    make_folder,
    put_in_place,
    remove,
    require_empty,
    written_whole,
)
from segkey.system.progress import SILENT, Progress

_FRAMES_AT_ONCE = 64 << 20  # bytes
_FILES_ONLY = ["-protocol_whitelist", "file"]  # a playlist may name addresses


def is_video(path: Path) -> bool:
    """Whether a path is a file that is read as a video, as its suffix says."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def predict_video(
    model: Model, video: Path, out: Path, how: Settings, progress: Progress = SILENT
) -> Predicted:
    """Write a palette PNG mask for each frame below ``out/masks/NAME``, from ``000000.png`` on.

    Args:
        model: from `segkey.load`.
        video: the file.
        out: the folder; with overlays, ``out/overlays/NAME.mp4`` is written, too.
        how: the model's cipher and what else is to be done; frames are not decoded by workers, and
            none is left out.

    Raises:
        SegkeyError: imageio-ffmpeg is missing, no video, frames that are too large, or ``out`` is
            not empty.
    """
    require_empty(out, how.force)
    frames = _Frames(video)
    name = clean_name(video.stem) or "video"
    items = [Item(f"{name}/{number:06d}", video, None) for number in range(frames.count)]
    result, began = Predicted(), time.monotonic()
    outputs = Outputs(out, items, overlays=False)
    coloured = _Coloured(out / "overlays" / f"{name}.mp4", frames) if how.overlays else None
    with progress.task("predict", frames.count) as advance, coloured or nullcontext():
        for number, (frame, mask) in enumerate(_segmented(model, frames, how)):
            if number < len(items):  # ffmpeg had counted them
                _write(outputs, items[number], mask, model, result)
            if coloured:
                coloured.add(blended(Image.fromarray(frame), mask, model.classes))
            advance(1)
    if not result.images:
        raise SegkeyError(f"{video} has no frames", "give a video that ffmpeg can read")
    outputs.finish(result.files)
    result.seconds = time.monotonic() - began
    return result


def _segmented(
    model: Model, frames: "_Frames", how: Inference
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each frame with its mask, uint8 (H, W, 3) and (H, W)."""
    at_once = max(1, min(how.batch_size, _FRAMES_AT_ONCE // frames.bytes_of_one))
    for some in frames.batches(at_once):
        pictures = [
            decode.with_channels(Image.fromarray(frame), model.header.channels, "a frame")
            for frame in some
        ]
        pixels = [model.prepared(picture, how.manner) for picture in pictures]
        masks = model.masks_of(pixels, [frame.shape[:2] for frame in some], how)
        yield from zip(some, masks, strict=True)


def _write(outputs: Outputs, item: Item, mask: np.ndarray, model: Model, result: Predicted) -> None:
    result.count(mask, model.classes)
    path, _ = outputs.files_of(item)
    result.files.append(outputs.line(item))
    make_folder(path.parent, below=outputs.out)
    with written_whole(path) as file:
        palette_mask(mask, model.classes).save(file, format="PNG")


class _Frames:
    """The frames of a video.

    Attributes:
        count: how many ffmpeg finds.
        size: width and height.
        rate: frames per second.
    """

    def __init__(self, video: Path):
        self._ffmpeg, self._video = _ffmpeg(video), video.resolve()  # no 'http:…', and no option
        try:
            self.count, _ = self._ffmpeg.count_frames_and_secs(str(self._video))
            reader = self._read()
            about = next(reader)
            reader.close()
        except (OSError, RuntimeError, StopIteration, ValueError):
            raise SegkeyError(
                f"{video} is not a video that can be read", "give a video that ffmpeg can read"
            ) from None
        self.size, self.rate = about["size"], about["fps"] or 25.0
        if self.size[0] * self.size[1] > decode.MAX_PIXELS:
            raise SegkeyError(
                f"{video}: too many pixels in a frame",
                f"segkey reads up to {decode.MAX_PIXELS // 10**6} megapixels",
            )

    @property
    def bytes_of_one(self) -> int:
        """Of a frame."""
        return 3 * self.size[0] * self.size[1]

    def _read(self) -> Iterator:
        return self._ffmpeg.read_frames(str(self._video), input_params=_FILES_ONLY)

    def batches(self, at_once: int) -> Iterator[list[np.ndarray]]:
        """Lists of frames, uint8 (H, W, 3)."""
        reader, waiting = self._read(), []
        next(reader)
        try:
            for frame in reader:
                waiting.append(np.frombuffer(frame, np.uint8).reshape(*self.size[::-1], 3))
                if len(waiting) == at_once:
                    yield waiting
                    waiting = []
        finally:
            reader.close()
        if waiting:
            yield waiting

    def writer(self, path: Path) -> Iterator:
        """A generator that takes frames as bytes."""
        made = self._ffmpeg.write_frames(
            str(path.absolute()), self.size, fps=self.rate, macro_block_size=2
        )
        made.send(None)
        return made


class _Coloured:
    """A video that is being written; it gets its name when the context ends without an error."""

    def __init__(self, path: Path, frames: _Frames):
        is_there(path)
        make_folder(path.parent, below=path.parents[1])
        self._path = path
        self._partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial.mp4")
        self._writer = frames.writer(self._partial)

    def add(self, picture: Image.Image) -> None:
        """A frame, RGB."""
        self._writer.send(np.asarray(picture).tobytes())

    def __enter__(self) -> "_Coloured":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._writer.close()
            if kind is None:
                put_in_place(self._partial, self._path)
        finally:
            remove(self._partial)


def _ffmpeg(video: Path):
    try:
        import imageio_ffmpeg
    except ImportError:
        raise SegkeyError(
            f"{video} is a video, which needs the package imageio-ffmpeg; it is not installed",
            "pip install imageio-ffmpeg, or give a folder of its frames",
        ) from None
    return imageio_ffmpeg
