"""A limit on requests and tokens a minute that calls wait for, first come, first served.

::

    limiter = RateLimiter(requests_per_minute=50, tokens_per_minute=40_000)
    waited = limiter.acquire(tokens=1_200, timeout=30.0)
    waited = await limiter.acquire_async(tokens=1_200, timeout=30.0)

Requests are limited exactly: no window of 60 seconds, wherever it begins, holds more admissions than the
limit. Tokens are limited as vendors do it, by a bucket that refills steadily.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import ConfigurationError, InputError, RateLimitedError
from cert.core.events import EventHub, RateLimitWaited, default_hub
from cert.core.rate_limit_window import MINUTE_SECONDS, LocalWindow, RateLimits, Window
from cert.core.redis_scripts import RedisScripts
from cert.core.redis_steps import Step
from cert.core.waiting_line import TaskTurn, ThreadTurn, Ticket, WaitingLine

__all__ = ["RateLimiter", "RateLimits"]


class RateLimiter:
    """Lets calls begin at a limited rate.

    For this process by default; for all replicas together with ``redis``. While Redis is gone, a replica
    keeps to its share of the limits, or without ``max_replicas`` admits nothing (`StoreError`), and says so
    with a `ComponentDegraded` event; when Redis is back, the shared limit counts again.

    Args:
        requests_per_minute: ``None`` is no limit.
        tokens_per_minute: the same for tokens.
        token_burst: tokens that may be taken at once; by default those of a minute.
        name: for events, and the key of a shared limit.
        redis: where replicas share the limit.
        max_replicas: how many replicas there are at most (``CERT_MAX_REPLICAS``).
        clock: for tests.
        hub: where events go; the process's own by default.

    Raises:
        ConfigurationError: a limit or ``max_replicas`` is not a whole number above zero.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        *,
        token_burst: int | None = None,
        name: str = "default",
        redis: RedisScripts | None = None,
        max_replicas: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
    ) -> None:
        self.name = name
        self.redis = redis
        self.limits = RateLimits(requests_per_minute, tokens_per_minute, token_burst)
        if max_replicas is not None and (not _whole(max_replicas) or max_replicas < 1):
            raise ConfigurationError(
                f"max_replicas is {max_replicas!r}; it must be a whole number of 1 or more, or None",
                context={"setting": "max_replicas"},
            )
        self._clock = clock
        self._hub = hub or default_hub()
        self._line = WaitingLine()
        self._ready_at = -math.inf  # when the first in the line may go, as far as is known
        self._window = LocalWindow(self.limits, clock) if redis is None else self._share(redis, max_replicas)

    @property
    def degraded(self) -> str | None:
        """``local_share`` or ``fail_closed`` while Redis cannot be used; ``None`` when all is well."""
        return self._window.degraded

    @property
    def waiting(self) -> int:
        """How many calls stand in the line, the one that is being served included."""
        return len(self._line)

    def acquire(
        self, tokens: int = 0, timeout: float | None = None, riders: Sequence[Step[Any]] = ()
    ) -> float:
        """Wait until a request of so many tokens may begin; return the seconds waited, 0 for at once.

        Args:
            tokens: that the request takes, at most the capacity.
            timeout: seconds to wait at most; 0 does not wait, ``None`` waits as long as it takes.
            riders: steps on the same Redis to be taken in the round trip that admits the request; those that
                could not be are still pending afterwards.

        Raises:
            RateLimitedError: the time-out cannot be met; ``retry_after`` says how long it would take at
                least. It is raised at once where that is known, not after the time-out.
            InputError: the tokens are more than the limit can ever admit, or no whole number of 0 or more;
                or the time-out is negative or NaN.
            StoreError: the shared limit cannot be used and there is no share to fall back to.
        """
        self._check(tokens, timeout)
        began, turn = self._clock.monotonic(), ThreadTurn()
        ticket = self._line.join(tokens, turn.call)
        waited = not turn.come
        try:
            while not turn.come:
                turn.wait(self._patience(ticket, began, timeout))
            while (wait := self._window.take(tokens, riders)) > 0:
                waited = True
                self._clock.sleep(self._affordable(wait, began, timeout))
        finally:
            self._line.leave(ticket)
        return self._admitted(began) if waited else 0.0

    async def acquire_async(
        self, tokens: int = 0, timeout: float | None = None, riders: Sequence[Step[Any]] = ()
    ) -> float:
        """Do what `acquire` does without holding up the event loop.

        A task that is cancelled gives its place back.
        """
        self._check(tokens, timeout)
        began, turn = self._clock.monotonic(), TaskTurn()
        ticket = self._line.join(tokens, turn.call)
        waited = not turn.come
        try:
            while not turn.come:
                await turn.wait(self._patience(ticket, began, timeout), self._clock)
            while (wait := await self._window.take_async(tokens, riders)) > 0:
                waited = True
                await self._clock.sleep_async(self._affordable(wait, began, timeout))
        finally:
            self._line.leave(ticket)
        return self._admitted(began) if waited else 0.0

    def _share(self, redis: RedisScripts, max_replicas: int | None) -> Window:
        from cert.core.rate_limit_redis import RedisWindow, SharedWindow

        part = None if max_replicas is None else self.limits.share(max_replicas)
        return SharedWindow(
            RedisWindow(redis, self.name, self.limits, self._clock),
            None if part is None else LocalWindow(part, self._clock),
            name=self.name,
            clock=self._clock,
            hub=self._hub,
        )

    def _check(self, tokens: int, timeout: float | None) -> None:
        if not _whole(tokens) or tokens < 0:
            raise InputError(f"tokens is {tokens!r}; it must be a whole number of 0 or more")
        if timeout is not None and not timeout >= 0:  # NaN compares false
            raise InputError(f"timeout is {timeout!r}; it must be seconds of 0 or more, or None")
        capacity = self.limits.capacity
        if capacity is not None and tokens > capacity:
            raise InputError(
                f"a request of {tokens} tokens can never be admitted: the limit holds {capacity} at once",
                hint="send a shorter request, or raise tokens_per_minute or token_burst",
                context={"limit": self.name, "tokens": tokens, "capacity": capacity},
            )

    def _patience(self, ticket: Ticket, began: float, timeout: float | None) -> float:
        """Seconds to wait for the turn; raises if, as the line stands, it cannot come in time."""
        remaining = self._remaining(began, timeout)
        least = self._least_wait(ticket)
        if remaining <= 0 or least > remaining:
            raise self._refusal(least)
        return remaining

    def _affordable(self, wait: float, began: float, timeout: float | None) -> float:
        """The wait of the first in the line; raises if it is longer than the time that is left."""
        self._ready_at = self._clock.monotonic() + wait
        if wait > self._remaining(began, timeout):
            raise self._refusal(wait)
        return wait

    def _remaining(self, began: float, timeout: float | None) -> float:
        return math.inf if timeout is None else timeout - (self._clock.monotonic() - began)

    def _least_wait(self, ticket: Ticket) -> float:
        """Seconds that a place takes at least if all who were before it stay."""
        wait = max(0.0, self._ready_at - self._clock.monotonic())
        if self.limits.requests_per_minute is not None:
            wait = max(wait, ticket.ahead // self.limits.requests_per_minute * MINUTE_SECONDS)
        if self.limits.tokens_per_minute is not None and self.limits.capacity is not None:
            over = ticket.tokens_ahead + ticket.tokens - self.limits.capacity
            wait = max(wait, over * MINUTE_SECONDS / self.limits.tokens_per_minute)
        return wait

    def _refusal(self, wait: float) -> RateLimitedError:
        return RateLimitedError(
            f"our own rate limit cannot admit the call in time: it takes at least {wait:.1f} s more",
            hint="call less often, allow more time, or raise requests_per_minute or tokens_per_minute",
            retry_after=wait,
            context={"limit": self.name, "waiting": len(self._line)},
        )

    def _admitted(self, began: float) -> float:
        waited = self._clock.monotonic() - began
        self._hub.emit(RateLimitWaited(limit=self.name, seconds=waited))
        return waited


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
