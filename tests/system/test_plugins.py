"""Plug-ins: files that the environment names are imported once; others are refused in words."""

import os
import sys

import pytest

from segkey.errors import SegkeyError
from segkey.system import plugins


@pytest.fixture(autouse=True)
def python_as_it_was(monkeypatch):
    """Modules and paths that a test adds are gone afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def plugin(folder, name="segkey_own_plugin.py", text="count = 0\n"):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_each_file_is_imported_once(tmp_path):
    first = plugin(tmp_path, "segkey_first_own.py", "import builtins\nmade = [1]\n")
    second = plugin(tmp_path, "segkey_second_own.py", "from segkey_first_own import made\n")
    files = os.pathsep.join(["", str(first), str(second), ""])
    plugins.load(files)
    sys.modules["segkey_first_own"].made.append(2)
    plugins.load(files)
    assert sys.modules["segkey_second_own"].made == [1, 2]


def test_the_environment_names_them_under_both_names(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGKEY_PLUGINS", str(plugin(tmp_path, "segkey_new_own.py")))
    monkeypatch.setenv("SEGKEY_METHODS", str(plugin(tmp_path, "segkey_old_own.py")))
    plugins.load_named()
    assert {"segkey_new_own", "segkey_old_own"} <= set(sys.modules)


def test_a_folder_of_plugins_does_not_stand_in_for_a_library(tmp_path):
    plugin(tmp_path, "json.py", "raise RuntimeError('taken for the library')\n")
    plugins.load(str(plugin(tmp_path, "segkey_beside_own.py", "import json\njson.dumps(1)\n")))
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize("name", ["missing.py", "notes.txt", "."])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "notes.txt").write_text("x = 1")
    with pytest.raises(SegkeyError, match="SEGKEY_METHODS names .* no Python file") as refused:
        plugins.load(str(tmp_path / name), "SEGKEY_METHODS")
    assert refused.value.hint == "give the path of a .py file"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library_of_ours\n", "ModuleNotFoundError: No module named"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def broken(:\n", "SyntaxError: "),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines"),
    ],
)
def test_a_file_that_fails_is_named_with_its_error_in_one_line(tmp_path, text, said):
    file = plugin(tmp_path, "segkey_failing_own.py", text)
    with pytest.raises(SegkeyError) as failed:
        plugins.load(str(file))
    assert failed.value.what.startswith(f"{file} cannot be imported: {said}")
    assert "\n" not in failed.value.what
    assert "SEGKEY_PLUGINS" in failed.value.hint


@pytest.mark.parametrize("name", ["json.py", "segkey.py", "sys.py"])
def test_the_name_of_another_module_is_refused_and_never_half_used(tmp_path, name):
    file = plugin(tmp_path, name, "raise RuntimeError('run')\n")
    with pytest.raises(SegkeyError, match="has the name of another module") as refused:
        plugins.load(str(file))
    assert refused.value.hint == "give it another name"
