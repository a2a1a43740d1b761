"""What people are shown says what the results say, and flatters nobody."""

import csv
import io

import pytest
from rich.console import Console

from segkey import reports
from segkey.reports import Row


def shown(*tables, width=100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def row(
    run="np-m4", method="np", block_size=4, correct=0.5, plain=0.2, wrong=(0.1, 0.3), images=60, classes=("a", "b")
):
    incorrect = None
    if wrong:
        incorrect = {
            "keys": len(wrong),
            "mean": sum(wrong) / len(wrong),
            "std": 0.1414,
            "min": min(wrong),
            "max": max(wrong),
        }
    iou = {name: correct for name in classes[:-1]} | {classes[-1]: None}
    return Row(
        run, method, block_size, (classes, (64, 64), images), classes, correct, iou, plain, incorrect, 0.05, images
    )


def document(correct=0.8, plain=0.2, best=0.3, method="np", bits=44.9):
    values = [0.1, best]
    return {
        "run": "r", "method": method, "block_size": 4, "images": 6, "correct": {"mean_iou": correct},
        "plain": {"mean_iou": plain}, "constant": {"class": "sky", "mean_iou": 0.05}, "key_space_bits": bits,
        "incorrect": {"keys": 2, "mean": sum(values) / 2, "std": 0.1, "min": 0.1, "max": best, "values": values},
    }  # fmt: skip


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
    assert "0.6000 (2 runs)" in shown(*reports.tables([row("a", correct=0.5), row("b", correct=0.7)]))


def test_runs_on_different_data_are_kept_apart():
    assert len(reports.tables([row("a"), row("b", images=61)])) == 4
    assert len(reports.tables([row("a"), row("b")])) == 2


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
        (0.79, 0.3, "plain images reach 0.7900 where the key reaches 0.8000: the key adds next to nothing"),
        (
            0.1,
            0.75,
            "the best of 2 wrong keys reaches 0.7500 where the key reaches 0.8000: the key adds next to nothing",
        ),
        (0.1, 0.5, "protects only a part"),
        (0.1, 0.2, "25 % of the model's worth is left"),
        (0.1, 0.15, "worth little without its key. 2 wrong keys are few"),
    ],
)
def test_the_verdict_goes_by_the_best_attempt_not_by_the_mean(plain, best, says):
    assert says in reports.attack_sentence(document(plain=plain, best=best))


def test_the_verdict_names_a_small_key_space_and_no_protection():
    assert "only 924 different keys" in reports.attack_sentence(document(bits=9.851749041416057))
    assert "different keys" not in reports.attack_sentence(document())
    assert "not protected" in reports.attack_sentence(document(method="none", bits=0))


def test_a_model_that_learned_nothing_gives_no_verdict_on_the_key():
    text = reports.attack_sentence(document(correct=0.07, plain=0.05, best=0.05))
    assert "learned next to nothing: 0.0700 with the key, where always answering 'sky' reaches 0.0500" in text
    assert "protects" not in text


def test_the_attack_table_shows_each_number_once():
    text = shown(reports.attack_table(document()))
    for value in ("0.8000", "0.2000", "0.3000", "0.1000", "0.0500"):
        assert value in text
    assert "always 'sky'" in text


def test_csv_is_read_back_as_it_was():
    rows = [row("with, comma"), row("unmeasured", correct=None, plain=None, wrong=None, images=None)]
    first, second = csv.DictReader(io.StringIO(reports.as_csv(rows)))
    assert (first["run"], float(first["correct"]), float(first["incorrect_max"])) == ("with, comma", 0.5, 0.3)
    assert second["correct"] == second["incorrect_mean"] == ""


def test_latex_escapes_names_and_has_as_many_cells_as_columns():
    text = reports.as_latex([row("a_b&c"), row("ffx-m2", "ffx", 2)])
    assert r"a\_b\&c" in text
    for block in text.split(r"\begin{tabular}")[1:]:
        columns = block[1 : block.index("}")]
        lines = [line for line in block.splitlines() if line.endswith(r"\\")]
        assert {line.replace(r"\&", "").count("&") + 1 for line in lines} == {len(columns)}


def test_names_are_neither_markup_nor_escapes():
    text = shown(*reports.tables([row("[red]x[/]\x1b[2J", classes=("[bold]", "b"))], per_class=True))
    assert "[red]x[/]" in text
    assert "[bold]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_fit_the_terminal(width):
    text = shown(*reports.tables([row("a-very-long-name-of-a-run-that-somebody-chose")], per_class=True), width=width)
    assert max(map(len, text.splitlines())) <= width
