"""The root command: registers the commands and turns errors into exit codes."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cert._version import __version__
from cert.cli import (
    analyze,
    api_keys,
    batch,
    calibrate,
    config,
    coordinate,
    demo,
    evaluate,
    reference,
    score,
    serve,
    watch,
)
from cert.cli.console import tolerant_streams
from cert.cli.logs import logs
from cert.cli.outcome import EXIT_COULD_NOT_RUN, EXIT_INTERRUPTED, report_error
from cert.cli.profile import profiled
from cert.core.errors import CertError

__all__ = ["app", "main"]

_HELP = ["-h", "--help"]
_HELP_ASKED = "cert.help_asked"


class _Root(TyperGroup):
    """Tells the root callback whether a command's help is asked for, which then needs no logs."""

    def invoke(self, ctx: Any) -> Any:
        """Run the callback and the command."""
        before_arguments = ctx.args[: ctx.args.index("--")] if "--" in ctx.args else ctx.args
        ctx.meta[_HELP_ASKED] = not set(_HELP).isdisjoint(before_arguments)
        return super().invoke(ctx)


app = typer.Typer(
    cls=_Root,
    help="Watch language models at work: how far each generation can be trusted, token by token.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": _HELP},
)
app.command("analyze")(analyze.analyze)
app.command("score")(score.score)
app.command("watch")(watch.watch)
app.command("batch")(batch.batch)
app.command("evaluate")(evaluate.evaluate)
app.command("demo")(demo.demo)
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(coordinate.app, name="coordinate")
app.add_typer(serve.app, name="serve")
app.add_typer(api_keys.app, name="keys")
app.add_typer(config.app, name="config")
app.add_typer(reference.app, name="reference")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cert {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            metavar="FILE",
            help="Write where the time went: .json for speedscope, .html or .txt to read.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Do what every command needs: its profile and its logs, both until it ends."""
    if context.meta[_HELP_ASKED]:
        return
    if profile is not None:
        context.with_resource(profiled(profile))
    # `cert config` tells of every wrong variable, those of the logs too.
    if context.invoked_subcommand != "config":
        context.with_resource(logs())


def main() -> None:
    """Run the command line; errors of the library become one message and an exit code."""
    tolerant_streams()
    try:
        app()
    except CertError as error:
        sys.exit(report_error(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    # A defect of ours: Python's own exit code would be 1, which says that the gate failed an answer.
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_COULD_NOT_RUN)
