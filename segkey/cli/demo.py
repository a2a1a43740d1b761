"""Command ``segkey demo``: encrypt, train, evaluate and attack on built-in scenes."""

from pathlib import Path
from typing import Annotated

from segkey.cli import app, console, options
from segkey.cli.options import option
from segkey.system.shell_quoting import word


@app.command(
    epilog="Example: segkey demo\n\nExample: segkey demo --out /tmp/segkey-demo --method ffx",
    rich_help_panel="Start here",
)
def demo(
    out: Annotated[Path, options.out_option("Write everything here.")] = Path("demo"),
    method: Annotated[
        list[str] | None, options.method_option("Show only this method instead of ffx, np and shf.")
    ] = None,
    block_size: options.BlockSize = 4,
    wrong_keys: Annotated[int, option("--wrong-keys", "N", "Try N random wrong keys.", min=1)] = 20,
    epochs: Annotated[int, option("--epochs", "N", "Train for N epochs.", min=1)] = 8,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Show every step on built-in scenes, from a key to the report, in a few minutes.

    It needs no images and no key of yours. What an earlier demo finished is kept; --force begins
    again.
    """
    from segkey import reports
    from segkey.crypto.keys import Key
    from segkey.paper import demo_picture, demonstration
    from segkey.reports import gallery
    from segkey.reports.page import write_page
    from segkey.system.devices import choose

    where = choose(device)
    progress = console.TerminalProgress()
    console.on_interrupt(
        "go on with: segkey demo" + (f" --out {word(out)}" if out != Path("demo") else "")
    )
    methods = method or ["ffx", "np", "shf"]
    shown = demonstration.Demo(out, methods, block_size, wrong_keys, epochs, where, progress)
    runs = shown.run(force)
    key = Key.load(out / "keys" / "demo.key")
    rows = reports.collect(runs, key)
    console.show(*reports.tables(rows), reports.demo_sentence(rows))
    picture, page = out / "overlay.png", out / "report.html"
    demo_picture.write(picture, runs[0], key, out / "scenes")
    write_page(page, runs, gallery.of_runs(runs, key, None, where, progress=progress), key=key)
    console.show(
        f"{word(picture)} shows what {runs[0].name} makes of two scenes with the key, without it, "
        "and with a wrong one.",
        f"{word(page)} is all of it on one page: open it in a browser.",
    )
    console.note("Now with your own images: segkey keygen, then segkey encrypt --help")
