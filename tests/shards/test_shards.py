"""Shards: what goes in comes out, and whatever is not whole and honest is refused."""

import gc
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from segkey.errors import SegkeyError
from segkey.shards import (
    Header,
    Packed,
    Shard,
    ShardWriter,
    find_splits,
    index_path,
    open_splits,
    write_index,
)
from segkey.system.seeds import seeded

SIZE = (6, 8)
NAMES = ["a.jpg", "déjà/b.jpg", "c\udcff.jpg"]  # the last one is not UTF-8 on disk


def pixels(name, view, kind="images", dtype="uint8"):
    """A row that tells which image and view it is."""
    shape, top = ((3, *SIZE), np.iinfo(dtype).max) if kind == "images" else (SIZE, 4)
    return seeded(name, view, kind).integers(0, top, shape, dtype=dtype, endpoint=True)


def write(path, names=NAMES, masks=True, dtype="uint8", skip=(), size=SIZE, **about):
    usual = dict(
        method="np", block_size=2, channels=3, max_value=255, key_id="00" * 8, classes=("x", "y")
    )
    header = Header(**{"split": path.stem.split("-0")[0]} | usual | about)
    writer = ShardWriter(path, header, names, size, dtype, masks)
    for position, name in enumerate(names):
        if name not in skip:
            views = range(header.views)
            rows = {
                "images": [Packed.image(pixels(name, v, dtype=dtype)[:, : size[0]]) for v in views]
            }
            if masks:
                rows["masks"] = [Packed.mask(pixels(name, v, "masks")[: size[0]]) for v in views]
            writer.write(position, (100 + position, 200), rows)
    writer.finish()
    return path


def content(path):
    """Everything that a reader gets from a shard."""
    with Shard(path) as shard:
        kinds = ["images", "masks"][: 1 + shard.has_masks]
        rows = [
            shard.read(k, r).tobytes()
            for k in kinds
            for r in range(shard.images * shard.header.views)
        ]
        about = (
            shard.header,
            shard.made_with,
            shard.size,
            shard.dtype,
            shard.has_masks,
            shard.names,
        )
        return about, shard.original_sizes.tolist(), rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "train.h5", views=2)


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copy(whole, tmp_path / "train.h5")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("views", [1, 3])
def test_round_trip(tmp_path, dtype, masks, views):
    about = dict(
        method="ffx",
        block_size=2,
        max_value=997 if dtype == "uint16" else 255,
        password_hash="ab",
        classes=("café", "a b"),
        ignore_index=7,
        views=views,
        augmented=views > 1,
        seed=-5,
        crop_scale=0.3,
    )
    path = write(tmp_path / "my-split.h5", masks=masks, dtype=dtype, **about)
    assert [file.name for file in tmp_path.iterdir()] == ["my-split.h5"]
    with Shard(path) as shard:
        assert shard.header == Header(split="my-split", channels=3, key_id="00" * 8, **about)
        assert (shard.images, shard.size, shard.dtype, shard.has_masks) == (3, SIZE, dtype, masks)
        assert shard.names == NAMES
        assert shard.made_with.startswith("segkey ")
        assert shard.original_sizes.tolist() == [[100, 200], [101, 200], [102, 200]]
        for row in range(3 * views):
            view, position = divmod(row, 3)
            image = shard.read("images", row)
            assert image.dtype == dtype
            assert np.array_equal(image, pixels(NAMES[position], view, dtype=dtype))
            if masks:
                assert np.array_equal(
                    shard.read("masks", row), pixels(NAMES[position], view, "masks")
                )
        assert list(shard.damage()) == [None] * (3 * views * (1 + masks))


def test_the_same_input_makes_the_same_bytes(tmp_path, whole):
    time.sleep(1.1)  # HDF5 would note the time in seconds
    assert write(tmp_path / "train.h5", views=2).read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("skip", [{0}, {4}, {1, 2}, {0, 2, 4}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}])
def test_gaps_are_closed_up(tmp_path, views, skip):
    names, kept = [f"{n}.jpg" for n in range(5)], [n for n in range(5) if n not in skip]
    path = write(tmp_path / "train.h5", names, views=views, skip={names[n] for n in skip})
    if not kept:
        assert not list(tmp_path.iterdir())  # a shard of nothing is not made
        return
    with Shard(path) as shard:
        assert shard.names == [names[n] for n in kept]
        assert [height - 100 for height, _ in shard.original_sizes] == kept
        for row in range(len(kept) * views):
            view, position = divmod(row, len(kept))
            for kind in ("images", "masks"):
                assert np.array_equal(
                    shard.read(kind, row), pixels(names[kept[position]], view, kind)
                )


def test_no_file_has_the_final_name_before_the_end(tmp_path):
    writer = ShardWriter(
        tmp_path / "a.h5", Header("a", "none", 1, 3, 255), ["a"], SIZE, "uint8", False
    )
    writer.write(0, SIZE, {"images": [Packed.image(pixels("a", 0))]})
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5.partial"]
    writer.abandon()
    assert not list(tmp_path.iterdir())
    with pytest.raises(SegkeyError, match=f"{tmp_path}/gone/train.h5.partial: No such file"):
        write(tmp_path / "gone/train.h5")


@pytest.mark.parametrize("limit", [0, 100, 5_000, 400_000])
def test_a_failing_write_leaves_nothing(tmp_path, limit):
    # A limit on the size of a file fails as a full disk does, and needs no full disk.
    script = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from pathlib import Path
import numpy as np
from segkey.errors import SegkeyError
from segkey.shards import Header, Packed, ShardWriter
row, names = Packed.image(np.full((3, 64, 64), 7, np.uint8)), [str(n) for n in range(50)]
try:
    header = Header("a", "none", 1, 3, 255)
    writer = ShardWriter(Path(sys.argv[1], "a.h5"), header, names, (64, 64), "uint8", False)
    try:
        for n in range(50):
            writer.write(n, (1, 1), {{"images": [row]}})
        writer.finish()
    finally:
        writer.abandon()
except SegkeyError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert "a.h5.partial: File too large" in run.stdout, run
    assert "ulimit -f" in run.stdout, run
    assert run.returncode == 0
    assert not list(tmp_path.iterdir())


def swap(name, **make):
    """Put another dataset in a dataset's place."""
    return lambda file: (file.pop(name), file.create_dataset(name, **make))


def attribute(name, value):
    value = np.bytes_(value.encode()) if isinstance(value, str) else value  # as the writer does
    return lambda file: file.attrs.create(name, value)


def edit(name, row, value):
    return lambda file: file[name].__setitem__(row, value)


def link(where):
    return lambda file: (file.move("images", "moved"), file.__setitem__("images", where))


def virtual(file):
    layout = h5py.VirtualLayout(shape=(6, 3, *SIZE), dtype="u1")
    layout[:] = h5py.VirtualSource("other.h5", "images", shape=(6, 3, *SIZE))
    file.pop("images")
    file.create_virtual_dataset("images", layout)


ROWS = dict(shape=(6, 3, *SIZE), dtype="u1")
CHUNKED = ROWS | {"chunks": (1, 3, *SIZE)}
MASKS = dict(shape=(6, *SIZE), dtype="u1", chunks=(1, *SIZE))
REFUSED = {
    "external link": ("'images' is a link", link(h5py.ExternalLink("other.h5", "/images"))),
    "soft link": ("'images' is a link", link(h5py.SoftLink("/moved"))),
    "dangling link": ("'images' is a link", link(h5py.SoftLink("/nowhere"))),
    "virtual": ("'images' is not stored in the file", virtual),
    "external": (
        "'images' is not stored in the file",
        swap("images", **ROWS, external=[("raw", 0, 864)]),
    ),
    "group": (
        "'images' is not stored in the file",
        lambda f: (f.pop("images"), f.create_group("images")),
    ),
    "huge": (
        r"shape \(17592186044416, 3",
        swap("images", **CHUNKED | {"shape": (1 << 44, 3, *SIZE)}),
    ),
    "no rows": (
        r"shape \(0",
        swap("images", **CHUNKED | {"shape": (0, 3, *SIZE)}, maxshape=(9, 3, *SIZE)),
    ),
    "odd rows": (r"shape \(5, 3", swap("images", **CHUNKED | {"shape": (5, 3, *SIZE)})),
    "channels": (
        r"shape \(6, 1",
        swap("images", shape=(6, 1, *SIZE), dtype="u1", chunks=(1, 1, *SIZE)),
    ),
    "three axes": (r"shape \(6, 6, 8\)", swap("images", **MASKS)),
    "float": ("type float32", swap("images", **CHUNKED | {"dtype": "f4"})),
    "big-endian": ("type >u2", swap("images", **CHUNKED | {"dtype": ">u2"})),
    "compound": (
        "has the type",
        swap("images", **CHUNKED | {"dtype": np.dtype([("a", "u1"), ("b", "u1")])}),
    ),
    "objects": ("has the type object", swap("images", **CHUNKED | {"dtype": h5py.string_dtype()})),
    "two a chunk": ("not stored one by one", swap("images", **ROWS, chunks=(2, 3, *SIZE))),
    "no chunks": ("not stored one by one", swap("images", **ROWS)),
    "filter": ("uncompressed", swap("images", **CHUNKED, compression="gzip")),
    "other masks": (r"masks have .* \(5, 6, 8\)", swap("masks", **MASKS | {"shape": (5, *SIZE)})),
    "plain masks": ("masks are not compressed", swap("masks", **MASKS)),
    "lzf masks": ("masks are not compressed", swap("masks", **MASKS, compression="lzf")),
    "shuffled masks": (
        "masks are not compressed",
        swap("masks", **MASKS, compression="gzip", shuffle=True),
    ),
    "no masks": ("checksums are not those", lambda f: f.pop("masks")),
    "no images": ("'images' is", lambda f: f.pop("images")),
    "no names": ("'names' is", lambda f: f.pop("names")),
    "name objects": ("'names' has", swap("names", data=["a", "b", "c"], dtype=h5py.string_dtype())),
    "few names": ("'names' has .* shape", swap("names", data=np.array([b"a", b"b"]))),
    "huge names": (
        "'names' is larger than the file",
        swap("names", shape=3, dtype="S60000", chunks=(1,)),
    ),
    "name edited": ("dataset 'names' does not match", edit("names", 0, b"other.jpg")),
    "size edited": ("dataset 'sizes' does not match", edit("sizes", (0, 0), 99)),
    "crc edited": ("dataset 'images_crc32' does not match", edit("images_crc32", 2, 99)),
    "newer": (
        "has the format 'segkey-shard-v2'.*\nupgrade segkey",
        attribute("format", "segkey-shard-v2"),
    ),
    "other format": ("does not say that it is one", attribute("format", "something")),
    "no format": ("does not say that it is one", lambda f: f.attrs.pop("format")),
    "no views": ("damaged", lambda f: f.attrs.pop("views")),
    "text": ("attribute 'views' is '2'; expected a whole number", attribute("views", "2")),
    "number": ("attribute 'key_id' is 7; expected 16 hex digits", attribute("key_id", 7)),
    "list": ("'views' is not a single number", attribute("views", [2, 2])),
    "empty": ("single number|damaged", attribute("views", h5py.Empty("i4"))),
    "long": ("attribute 'split' is .*expected", attribute("split", np.bytes_(b"x" * 60_000))),
    "folder": ("attribute 'split' is .*expected", attribute("split", "..")),
    "heap": (
        "'split' is not a single number or text",
        lambda file: file.attrs.create("split", "train", dtype=h5py.string_dtype()),
    ),
    "negative": ("attribute 'views' is .*expected", attribute("views", -1)),
    "zero": ("attribute 'block_size' is .*expected", attribute("block_size", 0)),
    "void": ("attribute 'ignore_index' is .*expected", attribute("ignore_index", 256)),
    "a command for a key": (
        "'key_id' is '\\$\\(id\\)'; expected 16",
        attribute("key_id", np.bytes_(b"$(id)")),
    ),
    "a name that moves the cursor": (
        "'classes' is .*expected",
        attribute("classes", json.dumps(["\x1b[2J"])),
    ),
    "a class twice": ("'classes' names a class twice", attribute("classes", '["a", "a"]')),
    "class numbers": ("attribute 'classes' is .*expected", attribute("classes", "[1, 2]")),
    "no class list": ("damaged", attribute("classes", "7")),
    "edited": ("attributes do not match their checksum", attribute("seed", 5)),
    "added": ("attributes do not match their checksum", attribute("extra", 1)),
    "many": ("too many attributes", lambda f: [f.attrs.create(f"a{n}", 1) for n in range(60)]),
    "no checksums": ("damaged", lambda f: f.attrs.pop("checksums")),
    "deep checksums": ("damaged", attribute("checksums", "[" * 60_000)),
    "few checksums": ("do not match", attribute("checksums", '{"attributes": ""}')),
}


@pytest.mark.parametrize("complaint, change", REFUSED.values(), ids=REFUSED)
def test_refused_on_opening(copy, whole, complaint, change):
    shutil.copy(whole, copy.with_name("other.h5"))  # so that links would find something
    copy.with_name("raw").write_bytes(bytes(864))
    with h5py.File(copy, "r+") as file:
        change(file)
    tracemalloc.start()
    try:
        with pytest.raises(SegkeyError, match=complaint) as caught:
            Shard(copy)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert str(copy) in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_names_that_would_take_all_memory(whole, monkeypatch):
    """A file of holes can be as large as its names say."""
    monkeypatch.setattr("segkey.shards.form_check._MAX_TABLE", 10)
    with pytest.raises(SegkeyError, match="'(names|sizes)' is larger than 512 MB"):
        Shard(whole)


@pytest.mark.parametrize("part", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_cut_off(copy, part):
    whole = copy.read_bytes()
    copy.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(SegkeyError, match="is not a whole segkey shard"):
        content(copy)


def test_no_shards(tmp_path):
    (tmp_path / "text").write_text("hello")
    h5py.File(tmp_path / "hdf5", "w").close()
    (tmp_path / "folder").mkdir()
    reasons = {
        "gone": "no shard at",
        "folder": "no shard at",
        "text": "no HDF5 file",
        "hdf5": "does not say",
    }
    for name, why in reasons.items():
        with pytest.raises(SegkeyError, match=why) as caught:
            Shard(tmp_path / name)
        assert str(tmp_path / name) in caught.value.what
    with pytest.raises(SegkeyError, match="there are no shards in"):
        open_splits([tmp_path])


@pytest.mark.parametrize("kind, row", [("images", 0), ("images", 4), ("masks", 5)])
def test_a_damaged_row_is_named(copy, kind, row):
    with h5py.File(copy, "r+") as file:
        changed = file[kind][row]
        changed.flat[7] ^= 1
        file[kind][row] = changed
    named = f"{copy} is damaged: dataset '{kind}', row {row} ({NAMES[row % 3]})"
    with Shard(copy) as shard:
        for _ in range(2):  # the second reading is checked too, as the first did not pass
            with pytest.raises(SegkeyError) as caught:
                shard.read(kind, row)
            assert caught.value.what.startswith(named)
        for other in set(range(6)) - {row}:
            assert np.array_equal(
                shard.read(kind, other), pixels(NAMES[other % 3], other // 3, kind)
            )
        assert [error.what.startswith(named) for error in shard.damage() if error] == [True]


@pytest.mark.parametrize(
    "chunk",
    [
        zlib.compress(bytes(40 << 20), 9),
        zlib.compress(bytes(47)),
        zlib.compress(bytes(48))[:-6],
        b"no zlib",
    ],
    ids=["bomb", "short", "cut off", "garbage"],
)
def test_hostile_masks(copy, chunk):
    with h5py.File(copy, "r+") as file:
        file["masks"].id.write_direct_chunk((2, 0, 0), chunk)
    tracemalloc.start()
    try:
        with Shard(copy) as shard, pytest.raises(SegkeyError, match="dataset 'masks', row 2"):
            shard.read("masks", 2)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_flipped_bits_are_noticed_or_harmless(copy):
    whole, expected = copy.read_bytes(), content(copy)
    generator, raised = seeded("flips"), 0
    for position in generator.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(generator.integers(8))
        copy.write_bytes(damaged)
        try:
            assert content(copy) == expected, f"byte {position}"
        except SegkeyError as error:
            assert str(copy) in error.what
            raised += 1
    assert raised >= 15  # the rest hits the space between the parts of a small file


@pytest.mark.parametrize("counts", [[1], [3, 1, 2], [1, 1, 1, 4]])
@pytest.mark.parametrize("views", [1, 2])
def test_a_split_in_several_files_is_one_sequence(tmp_path, counts, views):
    names = [[f"{shard}/{n}.jpg" for n in range(count)] for shard, count in enumerate(counts)]
    for number, own in enumerate(names):
        write(tmp_path / f"train-{number:05d}-of-{len(counts):05d}.h5", own, views=views)
    (split,) = open_splits([tmp_path]).values()
    assert split.names == sum(names, [])
    assert len(split) == sum(counts)
    assert len(split.shards) == len(counts)
    for index, name in enumerate(split.names):
        for view in range(views):
            for kind in ("images", "masks"):
                assert np.array_equal(split.read(kind, index, view), pixels(name, view, kind))
    split.close()


def test_splits_can_be_chosen(tmp_path):
    for name in ("train", "val", "test"):
        write(tmp_path / f"{name}.h5", views=2 if name == "train" else 1)  # only train has views
    assert sorted(open_splits([tmp_path])) == ["test", "train", "val"]
    assert sorted(open_splits([tmp_path], wanted=("test", "val"))) == ["test", "val"]
    assert sorted(open_splits([tmp_path / "val.h5", tmp_path / "test.h5"])) == ["test", "val"]


@pytest.mark.parametrize(
    "about, word",
    [
        ({"key_id": "11" * 8}, "key"),
        ({"method": "shf"}, "method"),
        ({"block_size": 1}, "block size"),
        ({"password_hash": "ab"}, "FFX password"),
        ({"classes": ("x", "z")}, "classes"),
        ({"ignore_index": 0}, "ignore_index"),
        ({"size": (4, 8)}, "size"),
        ({"masks": False}, "masks"),
        ({"split": "train", "views": 2}, "views"),
    ],
)
def test_shards_that_do_not_belong_together(tmp_path, about, word):
    a, b = write(tmp_path / "train.h5"), write(tmp_path / "val.h5", **about)
    with pytest.raises(SegkeyError) as caught:
        open_splits([tmp_path])
    assert caught.value.what == f"{a} and {b} differ in {word}"


@pytest.mark.parametrize(
    "there", [["train-00000-of-00002.h5"], ["train.h5", "train-00000-of-00001.h5"]]
)
def test_incomplete_or_mixed_shards(tmp_path, there):
    for name in there:
        write(tmp_path / name)
    with pytest.raises(SegkeyError, match="'train' are not complete.*\n.*segkey encrypt"):
        open_splits([tmp_path])


def test_a_mask_that_was_never_written_is_damage(copy):
    with h5py.File(copy, "r+") as file:
        shape, chunks = file["masks"].shape, file["masks"].chunks
        del file["masks"]
        file.create_dataset("masks", shape, "u1", chunks=chunks, compression="gzip")
    with Shard(copy) as shard, pytest.raises(SegkeyError, match="dataset 'masks', row 0"):
        shard.read("masks", 0)


@pytest.mark.parametrize(
    "names", [["a-00000-of-00002.h5", "a-00005-of-00002.h5"], ["a-00001-of-00002.h5"] * 2]
)
def test_shards_are_counted_by_their_numbers(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(SegkeyError, match="'a' are not complete"):
        find_splits([tmp_path / name for name in names])


def test_a_renamed_shard_is_not_taken_for_another_split(copy):
    copy.rename(copy.with_name("val.h5"))
    with pytest.raises(SegkeyError, match="holds split 'train', its name says 'val'"):
        open_splits([copy.with_name("val.h5")])


# ------------------------------------------------------------------ many files


@pytest.fixture
def many(tmp_path):
    """A split in 50 shards of 1 and 2 images, with its index."""
    files = [tmp_path / f"train-{number:05d}-of-00050.h5" for number in range(50)]
    for number, file in enumerate(files):
        write(file, [f"{number}/{image}.jpg" for image in range(1 + number % 2)])
    write_index(files, "train")
    return tmp_path


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="counts open files where Linux lists them"
)
def test_a_split_with_an_index_opens_shards_when_they_are_read_and_few_stay_open(many, monkeypatch):
    opened, check = [], Shard._check
    monkeypatch.setattr(
        Shard, "_check", lambda shard: opened.append(shard.path.name) or check(shard)
    )
    gc.collect()  # files of earlier tests that nobody refers to any more
    before = open_files()
    (split,) = open_splits([many]).values()
    assert len(opened) == 1
    assert len(split) == 75
    expected = [f"{number}/{image}.jpg" for number in range(50) for image in range(1 + number % 2)]
    for index, name in enumerate(expected):
        assert np.array_equal(split.read("images", index), pixels(name, 0, "images"))
    assert len(set(opened)) == 50
    assert open_files() - before <= 2 * 34
    assert split.names == expected
    fingerprint = split.fingerprint
    split.close()
    assert open_files() == before
    index_path([many / "x"], "train").unlink()
    (asked,) = open_splits([many]).values()
    assert (len(asked), asked.fingerprint, asked.names) == (75, fingerprint, expected)
    asked.close()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "segkey-index-v1", "shards": [["a", 1]]}']
)
def test_an_index_that_is_none_is_passed_over(many, content):
    index_path([many / "x"], "train").write_text(content)
    assert len(open_splits([many])["train"]) == 75


def test_a_shard_that_is_not_the_one_of_the_index_is_told(many):
    write(many / "train-00007-of-00050.h5", ["other.jpg"])
    (split,) = open_splits([many]).values()
    with pytest.raises(
        SegkeyError, match="train-00007-of-00050.h5 is not the shard that train.index.json names"
    ) as caught:
        split.read("images", 11)
    index_path([many / "x"], "train").unlink()
    assert "remove" in caught.value.hint
    assert len(open_splits([many])["train"]) == 74
