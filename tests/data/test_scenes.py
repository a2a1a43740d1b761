"""Built-in scenes: the same every time, with exact masks, read like anybody's data."""

import numpy as np
import pytest
from PIL import Image

from segkey.data import scenes, sources
from segkey.data.decode import load_image
from segkey.data.masks import load_mask


def test_drawing_depends_on_seed_and_number_alone():
    image, mask = scenes.draw(3, 5, 64)
    again, mask_again = scenes.draw(3, 5, 64)
    assert np.array_equal(image, again)
    assert np.array_equal(mask, mask_again)
    for other in (scenes.draw(3, 6, 64), scenes.draw(4, 5, 64)):
        assert not np.array_equal(image, other[0])
        assert not np.array_equal(mask, other[1])


@pytest.mark.parametrize("size", [16, 48, 128])
def test_scenes_have_their_size_and_all_classes(size):
    drawn = [scenes.draw(0, number, size) for number in range(40)]
    images, masks = (np.array(part) for part in zip(*drawn, strict=True))
    assert (images.shape, images.dtype) == ((40, size, size, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((40, size, size), np.uint8)
    assert np.array_equal(np.unique(masks), np.arange(len(scenes.CLASSES)))
    # Classes must look different, or there is nothing to learn: their mean colours lie apart.
    colours = [images[masks == label].mean(axis=0) for label in range(len(scenes.CLASSES))]
    assert min(np.abs(a - b).max() for n, a in enumerate(colours) for b in colours[:n]) > 20


def test_files_hold_what_was_drawn(scenes_folder):
    for number, name in ((0, "train/scene0000"), (12, "val/scene0000"), (21, "test/scene0005")):
        image, mask = scenes.draw(0, number, 48)
        assert np.array_equal(np.asarray(load_mask(scenes_folder / f"masks/{name}.png")), mask)
        stored = np.asarray(load_image(scenes_folder / f"images/{name}.jpg"), dtype=int)
        assert np.abs(stored - image).mean() < 12  # JPEG loses some of the grain
    assert (
        Image.open(scenes_folder / "masks/train/scene0000.png").mode == "P"
    )  # coloured in any viewer


def test_writing_twice_gives_the_same_bytes(tmp_path):
    def written(name, seed):
        folder = scenes.write(tmp_path / name, 2, 1, 1, size=32, seed=seed)
        return {
            f.relative_to(folder).as_posix(): f.read_bytes()
            for f in folder.rglob("*")
            if f.is_file()
        }

    assert len(written("a", seed=1)) == 9
    assert written("a", seed=1) == written("b", seed=1) != written("c", seed=2)


def test_scenes_are_found_like_any_data(scenes_folder):
    source = sources.find(scenes_folder)
    assert {split: len(items) for split, items in source.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 6,
    }
    assert source.classes == scenes.CLASSES
    assert not source.problems
    assert all(item.mask for items in source.splits.values() for item in items)
