"""What masks hold is looked at: two levels, grey levels, palettes, colours, files of classes, void.

Inputs are built after public reports (issue 18, A): the reported one and two more of each kind.
"""

import io

import numpy as np
import pytest
from laying import SIZE, coloured, few_bits, levels, mask, pairs, photo
from PIL import Image

from segkey.data.class_table import class_table
from segkey.data.intake import take_in
from segkey.data.items import Severity
from segkey.data.labels import read_labels
from segkey.data.masks import load_mask
from segkey.data.palette import PALETTE
from segkey.data.reading import PLAIN, Reading
from segkey.data.user_choices import parse_choices
from segkey.errors import SegkeyError


def taken(folder, names=None, **choices):
    if names:
        (folder / "classes.txt").write_text("\n".join(names))
    return take_in(folder, choices=parse_choices(**choices), every=True)


def said(intake, severity=None):
    """The findings as text, with their cures."""
    found = (f for f in intake.findings if severity is None or f.severity is severity)
    return "\n".join(f"{f.text}; {f.cure}" for f in found)


def refused(intake, what, cure):
    with pytest.raises(SegkeyError, match=what) as caught:
        intake.require()
    assert cure in caught.value.hint
    return True


def numbers(intake):
    """The class numbers in the first mask of the first split, as they are encrypted."""
    item = intake.source.items[0]
    return set(np.unique(np.asarray(load_mask(item.mask, intake.source.reading))).tolist())


# ------------------------------------------------------------------ clean data stays as it is


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 1, 2, 255), (0, 1, 255)])
def test_class_numbers_are_taken_as_they_are(tmp_path, values):
    intake = taken(pairs(tmp_path, values))
    intake.require()
    assert intake.source.reading == PLAIN
    assert intake.source.ignore_index == 255
    assert not said(intake, Severity.WARN)
    assert numbers(intake) == set(values)


# ------------------------------------------------------------------ 2: two levels


@pytest.mark.parametrize("high, mode", [(255, None), (65535, None), (255, "RGB")])
@pytest.mark.parametrize("names", [None, ["ground", "crack"]])
def test_black_and_white_are_two_classes(tmp_path, high, mode, names):
    intake = taken(pairs(tmp_path, (0, high), mode=mode), names)
    intake.require()
    assert intake.source.classes == (names or ["background", "foreground"])
    assert numbers(intake) == {0, 1}
    assert f"0 and {high} and nothing else: taken as two classes" in said(intake, Severity.NOTE)
    shares = class_table(intake.source, intake.survey).shares("train")
    assert 0 < min(shares.values()) < max(shares.values()) < 1


def test_black_and_white_with_one_name_or_three_is_refused(tmp_path):
    assert refused(taken(pairs(tmp_path, (0, 255)), ["crack"]), "one class is named", "two classes")
    refused(taken(tmp_path, ["a", "b", "c"]), "all labelled pixels are 'a'", "--map 255=1")


def test_void_that_is_given_stays_void_and_is_warned_of(tmp_path):
    intake = taken(pairs(tmp_path, (0, 255)), ignore="255")
    intake.require()
    assert "all labelled pixels are 'class 0'" in said(intake, Severity.WARN)
    assert numbers(intake) == {0, 255}


def test_the_options_of_the_hint_decide(tmp_path):
    pairs(tmp_path, (0, 255))
    for given in ({"mapping": ["255=1"]}, {"ignore": "none"}):
        intake = taken(tmp_path, ["a", "b"], **given)
        intake.require()
        assert numbers(intake) == {0, 1}


# ------------------------------------------------------------------ 3: grey levels


@pytest.mark.parametrize(
    "values, cure",
    [
        ((0, 85, 170), "--map 85=1 --map 170=2"),
        ((0, 127, 254), "--map 127=1 --map 254=2"),
        ((0, 128), "--map 128=1"),
        ((0, 10, 20, 30), "--map 10=1 --map 20=2 --map 30=3"),
        ((0, 85, 170, 255), "--map 255=3 if 255 is a class"),
    ],
)
def test_grey_levels_are_refused_with_the_mapping(tmp_path, values, cure):
    refused(taken(pairs(tmp_path, values)), "grey levels", cure)
    mapping = [f"{value}={number}" for number, value in enumerate(values)]
    cured = taken(tmp_path, mapping=mapping)
    cured.require()
    assert numbers(cured) == set(range(len(values)))


def test_grey_levels_beyond_the_names_are_refused_with_the_mapping(tmp_path):
    intake = taken(pairs(tmp_path, (0, 85, 170)), ["a", "b", "c"])
    assert refused(intake, "masks hold 85, 170, but 3 classes", "--map 85=1 --map 170=2")


def soft(folder, values, how):
    """Masks that were resized with ramps, or saved as JPEG, before they became PNG."""
    for number in range(9):
        photo(folder / f"images/p{number}.jpg")
        (folder / "masks").mkdir(exist_ok=True)
        picture = Image.fromarray(levels(values, shift=number))
        if how == "JPEG":
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=85)
            picture = Image.open(buffer)
        else:
            picture = picture.resize((20, 15), how).resize(SIZE, how)
        picture.save(folder / f"masks/p{number}.png")
    return folder


BILINEAR, LANCZOS = Image.Resampling.BILINEAR, Image.Resampling.LANCZOS


@pytest.mark.parametrize("how", ["JPEG", BILINEAR, LANCZOS])
def test_soft_outlines_are_refused_and_cut_by_a_mapping(tmp_path, how):
    soft(tmp_path, (0, 255), how)
    cure = "--map 0-127=0 --map 128-255=1"
    assert refused(taken(tmp_path), "look like grey levels", cure)
    refused(taken(tmp_path, ["a", "b"]), "look like grey levels", cure)
    cured = taken(tmp_path, mapping=["0-127=0", "128-255=1"])
    cured.require()
    assert numbers(cured) == {0, 1}


def test_soft_outlines_of_several_levels_and_jpeg_files(tmp_path):
    soft(tmp_path / "a", (0, 60, 120), BILINEAR)
    refused(taken(tmp_path / "a"), "look like grey levels", "nearest neighbour")
    for number in range(9):
        photo(tmp_path / f"b/images/p{number}.jpg")
        mask(tmp_path / f"b/masks/p{number}.jpg", (0, 255), shift=number)
    refused(taken(tmp_path / "b"), "JPEG files", "--map 0-127=0")


@pytest.mark.parametrize("bits, values", [(4, (0, 1, 2, 5)), (2, (0, 1, 2, 3)), (4, (0, 15))])
def test_few_bits_are_read_at_their_own_depth(tmp_path, bits, values):
    for number in range(9):
        photo(tmp_path / f"images/p{number}.jpg")
        few_bits(tmp_path / f"masks/p{number}.png", values, bits, number)
    spread = np.asarray(Image.open(tmp_path / "masks/p0.png"))
    assert set(np.unique(spread)) == {value * (85 if bits == 2 else 17) for value in values}
    intake = taken(tmp_path, [f"c{n}" for n in range(16)])
    assert numbers(intake) == set(values)
    assert f"{bits}-bit grey" in said(intake)


def test_one_bit_among_others_may_hide_void(tmp_path):
    pairs(tmp_path, (0, 1, 2, 255))
    mask(tmp_path / "masks/p3.png", (0, 255), mode="1")
    intake = taken(tmp_path)
    intake.require()
    assert "1 mask of 1 bit, such as p3.png" in said(intake, Severity.WARN)
    assert "a void of 255 becomes 1" in said(intake, Severity.WARN)
    pairs(tmp_path / "all", (0, 255), mode="1")
    assert "1 is class 1" in said(taken(tmp_path / "all"), Severity.NOTE)
    assert numbers(taken(tmp_path / "all", mapping=["1=void"])) == {0, 255}


@pytest.mark.parametrize(
    "others, severity", [((0, 1), Severity.REFUSE), ((0, 1, 2), Severity.WARN)]
)
def test_masks_of_0_and_255_among_masks_of_classes(tmp_path, others, severity):
    for number in range(9):
        photo(tmp_path / f"images/p{number}.jpg")
        mask(tmp_path / f"masks/p{number}.png", (0, 255) if number % 2 else others, number)
    assert "255 may be a class there, not void" in said(taken(tmp_path), severity)
    for given in ({"mapping": ["255=1"]}, {"ignore": "255"}):
        taken(tmp_path, **given).require()


@pytest.mark.parametrize("values", [(0, 32768, 65535), (0, 300, 600)])
def test_large_values_are_refused_with_the_mapping(tmp_path, values):
    cure = " ".join(f"--map {value}={number}" for number, value in enumerate(values) if number)
    assert refused(taken(pairs(tmp_path, values)), "masks hold", cure)


def test_instance_numbers_are_recognised(tmp_path):
    assert refused(taken(pairs(tmp_path, (0, 7, 26001))), "masks hold 26001", "instanceIds")


# ------------------------------------------------------------------ 4: palettes

RED_GREEN, GREEN_RED = [0, 0, 0, 255, 0, 0, 0, 255, 0], [0, 0, 0, 0, 255, 0, 255, 0, 0]


def with_palettes(folder, *palettes, values=(0, 1, 2)):
    for number in range(9):
        photo(folder / f"images/p{number}.jpg")
        palette = palettes[number % len(palettes)]
        mask(folder / f"masks/p{number}.png", values, number, palette=palette)
    return folder


def test_palettes_that_contradict_are_refused_or_read_by_colour(tmp_path):
    with_palettes(tmp_path, RED_GREEN, GREEN_RED)
    what = r"number 1 is \(255, 0, 0\) in some masks and \(0, 255, 0\) in others"
    refused(taken(tmp_path), what, "--colors FILE")
    (tmp_path / "c.txt").write_text("ground 0 0 0\nred 255 0 0\ngreen 0 255 0\n")
    cured = taken(tmp_path, colours=tmp_path / "c.txt")
    cured.require()
    seen = {}
    for item in cured.source.items:
        shown = np.asarray(Image.open(item.mask).convert("RGB"))
        read = np.asarray(load_mask(item.mask, cured.source.reading))
        for colour, number in (((0, 0, 0), 0), ((255, 0, 0), 1), ((0, 255, 0), 2)):
            inside = (shown == colour).all(axis=2)
            assert (read[inside] == number).all()
            seen[number] = seen.get(number, 0) + inside.sum()
    assert all(seen.values())
    assert class_table(cured.source, cured.survey).strange["train"] == 0


def test_masks_that_were_quantised_one_by_one(tmp_path):
    """comma10k#1057: each image's palette has only its own colours, in its own order."""
    for number in range(9):
        photo(tmp_path / f"images/p{number}.jpg")
        colours = PALETTE[levels((0, 1 + number % 3, 1 + (number + 1) % 3), shift=number)]
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(colours).quantize(8).save(tmp_path / f"masks/p{number}.png")
    refused(taken(tmp_path), "different palettes", "--colors FILE")
    named = taken(tmp_path, ["a", "b", "c", "d"])
    named.require()
    assert "PASCAL VOC's colours" in said(named)
    for number, item in enumerate(sorted(named.source.items, key=lambda item: item.name)):
        read = np.asarray(load_mask(item.mask, named.source.reading))
        expected = levels((0, 1 + number % 3, 1 + (number + 1) % 3), shift=number)
        assert np.array_equal(read, expected)


def test_palettes_that_differ_in_what_is_not_used_are_one(tmp_path):
    with_palettes(tmp_path, RED_GREEN, RED_GREEN + [9, 9, 9], RED_GREEN + [7, 7, 7, 8, 8, 8])
    intake = taken(tmp_path)
    intake.require()
    assert "palette" not in said(intake)


def test_colour_and_grey_palettes_for_the_same_numbers(tmp_path):
    grey = [value for number in range(256) for value in [number] * 3]
    with_palettes(tmp_path, RED_GREEN, grey)
    refused(taken(tmp_path), "2 different palettes", "--map numbers")
    vouched = taken(tmp_path, mapping=["numbers"])
    vouched.require()
    assert "different palettes" in said(vouched, Severity.WARN)
    assert numbers(vouched) == {0, 1, 2}


# ------------------------------------------------------------------ 5: colours

COLOURS = [(0, 0, 0), (10, 20, 30), (0, 128, 0)]
COLOUR_FILES = {
    "CVAT": "# label:color_rgb:parts:actions\nbg:0,0,0::\ncar:10,20,30::\nroad:0,128,0::\n",
    "Kaggle": "name,r,g,b\nbg,0,0,0\ncar,10,20,30\nroad,0,128,0\n",
    "plain": "bg 0 0 0\ncar 10 20 30\nroad 0 128 0\n",
    "colour first": "0 0 0\tbg\n10 20 30\t\tcar\n0 128 0\troad\n",
    "hex": "bg #000000\ncar #0a141e\nroad #008000\n",
    "semicolons": "red;green;blue;name\n".replace("red;", "")
    and "bg;0;0;0\ncar;10;20;30\nroad;0;128;0",
}


def with_colours(folder, colours=COLOURS):
    for number in range(9):
        photo(folder / f"images/p{number}.jpg")
        coloured(folder / f"masks/p{number}.png", colours, number)
    return folder


@pytest.mark.parametrize("content", COLOUR_FILES.values(), ids=COLOUR_FILES)
def test_colours_are_mapped_by_a_file(tmp_path, content):
    with_colours(tmp_path)
    refused(taken(tmp_path), "of colours, not class numbers", "--colors FILE")
    (tmp_path / "mine.txt").write_text(content)
    intake = taken(tmp_path, colours=tmp_path / "mine.txt")
    intake.require()
    assert intake.source.classes == ["bg", "car", "road"]
    assert numbers(intake) == {0, 1, 2}


@pytest.mark.parametrize("name", ["labelmap.txt", "class_dict.csv", "label_colors.txt"])
def test_a_file_of_colours_beside_the_images_is_found(tmp_path, name):
    kind = {"labelmap.txt": "CVAT", "class_dict.csv": "Kaggle"}.get(name, "colour first")
    with_colours(tmp_path)
    (tmp_path / name).write_text(COLOUR_FILES[kind].replace("bg", "Void"))
    intake = taken(tmp_path)
    intake.require()
    assert intake.source.classes == ["car", "road"]
    assert numbers(intake) == {0, 1, 255}
    assert "'Void' is void" in said(intake)


def test_colours_that_no_line_lists(tmp_path):
    with_colours(tmp_path, [*COLOURS, (200, 0, 0)])
    (tmp_path / "c.txt").write_text(COLOUR_FILES["plain"])
    intake = taken(tmp_path, colours=tmp_path / "c.txt")
    refused(intake, r"1 colour that .*c.txt does not list: \(200, 0, 0\)", "add a line")
    with pytest.raises(SegkeyError, match=r"the colour \(200, 0, 0\)"):
        load_mask(tmp_path / "masks/p0.png", intake.source.reading)


def test_one_mask_of_colours_among_numbers_is_left_out_alone(tmp_path):
    pairs(tmp_path, (0, 1, 2))
    coloured(tmp_path / "masks/p0.png", COLOURS)
    intake = taken(tmp_path)
    intake.require()
    assert "1 mask of colours, not class numbers" in said(intake, Severity.WARN)
    with pytest.raises(SegkeyError, match="holds colours"):
        load_mask(tmp_path / "masks/p0.png", intake.source.reading)


def test_equal_channels_are_grey(tmp_path):
    for mode in ("RGB", "RGBA", "LA"):
        intake = taken(pairs(tmp_path / mode, (0, 1, 2), mode=mode))
        intake.require()
        assert numbers(intake) == {0, 1, 2}


@pytest.mark.parametrize(
    "content", ["a 0 0 0\nb 0 0 0\n", "a 0 0 300\n", "a 0 0\n", "[1, 2]\n", "a,b,c\nx,y\n"]
)
def test_files_of_colours_that_are_none(tmp_path, content):
    with_colours(tmp_path)
    (tmp_path / "c.txt").write_text(content)
    with pytest.raises(SegkeyError, match=r"c.txt (is not a list|gives no colours)"):
        taken(tmp_path, colours=tmp_path / "c.txt")


# ------------------------------------------------------------------ 6: files of classes, mappings


@pytest.mark.parametrize(
    "name, content, names, values",
    [
        ("labels.txt", "__ignore__\n_background_\ncat\n", ("_background_", "cat"), ()),
        ("_classes.csv", "Pixel Value, Class\n0, bg\n1, cat\n", ("bg", "cat"), ()),
        ("objectInfo150.txt", "Idx\tRatio\tName\n1\t0.1\twall\n2\t0.2\tsky;air\n",
         ("wall", "sky"), ((0, 255), (1, 0), (2, 1))),
        ("a.txt", "0: bg\n1: cat\n", ("bg", "cat"), ()),
        ("a.txt", "1 cat\n2 dog\n", ("cat", "dog"), ((0, 255), (1, 0), (2, 1))),
        ("a.csv", "id,name\n7,road\n26,car\n", ("road", "car"), ((0, 255), (7, 0), (26, 1))),
    ],
)  # fmt: skip
def test_files_of_classes_of_other_tools_are_understood(tmp_path, name, content, names, values):
    (tmp_path / name).write_text(content)
    labels = read_labels(tmp_path / name)
    assert (labels.names, labels.values) == (names, values)


@pytest.mark.parametrize(
    "content",
    [
        '{"categories": []}',
        "names:\n  0: a\n",
        "<annotation>",
        "a,b,c\n1,2,3\n",
        "a\tb\nc\td\n",
        "# classes\na\n",
        "0 a\n0 b\n",
    ],
)
def test_files_of_classes_are_never_taken_line_by_line(tmp_path, content):
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(SegkeyError, match="is not a list of classes") as caught:
        read_labels(tmp_path / "classes.txt")
    assert caught.value.hint


def test_ades_zero_is_void(tmp_path):
    pairs(tmp_path, (0, 1, 2))
    (tmp_path / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n2\tsky\n")
    intake = taken(tmp_path)
    intake.require()
    assert intake.source.classes == ["wall", "sky"]
    assert numbers(intake) == {0, 1, 255}


def test_cityscapes_ids_are_mapped_by_name_or_by_table(tmp_path):
    for number in range(9):
        photo(tmp_path / f"leftImg8bit/train/a/a_{number}_leftImg8bit.png")
        mask(tmp_path / f"gtFine/train/a/a_{number}_gtFine_labelIds.png", (0, 7, 26, 33), number)
    refused(taken(tmp_path), "Cityscapes' 34 ids", "--map cityscapes")
    intake = taken(tmp_path, mapping=["cityscapes"])
    intake.require()
    assert len(intake.source.classes) == 19
    assert numbers(intake) == {255, 0, 13, 18}
    table = "name,id,trainId\nunlabeled,0,255\nroad,7,0\ncar,26,1\nbicycle,33,1\nplate,-1,-1\n"
    (tmp_path / "labels.csv").write_text(table)
    merged = taken(tmp_path, mapping=[str(tmp_path / "labels.csv")])
    merged.require()
    assert merged.source.classes == ["road", "car"]
    assert numbers(merged) == {255, 0, 1}


def test_a_table_refuses_what_it_does_not_list(tmp_path):
    pairs(tmp_path, (0, 1, 2))
    (tmp_path / "t.csv").write_text("from,to\n0,0\n1,1\n")
    refused(taken(tmp_path, mapping=[str(tmp_path / "t.csv")]), "masks hold 2", "--map")


@pytest.mark.parametrize("mapping", [["2=1"], ["2=b"], ["0=a,1=b,2=b"]])
def test_mappings_merge_classes(tmp_path, mapping):
    intake = taken(pairs(tmp_path, (0, 1, 2)), ["a", "b"], mapping=mapping)
    intake.require()
    assert numbers(intake) == {0, 1}


@pytest.mark.parametrize(
    "text", ["x", "1=", "=1", "1=2=3", "9-3=1", "1=300", "gone.csv", "1=zebra"]
)
def test_mappings_that_are_none(tmp_path, text):
    pairs(tmp_path, (0, 1))
    with pytest.raises(SegkeyError, match="--map") as caught:
        taken(tmp_path, ["a", "b"], mapping=[text])
    assert caught.value.hint


def test_more_names_than_classes_and_fewer(tmp_path):
    intake = taken(pairs(tmp_path, (0, 1)), ["a", "b", "c", "d"])
    assert "2 of them are in no mask: 'c', 'd'" in said(intake)
    pairs(tmp_path / "few", (0, 1, 2))
    refused(taken(tmp_path / "few", ["a", "b"]), "masks hold 2, but 2 classes", "--classes")


# ------------------------------------------------------------------ 7: void within the classes


@pytest.mark.parametrize("ignored, kept", [("0", [1, 2]), ("1", [0, 2]), ("0,2", [1])])
def test_an_ignored_class_is_no_class(tmp_path, ignored, kept):
    intake = taken(pairs(tmp_path, (0, 1, 2)), ["a", "b", "c"], ignore=ignored)
    intake.require()
    assert intake.source.classes == ["abc"[number] for number in kept]
    assert intake.source.ignore_index == 255
    assert numbers(intake) == {*range(len(kept)), 255}
    assert "numbered anew" in said(intake)


def test_names_that_leave_the_ignored_class_out(tmp_path):
    intake = taken(pairs(tmp_path, (0, 1, 2)), ["cat", "dog"], ignore="0")
    intake.require()
    assert intake.source.classes == ["cat", "dog"]
    assert numbers(intake) == {0, 1, 255}


def test_another_void_beside_an_ignored_class(tmp_path):
    pairs(tmp_path, (0, 1, 2, 255))
    assert refused(taken(tmp_path, ignore="0"), "masks hold 255", "--ignore-index 0,255")
    assert numbers(taken(tmp_path, ignore="0,255")) == {0, 1, 255}


def test_a_void_value_beyond_the_classes_stays_as_it_is(tmp_path):
    intake = taken(pairs(tmp_path, (0, 1, 11)), ["a", "b"], ignore="11")
    intake.require()
    assert (intake.source.ignore_index, intake.source.reading) == (11, PLAIN)


# ------------------------------------------------------------------ images without a label, tables


def test_images_without_a_label_are_counted_by_split(tmp_path):
    for split in ("train", "val", "test"):
        for number in range(3):
            photo(tmp_path / f"images/{split}/p{number}.jpg")
            values = (255,) if split == "val" and number else (0, 1)
            mask(tmp_path / f"masks/{split}/p{number}.png", values)
    intake = taken(tmp_path)
    assert "2 images without any labelled pixel (val 2)" in said(intake)
    table = class_table(intake.source, intake.survey)
    assert table.unlabelled == {"train": 0, "val": 2, "test": 0}
    assert table.void("val") == pytest.approx(2 / 3)
    assert sum(table.shares("train").values()) == pytest.approx(1)


@pytest.mark.parametrize("values, what", [((255,), "no mask has a labelled"), ((0,), "'class 0'")])
def test_masks_of_one_class_or_of_none(tmp_path, values, what):
    assert what in said(taken(pairs(tmp_path, values)))


def test_readings_are_stored_and_read_back():
    for reading in (
        PLAIN,
        Reading(((255, 255, 1),)),
        Reading(((0, 127, 0), (128, 255, 1)), False),
        Reading((), True, ((1, 2, 3, 0),), True),
    ):
        assert Reading.from_text(reading.as_text()) == reading
    for text in ("[]", "{", '{"ranges": [[1]]}', '{"colours": [[1, 2, 3, 999]]}', "1" * 9999):
        with pytest.raises(ValueError):
            Reading.from_text(text)
