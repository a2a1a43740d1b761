"""Exports as their tools lay them: right splits and masks, or a sentence that cures."""

from pathlib import Path

import numpy as np
import pytest
from laying import coloured, levels, mask, photo
from PIL import Image

from segkey.data import intake
from segkey.data.items import Severity
from segkey.errors import SegkeyError


def look(folder: Path) -> tuple[dict[str, int], str]:
    """Images by split, and all that is said with its cures; of a refusal nothing but that."""
    try:
        taken = intake.take_in(folder, workers=1, every=True)
    except SegkeyError as error:
        return {}, f"{error.what} | {error.hint}"
    said = "\n".join(f"{f.severity.name}: {f.text} | {f.cure}" for f in taken.findings)
    refused = any(each.severity is Severity.REFUSE for each in taken.findings)
    return {} if refused else {s: len(i) for s, i in taken.source.splits.items()}, said


def wrote(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


# ------------------------------------------------------------------ layouts that are understood


def coco_stuff(at: Path) -> None:
    for name in ("train2017/a", "train2017/b", "val2017/c"):
        photo(at / f"images/{name}.jpg")
        mask(at / f"stuffthingmaps/{name}.png")


def mmsegmentation(at: Path) -> None:
    for name in ("train/a", "train/b", "val/c"):
        photo(at / f"img_dir/{name}.jpg")
        mask(at / f"ann_dir/{name}.png")


def supervisely(at: Path) -> None:
    for split in ("train", "val"):
        for name in "ab"[: 2 if split == "train" else 1]:
            photo(at / f"{split}/img/{name}.png")
            mask(at / f"{split}/masks_machine/{name}.png")
            photo(at / f"{split}/masks_human/{name}.png")


def drive(at: Path) -> None:
    """Fields of view in ``mask``, vessels in ``1st_manual``, which the test images do not have."""
    for split, names in (("training", (21, 22)), ("val", (31,)), ("test", (1, 2))):
        for name in names:
            photo(at / f"{split}/images/{name}_training.tif")
            mask(at / f"{split}/mask/{name}_training_mask.gif")
            if split != "test":
                mask(at / f"{split}/1st_manual/{name}_manual1.gif")


def suim(at: Path) -> None:
    for name in ("train_val/images/a", "train_val/images/b", "VAL/images/c"):
        photo(at / f"{name}.jpg")
        mask(at / f"{name.replace('images', 'masks')}.bmp")


def macosx(at: Path) -> None:
    coco_stuff(at)
    coco_stuff(at / "__MACOSX")
    photo(at / "@eaDir/images/train2017/a.jpg")


@pytest.mark.parametrize("lay", [coco_stuff, mmsegmentation, supervisely, drive, suim, macosx])
def test_layouts_are_understood(tmp_path, lay):
    lay(tmp_path)
    splits, said = look(tmp_path)
    assert splits == {"train": 2, "val": 1}, said
    assert "beside the folders" not in said
    assert ("test is left out: none of its 2 images has a mask" in said) == (lay is drive)
    assert ("masks in mask not used" in said) == (lay is drive)


def test_potsdams_numbered_folders(tmp_path):
    for n in range(3):
        photo(tmp_path / f"2_Ortho_RGB/top_potsdam_2_{n}_RGB.tif")
        mask(tmp_path / f"5_Labels_all/top_potsdam_2_{n}_label.tif")
    assert look(tmp_path)[0] == {"train": 1, "val": 1, "test": 1}


def test_albums_are_no_splits(tmp_path):
    for album in ("2024/trip", "2024/test", "2024/winter"):
        photo(tmp_path / album / "a.jpg")
    splits, said = look(tmp_path)
    assert splits == {"all": 3}
    assert "1 image in folders named as splits, such as 2024/test/a.jpg" in said


# ------------------------------------------------------------------ a sentence that cures


def label_studio(at: Path, images: bool = True) -> None:
    for n in (1, 2):
        if images:
            photo(at / f"images/{n}.jpg")
        for tag in ("car", "road"):
            name = f"task-{n}-annotation-{n}-by-1-tag-{tag}-0.png"
            mask(at / ("masks" if images else "project-1") / name, (0, 255))


def labelme_folders(at: Path) -> None:
    for n in (1, 2):
        photo(at / f"{n}_json/img.png")
        mask(at / f"{n}_json/label.png")
        photo(at / f"{n}_json/label_viz.png")


def own_ending(at: Path) -> None:
    for n in (1, 2, 3):
        photo(at / f"{n}.jpg")
        mask(at / f"{n}_vessels.png")


def objects(at: Path) -> None:
    for n in (1, 2):
        photo(at / f"{n}/images/{n}.png")
        mask(at / f"{n}/masks/{n}a.png", (0, 255))
        mask(at / f"{n}/masks/{n}b.png", (0, 255))


def two_orders(at: Path) -> None:
    for split, names in (("train", "cat\n1,dog"), ("valid", "dog\n1,cat")):
        photo(at / split / "a.jpg")
        mask(at / split / "a_mask.png")
        wrote(at / split / "_classes.csv", f"Pixel Value, Class\n0,{names}\n")


def two_kinds(at: Path) -> None:
    photo(at / "images/a.jpg")
    mask(at / "masks/a.png")
    mask(at / "masks/a.tif")


def zipped(at: Path) -> None:
    wrote(at / "export.zip", "")


def no_images(at: Path) -> None:
    wrote(at / "labelmap.txt", "car:1,2,3::\n")
    wrote(at / "ImageSets/Segmentation/default.txt", "a\n")
    coloured(at / "SegmentationClass/a.png", [(1, 2, 3)])


def colours_alone(at: Path) -> None:
    photo(at / "leftImg8bit/train/b/b_1_leftImg8bit.png")
    coloured(at / "gtFine/train/b/b_1_gtFine_color.png", [(1, 2, 3)])


def jpeg_levels(at: Path) -> None:
    for n in range(4):
        photo(at / f"images/{n}.jpg")
        near = np.where(levels((0, 1), shift=n) > 0, 254, 0) + np.arange(40) % 2
        (at / "masks").mkdir(exist_ok=True)
        Image.fromarray(near.astype(np.uint8)).save(at / f"masks/{n}.jpg", quality=100)


@pytest.mark.parametrize(
    "lay, cure",
    [
        (label_studio, "draw those of a task into one array"),
        (lambda at: label_studio(at, images=False), "draw those of a task into one array"),
        (labelme_folders, "labelme2voc.py"),
        (own_ending, "give --mask-suffix _vessels if they are"),
        (objects, "merge them into one under the image's name"),
        (two_orders, "a number means one class in all splits"),
        (two_kinds, "give --mask-suffix .png or --mask-suffix .tif"),
        (zipped, "unpack it, and give its folder"),
        (no_images, "put the images into JPEGImages"),
        (colours_alone, "give --mask-suffix _gtfine_color"),
        (jpeg_levels, "--map 0-127=0 --map 128-255=1"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_cure(tmp_path, lay, cure):
    lay(tmp_path)
    splits, said = look(tmp_path)
    assert not splits
    assert cure in said, said


def test_an_empty_folder_of_masks_and_runs_in_a_csv_are_named(tmp_path):
    photo(tmp_path / "a/images/1.jpg")
    (tmp_path / "a/masks").mkdir()
    assert "holds no mask that can be read" in look(tmp_path / "a")[1]
    photo(tmp_path / "b/train/1.jpg")
    wrote(tmp_path / "b/train.csv", "id,rle\n1,1 3\n")
    said = look(tmp_path / "b")[1]
    assert "run-length encoding" in said
    assert "no mask that can be read" not in said


def test_a_mask_that_cannot_be_read_is_counted_once(tmp_path):
    for name in "ab":
        photo(tmp_path / f"images/{name}.jpg")
        mask(tmp_path / f"masks/{name}.png")
    wrote(tmp_path / "masks/a.png", "")
    assert "1 mask cannot be read, such as a.png" in look(tmp_path)[1]
