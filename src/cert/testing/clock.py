"""A clock that stands still until a test moves it, so that no test sleeps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading

from cert.core.errors import InputError

__all__ = ["FakeClock"]

# Turns of the event loop that woken tasks get in `settle`: enough for a chain of awaits as deep as the
# resilience stack, too few to be noticed in a test.
_TURNS = 25


class FakeClock:
    """Stands in for `time.monotonic`, `time.sleep` and `asyncio.sleep`.

    Hand its methods to whatever takes a clock: ``clock=fake.monotonic, sleep=fake.sleep_async``. Time passes
    only in `advance`, `advance_async` and `sleep`. It is safe to use from several threads and event loops.

    Args:
        start: the first reading, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = _seconds(start, "start")
        self._lock = threading.RLock()
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """Return the time now, in seconds."""
        return self._now

    @property
    def sleeping(self) -> int:
        """How many tasks are in `sleep_async`."""
        with self._lock:
            return sum(not future.done() for *_, future in self._sleepers)

    def sleep(self, seconds: float) -> None:
        """Let the time pass at once: what a thread would have waited for has happened on return.

        Raises:
            InputError: the seconds are negative or not finite.
        """
        self.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Wait until the clock has been advanced this far; zero gives other tasks a turn.

        Raises:
            InputError: the seconds are negative or not finite.
        """
        if _seconds(seconds, "seconds") == 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), loop, future))
        await future

    def advance(self, seconds: float) -> None:
        """Move the clock and wake the async sleepers that are due: earliest first, then in order of arrival.

        They run when their event loop next gets a turn, and then read the time at the end of the move; where
        each should read its own time, use `advance_async`.

        Raises:
            InputError: the seconds are negative or not finite; a monotonic clock never goes back.
        """
        _seconds(seconds, "seconds")
        with self._lock:
            self._move_to(self._now + seconds)

    async def advance_async(self, seconds: float) -> None:
        """Move the clock from one due sleeper to the next, letting each run at its own time.

        Sleeps that start on the way and end within the move are woken too.

        Raises:
            InputError: the seconds are negative or not finite.
        """
        end = self._now + _seconds(seconds, "seconds")
        await self.settle()
        while True:
            with self._lock:
                self._forget_cancelled()
                due = self._sleepers[0][0] if self._sleepers else math.inf
                if due > end:
                    self._move_to(max(end, self._now))
                    break
                self._move_to(max(due, self._now))
            await self.settle()
        await self.settle()

    async def settle(self) -> None:
        """Give the other tasks of this event loop turns, so that they come to where they wait."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def _move_to(self, moment: float) -> None:
        self._now = moment
        while self._sleepers and self._sleepers[0][0] <= moment:
            _, _, loop, future = heapq.heappop(self._sleepers)
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, future)

    def _forget_cancelled(self) -> None:
        while self._sleepers and self._sleepers[0][3].done():
            heapq.heappop(self._sleepers)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _seconds(value: float, name: str) -> float:
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{name} must be a finite number of seconds, 0 or more, not {value!r}")
    return float(value)
