"""Masks that no name tells: such data is refused, and what the refusal says to give takes it."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from laying import coloured, levels, mask, pairs, photo
from PIL import Image

from segkey.data import intake
from segkey.data.items import Severity
from segkey.data.user_choices import parse_choices
from segkey.errors import SegkeyError

COLOURS = [(0, 0, 0), (250, 50, 83), (51, 221, 255)]
NAMES = "bg 0 0 0\ncat 250 50 83\ndog 51 221 255\n"


def vaihingen(at: Path) -> None:
    for n in range(3):
        photo(at / f"top/area{n}.tif")
        photo(at / f"dsm/dsm_area{n}.tif")
        coloured(at / f"gts_for_participants/area{n}.tif", COLOURS, n)


def camvid(at: Path) -> None:
    for n in range(3):
        photo(at / f"701_StillsRaw_full/f{n}.png")
        coloured(at / f"LabeledApproved_full/f{n}_L.png", COLOURS, n)


def rugd(at: Path) -> None:
    for place in ("creek", "park-1"):
        for n in range(2):
            photo(at / f"RUGD_frames/{place}/{place}_{n}.png")
            coloured(at / f"RUGD_annotations/{place}/{place}_{n}.png", COLOURS, n)


def penn_fudan(at: Path) -> None:
    for n in range(3):
        photo(at / f"PNGImages/p{n}.png")
        mask(at / f"PedMasks/p{n}_mask.png", (0, 1, 2), n)


def pascal_context(at: Path) -> None:
    for n in range(3):
        photo(at / f"JPEGImages/p{n}.jpg")
        mask(at / f"SegmentationClassContext/p{n}.png", (0, 1, 2), n)


def idrid(at: Path) -> None:
    for n in range(3):
        photo(at / f"1. Original Images/a. Training Set/ID_{n}.jpg")
        for end, folder in (("MA", "1. Micro"), ("HE", "2. Haemo")):
            mask(at / f"2. Groundtruths/a. Training Set/{folder}/ID_{n}_{end}.tif", (0, 1, 2), n)


def segments_ai(at: Path) -> None:
    for n in range(9, 12):
        photo(at / f"f{n}.jpg")
        mask(at / f"f{n}_label_ground-truth.png", (0, 300), n)
        mask(at / f"f{n}_label_ground-truth_semantic.png", (0, 1, 2), n)
        coloured(at / f"f{n}_label_ground-truth_semantic_colored.png", COLOURS, n)


def unity(at: Path) -> None:
    for n in range(3):
        photo(at / f"sequence.{n}/step0.camera.png")
        coloured(at / f"sequence.{n}/step0.camera.semantic segmentation.png", COLOURS, n)


def mapillary(at: Path) -> None:
    for version in ("v1.2", "v2.0"):
        for n in range(3):
            photo(at / f"training/images/{n}.jpg")
            mask(at / f"training/{version}/labels/{n}.png", (0, 1, 2), n)


def bdd(at: Path) -> None:
    for split in ("train", "val"):
        photo(at / f"images/10k/{split}/{split}0.jpg")
        mask(at / f"labels/sem_seg/masks/{split}/{split}0.png", (0, 1, 2))


def two_sensors(at: Path) -> None:
    for n in range(3):
        mask(at / f"depth/{n}.png", (1000, 2000), n)
        photo(at / f"rgb/{n}.png")
        mask(at / f"label/{n}.png", (0, 1, 2), n)


@pytest.mark.parametrize(
    "lay",
    [vaihingen, camvid, rugd, penn_fudan, pascal_context, idrid, segments_ai, unity, mapillary]
    + [bdd, two_sensors],
)
def test_masks_that_nothing_names_are_refused_and_the_cure_takes_them(tmp_path, lay):
    lay(tmp_path / "my data")
    (tmp_path / "colours.txt").write_text(NAMES)
    with pytest.raises(SegkeyError) as caught:
        intake.take_in(tmp_path / "my data", every=True).require()
    cure = caught.value.hint.partition(", or --masks none")[0].removesuffix(" if they are")
    words = [word for word in shlex.split(cure.removeprefix("give ")) if word != "with"]
    folder = tmp_path / "my data" if words[0].startswith("--") else Path(words.pop(0))
    given = dict(zip(words[::2], words[1::2], strict=True))
    colours = lay in (vaihingen, camvid, rugd, unity)
    choices = parse_choices(colours=tmp_path / "colours.txt" if colours else None)
    suffix = given.get("--mask-suffix")
    taken = intake.take_in(folder, given.get("--masks"), choices, mask_suffix=suffix, every=True)
    taken.require()
    assert len(taken.source) >= (2 if lay is bdd else 3)
    assert len(taken.source.classes) == 3
    assert taken.survey.mismatched.count == taken.survey.unread.count == 0


def test_photographs_of_one_name_in_several_folders_are_no_masks(tmp_path):
    for folder in ("left", "right", "left/night"):
        for n in range(3):
            photo(tmp_path / folder / f"{n}_L.png")
    taken = intake.take_in(tmp_path)
    taken.require()
    assert len(taken.source) == 9


@pytest.mark.parametrize("name", ["{}_mask.png", "train/masks/{}.png", "gt/{}.png"])
def test_masks_without_images_are_named(tmp_path, name):
    for n in range(3):
        mask(tmp_path / name.format(n), (0, 255), n)
    with pytest.raises(SegkeyError, match=r"3 masks.* and no images") as caught:
        intake.take_in(tmp_path).require()
    assert "give the folder that holds" in caught.value.hint
    assert len(intake.take_in(tmp_path, "none").source) == 3


def test_nnunets_folders(tmp_path):
    for n in range(3):
        photo(tmp_path / f"imagesTr/case_{n:03}_0000.png")
        mask(tmp_path / f"labelsTr/case_{n:03}.png", (0, 1), n)
        photo(tmp_path / f"imagesTs/new_{n:03}_0000.png")
    taken = intake.take_in(tmp_path)
    assert {s: len(items) for s, items in taken.source.splits.items()} == {"train": 3}
    assert any("test is left out" in finding.text for finding in taken.findings)


def test_pictures_of_masks_alone_are_warned_of(tmp_path):
    for n in range(3):
        photo(tmp_path / f"rgb/b{n}_clipped.jpg")
        coloured(tmp_path / f"GT_color/b{n}_mask.png", COLOURS, n)
    warned = [f for f in intake.take_in(tmp_path).findings if f.severity is Severity.WARN]
    assert any(re.search("3 files not used, such as GT_color/b0_mask", f.text) for f in warned)


@pytest.mark.parametrize(
    "lists, splits",
    [
        ({"Train": "ab", "Validation": "c"}, {"train": 1, "val": 1, "test": 1}),
        ({"Training": "a", "Val": "b", "TEST": "c"}, {"train": 1, "val": 1, "test": 1}),
        ({"My subset": "abc"}, {"train": 1, "val": 1, "test": 1}),
    ],
)
def test_lists_of_a_devkit_have_the_names_of_cvats_subsets(tmp_path, lists, splits):
    for name in "abc":
        photo(tmp_path / f"JPEGImages/{name}.jpg")
        mask(tmp_path / f"SegmentationClass/{name}.png", (0, 1))
    for file, names in lists.items():
        folder = tmp_path / "ImageSets/Segmentation"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{file}.txt").write_text("\n".join(names))
    found = intake.take_in(tmp_path).source.splits
    assert {split: len(items) for split, items in found.items()} == splits


# ------------------------------------------------------------------ what single masks hold


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_negative_numbers_are_refused_with_a_mapping_that_is_understood(tmp_path, kind):
    pairs(tmp_path, (0, 1, 2))
    for file in list((tmp_path / "masks").iterdir()):
        values = np.asarray(Image.open(file)).astype(kind)
        values[:3] = -1
        Image.fromarray(values).save(file.with_suffix(".tif"))
        file.unlink()
    with pytest.raises(SegkeyError, match="or less than 0") as caught:
        intake.take_in(tmp_path).require()
    assert "--map 65535=void" in caught.value.hint
    taken = intake.take_in(tmp_path, choices=parse_choices(mapping=["65535=void"]), every=True)
    taken.require()
    assert taken.highest_class() == 2


@pytest.mark.parametrize("alpha", [(0, 255), (0, 1, 2)])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_classes_in_the_alpha_channel_are_refused(tmp_path, alpha, mode):
    pairs(tmp_path)
    for n, file in enumerate((tmp_path / "masks").iterdir()):
        black = Image.new(mode, (40, 30))
        black.putalpha(Image.fromarray(levels(alpha, shift=n)))
        black.save(file)
    with pytest.raises(SegkeyError, match="differ in their alpha channel alone"):
        intake.take_in(tmp_path).require()


def test_white_on_nothing_is_a_mask(tmp_path):
    pairs(tmp_path)
    for n, file in enumerate((tmp_path / "masks").iterdir()):
        white = Image.new("RGBA", (40, 30), "white")
        white.putalpha(Image.fromarray(levels((0, 255), shift=n)))
        white.save(file)
    taken = intake.take_in(tmp_path, every=True)
    taken.require()
    assert taken.source.classes == ["background", "foreground"]


@pytest.mark.parametrize("suffix", ["tif", "gif"])
def test_pages_of_masks_are_named(tmp_path, suffix):
    for n in range(3):
        photo(tmp_path / f"images/{n}.png")
        pages = [Image.fromarray(levels((0, 1), shift=k)) for k in range(3)]
        (tmp_path / "masks").mkdir(exist_ok=True)
        pages[0].save(tmp_path / f"masks/{n}.{suffix}", save_all=True, append_images=pages[1:])
    said = [finding.text for finding in intake.take_in(tmp_path).findings]
    assert any(text.startswith("3 masks of several frames or pages") for text in said)


@pytest.mark.parametrize(
    "content, why",
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "it holds HTML"),
        (b"", "it is empty"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(tmp_path, content, why):
    pairs(tmp_path)
    for file in ("images/p0.jpg", "masks/p1.png"):
        (tmp_path / file).write_bytes(content)
    said = [finding.text for finding in intake.take_in(tmp_path).findings if why in finding.text]
    assert len(said) == 2


def test_classes_that_train_does_not_hold_are_warned_of(tmp_path):
    for split, values in (("train", (0, 1, 2)), ("val", (1, 2, 3))):
        for n in range(3):
            photo(tmp_path / split / f"images/{n}.jpg")
            mask(tmp_path / split / f"masks/{n}.png", values, n)
    said = [finding.text for finding in intake.take_in(tmp_path).findings]
    assert "val holds 'class 3', of which train has no pixel: no model can learn it" in said


def test_many_colours_are_hardly_classes(tmp_path):
    pairs(tmp_path)
    for file in (tmp_path / "masks").iterdir():
        photo(file)
    with pytest.raises(SegkeyError, match="masks of colours") as caught:
        intake.take_in(tmp_path).require()
    assert "or these are photographs" in caught.value.hint


@pytest.mark.parametrize(
    "name, cure",
    [("a.npy", "numpy.load"), ("a.mat", "loadmat"), ("a.nii.gz", "slices"), ("a.tar.gz", "unpack")],
)
def test_kinds_that_no_converter_reads_have_their_own_cure(tmp_path, name, cure):
    pairs(tmp_path)
    (tmp_path / "masks" / name).write_bytes(b"")
    told = [f.cure for f in intake.take_in(tmp_path).findings if "not read" in f.text]
    assert len(told) == 1
    assert cure in told[0]
