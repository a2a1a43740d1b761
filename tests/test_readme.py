"""The README is executed: its commands parse, its Python runs, its formats are those of the code."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from segkey import ciphers
from segkey.cli import app
from segkey.shards import Header

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[str]:
    return [line for block in blocks("console") for line in re.findall(r"^\$ (segkey .*)$", block, re.M)]


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
    name, *arguments = shlex.split(command)[1:]
    typer.main.get_command(app).commands[name].make_context(name, arguments)  # raises for an unknown option


def test_every_command_is_in_the_table():
    table = set(re.findall(r"^\| `segkey (\w+)", README, re.M))
    assert table == {command.callback.__name__ for command in app.registered_commands}


@pytest.mark.parametrize("source", blocks("python"))
def test_python_runs(source):
    names = {}
    exec(source, names)
    assert names["encrypted"].shape == names["images"].shape


def test_formats_are_described():
    for attribute in Header("train", "np", 4, 3, 255).attributes():
        assert f"`{attribute}`" in README
    assert all(f"{method.upper()}  " in README for method in ciphers.METHODS if method != "none")


def test_scripts_it_names_exist():
    for script in re.findall(r"sh ((?:examples|tests)/\S+\.sh)", README):
        assert (Path(__file__).parents[1] / script).is_file()
