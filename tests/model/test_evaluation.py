"""Scores against counting by hand, and what a run may be tested on."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import copy_of, reconfigure

from segkey.crypto import ciphers
from segkey.data import scenes, sources
from segkey.errors import KeyMismatchError, SegkeyError, SegkeyWarning
from segkey.model import evaluation, evaluation_splits, leakage
from segkey.model.batches import BatchLoader
from segkey.model.evaluation import Scores, confusion_matrix
from segkey.model.runs import Run
from segkey.shards import Packed, ShardWriter, encryption, open_splits

CPU = torch.device("cpu")


def by_hand(truth, predicted, classes, ignore):
    """IoU of each class from sets of pixels; None where it does not occur."""
    pixels = [(t, p) for t, p in zip(truth, predicted, strict=True) if t != ignore]
    ious = []
    for c in range(classes):
        both = sum(t == c and p == c for t, p in pixels)
        either = sum(t == c or p == c for t, p in pixels)
        ious.append(both / either if any(t == c for t, _ in pixels) else None)
    return ious


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 3, 255]), st.integers(0, 3)), min_size=1, max_size=60
    )
)
def test_scores_agree_with_counting(pairs):
    truth, predicted = zip(*pairs, strict=True)
    matrix = confusion_matrix(
        torch.tensor(truth, dtype=torch.uint8), torch.tensor(predicted), 4, 255
    )
    scores, expected = Scores(matrix, ("a", "b", "c", "d"), 1), by_hand(truth, predicted, 4, 255)
    assert list(scores.iou.values()) == pytest.approx(expected)
    there = [value for value in expected if value is not None]
    assert scores.mean_iou == (pytest.approx(sum(there) / len(there)) if there else None)
    counted = [t == p for t, p in pairs if t != 255]
    assert scores.pixel_accuracy == (pytest.approx(np.mean(counted)) if counted else None)


@given(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=40))
def test_the_majority_class_is_the_best_answer_that_needs_no_model(truth):
    target = torch.tensor(truth, dtype=torch.uint8)
    baseline = Scores(
        confusion_matrix(target, torch.zeros(len(truth), dtype=int), 3, 255), ("0", "1", "2"), 1
    ).majority_class
    name, value = baseline.name, baseline.mean_iou
    by_class = [
        Scores(confusion_matrix(target, torch.full((len(truth),), c), 3, 255), ("0", "1", "2"), 1)
        for c in range(3)
    ]
    if any(t != 255 for t in truth):
        assert value == pytest.approx(max(scores.mean_iou for scores in by_class))
        assert value == pytest.approx(by_class[int(name)].mean_iou)


def test_a_void_value_inside_the_classes_is_void():
    matrix = confusion_matrix(
        torch.tensor([0, 1, 1], dtype=torch.uint8), torch.tensor([0, 0, 1]), 2, 0
    )
    assert matrix.tolist() == [[0, 0], [1, 1]]


def test_the_matrix_does_not_depend_on_the_batches(trained_run, shards_folder):
    model, test = trained_run.load_model(CPU), open_splits([shards_folder], ("test",))["test"]
    matrices = [
        evaluation.score(
            model, BatchLoader(test, CPU, resident=resident), 255, batch_size=size, precise=True
        ).matrix
        for resident, size in ((True, 6), (True, 2), (False, 4))
    ]
    assert matrices[0].sum() == 6 * 32 * 32
    assert all(torch.equal(matrices[0], matrix) for matrix in matrices[1:])


def test_encrypted_plain_and_files_give_the_same_scores(
    tmp_path, trained_run, shards_folder, scenes_source, scenes_folder, key
):
    """Three ways to the same test images: encrypted shards, plain shards with the key, image files
    with the key."""
    plain = ciphers.from_key("none", None, 1)
    plans = encryption.plan_shards(scenes_source, tmp_path / "plain", plain, size=(32, 32))
    encryption.encrypt(plans, plain, workers=1)
    cipher = trained_run.cipher(key)
    ways = [
        evaluation_splits.open_test_split(trained_run),
        evaluation_splits.open_test_split(trained_run, [tmp_path / "plain"], None, None),
        evaluation_splits.open_test_split(trained_run, None, scenes_folder, None),
    ]
    documents = [evaluation.evaluate(trained_run, split, cipher, CPU).document for split in ways]
    assert documents[0]["images"] == 6
    assert documents[0]["split"] == "test"
    assert set(documents[0]["correct"]["iou"]) == set(scenes.CLASSES)
    assert (
        evaluation.evaluate(trained_run, ways[0], None, CPU).document == documents[0]
    )  # encrypted shards need no key
    tested = [document.pop("tested") for document in documents]
    assert documents[0] == documents[1] == documents[2]
    assert len({each["fingerprint"] for each in tested}) == 3  # other bytes
    assert len({each["labels"] for each in tested}) == 1  # the same masks
    assert [each["named_by"] for each in tested] == ["run", "user", "user"]
    assert [each["training_data"] for each in tested] == ["same", "unknown", "unknown"]


def test_limit_takes_the_first_images(trained_run, key):
    split = evaluation_splits.open_test_split(trained_run)
    assert evaluation.evaluate(trained_run, split, None, CPU, limit=2).images == 2


def test_files_that_cannot_be_used_are_named_and_left_out(
    tmp_path, trained_run, scenes_folder, key
):
    shutil.copytree(scenes_folder, tmp_path / "data")
    (tmp_path / "data/images/test/scene0001.jpg").write_bytes(b"no image")
    (tmp_path / "data/masks/test/scene0002.png").unlink()
    split = evaluation_splits.open_test_split(trained_run, None, tmp_path / "data", None)
    assert len(split) == 4
    assert sorted(problem.name for problem in split.problems) == [
        "test/scene0001.jpg",
        "test/scene0002.jpg",
    ]


def test_plain_images_need_the_key(trained_run, scenes_folder):
    split = evaluation_splits.open_test_split(trained_run, None, scenes_folder, None)
    with pytest.raises(SegkeyError, match="need the key"):
        evaluation.evaluate(trained_run, split, None, CPU)


def test_another_key_is_refused_before_anything_is_computed(trained_run, other_key, key):
    with pytest.raises(KeyMismatchError, match=f"{key.id}, not with key {other_key.id}"):
        trained_run.cipher(other_key)


@pytest.mark.parametrize(
    ("method", "block_size", "size", "error"),
    [("np", 2, 32, "not encrypted as"), ("shf", 4, 32, "not encrypted as"), ("np", 4, 48, "48x48")],
)
def test_shards_that_do_not_fit_the_run_are_refused(
    tmp_path, trained_run, scenes_source, key, method, block_size, size, error
):
    cipher = ciphers.from_key(method, key, block_size)
    encryption.encrypt(
        encryption.plan_shards(scenes_source, tmp_path, cipher, (size, size)),
        cipher,
        workers=1,
    )
    with pytest.raises(SegkeyError, match=error):
        evaluation_splits.open_test_split(trained_run, [tmp_path])


def test_other_classes_and_missing_masks_are_refused(tmp_path, trained_run, scenes_folder):
    shutil.copytree(scenes_folder, tmp_path / "data")
    (tmp_path / "data/classes.txt").write_text("one\ntwo\n")
    with pytest.raises(SegkeyError, match="2 classes"):
        evaluation_splits.open_test_split(trained_run, None, tmp_path / "data", None)
    shutil.rmtree(tmp_path / "data/masks")
    with pytest.raises(SegkeyError, match="no masks to compare with"):
        evaluation_splits.open_test_split(trained_run, None, tmp_path / "data", None)


def test_an_unknown_split_names_those_there_are(trained_run):
    with pytest.raises(SegkeyError) as caught:
        evaluation_splits.open_test_split(trained_run, None, None, None, "holdout")
    assert "holdout" in caught.value.what
    assert "test, train, val" in caught.value.hint


def test_images_are_taken_from_the_split_that_was_asked_for_or_all_where_there_are_none(
    tmp_path, trained_run, scenes_folder
):
    masks = scenes_folder / "masks"
    assert (
        len(evaluation_splits.open_test_split(trained_run, None, scenes_folder / "images", masks))
        == 6
    )
    with pytest.warns(SegkeyWarning, match="chose its best epoch by"):
        assert (
            len(
                evaluation_splits.open_test_split(
                    trained_run, None, scenes_folder / "images", masks, "val"
                )
            )
            == 4
        )
    shutil.copytree(scenes_folder / "images/val", tmp_path / "images")
    shutil.copytree(scenes_folder / "masks/val", tmp_path / "masks")
    shutil.copy(scenes_folder / "classes.txt", tmp_path)
    with pytest.warns(SegkeyWarning, match="chose its best epoch by"):
        split = evaluation_splits.open_test_split(trained_run, None, tmp_path, None)
    assert (len(split), split.header.split) == (4, "all")
    with pytest.raises(SegkeyError, match="no split 'holdout'"):
        evaluation_splits.open_test_split(trained_run, None, scenes_folder, None, "holdout")


def test_a_class_beyond_the_classes_is_refused_not_counted(
    tmp_path, trained_run, shards_folder, key
):
    """Such a shard cannot be made with segkey, but may come from anybody; its checksums are
    right."""
    file = tmp_path / "test.h5"
    header = replace(open_splits([shards_folder], ("test",))["test"].header, source_id="")
    writer = ShardWriter(file, header, ["a"], (32, 32), "uint8", True)
    rows = {
        "images": [Packed.image(np.zeros((3, 32, 32), np.uint8))],
        "masks": [Packed.mask(np.full((32, 32), 77, np.uint8))],
    }
    writer.write(0, (32, 32), rows)
    writer.finish()
    with pytest.raises(SegkeyError, match="holds class 77, but names 5 classes"):
        evaluation.evaluate(
            trained_run, evaluation_splits.open_test_split(trained_run, [file]), None, CPU
        )


def test_another_void_value_of_the_test_shards_is_theirs(tmp_path, trained_run, scenes_source, key):
    source = replace(scenes_source, ignore_index=0)
    cipher = trained_run.cipher(key)
    encryption.encrypt(
        encryption.plan_shards(source, tmp_path, cipher, (32, 32)), cipher, workers=1
    )
    with pytest.warns(SegkeyWarning, match="are not those that run small was trained on"):
        split = evaluation_splits.open_test_split(trained_run, [tmp_path])
    result = evaluation.evaluate(trained_run, split, None, CPU)
    assert result.correct.iou["ground"] is None  # class 0 is void there


@given(st.lists(st.integers(0, 441), min_size=1, max_size=300), st.sampled_from([5, 122, 442]))
def test_counting_without_waiting_counts_the_same(values, bins):
    """What a GPU does, on the CPU: histc in the middle of its bins, beside bincount."""
    values = torch.tensor([value % bins for value in values])
    expected = torch.bincount(values, minlength=bins)
    assert torch.equal(torch.histc(values.float(), bins, -0.5, bins - 0.5).long(), expected)


def test_a_training_that_was_cut_off_is_said(tmp_path, trained_run, shards_folder, monkeypatch):
    from typer.testing import CliRunner

    from segkey.cli import app
    from segkey.model.runs import Run

    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_run.path, "small")
    command = ["evaluate", "small", "--shards", str(shards_folder), "--device", "cpu"]
    assert "cut off" not in CliRunner().invoke(app, command).stderr
    reconfigure(Run.open(Path("small")), recipe={"epochs": 5}).save()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert "after 2 of 5 epochs" in " ".join(result.stderr.split())


def test_a_mistyped_run_is_answered_with_the_nearest(trained_run):
    from segkey.model.runs import Run

    with pytest.raises(SegkeyError) as told:
        Run.open(trained_run.path.parent / "smal")
    assert told.value.hint == f"did you mean {trained_run.path}?"
    with pytest.raises(SegkeyError) as told:
        Run.open(trained_run.path.parent / "something-else")
    assert "segkey train" in told.value.hint


# ------------------------------------------------------------------ images that the model knows


def told(run, *args) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluation_splits.open_test_split(run, *args)
    return [str(each.message) for each in caught if issubclass(each.category, SegkeyWarning)]


def undealt(out, scenes_folder, splits=("train", "val", "test"), rename="{split}-{name}"):
    """The scenes in one folder, as they were before anybody dealt them out."""
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True)
        for split in splits:
            for file in sorted((scenes_folder / kind / split).iterdir()):
                shutil.copy(file, out / kind / rename.format(split=split, name=file.name))
    shutil.copy(scenes_folder / "classes.txt", out)
    return out


@pytest.fixture
def run_of_undealt(tmp_path, trained_run, scenes_folder, key):
    """A run whose shards were dealt out from one folder of images, and that folder."""
    folder = undealt(tmp_path / "data", scenes_folder)
    cipher, source = ciphers.from_key("np", key, 4), sources.find(folder)
    encryption.encrypt(
        encryption.plan_shards(source, tmp_path / "shards", cipher, size=(32, 32)),
        cipher,
        workers=1,
    )
    trained_on = {
        "shards": [str(tmp_path / "shards")],
        "fingerprint": open_splits([tmp_path / "shards"])["train"].fingerprint,
    }
    run = reconfigure(Run(trained_run.path, trained_run.configuration), data=trained_on)
    return run, folder, {name: len(items) for name, items in source.splits.items()}


def test_measuring_other_weights_than_run_json_states_is_said(tmp_path, trained_run):
    run = copy_of(trained_run, tmp_path / "run", weights_sha256="0" * 64)
    split = evaluation_splits.open_test_split(run)
    with pytest.warns(SegkeyWarning, match="run.json belongs to other weights than model.safe"):
        measured = evaluation.evaluate(run, split, None, torch.device("cpu"), limit=2)
    assert measured.tested["weights_sha256"] == trained_run.configuration.weights_sha256


def test_testing_on_training_images_is_said_with_their_number(run_of_undealt):
    run, folder, counts = run_of_undealt
    train, val = told(run, None, folder, None)
    assert train.startswith(
        f"{counts['train']} of 22 test images have the names or masks of images that run small was"
    )
    assert val.startswith(f"{counts['val']} of 22 test images")
    assert "chose its best epoch by" in val


def test_copies_elsewhere_are_known_by_their_names(run_of_undealt, tmp_path):
    run, folder, counts = run_of_undealt
    shutil.copytree(folder / "images", tmp_path / "copies/images/deep/in/it")
    shutil.copytree(folder / "masks", tmp_path / "copies/masks/deep/in/it")
    train, val = told(run, None, tmp_path / "copies", None)
    assert train.startswith(f"{counts['train']} of 22")
    assert val.startswith(f"{counts['val']} of 22")


def test_images_that_are_new_raise_no_warning(tmp_path, trained_run, scenes_folder):
    """Their names without folders are those of training images, too: masks tell them apart."""
    assert told(trained_run, None, scenes_folder, None) == []  # its split test
    assert told(trained_run, None, undealt(tmp_path, scenes_folder, ["test"], "{name}"), None) == []
    assert told(trained_run, None, None, None) == []


def test_a_name_that_several_images_have_is_unclear(tmp_path, trained_run, scenes_folder):
    """Masks of training images are augmented in these shards, and so tell nothing."""
    folder = undealt(tmp_path, scenes_folder, ["train"], "{name}")
    known, unclear = sorted(told(trained_run, None, folder, None))
    assert known.startswith(
        "6 of 12 test images have names that several images of the training shards have"
    )
    assert unclear.startswith(
        "6 of 12 test images have the names or masks of images that run small was trained on"
    )


def test_renamed_images_are_known_by_their_masks(tmp_path, trained_run, scenes_folder):
    (val,) = told(
        trained_run, None, undealt(tmp_path, scenes_folder, ["val", "test"], "x{split}{name}"), None
    )
    assert "4 of 10 test images" in val


@pytest.mark.parametrize(
    "name, use", [("train", "was trained on"), ("val", "chose its best epoch by")]
)
def test_another_split_than_test_is_said_to_be_known(
    trained_run, scenes_folder, shards_folder, name, use
):
    for args in ((None, None, None), ([shards_folder], None, None), (None, scenes_folder, None)):
        (warning,) = told(trained_run, *args, name)
        count = {"train": 12, "val": 4}[name]
        assert f"{count} of {count} test images" in warning
        assert use in warning


def test_shards_dealt_out_anew_hold_images_that_the_run_knows(
    tmp_path, trained_run, scenes_source, key
):
    """They are given with --shards; the run's own lie where they were."""
    splits = scenes_source.splits
    source = replace(scenes_source, splits={"test": [*splits["test"], *splits["train"][:3]]})
    cipher = ciphers.from_key("np", key, 4)
    encryption.encrypt(
        encryption.plan_shards(source, tmp_path, cipher, size=(32, 32)), cipher, workers=1
    )
    (warning,) = told(trained_run, [tmp_path], None, None)
    assert "3 of 9 test images" in warning
    assert "was trained on" in warning


def test_without_the_training_shards_it_is_said_that_nothing_can_be_told(
    tmp_path, trained_run, scenes_folder
):
    run = Run(trained_run.path, trained_run.configuration)
    reconfigure(run, data={"shards": [str(tmp_path / "gone")]})
    (warning,) = told(run, None, undealt(tmp_path, scenes_folder), None)
    assert "it cannot be told whether" in warning
    assert "--shards FOLDER" in warning


@pytest.mark.parametrize(
    "own, known, same",
    [
        ("a.png", "JPEGImages/a.jpg", True),
        ("JPEGImages/a.jpg", "a.png", True),
        ("x/a.jpg", "x/a.jpg", True),
        ("test/a.jpg", "train/a.jpg", False),
        ("b.jpg", "a.jpg", False),
        ("a.b.jpg", "a.jpg", False),
        ("a.jpg", "home/anna/photos/a.jpg", True),
        ("photos/a.jpg", "home/anna/photos/a.jpg", True),
        ("", "a.jpg", False),
    ],
)
def test_names_of_one_image_seen_from_different_folders(own, known, same):
    dealt = {"train": SimpleNamespace(names=[known], shards=[])}
    assert leakage._places(SimpleNamespace(names=[own]), dealt, False) == (
        {"train": [own]} if same else {}
    )
