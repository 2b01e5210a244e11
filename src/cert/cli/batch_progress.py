"""How far a batch is, on standard error: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cert.cli.console import stderr

if TYPE_CHECKING:
    from cert.cli.batch_run import Counts

__all__ = ["batch_progress"]

_EVERY = 10.0  # seconds between two lines


@contextlib.contextmanager
def batch_progress(total: int | None, counts: Counts) -> Iterator[Callable[[], object]]:
    """Show how far the items are, and yield what is to be called when ``counts`` have changed.

    Args:
        total: the items of the input, ``None`` where nobody knows.
        counts: what is done.
    """
    console = stderr()
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(console, total, counts) as moved:
            yield moved
    else:
        yield _Lines(console, total, counts).moved


@contextlib.contextmanager
def _bar(console: Console, total: int | None, counts: Counts) -> Iterator[Callable[[], object]]:
    columns = (
        TextColumn("{task.fields[rate]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[errors]}", style="red"),
        TimeRemainingColumn(),
    )
    pace = _Pace(counts)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total, completed=counts.before, rate="…", errors="")

        def moved() -> None:
            errors = f"{counts.errors:,} errors" if counts.errors else ""
            done = counts.before + counts.now
            progress.update(task, completed=done, rate=pace.text(), errors=errors)

        moved()
        yield moved


class _Lines:
    def __init__(self, console: Console, total: int | None, counts: Counts) -> None:
        self._console, self._total, self._counts = console, total, counts
        self._pace = _Pace(counts)
        self._told = time.monotonic()

    def moved(self) -> None:
        if time.monotonic() - self._told < _EVERY:
            return
        self._told = time.monotonic()
        done = self._counts.before + self._counts.now
        of = "" if self._total is None else f" of {self._total:,}"
        left = "" if self._total is None else self._pace.left(self._total - done)
        errors = f", {self._counts.errors:,} errors" if self._counts.errors else ""
        line = f"{done:,}{of} items, {self._pace.text()}{left}{errors}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Pace:
    """Items and tokens a second of this run."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._begun = time.monotonic()

    def text(self) -> str:
        seconds = time.monotonic() - self._begun
        if not (self._counts.now and seconds > 0):
            return "…"
        return f"{self._counts.now / seconds:.1f} items/s, {self._counts.tokens / seconds:.0f} tokens/s"

    def left(self, items: int) -> str:
        seconds = time.monotonic() - self._begun
        if not self._counts.now:
            return ""
        minutes, seconds = divmod(round(max(0, items) * seconds / self._counts.now), 60)
        hours, minutes = divmod(minutes, 60)
        return f", {hours}:{minutes:02}:{seconds:02} left"
