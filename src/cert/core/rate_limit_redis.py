"""What all replicas admitted in the last minute, in Redis; and what a replica does while Redis is gone."""

from __future__ import annotations

import functools
import math
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any

from cert.core.clock import Clock
from cert.core.errors import StoreError
from cert.core.events import EventHub
from cert.core.outage import Outage
from cert.core.rate_limit_window import MINUTE_SECONDS, LocalWindow, RateLimits
from cert.core.redis_scripts import RedisScripts, Script
from cert.core.redis_steps import Step, take, take_async
from cert.core.redis_time import SHARED_TIME, TimeWitness

__all__ = ["RedisWindow", "SharedWindow"]

_MINUTE = MINUTE_SECONDS * 1_000_000
# A wall clock that is being set right by slewing may run 0.05 % fast, which is 30 ms a minute.
_WINDOW = _MINUTE + 50_000
_DAY_SECONDS = 86_400
_HOUR = 3_600_000_000
# What has left the window is cleared away so often.
_SWEEP = 10_000_000


# Keys: `state` (time, generation, theoretical arrival time of the tokens), `log` (requests by time).
# Arguments: shared time last seen, microseconds since (least, most), generation known and to begin with,
# id, tokens; then pairs of id and tokens of callers that gave up while they asked: what they have taken is
# put back. Returns the microseconds to wait (-1: what was admitted in the last minute is lost), the shared
# time, the generation. The limits are written in: requests a minute (-1: none), microseconds a token (0: no
# limit), burst.
#
# What is read is read first, and what has to be kept is kept in one write: each command inside of Redis costs
# some microseconds. The first write is one that a full Redis refuses, so that all are done or none.
@functools.cache
def _script(requests: int, emission: int, burst: int) -> Script:
    return Script(
        f"""
local limit, emission, burst = {requests}, {emission}, {burst}
local state, log = KEYS[1], KEYS[2]
{SHARED_TIME}
local seen, least, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', state, 'last', 'offset', 'generation', 'arrival', 'renewed', 'swept')
local generation = kept[3]
if generation ~= ARGV[4] and seen > 0 and least <= {_WINDOW} then return {{-1, 0, ''}} end
local now, offset = shared_time(kept[1], kept[2], seen, least, most)
generation = generation or ARGV[5]
local function keep(...)
  redis.call('HSET', state, 'last', now, 'offset', offset, 'generation', generation, ...)
end
local id, tokens, arrival = ARGV[6], tonumber(ARGV[7]), tonumber(kept[4] or '0')
if ARGV[8] then
  keep()
  for at = 8, #ARGV, 2 do
    if redis.call('ZREM', log, ARGV[at]) == 1 then arrival = arrival - tonumber(ARGV[at + 1]) * emission end
  end
end
local wait, taken = 0, 0
local oldest = now - {_WINDOW}
if limit >= 0 then
  taken = redis.call('ZCOUNT', log, oldest, '+inf')
  if taken >= limit then
    local blocking = redis.call('ZRANGE', log, -limit, -limit, 'WITHSCORES')
    wait = tonumber(blocking[2]) + {_WINDOW} + 1 - now
  end
end
local advanced = arrival
if emission > 0 and tokens > 0 then
  advanced = math.max(now, arrival) + tokens * emission
  wait = math.max(wait, advanced - burst * emission - now)
end
-- A step sent twice: it has its place already, whatever the log says now.
local again = false
if limit >= 0 then
  if wait > 0 then
    again = redis.call('ZSCORE', log, id)
  else
    again = redis.call('ZADD', log, 'NX', now, id) == 0
  end
end
if again then wait = 0 elseif wait <= 0 then arrival = advanced end
local function due(field, span) return now - tonumber(field or '0') > span or now < tonumber(field or '0') end
local renew, sweep = due(kept[5], {_HOUR}), due(kept[6], {_SWEEP})
keep('arrival', arrival, 'renewed', renew and now or kept[5], 'swept', sweep and now or kept[6])
if sweep then redis.call('ZREMRANGEBYSCORE', log, '-inf', string.format('(%.0f', oldest)) end
-- A log that was empty is a new key now.
if renew or taken == 0 then redis.call('EXPIRE', log, {_DAY_SECONDS}) end
if renew then redis.call('EXPIRE', state, {_DAY_SECONDS}) end
return {{math.max(0, wait), now, generation}}
""",
        goes_on="answer[1] == 0",
    )


_MOST_ABANDONED = 1000
_ABANDONED_A_STEP = 50


class RedisWindow:
    """A window that replicas share.

    A request is dated by Redis when it is admitted, so that the clocks of the replicas do not matter, and
    counts for 50 ms more than the minute.
    """

    def __init__(self, redis: RedisScripts, name: str, limits: RateLimits, clock: Clock) -> None:
        self._redis = redis
        self.clock = clock
        self.keys = [f"cert:rate_limit:{{{name}}}:{part}" for part in ("state", "log")]
        requests, rate = limits.requests_per_minute, limits.tokens_per_minute
        self.script = _script(
            -1 if requests is None else requests,
            # Rounded up to a whole microsecond a token, as pyrate-limiter does: strict, and exact in sums.
            0 if rate is None else math.ceil(_MINUTE / rate),
            limits.capacity or 0,
        )
        self.witness = TimeWitness()
        self.generation = ""
        self.abandoned: deque[tuple[str, int]] = deque(maxlen=_MOST_ABANDONED)

    def take(self, tokens: int, riders: Sequence[Step[Any]] = ()) -> float:
        """Admit a request, which returns 0, or return the seconds after which to ask again.

        Args:
            tokens: that it takes.
            riders: steps to be taken in the same round trip, if it is admitted.

        Raises:
            StoreError: Redis cannot be used; ``reason`` is ``lost`` where it has forgotten the window.
        """
        step = _Take(self, tokens)
        take(self._redis, [step, *riders])
        return step.result()

    async def take_async(self, tokens: int, riders: Sequence[Step[Any]] = ()) -> float:
        """Do what `take` does without holding up the event loop."""
        step = _Take(self, tokens)
        await take_async(self._redis, [step, *riders])
        return step.result()


class _Take(Step[float]):
    """One question of a window, whether a request may begin."""

    rides = False

    def __init__(self, window: RedisWindow, tokens: int) -> None:
        self.script = window.script
        self.keys = window.keys
        self._window = window
        self._tokens = tokens
        self._identifier = secrets.token_hex(12)
        self._wait = 0.0
        self._error: BaseException | None = None

    def arguments(self) -> list[str | int]:
        window = self._window
        self._asked_at = window.clock.monotonic()
        step: list[str | int] = [*window.witness.evidence(self._asked_at), window.generation]
        # A window that begins is named after the request that begins it.
        step += [self._identifier, self._identifier, self._tokens]
        for _ in range(min(len(window.abandoned), _ABANDONED_A_STEP)):
            # What is told twice or never does no harm: the place is free after a minute all the same.
            step += window.abandoned.popleft()
        return step

    def answered(self, answer: list[Any]) -> None:
        window = self._window
        wait, now = int(answer[0]), int(answer[1])
        if wait < 0:
            window.witness, window.generation = TimeWitness(), ""
            raise StoreError(
                "the shared Redis has lost what was admitted in the last minute",
                hint="give it appendonly yes and no eviction",
                context={"store": "redis", "reason": "lost"},
            )
        word = answer[2]
        window.generation = word.decode() if isinstance(word, bytes) else word
        window.witness.saw(now, asked_at=self._asked_at, heard_at=window.clock.monotonic())
        self._wait = wait / 1_000_000

    def failed(self, error: BaseException) -> None:
        self._window.abandoned.append((self._identifier, self._tokens))
        self._error = error

    def result(self) -> float:
        if self._error is not None:
            raise self._error
        return self._wait


class SharedWindow:
    """The window of all replicas, and while Redis is gone this replica's share of the limits.

    Each replica counts what it admits itself, always. While Redis is gone, and for a minute after, that may
    not be more than its share, so that all replicas together keep to the limits; only what was admitted
    unevenly in the minute before Redis went can come on top. Redis is asked again, at most once a second,
    by a call that the share has room for. Without a share nothing is admitted.

    Args:
        redis: the shared window.
        share: the local window of this replica's part; ``None`` to fail closed.
        name: for the event that tells of it.
        clock: monotonic.
        hub: where the event goes.
    """

    def __init__(
        self, redis: RedisWindow, share: LocalWindow | None, *, name: str, clock: Clock, hub: EventHub
    ) -> None:
        self._redis = redis
        self._share = share
        self._clock = clock
        mode = "fail_closed" if share is None else "local_share"
        self._outage = Outage(f"rate_limit.{name}", mode, hub)
        self._careful_until = -math.inf

    @property
    def degraded(self) -> str | None:
        """``local_share`` or ``fail_closed`` while Redis cannot be used."""
        return self._outage.mode

    def take(self, tokens: int, riders: Sequence[Step[Any]] = ()) -> float:
        """Admit a request, which returns 0, or return the seconds after which to ask again.

        Args:
            tokens: that it takes.
            riders: steps to be taken in the same round trip, where Redis is asked and admits it.

        Raises:
            StoreError: Redis cannot be used, and there is no share, or none that could hold the request.
        """
        wait = self._without_redis(tokens)
        if wait is not None:
            return wait
        try:
            wait = self._redis.take(tokens, riders)
        except StoreError as error:
            return self._failed(tokens, error)
        return self._answered(tokens, wait)

    async def take_async(self, tokens: int, riders: Sequence[Step[Any]] = ()) -> float:
        """Do what `take` does without holding up the event loop."""
        wait = self._without_redis(tokens)
        if wait is not None:
            return wait
        try:
            wait = await self._redis.take_async(tokens, riders)
        except StoreError as error:
            return self._failed(tokens, error)
        return self._answered(tokens, wait)

    def _without_redis(self, tokens: int) -> float | None:
        """The answer, where Redis is not to be asked."""
        now = self._clock.monotonic()
        closed_for = self._outage.closed_for(now)
        if closed_for > 0:
            return self._alone(tokens, retry_after=closed_for)
        careful_for = max(0.0, self._careful_until - now)
        if self._share is None:
            return careful_for or None
        out = self._outage.mode is not None
        if not out and careful_for == 0:
            return None
        wait = self._share.wait(tokens)
        if math.isinf(wait):  # more than the share ever holds: only Redis can admit it
            return None if out else careful_for
        return wait or None

    def _failed(self, tokens: int, error: StoreError) -> float:
        now = self._clock.monotonic()
        self._outage.failed(now)
        if error.context.get("reason") == "lost":
            self._careful_until = now + MINUTE_SECONDS
        return self._alone(tokens, cause=error)

    def _answered(self, tokens: int, wait: float) -> float:
        if self._outage.worked() and self._share is not None:
            self._careful_until = self._clock.monotonic() + MINUTE_SECONDS
        if wait == 0 and self._share is not None:
            self._share.take(tokens)
        return wait

    def _alone(
        self, tokens: int, *, cause: StoreError | None = None, retry_after: float | None = None
    ) -> float:
        wait = math.inf if self._share is None else self._share.take(tokens)
        if math.isfinite(wait):
            return wait
        raise StoreError(
            "the shared rate limit cannot be used just now, and this replica has no share for the call",
            hint="see that Redis runs; CERT_MAX_REPLICAS gives each replica its share meanwhile",
            retry_after=retry_after,
            context={"store": "redis"} if cause is None else cause.context,
        ) from cause
