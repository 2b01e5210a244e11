"""The layers of the resilience stack: one policy each, plain and ``async``; `resilience` has their order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from cert.core.circuit_breaker import Breaker
from cert.core.errors import (
    CertError,
    RetriesExhaustedError,
    UpstreamRateLimitError,
    UpstreamTimeoutError,
)
from cert.core.events import CallFinished, EventHub
from cert.core.resilience_call import Call, surely_unbilled
from cert.core.retry import Retry

__all__ = [
    "AttemptTimeout",
    "BreakerLease",
    "BreakerRefusal",
    "Budget",
    "BudgetReservation",
    "Deadline",
    "Instrument",
    "Layer",
    "Limiter",
    "RateLimit",
    "Reservation",
    "Retrying",
]

T = TypeVar("T")

# Every layer keeps to the deadline by itself; one that does not is cancelled so much later.
_GRACE_SECONDS = 0.25


class Limiter(Protocol):
    """What the stack needs of a rate limit: wait for a turn, return the seconds waited."""

    def acquire(self, tokens: int = 0, timeout: float | None = None, /) -> float:
        """Wait, ``timeout`` seconds at most."""
        ...

    async def acquire_async(self, tokens: int = 0, timeout: float | None = None, /) -> float:
        """Do the same."""
        ...


class Reservation(Protocol):
    """Money set aside for one attempt, to be closed in one of three ways."""

    def settle(self, micro_dollars: int, /) -> object:
        """It did cost so much."""
        ...

    def keep(self) -> object:
        """It may have been billed: all of it is spent."""
        ...

    def release(self) -> object:
        """It was surely not billed."""
        ...

    async def settle_async(self, micro_dollars: int, /) -> object:
        """It did cost so much."""
        ...

    async def keep_async(self) -> object:
        """It may have been billed: all of it is spent."""
        ...

    async def release_async(self) -> object:
        """It was surely not billed."""
        ...


class Budget(Protocol):
    """What the stack needs of a budget."""

    def reserve(self, micro_dollars: int, agent: str | None = None, /) -> Reservation:
        """Set money aside, or raise."""
        ...

    async def reserve_async(self, micro_dollars: int, agent: str | None = None, /) -> Reservation:
        """Do the same."""
        ...


class Layer(Protocol):
    """Something around a call: does its part and calls what is inside."""

    def around(self, call: Call, inner: Callable[[], T], /) -> T:
        """Return what ``inner`` returns, or raise."""
        ...

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]], /) -> T:
        """Do the same."""
        ...


class Instrument:
    """Tells of every call how it ended, how long it took and how often it was tried."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Emit `CallFinished`, whatever the end."""
        try:
            answer = inner()
        except BaseException as error:
            self._tell(call, _outcome(error))
            raise
        self._tell(call, "ok")
        return answer

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""
        try:
            answer = await inner()
        except BaseException as error:
            self._tell(call, _outcome(error))
            raise
        self._tell(call, "ok")
        return answer

    def _tell(self, call: Call, outcome: str) -> None:
        self._hub.emit(
            CallFinished(
                operation=call.operation, outcome=outcome, seconds=call.elapsed(), attempts=call.attempts
            )
        )


def _outcome(error: BaseException) -> str:
    if isinstance(error, CertError):
        return error.code
    return "error" if isinstance(error, Exception) else "cancelled"


class Deadline:
    """Bounds the whole call.

    The layers inside ask `Call.remaining` before they wait; for a task there is a backstop besides. Plain
    code cannot be interrupted: it ends in time if its transport keeps to `Attempt.timeout_seconds`.
    """

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Turn retries that ran out of time into the error that says so."""
        try:
            return inner()
        except RetriesExhaustedError as error:
            raise _late(call, error) from error.__cause__

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same, and cancel what overstays."""
        try:
            async with asyncio.timeout(call.seconds + _GRACE_SECONDS) as limit:
                return await inner()
        except RetriesExhaustedError as error:
            raise _late(call, error) from error.__cause__
        except TimeoutError as error:
            if limit.expired():
                raise call.too_late() from error
            raise


def _late(call: Call, error: RetriesExhaustedError) -> CertError:
    return call.too_late() if call.elapsed() >= call.seconds else error


class Retrying:
    """Makes attempts until one succeeds, none is left, or no further one fits the deadline.

    A pause that the server asked another call for is waited out and is no attempt: of many calls at once,
    each 429 would otherwise use up an attempt of all of them.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry

    def _pause(self, call: Call, error: UpstreamRateLimitError) -> float:
        """Return the seconds to wait before this attempt is made after all.

        Raises:
            UpstreamRateLimitError: it was made, or that pause does not fit.
        """
        if error.context.get("sent") is not False or error.retry_after is None:
            raise error
        # With jitter, as after a failure of our own: all others wait for the same moment.
        pause = error.retry_after + self._retry.uniform(0.0, self._retry.policy.ceiling(1))
        if pause >= call.remaining():
            raise error
        return pause

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Try, and try again."""

        def attempt() -> T:
            call.attempts += 1
            while True:
                try:
                    return inner()
                except UpstreamRateLimitError as error:
                    pause = self._pause(call, error)
                self._retry.clock.sleep(pause)

        return self._retry.call(attempt, seconds=call.remaining(), operation=call.operation)

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""

        async def attempt() -> T:
            call.attempts += 1
            while True:
                try:
                    return await inner()
                except UpstreamRateLimitError as error:
                    pause = self._pause(call, error)
                await self._retry.clock.sleep_async(pause)

        return await self._retry.call_async(attempt, seconds=call.remaining(), operation=call.operation)


class BreakerRefusal:
    """Refuses while the circuit is open, before anything is waited for or set aside."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def around(self, _call: Call, inner: Callable[[], T]) -> T:
        """Look, then go on."""
        self._breaker.check()
        return inner()

    async def around_async(self, _call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""
        await self._breaker.check_async()
        return await inner()


class RateLimit:
    """Waits for a turn, as long as there is time."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Wait, then go on."""
        self._limiter.acquire(call.demand.tokens, call.remaining())
        return inner()

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""
        await self._limiter.acquire_async(call.demand.tokens, call.remaining())
        return await inner()


class BudgetReservation:
    """Sets the most that an attempt can cost aside, and closes it by what became of the attempt.

    A success costs what the answer says. A failure gives the money back only where it was surely not billed;
    after a time-out, a broken connection or a cancellation it may be, and all of it counts.
    """

    def __init__(self, budget: Budget, unbilled: Callable[[BaseException], bool] = surely_unbilled) -> None:
        self._budget = budget
        self._unbilled = unbilled

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Reserve, go on, and close the reservation."""
        reservation = self._reserve(call)
        call.sent = False
        try:
            answer = inner()
            actual = _actual(call, answer)
        except BaseException as error:
            if self._free(call, error):
                reservation.release()
            else:
                reservation.keep()
            raise
        reservation.settle(actual)
        return answer

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""
        reservation = await self._reserve_async(call)
        call.sent = False
        try:
            answer = await inner()
            actual = _actual(call, answer)
        except BaseException as error:
            # A second cancellation in here leaves the reservation open, which then expires into spending.
            if self._free(call, error):
                await reservation.release_async()
            else:
                await reservation.keep_async()
            raise
        await reservation.settle_async(actual)
        return answer

    def _reserve(self, call: Call) -> Reservation:
        demand = call.demand
        assert demand.micro_dollars is not None
        return self._budget.reserve(demand.micro_dollars, demand.agent)

    async def _reserve_async(self, call: Call) -> Reservation:
        demand = call.demand
        assert demand.micro_dollars is not None
        return await self._budget.reserve_async(demand.micro_dollars, demand.agent)

    def _free(self, call: Call, error: BaseException) -> bool:
        return not call.sent or self._unbilled(error)


def _actual(call: Call, answer: Any) -> int:
    demand = call.demand
    assert demand.micro_dollars is not None
    return demand.micro_dollars if demand.cost is None else demand.cost(answer)


class BreakerLease:
    """Takes the breaker's permit (perhaps the one probe) right before the call, and reports its result."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def around(self, _call: Call, inner: Callable[[], T]) -> T:
        """Go on under a permit."""
        with self._breaker.lease():
            return inner()

    async def around_async(self, _call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Do the same."""
        async with self._breaker.lease():
            return await inner()


class AttemptTimeout:
    """Bounds one attempt: by its own time, and by what is left of the whole.

    Running into it is a failure of the server, unless the deadline had left less than half of an attempt's
    time: what a hurried caller did not wait for says nothing about the server.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def around(self, call: Call, inner: Callable[[], T]) -> T:
        """Tell the transport how long it may take."""
        with call.attempting(min(self._seconds, call.remaining())):
            return inner()

    async def around_async(self, call: Call, inner: Callable[[], Awaitable[T]]) -> T:
        """Cancel the transport when its time is over."""
        granted = min(self._seconds, call.remaining())
        try:
            with call.attempting(granted):
                async with asyncio.timeout(granted) as limit:
                    return await inner()
        except TimeoutError as error:
            if not limit.expired():
                raise
            if granted < self._seconds / 2:
                raise call.too_late() from error
            raise UpstreamTimeoutError(
                f"{call.operation}: no answer within {granted:g} s", context={"seconds": granted}
            ) from error
