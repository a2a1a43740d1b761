"""What finding files costs: memory per file, so that a million of them fit."""

import os
import pickle
import tracemalloc

from laying import mask, photo

from segkey.data.items import Item
from segkey.data.sources import find

FILES = 2000  # images, and as many masks
HELD, PEAK = 200, 550  # bytes per file; 136 and less than 425 for 200,000 files


def test_a_file_takes_little_more_memory_than_its_name(tmp_path):
    for folder, first in (("images", photo), ("masks", mask)):
        file = first(tmp_path / folder / f"photograph_{0:08}.png")
        for number in range(1, FILES):
            os.link(file, file.with_name(f"photograph_{number:08}.png"))
    find(tmp_path, read_names=False)  # what modules keep for themselves
    tracemalloc.start()
    try:
        source = find(tmp_path, read_names=False)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(source) == FILES
    assert held < HELD * 2 * FILES
    assert peak < PEAK * 2 * FILES


def test_items_travel_to_workers(tmp_path):
    photo(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a.png")
    (item,) = find(tmp_path, split="all").items
    assert pickle.loads(pickle.dumps(item)) == item
    assert item == Item("a.png", tmp_path / "images/a.png", tmp_path / "masks/a.png")
    assert item.named("b.png", "a.png").mask == item.mask
    assert len({item, item.named("a.png", "")}) == 1
