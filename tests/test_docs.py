"""The pages are executed: commands parse, Python runs, links lead somewhere, formats are those of
the code."""

import io
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from segkey import reports
from segkey.cli import app
from segkey.crypto import ciphers, keys
from segkey.model import runs
from segkey.model.run_search import survey
from segkey.shards import FORMAT, Header, index

ROOT = Path(__file__).parents[1]
FILES = sorted(
    [ROOT / "README.md", ROOT / "segkey/FORMATS.md", *(ROOT / "examples").rglob("*.md")]
    + [*(ROOT / "tests").glob("*.md"), *(ROOT / "keys").glob("*.md")]
)
FILES = [path for path in FILES if "build" not in path.parts]  # of `pip install examples/runtime`
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
README, FORMATS = PAGES["README.md"], PAGES["segkey/FORMATS.md"]
MOVED = ["attacks.md", "README.md", "scaling.md", "results/README.md", "results/speed.md"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.S | re.M)


def commands() -> list:
    """Each distinct ``segkey`` command of all pages, with the page it is from; also those under
    torchrun."""
    found = {}
    for name, page in PAGES.items():
        for block in blocks(page, "console"):
            found |= {line: name for line in re.findall(r"^\$ segkey (.*)$", block, re.M)}
        for block in blocks(page, "sh"):
            found |= {
                line.strip(): name
                for line in re.findall(r"(?:-m segkey|time segkey) ([^#;\n]+)", block)
            }
    return [pytest.param(line, id=f"{name}: {line}") for line, name in found.items()]


def test_all_pages_are_read():
    assert {*(f"examples/{name}" for name in MOVED), "tests/README.md"} < set(PAGES)


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
    name, *arguments = shlex.split(command)
    typer.main.get_command(app).commands[name].make_context(
        name, arguments
    )  # raises for an unknown option


def test_options_in_the_text_exist():
    segkey = typer.main.get_command(app).commands.values()
    known = {
        option for command in segkey for parameter in command.params for option in parameter.opts
    }
    known |= {
        "--help",
        "--install-completion",
        "--nproc-per-node",
        "--max-restarts",
    }  # typer's and torchrun's
    for name, page in PAGES.items():
        for text in re.findall(r"`([^`\n]*--[^`\n]*)`", page):
            used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
            assert used <= known, f"{name}: {text}"


def test_every_command_is_in_the_table():
    rows = re.findall(r"^\| (`segkey [^|]+)\|", README, re.M)
    table = {name for row in rows for name in re.findall(r"`segkey (\w+)", row)}
    assert table == {each.name or each.callback.__name__ for each in app.registered_commands}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200
    assert len(README.split()) <= 2000
    assert max(map(len, README.splitlines())) <= 130


@pytest.fixture
def workplace(tmp_path, trained_run, key, scenes_folder, monkeypatch):
    """A folder in which the pages' commands have been run: a key, a run, a photograph."""
    shutil.copytree(trained_run.path, tmp_path / "runs/latest")
    key.save(tmp_path / "keys/segkey.key")
    photo = sorted((scenes_folder / "images/test").iterdir())[0]
    Image.open(photo).crop((0, 0, 48, 40)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "source", [block for page in PAGES.values() for block in blocks(page, "(?:python|py)")]
)
def test_python_runs(source, workplace):
    names = {}
    exec(source, names)
    if "encrypted" in names:
        assert names["encrypted"].shape == names["images"].shape
    else:
        assert names["mask"].shape == (40, 48)


SMALLER = {  # what makes a command of a page quick
    "encrypt": "--size 32 --workers 1",
    "train": "--network thin --epochs 1 --batch-size 4 --device cpu",
    "predict": "--device cpu",
}


@pytest.mark.slow
def test_the_way_of_an_owner_with_two_customers(tmp_path, scenes_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scenes_folder, "data")
    shutil.copytree(scenes_folder / "images/test", "photos")
    page = PAGES["examples/README.md"].split("to two customers.")[1].split("\n## ")[0]

    def segkey(line: str, code: int = 0) -> str:
        more = SMALLER.get(line.split()[0], "")
        done = CliRunner().invoke(app, shlex.split(f"{line} {more}"))
        assert done.exit_code == code, (line, done.output)
        return " ".join(done.output.split())

    lines = [
        line
        for block in blocks(page, "console")
        for line in re.findall(r"^\$ segkey (.*)$", block, re.M)
    ]
    assert len(lines) == 7
    for line in lines:
        segkey(line)
    assert len(list((tmp_path / "predicted/masks").iterdir())) == 6
    assert not [*tmp_path.rglob("model.safetensors"), *tmp_path.rglob("resume.pt")]
    assert len([*tmp_path.rglob("model.safetensors.age")]) == 3
    assert "not sealed for" in segkey("predict runs/for-a photos/ --key customers/b.key", 1)
    found = re.search(r"`segkey (whose [^`]+)`", page).group(1)
    assert "locked with the key of a" in segkey(found)


def headings(page: str) -> set[str]:
    """The anchors of a page, as GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.S | re.M)
    lines = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page, here = PAGES[name], (ROOT / name).parent
    defined = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", page, re.M))
    text = re.sub(r"^```.*?^```", "", page, flags=re.S | re.M)
    used = {label or word for word, label in re.findall(r"\[([^\[\]]+)\]\[([^\]]*)\]", text)}
    assert used == set(defined)
    links = (
        re.findall(r"\]\(([^)\s]+)\)", text)
        + re.findall(r'(?:src|href)="([^"]+)"', text)
        + [*defined.values()]
    )
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (here / path).resolve() if path else ROOT / name
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target.read_text(encoding="utf-8")), link


def test_sentences_on_protection_point_at_a_measurement():
    section = README.split("## What it protects")[1].split("\n## ")[0]
    for sentence in section.split("\n- ")[1:]:
        assert re.search(r"\]\[[\w-]+\]", sentence), sentence
    table = README.split("## Threat model")[1].split("\n## ")[0]
    for row in re.findall(r"^\| the (?!attacker|key file).*$", table, re.M):
        assert re.search(r"\]\[[\w-]+\]", row), row


def test_formats_are_described():
    for attribute in [*Header("train", "np", 4, 3, 255).attributes(), "checksums"]:
        assert f"`{attribute}`" in FORMATS
    assert all(f"{method.upper()}  " in FORMATS for method in ciphers.METHODS if method != "none")
    for name in (keys.FORMAT, FORMAT, index.FORMAT, runs.FORMAT):
        assert f"`{name}`" in FORMATS


def test_the_fields_of_a_key_are_described(key, tmp_path):
    for name, passphrase in (("plain", None), ("sealed", "open sesame")):
        document = json.loads(key.save(tmp_path / f"{name}.key", passphrase).read_text())
        for field in [*document, *document.get("sealed", {})]:
            assert f"`{field}`" in FORMATS


NAMES_ARE_DATA = {  # below these fields, names are classes, divisors, splits, words of a table
    "iou",
    "by_divisor",
    "versions",
    "details",
    "attackers_images",
    "left_out",
    "conditions",
}


def fields(document: object) -> set[str]:
    """Names of fields at every depth, without those that are data."""
    if isinstance(document, list):
        return set().union(*map(fields, document))
    if not isinstance(document, dict):
        return set()
    below = [value for name, value in document.items() if name not in NAMES_ARE_DATA]
    return (set(document) - {"train", "val", "test"}).union(*map(fields, below))


def described(name: str) -> bool:
    return bool(re.search(rf'[`"]{name}[`"]', FORMATS))


def test_the_fields_of_a_run_and_its_results_are_described(workplace, tmp_path):
    for words in (
        ["evaluate"],
        ["attack", "--wrong-keys", "2"],
        ["attack", "--plain", "--known-pair"],
    ):
        assert CliRunner().invoke(app, [*words, "--device", "cpu"]).exit_code == 0
    run = tmp_path / "runs/latest"
    texts = [file.read_text() for file in sorted(run.glob("*.json"))]
    texts += (run / "history.jsonl").read_text().splitlines()
    texts.append(CliRunner().invoke(app, ["report", "runs/latest", "--json"]).stdout)
    found = fields([json.loads(text) for text in texts])
    assert found >= {"epoch", "channels", "tested", "hmac", "chosen_on_test", "authentic"}
    assert [name for name in sorted(found) if not described(name)] == []


def test_the_fields_of_an_experiment_are_described():
    for file in (ROOT / "examples/results").rglob("results.json"):
        names = fields(json.loads(file.read_text(encoding="utf-8")))
        assert [name for name in sorted(names) if not described(name)] == [], file


def test_formats_are_part_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "FORMATS.md" in project["tool"]["setuptools"]["package-data"]["segkey"]


def test_code_does_not_send_readers_to_sections_that_have_moved():
    for path in (ROOT / "segkey").rglob("*.py"):
        assert "in the README" not in path.read_text(encoding="utf-8"), path


def test_scripts_they_name_exist():
    for name, page in PAGES.items():
        for script in re.findall(r"(?:sh|python) ((?:examples|tests)/\S+?\.(?:sh|py))", page):
            assert (ROOT / script).is_file(), f"{name}: {script}"
        for script, words in re.findall(r"run\.sh (tests/\S+\.py)(?: -k (\"[^\"]+\"|\w+))?", page):
            source = (ROOT / script).read_text(encoding="utf-8")
            for word in re.findall(r"\w+", words.replace(" or ", " ")):
                assert re.search(rf"def test_\w*{word}", source), f"{name}: {script} -k {word}"


def test_the_sample_of_the_readme_is_what_the_demo_printed():
    """From the results that its run left, by the code of today."""
    found, broken = survey(ROOT / "examples/results/demo")
    assert not broken
    console = Console(width=80, file=io.StringIO(), color_system=None)
    for each in reports.tables(reports.collect(found)):
        console.print(each, soft_wrap=isinstance(each, str))
    (sample,) = blocks(README, "text")
    assert sample.strip() in console.file.getvalue()
