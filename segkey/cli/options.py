"""Options that several commands share: their names, help texts and groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import completion
from segkey.cli.parsing import parse_seed

# Panels of --help, after that of the options which only one command has.
TEST_DATA = "Test data"
KEY = "Key"
MACHINE = "Machine"
OUTPUT = "Output"


def option(names: str, metavar: str, help: str, panel: str | None = None, **settings):
    """``typer.Option``.

    Args:
        names: such as ``--out -o``.
        metavar: its value in the help; empty for a flag.
        help: a sentence in the imperative.
        panel: of the help; that of options which only one command has, if not given.
        settings: other arguments of ``typer.Option``.
    """
    return typer.Option(
        *names.split(), metavar=metavar, help=help, rich_help_panel=panel, **settings
    )


def flag(names: str, help: str, panel: str | None = None, **settings):
    """An option without a value."""
    return option(names, "", help, panel, **settings)


def key_option(help: str):
    """``--key``, for a command that means another key by it than `KeyFile`."""
    return option("--key -k", "FILE", help, KEY, autocompletion=completion.complete_keys)


def method_option(help: str, panel: str | None = None):
    """``--method``."""
    return option("--method -m", "NAME", help, panel, autocompletion=completion.complete_methods)


def block_size_option(help: str, panel: str | None = None):
    """``--block-size``."""
    return option("--block-size -M", "M", help, panel, min=1, max=4096)


def out_option(help: str, metavar: str = "FOLDER"):
    """``--out``."""
    return option("--out -o", metavar, help, OUTPUT)


def name_option(help: str):
    """``--name`` of a run that is made."""
    return option("--name", "NAME", help)


def run_argument(help: str, metavar: str = "RUN"):
    """A run's folder, with those of ``runs/`` offered by the shell."""
    return typer.Argument(metavar=metavar, help=help, autocompletion=completion.complete_runs)


def renamed(**names: str) -> dict:
    """Context settings under which old names of options still work, without being shown.

    Args:
        names: the new name by the old one, both without dashes in front.
    """
    return {"token_normalize_func": lambda name: names.get(name, name)}


KeyFile = Annotated[
    Path | None, key_option("Read the key from this file instead of keys/segkey.key.")
]
PassphraseFile = Annotated[
    Path | None,
    option(
        "--passphrase-file",
        "FILE",
        "Read the key's passphrase from the first line of this file instead of asking.",
        KEY,
    ),
]
IdentityFile = Annotated[
    Path | None,
    option(
        "--identity",
        "FILE",
        "Open a sealed run with this key, or file of age-keygen, if that is not --key.",
        KEY,
    ),
]
Method = Annotated[
    str, method_option("Encrypt with shf, np, ffx or shf+np; none makes plain shards.")
]
BlockSize = Annotated[int, block_size_option("Encrypt blocks of M x M pixels.")]
Seal = Annotated[
    list[str] | None,
    option(
        "--seal",
        "RECIPIENT",
        "Write weights sealed for this key file or public age1… text, never unencrypted; may "
        "be given several times.",
        KEY,
    ),
]
Network = Annotated[
    str | None,
    option(
        "--network --backbone",
        "NAME",
        "Use this network instead of fcn_resnet50: resnet14 for laptops, smp:Unet/resnet34, "
        "timm:NAME or one of your own; 'segkey networks' lists them.",
        autocompletion=completion.complete_networks,
    ),
]
Methods = Annotated[
    list[str] | None,
    option("--methods -m", "NAME,NAME", "Use these methods instead of shf, np, ffx."),
]
BlockSizes = Annotated[
    list[str] | None,
    option(
        "--block-sizes -M", "M,M", "Use these block sizes instead of those of the paper that fit."
    ),
]
FFXPassword = Annotated[
    str | None,
    option(
        "--ffx-password",
        "TEXT",
        "Fix FFX's password, as the paper does, instead of deriving it from the key, which "
        "is stronger: shards and runs hold a hash with a constant salt, so a password that can be "
        "guessed is found offline.",
        KEY,
    ),
]
KnownFFXPassword = Annotated[
    str | None,
    option(
        "--ffx-password",
        "TEXT",
        "Give the FFX password again if a fixed one was given to 'encrypt' or 'train'.",
        KEY,
    ),
]
Size = Annotated[str, option("--size", "SIZE", "Resize images to N x N or HEIGHTxWIDTH.")]
Workers = Annotated[
    int | None,
    option(
        "--workers",
        "N",
        "Use N worker processes instead of one per core.",
        MACHINE,
        min=1,
        max=1024,
    ),
]
Seed = Annotated[int, option("--seed", "N", "Seed all random choices.", parser=parse_seed)]
SeedIfGiven = Annotated[
    int | None,
    option("--seed", "N", "Seed all random choices with N instead of 0.", parser=parse_seed),
]
Device = Annotated[
    str,
    option("--device", "NAME", "Compute on auto, cuda, cuda:1, mps or cpu.", MACHINE),
]
BatchSize = Annotated[
    int | None,
    option("--batch-size", "N", "Use N images per batch.", MACHINE, min=1),
]
Precise = Annotated[
    bool,
    flag("--precise", "Compute in float32, also on devices that default to bfloat16.", MACHINE),
]
Strict = Annotated[bool, flag("--strict", "Stop at the first image that cannot be used.")]
Force = Annotated[bool, flag("--force -f", "Replace existing files.", OUTPUT)]
AsJson = Annotated[bool, flag("--json", "Print one JSON document.", OUTPUT)]
Quiet = Annotated[bool, flag("--quiet -q", "Print only results, warnings and errors.", OUTPUT)]
RunFolder = Annotated[Path, run_argument("Use the run in this folder.")]
RunsFolder = Annotated[Path, option("--runs", "FOLDER", "Keep runs in this folder.")]
TestShards = Annotated[
    list[Path] | None,
    option(
        "--shards",
        "PATH",
        "Test on these shards instead of those that the run was trained on.",
        TEST_DATA,
    ),
]
TestImages = Annotated[
    Path | None,
    option("--images", "FOLDER", "Test on the images in this folder.", TEST_DATA),
]
TestMasks = Annotated[
    Path | None,
    option("--masks", "FOLDER", "Read the masks of --images from here.", TEST_DATA),
]
TestSplit = Annotated[str, option("--split", "NAME", "Test on this split.", TEST_DATA)]
Limit = Annotated[
    int | None,
    option("--limit", "N", "Use only the first N images.", TEST_DATA, min=1),
]


@dataclass(frozen=True)
class TestData:
    """What a run is tested on."""

    shards: TestShards = None
    images: TestImages = None
    masks: TestMasks = None
    split: TestSplit = "test"
    limit: Limit = None


@dataclass(frozen=True)
class KeyGiven:
    """A key file, and what opens it."""

    key: KeyFile = None
    passphrase_file: PassphraseFile = None


@dataclass(frozen=True)
class NewCipherGiven(KeyGiven):
    """A key to encrypt with."""

    ffx_password: FFXPassword = None


@dataclass(frozen=True)
class CipherGiven(KeyGiven):
    """The key that something was encrypted with."""

    ffx_password: KnownFFXPassword = None


@dataclass(frozen=True)
class OpenerGiven(KeyGiven):
    """What opens a sealed run."""

    identity: IdentityFile = None


@dataclass(frozen=True)
class RunKeyGiven(CipherGiven):
    """What opens a sealed run, and the key of its images."""

    identity: IdentityFile = None


@dataclass(frozen=True)
class Machine:
    """Where and how a network computes."""

    batch_size: BatchSize = None
    device: Device = "auto"
    precise: Precise = False
