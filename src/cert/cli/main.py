"""The root command: registers the commands and turns errors into exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cert._version import __version__
from cert.cli import analyze, demo, reference
from cert.cli.outcome import EXIT_INTERRUPTED, report_error
from cert.core.errors import CertError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Watch language models at work: how far each generation can be trusted, token by token.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("analyze")(analyze.analyze)
app.command("demo")(demo.demo)
app.add_typer(reference.app, name="reference")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cert {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Hold the options that belong to no command."""


def main() -> None:
    """Run the command line; errors of the library become one message and an exit code."""
    try:
        app()
    except CertError as error:
        sys.exit(report_error(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
