"""The root command: registers the commands and turns errors into exit codes."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from cert._version import __version__
from cert.cli import analyze, config, demo, reference
from cert.cli.console import tolerant_streams
from cert.cli.outcome import EXIT_COULD_NOT_RUN, EXIT_INTERRUPTED, report_error
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
app.add_typer(config.app, name="config")
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
