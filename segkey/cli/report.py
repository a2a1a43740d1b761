"""Commands ``segkey report`` and ``segkey bench``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, given_inputs, options, paths
from segkey.cli.options import flag, key_option, option


@dataclass(frozen=True)
class _PageKey(options.CipherGiven):
    """The key of the images on the page."""

    key: Annotated[
        Path | None,
        key_option("With --html, show test images encrypted and segmented with this key."),
    ] = None


@app.command(
    epilog="Example: segkey report\n\n"
    "Example: segkey report --html report.html --key keys/segkey.key\n\n"
    "Example: segkey report --attacks\n\n"
    "Example: segkey report runs/ --latex > table1.tex",
    rich_help_panel="Reports",
)
def report(
    *,
    runs: Annotated[
        Path, options.run_argument("Report on the runs in this folder, or on one run.", "RUNS")
    ] = paths.DEFAULT_RUNS,
    per_class: Annotated[bool, flag("--per-class", "Also show the IoU of each class.")] = False,
    attacks: Annotated[
        bool, flag("--attacks", "Show one table of what each kind of attacker reaches on each run.")
    ] = False,
    chart: Annotated[
        Path | None,
        option("--chart", "FILE", "Draw the table of --attacks as a PNG image.", options.OUTPUT),
    ] = None,
    as_json: options.AsJson = False,
    as_csv: Annotated[
        bool,
        flag("--csv", "Print comma-separated values, one line per run.", options.OUTPUT),
    ] = False,
    as_latex: Annotated[bool, flag("--latex", "Print LaTeX tables.", options.OUTPUT)] = False,
    html: Annotated[
        Path | None,
        option(
            "--html",
            "FILE",
            "Write one HTML page that loads nothing from elsewhere.",
            options.OUTPUT,
        ),
    ] = None,
    secret: _PageKey,
    shards: options.TestShards = None,
    device: options.Device = "auto",
) -> None:
    """Show tables over all runs, or write them as one HTML page with --html.

    Scores stand by method and M, the correct key's beside those of plain images and incorrect keys.
    Runs that cannot be used are named with the reason and left out.
    """
    from segkey import reports
    from segkey.model.run_search import survey

    if as_json + as_csv + as_latex + bool(html) > 1:
        raise typer.BadParameter("choose one of --html, --json, --csv and --latex")
    if not html and (secret.key or shards):
        raise typer.BadParameter("--key and --shards belong to --html")
    _check_attacks(attacks, bool(html or as_json or per_class), chart)
    found, broken = survey(runs)
    console.left_out(broken)
    if html:
        _write_page(found, broken, html, secret, shards, device)
        return
    rows = reports.collect(found)
    if attacks:
        _show_attacks(rows, as_csv, as_latex, chart)
    elif as_json:
        console.show_json(reports.as_json(rows, broken))
    elif as_csv:
        console.show_raw(reports.as_csv(rows))
    elif as_latex:
        console.show_raw(reports.as_latex(rows))
    else:
        console.show(*reports.tables(rows, per_class, broken))


def _check_attacks(attacks: bool, otherwise: bool, chart: Path | None) -> None:
    if attacks and otherwise:
        raise typer.BadParameter("--attacks is shown as text, or with --csv or --latex")
    if chart and not attacks:
        raise typer.BadParameter("--chart belongs to --attacks")


def _show_attacks(rows, as_csv: bool, as_latex: bool, chart: Path | None) -> None:
    """Show every kind of attacker beside every protection."""
    from segkey.errors import SegkeyError
    from segkey.reports import protection_chart, protections
    from segkey.system.files import is_there

    if why := protections.why_no_protections(rows):
        raise SegkeyError(why, "run 'segkey attack RUN --suite' first")
    if chart:
        is_there(chart)  # nothing but a file is replaced
        protection_chart.write(rows, chart)
        console.note(f"{chart} is drawn.")
    if as_csv:
        console.show_raw(protections.protections_as_csv(rows))
    elif as_latex:
        tables = protections.protection_tables(rows, widest=len(rows))
        console.show_raw("\n".join(table.as_latex() for table in tables))
    else:
        console.show(*(table.as_rich() for table in protections.protection_tables(rows)))


def _write_page(runs, broken, html: Path, secret: _PageKey, shards, device: str) -> None:
    """Write the page, with test images if a key was given."""
    from segkey import reports
    from segkey.reports import gallery
    from segkey.reports.page import write_page
    from segkey.system import devices
    from segkey.system.files import is_there

    is_there(html)  # nothing but a file is replaced; said before the work is done
    shown = loaded = None
    if secret.key:
        loaded, password = given_inputs.load_key(secret), given_inputs.encode(secret.ffx_password)
        shown = gallery.of_runs(
            runs, loaded, shards, devices.choose(device), password, console.TerminalProgress()
        )
        for name, why in shown.notes.items():
            console.warn(f"{name}: {why}")
    else:
        console.note("No test images are shown: they need the model's key, --key FILE.")
    size = write_page(html, runs, shown, broken, loaded)
    console.show(
        f"{html}: {len(runs)} run{'s' * (len(runs) != 1)}, {reports.in_bytes(size)}; open it "
        "in a browser"
    )


@app.command(
    epilog="Example: segkey bench\n\nExample: segkey bench --images photos/ --json > bench.json",
    rich_help_panel="Reports",
)
def bench(
    images: Annotated[
        Path | None,
        option(
            "--images",
            "FOLDER",
            "Encrypt these real images in the stage 'encrypt' instead of drawn ones.",
        ),
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Measure this machine's speed, each stage beside its limit, in under a minute."""
    from segkey import reports
    from segkey.reports import benchmark

    rows = benchmark.run(images, device, console.TerminalProgress())
    if as_json:
        console.show_json([row.as_json() for row in rows])
    else:
        console.show(
            reports.bench_table(rows),
            *(f"{row.stage}: {row.note}" for row in rows if row.note and row.rate),
        )
