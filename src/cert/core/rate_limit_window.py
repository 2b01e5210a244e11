"""What one process admitted in the last minute: requests exactly, tokens by the generic cell rate algorithm.

Both are `pyrate-limiter`'s: its sliding log for requests, its GCRA for tokens. A request that a limit refuses
takes nothing from the other.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from cert.core.clock import Clock
from cert.core.errors import ConfigurationError, DependencyMissingError
from cert.core.redis_steps import Step

if TYPE_CHECKING:
    from pyrate_limiter import InMemoryBucket, StateBucket
    from pyrate_limiter.abstracts.algorithm import State

__all__ = ["LocalWindow", "RateLimits", "Window"]

MINUTE_SECONDS = 60
# Lua's numbers, and a log of one entry a request, are made for less.
_MOST_REQUESTS = 1_000_000
_MOST_TOKENS = 60_000_000


@dataclass(frozen=True)
class RateLimits:
    """Limits on what is begun in a minute; ``None`` is no limit.

    Attributes:
        requests_per_minute: in every window of 60 seconds, wherever it begins.
        tokens_per_minute: the rate at which a bucket of ``token_burst`` tokens refills, as vendors count;
            a window can hold up to the burst and the rate together.
        token_burst: tokens that may be taken at once; by default as many as in a minute.

    Raises:
        ConfigurationError: a limit is not a whole number above zero.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    token_burst: int | None = None

    def __post_init__(self) -> None:
        _check("requests_per_minute", self.requests_per_minute, _MOST_REQUESTS)
        _check("tokens_per_minute", self.tokens_per_minute, _MOST_TOKENS)
        _check("token_burst", self.token_burst, _MOST_TOKENS)

    @property
    def capacity(self) -> int | None:
        """The most tokens that one request can ever have."""
        return None if self.tokens_per_minute is None else self.token_burst or self.tokens_per_minute

    def share(self, replicas: int) -> RateLimits | None:
        """Return one replica's part, rounded down; ``None`` where a limit is too small to be divided."""
        parts = [
            None if limit is None else limit // replicas
            for limit in (self.requests_per_minute, self.tokens_per_minute, self.token_burst)
        ]
        return None if 0 in parts else RateLimits(*parts)


class Window(Protocol):
    """What was admitted in the last minute, in this process or by all replicas."""

    @property
    def degraded(self) -> str | None:
        """What the window does instead of its work just now; ``None`` when all is well."""
        ...

    def take(self, tokens: int, riders: Sequence[Step[Any]] = (), /) -> float:
        """Admit a request, which returns 0, or return the seconds after which to ask again.

        ``riders`` are steps on a shared Redis, which may be taken in the same round trip if it is admitted.
        """
        ...

    async def take_async(self, tokens: int, riders: Sequence[Step[Any]] = (), /) -> float:
        """Do what `take` does without holding up the event loop."""
        ...


class LocalWindow:
    """A window of one process.

    Raises:
        DependencyMissingError: the package pyrate-limiter is not installed.
    """

    degraded = None

    def __init__(self, limits: RateLimits, clock: Clock) -> None:
        try:
            from pyrate_limiter import GCRA, InMemoryBucket, Rate, RateItem, SlidingWindowLog, StateBucket
        except ModuleNotFoundError as error:
            raise DependencyMissingError(
                "rate limits need the package pyrate-limiter",
                hint="it comes with cert-framework: reinstall that",
            ) from error
        minute = MINUTE_SECONDS * 1000
        self._item = RateItem
        self._log, self._gcra = SlidingWindowLog(), GCRA()
        self._clock = clock
        self._lock = threading.Lock()
        self._requests: InMemoryBucket | None = None
        self._tokens: StateBucket | None = None
        if limits.requests_per_minute is not None:
            self._requests = InMemoryBucket([Rate(limits.requests_per_minute, minute)], algorithm=self._log)
        if limits.tokens_per_minute is not None:
            rate = Rate(limits.tokens_per_minute, minute, burst=limits.capacity)
            self._tokens = StateBucket([rate], algorithm=self._gcra)

    def take(self, tokens: int, _riders: Sequence[Step[Any]] = ()) -> float:
        """Admit a request, which returns 0, or return the seconds after which to ask again."""
        with self._lock:
            now = int(self._clock.monotonic() * 1000)
            wait = self._wait(tokens, now)
            if wait == 0:
                self._put(tokens, now)
            return wait / 1000

    async def take_async(self, tokens: int, _riders: Sequence[Step[Any]] = ()) -> float:
        """Do what `take` does."""
        return self.take(tokens)

    def wait(self, tokens: int) -> float:
        """Return what `take` would, without taking anything; infinity where it never can."""
        with self._lock:
            return self._wait(tokens, int(self._clock.monotonic() * 1000)) / 1000

    def _wait(self, tokens: int, now: int) -> float:
        return max(self._wait_for_request(now), self._wait_for_tokens(tokens, now))

    def _wait_for_request(self, now: int) -> int:
        if self._requests is None:
            return 0
        rate = self._requests.rates[0]
        self._requests.leak(now)  # what is left is in the window
        if self._requests.count() < rate.limit:
            return 0
        oldest = self._requests.peek(rate.limit - 1)
        return self._log.retry_after(rate, now, oldest.timestamp if oldest else None)

    def _wait_for_tokens(self, tokens: int, now: int) -> float:
        if self._tokens is None or tokens == 0:
            return 0
        rates = self._tokens.rates
        if tokens > self._gcra.max_weight(rates[0]):
            return math.inf
        state = cast("State", self._tokens.store.read(self._gcra, rates))
        _, decision = self._gcra.step(rates, state, now, tokens)
        return decision.retry_after_ms or 0

    def _put(self, tokens: int, now: int) -> None:
        admitted: list[object] = []
        if self._requests is not None:
            # Asked at the beginning of its millisecond and dated at the end: never counted as too early.
            admitted.append(self._requests.put(self._item("request", now + 1)))
        if self._tokens is not None:
            admitted.append(self._tokens.put(self._item("tokens", now, weight=tokens)))
        if not all(admitted):
            raise AssertionError("a window that had room refused")  # the bucket's answer is never ignored


def _check(name: str, limit: object, most: int) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise ConfigurationError(
            f"{name} is {limit!r}; it must be a whole number from 1 to {most}, or None for no limit",
            context={"setting": name},
        )
