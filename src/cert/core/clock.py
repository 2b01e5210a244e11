"""Time as something that is passed in, so that waiting can be tested without waiting."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """A clock that only ever measures spans: its zero means nothing. `cert.testing.FakeClock` is one too."""

    def monotonic(self) -> float:
        """Return the seconds since some fixed moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        ...

    async def sleep_async(self, seconds: float) -> None:
        """Let ``seconds`` pass while other tasks run."""
        ...


class SystemClock:
    """The machine's monotonic clock, which nobody can set."""

    def monotonic(self) -> float:
        """Return the seconds since some fixed moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass; this thread does nothing else."""
        time.sleep(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Let ``seconds`` pass while other tasks run."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK: Clock = SystemClock()
