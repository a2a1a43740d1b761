"""Options that several commands share, and how they are read."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import console
from segkey.crypto import PROTECTED
from segkey.errors import SegkeyError
from segkey.system.files import is_there, read_given_text
from segkey.system.words import visible

DEFAULT_KEY = Path("keys/segkey.key")
DEFAULT_SHARDS = Path("shards")
DEFAULT_RUNS = Path("runs")
LATEST = DEFAULT_RUNS / "latest"
KNOWN_METHODS = (*PROTECTED, "none")


def _beginning(incomplete: str, known: list[str]) -> list[str]:
    """For the shell's completion: what is known and begins so; failing that, files and folders."""
    found = [name for name in known if name.startswith(incomplete)]
    head, tail = os.path.split(incomplete)
    return found or sorted(
        str(path) + ("/" if path.is_dir() else "")
        for path in Path(head).glob("*")
        if path.name.startswith(tail) and not path.name.startswith(".")
    )


def complete_runs(incomplete: str) -> list[str]:
    """Runs in ``runs/``, newest last, and ``runs/latest``."""

    def changed(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:  # a dangling link, or a folder that may not be read
            return 0.0

    found = sorted(DEFAULT_RUNS.glob("*/run.json"), key=changed)
    names = dict.fromkeys(
        [*(str(path.parent) for path in found if path.parent != LATEST), str(LATEST)]
    )
    return _beginning(incomplete, list(names) if found else [])


def complete_keys(incomplete: str) -> list[str]:
    """Keys in ``keys/``."""
    return _beginning(incomplete, sorted(map(str, DEFAULT_KEY.parent.glob("*.key"))))


def complete_methods(incomplete: str) -> list[str]:
    """Methods; those of the user's own are known only to a command that runs."""
    return [name for name in KNOWN_METHODS if name.startswith(incomplete)]


KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        "-k",
        help="The key file; keys/segkey.key, if not given.",
        autocompletion=complete_keys,
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help="A file whose first line is the passphrase of the key; asked for, if not given."
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        "-m",
        help="shf, np, ffx, or none for plain shards.",
        autocompletion=complete_methods,
    ),
]
BlockSize = Annotated[
    int, typer.Option("--block-size", "-M", min=1, max=4096, help="Side of a block in pixels.")
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--methods", "-m", metavar="NAME,NAME", help="Methods; shf, np and ffx, if not given."
    ),
]
BlockSizes = Annotated[
    list[str] | None,
    typer.Option(
        "--block-sizes",
        "-M",
        metavar="M,M",
        help="Block sizes; those of the paper that fit, if not given.",
    ),
]
FFXPassword = Annotated[
    str | None,
    typer.Option(
        help="Fix FFX's password, as the paper does; derived from the key (stronger) if not given. "
        "Shards and runs hold a hash of it without a random salt: whoever has them finds a "
        "password "
        "that can be guessed."
    ),
]
KnownFFXPassword = Annotated[
    str | None,
    typer.Option(
        "--ffx-password", help="The FFX password, where a fixed one was given to 'segkey encrypt'."
    ),
]
Size = Annotated[str, typer.Option(help="Size images are resized to: 256, or HEIGHTxWIDTH.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, help="Worker processes; as many as there are cores, if not given."
    ),
]
_SEEDS = {"min": -(2**63), "max": 2**63 - 1}  # what a shard can hold
Seed = Annotated[int, typer.Option(help="Decides everything that is random.", **_SEEDS)]
SeedIfGiven = Annotated[
    int | None,
    typer.Option("--seed", help="Decides everything that is random; 0 if not given.", **_SEEDS),
]
Device = Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a batch.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only the first so many images.")]
Precise = Annotated[
    bool, typer.Option("--precise", help="float32 even where the device computes in bfloat16.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at the first image that cannot be used.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder.", autocompletion=complete_runs)
]
TestShards = Annotated[
    list[Path] | None,
    typer.Option("--shards", help="Shards to test on; those the run was trained on, if not given."),
]
TestImages = Annotated[
    Path | None, typer.Option("--images", help="Test on the images in this folder instead.")
]
TestMasks = Annotated[Path | None, typer.Option("--masks", help="The folder of their masks.")]
TestSplit = Annotated[str, typer.Option("--split", help="Which split to test on.")]


def parse_size(text: str) -> tuple[int, int]:
    """``256`` or ``240x320`` (height first) as (H, W)."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(
        side.isascii() and side.isdigit() and 0 < int(side) < 65536 for side in sides
    ):
        raise typer.BadParameter(
            f"'{text}' is not a size; give 256, or HEIGHTxWIDTH such as 240x320",
            param_hint="--size",
        )
    return (int(sides[0]), int(sides[-1]))


def parse_methods(texts: list[str] | None) -> list[str]:
    """``shf,np``, or the option given twice, as names in that order, each once."""
    return list(
        dict.fromkeys(name.strip().lower() for text in texts or () for name in text.split(","))
    )


def parse_block_sizes(texts: list[str] | None) -> list[int]:
    """``2,4,8``, or the option given several times, in ascending order, each once."""
    try:
        numbers = sorted({int(number) for text in texts or () for number in text.split(",")})
        if numbers and numbers[0] < 1:
            raise ValueError
        return numbers
    except ValueError:
        raise typer.BadParameter(
            f"'{','.join(texts)}' are not block sizes; give numbers such as 2,4,8", param_hint="-M"
        ) from None


def open_run(path: Path):
    """A `segkey.model.runs.Run` to be used; where its training has not ended, that is said."""
    from segkey.model.runs import Run

    run = Run.open(path)
    run.require_weights()
    if run.epochs_missing:
        alive, done = run.is_worked_on, run.config["epochs_done"]
        console.warn(
            f"the training of {run.name} {'is under way' if alive else 'was cut off'}: these are "
            f"its best weights after "
            f"{done} of {done + run.epochs_missing} epochs"
            + ("" if alive else f"; go on with: {run.how_to_go_on}")
        )
    return run


def read_passphrase(file: Path) -> str:
    """The first line of a file."""
    if not file.exists():
        raise SegkeyError(
            f"there is no file {file}", "give a text file whose first line is the passphrase"
        )
    try:
        return read_given_text(file).splitlines()[0]
    except (ValueError, IndexError):
        raise SegkeyError(
            f"{file} holds no passphrase", "give a text file whose first line is the passphrase"
        ) from None


def ask_passphrase(prompt: str, twice: bool = False) -> str:
    """What somebody types without seeing it."""
    try:
        return typer.prompt(visible(prompt), hide_input=True, confirmation_prompt=twice, err=True)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        raise SegkeyError(
            f"{prompt}: nobody is there to ask", "give it with --passphrase-file FILE"
        ) from None


def load_key(file: Path | None, passphrase_file: Path | None = None, needed: str = ""):
    """A key (``keys/segkey.key``, if not given), asking for its passphrase where it is sealed.

    ``needed`` is the id of the only key that helps: a new one, which is the advice otherwise, would
    not.
    """
    from segkey.crypto.keys import Key

    if file is None:
        file = DEFAULT_KEY
        is_there(
            file
            # a link that came with the folder could name any key; one that is given is the user's
            # own
        )
    if needed and not file.exists():
        raise SegkeyError(
            f"there is no key at {file}; key {needed} is needed", "give its file with --key"
        )

    def ask() -> str:
        return (
            read_passphrase(passphrase_file)
            if passphrase_file
            else ask_passphrase(f"Passphrase of {file}")
        )

    return Key.load(file, ask)


def encode(password: str | None) -> bytes | None:
    """A password as the bytes that were typed."""
    return None if password is None else password.encode("utf-8", "surrogateescape")
