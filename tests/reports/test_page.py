"""The report page: its numbers are the results', it loads nothing, and everybody can read it."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from making import copy_of, reconfigure
from PIL import Image
from typer.testing import CliRunner

from segkey import reports
from segkey.cli import app
from segkey.crypto import ciphers
from segkey.model import evaluation, evaluation_splits
from segkey.model.run_model import RunModel
from segkey.model.run_search import find
from segkey.model.runs import Run
from segkey.paper import table1
from segkey.reports import chart_geometry, gallery
from segkey.reports import page as page_module
from segkey.reports.page import html_page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_EMPTY = {"meta", "link", "img", "br", "circle", "line", "rect", "polyline"}


class Page(HTMLParser):
    """Every element as (tag, attributes, text with that of the elements in it)."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(html)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        element = [tag, dict(attributes), ""]
        self.elements.append(element)
        if tag not in _EMPTY:
            self._open.append(element)

    def handle_endtag(self, tag):
        if tag not in _EMPTY:
            assert self._open.pop()[0] == tag
        self.handle_data(" " if tag in ("td", "th") else "")

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def find(self, tag: str, **attributes: str) -> list[tuple[dict, str]]:
        wanted = {name.replace("_", "-").strip("-"): value for name, value in attributes.items()}
        return [
            (attrs, text.strip())
            for t, attrs, text in self.elements
            if t == tag and wanted.items() <= attrs.items()
        ]


def attack_document(run: str, correct: float) -> dict:
    values = [0.1111, 0.25, 0.0501, 0.25, 0.3333, 0.1, 0.21]
    return {
        "run": run,
        "method": "np",
        "block_size": 4,
        "split": "test",
        "images": 6,
        "correct": {"mean_iou": correct},
        "plain": {"mean_iou": 0.1357},
        "constant": {"class": "ground", "mean_iou": 0.1459},
        "key_space_bits": 44.9,
        "incorrect": {
            "keys": 7,
            "mean": sum(values) / 7,
            "std": 0.0987,
            "min": 0.0501,
            "max": 0.3333,
            "values": values,
        },
        "seed": 3,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory, trained_run):
    """Three runs: two that can be compared, one of them not attacked, and one trained on other
    classes."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    split = evaluation_splits.open_test_split(trained_run)
    evaluated = evaluation.evaluate(trained_run, split, None, torch.device("cpu"), precise=True)
    document = evaluated.document
    for name in ("np-m4", "other", "np-m4-2"):
        run = copy_of(trained_run, folder / name, name=name)
        run.write_result("evaluate", document | {"run": name})
        if name != "np-m4-2":
            run.write_result("attack", attack_document(name, document["correct"]["mean_iou"]))
        if name == "other":
            classes = ["<b>sky</b>", 'sea "&" [x]', "box", "triangle", "ring"]
            reconfigure(run, data={"classes": classes}).save()
            names = dict(zip(trained_run.header.classes, classes, strict=True))
            document["correct"]["iou"] = {
                names[n]: iou for n, iou in document["correct"]["iou"].items()
            }
            run.write_result("evaluate", document | {"run": name})
            document["correct"]["iou"] = {n: document["correct"]["iou"][names[n]] for n in names}
    return find(folder)


@pytest.fixture(scope="module")
def page(runs, key) -> str:
    return html_page(runs, gallery.of_runs(runs, key, None, torch.device("cpu")))


def test_the_numbers_on_the_page_are_those_of_the_results(page, runs):
    parsed = Page(page)
    for run in runs:
        (row,) = (text for attrs, text in parsed.find("tr", data_run=run.name))
        cells = row.split()
        evaluated, attacked = (run.result(name) for name in ("evaluate", "attack"))
        assert f"{evaluated.correct.mean_iou:.4f}" in cells
        assert f"{evaluated.majority_class.mean_iou:.4f}" in cells
        shown = [
            float(attrs["data-value"])
            for attrs, _ in parsed.find("circle", class_="wrong", data_run=run.name)
        ]
        if not attacked:
            assert cells.count("n/a") == 4
            assert shown == []
            continue
        wrong = attacked.incorrect
        for value in (attacked.plain.mean_iou, wrong.mean, wrong.max):
            assert f"{value:.4f}" in cells
        assert {f"{wrong.std:.3f}", "7"} <= set(cells)
        assert shown == list(wrong.values)
        ((_, listed),) = parsed.find("p", class_="values", data_run=run.name)
        assert listed.split() == [f"{value:.4f}" for value in sorted(wrong.values, reverse=True)]
        ((_, table),) = parsed.find("table", class_="attacks", data_run=run.name)
        for value in (
            attacked.correct.mean_iou,
            attacked.plain.mean_iou,
            wrong.min,
            wrong.max,
        ):
            assert f"{value:.4f}" in table
    for run in runs:
        ious = run.result("evaluate").correct.iou
        assert sorted(
            text for _, text in parsed.find("td", class_="bar", data_run=run.name)
        ) == sorted("n/a" if iou is None else f"{iou:.4f}" for iou in ious.values())


class Odd(ciphers.NegativePositive):
    method = "odd"
    label = "Odd & even"
    what = "Some of {n} values in blocks of {c}×{m}×{m} become odd."

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        return 2.5 * block_size


def test_a_method_of_ones_own_is_described_as_its_class_says(trained_run, monkeypatch):
    monkeypatch.setitem(ciphers.METHODS, "odd", Odd)
    run = Run(trained_run.path, trained_run.configuration)
    reconfigure(run, data={"method": "odd", "block_size": 4})
    text = " ".join(text for _, _, text in Page(html_page([run])).elements)
    assert "Odd & even M=4" in text
    assert "Some of 48 values in blocks of 3×4×4 become odd." in text
    assert "10.0 bits" in text
    assert "Only 10.0 bits of key space" in reports.describe_training(run)
    monkeypatch.delitem(ciphers.METHODS, "odd")  # whoever has the run may not have the method
    text = " ".join(text for _, _, text in Page(html_page([run])).elements)
    assert "ODD M=4" in text
    assert "a method of the user's own" in text
    assert "256 bits" in text


def test_every_mark_stands_where_its_value_belongs(page, runs):
    parsed = Page(page)
    ends = [max(float(text) for _, text in parsed.find("text", text_anchor="middle"))]
    for attrs, _ in parsed.find("circle", class_="wrong") + parsed.find("circle", class_="correct"):
        if "data-value" in attrs:
            assert float(attrs["cx"].rstrip("%")) == pytest.approx(
                100 * float(attrs["data-value"]) / ends[0]
            )
    assert (
        len(parsed.find("circle", class_="wrong")) == 14 + 2
    )  # two attacked runs, and two legends


def test_the_verdict_has_its_numbers(page, runs):
    verdicts = [text for _, text in Page(page).find("li", class_="verdict")]
    assert len(verdicts) == 3
    (unknown,) = (text for text in verdicts if "has not been measured yet" in text)
    assert unknown.startswith("np-m4-2")
    correct = runs[0].result("evaluate").correct.mean_iou
    assert all(f"{correct:.4f}" in text for text in verdicts if text != unknown)


def test_runs_on_different_data_are_kept_apart_and_it_says_so(page, runs):
    parsed = Page(page)
    assert len(parsed.find("h2")) == 2
    assert "kept apart in 2 parts" in page
    assert "kept apart" not in html_page(runs[:1])


def test_nothing_on_the_page_leads_out_of_it(page):
    for tag, attributes, _ in Page(page).elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "action", "data", "xlink:href"):
                assert value.startswith(("data:", "#")), (tag, name, value)
            assert not name.startswith("on"), (tag, name)
    assert not re.search(r"url\(|@import", page)
    assert "default-src 'none'" in page


def test_everything_has_words_and_every_reference_a_target(page):
    parsed = Page(page)
    names = [attrs["id"] for _, attrs, _ in parsed.elements if "id" in attrs]
    assert len(set(names)) == len(names)
    for tag, attrs, _ in parsed.elements:
        for attribute in ("aria-labelledby", "aria-describedby"):
            assert set(attrs.get(attribute, "").split()) <= set(names)
        assert not attrs.get("href", "").startswith("#") or attrs["href"][1:] in names
        if tag == "img":
            assert len(attrs["alt"]) > 10
        if tag == "svg" and attrs.get("role") == "img":
            assert attrs["aria-labelledby"]
        if "tabindex" in attrs:
            assert attrs["aria-label"]
    assert 'lang="en"' in page
    assert [int(tag[1]) for tag, _, _ in parsed.elements if re.fullmatch("h[1-6]", tag)][:2] == [
        1,
        2,
    ]


def test_text_can_be_told_from_its_ground_in_light_in_dark_and_on_paper(page):
    schemes = [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", page, re.S)
    ]
    assert len(schemes) == 3

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        red, green, blue = (
            p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for scheme in schemes:
        for text, ground, least in [
            ("text", "page", 4.5),
            ("text", "raised", 4.5),
            ("text", "bar", 4.5),
            ("quiet", "page", 4.5),
            ("link", "page", 4.5),
            ("correct", "page", 3),
            ("plain", "page", 3),
            ("wrong", "page", 3),
        ]:
            light, dark = sorted((luminance(scheme[text]), luminance(scheme[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (scheme, text, ground)


def test_names_are_text_not_markup(page):
    assert "<b>sky</b>" not in page
    assert "&lt;b&gt;sky&lt;/b&gt;" in page
    assert "\x1b" not in page


# ------------------------------------------------------------------ test images


def test_samples_are_what_evaluation_counts(runs, key):
    run = runs[0]
    model, split = (
        RunModel(run, torch.device("cpu"), precise=True),
        evaluation_splits.open_test_split(run),
    )
    taken = gallery.take(model, split, run.cipher(key), 6)
    assert [sample.name for sample in taken] == split.names
    document = run.result("evaluate")
    matrix = sum(
        evaluation.confusion_matrix(
            *(torch.from_numpy(sample.masks[way].astype(np.uint8)) for way in ("truth", "correct")),
            5,
            255,
        )
        for sample in taken
    )
    assert evaluation.Scores(matrix, model.classes, 6).mean_iou == pytest.approx(
        document.correct.mean_iou
    )


def test_the_encrypted_pictures_shown_do_not_give_the_key_away(runs, key):
    run = runs[0]
    cipher = run.cipher(key)
    split = evaluation_splits.open_test_split(run)
    for sample in gallery.take(RunModel(run, torch.device("cpu")), split, cipher, 2):
        assert not np.array_equal(sample.encrypted, cipher.encrypt(sample.image))
        turned = (sample.encrypted != sample.image)[:, :4, :4].reshape(-1)
        assert 0 < np.mean(turned == cipher.selected) < 1


def test_pictures_on_the_page_are_the_masks(page, runs, key):
    (taken, *_) = gallery.of_runs(runs, key, None, torch.device("cpu")).taken["np-m4"]
    found = [
        attrs
        for attrs, _ in Page(page).find("img")
        if attrs["alt"].startswith(f"{taken.name}, ground truth")
    ]
    picture = Image.open(io.BytesIO(base64.b64decode(found[0]["src"].split(",", 1)[1])))
    assert np.array_equal(np.asarray(picture), taken.masks["truth"])
    captions = [text for _, text in Page(page).find("figcaption")]
    for caption in (
        "encrypted",
        "with the correct key",
        "with a wrong key",
        "from the plain image",
        "ground truth",
    ):
        assert caption in captions


def test_without_the_key_the_page_says_what_is_left_out(runs, other_key):
    assert "No test images are shown" in html_page(runs)
    without = gallery.of_runs(runs, other_key, None, torch.device("cpu"))
    assert without.taken == {}
    assert "was made with key" in without.notes["np-m4"]
    assert "was made with key" in html_page(runs, without)


# ------------------------------------------------------------------ the command, and a browser


def test_the_command_writes_one_small_file(runs, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key.save(tmp_path / "k.key")
    command = [
        "report",
        str(runs[0].path.parent),
        "--html",
        "r.html",
        "--key",
        "k.key",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert result.stdout.startswith("r.html: 3 runs, ")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert len(html) < 1_000_000
    assert json.loads((tmp_path / "k.key").read_text())["secret"] not in html
    assert CliRunner().invoke(app, ["report", "--html", "r.html", "--json"]).exit_code == 2
    assert CliRunner().invoke(app, ["report", "--key", "k.key"]).exit_code == 2


def says(html: str, folder) -> list[str]:
    """What a browser has to say about a page."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={folder}/profile",
        "--disable-background-networking",
        "--virtual-time-budget=2000",
        "--dump-dom",
        f"file://{folder}/page.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "</html>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_a_browser_has_nothing_to_complain_about(page, tmp_path):
    assert says(page, tmp_path) == []
    leak = page.replace("</main>", '<img src="http://127.0.0.1:9/x.png" alt=""></main>')
    assert says(leak, tmp_path)  # what would leave the page is stopped, and heard of


# ------------------------------------------------------------------ charts


def test_axes_end_at_round_numbers_above_the_highest_value():
    for highest, top in [(0.004, 0.01), (0.1, 0.1), (0.34, 0.4), (0.77, 0.8), (1.0, 1.0)]:
        assert chart_geometry._nice_top(highest)[0] == pytest.approx(top)


def test_curves_need_two_epochs_and_finite_losses():
    history = [{"loss": 2.0, "val_loss": 1.0}, {"loss": 1.0, "val_loss": 1.5}]
    curves = chart_geometry.training_curves(history, best_epoch=1)
    assert [curve.name for curve in curves.curves] == ["training", "validation"]
    first, last = (tuple(map(float, p.split(","))) for p in curves.curves[0].points.split())
    assert first[0] == 0
    assert last[0] == 100
    assert first[1] < last[1]  # noqa: PT018 - y points down
    assert curves.best == 0
    assert chart_geometry.training_curves(history[:1], 1) is None
    assert (
        chart_geometry.training_curves([*history, {"loss": float("nan"), "val_loss": 1.0}], 1)
        is None
    )


def test_the_verdict_of_a_suite_is_a_line_for_each_kind_of_attacker(tmp_path, trained_run):
    def line(name: str, steals: str) -> dict:
        return {
            "attack": name,
            "knows": "something",
            "steals": steals,
            "queries": 3,
            "images": 18,
            "seconds": 2.0,
            "mean_iou": 0.4,
            "won": 0.75,
            "summary": "somehow",
            "details": {},
        }

    run = copy_of(trained_run, tmp_path / "attacked", name="attacked")
    attacked = attack_document("attacked", 0.5)
    run.write_result("attack", attacked)
    run.write_result(
        "suite",
        {
            "run": "attacked",
            "method": "np",
            "block_size": 4,
            "fixed_password": False,
            "key_space_bits": 44.9,
            "split": "test",
            "images": 6,
            "correct": attacked["correct"],
            "keyless": {"mean_iou": 0.1, "divided_by": 255},
            "constant": attacked["constant"],
            "left_out": {},
            "attacks": [line("wrong-keys", "the model"), line("known-pair", "one pair")],
        },
    )
    html = html_page([run])
    ((_, verdict),) = Page(html).find("li", class_="verdict")
    lines = verdict.splitlines()
    assert lines[2].endswith("falls to an attacker with the model alone (wrong-keys).")
    assert [words.split(",")[0] for words in lines[3:]] == ["With the model alone", "With one pair"]
    assert (
        "the strongest attack, wrong-keys, which needs the model alone, reaches 0.4000" in lines[0]
    )
    assert "\\n" not in html


@pytest.mark.parametrize(
    "weights",
    ["/home/anna/models/start.pth", "C:\\Users\\anna\\models\\start.pth", "models/start.pth"],
)
def test_the_folders_of_starting_weights_are_not_on_the_page_nor_in_tables(weights):
    settings = {"recipe": {"weights": weights}}
    assert page_module._start(weights) == "from start.pth weights"
    assert table1.weights_in_words(settings) == "start.pth"
    assert page_module._start("coco") == "from coco weights"
    assert table1.weights_in_words({"recipe": {"weights": "coco"}}) == "COCO weights"


def test_commands_on_the_page_name_no_folder(runs):
    run = next(run for run in runs if run.result("attack"))
    run = reconfigure(
        Run(run.path, run.configuration),
        recipe={"weights": "/home/anna/start.pth"},
        data={"shards": ["/home/anna/secret/shards"]},
    )
    commands = "\n".join(page_module._commands(run, None))
    assert "--weights start.pth" in commands
    assert "anna" not in commands
    assert "secret" not in commands


def test_the_plain_image_is_fed_in_the_way_that_the_attack_found_better(runs, key):
    """Of a method whose largest value is not 255, as FFX's is."""
    run = runs[0]
    cipher = ciphers.from_key("ffx", key, 4)
    document = run.result("attack").document
    plain = document["plain"]
    assert gallery._better_divisor(run, cipher) == 255  # an earlier version told nothing
    for divisor in (255, cipher.max_value):
        run.write_result("attack", document | {"plain": plain | {"divided_by": divisor}})
        assert gallery._better_divisor(run, cipher) == divisor
    run.write_result("attack", document)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32)).astype(np.uint8)
    model = RunModel(run, torch.device("cpu"), precise=True)
    half = model.masks(pixels // 2 * 2, [(32, 32)], None, 510)[0]
    assert np.array_equal(half, model.masks(pixels // 2, [(32, 32)], None)[0])
