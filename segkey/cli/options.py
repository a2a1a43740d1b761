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


def option(*names: str, help: str, panel: str | None = None, **settings):
    """``typer.Option`` with its panel."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


def flag(*names: str, help: str, panel: str | None = None, **settings):
    """An option without a value."""
    return option(*names, help=help, panel=panel, metavar="", **settings)


def key_option(help: str):
    """``--key``, for a command that means another key by it than `KeyFile`."""
    return option(
        "--key", "-k", help=help, panel=KEY, metavar="FILE", autocompletion=completion.complete_keys
    )


def method_option(help: str, panel: str | None = None):
    """``--method``."""
    return option(
        "--method",
        "-m",
        help=help,
        panel=panel,
        metavar="NAME",
        autocompletion=completion.complete_methods,
    )


def block_size_option(help: str, panel: str | None = None):
    """``--block-size``."""
    return option("--block-size", "-M", min=1, max=4096, metavar="M", help=help, panel=panel)


def out_option(help: str, metavar: str = "FOLDER"):
    """``--out``."""
    return option("--out", "-o", metavar=metavar, help=help, panel=OUTPUT)


def name_option(help: str):
    """``--name`` of a run that is made."""
    return option("--name", metavar="NAME", help=help)


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
        help="Read the key's passphrase from the first line of this file instead of asking.",
        panel=KEY,
        metavar="FILE",
    ),
]
IdentityFile = Annotated[
    Path | None,
    option(
        "--identity",
        help="Open a sealed run with this key, or file of age-keygen, if that is not --key.",
        panel=KEY,
        metavar="FILE",
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
        metavar="RECIPIENT",
        help="Write weights sealed for this key file or public age1… text, never unencrypted; may "
        "be given several times.",
        panel=KEY,
    ),
]
Network = Annotated[
    str | None,
    option(
        "--network",
        "--backbone",
        metavar="NAME",
        help="Use this network instead of fcn_resnet50: resnet14 for laptops, smp:Unet/resnet34, "
        "timm:NAME or one of your own; 'segkey networks' lists them.",
        autocompletion=completion.complete_networks,
    ),
]
Methods = Annotated[
    list[str] | None,
    option(
        "--methods", "-m", metavar="NAME,NAME", help="Use these methods instead of shf, np, ffx."
    ),
]
BlockSizes = Annotated[
    list[str] | None,
    option(
        "--block-sizes",
        "-M",
        metavar="M,M",
        help="Use these block sizes instead of those of the paper that fit.",
    ),
]
FFXPassword = Annotated[
    str | None,
    option(
        "--ffx-password",
        help="Fix FFX's password, as the paper does, instead of deriving it from the key, which "
        "is stronger: shards and runs hold a hash with a constant salt, so a password that can be "
        "guessed is found offline.",
        panel=KEY,
        metavar="TEXT",
    ),
]
KnownFFXPassword = Annotated[
    str | None,
    option(
        "--ffx-password",
        help="Give the FFX password again if a fixed one was given to 'encrypt' or 'train'.",
        panel=KEY,
        metavar="TEXT",
    ),
]
Size = Annotated[
    str, option("--size", help="Resize images to N x N or HEIGHTxWIDTH.", metavar="SIZE")
]
Workers = Annotated[
    int | None,
    option(
        "--workers",
        min=1,
        max=1024,
        help="Use N worker processes instead of one per core.",
        panel=MACHINE,
        metavar="N",
    ),
]
Seed = Annotated[
    int, option("--seed", help="Seed all random choices.", parser=parse_seed, metavar="N")
]
SeedIfGiven = Annotated[
    int | None,
    option(
        "--seed",
        help="Seed all random choices with N instead of 0.",
        parser=parse_seed,
        metavar="N",
    ),
]
Device = Annotated[
    str,
    option(
        "--device",
        help="Compute on auto, cuda, cuda:1, mps or cpu.",
        panel=MACHINE,
        metavar="NAME",
    ),
]
BatchSize = Annotated[
    int | None,
    option("--batch-size", min=1, help="Use N images per batch.", panel=MACHINE, metavar="N"),
]
Precise = Annotated[
    bool,
    flag(
        "--precise",
        help="Compute in float32, also on devices that default to bfloat16.",
        panel=MACHINE,
    ),
]
Strict = Annotated[bool, flag("--strict", help="Stop at the first image that cannot be used.")]
Force = Annotated[bool, flag("--force", "-f", help="Replace existing files.", panel=OUTPUT)]
AsJson = Annotated[bool, flag("--json", help="Print one JSON document.", panel=OUTPUT)]
Quiet = Annotated[
    bool, flag("--quiet", "-q", help="Print only results, warnings and errors.", panel=OUTPUT)
]
RunFolder = Annotated[Path, run_argument("Use the run in this folder.")]
RunsFolder = Annotated[Path, option("--runs", metavar="FOLDER", help="Keep runs in this folder.")]
TestShards = Annotated[
    list[Path] | None,
    option(
        "--shards",
        help="Test on these shards instead of those that the run was trained on.",
        panel=TEST_DATA,
        metavar="PATH",
    ),
]
TestImages = Annotated[
    Path | None,
    option(
        "--images", help="Test on the images in this folder.", panel=TEST_DATA, metavar="FOLDER"
    ),
]
TestMasks = Annotated[
    Path | None,
    option(
        "--masks", help="Read the masks of --images from here.", panel=TEST_DATA, metavar="FOLDER"
    ),
]
TestSplit = Annotated[
    str, option("--split", help="Test on this split.", panel=TEST_DATA, metavar="NAME")
]
Limit = Annotated[
    int | None,
    option("--limit", min=1, help="Use only the first N images.", panel=TEST_DATA, metavar="N"),
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
