"""What all replicas admitted in the last minute, in Redis; and what a replica does while Redis is gone."""

from __future__ import annotations

import math
import secrets
from collections import deque
from typing import Any

from cert.core.clock import Clock
from cert.core.errors import StoreError
from cert.core.events import EventHub
from cert.core.outage import Outage
from cert.core.rate_limit_window import MINUTE_SECONDS, LocalWindow, RateLimits
from cert.core.redis_scripts import RedisScripts, Script
from cert.core.redis_time import SHARED_TIME, TimeWitness

__all__ = ["RedisWindow", "SharedWindow"]

_MINUTE = MINUTE_SECONDS * 1_000_000
# A wall clock that is being set right by slewing may run 0.05 % fast, which is 30 ms a minute.
_WINDOW = _MINUTE + 50_000
_DAY_SECONDS = 86_400

# Keys: `state` (time, generation, theoretical arrival time of the tokens), `log` (requests by time).
# Arguments: shared time last seen, microseconds since (least, most), generation known and to begin with,
# id, requests a minute (-1: no limit), tokens, microseconds a token (0: no limit), burst; then pairs of id
# and tokens of callers that gave up while they asked: what they have taken is put back. Returns the
# microseconds to wait (-1: what was admitted in the last minute is lost), the shared time, the generation.
_TAKE = Script(f"""
local state, log = KEYS[1], KEYS[2]
{SHARED_TIME}
local seen = tonumber(ARGV[1])
local generation = redis.call('HGET', state, 'generation')
if generation ~= ARGV[4] and seen > 0 and tonumber(ARGV[2]) <= {_WINDOW} then return {{-1, 0, ''}} end
local now = shared_time(state, seen, tonumber(ARGV[2]), tonumber(ARGV[3]))
if not generation then
  generation = ARGV[5]
  redis.call('HSET', state, 'generation', generation)
end
local function whole(number) return string.format('%.0f', number) end
local limit, tokens, emission = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local stored = tonumber(redis.call('HGET', state, 'arrival') or '0')
local wait, arrival, at = 0, stored, 11
while ARGV[at] do
  if redis.call('ZREM', log, ARGV[at]) == 1 then arrival = arrival - tonumber(ARGV[at + 1]) * emission end
  at = at + 2
end
if limit >= 0 then
  redis.call('ZREMRANGEBYSCORE', log, '-inf', '(' .. whole(now - {_WINDOW}))
  if redis.call('ZSCORE', log, ARGV[6]) then return {{0, now, generation}} end
  local over = redis.call('ZCARD', log) - limit
  if over >= 0 then
    local blocking = redis.call('ZRANGE', log, whole(over), whole(over), 'WITHSCORES')
    wait = tonumber(blocking[2]) + {_WINDOW} + 1 - now
  end
end
if emission > 0 and tokens > 0 then
  local later = math.max(now, arrival) + tokens * emission
  wait = math.max(wait, later - tonumber(ARGV[10]) * emission - now)
  if wait <= 0 then arrival = later end
end
if wait <= 0 then
  wait = 0
  if limit >= 0 then redis.call('ZADD', log, whole(now), ARGV[6]) end
end
if arrival ~= stored then redis.call('HSET', state, 'arrival', whole(arrival)) end
redis.call('EXPIRE', log, {_DAY_SECONDS})
redis.call('EXPIRE', state, {_DAY_SECONDS})
return {{wait, now, generation}}
""")
_MOST_ABANDONED = 1000
_ABANDONED_A_STEP = 50


class RedisWindow:
    """A window that replicas share.

    A request is dated by Redis when it is admitted, so that the clocks of the replicas do not matter, and
    counts for 50 ms more than the minute.
    """

    def __init__(self, redis: RedisScripts, name: str, limits: RateLimits, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._keys = [f"cert:rate_limit:{{{name}}}:{part}" for part in ("state", "log")]
        self._requests = -1 if limits.requests_per_minute is None else limits.requests_per_minute
        rate = limits.tokens_per_minute
        # Rounded up to a whole microsecond a token, as pyrate-limiter does: strict, and exact in sums.
        self._emission = 0 if rate is None else math.ceil(_MINUTE / rate)
        self._burst = limits.capacity or 0
        self._witness = TimeWitness()
        self._generation = ""
        self._abandoned: deque[tuple[str, int]] = deque(maxlen=_MOST_ABANDONED)

    def take(self, tokens: int) -> float:
        """Admit a request, which returns 0, or return the seconds after which to ask again.

        Raises:
            StoreError: Redis cannot be used; ``reason`` is ``lost`` where it has forgotten the window.
        """
        identifier, asked_at, step = self._begin(tokens)
        try:
            return self._end(asked_at, self._redis.run(_TAKE, self._keys, step))
        except BaseException:
            self._abandoned.append((identifier, tokens))
            raise

    async def take_async(self, tokens: int) -> float:
        """Do what `take` does without holding up the event loop."""
        identifier, asked_at, step = self._begin(tokens)
        try:
            return self._end(asked_at, await self._redis.run_async(_TAKE, self._keys, step))
        except BaseException:
            self._abandoned.append((identifier, tokens))
            raise

    def _begin(self, tokens: int) -> tuple[str, float, list[str | int]]:
        asked_at, identifier = self._clock.monotonic(), secrets.token_hex(12)
        step: list[str | int] = [*self._witness.evidence(asked_at), self._generation]
        step += [secrets.token_hex(8), identifier]
        step += [self._requests, tokens, self._emission, self._burst]
        for _ in range(min(len(self._abandoned), _ABANDONED_A_STEP)):
            # What is told twice or never does no harm: the place is free after a minute all the same.
            step += self._abandoned.popleft()
        return identifier, asked_at, step

    def _end(self, asked_at: float, answer: list[Any]) -> float:
        wait, now = int(answer[0]), int(answer[1])
        if wait < 0:
            self._witness, self._generation = TimeWitness(), ""
            raise StoreError(
                "the shared Redis has lost what was admitted in the last minute",
                hint="give it appendonly yes and no eviction",
                context={"store": "redis", "reason": "lost"},
            )
        word = answer[2]
        self._generation = word.decode() if isinstance(word, bytes) else word
        self._witness.saw(now, asked_at=asked_at, heard_at=self._clock.monotonic())
        return wait / 1_000_000


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

    def take(self, tokens: int) -> float:
        """Admit a request, which returns 0, or return the seconds after which to ask again.

        Raises:
            StoreError: Redis cannot be used, and there is no share, or none that could hold the request.
        """
        wait = self._without_redis(tokens)
        if wait is not None:
            return wait
        try:
            wait = self._redis.take(tokens)
        except StoreError as error:
            return self._failed(tokens, error)
        return self._answered(tokens, wait)

    async def take_async(self, tokens: int) -> float:
        """Do what `take` does without holding up the event loop."""
        wait = self._without_redis(tokens)
        if wait is not None:
            return wait
        try:
            wait = await self._redis.take_async(tokens)
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
