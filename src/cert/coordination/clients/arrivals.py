"""A rate of requests that holds where it is counted: at the server."""

from __future__ import annotations

import threading
from collections import deque

from cert.core.clock import Clock
from cert.core.errors import RateLimitedError
from cert.core.resilience import Limiter

__all__ = ["ArrivalLimiter"]

_MINUTE_SECONDS = 60.0
# The first of a burst open connections and arrive late; those of the next one, a minute on, arrive at once.
# Two seconds for that cost one request in thirty.
_MARGIN_SECONDS = 2.0


class ArrivalLimiter:
    """Lets a request begin only a minute and a margin after the one that it would be too many with.

    A limiter counts what it lets go. On their way requests are delayed, each by another time, so that a
    server may see more of them in a minute than were let go in one.

    Args:
        inner: keeps the line, and the limit on what is let go.
        requests_per_minute: the rate.
        clock: measures and waits.
    """

    def __init__(self, inner: Limiter, requests_per_minute: int, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: deque[float] = deque(maxlen=requests_per_minute)

    def acquire(self, tokens: int = 0, timeout: float | None = None) -> float:
        """Wait, as `cert.core.rate_limit.RateLimiter.acquire` does."""
        began = self._clock.monotonic()
        waited = self._inner.acquire(tokens, timeout)
        if pause := self._place(began, timeout):
            self._clock.sleep(pause)
        return waited + pause

    async def acquire_async(self, tokens: int = 0, timeout: float | None = None) -> float:
        """Do the same without holding up the event loop; a task that is cancelled leaves its place unused."""
        began = self._clock.monotonic()
        waited = await self._inner.acquire_async(tokens, timeout)
        if pause := self._place(began, timeout):
            await self._clock.sleep_async(pause)
        return waited + pause

    def _place(self, began: float, timeout: float | None) -> float:
        """Take the next place in time; return the seconds until it comes.

        Raises:
            RateLimitedError: it comes too late.
        """
        with self._lock:
            now = self._clock.monotonic()
            full = len(self._begun) == self._begun.maxlen
            at = max(now, self._begun[0] + _MINUTE_SECONDS + _MARGIN_SECONDS) if full else now
            if timeout is not None and at > now and at > began + timeout:
                raise RateLimitedError(
                    f"our own rate limit cannot admit the call in time: it takes {at - now:.1f} s more",
                    hint="call less often, allow more time, or raise requests_per_minute",
                    retry_after=at - now,
                )
            self._begun.append(at)
        return at - now
