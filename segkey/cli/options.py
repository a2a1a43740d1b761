"""Options that several commands share, and how they are read."""

import contextlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segkey.cli import console
from segkey.crypto import METHODS
from segkey.errors import SegkeyError
from segkey.system.files import is_there, read_given_text
from segkey.system.words import visible

if TYPE_CHECKING:  # these import NumPy and h5py, and --help must answer at once
    from segkey.crypto.ciphers import Cipher
    from segkey.crypto.keys import Key
    from segkey.model.runs import Run
    from segkey.shards import Header

DEFAULT_KEY = Path("keys/segkey.key")
DEFAULT_SHARDS = Path("shards")
DEFAULT_RUNS = Path("runs")
LATEST = DEFAULT_RUNS / "latest"
KNOWN_METHODS = (*METHODS, "none")


def _beginning(incomplete: str, known: list[str]) -> list[str]:
    """Shell completions: known names with this prefix; if there are none, files and folders."""
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
    """Built-in methods: plug-ins are loaded only when a command runs."""
    return [name for name in KNOWN_METHODS if name.startswith(incomplete)]


def complete_networks(incomplete: str) -> list[str]:
    """Built-in networks; those of smp and timm once their prefix is typed."""
    from segkey.model.network_registry import BUILT_IN

    names = [*BUILT_IN, "smp:", "timm:"]
    if incomplete.startswith(("smp:", "timm:")):
        from segkey.model import networks

        with contextlib.suppress(ImportError):
            names = networks.names_of_family(incomplete.partition(":")[0])
    return [name for name in names if name.startswith(incomplete)]


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
    return option("--key", "-k", help=help, panel=KEY, metavar="FILE", autocompletion=complete_keys)


def parse_seed(text: str | int) -> int:
    """A seed that a shard can hold: a whole number of 64 bits."""
    try:
        seed = int(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a whole number") from None
    if not -(2**63) <= seed < 2**63:
        raise typer.BadParameter(f"{seed} does not fit into 64 bits; give a smaller number")
    return seed


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
    str,
    option(
        "--method",
        "-m",
        help="Encrypt with shf, np, ffx or shf+np; none makes plain shards.",
        metavar="NAME",
        autocompletion=complete_methods,
    ),
]
BlockSize = Annotated[
    int,
    option(
        "--block-size",
        "-M",
        min=1,
        max=4096,
        metavar="M",
        help="Encrypt blocks of M x M pixels.",
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
        autocompletion=complete_networks,
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
    int,
    option("--seed", help="Seed all random choices.", parser=parse_seed, metavar="N"),
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
    bool,
    flag("--quiet", "-q", help="Print only results, warnings and errors.", panel=OUTPUT),
]
RunFolder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Use the run in this folder.", autocompletion=complete_runs),
]
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


_MASKS = "Masks"
Masks = Annotated[
    Path | None,
    option(
        "--masks",
        metavar="FOLDER",
        help="Read masks from this folder instead of those beside or among IMAGES; none takes all "
        "files as images.",
        panel=_MASKS,
    ),
]
MaskSuffix = Annotated[
    str | None,
    option(
        "--mask-suffix",
        metavar="TEXT",
        help="Pair a.jpg with aTEXT.png, such as _mask, or with a.png if TEXT is .png.",
        panel=_MASKS,
    ),
]
Classes = Annotated[
    Path | None,
    option(
        "--classes",
        metavar="FILE",
        help="Read class names from this file: one per line, or as labelme, CVAT, Roboflow and "
        "ADE20K write them.",
        panel=_MASKS,
    ),
]
Colours = Annotated[
    Path | None,
    option(
        "--colors",
        metavar="FILE",
        help="Read the colour of each class in masks from this file: 'name red green blue' per "
        "line, CVAT's labelmap.txt, or a CSV.",
        panel=_MASKS,
    ),
]
Map = Annotated[
    list[str] | None,
    option(
        "--map",
        metavar="MAP",
        help="Read values of masks as classes: 255=1, 0-127=0, 26=car, 7=void, a CSV with the "
        "columns from and to, cityscapes, or numbers if they are class numbers as they stand.",
        panel=_MASKS,
    ),
]
IgnoreIndex = Annotated[
    str | None,
    option(
        "--ignore-index",
        metavar="N",
        help="Treat this value of masks as void instead of 255; several as 0,255, or none.",
        panel=_MASKS,
    ),
]
PixelRange = Annotated[
    str,
    option(
        "--range",
        metavar="RANGE",
        help="Take 16-bit images as 8, 10, 12 or 16 bits, or LO:HI; auto looks at their values.",
    ),
]
SplitRatio = Annotated[
    str | None,
    option(
        "--split-ratio",
        metavar="RATIO",
        help="Split images by a hash of their names into TRAIN/VAL/TEST per cent, or 'all'; by "
        "default 80/10/10 if images have masks and no split folders.",
    ),
]
DataSheet = Annotated[
    Path | None,
    option(
        "--sheet",
        metavar="FILE",
        help="Draw some images under the classes of their masks, as PNG.",
        panel=OUTPUT,
    ),
]


@dataclass(frozen=True)
class DataGiven:
    """How data is to be taken in."""

    split: SplitRatio = None
    pixel_range: PixelRange = "auto"
    masks: Masks = None
    mask_suffix: MaskSuffix = None
    classes: Classes = None
    colours: Colours = None
    mapping: Map = None
    ignore_index: IgnoreIndex = None


@dataclass(frozen=True)
class KeyGiven:
    """A key and what opens it."""

    key: KeyFile = None
    passphrase_file: PassphraseFile = None
    ffx_password: KnownFFXPassword = None
    identity: IdentityFile = None


@dataclass(frozen=True)
class Machine:
    """Where and how a network computes."""

    batch_size: BatchSize = None
    device: Device = "auto"
    precise: Precise = False


def groups(function: Callable[..., None]) -> dict[str, type]:
    """Parameters of a command that stand for several options: dataclasses, by parameter."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.annotation for each in parameters if is_dataclass(each.annotation)}


def flattened(function: Callable[..., None]) -> list[inspect.Parameter]:
    """The parameters of a command, with one for each field of a group."""
    found = []
    for each in inspect.signature(function).parameters.values():
        if is_dataclass(each.annotation):
            shown = [(field.name, field.default, field.type) for field in fields(each.annotation)]
        else:
            shown = [(each.name, each.default, each.annotation)]
        found += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for name, default, annotation in shown
        ]
    return found


def gathered(groups: dict[str, type], given: dict) -> dict:
    """Values of options by name, with those of a group as one object."""
    found = dict(given)
    for name, kind in groups.items():
        found[name] = kind(**{field.name: found.pop(field.name) for field in fields(kind)})
    return found


def parse_size(text: str, of: str = "--size") -> tuple[int, int]:
    """``256`` or ``240x320`` (height first) as (H, W), from the option that is named."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(
        side.isascii() and side.isdigit() and 0 < int(side) < 65536 for side in sides
    ):
        raise typer.BadParameter(
            f"'{text}' is not a size; give 256, or HEIGHTxWIDTH such as 240x320",
            param_hint=of,
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


def take_in(images: Path, given: DataGiven, workers: int | None, every: bool = False):
    """Look at data (`segkey.data.intake.take_in`), and show what is to be said about it."""
    from segkey.data import intake
    from segkey.data.choices import parse_choices
    from segkey.data.items import Severity

    choices = parse_choices(
        given.classes, given.colours, given.mapping, given.ignore_index, given.pixel_range
    )
    progress = console.TerminalProgress()
    taken = intake.take_in(
        images, given.masks, choices, given.split, given.mask_suffix, None, every, workers, progress
    )
    refused = [each for each in taken.findings if each.severity is Severity.REFUSE]
    for finding in taken.findings:
        later = finding.named_later and not every and finding not in refused
        if (
            finding not in refused[:1] and not later
        ):  # which is the error that the command ends with
            console.finding(finding)
    return taken


def open_run(path: Path) -> "Run":
    """Open a run with weights; warn if its training has not ended, or it is not quite sealed."""
    from segkey.model import sealed
    from segkey.model.runs import Run

    run = Run.open(path)
    if run.is_sealed and (left := sealed.left_plain(run)):
        console.warn(sealed.warning_of(left))
    run.require_weights()
    if run.epochs_missing:
        alive, done = run.is_worked_on, run.configuration.epochs_done
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
    """Prompt for a passphrase without echo."""
    try:
        return typer.prompt(visible(prompt), hide_input=True, confirmation_prompt=twice, err=True)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        raise SegkeyError(
            f"{prompt}: nobody is there to ask", "give it with --passphrase-file FILE"
        ) from None


def load_key(file: Path | None, passphrase_file: Path | None = None) -> "Key":
    """Read a key file, asking for the passphrase if it is sealed.

    Args:
        file: the file; ``keys/segkey.key`` if None.
        passphrase_file: its first line is the passphrase.

    Raises:
        SegkeyError: there is no such file, it is no key, or the passphrase is wrong.
    """
    from segkey.crypto.keys import Key

    file = key_file(file)
    return Key.load(file, passphrase_of(file, passphrase_file))


def passphrase_of(file: Path, passphrase_file: Path | None) -> Callable[[], str]:
    """Asks for the passphrase of a key, or reads it, when it is needed."""
    if passphrase_file:
        return lambda: read_passphrase(passphrase_file)
    return lambda: ask_passphrase(f"Passphrase of {file}")


def load_key_for(
    header: "Header", file: Path | None, passphrase_file: Path | None = None
) -> "Key | None":
    """Read the key for what ``header`` describes; None if that is plain. Does not compare ids.

    Raises:
        SegkeyError: no such file: a new key, which is the advice otherwise, would not help here.
    """
    if header.method == "none":
        return None
    if not key_file(file).exists():
        raise SegkeyError(
            f"there is no key at {key_file(file)}; key {header.key_id} is needed",
            "give its file with --key",
        )
    return load_key(file, passphrase_file)


def key_file(given: Path | None) -> Path:
    """The key file that was given, or ``keys/segkey.key``, which may be no link."""
    if given is None:
        is_there(DEFAULT_KEY)  # a link that came with the folder could name any key
    return given or DEFAULT_KEY


def load_cipher(
    header: "Header",
    key: Path | None,
    passphrase_file: Path | None,
    ffx_password: str | None,
    path: Path,
    loaded: "Key | None" = None,
) -> "Cipher":
    """The cipher that made what ``header`` describes, from the options of a command.

    A key that was ``loaded`` already is not read again.

    Raises:
        KeyMismatchError: the key or the password is another one; ``path`` is named.
    """
    from segkey.shards.unlock import cipher_for

    loaded = loaded or load_key_for(header, key, passphrase_file)
    return cipher_for(header, loaded, encode(ffx_password), path)


def encode(password: str | None) -> bytes | None:
    """A password as the bytes that were typed, also if they are no UTF-8."""
    return None if password is None else password.encode("utf-8", "surrogateescape")
