"""Commands ``segkey encrypt``, ``check``, ``decrypt`` and ``preview``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segkey.cli import app, console, given_inputs, options, parsing, paths
from segkey.cli.data_options import DataGiven, DataSheet, Storing
from segkey.cli.options import key_option
from segkey.system.wording import counted

if TYPE_CHECKING:
    from segkey.data.items import Source


@app.command(
    context_settings=options.renamed(split="split-ratio"),
    epilog="Example: segkey encrypt photos/ --method ffx -M 4\n\n"
    "Example: segkey encrypt VOCdevkit/VOC2012 --method ffx -M 2 --views 8\n\n"
    "Example: segkey encrypt data/ --masks labels/ --method none --out plain/",
    rich_help_panel="Data",
)
def encrypt(
    *,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="Encrypt a VOC devkit, a folder with images/ and masks/, a folder of images, an "
            "image, or a text file with one image per line and, after a tab, its mask.",
        ),
    ],
    data: DataGiven,
    method: options.Method = "np",
    block_size: options.BlockSize = 4,
    storing: Storing,
    secret: options.NewCipherGiven,
    out: Annotated[Path, options.out_option("Write shards here.")] = paths.DEFAULT_SHARDS,
    workers: options.Workers = None,
    sheet: DataSheet = None,
    strict: options.Strict = False,
    force: options.Force = False,
) -> None:
    """Encrypt images and their masks into HDF5 shards.

    Masks, names, sizes and classes are stored unencrypted.

    The default, NP with M = 4, is the fastest method. Its key can be computed from the weights of a
    trained model and a few photographs, and so can that of FFX. Seal a model that others may get
    hold of: segkey seal.
    """
    from segkey import reports
    from segkey.crypto import ciphers
    from segkey.shards import encryption

    parsing.parse_size(storing.size)  # before a passphrase is asked for
    loaded = None if method == "none" else given_inputs.load_key(secret)
    password = given_inputs.encode(secret.ffx_password)
    cipher = ciphers.from_key(method, loaded, block_size, storing.channels, password=password)
    taken = _take_in(images, data, workers)
    taken.require()
    source = taken.source
    plans = storing.plan(source, out, cipher)
    console.note(reports.describe_plan(source, plans, cipher, encryption.bytes_needed(plans)))
    if sheet:
        _draw_data(source, sheet, force)
    result = encryption.encrypt(plans, cipher, workers, strict, force, console.TerminalProgress())
    problems = source.problems + result.problems
    console.left_out(problems)
    for finding in result.findings(source):
        console.finding(finding)
    if result.labels:
        console.note_table(reports.class_table(result.class_table(source)))
    console.show(reports.describe_encryption(result, problems, out, cipher))


@app.command(
    context_settings=options.renamed(split="split-ratio"),
    epilog="Example: segkey check data/\n\n"
    "Example: segkey check export/ --colors labelmap.txt --sheet sheet.png",
    rich_help_panel="Data",
)
def check(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Look at this folder, devkit, image or list, as 'encrypt' takes it.",
        ),
    ],
    data: DataGiven,
    sheet: DataSheet = None,
    workers: options.Workers = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Look at images and masks as 'encrypt' would take them in; writes nothing but --sheet.

    Every mask is read. The table shows what share of the labelled pixels each class has. The exit
    status is 1 if 'encrypt' would refuse the data.
    """
    from segkey import reports
    from segkey.data.class_table import class_table

    taken = _take_in(images, data, workers, every=True)
    source, table = taken.source, class_table(taken.source, taken.survey)
    console.left_out(source.problems)
    if as_json:
        console.show_json(taken.document(table))
    else:
        if table.pixels:
            console.show(reports.class_table(table))
        console.show(reports.describe_source(source))
    if sheet:
        _draw_data(source, sheet, force)
    taken.require()


def _take_in(images: Path, given: DataGiven, workers: int | None, every: bool = False):
    """Look at data (`segkey.data.intake.take_in`), and show what is to be said about it."""
    from segkey.data import intake
    from segkey.data.items import Severity
    from segkey.data.user_choices import parse_choices

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


def _draw_data(source: "Source", sheet: Path, force: bool) -> None:
    """The sheet of images under their masks of ``--sheet``."""
    from segkey.reports.contact_sheets import data_sheet
    from segkey.system.files import written_whole

    picture = data_sheet(source)
    with written_whole(sheet, replace=force) as file:
        picture.save(file, "PNG")
    console.note(f"{sheet}: images under their masks")


@app.command(
    epilog="Example: segkey decrypt shards/ --out restored/\n\nExample: segkey decrypt "
    "shards/test.h5 --out test/",
    rich_help_panel="Data",
)
def decrypt(
    *,
    shards: Annotated[
        list[Path],
        typer.Argument(metavar="SHARDS", help="Decrypt these shards, or folders of shards."),
    ],
    out: Annotated[Path, options.out_option("Write images here.")] = Path("decrypted"),
    secret: options.CipherGiven,
    workers: options.Workers = None,
    force: options.Force = False,
) -> None:
    """Decrypt shards to PNG images with exactly the pixels that were encrypted."""
    from segkey.shards import decryption, open_splits

    splits = open_splits(shards)
    header = next(iter(splits.values())).header
    cipher = given_inputs.load_cipher(header, secret, shards[0])
    count = decryption.decrypt(splits, cipher, out, force, workers, console.TerminalProgress())
    console.show(f"{counted(count, 'image')} written to {out}")


@dataclass(frozen=True)
class _DrawingKey(options.NewCipherGiven):
    """The key that a sheet is drawn with."""

    key: Annotated[
        Path | None,
        key_option(
            "Draw with this key instead of a public throw-away key, for your eyes only: the sheet "
            "reveals the key."
        ),
    ] = None


@app.command(
    epilog="Example: segkey preview photo.jpg\n\nExample: segkey preview photo.jpg --methods "
    "shf,np -M 2,4,8 --size 512",
    rich_help_panel="Data",
)
def preview(
    *,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Draw this image file.")],
    methods: options.Methods = None,
    block_sizes: options.BlockSizes = None,
    size: options.Size = "256",
    secret: _DrawingKey,
    out: Annotated[Path, options.out_option("Write the PNG sheet here.", "FILE")] = Path(
        "preview.png"
    ),
    force: options.Force = False,
) -> None:
    """Draw one image under each method and block size, like the paper's Figure 4."""
    from segkey.crypto import PROTECTED, ciphers
    from segkey.data import augment, decode
    from segkey.paper import figures
    from segkey.reports import preview
    from segkey.system.files import written_whole

    height, width = parsing.parse_size(size)
    chosen = parsing.parse_block_sizes(block_sizes) or preview.default_block_sizes(height, width)
    loaded = preview.throwaway_key() if secret.key is None else given_inputs.load_key(secret)
    plain = augment.as_array(decode.load_image(image), (height, width))
    encrypted = preview.encrypted_pictures(
        plain,
        loaded,
        parsing.parse_methods(methods) or PROTECTED,
        chosen,
        given_inputs.encode(secret.ffx_password),
    )
    shows = {
        "the key": secret.key is not None and any(method != "none" for method in encrypted),
        "the FFX password": secret.ffx_password is not None
        and any(map(ciphers.has_password, encrypted)),
    }
    told = " and ".join(what for what, shown in shows.items() if shown)
    with written_whole(out, permissions=0o600 if told else 0o666, replace=force) as file:
        figures.sheet(plain, encrypted, chosen).save(file, "PNG")
    console.show(f"{out}: {image}, {', '.join(encrypted)}, M = {', '.join(map(str, chosen))}")
    if told:
        console.warn(
            f"keep {out} to yourself: an image beside its encrypted twins gives {told} away; "
            "draw a sheet to publish without --key and --ffx-password"
        )
    else:
        console.note("Drawn with a public throw-away key: the sheet reveals no key.")
