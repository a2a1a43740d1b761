"""Command ``segkey predict``: segment images."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, opening, options
from segkey.cli.options import flag, option


@app.command(
    epilog="Example: segkey predict runs/latest photos/\n\n"
    "Example: segkey predict runs/np-m4 photos/ --key keys/customer.key --overlay --out masks/",
    rich_help_panel="Model",
)
def predict(
    *,
    run: options.RunFolder,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="Segment this image, folder of images, or text file with one image per line.",
        ),
    ],
    secret: options.RunKeyGiven,
    out: Annotated[
        Path,
        options.out_option("Write masks here."),
    ] = Path("predicted"),
    overlay: Annotated[
        bool,
        flag(
            "--overlay",
            help="Also write each image under its classes' colours, with a legend.",
            panel=options.OUTPUT,
        ),
    ] = False,
    machine: options.Machine,
    workers: Annotated[
        int | None,
        option(
            "--workers",
            min=1,
            metavar="N",
            help="Read and write with N threads instead of one per core.",
            panel=options.MACHINE,
        ),
    ] = None,
    strict: options.Strict = False,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Segment images with a trained model and its key, and write palette PNG masks."""
    from segkey import reports
    from segkey.data import sources
    from segkey.data.items import ALL
    from segkey.model import prediction
    from segkey.system import devices

    source = sources.find_pictures(images, leave_out=out)
    for finding in source.findings:
        console.finding(finding)
    opened = opening.open_run(run)
    loaded = opening.unlock_and_load_key(opened, secret)
    model = prediction.Model(opened, devices.choose(machine.device), machine.precise)
    cipher = model.cipher(loaded, opening.encode(secret.ffx_password))
    result = prediction.predict_files(
        model,
        cipher,
        source.splits[ALL],
        out,
        overlay,
        strict,
        force,
        machine.batch_size or 32,
        workers,
        console.TerminalProgress(),
    )
    console.left_out(result.problems)
    for finding in result.findings():
        console.finding(finding)
    if as_json:
        console.show_json(result.summary(model.run.name))
    else:
        console.show(
            reports.files_table(result),
            reports.prediction_table(result),
            reports.describe_prediction(result, out, overlay),
        )
