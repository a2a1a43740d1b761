"""Commands ``segkey predict`` and ``segkey export``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, given_inputs, options
from segkey.cli.options import flag, option
from segkey.cli.parsing import parse_size

_LARGE = "Large images"


@dataclass(frozen=True)
class Tiles:
    """How images that are larger than those of training are brought to the network."""

    tile: Annotated[
        str | None,
        option(
            "--tile",
            "SIZE",
            "Cut images into windows of N x N or HEIGHTxWIDTH instead of resizing them to the "
            "size of training.",
            _LARGE,
        ),
    ] = None
    overlap: Annotated[
        int | None,
        option(
            "--overlap",
            "N",
            "Let neighbouring tiles overlap by N pixels; by default 64, or a quarter of a "
            "smaller tile.",
            _LARGE,
            min=0,
        ),
    ] = None
    scale: Annotated[
        float | None,
        option(
            "--scale",
            "X",
            "Resize images by X, 1 for their own size, before they are cut into tiles; "
            "without --tile the network sees them as a whole.",
            _LARGE,
        ),
    ] = None
    tta: Annotated[
        bool,
        flag(
            "--tta",
            "Average with what the mirrored image gives, which takes twice as long.",
            _LARGE,
        ),
    ] = False


Pictures = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGES",
        help="Segment this image, folder of images, text file with one image per line, or video.",
    ),
]
Overlay = Annotated[
    bool,
    flag(
        "--overlay",
        "Also write each image under its classes' colours, with a legend.",
        options.OUTPUT,
    ),
]
Threads = Annotated[
    int | None,
    option(
        "--workers",
        "N",
        "Read and write with N threads instead of one per core.",
        options.MACHINE,
        min=1,
    ),
]


@app.command(
    epilog="Example: segkey predict runs/np-m4 photos/ --overlay\n\n"
    "Example: segkey predict model.onnx street.jpg --tile 256 --overlap 64",
    rich_help_panel="Model",
)
def predict(
    *,
    run: Annotated[
        Path,
        options.run_argument("Use the run in this folder, or a file that 'segkey export' made."),
    ],
    images: Pictures,
    secret: options.RunKeyGiven,
    out: Annotated[Path, options.out_option("Write masks here.")] = Path("predicted"),
    overlay: Overlay = False,
    tiles: Tiles,
    machine: options.Machine,
    workers: Threads = None,
    strict: options.Strict = False,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Segment images with a trained model and its key, and write palette PNG masks."""
    from segkey import reports
    from segkey.data import sources
    from segkey.data.items import ALL
    from segkey.model import folder_prediction, loading, video

    is_video = video.is_video(images)
    source = None if is_video else sources.find_pictures(images, leave_out=out)
    for finding in source.findings if source else ():
        console.finding(finding)
    opened = loading.opened(run) if run.is_file() else given_inputs.open_run(run)
    loaded = given_inputs.unlock_and_load_key(opened, secret)
    model = loading.model_of(opened, machine.device, machine.precise)
    how = folder_prediction.Settings(
        cipher=model.cipher(loaded, given_inputs.encode(secret.ffx_password)),
        manner=_manner(model, tiles),
        batch_size=machine.batch_size or 32,
        overlays=overlay,
        strict=strict,
        force=force,
        workers=workers,
    )
    progress = console.TerminalProgress()
    if is_video:
        result = video.predict_video(model, images, out, how, progress)
    else:
        result = folder_prediction.predict_files(model, source.splits[ALL], out, how, progress)
    console.left_out(result.problems)
    for finding in result.findings():
        console.finding(finding)
    if as_json:
        console.show_json(result.summary(model.name))
    else:
        written = reports.describe_prediction(result, out, overlay)
        console.show(reports.files_table(result), reports.prediction_table(result), written)


def _manner(model, tiles: Tiles):
    """How images are to be brought to a model's network."""
    tile = parse_size(tiles.tile, "--tile") if tiles.tile else None
    return model.manner(tile, tiles.overlap, tiles.scale, tiles.tta)


@app.command(
    epilog="Example: segkey export runs/np-m4 --onnx\n\n"
    "Example: segkey export runs/for-a --onnx --seal age1…",
    rich_help_panel="Model",
)
def export(
    *,
    run: options.RunFolder,
    onnx: Annotated[
        bool, flag("--onnx", "Write ONNX, which is the default and the only format yet.")
    ] = True,
    images: Annotated[
        Path | None,
        option(
            "--images",
            "PATH",
            "Compare with PyTorch on these images instead of some of the run's own shards.",
        ),
    ] = None,
    seal: options.Seal = None,
    secret: options.RunKeyGiven,
    out: Annotated[
        Path | None,
        option(
            "--out -o",
            "FILE",
            "Write this file instead of NAME.onnx, or NAME.onnx.age if it is sealed.",
            options.OUTPUT,
        ),
    ] = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a run as one ONNX file, which predicts without PyTorch.

    The file names its classes, method, block size and key id, and never holds the key: images are
    encrypted outside of it. Before it is written, its classes are compared with PyTorch's. If RUN
    is sealed, so is the file, for the same recipients unless --seal names others.
    """
    from segkey import reports
    from segkey.model import export as exporting

    opened = given_inputs.open_run(run)
    chosen = given_inputs.read_recipients(seal, secret.passphrase_file)
    unlocked_by = given_inputs.unlock(opened, secret)
    cipher = None
    if secret.key or (unlocked_by and unlocked_by.id == opened.header.key_id):
        loaded = unlocked_by or given_inputs.load_key_for(opened.header, secret)
        cipher = opened.cipher(loaded, given_inputs.encode(secret.ffx_password))
    made = exporting.export(opened, out, images, cipher, chosen, force)
    if not made.compared.real:
        console.warn(
            f"compared with PyTorch on {made.compared.origin} only, as the run's shards are not at "
            "hand; give photographs with --images"
        )
    if as_json:
        console.show_json(reports.export_document(made))
    else:
        console.show(reports.export_table(made))
