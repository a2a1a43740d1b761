"""``segkey report`` and ``segkey bench``."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options


@app.command(
    epilog="Example: segkey report\n\n"
    "Example: segkey report --html report.html --key keys/segkey.key\n\n"
    "Example: segkey report runs/ --latex > table1.tex",
    rich_help_panel="Reports",
)
def report(
    runs: Annotated[
        Path,
        typer.Argument(help="A folder of runs, or one run.", autocompletion=options.complete_runs),
    ] = options.DEFAULT_RUNS,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also show the IoU of every class.")
    ] = False,
    as_json: options.AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated values, a line a run.")
    ] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX tables.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page to look at and to send: one file that loads nothing."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            "-k",
            help="With --html: show some test images and what becomes of them, with this key.",
            autocompletion=options.complete_keys,
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    shards: options.TestShards = None,
    device: options.Device = "auto",
) -> None:
    """Tables over all runs: by method and M, and correct beside plain and incorrect keys; or all of
    it as a page.

    Runs that cannot be used are named with the reason, and left out.
    """
    from segkey import reports
    from segkey.model.survey import survey

    if as_json + as_csv + as_latex + bool(html) > 1:
        raise typer.BadParameter("choose one of --html, --json, --csv and --latex")
    if not html and (key or shards):
        raise typer.BadParameter("--key and --shards belong to --html")
    found, broken = survey(runs)
    console.left_out(broken)
    if html:
        _write_page(
            found, broken, html, key, passphrase_file, options.encode(ffx_password), shards, device
        )
        return
    rows = reports.collect(found)
    if as_json:
        console.show_json(reports.as_json(rows, broken))
    elif as_csv:
        console.show_raw(reports.as_csv(rows))
    elif as_latex:
        console.show_raw(reports.as_latex(rows))
    else:
        console.show(*reports.tables(rows, per_class, broken))


def _write_page(
    runs, broken, html: Path, key: Path | None, passphrase_file, password, shards, device: str
) -> None:
    """The page, with test images where a key was given."""
    from segkey import reports
    from segkey.reports import gallery
    from segkey.reports.page import html_page
    from segkey.system import devices
    from segkey.system.files import is_there, written_whole

    is_there(html)  # nothing but a file is replaced; said before the work is done
    shown = loaded = None
    if key:
        loaded = options.load_key(key, passphrase_file)
        shown = gallery.of_runs(
            runs, loaded, shards, devices.choose(device), password, console.TerminalProgress()
        )
        for name, why in shown.notes.items():
            console.warn(f"{name}: {why}")
    else:
        console.note("No test images are shown: they need the model's key, --key FILE.")
    page = html_page(runs, shown, broken, loaded).encode("utf-8", "replace")
    with written_whole(html) as file:
        file.write(page)
    console.show(
        f"{html}: {len(runs)} run{'s' * (len(runs) != 1)}, {reports.in_bytes(len(page))}; open it "
        f"in a browser"
    )


@app.command(
    epilog="Example: segkey bench\n\nExample: segkey bench --images photos/ --json > bench.json",
    rich_help_panel="Reports",
)
def bench(
    images: Annotated[
        Path | None,
        typer.Option(help="Real images for the stage 'encrypt'; drawn ones, if not given."),
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """What this machine does, each stage beside its limit, in under a minute."""
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
