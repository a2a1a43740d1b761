"""Commands ``segkey encrypt``, ``check``, ``decrypt``, ``preview`` and ``inspect``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segkey.cli import app, console, options, recipients
from segkey.cli.options import flag, key_option, option
from segkey.errors import SegkeyError

if TYPE_CHECKING:
    from segkey.crypto.ciphers import Cipher
    from segkey.data.items import Source
    from segkey.shards import Split


@app.command(
    context_settings=options.renamed(split="split-ratio"),
    epilog="Example: segkey encrypt photos/ --method ffx -M 4\n\n"
    "Example: segkey encrypt VOCdevkit/VOC2012 --method ffx -M 2 --views 8\n\n"
    "Example: segkey encrypt data/ --masks labels/ --method none --out plain/",
    rich_help_panel="Data",
)
def encrypt(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="Encrypt a VOC devkit, a folder with images/ and masks/, a folder of images, an "
            "image, or a text file with one image per line and, after a tab, its mask.",
        ),
    ],
    data: options.DataGiven,
    method: options.Method = "np",
    block_size: options.BlockSize = 4,
    size: options.Size = "256",
    views: Annotated[
        int | None,
        option(
            "--views",
            min=1,
            metavar="N",
            help="Store N augmented copies (random crop and flip) per training image, or the image "
            "itself if N is 1; by default 4 if images are encrypted and have masks, otherwise 1.",
        ),
    ] = None,
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.FFXPassword = None,
    out: Annotated[
        Path,
        option("--out", "-o", metavar="FOLDER", help="Write shards here.", panel=options.OUTPUT),
    ] = options.DEFAULT_SHARDS,
    crop_scale: Annotated[
        float,
        option(
            "--crop-scale",
            metavar="X",
            help="Crop augmented copies to at least this fraction of the image's area.",
        ),
    ] = 0.25,
    exact_decode: Annotated[
        bool,
        flag(
            "--exact-decode",
            help="Decode every pixel of large JPEGs, which takes three times as long, instead of "
            "at least twice the wanted size.",
        ),
    ] = False,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    shard_size: Annotated[
        float,
        option("--shard-size", metavar="GB", help="Cut shards at this size.", panel=options.OUTPUT),
    ] = 1.0,
    channels: Annotated[
        int,
        option(
            "--channels",
            min=1,
            metavar="N",
            help="Read images as 3 channels (RGB), 1 (grey), or 4 (files of four bands, such as "
            "RGB and near infrared).",
        ),
    ] = 3,
    sheet: options.DataSheet = None,
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

    height_width = options.parse_size(size)
    loaded = None if method == "none" else options.load_key(key, passphrase_file)
    cipher = ciphers.from_key(
        method, loaded, block_size, channels, password=options.encode(ffx_password)
    )
    taken = options.take_in(images, data, workers)
    taken.require()
    source = taken.source
    plans = encryption.plan_shards(
        source,
        out,
        cipher,
        height_width,
        views,
        seed,
        crop_scale,
        shard_size * 10**9,
        exact_decode,
    )
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
    data: options.DataGiven,
    sheet: options.DataSheet = None,
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

    taken = options.take_in(images, data, workers, every=True)
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


def _draw_data(source: "Source", sheet: Path, force: bool) -> None:
    """The sheet of images under their masks of ``--sheet``."""
    from segkey.reports.sheets import data_sheet
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
    shards: Annotated[
        list[Path],
        typer.Argument(metavar="SHARDS", help="Decrypt these shards, or folders of shards."),
    ],
    out: Annotated[
        Path,
        option("--out", "-o", metavar="FOLDER", help="Write images here.", panel=options.OUTPUT),
    ] = Path("decrypted"),
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    workers: options.Workers = None,
    force: options.Force = False,
) -> None:
    """Decrypt shards to PNG images with exactly the pixels that were encrypted."""
    from segkey.shards import decryption, open_splits

    splits = open_splits(shards)
    header = next(iter(splits.values())).header
    cipher = options.load_cipher(header, key, passphrase_file, ffx_password, shards[0])
    count = decryption.decrypt(splits, cipher, out, force, workers, console.TerminalProgress())
    console.show(f"{count} images written to {out}")


@app.command(
    epilog="Example: segkey preview photo.jpg\n\nExample: segkey preview photo.jpg --methods "
    "shf,np -M 2,4,8 --size 512",
    rich_help_panel="Data",
)
def preview(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Draw this image file.")],
    methods: options.Methods = None,
    block_sizes: options.BlockSizes = None,
    size: options.Size = "256",
    key: Annotated[
        Path | None,
        key_option(
            "Draw with this key instead of a public throw-away key, for your eyes only: the sheet "
            "reveals the key."
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.FFXPassword = None,
    out: Annotated[
        Path,
        option(
            "--out", "-o", metavar="FILE", help="Write the PNG sheet here.", panel=options.OUTPUT
        ),
    ] = Path("preview.png"),
    force: options.Force = False,
) -> None:
    """Draw one image under each method and block size, like the paper's Figure 4."""
    from segkey.crypto import PROTECTED, ciphers
    from segkey.data import augment, decode
    from segkey.paper import figures
    from segkey.reports import preview
    from segkey.system.files import written_whole

    height, width = options.parse_size(size)
    chosen = options.parse_block_sizes(block_sizes) or preview.default_block_sizes(height, width)
    loaded = preview.throwaway_key() if key is None else options.load_key(key, passphrase_file)
    plain = augment.as_array(decode.load_image(image), (height, width))
    encrypted = preview.encrypted_pictures(
        plain,
        loaded,
        options.parse_methods(methods) or PROTECTED,
        chosen,
        options.encode(ffx_password),
    )
    shows = {
        "the key": key is not None and any(method != "none" for method in encrypted),
        "the FFX password": ffx_password is not None and any(map(ciphers.has_password, encrypted)),
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


@app.command(
    epilog="Example: segkey inspect shards/ keys/segkey.key runs/latest\n\n"
    "Example: segkey inspect --verify shards/train.h5\n\n"
    "Example: segkey inspect shards/test.h5 --sheet test.png --key keys/segkey.key",
    rich_help_panel="Data",
)
def inspect(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Describe these keys, shards and runs, or folders of them."
        ),
    ],
    verify: Annotated[
        bool, flag("--verify", help="Read everything and compare it with its checksums.")
    ] = False,
    sheet: Annotated[
        Path | None,
        option(
            "--sheet",
            metavar="FILE",
            help="Draw the first images of the first shard, as stored and with masks, as PNG.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        key_option(
            "Draw the images of --sheet decrypted with this key, too; open sealed runs with it, to "
            "--verify their weights."
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    identity: options.IdentityFile = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Describe keys, shards and runs without printing a secret."""
    from segkey import reports
    from segkey.reports import inspection

    if key and not (sheet or verify):
        raise typer.BadParameter("--key belongs to --sheet or --verify: nothing else needs one")
    opener = identity or (key if verify else None)
    how = {
        "identity": recipients.read_identity(opener, passphrase_file) if opener else None,
        "passphrase": options.read_passphrase(passphrase_file) if passphrase_file else None,
        "progress": console.TerminalProgress(),
    }
    documents = [each for file in files for each in inspection.describe(file, verify, **how)]
    if as_json:
        console.show_json(documents)
    else:
        console.show(*(reports.inspection_table(document) for document in documents))
    if sheet:
        split, cipher = _first_split(documents), None
        if key:
            shard = split.shards.paths[0]
            cipher = options.load_cipher(split.header, key, passphrase_file, ffx_password, shard)
        _draw_sheet(split, cipher, sheet, force)
    damaged = [document for document in documents if document.get("damage")]
    if damaged:
        raise SegkeyError(
            f"{len(damaged)} of {len(documents)} files are damaged",
            "restore them, or make them again",
        )


def _first_split(documents: list[dict]) -> "Split":
    """The first shard of those that ``segkey inspect`` describes, as a split of its own."""
    from segkey.shards import Shards, Split

    for document in documents:
        if document["kind"] == "shard":
            return Split(Shards([Path(document["path"])]))
    raise SegkeyError(
        "there is no shard to draw", "give a shard, or a folder of shards, with --sheet"
    )


def _draw_sheet(split: "Split", cipher: "Cipher | None", sheet: Path, force: bool) -> None:
    """The contact sheet of ``segkey inspect --sheet``."""
    from segkey.reports import inspection
    from segkey.reports.sheets import shard_sheet
    from segkey.system.files import written_whole

    shard, protected = split.shards.paths[0], split.header.method != "none"
    picture = shard_sheet(str(shard), split.header, inspection.first_images(split, cipher))
    permissions = 0o600 if cipher and protected else 0o666
    with written_whole(sheet, permissions=permissions, replace=force) as file:
        picture.save(file, "PNG")
    console.note(f"{sheet}: the first images of {shard}")
    if cipher and protected:
        console.warn(
            f"keep {sheet} to yourself: an image beside its encrypted twin gives the key away"
        )
    elif protected:
        console.note("It shows encrypted images, from which their key can be estimated.")
