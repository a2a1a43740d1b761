"""Names and numbers from elsewhere: in commands to copy, in LaTeX, CSV, Markdown and pictures, and
when a run is opened."""

import csv
import io
import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from making import copy_of, reconfigure
from test_paper import cells_of, example, results_of
from test_reports import row
from typer.testing import CliRunner

from segkey import reports
from segkey.cli import app
from segkey.crypto import ciphers
from segkey.errors import SegkeyError
from segkey.model.results import Score
from segkey.model.runs import Run
from segkey.paper import figures, tables
from segkey.reports.page import _commands, html_page
from segkey.reports.text import csv_cell, latex, markdown, plain_text
from segkey.system import shell_quoting
from segkey.system.json_files import with_checksum

HOSTILE = [
    "$(touch PWNED)",
    "`touch PWNED`",
    "a; touch PWNED",
    "a\ntouch PWNED",
    "-rf",
    "--out=x",
    "~root",
    "a b",
    "it's",
    "!!",
    "a\x1b[2J",
    "\u202egnp",
    "a|touch PWNED",
    "a>PWNED",
    "a&touch PWNED&",
    "*",
    "",
    "{a,b}",
    "\N{NO-BREAK SPACE}x",
    "#x",
]


def words_of(line: str, folder: Path) -> list[str]:
    """The words that a real shell makes of a line; it runs nothing else."""
    script = f"printf '%s\\0' {line}"
    done = subprocess.run(
        ["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_word_stays_one_word_and_no_option(name, tmp_path):
    (made,) = words_of(shell_quoting.word(name), tmp_path)
    assert made.removeprefix("./") == (name if name.isprintable() else made.removeprefix("./"))
    assert not made.startswith("-")
    assert made.isprintable()
    assert list(tmp_path.iterdir()) == []
    option = shell_quoting.option("batch_size", name)
    assert option.startswith("--batch-size")
    assert option.isprintable()
    assert len(words_of(option, tmp_path)) == (1 if name.startswith("-") else 2)
    assert list(tmp_path.iterdir()) == []


def test_commands_on_the_page_mean_what_they_say(tmp_path, trained_run):
    """Even of a run that nobody has checked: what a shell makes of them are the very values."""
    run = copy_of(
        trained_run,
        tmp_path / "x",
        data={"shards": ["/a/$(touch PWNED)", "C:\\shards\\b; touch PWNED", "-rf", "/"]},
        recipe={"weights": "-w `touch PWNED`", "optimizer": "sgd; touch PWNED"},
        model={"name": "x|touch PWNED"},
        seed=-5,
    )
    run.path = tmp_path / "n;touch PWNED"
    key, encrypt, train, evaluate = _commands(run, None)
    assert key.startswith("# with key ")
    assert "\n" not in "".join((key, encrypt, train, evaluate))
    words = words_of(train, tmp_path)
    assert words[:6] == ["segkey", "train", "$(touch PWNED)", "b; touch PWNED", "./-rf", "shards"]
    assert words[words.index("--network") + 1] == "x|touch PWNED"
    assert "--weights=-w `touch PWNED`" in words
    assert "--seed=-5" in words
    assert words[words.index("--optimizer") + 1] == "sgd; touch PWNED"
    assert words_of(evaluate, tmp_path)[2] == "runs/n;touch PWNED"
    assert words_of(encrypt, tmp_path)[-2:] == ["--out", "$(touch PWNED)"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("folder", ["r; touch PWNED", "-r", "$(id)"])
def test_commands_after_a_training_and_in_hints_are_quoted(
    tmp_path, monkeypatch, trained_run, folder
):
    monkeypatch.chdir(tmp_path)
    run = Run(Path(folder) / "small", trained_run.configuration)
    reconfigure(run, best={"epoch": 1, "val_loss": 0.5})
    (line,) = (
        each for each in reports.describe_training(run).splitlines() if each.startswith("Next: ")
    )
    evaluate, attack = shlex.split(
        line.removeprefix("Next: ").replace("; segkey attack", " ; segkey attack")
    )[2::4][:2]
    assert Path(evaluate) == Path(attack) == run.path
    assert not evaluate.startswith("-")
    copy_of(trained_run, tmp_path / folder / "small")
    with pytest.raises(SegkeyError) as refusal:
        Run.open(Path(folder) / "smal")
    assert words_of(
        refusal.value.hint.removeprefix("did you mean ").removesuffix("?"), tmp_path
    ) == [shell_quoting.word(f"{folder}/small").strip("'")]
    with pytest.raises(SegkeyError) as refusal:
        copy_of(
            trained_run, tmp_path / folder / "other", without=["*.safetensors"], epochs_done=0
        ).load_model("cpu")
    words = words_of(refusal.value.hint.removeprefix("go on with it: "), tmp_path)
    assert words[:5] == ["segkey", "train", "--resume", "--name", "other"]
    assert Path(words[6]) == tmp_path / folder
    (tmp_path / folder / "small/evaluate.json").write_text("{}")
    with pytest.raises(SegkeyError) as refusal:
        Run.open(Path(folder) / "small").result("evaluate")
    assert (
        Path(words_of(refusal.value.hint.removeprefix("make it again: "), tmp_path)[2]) == run.path
    )


# ------------------------------------------------------------------ when a run is opened


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"data.key_id": "$(touch PWNED)"},
            "'data.key_id' is '\\$\\(touch PWNED\\)'; expected 16 hex digits",
        ),
        ({"data.key_id": "0" * 15 + "G"}, "'data.key_id'"),
        ({"data.password_hash": "`id`"}, "'data.password_hash'"),
        ({"data.classes": ["a\x1b[2J", "b"]}, "'data.classes'"),
        ({"data.classes": ["a", "a"]}, "a class twice"),
        ({"data.classes": ["x" * 201, "b"]}, "'data.classes'"),
        ({"data.images": {"train": "12"}}, "'data.images'"),
        ({"data.views": True}, "'data.views' is True; expected a whole number from 1"),
        ({"data.shards": ["a\0b"]}, "'data.shards'"),
        ({"data.block_size": 5}, "'data.size' is 32x32; expected sides that M = 5 divides"),
        ({"recipe.lr; touch PWNED": 1}, "'lr; touch PWNED' is unknown; expected optimizer, lr"),
        (
            {"recipe.lr": "0.1; touch PWNED"},
            "'recipe.lr' is '0.1; touch PWNED'; expected a number above 0",
        ),
        ({"recipe.lr": 10**400}, "'recipe.lr' is"),
        ({"recipe.epochs": True}, "'recipe.epochs' is True"),
        ({"recipe.optimizer": "rm"}, "'recipe.optimizer' is 'rm'"),
        ({"recipe.weights": "\x00"}, "'recipe.weights'"),
        ({"recipe.crop_scale": 2}, "is 2; expected a number above 0 and up to 1"),
        ({"model.name": "x|y"}, "'model.name' is 'x|y'"),
        ({"name": "a b"}, "'name' is 'a b'; expected letters"),
        ({"created": "yesterday"}, "'created' is 'yesterday'; expected a time such as"),
        ({"device": "cpu\nsegkey: error"}, "'device'"),
        ({"versions": {"torch": ["2"]}}, "'versions'"),
        ({"seed": 2**63}, "'seed'"),
        ({"seconds": -1}, "'seconds' is -1; expected a number from 0 on"),
        ({"seconds": 10**400}, "'seconds' is"),
        ({"best": {"epoch": "1", "val_loss": 0.1}}, "'best.epoch' is '1'"),
        ({"best": {"epoch": 1, "val_loss": 10**400}}, "'best.val_loss'"),
        ({"weights_sha256": "x"}, "'weights_sha256' is 'x'; expected 64 hex digits"),
        ({"epochs_done": -1}, "'epochs_done' is -1"),
        ({"precise": 1}, "'precise' is 1; expected true or false"),
    ],
)
def test_a_damaged_field_of_a_run_is_named_with_what_was_expected(
    tmp_path, trained_run, change, named
):
    config = trained_run.configuration.document
    for place, value in change.items():
        part, _, name = place.partition(".")
        (config[part] if name else config)[name or part] = value
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps(with_checksum(config)))
    with pytest.raises(SegkeyError, match=named) as refusal:
        Run.open(tmp_path / "run")
    assert refusal.value.what.startswith(f"{tmp_path / 'run'}/run.json is damaged: ")
    assert refusal.value.what.isprintable()


@pytest.mark.parametrize(
    "field",
    ["created", "recipe", "seed", "data.key_id", "data.size", "data.shards", "model.name"],
)
def test_a_field_that_is_missing_is_named(tmp_path, trained_run, field):
    config = trained_run.configuration.document
    *parts, last = field.split(".")
    (config[parts[0]] if parts else config).pop(last)
    config["model"].pop("backbone", None)  # the name of earlier versions, which would do
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps(config))
    with pytest.raises(SegkeyError, match=f"'(data.)?{last}' is missing|'{field}' is missing"):
        Run.open(tmp_path / "run")


@pytest.mark.parametrize("name", ["a b", "$(touch PWNED)", "-rf", "x" * 101])
def test_a_folder_with_another_name_is_no_run(tmp_path, trained_run, name):
    copy_of(trained_run, tmp_path / name)
    with pytest.raises(SegkeyError, match="a run cannot be called") as refusal:
        Run.open(tmp_path / name)
    assert refusal.value.hint.startswith("rename the folder")


def test_a_run_is_opened_from_within(tmp_path, trained_run, monkeypatch):
    copy_of(trained_run, tmp_path / "inside")
    monkeypatch.chdir(tmp_path / "inside")
    assert Run.open(".").name == "inside"


ATTACK = {
    "run": "x",
    "method": "np",
    "block_size": 4,
    "split": "test",
    "images": 6,
    "key_space_bits": 44.9,
    "seed": 3,
    "correct": {"mean_iou": 0.5, "pixel_accuracy": 0.5, "iou": {"a": 0.5, "b": None}},
    "plain": {"mean_iou": 0.1},
    "incorrect": {"keys": 2, "mean": 0.1, "std": 0.0, "min": 0.1, "max": 0.1, "values": [0.1, 0.1]},
    "constant": {"class": "a", "mean_iou": 0.1},
}
LINE = {
    "attack": "search",
    "knows": "a",
    "steals": "b",
    "queries": 1,
    "images": 1,
    "seconds": 1.0,
    "mean_iou": 0.2,
    "won": 0.1,
    "summary": "s",
    "details": {"best_of": {"100": None}},
}
SUITE = {
    name: ATTACK[name]
    for name in ("run", "method", "block_size", "images", "key_space_bits", "correct", "constant")
}
SUITE |= {
    "fixed_password": False,
    "keyless": {"mean_iou": 0.1, "divided_by": 255},
    "left_out": {},
    "attacks": [LINE],
}


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("attack", {"method": 7}, "'method' is 7"),
        ("attack", {"key_space_bits": "x"}, "'key_space_bits' is 'x'; expected a number from 0 on"),
        (
            "attack",
            {"plain": {"mean_iou": 1.5}},
            "'plain.mean_iou' is 1.5; expected a number from 0 to 1",
        ),
        ("attack", {"plain": {"mean_iou": None}}, "'plain.mean_iou' is None; expected a number"),
        (
            "attack",
            {"incorrect": ATTACK["incorrect"] | {"keys": "1; touch PWNED"}},
            "'incorrect.keys'",
        ),
        ("attack", {"constant": {"class": "\x1b[2J", "mean_iou": 0.1}}, "'constant.class'"),
        ("attack", {"seed": "1; touch PWNED"}, "'seed'"),
        ("attack", {"images": 10**400}, "'images' is"),
        ("suite", {"attacks": [LINE | {"won": "all"}]}, "of an attack, 'won' is 'all'"),
        ("suite", {"attacks": [LINE | {"seconds": 10**400}]}, "of an attack, 'seconds'"),
        ("suite", {"left_out": {"a": 7}}, "'left_out'"),
        ("evaluate", {"correct": {"mean_iou": 0.5, "iou": {"a": 2}}}, "'correct.iou'"),
        ("evaluate", {"split": 7}, "'split' is 7"),
    ],
)
def test_a_damaged_field_of_a_result_is_named(tmp_path, trained_run, name, change, named):
    run, whole = copy_of(trained_run, tmp_path / "x"), SUITE if name == "suite" else ATTACK
    run.write_result(name, whole)
    assert run.result(name).document == whole
    run.write_result(name, whole | change)
    with pytest.raises(SegkeyError, match=named):
        run.result(name)


# ------------------------------------------------------------------ what other programs read


@pytest.mark.parametrize(
    "text",
    [
        r"\input{/etc/passwd}",
        r"\write18{id}",
        "^^5cinput x",
        "% \n\\end{tabular}",
        "#1",
        "a&b",
        "~",
        "$x$",
        "{",
        "}",
        "[1]",
        "*",
        "a_b",
        "\\\\",
        "<|>",
        "a\rb",
    ],
)
def test_latex_finds_no_command(text):
    shown = latex(text)
    harmless = re.sub(
        r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar)\{\}|\\[_&%$#{}]",
        "",
        shown,
    )
    harmless = re.sub(r"\{([\[\]*])\}", "", harmless)
    assert not set(harmless) & set("\\^~_&%$#{}[]*<>|\n\r"), shown


def test_latex_tables_hold_names_of_runs_methods_and_devices_as_text(monkeypatch):
    monkeypatch.setattr(ciphers.METHODS["np"], "label", "^^5cinput & $x$")
    text = reports.as_latex([row(r"\input{x}"), row("% y", block_size=2)])
    assert r"\textbackslash{}input\{x\}" in text
    assert r"\% y" in text
    assert r"\textasciicircum{}\textasciicircum{}5cinput \& \$x\$" in text
    results = results_of([*cells_of(r"a\write18{id}"), *cells_of("^^5cinput", methods=("np",))])
    text = tables.Table1(results).by_block_size().as_latex()
    assert r"\write18" not in text
    assert "^^5c" not in text
    assert "^^5cinput & " not in text
    assert r"\textbackslash{}write18" in text


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        '"=1',
        "＝1",
        "\ufeff=1",
        "\u200b@x",
    ],
)
def test_a_spreadsheet_computes_no_text(text):
    assert csv_cell(text).startswith("'")
    assert csv_cell(text).isprintable()


def test_numbers_and_plain_names_in_csv_stay_as_they_are():
    assert [csv_cell(value) for value in (-0.25, -5, 0, None, "np-m4", "a, b", "")] == [
        -0.25,
        -5,
        0,
        "",
        "np-m4",
        "a, b",
        "",
    ]
    (line,) = csv.DictReader(io.StringIO(reports.as_csv([row("=cmd|' /C calc'!A0", correct=0.25)])))
    assert line["run"] == "'=cmd|' /C calc'!A0"
    assert float(line["correct"]) == 0.25
    baseline, cell, *rest = cells_of("@device")
    worse = replace(cell, correct=Score(mean_iou=0.1))
    results = results_of([baseline, worse, *rest])
    lines = list(csv.DictReader(io.StringIO(tables.Table1(results).by_line().as_csv())))
    assert {line["device"] for line in lines} == {"'@device"}
    assert min(float(line["difference"]) for line in lines) < 0  # a negative number is a number


def test_markdown_shows_names_as_text():
    assert (
        markdown("a|b\n<img src=x> [l](http://x) `c`")
        == r"a\|b\\n\<img src=x\> \[l\](http\://x) \`c\`"
    )
    results = results_of(
        [*cells_of("<script>|"), *cells_of("cpu", methods=("np",))], full_voc=False
    )
    text = tables.Table1(results).by_block_size().as_markdown()
    assert r"\<script\>\|" in text
    assert "<script>" not in text


def test_labels_of_ones_own_methods_are_no_markup(monkeypatch, tmp_path):
    monkeypatch.setattr(ciphers.METHODS["np"], "label", "[/odd] $\\frac{")
    results = results_of([*cells_of(), *cells_of("$\\alpha{", methods=("np",))])
    text = plain_text(tables.Table1(results).by_block_size().as_rich()) + plain_text(
        tables.findings_table(results)
    )
    assert text.count("[/odd]") > 1
    assert "[/odd]" in "".join(str(each.columns[1].header) for each in reports.tables([row()])[:1])
    figures.write_all(results, example(3), tmp_path)


@pytest.mark.parametrize("name", ["$\\frac{", "$x$", "_hidden", "a\nb", "[red]"])
def test_names_of_classes_in_figures_are_text_and_none_is_missing(tmp_path, name):
    shown = example(3)
    shown = shown.__class__(**shown.__dict__ | {"classes": ("background", name, "_other")})
    figure = figures.predictions(shown)
    figures.save(figure, tmp_path / "fig5.png")
    texts = figure.legends[0].get_texts()
    assert {text.get_text() for text in texts} == {
        "background",
        name.replace("\n", "\\n"),
        "_other",
    }
    assert not any(text.get_parse_math() for text in texts)


def test_class_names_in_html_stay_text(tmp_path, trained_run):
    classes = ['"><script>', "a", "b", "c", "' onload='x"]
    run = copy_of(trained_run, tmp_path / "x", data={"classes": classes})
    run.write_result(
        "evaluate",
        ATTACK | {"device": "<b>", "correct": {"mean_iou": 0.5, "iou": {'"><script>': 0.5}}},
    )
    html = html_page([run])
    assert "<script" not in html
    assert "' onload='" not in html
    assert "&lt;script&gt;" in html


def test_classes_that_no_shard_may_hold_are_refused_before_anything_is_made(
    tmp_path, scenes_folder
):
    lines = (scenes_folder / "classes.txt").read_text().splitlines()
    (tmp_path / "classes.txt").write_text("\n".join(["sky\x1b[2J", *lines[1:]]))
    command = [
        "encrypt",
        str(scenes_folder),
        "--method",
        "none",
        "--classes",
        str(tmp_path / "classes.txt"),
    ]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "printable" in result.stderr
    assert not (tmp_path / "out").exists()
