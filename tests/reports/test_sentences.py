"""What single commands say: sentences and tables about given numbers, with right plurals."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segkey.crypto import ciphers
from segkey.data.class_table import ClassTable
from segkey.data.items import Item, Source
from segkey.model.results import Attack, Incorrect, MajorityClass, Plain, Score
from segkey.reports import chart_geometry, command_output, data_tables, exports, locks, networks
from segkey.reports.text import plain_text


def text_of(table) -> str:
    """A table as one line of words, without its lines."""
    text = "".join(" " if "\u2500" <= c <= "\u257f" else c for c in plain_text(table, width=400))
    return " ".join(text.split())


# ------------------------------------------------------------------ attacks


def attack(correct=0.8, plain=0.1, wrong=(0.1, 0.2), images=60, bits=44.9, **how) -> Attack:
    values = tuple(sorted(wrong))
    incorrect = Incorrect(
        keys=len(values),
        mean=sum(values) / len(values),
        std=0.01,
        min=values[0],
        max=values[-1],
        values=values,
    )
    made = Attack(
        run="r",
        images=images,
        correct=Score(mean_iou=correct),
        plain=Plain(mean_iou=plain, divided_by=255, by_divisor={"255": plain}),
        incorrect=incorrect,
        majority_class=MajorityClass(name="sky", mean_iou=0.05),
        method="np",
        block_size=4,
        key_space_bits=bits,
    )
    return replace(made, **how)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"wrong": [0.3]}, "the one wrong key that was tried reaches 0.3000"),
        ({"wrong": [0.3]}, "One wrong key is few: luckier ones exist."),
        ({"wrong": [0.1, 0.3]}, "the best of 2 wrong keys reaches 0.3000"),
        ({"wrong": [0.1, 0.3]}, "2 wrong keys are few: luckier ones exist."),
        ({"images": 1}, "1 test image is few: other images may tell otherwise."),
        ({"images": 19}, "19 test images are few: other images may tell otherwise."),
        ({"bits": 0.0}, "There is only one key: whoever knows the method and M has it."),
        ({"bits": np.log2(924)}, "There are only 924 different keys"),
        ({"bits": np.log2(12345)}, "There are only 12,345 different keys"),
        ({"plain": 0.2, "wrong": [0.1] * 100}, "25 % of the model's worth is left"),
        ({"plain": 0.24}, "plain images reach 0.2400 where the key reaches 0.8000: 30 % of the"),
    ],
)
def test_the_sentence_about_an_attack(how, says):
    assert says in command_output.attack_sentence(attack(**how))


def test_a_hundred_keys_and_twenty_images_are_not_called_few():
    text = command_output.attack_sentence(attack(wrong=[0.1] * 100, images=20))
    assert "few" not in text
    assert "keys:" not in text.replace("wrong keys", "")


@pytest.mark.parametrize("boundary", [0.25, 0.5, 0.9])
def test_each_verdict_begins_at_its_share_of_the_correct_keys_score(boundary):
    below, at = (
        command_output.attack_sentence(attack(plain=share * 0.8, wrong=[0.0] * 100)).split(": ", 1)
        for share in (boundary - 1e-6, boundary)
    )
    assert below[1] != at[1]


def test_rows_of_an_attack_hold_its_numbers_and_their_share():
    rows = {row.attempt.strip(): row for row in command_output.attack_rows(attack())}
    assert rows["correct key"].percent == "100 %"
    assert (rows["plain"].mean_iou, rows["plain"].percent) == (0.1, "12 %")
    assert rows["incorrect keys, mean of 2"].mean_iou == pytest.approx(0.15)
    assert (rows["worst"].mean_iou, rows["best"].mean_iou) == (0.1, 0.2)
    assert rows["always 'sky'"].mean_iou == 0.05


def test_of_a_model_that_scores_nothing_no_share_is_taken():
    rows = command_output.attack_rows(attack(correct=0.0, plain=0.0, wrong=[0.0]))
    assert {row.percent for row in rows} == {"n/a"}


@pytest.mark.parametrize(("keys", "shown"), [(1, "standard deviation n/a"), (2, "0.0100")])
def test_one_key_has_no_standard_deviation(keys, shown):
    assert shown in text_of(command_output.attack_table(attack(wrong=[0.2] * keys)))


def test_the_way_to_divide_plain_images_is_told_if_there_were_two():
    two = Plain(mean_iou=0.3, divided_by=998, by_divisor={"255": 0.2, "998": 0.3})
    made = attack(plain=two, method="ffx")
    made = replace(made, plain=two)
    text = text_of(command_output.attack_table(made))
    assert "plain, divided by 998" in text
    assert "(255 gives 0.2000, 998 gives 0.3000)" in text
    assert "divided" not in text_of(command_output.attack_table(attack()))


# ------------------------------------------------------------------ data


def source(counts: dict[str, int], classes=("a", "b"), masks=True) -> Source:
    place = Path("x.png")
    splits = {
        split: [Item(f"{n}.png", place, place if masks else None) for n in range(count)]
        for split, count in counts.items()
    }
    named = list(classes) if masks else None
    return Source(Path("."), "a folder", splits=splits, classes=named)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            source({"train": 8, "val": 1}),
            "a folder: 9 images (train 8, val 1), 2 classes",
        ),
        (source({"test": 1}, ("a",)), "a folder: 1 image (test 1), 1 class"),
        (
            source({"all": 2}, masks=False),
            "a folder: 2 images (all 2), no masks, so no model can be trained on these",
        ),
    ],
)
def test_what_would_be_taken_in(made, expected):
    assert data_tables.describe_source(made) == expected


def encrypted(images, kept=(), bits_of="ffx", m=4, problems=()):
    result = SimpleNamespace(images=images, bytes=2_500_000, seconds=1.25, kept=list(kept))
    cipher = SimpleNamespace(key_space_bits=ciphers.key_space_bits(bits_of, m))
    return command_output.describe_encryption(result, list(problems), Path("out"), cipher)


def test_what_was_encrypted():
    assert encrypted({"all": 1}) == "1 image (all 1) in out, 2.5 MB, 1.2 s"
    text = encrypted({"train": 3, "test": 2}, kept=["a.h5"], problems=[1, 2])
    assert text.startswith("5 images (train 3, test 2) in out")
    assert text.endswith("; 1 finished shard of an earlier run kept; 2 left out")
    assert "2 finished shards of" in encrypted({"all": 1}, kept=["a", "b"])


@pytest.mark.parametrize(
    ("method", "m", "warned"),
    [("np", 2, True), ("np", 4, False), ("ffx", 2, False), ("none", 1, False), ("shf", 2, True)],
)
def test_a_small_key_space_is_told_after_encryption(method, m, warned):
    text = encrypted({"all": 3}, bits_of=method, m=m)
    assert ("bits of key space: all keys can be tried. Take a larger M." in text) is warned


def table_of_classes(pixels: dict[str, list[int]], classes: list[str], void=0, **how) -> ClassTable:
    table = ClassTable(classes, **how)
    for split, counts in pixels.items():
        row = np.zeros(256, np.int64)
        row[: len(counts)] = counts
        row[table.ignore_index] += void
        table.pixels[split], table.images[split] = row, 3
    return table


def test_shares_of_classes_are_those_of_labelled_pixels_and_void_of_all():
    made = table_of_classes({"train": [300, 100, 0], "test": [0, 0, 0]}, ["a", "b", "c"], void=100)
    assert made.shares("train") == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert made.shares("test") == {"a": None, "b": None, "c": None}
    assert (made.void("train"), made.void("test")) == (0.2, 1.0)
    text = text_of(data_tables.class_table(made))
    assert "a 75.0 % n/a" in text
    assert "c 0 n/a" in text
    assert "void (of all pixels) 20.0 % 100.0 %" in text
    assert "images 3 3" in text
    assert "pixels of no class" not in text


def test_a_rare_class_is_not_rounded_to_nothing():
    made = table_of_classes({"all": [99_999, 1]}, ["much", "little"])
    assert "little < 0.1 %" in text_of(data_tables.class_table(made))


@pytest.mark.parametrize(("count", "shown", "rest"), [(30, 30, ""), (31, 10, "21 in no mask")])
def test_of_many_classes_those_that_no_mask_holds_are_counted_only(count, shown, rest):
    counts = [5 if number < 10 else 0 for number in range(count)]
    made = table_of_classes({"all": counts}, [f"class-{n}" for n in range(count)])
    text = text_of(data_tables.class_table(made))
    assert sum(f"class-{n} " in text for n in range(count)) == shown
    assert rest in text


def test_beyond_sixty_classes_the_rest_is_summed_up():
    made = table_of_classes({"all": [1] * 80}, [f"class-{n}" for n in range(80)])
    text = text_of(data_tables.class_table(made))
    assert "class-59 " in text
    assert "class-60 " not in text
    assert "20 more 25.0 %" in text


def test_odd_pixels_and_images_without_a_label_are_counted():
    made = table_of_classes({"all": [4]}, ["a"], void=4)
    made.strange["all"], made.unlabelled["all"] = 8, 2
    text = text_of(data_tables.class_table(made))
    assert "pixels of no class 8" in text
    assert "without any labelled pixel 2" in text
    assert made.void("all") == 0.25


# ------------------------------------------------------------------ inspection


SHARES = {"sky": 0.25, "unknown": 0.75, "void": 0.0, "of_images": 1}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"class_shares": SHARES}, "sky 25.0 %, unknown 75.0 %, void 0.0 % (of 1 image)"),
        ({"class_shares": {"unknown": "row 3 is damaged"}}, "n/a: row 3 is damaged"),
        ({"class_shares": {"a": None, "of_images": 500}}, "a n/a (of 500 images)"),
        ({"size": [24, 32]}, "size 24x32"),
        ({"damage": []}, "none: everything matches its checksum"),
        ({"damage": [f"row {n}" for n in range(30)]}, "row 19"),
        ({"bytes": 999_950}, "1.0 MB"),
        ({"classes": ["a", "b"]}, "2: a, b"),
        ({"best": {"epoch": 3, "val_loss": None}}, "epoch 3, val_loss n/a"),
        ({"data": {"shards": ["a", "b", "c", "d", "e"]}}, "shards (5)"),
        ({"created": "\x1b[31mred"}, r"\x1b[31mred"),
    ],
)
def test_what_inspect_shows_of_a_field(document, says):
    shown = text_of(command_output.inspection_table({"kind": "shard", "path": "a.h5"} | document))
    assert says in shown
    assert "row 20" not in shown


def test_fields_without_a_value_are_left_out():
    document = {"kind": "key", "path": "k", "key_id": "", "seed": None, "views": 0}
    shown = text_of(command_output.inspection_table(document))
    assert "key id" not in shown
    assert "seed" not in shown
    assert "views" in shown


# ------------------------------------------------------------------ predictions and speed


def predicted(images=2, seconds=1.0, problems=()):
    return SimpleNamespace(images=images, seconds=seconds, problems=list(problems))


@pytest.mark.parametrize(
    ("result", "overlays", "expected"),
    [
        (predicted(), False, "2 masks in o/masks, 1.0 s, 2.0 images/s"),
        (predicted(1, 20.0), False, "1 mask in o/masks, 20.0 s, 20 s per image"),
        (predicted(1, 0.0), False, "1 mask in o/masks, 0.0 s, 1000000000.0 images/s"),
        (
            predicted(problems=["x"]),
            True,
            "2 masks in o/masks, overlays in o/overlays, 1.0 s, 2.0 images/s; 1 left out",
        ),
    ],
)
def test_what_was_predicted(result, overlays, expected):
    assert command_output.describe_prediction(result, Path("o"), overlays) == expected


def test_classes_that_were_found_stand_commonest_first_and_the_others_below():
    result = SimpleNamespace(
        pixels={"rare": 1, "sky": 9_000, "none": 0, "road": 999},
        seen={"rare": 1, "sky": 3, "none": 0, "road": 2},
    )
    text = text_of(command_output.prediction_table(result))
    assert text.index("sky") < text.index("road") < text.index("rare")
    assert "sky 3 90.0 %" in text
    assert "rare 1 < 0.1 %" in text
    assert text.endswith("in no image: none")


def test_a_table_of_many_files_tells_how_many_it_leaves_out():
    files = [{"image": f"i{n}.jpg", "mask": f"m{n}.png"} for n in range(23)]
    text = text_of(command_output.files_table(SimpleNamespace(files=files)))
    assert "i19.jpg m19.png" in text
    assert "i20.jpg" not in text
    assert "and 3 more" in text
    few = text_of(command_output.files_table(SimpleNamespace(files=files[:20])))
    assert "more" not in few


# ------------------------------------------------------------------ exports, networks, locks


def exported(method="np", any_size=False, multiple=1, images=1, recipients=()):
    header = SimpleNamespace(
        method=method, block_size=4, key_id="0123456789abcdef", classes=("a", "b")
    )
    model = SimpleNamespace(
        header=header,
        size=(24, 32),
        any_size=any_size,
        multiple=multiple,
        opset=18,
        network="fcn",
        run="r",
    )
    compared = SimpleNamespace(pixels=[0] * images, origin="scenes", real=False)
    return SimpleNamespace(
        exported=model,
        path=Path("m.onnx"),
        bytes=1_500_000,
        equal=0.99987,
        compared=compared,
        recipients=recipients,
    )


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({}, "24x32, any number per batch"),
        ({"any_size": True}, "24x32, or any other size, any number"),
        ({"any_size": True, "multiple": 8}, "24x32, or any multiple of 8, any number"),
        ({"method": "none"}, "needs plain images"),
        ({}, "images encrypted with np, M = 4, key 0123456789abcdef"),
        ({"images": 1}, "99.987% of pixels, on 1 image (scenes)"),
        ({"images": 8}, "on 8 images (scenes)"),
        ({"recipients": ("age1x", "age1y")}, "sealed for age1x, age1y"),
        ({}, "m.onnx, 1.5 MB"),
    ],
)
def test_what_an_export_says_of_itself(how, says):
    assert says in text_of(exports.export_table(exported(**how)))


@pytest.mark.parametrize(
    ("channels", "shown"),
    [
        ([3], "3"),
        ([1, 3], "1, 3"),
        ([1, 2], "1, 2"),
        ([1, 2, 3, 4], "1 … 4"),
        ([1, 3, 4], "1, 3, 4"),
    ],
)
def test_networks_tell_the_channels_that_they_take(channels, shown):
    entry = SimpleNamespace(
        name="n", origin="o", weights=["w", "v"], channels=channels, parameters=25_550_000
    )
    unknown = SimpleNamespace(name="m", origin="o", weights=[], channels=[3], parameters=None)
    (table, more) = networks.network_table(
        SimpleNamespace(networks=[entry, unknown], more=["others"])
    )
    text = text_of(table)
    assert f"w, v {shown} 25.6 million" in text or f"w, v {shown} 25.5 million" in text
    assert more == "others"
    assert networks.network_table(SimpleNamespace(networks=[], more=["x"])) == ["x"]


def match(customer="a.key", explained=0.5, locks_it=False, tells=True):
    return SimpleNamespace(
        customer=customer,
        key_id="0" * 16,
        method="np",
        explained=explained,
        by_chance=0.1,
        is_the_locks=locks_it,
        tells=tells,
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([match("b.key", locks_it=True), match()], "locked with the key of b.key (key 0000"),
        (
            [match("b", locks_it=True), match("c", locks_it=True)],
            "of b (key 0000000000000000), c (key 0000000000000000).",
        ),
        ([match(), match()], "with none of these keys, or changed too much since"),
        ([match(tells=False)], "The weights alone cannot tell: M is the stride"),
    ],
)
def test_whose_model_it_is(found, says):
    assert says in locks.whose_sentence(found)
    document = locks.whose_document(Path("runs/x"), found)
    assert document["model"] == "runs/x"
    assert document["can_be_told"] is any(each.tells for each in found)
    assert [key["is_the_locks"] for key in document["keys"]] == [m.is_the_locks for m in found]
    text = text_of(locks.whose_table(Path("runs/x"), found))
    assert text.count("50.0%") == len(found)


# ------------------------------------------------------------------ geometry of charts


@pytest.mark.parametrize(
    ("highest", "top"),
    [(0.0, 0.01), (0.005, 0.01), (0.05, 0.05), (0.051, 0.06), (0.1, 0.1), (0.3, 0.3), (1.0, 1.0)],
)
def test_an_axis_ends_at_a_round_number_and_has_five_steps_at_most(highest, top):
    row = SimpleNamespace(run="r", correct=highest, plain=None, majority_class=None, incorrect=None)
    chart = chart_geometry.key_chart([row], ["label"])
    (made,) = chart.rows
    ends = chart.ticks[-1]
    assert float(ends.label) == pytest.approx(top)
    assert (chart.ticks[0].at, ends.at) == (0, pytest.approx(100))
    assert 2 <= len(chart.ticks) <= 6
    assert made.correct.x == pytest.approx(100 * highest / top)
    assert made.plain is made.mean is made.majority_class is None
    labels = [float(tick.label) for tick in chart.ticks]
    assert np.allclose(np.diff(labels), labels[1] - labels[0], atol=1e-9)


def test_without_a_score_there_is_no_chart():
    row = SimpleNamespace(run="r", correct=None, plain=0.5, majority_class=0.1, incorrect=None)
    assert chart_geometry.key_chart([row], ["label"]) is None
    assert chart_geometry.key_chart([], []) is None


@pytest.mark.parametrize("losses", [[1.0, 1.0, 1.0], [0.0, 0.0], [3.0, 1.0, 2.0], [-1.0, 5.0]])
def test_curves_stay_within_their_square(losses):
    history = [{"loss": loss, "val_loss": loss + 0.5} for loss in losses]
    made = chart_geometry.training_curves(history, best_epoch=2)
    for curve, name in zip(made.curves, ("loss", "val_loss"), strict=True):
        points = [tuple(map(float, point.split(","))) for point in curve.points.split()]
        assert [x for x, _ in points] == pytest.approx(
            [100 * n / (len(losses) - 1) for n in range(len(losses))], abs=0.01
        )
        assert all(0 <= y <= 100 for _, y in points)
        values = [line[name] for line in history]
        order = np.argsort([-y for _, y in points], kind="stable")
        assert np.all(np.diff(np.array(values)[order]) >= 0)  # higher is more
    assert made.best == pytest.approx(100 / (len(losses) - 1))
    assert chart_geometry.training_curves(history, best_epoch=9).best is None
    assert chart_geometry.training_curves(history, best_epoch=None).best is None
