"""Sources: which files are found, paired and dealt into splits; all are empty, as nothing opens
them."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segkey.data import layouts, sources
from segkey.data.items import SPLITS
from segkey.data.sources import find
from segkey.errors import SegkeyError
from segkey.system import seeds


def lay(root, *names, text=""):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def found(source, top):
    """{split: {name: mask below top, or None}}"""

    def below(path):
        return path and path.relative_to(top).as_posix()

    return {split: {i.name: below(i.mask) for i in items} for split, items in source.splits.items()}


def counts(source):
    return {split: len(items) for split, items in source.splits.items()}


LAYOUTS = {
    "pairs": (
        "d",
        None,
        {"all": {"a.jpg": "d/masks/a.png", "deep/b.PNG": "d/masks/deep/b.TIFF"}},
        "d/images/a.jpg d/images/deep/b.PNG d/masks/a.png d/masks/deep/b.TIFF",
    ),
    "splits": (
        "d",
        None,
        {
            "train": {"train/a.jpg": "d/masks/train/a.png"},
            "test": {"test/a.jpg": "d/masks/test/a.png"},
        },
        "d/images/train/a.jpg d/images/test/a.jpg d/masks/train/a.png d/masks/test/a.png",
    ),
    "flat masks": (
        "d",
        None,
        {"train": {"train/a.jpg": "d/masks/a.png"}, "val": {"val/b.jpg": "d/masks/b.png"}},
        "d/images/train/a.jpg d/images/val/b.jpg d/masks/a.png d/masks/b.png",
    ),
    "splits outside": (
        "d",
        None,
        {
            "train": {"train/images/a.jpg": "d/train/masks/a.png"},
            "val": {"val/images/b.jpg": "d/val/masks/b.png"},
        },
        "d/train/images/a.jpg d/train/masks/a.png d/val/images/b.jpg d/val/masks/b.png",
    ),
    "beside": (
        "d/images",
        None,
        {"all": {"a.jpg": "d/masks/a.bmp"}},
        "d/images/a.jpg d/masks/a.bmp",
    ),
    "bare": (
        "d",
        None,
        {"all": dict.fromkeys(["a.webp", "b.JPEG", "e.tif"])},
        "d/a.webp d/b.JPEG d/e.tif",
    ),
    "bare splits": (
        "d",
        None,
        {"train": {"train/a.jpg": None}, "val": {"val/b.jpg": None}},
        "d/train/a.jpg d/val/b.jpg",
    ),
    "hidden": ("d", None, {"all": {"a.jpg": None}}, "d/a.jpg d/.b.jpg d/.git/c.jpg"),
    "sorted": (
        "d",
        None,
        {"all": dict.fromkeys(["B.jpg", "a.jpg", "a/z.jpg", "b.jpg"])},
        "d/b.jpg d/a/z.jpg d/a.jpg d/B.jpg",
    ),
    "a file": ("d/a.jpg", None, {"all": {"a.jpg": None}}, "d/a.jpg d/b.jpg"),
    "a file, masks given": ("a.jpg", "m", {"all": {"a.jpg": "m/a.png"}}, "a.jpg m/a.png m/b.png"),
    "masks given": (
        "p",
        "m",
        {"all": {"a.jpg": "m/a.png", "b.jpg": "m/b.png"}},
        "p/a.jpg p/b.jpg m/a.png m/b.png",
    ),
    "masks given below": ("d", "d/m", {"all": {"a.png": "d/m/a.png"}}, "d/a.png d/m/a.png"),
    "masks given win": (
        "d",
        "m",
        {"all": {"a.jpg": "m/a.png"}},
        "d/images/a.jpg d/masks/a.png m/a.png",
    ),
}


@pytest.mark.parametrize("images, masks, expected, files", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(tmp_path, images, masks, expected, files):
    lay(tmp_path, *files.split())
    split = "all" if "all" in expected else None  # images with masks would be dealt out
    source = sources.find(tmp_path / images, masks and tmp_path / masks, split=split)
    assert found(source, tmp_path) == expected
    assert not source.problems
    assert [list(names) for names in found(source, tmp_path).values()] == [
        list(n) for n in expected.values()
    ]
    assert source.has_masks == any(mask for split in expected.values() for mask in split.values())


@pytest.mark.parametrize("split", [None, "50/25/25", "all"])
def test_names_and_splits_do_not_depend_on_which_folder_is_given(tmp_path, scenes_folder, split):
    lay(tmp_path, *(f"images/{n}.jpg" for n in range(30)), *(f"masks/{n}.png" for n in range(30)))
    for folder in (tmp_path, scenes_folder):
        whole, inner = (
            sources.find(folder, split=split),
            sources.find(folder / "images", split=split),
        )
        assert (whole.splits, whole.classes) == (inner.splits, inner.classes)


def test_what_is_left_out_or_aside_is_said(tmp_path):
    images = ["images/a.jpg", "images/deep/b.jpg", "images/notes.txt", "images/b.gif"]
    source = sources.find(
        lay(tmp_path, *images, "masks/a.png", "masks/x.png", "masks/y.png"), split="all"
    )
    assert list(found(source, tmp_path)["all"]) == ["a.jpg"]
    assert [problem.name for problem in source.problems] == ["b.gif", "deep/b.jpg"]
    assert "deep/b.png" in source.problems[1].why
    notes = "\n".join(source.notes)
    assert "2 masks without an image" in notes
    assert "such as x" in notes
    assert "1 other file " in notes  # b.gif is an image, without a mask


@pytest.mark.parametrize(
    "files, arguments, complaint",
    [
        ("", {"images": "gone"}, "there is nothing at .*gone"),
        ("d/notes.txt", {"images": "d"}, "d holds no images"),
        (
            "d/images/a.jpg d/masks/b.png",
            {"images": "d"},
            "none of 1 images .* a.jpg: no mask a.png",
        ),
        ("d/a.jpg", {"images": "d", "masks": "gone"}, "no folder of masks at .*gone"),
        ("d/a.jpg m.png", {"images": "d", "masks": "m.png"}, "no folder of masks at .*m.png"),
        ("d/a.jpg m/b.png", {"images": "d/a.jpg", "masks": "m"}, "a.jpg has no mask in"),
        ("d/a.jpg", {"images": "d", "classes": "gone.txt"}, "gone.txt"),
    ],
)
def test_errors_name_what_is_missing(tmp_path, monkeypatch, files, arguments, complaint):
    monkeypatch.chdir(lay(tmp_path, *files.split()))
    with pytest.raises(SegkeyError, match=complaint) as caught:
        sources.find(**arguments)
    assert caught.value.hint


@settings(max_examples=15)
@given(
    st.sets(st.integers(0, 999), min_size=70, max_size=100),
    st.sets(st.integers(1000, 1999), max_size=20),
    st.sampled_from([(80, 10, 10), (50, 50, 0), (0, 30, 70), (33.3, 33.3, 33.4)]),
)
def test_adding_images_moves_none_of_the_others(first, more, shares):
    def where():
        splits = sources.find(folder, split="/".join(map(str, shares))).splits
        return {item.name: split for split, items in splits.items() for item in items}

    with tempfile.TemporaryDirectory() as folder:
        lay(Path(folder), *(f"{number}.jpg" for number in first))
        before = where()
        lay(Path(folder), *(f"{number}.jpg" for number in more))
        after = where()
    assert len(before) == len(first)
    assert len(after) == len(first | more)
    assert before.items() <= after.items()
    assert set(after.values()) <= {
        name for name, share in zip(SPLITS, shares, strict=True) if share
    }


def test_shares_are_about_as_asked_for(tmp_path):
    lay(
        tmp_path,
        *(f"images/{n}.jpg" for n in range(1000)),
        *(f"masks/{n}.png" for n in range(1000)),
    )
    dealt = counts(sources.find(tmp_path))
    assert sum(dealt.values()) == 1000
    assert abs(dealt["train"] - 800) < 50
    assert abs(dealt["val"] - 100) < 40


@pytest.mark.parametrize(
    "split, expected",
    [(None, {"train": 12, "val": 4, "test": 6}), ("all", {"all": 22}), ("0/0/100", {"test": 22})],
)
def test_a_split_asked_for_overrules_folders(scenes_folder, split, expected):
    assert counts(sources.find(scenes_folder, split=split)) == expected


@pytest.mark.parametrize(
    "split", ["50/50", "a/b/c", "-10/100/10", "80/10/11", "inf/0/0", "80,10,10", "x"]
)
def test_splits_that_are_none(scenes_folder, split):
    with pytest.raises(SegkeyError, match=f"'{split}' is not a split") as caught:
        sources.find(scenes_folder, split=split)
    assert "80/10/10" in caught.value.hint


@pytest.mark.parametrize("at", [".", "images"])
def test_class_names_are_found_or_given(tmp_path, at):
    lay(lay(tmp_path, "images/a.jpg", "masks/a.png"), "classes.txt", text="void ground\r\ncafé\n\n")
    source = sources.find(tmp_path / at)
    assert source.classes == ["void ground", "café"]
    assert "classes.txt" in source.notes[-1]
    lay(tmp_path, "mine.txt", text="a\nb\n")
    given = sources.find(tmp_path / at, classes=tmp_path / "mine.txt", ignore_index=7)
    assert (given.classes, given.ignore_index) == (["a", "b"], 7)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"a\n\nb\n",
        b"a\nb\na\n",
        b"\xff\xfea\n",
        "\n".join(map(str, range(256))).encode(),
    ],
    ids=["empty", "blank", "gap", "twice", "not UTF-8", "256"],
)
def test_lists_of_classes_that_are_none(scenes_folder, tmp_path, content):
    (tmp_path / "c.txt").write_bytes(content)
    with pytest.raises(SegkeyError, match="c.txt is not a list of classes"):
        sources.find(scenes_folder, classes=tmp_path / "c.txt")


def voc(root, train, val=3, year=2012):
    base = root / f"VOCdevkit/VOC{year}"
    for split, count in (("train", train), ("val", val)):
        names = [f"{split}_{number:06d}" for number in range(count)]
        lay(
            base,
            *(f"JPEGImages/{n}.jpg" for n in names),
            *(f"SegmentationClass/{n}.png" for n in names),
        )
        lay(base, f"ImageSets/Segmentation/{split}.txt", text="\n".join(names) + "\n")
    return base


@pytest.mark.parametrize("at", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_is_known_from_any_of_its_folders(tmp_path, at):
    base = voc(tmp_path, 10)
    voc(tmp_path, 1, year=2007)  # the newest year is taken
    source = sources.find(tmp_path / at)
    assert source.root == base
    assert len(source.classes) == 21
    assert source.classes[15] == "person"
    test = {f"JPEGImages/val_{n:06d}.jpg": f"SegmentationClass/val_{n:06d}.png" for n in range(3)}
    assert found(source, base)["test"] == test


@pytest.mark.parametrize("train, val", [(1, 0), (10, 1), (20, 2), (47, 5), (100, 10)])
def test_voc_train_is_dealt_nine_to_one(tmp_path, train, val):
    source = sources.find(voc(tmp_path, train))
    assert counts(source) == {"train": train - val} | ({"val": val} if val else {}) | {"test": 3}
    dealt = sorted(i.name for split in ("train", "val") for i in source.splits.get(split, []))
    assert dealt == [f"JPEGImages/train_{n:06d}.jpg" for n in range(train)]


def test_voc_files_that_are_missing_become_problems(tmp_path):
    base = voc(tmp_path, 10)
    (base / "JPEGImages/train_000003.jpg").unlink()
    (base / "SegmentationClass/val_000001.png").unlink()
    source = sources.find(base)
    assert len(source) == 11
    assert {problem.name: problem.why for problem in source.problems} == {
        "train_000003.jpg": "JPEGImages/train_000003.jpg missing",
        "val_000001.jpg": "SegmentationClass/val_000001.png missing",
    }
    (base / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(SegkeyError, match="val.txt"):
        sources.find(base)


@pytest.mark.parametrize(
    "folder, expected, classes",
    [
        ("VOCdevkit", {"train": 393, "val": 44, "test": 445}, 21),
        ("camvid-256", {"train": 367, "val": 101, "test": 233}, 11),
    ],
)
def test_real_data(data_folder, folder, expected, classes):
    source = sources.find(data_folder / folder)
    assert counts(source) == expected
    assert len(source.classes) == classes
    assert not source.problems
    assert all(item.mask for items in source.splits.values() for item in items)


@pytest.mark.parametrize("split", ["nan/50/50", "80/nan/10", ""])
def test_splits_that_are_no_numbers(scenes_folder, split):
    with pytest.raises(SegkeyError, match="is not a split"):
        find(scenes_folder, split=split)


def test_masks_inside_a_bare_folder_are_masks(tmp_path):
    (tmp_path / "masks").mkdir()
    for name in ("a.jpg", "masks/a.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    (item,) = (item for items in find(tmp_path).splits.values() for item in items)
    assert (item.name, item.mask) == ("a.jpg", tmp_path / "masks/a.png")


def test_the_working_folder_may_be_the_images(tmp_path, monkeypatch, scenes_folder):
    monkeypatch.chdir(scenes_folder / "images")
    source = find(".")
    assert source.has_masks
    assert {split: len(items) for split, items in source.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 6,
    }


def test_a_broken_classes_file_is_overridden(tmp_path, scenes_folder):
    shutil.copytree(scenes_folder, tmp_path / "data")
    (tmp_path / "data/classes.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "mine.txt").write_bytes("\ufefffirst\nsecond\n".encode())
    assert find(tmp_path / "data", classes=tmp_path / "mine.txt").classes == ["first", "second"]
    with pytest.raises(SegkeyError, match="not a list of classes"):
        find(tmp_path / "data")


def test_flat_masks_beside_split_folders_are_no_leftovers(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / f"images/{split}/{split}.jpg")
    (tmp_path / "masks").mkdir()
    for name in ("train", "val", "other"):
        Image.new("L", (4, 4)).save(tmp_path / f"masks/{name}.png")
    (note,) = (note for note in find(tmp_path).notes if "without an image" in note)
    assert "1 mask " in note
    assert "other.png" in note


# ------------------------------------------------------------------ lists


def test_a_list_is_dealt_out_like_the_folder_it_names(tmp_path):
    names = [f"{n}.jpg" for n in range(30)]
    lay(
        tmp_path,
        *(f"images/{name}" for name in names),
        *(f"masks/{n}.png" for n in range(30)),
        "images/none.jpg",
    )
    lines = [f"{name}\t../masks/{name[:-4]}.png" for name in reversed(names)]
    listed = tmp_path / "images/list.txt"
    listed.write_text("\n".join([*lines, "", lines[0], "none.jpg", ""]))
    source, folder = sources.find(listed), sources.find(tmp_path)
    for split, items in folder.splits.items():
        assert [item.name for item in source.splits[split]] == [item.name for item in items]
        assert all(
            a.image.samefile(b.image) and a.mask.samefile(b.mask)
            for a, b in zip(source.splits[split], items, strict=True)
        )
    assert [problem.name for problem in source.problems] == ["none.jpg"]
    assert source.notes == [f"1 image listed more than once in {listed}, and taken once"]


def test_a_list_of_images_alone(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"b.jpg\n{tmp_path}/a.jpg\n")
    (items,) = sources.find(listed).splits.values()
    assert [item.image for item in items] == [tmp_path / name for name in ("a.jpg", "b.jpg")]
    assert not any(item.mask or item.name.startswith("/") for item in items)


def names_of(listed):
    return {
        item.image: item.name
        for items in sources.find(listed, split="all").splits.values()
        for item in items
    }


LISTED = {
    "absolute": ("{top}/home/anna/a.jpg\n{top}/home/anna/d/b.jpg", {"a.jpg", "d/b.jpg"}),
    "one absolute": ("{top}/home/anna/a.jpg", {"a.jpg"}),
    "absolute, below the list": ("{top}/lists/x/a.jpg\n{top}/lists/b.jpg", {"x/a.jpg", "b.jpg"}),
    "absolute, winding": (
        "{top}/home/./anna/../anna/a.jpg\n{top}/home/anna//d/b.jpg",
        {"a.jpg", "d/b.jpg"},
    ),
    "out of the list's folder": ("../home/anna/a.jpg\n../home/anna/d/b.jpg", {"a.jpg", "d/b.jpg"}),
    "out in a round about way": ("x/../../home/anna/a.jpg", {"a.jpg"}),
    "nothing shared": ("/home/anna/a.jpg\n/mnt/disk/anna/d/b.jpg", {"a.jpg", "b.jpg"}),
    "nothing shared, two of a name": (
        "/home/anna/a.jpg\n/mnt/disk/a.jpg\n/srv/a.jpg",
        {"a.jpg", "a-2.jpg", "a-3.jpg"},
    ),
    "a listed name is taken": ("a.jpg\n{top}/home/anna/a.jpg", {"a.jpg", "a-2.jpg"}),
    "Windows": (
        "C:\\Users\\anna\\a.jpg\nC:/Users/anna/d/b.jpg\nD:\\anna\\c.jpg",
        {"a.jpg", "d/b.jpg", "c.jpg"},
    ),
    "a share": ("\\\\server\\anna\\p\\a.jpg\n\\\\server\\anna\\p\\d\\b.jpg", {"a.jpg", "d/b.jpg"}),
    "relative": (
        "a.jpg\nd/./b.jpg\nd/../c.jpg\n..d/e.jpg\nx:1.jpg",
        {"a.jpg", "d/./b.jpg", "d/../c.jpg", "..d/e.jpg", "x:1.jpg"},
    ),
}


@pytest.mark.parametrize("content, names", LISTED.values(), ids=LISTED)
def test_listed_names_do_not_tell_where_the_images_lie(tmp_path, content, names):
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists/list.txt"
    listed.write_text(content.format(top=tmp_path))
    found = names_of(listed)
    assert set(found.values()) == names
    assert len(found) == len(content.splitlines())
    assert not any("anna" in name or "server" in name for name in found.values())
    notes = "\n".join(sources.find(listed, split="all").notes)
    assert ("anyone who gets the shards can read the names" in notes) == ("x:1.jpg" not in content)


def test_names_that_a_list_gives_relative_to_itself_stand_as_they_are(tmp_path):
    """With them stands the digest that says whether an earlier version's shard was made from the
    same images."""
    listed = tmp_path / "list.txt"
    listed.write_text("d/b.jpg\na.jpg\n")
    (items,) = sources.find(listed, split="all").splits.values()
    assert seeds.digest(item.name for item in items) == "bed61047b0eee6c8"


def test_what_a_list_names_is_dealt_out_by_how_it_is_listed(tmp_path):
    """As ever, so that no test image of an earlier version becomes one to train on, and adding
    images moves none."""

    def dealt(*lines):
        (tmp_path / "list.txt").write_text("".join(f"{line}\t{line}.png\n" for line in lines))
        splits = sources.find(tmp_path / "list.txt").splits
        return {item.image: split for split, items in splits.items() for item in items}

    lines = [f"/home/anna/photos/{number}.jpg" for number in range(60)]
    before = dealt(*lines)
    by_hand = [layouts.hash_of(line.lstrip("/")) / 2**64 for line in lines]
    assert [before[Path(line)] for line in lines] == [
        "train" if h < 0.8 else "val" if h < 0.9 else "test" for h in by_hand
    ]
    after = dealt(*lines, "/home/bert/x.jpg", "/mnt/y.jpg", "z.jpg")
    assert before.items() <= after.items()
    assert len(after) == 63


def test_a_voc_list_names_images_of_its_own_folder_alone(tmp_path):
    base = voc(tmp_path, 3)
    lay(tmp_path, "home/anna/a.jpg", "home/anna/a.png")
    with (base / "ImageSets/Segmentation/train.txt").open("a") as file:
        file.write(f"{tmp_path}/home/anna/a\n../../../home/anna/a\n")
    source = sources.find(base)
    assert len(source) == 6
    assert len(source.problems) == 2
    assert all("names an image outside of JPEGImages" in problem.why for problem in source.problems)
    assert not any("anna" in item.name for items in source.splits.values() for item in items)


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("", "holds no images"),
        ("a.jpg\tb.png\tc.png\n", "line 1: not an image"),
        ("a\nb\0c.jpg\n", "line 2: not an image"),
    ],
)
def test_lists_that_are_none(tmp_path, content, complaint):
    listed = tmp_path / "list.txt"
    listed.write_text(content)
    with pytest.raises(SegkeyError, match=complaint) as caught:
        sources.find(listed)
    assert caught.value.hint


def test_a_list_names_its_masks_itself(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("a.jpg\n")
    with pytest.raises(SegkeyError, match="a list, and --masks is for folders"):
        sources.find(listed, tmp_path)
