"""A measurement at work: its estimate, the question before it starts, its progress, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cert.cli.console import stderr
from cert.cli.interrupt import stopped_by_ctrl_c
from cert.core.errors import BudgetExceededError

if TYPE_CHECKING:
    from rich.console import Console

    from cert.coordination.suite import Estimate, Progress

__all__ = ["Stopped", "agreed", "run_stoppable", "suite_progress"]

T = TypeVar("T")
_EVERY: Final = 10.0  # seconds between two lines


class Stopped(Exception):  # noqa: N818  # not an error: somebody wanted it
    """Ctrl-C ended the work."""


def run_stoppable(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end; Ctrl-C cancels it, so that everything is closed and kept.

    Raises:
        Stopped: by Ctrl-C.
        KeyboardInterrupt: by a second one.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(make())
        with stopped_by_ctrl_c(lambda: loop.call_soon_threadsafe(task.cancel)) as interrupt:
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                if interrupt.happened:
                    raise Stopped from None
                raise


def agreed(estimate: Estimate, most: Decimal | None, *, yes: bool) -> bool:
    """Tell what a measurement would cost and whether it may start.

    A person at a terminal is asked, where it may cost anything at all.

    Raises:
        BudgetExceededError: the estimate is above the limit.
    """
    import typer

    console = stderr()
    console.print(_told(estimate), markup=False, highlight=False, soft_wrap=True)
    if most is not None and estimate.expected > most:
        raise BudgetExceededError(
            f"it would cost about ${estimate.expected}, and at most ${most} may be spent; nothing was asked",
            hint="fewer tasks, systems or agents, a cheaper model, or a higher --max-cost; or "
            "--answer-tokens, where answers are shorter than is expected",
        )
    may_cost = estimate.at_most > 0 or bool(estimate.unknown)
    if yes or not may_cost or not (console.is_terminal and sys.stdin is not None and sys.stdin.isatty()):
        return True
    return typer.confirm("start?", default=True, err=True)


def _told(estimate: Estimate) -> str:
    calls = f"estimate: {estimate.calls:,} calls"
    unknown = f"; of {', '.join(estimate.unknown)} nothing is known" if estimate.unknown else ""
    if not estimate.at_most:
        return f"{calls}, nothing to pay{unknown}"
    return (
        f"{calls}, about ${estimate.expected:.4f}, at most ${estimate.at_most:.4f} and what failed attempts "
        f"are billed{unknown}; answers that are in the store cost nothing"
    )


@contextlib.contextmanager
def suite_progress() -> Iterator[Callable[[Progress], object]]:
    """Show how far a suite is and what it has cost: a bar on a terminal, now and then a line elsewhere."""
    console = stderr()
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(console) as moved:
            yield moved
    else:
        yield _Lines(console).moved


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Callable[[Progress], object]]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[money]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, money="")

        def moved(now: Progress) -> None:
            progress.update(task, total=now.total, completed=now.done, money=_money(now))

        yield moved


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = self._told = time.monotonic()

    def moved(self, now: Progress) -> None:
        moment = time.monotonic()
        if moment - self._told < _EVERY:
            return
        self._told = moment
        seconds = (moment - self._begun) / now.done * (now.total - now.done)
        line = f"{now.done:,} of {now.total:,} measured, {_money(now)}, about {seconds:,.0f} s left"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _money(now: Progress) -> str:
    return f"${now.spent:.4f} paid, ${now.saved:.4f} saved"
