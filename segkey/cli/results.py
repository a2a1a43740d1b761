"""``segkey report`` and ``segkey bench``."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options


@app.command(
    epilog="Example: segkey report\n\nExample: segkey report runs/ --latex > table1.tex",
    rich_help_panel="Reports",
)
def report(
    runs: Annotated[Path, typer.Argument(help="A folder of runs, or one run.")] = options.DEFAULT_RUNS,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also show the IoU of every class.")] = False,
    as_json: options.AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values, a line a run.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX tables.")] = False,
) -> None:
    """Tables over all runs: by method and M, and correct beside plain and incorrect keys."""
    from segkey import reports
    from segkey.runs import find

    if as_json + as_csv + as_latex > 1:
        raise typer.BadParameter("choose one of --json, --csv and --latex")
    rows = reports.collect(find(runs))
    if as_json:
        console.show_json(reports.as_json(rows))
    elif as_csv:
        console.show_raw(reports.as_csv(rows))
    elif as_latex:
        console.show_raw(reports.as_latex(rows))
    else:
        console.show(*reports.tables(rows, per_class))


@app.command(
    epilog="Example: segkey bench\n\nExample: segkey bench --images photos/ --json > bench.json",
    rich_help_panel="Reports",
)
def bench(
    images: Annotated[
        Path | None, typer.Option(help="Real images for the stage 'encrypt'; drawn ones, if not given.")
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """What this machine does, each stage beside its limit, in under a minute."""
    from segkey import benchmark, reports

    rows = benchmark.run(images, device, console.TerminalProgress())
    if as_json:
        console.show_json([row.as_json() for row in rows])
    else:
        console.show(reports.bench_table(rows), *(f"{row.stage}: {row.note}" for row in rows if row.note and row.rate))
