"""The grid of an experiment, its variants, and the settings that must agree."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from making import wrong_keys
from PIL import Image

from segkey.data.items import Item, Source
from segkey.errors import SegkeyError
from segkey.model.recipes import recipe
from segkey.model.results import MajorityClass, Plain, Score
from segkey.paper import CellResult, experiment_settings, models_of
from segkey.paper.experiment_settings import Settings, check_folder, claim, differences, upgraded
from segkey.paper.grid import Cell, grid
from segkey.paper.variants import in_order, variant_label, variant_name, variant_of
from segkey.system.json_files import read_json, write_json

# ------------------------------------------------------------------ the grid


def test_a_grid_has_the_baseline_first_then_small_blocks_for_each_seed():
    cells = grid(["shf", "np"], [2, 4], (64, 64), seeds=2, locks=[("np", 4)])
    assert [cell.name for cell in cells] == [
        name + seed
        for seed in ("", "-seed1")
        for name in ("plain", "np-m4-locked", "shf-m2", "np-m2", "shf-m4", "np-m4")
    ]
    assert len(set(cells)) == len(cells)
    assert [cell.locked for cell in cells] == 2 * [False, True, *[False] * 4]


def test_without_methods_the_baseline_is_left():
    assert grid([], [2], (8, 8)) == [Cell("none", 1, 0)]


@pytest.mark.parametrize(
    ("methods", "block_sizes", "size", "what", "hint"),
    [
        (["rot13"], [2], (8, 8), "no method 'rot13' to reproduce", "shf, np, ffx, shf+np"),
        (["none"], [2], (8, 8), "no method 'none'", "plain is always there"),
        (["np"], [3], (8, 9), "8 is not a multiple of the block size 3", "none but 1"),
        (["np"], [16], (32, 24), "24 is not a multiple of the block size 16", "2, 4, 8"),
    ],
)
def test_what_no_grid_can_have(methods, block_sizes, size, what, hint):
    with pytest.raises(SegkeyError, match=what) as refused:
        grid(methods, block_sizes, size)
    assert hint in refused.value.hint


def test_columns_stand_trained_before_locked_and_unknown_methods_last():
    variants = ["zzz", "ffx", "np locked", "aaa", "shf", "shf locked", "np", "shf"]
    ordered = ["shf", "np", "ffx", "aaa", "zzz", "shf locked", "np locked"]
    assert in_order(variants) == ordered
    assert in_order(reversed(variants)) == ordered
    assert in_order([]) == []


@pytest.mark.parametrize(
    ("cell", "variant", "name", "label"),
    [
        (Cell("np", 4, 0), "np", "NP", "NP M=4"),
        (Cell("np", 4, 0, locked=True), "np locked", "NP locked", "NP M=4 locked"),
        (Cell("shf+np", 2, 0), "shf+np", "SHF+NP", "SHF+NP M=2"),
        (Cell("none", 1, 0), "none", "plain", "plain"),
        (Cell("own", 8, 0), "own", "OWN", "OWN M=8"),
    ],
)
def test_how_a_cell_stands_in_tables(cell, variant, name, label):
    assert variant_of(cell) == variant
    assert variant_name(variant) == name
    assert variant_label(variant, cell.block_size) == label


# ------------------------------------------------------------------ scores over seeds


def cell(
    method="np", m=4, seed=0, correct=0.5, plain=0.2, wrong=(0.1, 0.3), majority=0.05, **how
) -> CellResult:
    protected = method != "none"
    plain = Plain(mean_iou=plain, by_divisor={"255": plain}) if protected else None
    made = CellResult(
        method=method,
        block_size=m,
        seed=seed,
        run="r",
        device="cpu, 2 threads",
        seconds={},
        correct=Score(mean_iou=correct),
        plain=plain,
        incorrect=wrong_keys(wrong) if protected else None,
        majority_class=MajorityClass(name="sky", mean_iou=majority),
    )
    return replace(made, **how)


def scores_of(*cells):
    ((only,),) = models_of(cells).values()
    return only


def test_scores_of_several_seeds_are_put_together():
    model = scores_of(
        cell(seed=0, correct=0.4, plain=0.1, wrong=(0.0, 0.2)),
        cell(seed=1, correct=0.6, plain=0.3, wrong=(0.4,)),
    )
    assert model.accuracy == pytest.approx(0.5)
    assert model.spread == pytest.approx(0.1 * 2**0.5)
    assert model.with_plain == pytest.approx(0.2)
    assert model.with_wrong == pytest.approx(0.2)  # over all keys, each with the same weight
    assert model.without_key == pytest.approx(0.2)
    assert model.gap == pytest.approx(0.3)
    assert model.left == pytest.approx(0.15 / 0.45)
    assert model.label == "NP M=4"


def test_one_seed_has_no_spread():
    assert scores_of(cell()).spread is None


@pytest.mark.parametrize(
    ("plain", "wrong", "correct", "left"),
    [
        (0.5, 0.1, 0.5, 1.0),
        (0.1, 0.3, 0.55, 0.5),
        (0.01, 0.02, 0.5, 0.0),  # below the majority class: nothing, and not less
        (0.04, 0.04, 0.05, 0.0),  # the model is no better than the majority class
        (0.04, 0.04, 0.03, 0.0),
    ],
)
def test_what_is_left_is_a_share_of_the_margin_over_the_majority_class(plain, wrong, correct, left):
    model = scores_of(cell(plain=plain, wrong=(wrong,), correct=correct))
    assert model.left == pytest.approx(left)


@pytest.mark.parametrize(("correct", "learned"), [(0.0751, True), (0.0749, False), (0.05, False)])
def test_a_model_has_learned_something_above_one_and_a_half_times_the_majority(correct, learned):
    assert scores_of(cell(correct=correct)).has_learned is learned


def test_cells_made_otherwise_are_apart_and_those_with_more_seeds_first():
    other = {"conditions": {"network": "other"}}
    cells = [cell(seed=0, **other), cell(seed=0), cell(seed=1), cell(m=2, **other)]
    models = models_of(cells)
    assert [len(each.correct) for each in models["np", 4]] == [2, 1]
    assert models["np", 4][1].conditions["network"] == "other"
    assert [len(each.correct) for each in models["np", 2]] == [1]


def test_of_as_many_seeds_those_come_first_that_most_cells_have():
    other = {"conditions": {"network": "other"}}
    cells = [cell(**other), cell(), cell(m=2), cell(m=8)]
    usual, odd = models_of(cells)["np", 4]
    assert "network" not in usual.conditions
    assert odd.conditions["network"] == "other"


def test_cells_without_a_score_are_passed_over():
    nothing = cell(correct=None, majority=None)
    assert models_of([nothing]) == {}
    assert scores_of(nothing, cell(seed=1)).correct == (0.5,)


def test_plain_images_that_were_fed_in_one_way_count_only_if_all_were():
    earlier = cell(plain=0.1)
    earlier = replace(earlier, plain=Plain(mean_iou=0.1))
    assert scores_of(earlier).plain == (0.1,)
    assert scores_of(earlier, cell(seed=1, plain=0.4)).plain == (0.4,)


# ------------------------------------------------------------------ settings


@pytest.fixture
def source(tmp_path) -> Source:
    splits = {}
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        splits[split] = []
        for number in range(count):
            image, mask = folder / f"{number}.png", folder / f"{number}-mask.png"
            Image.new("RGB", (8, 8), (number, 0, 0)).save(image)
            Image.new("L", (8, 8), number % 2).save(mask)
            splits[split].append(Item(f"{split}/{number}.png", image, mask))
    return Source(tmp_path / "data", "a folder", splits, ["a", "b"])


def settings(**how) -> Settings:
    made = Settings((64, 64), recipe("laptop"), "resnet14", wrong_keys=10)
    return replace(made, **how)


def test_settings_survive_json_and_tell_data_by_its_bytes(source):
    before = settings().document(source, "0" * 16)
    assert json.loads(json.dumps(before)) == before
    assert before["data"]["images"] == {"train": 3, "val": 1, "test": 2}
    assert settings().document(source, "0" * 16) == before
    Image.new("L", (8, 8), 1).save(source.splits["val"][0].mask)
    after = settings().document(source, "0" * 16)
    pairs = zip(before["data"]["content"].items(), after["data"]["content"].items(), strict=True)
    changed = [split for (split, old), (_, new) in pairs if old != new]
    assert changed == ["val"]
    assert after["data"]["names"] == before["data"]["names"]


def test_a_file_that_cannot_be_read_is_no_reason_to_stop(source):
    source.splits["test"][0].image.unlink()
    made = settings().document(source, "0" * 16)
    assert len(made["data"]["content"]["test"]) == 16


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"size": [32, 32]}, ["size 32x32, not 64x64"]),
        ({"network": "thin"}, ["network thin, not resnet14"]),
        ({"limit": 5}, ["limit 5, not all"]),
        ({"key_id": "1" * 16}, [f"key id {'1' * 16}, not {'0' * 16}"]),
        ({"recipe": {"epochs": 3}}, ["epochs 3, not 30"]),
        ({"data": {"classes": ["a", "c"]}}, ["data: classes c, not b"]),
        ({"data": {"classes": ["a", "b", "c"]}}, ["data: classes (3), not (2)"]),
        ({"data": {"images": {"train": 4}}}, ["data: images: train 4, not 3"]),
        (
            {"wrong_keys": 3, "recipe": {"lr": 1.0, "loss": "focal"}},
            ["lr 1.0, not 0.001", "loss focal, not ce", "wrong keys 3, not 10"],
        ),
    ],
    ids=str,
)
def test_settings_that_differ_are_told_as_wanted_and_as_they_were(source, change, told):
    kept = settings().document(source, "0" * 16)
    wanted = merged(kept, change)
    assert sorted(differences(kept, wanted)) == sorted(told)


def merged(document: dict, change: dict) -> dict:
    """A document with some of its fields changed, those within others too."""
    made = dict(document)
    for name, value in change.items():
        made[name] = merged(made[name], value) if isinstance(value, dict) else value
    return made


def test_settings_of_an_earlier_version_are_read_as_todays(source):
    today = settings().document(source, "0" * 16)
    earlier = {name: value for name, value in today.items() if name != "network"}
    earlier["backbone"] = today["network"]
    later = ("loss", "class_weights", "patience", "ema", "encoder_weights")
    earlier["recipe"] = {n: v for n, v in today["recipe"].items() if n not in later}
    before = json.dumps(earlier)
    assert upgraded(earlier) == today
    assert json.dumps(earlier) == before  # what was read is left alone
    assert upgraded({"recipe": "odd", "network": 5}) == {"recipe": "odd", "network": 5}


def test_a_folder_is_claimed_once_and_then_compared(tmp_path, source):
    wanted, said = settings().document(source, "0" * 16), []
    claim(tmp_path, wanted, said.append)
    kept = read_json(tmp_path / "settings.json", "settings")
    assert (kept["format"], kept["settings"]) == ("segkey-reproduction-v1", wanted)
    claim(tmp_path, wanted, said.append)
    assert read_json(tmp_path / "settings.json", "settings") == kept
    other = merged(wanted, {"network": "thin", "size": [8, 8]})
    with pytest.raises(SegkeyError, match="results of other settings: .*size 8x8, not 64x64"):
        claim(tmp_path, other, said.append)
    assert read_json(tmp_path / "settings.json", "settings") == kept
    assert said == []


def test_more_wrong_keys_are_taken_into_the_settings_fewer_are_refused(tmp_path, source):
    wanted = settings().document(source, "0" * 16)
    claim(tmp_path, wanted, print)
    claim(tmp_path, wanted | {"wrong_keys": 50}, print)
    assert read_json(tmp_path / "settings.json", "s")["settings"]["wrong_keys"] == 50
    with pytest.raises(SegkeyError, match="wrong keys 10, not 50"):
        claim(tmp_path, wanted, print)
    with pytest.raises(SegkeyError, match="network thin, not resnet14"):
        claim(tmp_path, wanted | {"wrong_keys": 99, "network": "thin"}, print)
    assert read_json(tmp_path / "settings.json", "s")["settings"]["wrong_keys"] == 50


def test_settings_that_do_not_say_what_images_held_are_completed_and_that_is_said(tmp_path, source):
    wanted, said = settings().document(source, "0" * 16), []
    data = {name: value for name, value in wanted["data"].items() if name != "content"}
    document = {"format": experiment_settings.FORMAT, "settings": wanted | {"data": data}}
    write_json(tmp_path / "settings.json", document)
    claim(tmp_path, wanted, said.append)
    assert "is of an earlier version" in said[0]
    kept = read_json(tmp_path / "settings.json", "s")["settings"]
    assert kept["data"]["content"] == wanted["data"]["content"]
    claim(tmp_path, wanted, said.append)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda out: (out / "runs").mkdir(), "holds runs, but no settings.json"),
        (lambda out: (out / "results.json").write_text("{}"), "results.json has the format 'None'"),
        (lambda out: (out / "settings.json").write_text('{"format": "x"}'), "has the format 'x'"),
        (lambda out: (out / "settings.json").write_text("["), "is not made by segkey reproduce"),
        (lambda out: (out / "runs").touch(), "runs is a file, not a folder"),
        (lambda out: (out / "table1.txt").mkdir(), "table1.txt is a folder, not a file"),
        (lambda out: (out / "keys").symlink_to("/"), "keys is a symbolic link, not a folder"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, make, what):
    make(tmp_path)
    with pytest.raises(SegkeyError, match=what):
        check_folder(tmp_path)


def test_an_empty_folder_or_one_of_the_users_files_is_fine(tmp_path):
    check_folder(tmp_path)
    (tmp_path / "notes.txt").touch()
    check_folder(tmp_path)
    check_folder(tmp_path / "not there")


@pytest.mark.parametrize(
    ("change", "full"),
    [
        ({}, True),
        ({"limit": 1449}, False),
        ({"data": {"images": {"train": 1318, "val": 146, "test": 1448}}}, False),
        ({"data": {"classes": ["a"] * 21}}, False),
    ],
)
def test_only_all_of_voc_is_compared_with_the_papers_numbers(change, full):
    from segkey.data.voc import VOC_CLASSES

    data = {"images": {"train": 1318, "val": 146, "test": 1449}, "classes": VOC_CLASSES}
    assert experiment_settings.is_full_voc(merged({"limit": None, "data": data}, change)) is full


@pytest.mark.parametrize(
    ("counts", "what"),
    [
        ({"train": 1, "val": 1, "test": 1}, "too few images for the split train "),
        ({"train": 1, "test": 3}, "the splits train and val \\(there are: train 1, val 0, test 3"),
    ],
)
def test_splits_that_are_too_small_to_train_on_are_named(tmp_path, counts, what):
    for split, count in counts.items():
        for number in range(count):
            for kind, picture in (
                ("images", Image.new("RGB", (8, 8), (number, 9, 9))),
                ("masks", Image.new("L", (8, 8), number % 2)),
            ):
                file = tmp_path / kind / split / f"{split}{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(SegkeyError, match=what) as refused:
        experiment_settings.open_data(tmp_path, workers=1)
    assert "train 2, val 1, test 1" in refused.value.hint


def test_the_experiments_own_key_is_made_once(tmp_path):
    first = experiment_settings.key_for(tmp_path)
    assert experiment_settings.key_for(tmp_path).id == first.id
    assert Path(tmp_path / "keys/experiment.key").stat().st_mode & 0o777 == 0o600
