"""The terminal: quiet, narrow or none at all; help, completion, typos; a shard as a picture."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from segkey.cli import app, completion, console, main, option_groups, train
from segkey.crypto.ciphers import METHODS
from segkey.data import palette, scenes
from segkey.shards import Shard

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


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


def parameters(command: str) -> list:
    """Parameters of a command with a help text of ours."""
    found = typer.main.get_command(app).commands[command].params
    return [each for each in found if each.name != "help"]


def summaries() -> list[str]:
    """The first paragraph of every command's help, and the help of every option and argument."""
    group = typer.main.get_command(app).commands
    first = [group[command].help.split("\n\n")[0] for command in COMMANDS]
    return first + [each.help for command in COMMANDS for each in parameters(command)]


def broken_early(lines: list[str], width: int) -> list[str]:
    """Lines of a paragraph after which the next word would still have fitted."""
    pairs = zip(lines, lines[1:], strict=False)
    return [line for line, after in pairs if len(line) + 1 + len(after.split()[0]) <= width]


def cells(shown: str) -> list[tuple[list[str], int]]:
    """The texts in the last column of each panel of a help, as lines, with the column's width."""
    found = []
    for panel in re.findall(r"╭.*?╮\n(.*?)\n╰", shown, re.S):
        rows = [line[1:-1] for line in panel.splitlines()]
        starts = [re.search(r"(?:[>A-Z\]]|\w|) {2,}(?=[A-Z][a-z])", row) for row in rows]
        column = max(match.end() for match in starts if match)
        for row in rows:
            begins = row[:column].strip()
            text = row[column:].strip()
            if begins and text or not found:
                found.append(([], len(row) - column - 1))
            if text and not text.startswith(("[default", "[required")):
                found[-1][0].append(text)
    return found


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_only_the_terminal_breaks_the_lines_of_a_help(command, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = run(*filter(None, [command]), "--help").stdout
    group = typer.main.get_command(app)
    told = group.commands[command].help if command else group.help
    for paragraph in told.split("\n\n"):
        assert (
            "\n".join(f" {line}".ljust(width) for line in textwrap.wrap(paragraph, width - 2))
            in shown
        )
    for lines, column in cells(shown):
        assert broken_early(lines, column) == []


def test_a_help_is_one_sentence_in_the_imperative():
    for text in summaries():
        assert re.fullmatch(r"[A-Z][^\n]*[.]", text), text
        assert not re.search(r"[.!?] [A-Z]", text), text
        assert text.split()[0] not in ("The", "A", "An", "How", "Which", "What", "Whether"), text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_no_range_that_tells_nothing(command):
    assert "9223372036854775" not in re.sub(r"[\s│]", "", run(command, "--help").stdout)


@pytest.mark.parametrize("seed", ["one", 2**63, -(2**63) - 1])
def test_a_seed_that_no_shard_can_hold_is_a_usage_error(seed):
    result = run("encrypt", "photos", "--seed", seed)
    assert result.exit_code == 2
    assert "--seed" in result.stderr


@pytest.mark.parametrize(
    ("command", "old", "name", "value"),
    [
        ("attack", ["--few", "5"], "attacker_images", 5),
        ("attack", ["--few=5"], "attacker_images", 5),
        ("attack", ["--attacker-images", "5"], "attacker_images", 5),
        ("attack", ["--nearby"], "partial_key", True),
        ("attack", ["--partial-key"], "partial_key", True),
        ("encrypt", ["photos", "--split", "70/10/20"], "split", "70/10/20"),
        ("encrypt", ["photos", "--split-ratio=70/10/20"], "split", "70/10/20"),
    ],
)
def test_earlier_spellings_work(command, old, name, value):
    context = typer.main.get_command(app).commands[command].make_context(command, old)
    assert context.params[name] == value


@pytest.mark.parametrize(
    ("command", "old"), [("attack", "--few"), ("attack", "--nearby"), ("encrypt", "--split")]
)
def test_earlier_spellings_are_not_shown(command, old):
    assert old not in re.findall(r"--[a-z-]+", run(command, "--help").stdout)


def test_every_option_of_attack_reaches_it(monkeypatch):
    """The options of a group arrive as one object; none is lost or swapped."""
    from segkey.cli import attack as module

    context = (
        typer.main.get_command(app)
        .commands["attack"]
        .make_context(
            "attack",
            [
                "run",
                "--search",
                "--fine-tune",
                "5",
                "--queries",
                "20",
                "--split",
                "val",
                "-k",
                "a.key",
            ],
        )
    )
    groups = option_groups.groups(module.attack.__wrapped__)
    given = {name: value for name, value in context.params.items() if name != "quiet"}
    found = option_groups.gathered(groups, given)
    assert found["chosen"].names() == ["fine-tune", "search", "search-unlabelled"]
    assert found["spending"].budget(found["chosen"].fine_tune).percents == (5.0,)
    assert found["spending"].queries == 20
    assert found["data"].split == "val"
    assert str(found["secret"].key) == "a.key"
    assert set(found) == {
        "run",
        "chosen",
        "spending",
        "data",
        "secret",
        "machine",
        "seed",
        "as_json",
    }


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
    known = ["shf", "np", "ffx", "shf+np", "none"]
    assert complete("segkey encrypt photos --method ", tmp_path) == known
    assert complete("segkey pred", tmp_path) == ["predict"]


def test_the_shell_completes_networks(tmp_path):
    for command in ("train", "reproduce data", "import w.pth", "networks"):
        option = "" if command == "networks" else "--network "
        assert complete(f"segkey {command} {option}res", tmp_path) == ["resnet14"]
    assert "smp:" in complete("segkey train --backbone ", tmp_path)


def test_completion_knows_every_method():
    assert set(completion.KNOWN_METHODS) == {
        name for name, cipher in METHODS.items() if cipher.__module__.startswith("segkey.")
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


def test_after_ctrl_c_behind_the_last_epoch_nothing_is_to_be_resumed(
    tmp_path, monkeypatch, capsys, trained_run
):
    def finish(*_, **__):
        shutil.copytree(trained_run.path, "runs/mine")
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["segkey", "train", "--device", "cpu", "--name", "mine"])
    monkeypatch.setattr(console, "_interrupt_hint", console.RUN_AGAIN)
    monkeypatch.setattr(train, "_begin", finish)
    with pytest.raises(SystemExit):
        main()
    told = "segkey: stopped; all 2 epochs are saved; next: segkey evaluate runs/mine\n"
    assert capsys.readouterr().err.endswith(told)


@pytest.mark.parametrize("name", ["mine", None])
@pytest.mark.parametrize("earlier", [False, True])
def test_after_ctrl_c_only_a_run_that_was_begun_is_to_be_resumed(
    name, earlier, tmp_path, monkeypatch, capsys
):
    """Before there is a run, --resume would refuse, or go on with an earlier one of another
    training."""
    monkeypatch.chdir(tmp_path)
    if earlier:
        Path("runs/old").mkdir(parents=True)
        Path("runs/old/run.json").touch()
        Path("runs/latest").symlink_to("old")

    def begin(*_, **__):
        Path("runs/mine").mkdir(parents=True)
        Path("runs/mine/run.json").touch()
        Path("runs/latest").unlink(missing_ok=True)
        Path("runs/latest").symlink_to("mine")
        raise KeyboardInterrupt

    def stop(*_, **__):
        raise KeyboardInterrupt

    command = ["segkey", "train", "--device", "cpu", *(["--name", name] if name else [])]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(console, "_interrupt_hint", console.RUN_AGAIN)
    for work, hint in (
        (stop, console.RUN_AGAIN),
        (begin, "go on with: segkey train --resume" + (f" --name {name}" if name else "")),
    ):
        monkeypatch.setattr(train, "_begin", work)
        with pytest.raises(SystemExit):
            main()
        assert capsys.readouterr().err.endswith(f"segkey: stopped; {hint}\n")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_ctrl_c_while_modules_are_imported_is_a_line(tmp_path, handler):
    """A real process, whose Typer stands for a slow import; background jobs ignore Ctrl-C."""
    (tmp_path / "typer.py").write_text("import time\nprint(flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "segkey", "--help"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    if handler is signal.SIG_IGN:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.kill()
    _, told = process.communicate(timeout=60)
    if handler is not signal.SIG_IGN:
        assert process.returncode == 130
        assert told == "\nsegkey: stopped before anything was done\n"
