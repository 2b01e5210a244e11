"""The two streams: results go to stdout, everything said along the way to stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cert.core.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["generation_progress", "quiet_libraries", "results", "stderr", "stdout", "tolerant_streams"]


def stdout() -> Console:
    """Return the console for results; a reader that went away is a `BrokenPipeError`."""
    from rich.console import Console

    class Results(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704  # what rich caught: its own way is exit code 1, which is a verdict here

    return Results()


def stderr() -> Console:
    """Return the console for progress, warnings and errors; if nobody reads it, the work goes on."""
    from rich.console import Console

    class Remarks(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True

    return Remarks(stderr=True)


@contextlib.contextmanager
def results() -> Iterator[Console]:
    """Yield the console for results and make sure that they arrive.

    Raises:
        OutputError: stdout is closed, full, or nobody reads it any more.
    """
    if sys.stdout is None:
        raise OutputError("the result cannot be written: standard output is closed")
    try:
        yield stdout()
        sys.stdout.flush()
    except OSError as error:
        # Else the interpreter fails on the same bytes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"the result could not be written: {error.strerror or error}") from error


def tolerant_streams() -> None:
    """Let a terminal that lacks a character show its code instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def generation_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr and yield the function that moves it to a number of tokens."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tokens"))
    with Progress(*columns, TimeElapsedColumn(), console=stderr(), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


def quiet_libraries() -> None:
    """Keep transformers' own progress bars and notices out of the command's output."""
    with contextlib.suppress(ImportError):
        import transformers.utils.logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # leaves them untyped
