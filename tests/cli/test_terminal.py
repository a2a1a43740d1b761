"""The terminal: quiet, narrow or none at all; help, completion, typos; a shard as a picture."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from segkey.cli import app, console, options
from segkey.crypto.ciphers import METHODS
from segkey.data import palette, scenes
from segkey.shards import Shard

COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def complete(line: str, cwd) -> list[str]:
    """What the shell is offered for a line, the cursor at its end."""
    words = line.split()
    environment = os.environ | {
        "_SEGKEY_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) if line.endswith(" ") else len(words) - 1),
    }
    code = (
        "import sys; sys.argv[0] = 'segkey'\nfrom segkey.cli import main\ntry: main()\n"
        "finally: print(*[m for m in ('torch', 'h5py') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.stderr.strip() == ""  # completion waits for neither
    return done.stdout.split()


# ------------------------------------------------------------------ help


def test_help_has_panels_in_the_order_of_the_work():
    shown = run("--help").stdout
    panels = ["Keys", "Data", "Model", "Security", "Reports"]
    places = [shown.index(f" {panel} ─") for panel in panels]
    assert places == sorted(places)
    assert all(re.search(rf"│ {command} ", shown) for command in COMMANDS)


@pytest.mark.parametrize(
    ("typo", "meant"), [("encrpt", "encrypt"), ("evalute", "evaluate"), ("reprot", "report")]
)
def test_a_typo_in_a_command_suggests_the_right_one(typo, meant):
    result = run(typo)
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_narrow_terminal(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, run(command, "--help").stdout.splitlines())) <= 40


# ------------------------------------------------------------------ completion


def test_the_shell_completes_runs_keys_and_methods(tmp_path):
    for name in ("np-m4", "ffx-m2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").touch()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/segkey.key").touch()
    (tmp_path / "elsewhere").mkdir()
    assert set(complete("segkey evaluate ", tmp_path)) == {
        "runs/np-m4",
        "runs/ffx-m2",
        "runs/latest",
    }
    assert complete("segkey predict runs/n", tmp_path) == ["runs/np-m4"]
    assert complete("segkey attack else", tmp_path) == ["elsewhere/"]
    assert complete("segkey evaluate --key ", tmp_path) == ["keys/segkey.key"]
    assert complete("segkey encrypt photos --method ", tmp_path) == ["shf", "np", "ffx", "none"]
    assert complete("segkey pred", tmp_path) == ["predict"]


def test_completion_knows_every_method():
    assert set(options.KNOWN_METHODS) == {
        name for name, cipher in METHODS.items() if "segkey.ciphers" in cipher.__module__
    }


# ------------------------------------------------------------------ quiet, plain, narrow


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet(command):
    assert re.search(r"--quiet +-q", run(command, "--help").stdout)


def test_quiet_says_results_warnings_and_errors_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loud, quiet = run("keygen", "a"), run("keygen", "b", "--quiet")
    assert "Keep a copy" in loud.stderr
    assert quiet.stderr == ""
    assert "written to keys/b.key" in quiet.stdout
    refused = run("keygen", "b", "--quiet")
    assert (refused.exit_code, refused.stderr.count("segkey: ")) == (1, 2)
    assert "Keep a copy" in run("keygen", "c").stderr  # one quiet command does not hush the next


def test_progress_is_quiet_or_plain_lines_where_there_is_no_terminal(monkeypatch, capsys):
    now = iter(range(0, 1000, 6))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=False, width=40))
    for quiet in (False, True):
        console.be_quiet(quiet)
        with console.TerminalProgress().task("encrypt", 100) as advance:
            for _ in range(4):
                advance(10)
        said = capsys.readouterr().err
        console.be_quiet(False)
        if quiet:
            assert said == ""
        else:
            assert said.splitlines()[0] == "encrypt: 20/100 images, 1.7/s, 48 s left"
            assert "\x1b" not in said


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_bar_fits_the_terminal_and_has_no_colour_where_none_is_wanted(width, monkeypatch, capsys):
    monkeypatch.setattr(
        console, "err", Console(stderr=True, force_terminal=True, width=width, no_color=True)
    )
    with console.TerminalProgress().task("test images", 1000) as advance:
        advance(1)
    console.warn("a sentence that is too long for a terminal of only forty columns of text")
    said = re.sub(r"\x1b\[(2K|1A|\?25[lh]|[0-2]?m)", "", capsys.readouterr().err)
    assert "\x1b" not in said
    lines = re.split(r"[\r\n]+", said)
    assert max(map(len, lines)) <= width
    assert any("1/1000" in line for line in lines)
    assert ("images/s" in said) == (width > 40)
    assert " too long " in " ".join(lines).replace("  ", " ")  # broken between words


# ------------------------------------------------------------------ inspect --sheet


def test_a_shard_is_shown_as_stored_decrypted_and_with_masks(
    shards_folder, key, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    key.save(tmp_path / "k.key")
    command = ("inspect", shards_folder / "test.h5", "--sheet", "sheet.png")
    result = run(*command, "--key", "k.key")
    assert result.exit_code == 0
    assert "gives the key away" in result.stderr
    sheet = np.asarray(Image.open("sheet.png"))
    with Shard(shards_folder / "test.h5") as shard:
        stored, mask = shard.read("images", 0), shard.read("masks", 0)

    def holds(picture: np.ndarray) -> bool:
        """Whether the sheet has a picture in its first row, six times as large."""
        large = picture.repeat(6, 0).repeat(6, 1)
        return any(np.array_equal(sheet[52 : 52 + 192, x : x + 192], large) for x in (8, 208, 408))

    assert holds(stored.transpose(1, 2, 0))
    assert holds((stored ^ (255 * _flips(key)).astype(np.uint8)).transpose(1, 2, 0))
    assert holds(palette.palette_of(scenes.CLASSES)[mask])
    assert run(*command).exit_code == 1  # it is there already
    assert run(*command, "--force").exit_code == 0
    assert run("inspect", "k.key", "--sheet", "other.png").exit_code == 1
    assert run("inspect", shards_folder, "--key", "k.key").exit_code == 2


def _flips(key) -> np.ndarray:
    """Where NP with M = 4 turns values over, (3, 32, 32), from the definition."""
    chosen = np.zeros(48, bool)
    chosen[key.permutation("np", 4, 3)[:24]] = True
    return np.tile(chosen.reshape(3, 4, 4), (1, 8, 8))
