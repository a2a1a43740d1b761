"""Command ``segkey demo``: encrypt, train, evaluate and attack on built-in scenes."""

from pathlib import Path
from typing import Annotated

from segkey.cli import app, console, options
from segkey.cli.options import option
from segkey.system.shell import word


@app.command(
    epilog="Example: segkey demo\n\nExample: segkey demo --out /tmp/segkey-demo --method ffx",
    rich_help_panel="Start here",
)
def demo(
    out: Annotated[
        Path,
        options.out_option("Write everything here."),
    ] = Path("demo"),
    method: Annotated[
        list[str] | None,
        options.method_option("Show only this method instead of ffx, np and shf."),
    ] = None,
    block_size: options.BlockSize = 4,
    wrong_keys: Annotated[
        int, option("--wrong-keys", min=1, metavar="N", help="Try N random wrong keys.")
    ] = 20,
    epochs: Annotated[int, option("--epochs", min=1, metavar="N", help="Train for N epochs.")] = 8,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Show every step on built-in scenes, from a key to the report, in a few minutes.

    It needs no images and no key of yours.
    """
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
        "encrypt --help"
    )
