"""Videos in, masks and an overlay video out."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segkey
from segkey.data import scenes
from segkey.errors import SegkeyError
from segkey.model import video
from segkey.model.folder_prediction import Settings


@pytest.fixture(scope="module")
def model(trained_run):
    return segkey.load(trained_run.path, device="cpu", precise=True)


def write(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> None:
    """A video of a scene that moves to the left."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    scene = Image.fromarray(scenes.draw(1, 2, 80)[0])
    writer = ffmpeg.write_frames(str(path), size, fps=10, macro_block_size=2)
    writer.send(None)
    for number in range(frames):
        writer.send(scene.crop((number, 0, number + size[0], size[1])).tobytes())
    writer.close()


def test_every_frame_gets_a_mask_and_a_place_in_the_overlay(model, key, tmp_path):
    write(tmp_path / "drive.mp4", 5)
    out = tmp_path / "out"
    how = Settings(model.cipher(key), batch_size=2, overlays=True)
    result = video.predict_video(model, tmp_path / "drive.mp4", out, how)
    made = sorted((out / "masks/drive").iterdir())
    assert [path.name for path in made] == [f"{number:06d}.png" for number in range(5)]
    assert result.images == 5
    frames = [*video._Frames(tmp_path / "drive.mp4").batches(9)][0]
    assert np.array_equal(np.asarray(Image.open(made[3])), model.predict(frames[3], key))
    shown = video._Frames(out / "overlays/drive.mp4")
    assert (shown.count, shown.size) == (5, (64, 48))
    assert not list(out.rglob("*.partial*"))
    write(tmp_path / "drive.mp4", 3)
    with pytest.raises(SegkeyError, match="not empty"):
        video.predict_video(model, tmp_path / "drive.mp4", out, how)
    tiled = replace(how, manner=model.manner(tile=32), force=True, overlays=False)
    video.predict_video(model, tmp_path / "drive.mp4", out, tiled)
    assert len(list((out / "masks/drive").iterdir())) == 3


def test_a_failure_leaves_no_half_made_video(model, key, tmp_path, monkeypatch):
    write(tmp_path / "drive.mp4", 4)
    predict, calls = model.masks_of, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise SegkeyError("enough")
        return predict(*arguments)

    monkeypatch.setattr(model, "masks_of", failing)
    how = Settings(model.cipher(key), batch_size=2, overlays=True)
    with pytest.raises(SegkeyError, match="enough"):
        video.predict_video(model, tmp_path / "drive.mp4", tmp_path / "out", how)
    assert list((tmp_path / "out/overlays").iterdir()) == []


def test_what_is_no_video_and_a_missing_package(model, tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "a.mp4").write_bytes(b"#EXTM3U\nhttp://localhost/x.ts\n")
    (tmp_path / "b.mp4").write_bytes(bytes(range(256)) * 9)
    for name in ("a.mp4", "b.mp4"):
        assert video.is_video(tmp_path / name)
        with pytest.raises(SegkeyError, match="not a video that can be read"):
            video.predict_video(model, tmp_path / name, tmp_path / "out", Settings(None))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(SegkeyError, match="needs the package imageio-ffmpeg"):
        video.predict_video(model, tmp_path / "a.mp4", tmp_path / "out", Settings(None))
    assert not (tmp_path / "out").exists()
