"""``segkey demo``: the whole way on built-in scenes."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options
from segkey.system.shell import word


@app.command(
    epilog="Example: segkey demo\n\nExample: segkey demo --out /tmp/segkey-demo --method ffx",
    rich_help_panel="Start here",
)
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for everything the demo makes.")
    ] = Path("demo"),
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="Only these methods; ffx, np and shf if not given.",
            autocompletion=options.complete_methods,
        ),
    ] = None,
    block_size: options.BlockSize = 4,
    wrong_keys: Annotated[int, typer.Option(min=1, help="How many random wrong keys to try.")] = 20,
    epochs: Annotated[int, typer.Option(min=1, help="Times every image is seen.")] = 8,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """The whole way in a few minutes, with no data and no key of your own: scenes, key, training,
    attack, report."""
    from segkey import reports
    from segkey.crypto.keys import Key
    from segkey.paper import demonstration
    from segkey.system.devices import choose

    progress = console.TerminalProgress()
    console.on_interrupt(
        "begin again with: segkey demo --force"
        + (f" --out {word(out)}" if out != Path("demo") else "")
    )
    runs = demonstration.run(
        out,
        method or ["ffx", "np", "shf"],
        block_size,
        wrong_keys,
        epochs,
        choose(device),
        force,
        progress,
    )
    rows = reports.collect(runs, Key.load(out / "keys" / "demo.key"))
    console.show(*reports.tables(rows), reports.demo_sentence(rows))
    console.note(
        f"Everything is in {word(out)}. Now with your own images: segkey keygen, then segkey "
        f"encrypt --help"
    )
