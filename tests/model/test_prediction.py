"""Masks for whoever has the model and its key: right classes, right sizes, right places, bad input
named."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import segkey
from segkey.crypto import ciphers
from segkey.data import augment, decode, palette, scenes, sources
from segkey.data.items import ALL, Item
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import folder_prediction, run_model, score_resizing, tiling
from segkey.model.batches import as_pixels
from segkey.model.folder_prediction import Settings
from segkey.system.file_names import free_path


@pytest.fixture(scope="module")
def model(trained_run):
    return segkey.load(trained_run.path, device="cpu", precise=True)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, size in enumerate((40, 70)):
        Image.fromarray(scenes.draw(1, number, size)[0]).save(folder / f"p{number}.png")
    Image.fromarray(scenes.draw(1, 2, 50)[0]).crop((0, 0, 50, 31)).save(folder / "more" / "p2.png")
    return folder


def predict(model, key, folder, out, **how):
    items = sources.find_pictures(folder).splits[ALL]
    settings = Settings(model.cipher(key), **how)
    return folder_prediction.predict_files(model, items, out, settings)


# ------------------------------------------------------------------ masks


def test_at_the_network_s_own_size_the_mask_is_what_evaluation_counts(model, key, trained_run):
    image = scenes.draw(1, 0, 32)[0]
    encrypted = ciphers.from_key("np", key, 4).encrypt(
        torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
    )
    with torch.inference_mode():
        expected = trained_run.load_model(torch.device("cpu"))(as_pixels(encrypted, 255)).argmax(1)[
            0
        ]
    mask = model.predict(image, key)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, expected.numpy())


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(2, 6),
    st.integers(0, 99),
)
def test_resizing_in_bands_is_resizing_at_once(h, w, height, width, classes, seed):
    logits = torch.randn(classes, h, w, generator=torch.Generator().manual_seed(seed))
    whole = F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)[0]
    assert np.allclose(score_resizing.enlarged(logits.numpy(), (height, width)), whole, atol=1e-5)
    cut = [logits.numpy()[:, :1], logits.numpy()[:, 1:3], logits.numpy()[:, 3:]]
    with pytest.MonkeyPatch.context() as patch:
        for module in (run_model, score_resizing):
            patch.setattr(module, "BAND", classes * width * 3)  # three rows at a time
        found = (
            run_model.classes_at(logits, (height, width)),
            torch.from_numpy(score_resizing.classes_at(logits.numpy(), (height, width))),
            torch.from_numpy(
                score_resizing.classes_of_bands((c for c in cut if c.size), h, (height, width))
            ),
        )
    for got in found:
        lost = whole.max(0).values - whole.gather(0, got[None].long())[0]
        assert got.shape == (height, width)
        assert lost.max() < 1e-5  # the same class, or one that is as likely


def test_paths_pictures_and_arrays_give_the_same_and_a_list_gives_a_list(model, key, photos):
    path = photos / "more" / "p2.png"
    picture = Image.open(path)
    masks = model.predict([path, str(path), picture, np.asarray(picture)], key, batch_size=3)
    assert [mask.shape for mask in masks] == [(31, 50)] * 4
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert np.array_equal(model.predict(path, key), masks[0])
    assert model.predict([], key) == []


def test_the_mask_is_upright_as_the_exif_data_says(model, key, tmp_path):
    upright = Image.fromarray(scenes.draw(1, 3, 60)[0]).crop((0, 0, 60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(model.predict(tmp_path / "turned.png", key), model.predict(upright, key))
    assert np.array_equal(
        model.predict(Image.open(tmp_path / "turned.png"), key), model.predict(upright, key)
    )


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros((4, 4, 3), float), "not an image"),
        (np.zeros((4, 4, 4), np.uint8), "not an image"),
        (np.zeros((0, 4, 3), np.uint8), "an image of 0x4 has no pixels"),
        (7, "not an image"),
    ],
)
def test_what_is_no_image_is_refused(model, key, image, why):
    with pytest.raises(SegkeyError, match=why):
        model.predict(image, key)


def test_another_key_works_as_a_thief_s_would_and_says_so(model, key, other_key, photos):
    image = decode.load_image(photos / "p1.png")
    with pytest.warns(
        SegkeyWarning, match=f"key {other_key.id} is not the key of run small, which is {key.id}"
    ):
        wrong = model.predict(image, other_key)
    stolen = ciphers.from_key("np", other_key, 4)
    small = augment.as_array(image, (32, 32))[None]
    assert np.array_equal(wrong, model.masks(small, [(70, 70)], stolen)[0])
    with pytest.warns(SegkeyWarning, match="no key was given"):
        plain = model.predict(image)
    assert np.array_equal(plain, model.masks(small, [(70, 70)], None)[0])


# ------------------------------------------------------------------ folders


def test_a_folder_gives_palette_masks_of_the_images_sizes_under_their_names(
    model, key, photos, tmp_path
):
    result = predict(model, key, photos, tmp_path / "out", overlays=True, batch_size=2)
    assert sorted(
        p.relative_to(tmp_path / "out/masks").as_posix()
        for p in (tmp_path / "out/masks").rglob("*.png")
    ) == [
        "more/p2.png",
        "p0.png",
        "p1.png",
    ]
    for name in ("more/p2", "p0", "p1"):
        mask, image = Image.open(tmp_path / f"out/masks/{name}.png"), photos / f"{name}.png"
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), model.predict(image, key))
        assert (
            mask.getpalette()[: 3 * 16]
            == palette.palette_of(scenes.CLASSES)[:16].reshape(-1).tolist()
        )
        assert Image.open(tmp_path / f"out/overlays/{name}.jpg").height > mask.height
    assert result.images == 3
    assert sum(result.pixels.values()) == 40 * 40 + 70 * 70 + 31 * 50
    shares = [each["share"] for each in result.summary("small")["classes"].values()]
    assert sum(shares) == pytest.approx(1)


def test_broken_files_among_many_are_named_and_the_others_go_on(model, key, photos, tmp_path):
    (photos / "broken.jpg").write_bytes((photos / "p0.png").read_bytes()[:300])
    (photos / "empty.png").touch()
    result = predict(model, key, photos, tmp_path / "out", batch_size=2)
    assert [problem.name for problem in result.problems] == ["broken.jpg", "empty.png"]
    assert result.images == 3
    with pytest.raises(SegkeyError, match="broken.jpg: truncated or damaged"):
        predict(model, key, photos, tmp_path / "strict", strict=True)
    with pytest.raises(SegkeyError, match="none of 1 images can be used; empty.png"):
        predict(model, key, photos / "empty.png", tmp_path / "none")


def test_an_animated_picture_and_one_smaller_than_a_block(model, key, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    first, second = Image.fromarray(scenes.draw(1, 0, 40)[0]).quantize(), Image.new("P", (40, 40))
    first.save(folder / "moving.gif", save_all=True, append_images=[second])
    Image.new("RGB", (1, 2), "red").save(folder / "tiny.png")
    result = predict(model, key, folder, tmp_path / "out")
    assert (result.images, result.animated) == (2, ["moving.gif"])
    assert Image.open(tmp_path / "out/masks/tiny.png").size == (1, 2)
    expected = model.predict(first.convert("RGB"), key)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/moving.png")), expected)


def test_a_list_names_images_and_leads_nowhere_else(model, key, photos, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    listed = tmp_path / "deep" / "list.txt"
    listed.parent.mkdir()
    listed.write_text("../photos/p0.png\n\n../photos/../photos/p1.png\nmissing.png\nhere.png\n")
    Image.open(photos / "p0.png").save("here.png")
    before = set(tmp_path.rglob("*"))
    result = predict(model, key, listed, tmp_path / "out")
    assert [problem.name for problem in result.problems] == ["missing.png"]
    made = {
        path.relative_to(tmp_path).as_posix()
        for path in set(tmp_path.rglob("*")) - before
        if path.is_file()
    }
    assert made == {
        "out/masks/photos/p0.png",
        "out/masks/photos/photos/p1.png",
        "out/masks/here.png",
        "out/outputs.tsv",
    }
    listed.write_text(f"{photos}/p0.png\n{photos}/more/p2.png\n")
    predict(model, key, listed, tmp_path / "absolute")
    assert sorted(
        p.relative_to(tmp_path / "absolute").as_posix()
        for p in (tmp_path / "absolute").rglob("*.png")
    ) == [
        "masks/more/p2.png",
        "masks/p0.png",
    ]


@given(st.lists(st.text(st.sampled_from("ab./\\:\0\n é"), max_size=12), max_size=6))
def test_no_name_leads_out_and_none_is_given_twice(names):
    taken: set[Path] = set()
    paths = [free_path(Path("/out"), name, ".png", taken) for name in names]
    assert len(set(paths)) == len(names)
    assert all(
        path.is_relative_to("/out") and ".." not in path.parts and path.suffix == ".png"
        for path in paths
    )


def test_only_images_are_predicted_not_masks(tmp_path, scenes_folder):
    found = sources.find_pictures(scenes_folder)
    assert len(found) == 22
    assert all(item.image.is_relative_to(scenes_folder / "images") for item in found.splits[ALL])
    with pytest.raises(SegkeyError, match="nothing at"):
        sources.find_pictures(tmp_path / "nowhere")
    with pytest.raises(SegkeyError, match="holds no images"):
        sources.find_pictures(tmp_path)


def test_a_folder_that_is_not_empty_is_not_touched(model, key, photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(SegkeyError, match="not empty"):
        predict(model, key, photos, tmp_path / "out")
    predict(model, key, photos, tmp_path / "out", force=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


# ------------------------------------------------------------------ colours


def test_the_palette_is_voc_s():
    assert palette.PALETTE[[0, 1, 2, 3, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_only_a_background_is_black():
    voc, others = palette.palette_of(("background", "cat")), palette.palette_of(("sky", "road"))
    assert (voc == palette.PALETTE).all()
    assert others[:2].tolist() == [[128, 0, 0], [0, 128, 0]]
    assert others[255].tolist() == [224, 224, 192]
    assert sorted(map(tuple, others.tolist())) == sorted(
        map(tuple, voc.tolist())
    )  # as many colours as before


def test_a_legend_names_void():
    def legend(*numbers):
        return np.asarray(palette.draw_legend(np.array(numbers), ("sky", "road"), 480))

    named = legend(0, 255)
    assert named.shape == legend(0).shape
    assert (named != legend(0)).any()
    assert (named == palette.PALETTE[255]).all(-1).sum() > 100


def test_a_small_image_s_overlay_is_enlarged():
    picture = palette.overlay(Image.new("RGB", (100, 50)), np.zeros((50, 100), np.uint8), ("sky",))
    assert picture.width == 500
    assert picture.getpixel((499, 249)) == picture.getpixel((50, 10))


@pytest.mark.parametrize("size", [(1, 1), (30, 20), (700, 40), (20, 700)])
def test_an_overlay_holds_the_image_and_a_legend_whatever_its_size(size):
    mask = np.arange(size[0] * size[1], dtype=np.int64).reshape(size[1], size[0]) % 21
    classes = tuple(f"class {n} of a name that is rather long" for n in range(21))
    picture = palette.overlay(Image.new("RGB", size), mask.astype(np.uint8), classes)
    assert picture.width >= size[0]
    assert picture.height > size[1]
    assert picture.crop((0, size[1], picture.width, picture.height)).getcolors(1 << 20) != [
        (picture.width * (picture.height - size[1]), (255, 255, 255))
    ]


# ------------------------------------------------------------------ from outside


def test_importing_segkey_waits_for_neither_torch_nor_numpy():
    code = "import segkey, sys; print([*{'torch', 'numpy'} & {*sys.modules}]); segkey.load"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_the_command_tells_what_it_found(trained_run, key, photos, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from segkey.cli import app

    monkeypatch.chdir(tmp_path)
    key.save(tmp_path / "right.key")
    command = ["predict", str(trained_run.path), "photos", "--key", "right.key", "--device", "cpu"]
    result = CliRunner().invoke(app, [*command, "--json"])
    document = json.loads(result.stdout)
    assert (document["run"], document["images"], document["left_out"]) == ("small", 3, [])
    assert list(document["classes"]) == scenes.CLASSES
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        segkey.Key.generate().save(tmp_path / "wrong.key")
        result = CliRunner().invoke(
            app, [*command[:4], "wrong.key", "--out", "wrong", "--device", "cpu"]
        )
    assert result.exit_code == 0
    assert "3 masks in wrong/masks" in result.stdout
    assert any("is not the key of run small" in str(each.message) for each in said)


# ------------------------------------------------------------------ which mask belongs to what


def test_a_second_run_replaces_what_the_first_made_and_nothing_else(model, key, photos, tmp_path):
    out = tmp_path / "out"
    first = predict(model, key, photos, out)
    assert [line["mask"] for line in first.files] == [
        f"masks/{Path(line['image']).with_suffix('.png')}" for line in first.files
    ]
    listed = (out / "outputs.tsv").read_text().splitlines()
    assert listed[1] == f"{first.files[0]['image']}\t{first.files[0]['mask']}\t"
    (out / "masks/mine.png").write_bytes(b"mine")
    one = sources.find_pictures(photos).splits[ALL][:1]
    second = folder_prediction.predict_files(
        model, one, out, Settings(model.cipher(key), force=True)
    )
    there = {path.name for path in (out / "masks").rglob("*.png")}
    assert there == {"mine.png", Path(second.files[0]["mask"]).name}
    assert (out / "masks/mine.png").read_bytes() == b"mine"


def test_a_file_that_no_run_made_is_never_replaced(model, key, photos, tmp_path):
    (tmp_path / "out/masks").mkdir(parents=True)
    (tmp_path / "out/masks/p0.png").write_bytes(b"mine")
    with pytest.raises(SegkeyError, match="p0.png is there, and no run of segkey predict"):
        predict(model, key, photos, tmp_path / "out", force=True)
    assert (tmp_path / "out/masks/p0.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "line", ["x\t../secret.png\t", "x\tmasks/../../secret.png\t", "x\t/etc/a.png", "x\tmasks/a.key"]
)
def test_a_list_of_outputs_leads_nowhere(model, key, photos, tmp_path, line):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "out/masks").mkdir(parents=True)
    (tmp_path / "out/masks/a.key").write_bytes(b"secret")
    (tmp_path / "out/outputs.tsv").write_text(f"image\tmask\toverlay\n{line}\n")
    predict(model, key, photos, tmp_path / "out", force=True)
    assert (tmp_path / "secret.png").exists()
    assert (tmp_path / "out/masks/a.key").exists()


def test_the_range_of_training_is_used_in_prediction(trained_run, tmp_path):
    from dataclasses import replace

    dark = np.full((32, 32), 4095, np.uint16)
    Image.fromarray(dark).save(tmp_path / "a.png")
    model = segkey.load(trained_run.path, device="cpu", precise=True)
    item = Item("a.png", tmp_path / "a.png", None)
    whole = folder_prediction._load(model, item, tiling.SQUEEZED)
    assert (whole.pixels == 15).all()
    assert whole.peculiar == {"dark"}
    model.header = replace(trained_run.header, pixel_range="0:4095")
    assert (folder_prediction._load(model, item, tiling.SQUEEZED).pixels == 255).all()
