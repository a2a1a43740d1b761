"""The command line: parse options, call the library, show the result.

Commands import what they need when they run, so that ``--help`` and ``keygen`` do not wait for
torch.
"""

import functools
import os
import signal
from collections.abc import Callable
from inspect import Parameter, Signature, cleandoc
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from segkey.cli import console, option_groups, options
from segkey.errors import SegkeyError
from segkey.system import interrupts_at_start, distributed, plugins, torchrun
from segkey.version import VERSION


_NOT_IN_RUNTIME = ("h5py", "jinja2", "matplotlib", "safetensors", "scipy", "torch", "torchvision")


class _Commands(TyperGroup):
    """Turns expected failures and Ctrl-C into a message of `console` and an exit status."""

    def invoke(self, ctx):
        interrupts_at_start.interrupt()
        try:
            return self._invoke(ctx)
        except (KeyboardInterrupt, typer.Abort) as stop:  # also while an error is shown
            console.interrupted()
            raise typer.Exit(128 + getattr(stop, "number", signal.SIGINT)) from None

    def _invoke(self, ctx):
        try:
            plugins.load_named()
            return super().invoke(ctx)
        except SegkeyError as error:
            self._fail(error)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _NOT_IN_RUNTIME:
                raise
            self._fail(
                SegkeyError(
                    f"this needs the package {error.name}, which is not installed",
                    "pip install segkey; segkey-runtime alone predicts with exported models",
                )
            )
        except OSError as error:  # of a path that was given, such as a name that is too long
            if error.filename is None:
                raise
            self._fail(SegkeyError(f"{error.filename}: {error.strerror}"))

    def _fail(self, error: SegkeyError) -> NoReturn:
        if os.environ.get("SEGKEY_DEBUG") == "1":
            console.traceback()
        torchrun.last_words(error)
        console.error(error.what, error.hint)
        raise typer.Exit(1) from None


class _App(typer.Typer):
    """Gives every command ``--quiet`` and its help, and runs it as a job of all ranks."""

    def command(self, *args, **kwargs):
        def register(function: Callable[..., None]) -> Callable[..., None]:
            told = kwargs | {"help": _unwrapped(function.__doc__)}
            return super(_App, self).command(*args, **told)(_as_job(function))

        return register


def _unwrapped(docstring: str) -> str:
    """A docstring with one line per paragraph: only the terminal breaks the lines of a help."""
    paragraphs = cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _as_job(function: Callable[..., None]) -> Callable[..., None]:
    """A command with ``--quiet``, one option per field of its groups, shared among ranks."""
    groups = option_groups.groups(function)

    @functools.wraps(function)
    def command(*, quiet: bool, **given) -> None:
        """Take one option per field, and call the function with its groups."""
        console.be_quiet(quiet)
        with torchrun.job(function.__name__, given):
            function(**option_groups.gathered(groups, given))

    quiet = Parameter("quiet", Parameter.KEYWORD_ONLY, default=False, annotation=options.Quiet)
    parameters = [*option_groups.flattened(function), quiet]
    command.__signature__ = Signature(parameters)
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


app = _App(
    cls=_Commands,
    name="segkey",
    help="Protect semantic segmentation models with a secret key: encrypt images block by block, "
    "train and evaluate on them, attack the result, and measure what the key protects.",
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
        options.flag(
            "--version", "Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    console.route_warnings()
    if not distributed.is_main():
        console.speak_of_errors_only(distributed.rank_name())
    app()


# They add their commands to app, in the order of the panels of --help.
from segkey.cli import (
    demo,
    keys,
    encrypt,
    inspect,
    train,
    evaluate,
    predict,
    networks,
    lock,
    seal,
    attack,
    report,
    paper,
)  # noqa: E402, E501, F401, I001, isort: skip
