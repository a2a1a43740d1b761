"""The command line: parse, call, show; no logic of its own.

Commands import what they need when they run, so that ``--help`` and ``keygen`` do not wait for torch.
"""

import os
from typing import Annotated

import typer
from typer.core import TyperGroup

from segkey.cli import console
from segkey.errors import SegkeyError
from segkey.version import VERSION


class _Commands(TyperGroup):
    """Turns expected failures and Ctrl-C into what `segkey.cli.console` says, and an exit status."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except SegkeyError as error:
            if os.environ.get("SEGKEY_DEBUG") == "1":
                console.traceback()
            console.error(error.what, error.hint)
            raise typer.Exit(1) from None
        except OSError as error:  # of a path that was given, such as a name that is too long
            if error.filename is None:
                raise
            if os.environ.get("SEGKEY_DEBUG") == "1":
                console.traceback()
            console.error(f"{error.filename}: {error.strerror}")
            raise typer.Exit(1) from None
        except (KeyboardInterrupt, typer.Abort):
            console.interrupted()
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    name="segkey",
    help="Protect semantic segmentation models with a secret key: encrypt images block by block, train and "
    "evaluate on them, attack the result, and see what the key is worth.",
    epilog="Begin with: segkey demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.show(f"segkey {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point of ``segkey``."""
    console.route_warnings()
    app()


from segkey.cli import data, demo, keys, model, results, security  # noqa: E402, F401 - they add their commands to app
