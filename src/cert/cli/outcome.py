"""Exit codes, and how an error is told.

0 the gate passed it, 1 the gate failed it, 2 bad usage or bad input, 3 could not run, 4 undecided or not
measured, 130 interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cert.core.errors import CertError, ConfigurationError, InfeasibleError, InputError

if TYPE_CHECKING:
    from cert.trajectory import Verdict

__all__ = ["EXIT_CODES", "EXIT_COULD_NOT_RUN", "EXIT_INTERRUPTED", "EXIT_USAGE", "report_error"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "undecided": 4, "not_measured": 4}
EXIT_USAGE = 2
EXIT_COULD_NOT_RUN = 3
EXIT_INTERRUPTED = 130


def report_error(error: CertError) -> int:
    """Print an error with its hint to stderr and return the exit code that belongs to it."""
    from cert.cli.console import stderr
    from cert.cli.view import printable

    # Not as markup and without its control characters: a message may quote a file or a model's name.
    stderr().print(f"error: {printable(error.message)}", style="bold red", markup=False, highlight=False)
    if error.hint:
        stderr().print(f"hint: {printable(error.hint)}", markup=False, highlight=False)
    # Data that are too few for what is asked of them are the user's to change, as a wrong option is.
    usage = isinstance(error, InputError | ConfigurationError | InfeasibleError)
    return EXIT_USAGE if usage else EXIT_COULD_NOT_RUN


def exit_with(code: int) -> None:
    """End the command with this exit code."""
    raise typer.Exit(code)
