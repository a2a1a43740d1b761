"""``segkey encrypt``, ``decrypt`` and ``inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options


@app.command(
    epilog="Example: segkey encrypt photos/ --method np -M 4\n\n"
    "Example: segkey encrypt VOCdevkit/VOC2012 --method ffx -M 2 --views 8\n\n"
    "Example: segkey encrypt data/ --masks labels/ --method none --out plain/",
    rich_help_panel="Data",
)
def encrypt(
    images: Annotated[
        Path,
        typer.Argument(
            help="A VOC devkit, a folder with images/ and masks/, a folder of images, an image, or "
            "a "
            "text file that names an image a line, and behind a tab its mask."
        ),
    ],
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks; found by itself beside or inside IMAGES.")
    ] = None,
    method: options.Method = "np",
    block_size: options.BlockSize = 4,
    size: options.Size = "256",
    views: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Augmented copies of a training image (random crop and flip); 1 keeps the image "
            "as it is. "
            "4 for encrypted training images with masks, if not given.",
        ),
    ] = None,
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.FFXPassword = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the shards.")
    ] = options.DEFAULT_SHARDS,
    split: Annotated[
        str | None,
        typer.Option(
            help="Deal images out by a hash of their names: TRAIN/VAL/TEST in per cent, or 'all'. "
            "80/10/10 for images with masks and no split folders."
        ),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Text file of class names, a line a class.")
    ] = None,
    ignore_index: Annotated[
        int, typer.Option(min=0, max=255, help="The mask value that means void.")
    ] = 255,
    crop_scale: Annotated[
        float, typer.Option(help="Smallest area of an augmented copy, as a fraction.")
    ] = 0.25,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    shard_size: Annotated[float, typer.Option(help="Cut shards at this many GB.")] = 1.0,
    strict: options.Strict = False,
    force: options.Force = False,
) -> None:
    """Encrypt images, with their masks, into HDF5 shards.

    Masks, names, sizes and classes are stored as they are.
    """
    from segkey import reports
    from segkey.crypto import ciphers
    from segkey.data import masks, sources
    from segkey.shards import encryption

    height_width = options.parse_size(size)
    loaded = None if method == "none" else options.load_key(key, passphrase_file)
    cipher = ciphers.from_key(method, loaded, block_size, password=options.encode(ffx_password))
    source = sources.find(images, masks, classes, ignore_index, split)
    for line in source.notes:
        console.note(line)
    progress = console.TerminalProgress()
    if source.has_masks and source.classes is None:
        count = masks.count_classes(source, workers, progress)
        source.classes = [f"class {number}" for number in range(count)]
        console.note(f"{count} classes found in the masks; name them with --classes FILE")
    plans = encryption.plan_shards(
        source,
        out,
        cipher,
        loaded.id if loaded else "",
        height_width,
        views,
        seed,
        crop_scale,
        shard_size * 10**9,
    )
    console.note(reports.describe_plan(source, plans, cipher, encryption.bytes_needed(plans)))
    result = encryption.encrypt(plans, cipher, workers, strict, force, progress)
    problems = source.problems + result.problems
    console.left_out(problems)
    console.show(reports.describe_encryption(result, problems, out, cipher))


@app.command(
    epilog="Example: segkey decrypt shards/ --out restored/\n\nExample: segkey decrypt "
    "shards/test.h5 --out test/",
    rich_help_panel="Data",
)
def decrypt(
    shards: Annotated[list[Path], typer.Argument(help="Folders of shards, or shard files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the images.")] = Path(
        "decrypted"
    ),
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    workers: options.Workers = None,
    force: options.Force = False,
) -> None:
    """Turn encrypted shards back into PNG images, with exactly the pixels that were encrypted."""
    from segkey.shards import decryption, open_splits
    from segkey.shards.unlock import cipher_for

    splits = open_splits(shards)
    header = next(iter(splits.values())).header
    loaded = (
        None if header.method == "none" else options.load_key(key, passphrase_file, header.key_id)
    )
    cipher = cipher_for(header, loaded, options.encode(ffx_password), shards[0])
    count = decryption.decrypt(splits, cipher, out, force, workers, console.TerminalProgress())
    console.show(f"{count} images written to {out}")


@app.command(
    epilog="Example: segkey preview photo.jpg\n\nExample: segkey preview photo.jpg --methods "
    "shf,np -M 2,4,8 --size 512",
    rich_help_panel="Data",
)
def preview(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    methods: options.Methods = None,
    block_sizes: options.BlockSizes = None,
    size: options.Size = "256",
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            "-k",
            help="Draw with this key, for your own eyes: the sheet gives the key away. A "
            "throw-away key, if not given.",
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.FFXPassword = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The sheet, PNG.")] = Path("preview.png"),
    force: options.Force = False,
) -> None:
    """Draw a sheet of an image under each method and block size, like the paper's Figure 4."""
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
        console.note("Drawn with a throw-away key that everybody knows: it gives no key away.")


@app.command(
    epilog="Example: segkey inspect shards/ keys/segkey.key runs/latest\n\n"
    "Example: segkey inspect --verify shards/train.h5\n\n"
    "Example: segkey inspect shards/test.h5 --sheet test.png --key keys/segkey.key",
    rich_help_panel="Data",
)
def inspect(
    files: Annotated[
        list[Path], typer.Argument(help="Keys, shards, runs, or folders of shards or runs.")
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything and compare it with its checksums.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Draw the first images of the first shard, as stored and with masks, as PNG."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            "-k",
            help="With --sheet: also draw them decrypted with this key.",
            autocompletion=options.complete_keys,
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what keys, shards and runs are; no secret is printed."""
    from segkey import reports
    from segkey.reports import inspection

    if key and not sheet:
        raise typer.BadParameter("--key belongs to --sheet: nothing else here needs one")
    documents = [
        each
        for file in files
        for each in inspection.describe(file, verify, console.TerminalProgress())
    ]
    if as_json:
        console.show_json(documents)
    else:
        console.show(*(reports.inspection_table(document) for document in documents))
    if sheet:
        shard = next(
            (Path(document["path"]) for document in documents if document["kind"] == "shard"), None
        )
        _draw_sheet(shard, sheet, key, passphrase_file, options.encode(ffx_password), force)
    damaged = [document for document in documents if document.get("damage")]
    if damaged:
        from segkey.errors import SegkeyError

        raise SegkeyError(
            f"{len(damaged)} of {len(documents)} files are damaged",
            "restore them, or make them again",
        )


def _draw_sheet(
    shard: Path | None,
    sheet: Path,
    key: Path | None,
    passphrase_file: Path | None,
    password: bytes | None,
    force: bool,
) -> None:
    """The picture of ``segkey inspect --sheet``."""
    from segkey.errors import SegkeyError
    from segkey.reports import inspection
    from segkey.reports.sheets import shard_sheet
    from segkey.shards import Shards, Split
    from segkey.shards.unlock import cipher_for
    from segkey.system.files import written_whole

    if not shard:
        raise SegkeyError(
            "there is no shard to draw", "give a shard, or a folder of shards, with --sheet"
        )
    split, cipher = Split(Shards([Path(shard)])), None
    if key:
        loaded = options.load_key(key, passphrase_file)
        cipher = cipher_for(split.header, loaded, password, shard)
    protected = split.header.method != "none"
    permissions = 0o600 if cipher and protected else 0o666
    with written_whole(sheet, permissions=permissions, replace=force) as file:
        shard_sheet(str(shard), split.header, inspection.first_images(split, cipher)).save(
            file, "PNG"
        )
    console.note(f"{sheet}: the first images of {shard}")
    if cipher and protected:
        console.warn(
            f"keep {sheet} to yourself: an image beside its encrypted twin gives the key away"
        )
    elif protected:
        console.note("It shows encrypted images, from which their key can be estimated.")
