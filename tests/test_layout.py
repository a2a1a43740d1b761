"""The map in ``segkey/__init__.py`` is true: every wing imports only from those above it."""

import ast
import re
from pathlib import Path

import pytest

import segkey

ROOT = Path(segkey.__file__).parent
MAP = segkey.__doc__.partition("The map of the package.")[2]
WINGS = re.findall(r"^    (\w+) +\S", MAP, re.M)
PUBLIC_NAMES = {
    "ciphers": "crypto",
    "networks": "model",
    "transforms": "crypto",
}  # modules that only name others
FILES = sorted(ROOT.rglob("*.py"))


def wing_of(name: str) -> str:
    return PUBLIC_NAMES.get(name, name)


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """Every part of segkey that a module imports, at its top or in a function, with the line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that this test sees them"
            if node.module == "segkey":
                found += [(node.lineno, alias.name) for alias in node.names]
            elif (node.module or "").startswith("segkey."):
                found.append((node.lineno, node.module.split(".")[1]))
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found += [(node.lineno, name[1]) for name in names if name[0] == "segkey" and name[1:]]
    return found


def test_the_map_names_what_is_there():
    here = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    here -= {"__init__", "__main__", "__pycache__", *PUBLIC_NAMES}
    assert here == set(WINGS)


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_imports_come_from_wings_above(file):
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if part in ("__init__", "__main__"):  # the front doors open onto everything
        return
    for line, name in imported(ast.parse(file.read_text(encoding="utf-8"))):
        wing = wing_of(name)
        assert wing in WINGS, f"line {line}: {name} is no wing"
        assert WINGS.index(wing) <= WINGS.index(wing_of(part)), (
            f"line {line}: {part} imports {name}"
        )
