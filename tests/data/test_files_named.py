"""Every file is used or named: splits, loose files, links, kinds, pairing, layouts of tools.

Inputs are built after public reports (issue 18, B): the reported one and two more of each kind.
"""

import json
import sys
import types

import pytest
from laying import coloured, mask, pairs, photo

from segkey.data import formats
from segkey.data.intake import take_in
from segkey.data.items import Severity
from segkey.data.name_roles import IMAGE, MASK, place_of, understood
from segkey.data.sources import find, find_pictures
from segkey.data.walking import Walk
from segkey.errors import SegkeyError


def said(source, severity=None):
    found = (f for f in source.findings if severity is None or f.severity is severity)
    return "\n".join(f"{f.text}; {f.cure}" for f in found)


def counts(source):
    return {split: len(items) for split, items in source.splits.items()}


def masks_of(source):
    return {item.name: item.mask and item.mask.name for item in source.items}


# ------------------------------------------------------------------ 8: splits


@pytest.mark.parametrize(
    "folder, told",
    [
        ("train", ("train", None)),
        ("Valid", ("val", None)),
        ("validation", ("val", None)),
        ("TESTING", ("test", None)),
        ("train_labels", ("train", MASK)),
        ("trainannot", ("train", MASK)),
        ("val-images", ("val", IMAGE)),
        ("leftImg8bit", (None, IMAGE)),
        ("SegmentationClass", (None, MASK)),
        ("ground_truth", (None, MASK)),
        ("trains", None),
        ("train_and_test", None),
        ("dogs", None),
    ],
)
def test_folders_say_splits_and_roles(folder, told):
    assert understood(folder) == told


@pytest.mark.parametrize(
    "images, masks",
    [
        ("images/{s}", "masks/{s}"),
        ("{s}/images", "{s}/masks"),
        ("Images/{s}", "Labels/{s}"),
        ("{s}", "{s}_labels"),
        ("{s}", "{s}annot"),
        ("images/{s}", "annotations/{s}"),
        ("data/{s}/img", "data/{s}/mask"),
        ("{s}_images", "{s}_masks"),
    ],
)
@pytest.mark.parametrize("splits", [("train", "val", "test"), ("Training", "Valid", "Testing")])
def test_splits_of_any_name_inside_and_outside(tmp_path, images, masks, splits):
    if masks.endswith("annot") and splits[0] == "Training":
        pytest.skip("nobody writes that")
    for split in splits:
        for number in range(2):
            photo(tmp_path / images.format(s=split) / f"{split}{number}.jpg")
            mask(tmp_path / masks.format(s=split) / f"{split}{number}.png")
    source = find(tmp_path)
    assert counts(source) == {"train": 2, "val": 2, "test": 2}
    assert not source.problems
    assert not source.findings


def test_a_class_called_train_is_no_split():
    from pathlib import PurePath

    assert place_of(PurePath("photos/train/a.jpg")).split is None
    assert place_of(PurePath("train/photos/a.jpg")).split == "train"


@pytest.mark.parametrize("where", ["images/extra.jpg", "images/more/extra.jpg", "extra.jpg"])
def test_images_beside_splits_are_named(tmp_path, where):
    for split in ("train", "val", "test"):
        photo(tmp_path / f"images/{split}/a.jpg")
        mask(tmp_path / f"masks/{split}/a.png")
    photo(tmp_path / where)
    source = find(tmp_path)
    assert counts(source) == {"train": 1, "val": 1, "test": 1}
    assert "1 image beside the folders of" in said(source, Severity.WARN)
    assert "extra.jpg" in said(source)


# ------------------------------------------------------------------ 9, 13: splits without


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_split_without_masks_is_left_out_with_a_word(tmp_path, split):
    for name in ("train", "val", "test"):
        photo(tmp_path / f"{name}/images/a.jpg")
        if name != split:
            mask(tmp_path / f"{name}/masks/a.png")
    source = find(tmp_path)
    assert split not in source.splits
    assert f"{split} is left out: none of its 1 image has a mask" in said(source, Severity.WARN)
    assert f"there is no split {split}" in said(source, Severity.WARN)
    assert not source.problems


@pytest.mark.parametrize("count, sizes", [(3, (1, 1, 1)), (4, (2, 1, 1)), (6, (4, 1, 1))])
def test_small_sets_fill_every_split(tmp_path, count, sizes):
    source = find(pairs(tmp_path, count=count))
    assert sorted(counts(source).values()) == sorted(sizes)
    assert not said(source, Severity.WARN)


@pytest.mark.parametrize("count, empty", [(1, "val and test"), (2, "val")])
def test_an_empty_split_is_named_with_what_would_fill_it(tmp_path, count, empty):
    text = said(find(pairs(tmp_path, count=count)), Severity.WARN)
    assert "no image" in text
    assert "at least three images" in text
    assert empty in text or "test" in text


# ------------------------------------------------------------------ 10: links, kinds of files


def test_linked_folders_are_followed_once_and_loops_cut(tmp_path):
    pairs(tmp_path / "real", count=3)
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(tmp_path / "real/images")
    (data / "masks").symlink_to(tmp_path / "real/masks")
    (data / "loop").symlink_to(data)
    source = find(data, split="all")
    assert counts(source) == {"all": 3}
    assert "loop leads to a folder that was looked through already" in said(source)


def test_a_folder_below_goes_before_the_link_to_it(tmp_path):
    photo(tmp_path / "z/a.jpg")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (tmp_path / "z/up").symlink_to(tmp_path)
    walk = Walk(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in walk] == ["z/a.jpg"]
    assert len(walk.again) == 2


def test_two_splits_that_are_one_folder(tmp_path):
    pairs(tmp_path / "d", count=2)
    for kind in ("images", "masks"):
        (tmp_path / f"d/{kind}").rename(tmp_path / f"d/train_{kind}")
        (tmp_path / f"d/val_{kind}").symlink_to(tmp_path / f"d/train_{kind}")
    source = find(tmp_path / "d")
    assert counts(source) == {"train": 2}  # and not the same images in val
    assert "val_images leads to a folder that was looked through already" in said(source)


@pytest.mark.parametrize("suffix", ["avif", "jp2", "ppm", "gif", "jfif", "webp"])
def test_what_pillow_reads_is_read(tmp_path, suffix):
    how = {"format": "JPEG"} if suffix == "jfif" else {}
    photo(tmp_path / f"a.{suffix}", **how)
    source = find(tmp_path)
    assert counts(source) == {"all": 1}
    assert take_in(tmp_path).survey.damaged.count == 0


@pytest.mark.parametrize(
    "suffix, cure", [("HEIC", "pillow-heif"), ("dng", "JPEG"), ("npy", "numpy.load(FILE)")]
)
def test_what_is_not_read_is_counted_by_kind(tmp_path, monkeypatch, suffix, cure):
    monkeypatch.setattr(formats, "load_plugin", lambda package: False)
    photo(tmp_path / "a.jpg")
    for name in ("b", "c"):
        (tmp_path / f"{name}.{suffix}").write_bytes(b"....ftypheic")
    (tmp_path / "d.mov").write_bytes(b"")
    text = said(find(tmp_path))
    assert f"2 .{suffix.lower()} files not read, such as b.{suffix}" in text
    assert cure in text
    assert "1 other file" in text
    assert "1 .mov" in text


def test_a_plugin_of_pillow_is_used_if_it_is_there(monkeypatch):
    called = []
    plugin = types.SimpleNamespace(register_heif_opener=lambda: called.append(1))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    formats.load_plugin.cache_clear()
    assert formats.is_image(".HEIC")
    assert called
    formats.load_plugin.cache_clear()


# ------------------------------------------------------------------ 11: pairing


@pytest.mark.parametrize(
    "image, of_image",
    [
        ("images/a.jpg", "masks/a_mask.png"),
        ("images/a.jpg", "masks/a_seg.png"),
        ("images/a.jpg", "Masks/a_label.PNG"),
        ("images/a.jpg", "labels/a.jpg.png"),
        ("images/a.jpg", "gt/a_segmentation.png"),
        ("images/img_7.jpg", "mask/mask_7.png"),
        ("images/a_rgb.png", "annotations/a_labelIds.png"),
        ("a_sat.jpg", "a_mask.png"),
        ("a (1).png", "a (1)_mask.png"),
        ("x_jpg.rf.12.jpg", "x_jpg.rf.12_mask.png"),
    ],
)
def test_usual_endings_pair_and_are_said(tmp_path, image, of_image):
    photo(tmp_path / image)
    mask(tmp_path / of_image)
    source = find(tmp_path, split="all")
    assert list(masks_of(source).values()) == [of_image.rsplit("/", 1)[-1]]
    assert "1 mask found by the usual endings" in said(source)


@pytest.mark.parametrize(
    "image, of_image", [("B.JPG", "b.png"), ("cafe\u0301.jpg", "caf\u00e9.png"), ("A.jpg", "a.PNG")]
)
def test_letter_case_and_unicode_forms_pair_and_are_said(tmp_path, image, of_image):
    photo(tmp_path / "images" / image)
    mask(tmp_path / "masks" / of_image)
    source = find(tmp_path, split="all")
    assert list(masks_of(source).values()) == [of_image]
    assert "differs in letter case or Unicode form" in said(source)


def test_the_same_name_goes_before_every_rule(tmp_path):
    for name in ("a", "a_mask"):
        photo(tmp_path / f"images/{name}.jpg")
    for name in ("a", "a_mask"):
        mask(tmp_path / f"masks/{name}.png")
    source = find(tmp_path, split="all")
    # a_mask.jpg lies among images and would be a mask of a.jpg; the folder of masks has both.
    assert masks_of(source)["a.jpg"] == "a.png"


def test_mask_suffix_decides(tmp_path):
    for name in ("a", "b"):
        photo(tmp_path / f"images/{name}.jpg")
        for ending in ("_fine", "_coarse"):
            mask(tmp_path / f"masks/{name}{ending}.png")
    with pytest.raises(SegkeyError, match="none of 2 images"):
        find(tmp_path)
    source = find(tmp_path, split="all", mask_suffix="_fine")
    assert set(masks_of(source).values()) == {"a_fine.png", "b_fine.png"}
    assert "2 masks without an image" in said(source)


def test_cityscapes_label_ids_are_chosen_among_its_files(tmp_path):
    for kind in ("labelIds", "color", "instanceIds"):
        mask(tmp_path / f"gtFine/train/x/x_1_gtFine_{kind}.png")
    photo(tmp_path / "leftImg8bit/train/x/x_1_leftImg8bit.png")
    source = find(tmp_path)
    assert list(masks_of(source).values()) == ["x_1_gtFine_labelIds.png"]
    assert "2 masks without an image" in said(source)


@pytest.mark.parametrize("endings", [("_mask", "_label"), ("_mask", "_mask_1"), ("_seg", "_gt")])
def test_two_masks_for_one_image_are_named(tmp_path, endings):
    pairs(tmp_path, count=3)
    photo(tmp_path / "images/q.jpg")
    for ending in endings:
        mask(tmp_path / f"masks/q{ending}.png")
    (problem,) = find(tmp_path).problems
    assert "2 masks fit it" in problem.why
    assert "--mask-suffix decides" in problem.why


def test_two_images_for_one_mask_are_named(tmp_path):
    pairs(tmp_path, count=3)
    photo(tmp_path / "images/p0.png")
    assert "1 mask with two images each, such as p0.png" in said(find(tmp_path), Severity.WARN)


def test_one_folder_of_masks_for_splits_with_the_same_names_is_refused(tmp_path):
    for split in ("train", "val"):
        photo(tmp_path / f"images/{split}/1.jpg")
    mask(tmp_path / "masks/1.png")
    with pytest.raises(SegkeyError, match="1 mask claimed by images of several splits"):
        take_in(tmp_path).require()


def test_masks_of_the_same_name_among_images_are_refused_or_decided(tmp_path):
    for number in range(6):
        photo(tmp_path / f"p{number}.jpg")
        mask(tmp_path / f"p{number}.png", (0, 1, 2))
    with pytest.raises(SegkeyError, match="6 images with a file of the same name") as caught:
        take_in(tmp_path).require()
    assert "--mask-suffix .png" in caught.value.hint
    source = find(tmp_path, mask_suffix=".png", split="all")
    assert masks_of(source) == {f"p{n}.jpg": f"p{n}.png" for n in range(6)}
    assert counts(find(tmp_path, "none")) == {"all": 12}


@pytest.mark.parametrize(
    "image, of_image",
    [
        ("ISIC_Training_Input/i{n}.jpg", "ISIC_Training_Truth/i{n}_segmentation.png"),
        ("a/i{n}.jpg", "b/i{n}_mask.png"),
        ("scans/i{n}.jpg", "drawn/i{n}.png"),
    ],
)
def test_masks_in_a_folder_whose_name_says_nothing_are_refused(tmp_path, image, of_image):
    for number in range(4):
        photo(tmp_path / image.format(n=number))
        mask(tmp_path / of_image.format(n=number), (0, 1))
    with pytest.raises(SegkeyError, match="look like masks of those in") as caught:
        take_in(tmp_path).require()
    folder = tmp_path / of_image.split("/")[0]
    assert f"--masks {folder}" in caught.value.hint
    suffix = "" if "drawn" in of_image else None
    source = find(tmp_path / image.split("/")[0], folder, split="all", mask_suffix=suffix or None)
    assert len(source) == 4
    assert source.has_masks


def test_albums_with_the_same_names_are_photographs(tmp_path):
    for album in ("2023", "2024"):
        for number in range(4):
            photo(tmp_path / f"{album}/IMG_{number}.jpg")
    assert not find(tmp_path).findings


def test_a_likely_ending_is_named(tmp_path):
    for number in range(3):
        photo(tmp_path / f"images/p{number}.jpg")
        mask(tmp_path / f"masks/p{number}_bin.png")
    with pytest.raises(SegkeyError, match="none of 3 images") as caught:
        find(tmp_path)
    assert caught.value.hint == "give --mask-suffix _bin"
    assert len(find(tmp_path, mask_suffix="_bin")) == 3


@pytest.mark.parametrize("top", ["export", "a/b", "__data__"])
def test_folders_of_an_archive_around_it_all_say_nothing(tmp_path, top):
    for split in ("train", "valid", "test"):
        photo(tmp_path / top / f"{split}/{split}.jpg")
        mask(tmp_path / top / f"{split}/{split}_mask.png")
        (tmp_path / top / f"{split}/_classes.csv").write_text("Pixel Value, Class\n0, bg\n1, x\n")
    source = find(tmp_path)
    assert counts(source) == {"train": 1, "val": 1, "test": 1}
    assert source.classes == ["bg", "x"]


def test_lists_of_splits_that_are_not_read_are_named(tmp_path):
    pairs(tmp_path, count=4)
    (tmp_path / "train.txt").write_text("p0\n")
    assert "train.txt not read: splits come from folders" in said(find(tmp_path), Severity.WARN)


def test_masks_none_takes_all_files_as_images(tmp_path):
    pairs(tmp_path, count=2)
    assert counts(find(tmp_path, "none")) == {"all": 4}
    assert not find(tmp_path, "none").has_masks


# ------------------------------------------------------------------ 12: layouts of other tools


def devkit(folder, lists, names=("a b", "c", "d"), colours=None):
    for name in names:
        photo(folder / f"JPEGImages/{name}.jpg")
        if colours:
            coloured(folder / f"SegmentationClass/{name}.png", colours)
        else:
            mask(folder / f"SegmentationClass/{name}.png", (0, 1, 2))
    for name, content in lists.items():
        (folder / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Segmentation/{name}.txt").write_text(content)
    return folder


def test_cvats_export(tmp_path):
    devkit(tmp_path, {"default": "a b\nc\nd\n"}, colours=[(0, 0, 0), (9, 8, 7), (1, 2, 3)])
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb\nbackground:0,0,0::\nx:9,8,7::\ny:1,2,3::\n"
    )
    intake = take_in(tmp_path)
    intake.require()
    assert intake.source.classes == ["background", "x", "y"]
    assert counts(intake.source) == {"train": 1, "val": 1, "test": 1}
    assert "JPEGImages/a b.jpg" in masks_of(intake.source)


@pytest.mark.parametrize("lists", [{}, {"train": "a b\n", "val": "c\n", "test": "d\n"}])
def test_labelmes_export_and_lists_of_three_splits(tmp_path, lists):
    devkit(tmp_path, lists)
    (tmp_path / "class_names.txt").write_text("_background_\ncat\ndog\n")
    photo(tmp_path / "SegmentationClassVisualization/c.jpg")
    intake = take_in(tmp_path)
    intake.require()
    assert intake.source.classes == ["_background_", "cat", "dog"]
    assert counts(intake.source) == {"train": 1, "val": 1, "test": 1}
    assert lists or "1 file not used, such as SegmentationClassVisualization/c.jpg" in said(intake)


def test_a_devkit_of_another_tool_has_no_classes_of_voc(tmp_path):
    devkit(tmp_path / "mine", {"train": "c\nd\n"})
    source = find(tmp_path / "mine")
    assert source.classes is None
    assert "1 mask in no list" in said(source)


def test_roboflows_export(tmp_path):
    for split in ("train", "valid", "test"):
        photo(tmp_path / f"{split}/x{split}_jpg.rf.1.jpg")
        mask(tmp_path / f"{split}/x{split}_jpg.rf.1_mask.png", (0, 1))
        (tmp_path / f"{split}/_classes.csv").write_text("Pixel Value, Class\n0, bg\n1, cat\n")
    intake = take_in(tmp_path)
    intake.require()
    assert counts(intake.source) == {"train": 1, "val": 1, "test": 1}
    assert intake.source.classes == ["bg", "cat"]


COCO = {"images": [], "categories": [], "annotations": [{"segmentation": [[1]]}]}
LABELME = {"shapes": [{"points": [[1, 2]]}], "imagePath": "a.jpg", "imageData": None}


@pytest.mark.parametrize(
    "name, content, what, cure",
    [
        ("annotations/instances.json", json.dumps(COCO), "COCO", "pycocotools"),
        ("train/_annotations.coco.json", json.dumps(COCO), "COCO", "annToMask"),
        ("labels/a.txt", "0 0.1 0.2 0.3 0.4 0.5 0.6\n1 0 1 0 1 0 1\n", "YOLO", "semantic masks"),
        ("a.json", json.dumps(LABELME), "labelme", "labelme2voc"),
        ("annotations.xml", '<annotations><image id="0"/></annotations>', "CVAT", "mask 1.1"),
        ("Annotations/a.xml", "<annotation><bndbox></bndbox></annotation>", "boxes", "export"),
        ("via.json", json.dumps({"a": {"regions": []}}), "polygons", "PNG"),
    ],
)
def test_annotations_that_are_no_masks_get_a_sentence(tmp_path, name, content, what, cure):
    photo(tmp_path / "images/a.jpg")
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    text = said(find(tmp_path), Severity.WARN)
    assert what in text
    assert cure in text
    assert name in text


@pytest.mark.parametrize("content", ["", "hello\n", "1 2\n", "0 0.5 0.5 9 9\n", "\x00\xff"])
def test_other_text_is_no_annotation(tmp_path, content):
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text(content)
    assert not said(find(tmp_path), Severity.WARN)


# ------------------------------------------------------------------ 14: pictures to predict


def test_images_beside_a_folder_of_images_are_named(tmp_path):
    photo(tmp_path / "images/a.jpg")
    photo(tmp_path / "b.jpg")
    source = find_pictures(tmp_path)
    assert list(masks_of(source)) == ["a.jpg"]
    assert "1 image beside" in said(source, Severity.WARN)


@pytest.mark.parametrize("out", ["predicted", "a/b", "images/out"])
def test_the_folder_of_predictions_is_no_input(tmp_path, out):
    photo(tmp_path / ("images/a.jpg" if "images" in out else "a.jpg"))
    for name in ("masks/x.png", "overlays/x.jpg"):
        mask(tmp_path / out / name)
    source = find_pictures(tmp_path, leave_out=tmp_path / out)
    assert list(masks_of(source)) == ["a.jpg"]
    assert f"2 files in {tmp_path / out}, where masks are written" in said(source)
