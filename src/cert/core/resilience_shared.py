"""The layers for rate limit, budget and breaker where one Redis keeps them: two round trips a call, not five.

::

    rate limit, reservation, permit     on the way in: each only if the one before went through
    result, settlement                  on the way out

Nothing else differs from the plain layers: what is asked, in which order, and what becomes of each refusal
and failure. A layer that finds its step taken uses the answer; one that finds it pending asks by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar, cast

from cert.core.budget import Budget as SharedBudget
from cert.core.budget import Reservation as SharedReservation
from cert.core.circuit_breaker import Breaker, retry_after
from cert.core.circuit_breaker_redis import RedisCircuitBreaker
from cert.core.circuit_state import Permit
from cert.core.rate_limit import RateLimiter
from cert.core.redis_scripts import RedisScripts
from cert.core.redis_steps import Step, take, take_async
from cert.core.resilience_call import Call
from cert.core.resilience_layers import (
    BreakerLease,
    Budget,
    BudgetReservation,
    Layer,
    Limiter,
    RateLimit,
    Reservation,
)

__all__ = ["LimitLayers", "limit_layers"]

T = TypeVar("T")


class LimitLayers(NamedTuple):
    """The layers that limit a call, from outer to inner; ``None`` where there is nothing to do."""

    ahead: Layer | None
    rate_limit: Layer | None
    reservation: Layer | None
    lease: Layer | None


def limit_layers(
    limiter: Limiter | None,
    budget: Budget | None,
    breaker: Breaker | None,
    unbilled: Callable[[BaseException], bool],
) -> LimitLayers:
    """Return the layers for these parts: together where neighbours share a Redis, else each by itself."""
    plain = LimitLayers(
        None,
        RateLimit(limiter) if limiter is not None else None,
        BudgetReservation(budget, unbilled) if budget is not None else None,
        BreakerLease(breaker) if breaker is not None else None,
    )
    parts = [part for part in (limiter, budget, breaker) if part is not None]
    if len(parts) == 3 and _redis(limiter) is not _redis(budget):
        del parts[0]
    if len(parts) < 2 or len({_redis(part) for part in parts}) != 1 or _redis(parts[0]) is None:
        return plain
    redis = cast(RedisScripts, _redis(parts[0]))
    booked = cast("SharedBudget | None", budget)
    circuit = cast("RedisCircuitBreaker | None", breaker)
    return LimitLayers(
        Ahead(booked, circuit),
        RateLimitTogether(cast(RateLimiter, limiter)) if limiter in parts else plain.rate_limit,
        ReservationTogether(booked, unbilled, redis) if booked is not None else None,
        LeaseTogether(circuit, redis, settled=booked is not None) if circuit is not None else None,
    )


def _redis(part: object) -> RedisScripts | None:
    return part.redis if isinstance(part, RateLimiter | SharedBudget | RedisCircuitBreaker) else None


class Ahead:
    """Makes ready, for each attempt, what the layers inside will ask."""

    def __init__(self, budget: SharedBudget | None, breaker: RedisCircuitBreaker | None) -> None:
        self._budget = budget
        self._breaker = breaker

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Make the steps, then go on."""
        self._make_ready(call)
        return inner()

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""
        self._make_ready(call)
        return await inner()

    def _make_ready(self, call: Call) -> None:
        steps: list[Step[Any]] = []
        if self._budget is not None:
            assert call.demand.micro_dollars is not None
            steps.append(self._budget.reserving(call.demand.micro_dollars, call.demand.agent))
        if self._breaker is not None:
            steps.append(self._breaker.acquiring())
        call.ahead, call.behind = steps, None


class RateLimitTogether:
    """Waits for a turn; what comes after is asked in the round trip that grants it."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Wait, then go on."""
        self._limiter.acquire(call.demand.tokens, call.remaining(), call.ahead)
        return inner()

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""
        await self._limiter.acquire_async(call.demand.tokens, call.remaining(), call.ahead)
        return await inner()


class ReservationTogether(BudgetReservation):
    """Sets money aside, and closes the reservation in the round trip that tells the breaker of the result."""

    def __init__(
        self, budget: SharedBudget, unbilled: Callable[[BaseException], bool], redis: RedisScripts
    ) -> None:
        super().__init__(budget, unbilled)
        self._redis = redis

    def _reserve(self, call: Call) -> Reservation:
        step = call.ahead[0]
        if step.pending:
            take(self._redis, call.ahead)
        return _Held(call, step.result(), self._redis)

    async def _reserve_async(self, call: Call) -> Reservation:
        step = call.ahead[0]
        if step.pending:
            await take_async(self._redis, call.ahead)
        return _Held(call, step.result(), self._redis)


class _Held:
    """A reservation that takes what the call has left behind along when it is closed."""

    def __init__(self, call: Call, reservation: SharedReservation, redis: RedisScripts) -> None:
        self._call = call
        self._reservation = reservation
        self._redis = redis

    def settle(self, micro_dollars: int) -> bool:
        return self._close(micro_dollars)

    def keep(self) -> bool:
        return self._close(None)

    def release(self) -> bool:
        return self._close(0)

    async def settle_async(self, micro_dollars: int) -> bool:
        return await self._close_async(micro_dollars)

    async def keep_async(self) -> bool:
        return await self._close_async(None)

    async def release_async(self) -> bool:
        return await self._close_async(0)

    def _close(self, spent: int | None) -> bool:
        closing = self._reservation.closing(spent)
        steps = self._with_what_is_behind(closing)
        while closing.pending:
            take(self._redis, steps)
        return closing.result()

    async def _close_async(self, spent: int | None) -> bool:
        closing = self._reservation.closing(spent)
        steps = self._with_what_is_behind(closing)
        while closing.pending:
            await take_async(self._redis, steps)
        return closing.result()

    def _with_what_is_behind(self, closing: Step[bool]) -> list[Step[Any]]:
        return [closing] if self._call.behind is None else [self._call.behind, closing]


class LeaseTogether(BreakerLease):
    """Takes the breaker's permit, and leaves the result to whoever settles the cost right after.

    Args:
        breaker: shared.
        redis: where it is.
        settled: whether there is a budget further out, whose reservation is closed next whatever happened.
    """

    def __init__(self, breaker: RedisCircuitBreaker, redis: RedisScripts, *, settled: bool) -> None:
        super().__init__(breaker)
        self._shared = breaker
        self._redis = redis
        self._settled = settled

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Go on under a permit."""
        step = call.ahead[-1]
        if step.pending:
            take(self._redis, [step])
        permit = step.result()
        try:
            answer = inner()
        except BaseException as error:
            self._report(call, permit, error)
            raise
        self._report(call, permit, None)
        return answer

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""
        step = call.ahead[-1]
        if step.pending:
            await take_async(self._redis, [step])
        permit = step.result()
        try:
            answer = await inner()
        except BaseException as error:
            await self._report_async(call, permit, error)
            raise
        await self._report_async(call, permit, None)
        return answer

    def _report(self, call: Call, permit: Permit, error: BaseException | None) -> None:
        outcome, pause = self._shared.classify(error), retry_after(error)
        if self._settled and permit.shared:
            call.behind = self._shared.recording(permit, outcome, pause)
        else:
            self._shared.record(permit, outcome, pause)

    async def _report_async(self, call: Call, permit: Permit, error: BaseException | None) -> None:
        outcome, pause = self._shared.classify(error), retry_after(error)
        if self._settled and permit.shared:
            call.behind = self._shared.recording(permit, outcome, pause)
        else:
            await self._shared.record_async(permit, outcome, pause)
