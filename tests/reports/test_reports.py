"""What people are shown says what the results say, and flatters nobody."""

import csv
import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from making import copy_of, reconfigure, wrong_keys
from rich.console import Console

from segkey import reports
from segkey.model import comparability
from segkey.model.configuration import Best, Configuration, Data, Network, Segment, Training
from segkey.model.recipes import Recipe
from segkey.model.results import Evaluation, MajorityClass, Score, read
from segkey.reports import Row


def shown(*tables, width=100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def row(
    run="np-m4",
    method="np",
    block_size=4,
    correct=0.5,
    plain=0.2,
    wrong=(0.1, 0.3),
    images=60,
    classes=("a", "b"),
):
    incorrect = replace(wrong_keys(wrong), std=0.1414) if wrong else None
    iou = {name: correct for name in classes[:-1]} | {classes[-1]: None}
    return Row(
        run,
        method,
        block_size,
        {"classes": classes, "size": "64x64", "test images": images},
        classes,
        correct,
        iou,
        plain,
        incorrect,
        0.05,
        images,
    )


def document(correct=0.8, plain=0.2, best=0.3, method="np", bits=44.9):
    values = [0.1, best]
    return {
        "run": "r",
        "method": method,
        "block_size": 4,
        "images": 6,
        "correct": {"mean_iou": correct},
        "plain": {"mean_iou": plain},
        "constant": {"class": "sky", "mean_iou": 0.05},
        "key_space_bits": bits,
        "incorrect": {
            "keys": 2,
            "mean": sum(values) / 2,
            "std": 0.1,
            "min": 0.1,
            "max": best,
            "values": values,
        },
    }


def test_the_grid_has_methods_across_and_block_sizes_down():
    rows = [
        row(correct=0.5),
        row("shf-m2", "shf", 2, 0.61),
        row("ffx-m4", "ffx", 4, 0.42),
        row("plain", "none", 1, 0.7),
    ]
    text = shown(*reports.tables(rows))
    lines = [line.replace("│", " ").split() for line in text.splitlines() if "│" in line]
    assert ["2", "0.6100"] in lines
    assert ["4", "0.5000", "0.4200"] in lines
    assert "baseline, nothing encrypted: 0.7000" in text


def test_runs_of_one_cell_are_averaged_and_counted():
    assert "0.6000 (2 runs)" in shown(
        *reports.tables([row("a", correct=0.5), row("b", correct=0.7)])
    )


def test_runs_on_different_data_are_kept_apart():
    assert len(reports.tables([row("a"), row("b", images=61)])) == 4
    assert len(reports.tables([row("a"), row("b")])) == 2


# ------------------------------------------------------------------ what may be averaged


MADE = Configuration(
    created="2024-12-31",
    data=Data(
        method="none",
        block_size=1,
        channels=3,
        max_value=255,
        key_id="",
        password_hash="",
        classes=("a", "b"),
        size=(64, 64),
        ignore_index=255,
        images={"train": 12, "val": 4},
        views=4,
        on_the_fly=False,
        shards=(),
    ),
    recipe=Recipe(lr=0.1, epochs=2, weights="none", crop_scale=0.25),
    training=Training(
        on_the_fly=False,
        views=4,
        augmented=True,
        crop_scale=0.25,
        augmentation_seed=0,
        images={"train": 12, "val": 4},
        dtype="float32",
        world_size=1,
    ),
    model=Network(name="resnet14"),
    epochs_done=2,
    seconds=1.0,
    seed=0,
    precise=False,
    device="cpu, 2 threads",
    versions={"segkey": "0.1.0", "torch": "2.11.0"},
)


def made_as(**changes) -> Configuration:
    """How a run was made, with changes as `making.reconfigure` takes them."""
    return reconfigure(SimpleNamespace(configuration=MADE), **changes).configuration


def result(**changes) -> Evaluation:
    tested = {"labels": "aa", "dtype": "float32", "split": "test"} | changes.pop("tested", {})
    scores = {
        "correct": Score(mean_iou=0.5),
        "majority_class": MajorityClass(name="a", mean_iou=0.1),
    }
    about = {"run": "r", "split": "test", "images": 60, "device": "cpu, 2 threads"}
    return Evaluation(**scores, **about | {"tested": tested} | changes)


def made(name, correct, made_with=None, tested=None, **how):
    found = comparability.of_run(made_with or MADE, tested or result())
    return replace(row(name, correct=correct, **how), data=found)


DIFFERENT = {
    "augmented on the fly, not views": (
        {"training": {"on_the_fly": True, "views": 1}},
        "augmented on the fly, views 1 (not 4)",
    ),
    "views and crops": (
        {"training": {"views": 3, "crop_scale": 0.9}},
        "views 3 (not 4), crop scale 0.9 (not 0.25)",
    ),
    "no augmentation": (
        {"training": {"augmented": False, "views": 1}},
        "not augmented, views 1 (not 4)",
    ),
    "training images": (
        {"data": {"images": {"train": 11, "val": 4}}},
        "training images 11 (not 12)",
    ),
    "validation images": (
        {"data": {"images": {"train": 12, "val": 3}}},
        "validation images 3 (not 4)",
    ),
    "cut off": ({"epochs_done": 1}, "epochs done 1 (not 2)"),
    "recipe": ({"recipe": {"lr": 0.2}}, "lr 0.2 (not 0.1)"),
    "weights": (
        {"recipe": {"weights": "/home/anna/own.safetensors"}},
        "starting weights own.safetensors (not none)",
    ),
    "network": ({"model": {"name": "timm:resnet18"}}, "network timm:resnet18 (not resnet14)"),
    "bfloat16": ({"training": {"dtype": "bfloat16"}}, "training in bfloat16 (not float32)"),
    "ranks": ({"training": {"world_size": 2}}, "ranks 2 (not 1)"),
    "precise": ({"precise": True}, "precise"),
    "device": ({"device": "NVIDIA H100"}, "trained on NVIDIA H100 (not cpu)"),
    "resumed elsewhere": (
        {"device": "cpu, 2 threads, then NVIDIA H100"},
        "trained on cpu, then NVIDIA H100 (not cpu)",
    ),
    "versions": ({"versions": {"segkey": "0.1.3", "torch": "3.0.0"}}, "torch 3 (not 2)"),
    "segments": (
        {"segments": [Segment(epoch=0, dtype="float32"), Segment(epoch=1, dtype="bfloat16")]},
        "training in float32, then bfloat16",
    ),
    "void": ({"data": {"ignore_index": 0}}, "void value 0 (not 255)"),
    "earlier version": ({"training": None}, "augmented not recorded"),
}


@pytest.mark.parametrize("changes, says", DIFFERENT.values(), ids=DIFFERENT)
def test_runs_trained_differently_are_never_averaged_and_the_difference_is_named(changes, says):
    rows = [made("a", 0.5), made("b", 0.6), made("c", 0.9, made_as(**changes))]
    for text in (shown(*reports.tables(rows), width=300), reports.as_latex(rows)):
        assert "0.5500 (2 runs)" in text
        assert "0.9000" in text
        assert "3 runs" not in text
        assert "the mean of n runs, which differ in their seed or key and in nothing else" in text
        assert "differs from part 1 in: " in text
        assert says in text
    lines = list(csv.DictReader(io.StringIO(reports.as_csv(rows))))
    assert [line["part"] for line in lines] == ["1", "1", "2"]
    assert [bool(line["differs"]) for line in lines] == [False, False, True]
    assert says in reports.as_json(rows)[2]["differs"]


@pytest.mark.parametrize(
    "tested, says",
    [
        ({"images": 30}, "test images 30 (not 60)"),
        ({"tested": {"labels": "bb"}}, "other test images"),
        ({"tested": {"dtype": "bfloat16"}}, "tested in bfloat16 (not float32)"),
        ({"device": "NVIDIA H100"}, "tested on NVIDIA H100 (not cpu)"),
    ],
)
def test_runs_tested_differently_are_never_averaged(tested, says):
    rows = [made("a", 0.5), made("b", 0.9, tested=result(**tested))]
    text = shown(*reports.tables(rows), width=300)
    assert "runs)" not in text
    assert says in text


def test_runs_that_differ_in_seed_key_or_threads_are_averaged():
    other = made_as(
        seed=7,
        device="cpu, 16 threads",
        versions={"segkey": "0.1.9", "torch": "2.12.1"},
        training={"augmentation_seed": 3},
        data={"key_id": "0123456789abcdef"},
    )
    rows = [made("a", 0.5), made("b", 0.7, other)]
    assert "0.6000 (2 runs)" in shown(*reports.tables(rows), width=300)
    assert "differs" not in shown(*reports.tables(rows), width=300)


def test_runs_of_earlier_versions_are_averaged_with_each_other_only():
    early = made_as(training=None)
    tested = replace(result(), tested={}, split=None)
    rows = [made("a", 0.5, early, tested), made("b", 0.7, early, tested), made("c", 0.9)]
    text = shown(*reports.tables(rows), width=300)
    assert "0.6000 (2 runs)" in text
    assert "3 runs" not in text
    assert "augmented not recorded there" in text


def test_a_part_names_the_part_that_is_most_like_it():
    elsewhere = made_as(model={"name": "resnet50"}, epochs_done=1)
    rows = [
        made("a", 0.5),
        made("b", 0.6, elsewhere),
        made("c", 0.7, replace(elsewhere, precise=True)),
    ]
    assert reports.as_json(rows)[2]["differs"] == "differs from part 2 in: precise"


def test_a_fixed_password_is_another_method():
    rows = [
        made("a", 0.5, method="ffx"),
        replace(made("b", 0.7, method="ffx"), password_fixed=True),
    ]
    text = shown(*reports.tables(rows), width=300)
    assert "runs)" not in text
    assert "FFX, password fixed" in text
    assert r"FFX, password fixed" in reports.as_latex(rows)


def test_different_numbers_of_wrong_keys_are_said():
    rows = [made("a", 0.5), made("b", 0.6, wrong=(0.1, 0.2, 0.3))]
    assert "different numbers of wrong keys were tried (2, 3)" in shown(
        *reports.tables(rows), width=300
    )
    assert "different numbers" not in shown(
        *reports.tables([made("a", 0.5), made("b", 0.6)]), width=300
    )


def test_conditions_from_anybody_are_only_text():
    odd = made_as(
        training={"views": {"x": ["[red]\x1b"] * 100}, "dtype": ["no"]},
        versions={"torch": 2},
        segments=[Segment(epoch=0, dtype={})],
    )
    text = shown(*reports.tables([made("a", 0.5), made("b", 0.6, odd)]), width=300)
    assert "\x1b" not in text
    assert "views" in text


def test_what_was_not_measured_is_not_invented():
    text = shown(*reports.tables([row(correct=None, plain=None, wrong=None, images=None)]))
    assert "not evaluated yet" in text
    assert "0.0000" not in text
    assert "n/a" in text


def test_absent_classes_are_not_available():
    text = shown(*reports.tables([row(classes=("sky", "unicorn"))], per_class=True))
    (line,) = (line for line in text.splitlines() if "unicorn" in line)
    assert "n/a" in line


@pytest.mark.parametrize(
    ("plain", "best", "says"),
    [
        (
            0.79,
            0.3,
            "plain images reach 0.7900 where the key reaches 0.8000: the key adds next to nothing",
        ),
        (
            0.1,
            0.75,
            "the best of 2 wrong keys reaches 0.7500 where the key reaches 0.8000: the key adds "
            "next to nothing",
        ),
        (0.1, 0.5, "protects only a part"),
        (0.1, 0.2, "25 % of the model's worth is left"),
        (0.1, 0.15, "worth little without its key. 2 wrong keys are few"),
    ],
)
def test_the_verdict_goes_by_the_best_attempt_not_by_the_mean(plain, best, says):
    assert says in reports.attack_sentence(read("attack", document(plain=plain, best=best)))


def test_the_verdict_names_a_small_key_space_and_no_protection():
    assert "only 924 different keys" in reports.attack_sentence(
        read("attack", document(bits=9.851749041416057))
    )
    assert "different keys" not in reports.attack_sentence(read("attack", document()))
    assert "not protected" in reports.attack_sentence(
        read("attack", document(method="none", bits=0))
    )


def test_a_model_that_learned_nothing_gives_no_verdict_on_the_key():
    text = reports.attack_sentence(read("attack", document(correct=0.07, plain=0.05, best=0.05)))
    assert (
        "learned next to nothing: 0.0700 with the key, where always answering 'sky' reaches 0.0500"
        in text
    )
    assert "protects" not in text


def test_the_attack_table_shows_each_number_once():
    text = shown(reports.attack_table(read("attack", document())))
    for value in ("0.8000", "0.2000", "0.3000", "0.1000", "0.0500"):
        assert value in text
    assert "always 'sky'" in text


def test_csv_is_read_back_as_it_was():
    rows = [
        row("with, comma"),
        row("unmeasured", correct=None, plain=None, wrong=None, images=None),
    ]
    first, second = csv.DictReader(io.StringIO(reports.as_csv(rows)))
    assert (first["run"], float(first["correct"]), float(first["incorrect_max"])) == (
        "with, comma",
        0.5,
        0.3,
    )
    assert second["correct"] == second["incorrect_mean"] == ""


def test_latex_escapes_names_and_has_as_many_cells_as_columns():
    text = reports.as_latex([row("a_b&c"), row("ffx-m2", "ffx", 2)])
    assert r"a\_b\&c" in text
    for block in text.split(r"\begin{tabular}")[1:]:
        columns = block[1 : block.index("}")]
        lines = [line for line in block.splitlines() if line.endswith(r"\\")]
        assert {line.replace(r"\&", "").count("&") + 1 for line in lines} == {len(columns)}


def test_names_are_neither_markup_nor_escapes():
    text = shown(
        *reports.tables([row("[red]x[/]\x1b[2J", classes=("[bold]", "b"))], per_class=True)
    )
    assert "[red]x[/]" in text
    assert "[bold]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_fit_the_terminal(width):
    text = shown(
        *reports.tables([row("a-very-long-name-of-a-run-that-somebody-chose")], per_class=True),
        width=width,
    )
    assert max(map(len, text.splitlines())) <= width


# ------------------------------------------------------------------ advice


@pytest.mark.parametrize(
    "method, m, password, advised, not_advised",
    [
        ("np", 2, "", ["--exhaustive", "--search"], ["--ffx-password"]),
        ("shf", 2, "", ["--search"], ["--exhaustive"]),
        ("ffx", 2, "ab", ["--exhaustive --ffx-password PASSWORD", "--search"], []),
        ("ffx", 2, "", [], ["key space", "--search"]),
        ("np", 8, "", [], ["key space"]),
    ],
)
def test_after_a_training_no_search_is_advised_that_would_be_refused(
    method, m, password, advised, not_advised
):
    data = {"method": method, "block_size": m, "password_hash": password}
    run = SimpleNamespace(path="runs/x", configuration=made_as(data=data, best=Best(epoch=1)))
    text = reports.describe_training(run)
    assert all(words in text for words in advised)
    assert not any(words in text for words in not_advised)


def test_advice_of_keygen_is_not_refused():
    from segkey.attacks import too_many_keys

    assert "NP has only 924 keys" in reports.KEY_SPACE_ADVICE
    assert "segkey attack --exhaustive" in reports.KEY_SPACE_ADVICE
    assert not too_many_keys("np", 2)
    assert not too_many_keys("ffx", 2, fixed_password=True)


def test_a_name_that_is_taken_is_to_be_gone_on_with_only_if_it_can(tmp_path, trained_run):
    from segkey.errors import SegkeyError
    from segkey.model import runs

    def hint(path) -> str:
        with pytest.raises(SegkeyError) as caught:
            runs.check_free(path)
        return caught.value.hint

    assert "--resume" not in hint(trained_run.path)  # it has all its epochs
    (tmp_path / "file").write_text("")
    assert "--resume" not in hint(tmp_path / "file")
    cut = copy_of(trained_run, tmp_path / "cut", epochs_done=1)
    assert "--resume" in hint(cut.path)


def test_a_list_is_not_advised_to_take_a_folder_of_masks(tmp_path, trained_run, scenes_folder):
    from segkey.errors import SegkeyError
    from segkey.model import evaluation_splits

    file = tmp_path / "photos.txt"
    file.write_text("\n".join(map(str, sorted((scenes_folder / "images/test").iterdir()))))
    with pytest.raises(SegkeyError) as caught:
        evaluation_splits.split_from_images(trained_run, file, None)
    assert "a tab" in caught.value.hint
    assert "--masks" not in caught.value.hint


def test_a_copy_of_a_run_is_not_counted_again():
    from types import SimpleNamespace

    from segkey.reports.comparable_runs import grid_of

    def measured(weights):
        return SimpleNamespace(tested={"weights_sha256": weights})

    one = replace(row("a", "np", 4, 0.5), result=measured("aa"))
    other = replace(one, run="c", correct=0.7, result=measured("bb"))
    *_, cells = grid_of([one, replace(one, run="copy"), other])
    assert list(cells.values()) == [[0.5, 0.7]]
