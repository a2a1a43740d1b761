"""Encryption: exact, the same on any number of workers, resumable; and the way back."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from making import files
from PIL import Image

from segkey.crypto import ciphers
from segkey.data import sources
from segkey.data.intake import take_in
from segkey.data.items import Item
from segkey.data.mask_survey import look
from segkey.data.preparation import Preparation
from segkey.data.survey_conclusions import conclude
from segkey.data.user_choices import Choices, parse_choices
from segkey.errors import KeyMismatchError, SegkeyError
from segkey.shards import Header, Packed, Shard, ShardWriter, open_splits
from segkey.shards.decryption import decrypt
from segkey.shards.encryption import encrypt, plan_shards
from segkey.shards.unlock import cipher_for
from segkey.system.folder_lock import sole_writer

SIZE = (16, 24)  # not square, so that heights and widths cannot be mixed up
SMALL = 3 * 2 * 3 * SIZE[0] * SIZE[1]  # bytes of a shard of three images in two views


def make(source, out, key, method="np", block_size=4, workers=1, strict=False, force=False, **how):
    cipher = ciphers.from_key(method, key, block_size)
    plans = plan_shards(source, out, cipher, **{"size": SIZE, "views": 2} | how)
    return encrypt(plans, cipher, workers=workers, strict=strict, force=force)


def items(source):
    return {item.name: item for group in source.splits.values() for item in group}


def prepared(item, views=1, **how):
    """The plain views of an image and of its mask, as they go into a shard."""
    images, masks, _ = Preparation(SIZE, 5, views=views, augmented=views > 1, **how).load(item)
    return images, masks


@pytest.fixture(scope="module")
def in_many(tmp_path_factory, scenes_source, key):
    """The scenes in small shards: train in 4, val and test in one each, as they have a view
    only."""
    out = tmp_path_factory.mktemp("many")
    make(scenes_source, out, key, shard_bytes=SMALL)
    return out


@pytest.mark.parametrize("method", ["np", "shf", "ffx", "none"])
def test_decrypted_shards_are_the_resized_images(tmp_path, scenes_source, key, method):
    result = make(scenes_source, tmp_path, key, method, shard_bytes=SMALL)
    assert result.images == {"train": 12, "val": 4, "test": 6}
    assert not result.problems
    assert result.bytes == sum(file.stat().st_size for file in tmp_path.glob("*.h5"))
    cipher, by_name = ciphers.from_key(method, key, 4), items(scenes_source)
    for split in open_splits([tmp_path]).values():
        train = split.header.split == "train"
        assert (split.header.views, split.header.augmented) == (2 if train else 1, train)
        assert split.names == [item.name for item in scenes_source.splits[split.header.split]]
        for index, name in enumerate(split.names):
            images, masks = prepared(by_name[name], split.header.views)
            for view, image in enumerate(images):
                stored = split.read("images", index, view)
                assert np.array_equal(cipher.decrypt(stored), image)
                assert np.array_equal(stored, image) == (method == "none")
                assert np.array_equal(split.read("masks", index, view), masks[view])


def test_images_that_are_not_augmented_are_what_pillow_makes_of_them(
    scenes_source, shards_folder, key
):
    split, by_name = open_splits([shards_folder])["test"], items(scenes_source)
    for index, name in enumerate(split.names):
        image, mask = Image.open(by_name[name].image), Image.open(by_name[name].mask)
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.array_equal(
            ciphers.from_key("np", key, 4).decrypt(split.read("images", index)), expected
        )
        assert np.array_equal(
            split.read("masks", index), mask.resize((32, 32), Image.Resampling.NEAREST)
        )


def test_workers_do_not_change_a_byte(tmp_path, scenes_source, key, in_many):
    make(scenes_source, tmp_path, key, workers=2, shard_bytes=SMALL)
    assert files(tmp_path) == files(in_many)


def test_a_shard_holds_nothing_secret(in_many, scenes_source, key):
    stored = b"".join(files(in_many).values())
    images, _ = prepared(scenes_source.splits["test"][0])
    assert bytes(range(32)) not in stored
    assert bytes(range(32)).hex().encode() not in stored
    assert images[0][0, 0].tobytes() not in stored  # not even a row of plain pixels
    assert key.id.encode() in stored


def test_without_masks(tmp_path, scenes_folder, key):
    assert make(sources.find(scenes_folder / "images" / "test"), tmp_path, key).images == {"all": 6}
    with Shard(tmp_path / "all.h5") as shard:
        assert not shard.has_masks
        assert shard.header.classes == ()
        assert shard.images == 6


def test_views_depend_on_seed_name_and_number_alone(scenes_source):
    def views(seed, name="train/scene0000.jpg", count=4):
        return [
            image.tobytes() for image in prepared(items(scenes_source)[name], count, seed=seed)[0]
        ]

    first = views(0)
    assert len(set(first)) == 4
    assert views(0) == first
    assert views(0, count=2) == first[:2]
    assert not set(views(1)) & set(first)
    assert not set(views(0, "train/scene0001.jpg")) & set(first)


def test_views_cut_the_mask_like_the_image(tmp_path):
    # Every pixel holds its column, in the image as in the mask; see the test of the same in
    # test_pictures.
    ramp = np.tile(np.arange(60, dtype=np.uint8), (40, 1))
    Image.fromarray(np.dstack([ramp] * 3)).save(tmp_path / "a.png")
    Image.fromarray(ramp).save(tmp_path / "b.png")
    item = Item("a.png", tmp_path / "a.png", tmp_path / "b.png")
    images, masks, size = Preparation((32, 32), 60, views=20, augmented=True).load(item)
    assert size == (40, 60)
    for image, mask in zip(images, masks, strict=True):
        assert np.abs(image[0].astype(int) - mask)[:, 3:-3].max() <= 2
    assert len({mask[0, 0] < mask[0, -1] for mask in masks}) == 2  # some are mirrored


def test_classes_are_counted_where_nothing_names_them(scenes_source):
    from dataclasses import replace

    nameless = replace(scenes_source, classes=None, labels=None)
    assert conclude(nameless, look(nameless, every=True), Choices())
    assert nameless.classes == [f"class {number}" for number in range(5)]


@pytest.fixture
def spoilt(scenes_folder, tmp_path):
    """Scenes of which three cannot be used, and what must be said of each."""
    copy = Path(shutil.copytree(scenes_folder, tmp_path / "scenes"))
    (copy / "images/train/scene0003.jpg").write_bytes(b"\xff\xd8 no more")
    Image.fromarray(np.zeros((48, 47), np.uint8)).save(copy / "masks/train/scene0005.png")
    Image.fromarray(np.full((48, 48), 9, np.uint8)).save(copy / "masks/test/scene0000.png")
    Image.fromarray(np.full((48, 48), 255, np.uint8)).save(copy / "masks/val/scene0000.png")  # void
    return sources.find(copy), {
        "train/scene0003.jpg": "images/train/scene0003.jpg: ",
        "train/scene0005.jpg": "masks/train/scene0005.png: the mask is 47x48, its image 48x48",
        "test/scene0000.jpg": "masks/test/scene0000.png: holds class 9, but there are 5 (0 to 4)",
    }


def test_bad_images_are_named_and_the_others_go_on(tmp_path, spoilt, key):
    source, reasons = spoilt
    result = make(source, tmp_path / "out", key)
    assert result.images == {"train": 10, "val": 4, "test": 5}
    assert [problem.name for problem in result.problems] == list(reasons)
    assert all(reasons[problem.name] in problem.why for problem in result.problems)
    cipher, by_name = ciphers.from_key("np", key, 4), items(source)
    for split in open_splits([tmp_path / "out"]).values():
        assert split.names == [
            i.name for i in source.splits[split.header.split] if i.name not in reasons
        ]
        for index, name in enumerate(split.names):  # the gaps are closed up with the right rows
            for view, image in enumerate(prepared(by_name[name], split.header.views)[0]):
                assert np.array_equal(cipher.decrypt(split.read("images", index, view)), image)


def test_strict_stops_at_the_first(tmp_path, spoilt, key):
    with pytest.raises(SegkeyError, match="train/scene0003.jpg") as caught:
        make(spoilt[0], tmp_path / "out", key, strict=True)
    assert "--strict" in caught.value.hint
    assert not files(tmp_path / "out")


def test_no_image_at_all(tmp_path, spoilt, key):
    for image in (tmp_path / "scenes").rglob("*.jpg"):
        image.write_bytes(b"")
    with pytest.raises(SegkeyError, match="none of 22 images can be used; train/scene0000.jpg"):
        make(spoilt[0], tmp_path / "out", key)
    assert not files(tmp_path / "out")


def test_a_finished_run_is_refused_and_force_replaces_it(
    tmp_path, scenes_source, key, other_key, in_many
):
    make(scenes_source, tmp_path, other_key, views=1)
    before = files(tmp_path)
    with pytest.raises(SegkeyError, match="already exists\n.*--force"):
        make(scenes_source, tmp_path, other_key, views=1)
    assert files(tmp_path) == before
    assert not make(scenes_source, tmp_path, key, shard_bytes=SMALL, force=True).kept
    assert files(tmp_path) == files(in_many)  # train.h5, which is now in several files, is gone


@pytest.mark.parametrize("lost", ["train-00000-of-00004.h5", "train-00002-of-00004.h5", "test.h5"])
def test_finished_shards_are_kept(tmp_path, scenes_source, key, in_many, lost):
    out = Path(shutil.copytree(in_many, tmp_path / "out"))
    (out / lost).unlink()
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("*.h5")}
    result = make(scenes_source, out, key, shard_bytes=SMALL)
    assert {path.name for path in result.kept} == set(before)
    assert result.images == {"train": 12, "val": 4, "test": 6}
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert files(out) == files(in_many)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "shf"},
        {"method": "none"},
        {"block_size": 2},
        {"size": (24, 16)},
        {"views": 3},
        {"seed": 1},
        {"crop_scale": 0.5},
        {"shard_bytes": 1 << 30},
        {"key": "other"},
    ],
    ids=str,
)
def test_other_settings_are_refused(tmp_path, scenes_source, key, other_key, in_many, change):
    out = Path(shutil.copytree(in_many, tmp_path / "out"))
    (out / "train-00003-of-00004.h5").unlink()  # as if interrupted
    before = files(out)
    how = {"shard_bytes": SMALL} | change | {"key": other_key if "key" in change else key}
    with pytest.raises(SegkeyError, match="already exists, made in another way\n.*--force"):
        make(scenes_source, out, **how)
    assert files(out) == before


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"block_size": 5}, "16 is not a multiple of the block size 5"),
        ({"shard_bytes": 0}, "shard size"),
        ({"views": 0}, "the views cannot be 0"),
        ({"crop_scale": 0.0}, "scale"),
        ({"crop_scale": 1.1}, "scale"),
    ],
)
def test_settings_that_cannot_be(tmp_path, scenes_source, key, change, complaint):
    with pytest.raises(SegkeyError, match=complaint):
        make(scenes_source, tmp_path / "out", key, **change)
    assert not (tmp_path / "out").exists()


def test_one_writer_at_a_time(tmp_path, scenes_source, key):
    with sole_writer(tmp_path), pytest.raises(SegkeyError, match="another segkey process"):
        make(scenes_source, tmp_path, key)
    assert not files(tmp_path)


def test_a_disk_that_is_too_small_is_noticed_before(tmp_path, scenes_source, key, monkeypatch):
    needed = (12 * 2 + 4 + 6) * 3 * SIZE[0] * SIZE[1]
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(SegkeyError, match="GB are needed, .* GB are free.*\nfree some space"):
        make(scenes_source, tmp_path, key)
    assert not files(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 40))
    assert make(scenes_source, tmp_path, key).images["train"] == 12


class Deadly(ciphers.Plain):
    """Kills the worker process it runs in; spawned workers import it from here."""

    def encrypt_images(self, images):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_ends_the_run(tmp_path, scenes_source):
    started, cipher = time.monotonic(), Deadly(1, 3)
    with pytest.raises(SegkeyError, match="process died between train/scene0000.jpg and") as caught:
        encrypt(plan_shards(scenes_source, tmp_path, cipher, size=SIZE), cipher, workers=2)
    assert time.monotonic() - started < 30
    assert "again" in caught.value.hint
    assert not files(tmp_path)


ENCRYPT = """
import contextlib, sys
from pathlib import Path
from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.data import sources
from segkey.shards import encryption
from segkey.system import progress

class OnLeave(progress.Progress):
    def task(self, *_):
        def advance(count):
            print("batch", flush=True)
            sys.stdin.readline()
        return contextlib.nullcontext(advance)

key = Key(bytes(range(32)))
cipher, source = ciphers.from_key("np", key, 4), sources.find(sys.argv[1])
how = {"size": (16, 24), "views": 2, "shard_bytes": 1}
plans = encryption.plan_shards(source, Path(sys.argv[2]), cipher, **how)
encryption.encrypt(plans, cipher, workers=1, progress=OnLeave())
"""


def test_a_run_that_is_killed_can_be_finished(tmp_path, scenes_folder, scenes_source, key):
    make(scenes_source, tmp_path / "whole", key, shard_bytes=1)  # an image a shard
    whole, out, random = files(tmp_path / "whole"), tmp_path / "out", np.random.default_rng(0)
    for _ in range(3):
        command = [sys.executable, "-c", ENCRYPT, scenes_folder, out]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
            for _ in range(random.integers(2, 5)):
                assert run.stdout.readline() == b"batch\n"
                run.stdin.write(b"\n")
                run.stdin.flush()
            time.sleep(
                random.uniform(0, 0.005)
            )  # somewhere in the next image, which is the last it may do
            run.kill()
        there = {name: data for name, data in files(out).items() if name.endswith(".h5")}
        assert there
        assert there.items() <= whole.items()  # a file with the final name is whole
    result = make(scenes_source, out, key, shard_bytes=1)
    assert len(result.kept) == len(there) < len(whole)
    assert files(out) == whole


@pytest.mark.parametrize("method", ["np", "shf", "ffx"])
def test_decrypting_writes_the_pixels_that_were_encrypted(tmp_path, scenes_source, key, method):
    make(scenes_source, tmp_path / "shards", key, method)
    count = decrypt(
        open_splits([tmp_path / "shards"]), ciphers.from_key(method, key, 4), tmp_path / "out"
    )
    assert count == 12 * 2 + 4 + 6 == len(list((tmp_path / "out").rglob("*.png")))
    for name, item in items(scenes_source).items():
        images, _ = prepared(item, 2 if name.startswith("train") else 1)
        for view, image in enumerate(images):
            path = (
                tmp_path
                / "out"
                / name.replace(".jpg", f".view{view}.png" if len(images) > 1 else ".png")
            )
            assert np.array_equal(np.asarray(Image.open(path)).transpose(2, 0, 1), image)


def decrypted(folder, names, views=1, **how):
    """Decrypt a plain shard with images of these names, filled with 0, 1, 2 …; {path: value}"""
    writer = ShardWriter(
        folder / "train.h5",
        Header("train", "none", 1, 3, 255, views=views),
        names,
        (2, 2),
        "uint8",
        False,
    )
    for number in range(len(names)):
        writer.write(
            number, (2, 2), {"images": [Packed.image(np.full((3, 2, 2), number, np.uint8))] * views}
        )
    writer.finish()
    out = folder / "deep" / "out"
    assert (
        decrypt(open_splits([folder / "train.h5"]), ciphers.Plain(1, 3), out, **how)
        == len(names) * views
    )
    (folder / "train.h5").unlink()
    return {
        path: int(np.asarray(Image.open(path)).max())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_hostile_names_stay_in_the_folder(tmp_path):
    names = [
        "../../x.png",
        "..",
        "/etc/x.png",
        "//x",
        "a/../../../y.png",
        "a\nb.png",
        "a\x00b",
        "C:\\x\\..\\y",
        "",
        "/",
        ".",
        "./.png",
        "...x",
        "\udcff.png",
        "\u202egnp.exe",
        "x" * 5000,
        "/".join("d" * 500),
    ]
    written = decrypted(tmp_path, names)
    assert all(
        path.resolve().is_relative_to(tmp_path.resolve() / "deep/out/train") for path in written
    )
    assert all(path.name.isprintable() for path in written)
    assert sorted(written.values()) == list(range(len(names)))


@pytest.mark.parametrize("views", [1, 2])
def test_names_that_collide_are_all_written(tmp_path, views):
    names = [
        "a.jpg",
        "a.png",
        "./a.jpg",
        "/a.jpg",
        "x/../a",
        "a.view1.jpg",
        "b?.jpg",
        "b*.jpg",
        "b_",
        "a-2",
    ]
    written = decrypted(tmp_path, names, views)
    assert sorted(written.values()) == sorted(list(range(len(names))) * views)


def test_decrypting_into_a_folder_that_is_in_use(tmp_path):
    decrypted(tmp_path, ["a"])
    with pytest.raises(SegkeyError, match="is not empty\n.*--force"):
        decrypted(tmp_path, ["a"])
    assert decrypted(tmp_path, ["b", "a"], force=True) == {
        tmp_path / "deep/out/train/a.png": 1,
        tmp_path / "deep/out/train/b.png": 0,
    }


@pytest.mark.parametrize(
    "method, password, given, complaint",
    [
        ("np", None, ("other", None), "made with key 203279b74b1bd5e5, not with key"),
        ("np", None, (None, None), "made with key 203279b74b1bd5e5, not with no key"),
        ("ffx", b"secret", ("key", b"other"), "made with another FFX password"),
        ("ffx", b"secret", ("key", None), "made with a fixed FFX password"),
        ("ffx", None, ("key", b"secret"), "made with no fixed FFX password"),
    ],
)
def test_a_wrong_key_is_named(key, other_key, method, password, given, complaint):
    made = ciphers.from_key(method, key, 4, password=password)
    header = Header("test", method, 4, 3, made.max_value, key.id, made.password_hash)
    assert cipher_for(header, key, password, "test.h5").same_as(made)
    with pytest.raises(KeyMismatchError, match=complaint) as caught:
        cipher_for(
            header, {"key": key, "other": other_key, None: None}[given[0]], given[1], "test.h5"
        )
    assert caught.value.what.startswith("test.h5 ")
    assert caught.value.hint


def test_plain_shards_need_no_key(key):
    for given in (None, key):
        assert (
            cipher_for(Header("test", "none", 1, 3, 255), given, None, "test.h5").method == "none"
        )


def test_force_leaves_nothing_of_the_old_key(tmp_path, scenes_folder, key, other_key):
    copy = Path(shutil.copytree(scenes_folder, tmp_path / "copy"))
    make(sources.find(copy), tmp_path / "out", key)
    for image in (copy / "images/val").iterdir():
        image.write_bytes(b"no image")
    make(sources.find(copy), tmp_path / "out", other_key, force=True)
    assert set(open_splits([tmp_path / "out"])) == {"train", "test"}


def test_a_new_image_is_not_silently_missing_after_an_interrupted_run(tmp_path, scenes_folder, key):
    copy = Path(shutil.copytree(scenes_folder, tmp_path / "copy"))
    make(sources.find(copy), tmp_path / "out", key)
    (tmp_path / "out/train.h5").unlink()
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        shutil.copy(copy / f"{kind}/test/scene0000.{suffix}", copy / f"{kind}/test/new.{suffix}")
    with pytest.raises(SegkeyError, match="test.h5 already exists"):
        make(sources.find(copy), tmp_path / "out", key)


def test_workers_leave_with_a_parent_that_was_killed(tmp_path, scenes_folder):
    script = (
        "from segkey.system.workers import Workers; import os, time\n"
        "if __name__ == '__main__':\n"
        "    with Workers(2) as pool:\n"
        "        for _, pid in pool.map_ordered(pid_of, [(0, [])] * 4): print(*pid, flush=True)\n"
        "        time.sleep(60)\n"
    )
    program = tmp_path / "program.py"
    program.write_text(
        "def pid_of(task):\n    import os, time; time.sleep(0.3); return [os.getpid()]\n" + script
    )
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    workers = {int(process.stdout.readline()) for _ in range(4)}
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "a.png/b.jpg"],
        ["a.png/b.jpg", "a.jpg"],
        ["漢" * 80 + ".jpg"],
        ["x/../../y.jpg", "/y.jpg"],
    ],
)
def test_every_name_finds_a_place(tmp_path, key, names):
    plain = ciphers.from_key("none", None, 1)
    writer = ShardWriter(
        tmp_path / "all.h5", Header("all", "none", 1, 3, 255), names, (4, 4), "uint8", False
    )
    for position in range(len(names)):
        writer.write(
            position, (4, 4), {"images": [Packed.image(np.full((3, 4, 4), position, np.uint8))]}
        )
    writer.finish()
    assert decrypt(open_splits([tmp_path / "all.h5"]), plain, tmp_path / "in/side") == len(names)
    written = sorted((tmp_path / "in/side").rglob("*.png"))
    assert len(written) == len(names) == len(list(tmp_path.rglob("*.png")))
    assert {int(np.asarray(Image.open(file)).max()) for file in written} == set(range(len(names)))


def test_decrypting_into_a_file_is_refused(tmp_path, key):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SegkeyError, match="is a file"):
        decrypt({}, ciphers.from_key("none", None, 1), tmp_path / "file")


def test_force_leaves_what_is_no_shard(tmp_path, scenes_source, key):
    make(scenes_source, tmp_path / "out", key)
    (tmp_path / "out/thesis.h5").write_bytes(b"years of work")
    make(scenes_source, tmp_path / "out", key, method="shf", force=True)
    assert (tmp_path / "out/thesis.h5").read_bytes() == b"years of work"


def test_force_keeps_the_old_shards_where_nothing_replaces_them(tmp_path, scenes_folder, key):
    make(sources.find(scenes_folder), tmp_path / "out", key)
    before = files(tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.jpg").write_bytes(b"no image")
    with pytest.raises(SegkeyError, match="none of 1 images can be used"):
        make(sources.find(tmp_path / "bad"), tmp_path / "out", key, force=True)
    assert files(tmp_path / "out") == before


def test_void_counted_as_a_class_is_noticed(tmp_path, scenes_folder):
    copy = Path(shutil.copytree(scenes_folder, tmp_path / "copy"))
    (copy / "classes.txt").unlink()
    Image.fromarray(np.full((48, 48), 255, np.uint8)).save(copy / "masks/val/scene0000.png")
    assert len(take_in(copy).source.classes) == 5
    with pytest.raises(SegkeyError, match="masks hold 255, which is void unless"):
        take_in(copy, choices=parse_choices(ignore="0")).require()


@pytest.fixture
def large_photos(tmp_path):
    """Two JPEGs large enough to be decoded at a fraction, and a small one."""
    (tmp_path / "photos").mkdir()
    values = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    for name, size in (("a", (240, 160)), ("b", (120, 80)), ("c", (30, 20))):
        Image.fromarray(values).resize(size).save(tmp_path / f"photos/{name}.jpg")
    return sources.find(tmp_path / "photos")


def test_a_shard_says_how_many_images_were_not_decoded_whole(large_photos, tmp_path, key):
    """It is made again if every pixel is to be decoded, and only then."""
    out = tmp_path / "out"
    made = make(large_photos, out, key, views=1)
    assert made.peculiar["scaled"] == 2
    with Shard(next(out.glob("*.h5"))) as shard:
        assert shard.header.scaled_images == 2
    with pytest.raises(SegkeyError, match=r"already exists\nchoose"):
        make(large_photos, out, key, views=1)
    with pytest.raises(SegkeyError, match="made in another way"):
        make(large_photos, out, key, views=1, exact_decode=True)
    make(large_photos, out, key, views=1, exact_decode=True, force=True)
    with Shard(next(out.glob("*.h5"))) as shard:
        assert shard.header.scaled_images == 0
        assert "scaled_images" not in shard.header.attributes()


def test_an_index_that_a_kill_left_out_is_written_when_the_shards_are_found_finished(
    scenes_source, key, tmp_path
):
    make(scenes_source, tmp_path, key, shard_bytes=SMALL)
    (index,) = tmp_path.glob("train.index.json")
    written = index.read_bytes()
    index.unlink()
    with pytest.raises(SegkeyError, match="already exists"):
        make(scenes_source, tmp_path, key, shard_bytes=SMALL)
    assert index.read_bytes() == written
