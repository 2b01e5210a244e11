"""The resilience stack around every call to a server, and the one place where its order is written.

From outer to inner::

    instrument          every call is told of, refused ones too
    deadline            bounds all that follows, waiting included
    retry               each attempt goes through everything below again
    breaker refusal     an open circuit costs no waiting and no money
    rate limit          waits before any money is set aside, so that a waiting call holds none
    budget reservation  the most that the attempt can cost
    breaker lease       the one probe is taken last, so that it never waits in a queue
    attempt time-out    what the server alone may take
    transport           the call itself

Where rate limit, budget and breaker are in one Redis, what they ask next to each other goes in one round
trip, in this order, each only if the one before went through (`resilience_shared`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from cert.core.bounds import positive
from cert.core.circuit_breaker import Breaker
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import ConfigurationError, UpstreamError
from cert.core.events import EventHub, default_hub
from cert.core.resilience_call import Attempt, Call, Demand, current_attempt, surely_unbilled
from cert.core.resilience_layers import (
    AttemptTimeout,
    BreakerRefusal,
    Budget,
    Deadline,
    Instrument,
    Layer,
    Limiter,
    Reservation,
    Retrying,
)
from cert.core.resilience_shared import limit_layers
from cert.core.retry import Retry, RetryOn, RetryPolicy

__all__ = [
    "Attempt",
    "Budget",
    "Demand",
    "Limiter",
    "Reservation",
    "ResiliencePolicy",
    "ResilienceStack",
    "current_attempt",
    "surely_unbilled",
    "transient",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def transient(error: Exception) -> bool:
    """Say whether a server's failure may pass: of all errors only these are tried again by default.

    Our own refusals (an open circuit, the rate limit, the budget, a lost store) are not: trying again at
    once cannot change them.
    """
    return isinstance(error, UpstreamError) and error.retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class ResiliencePolicy:
    """How long a call may take, and how it is retried.

    Attributes:
        deadline_seconds: for the whole call: waiting, attempts and all.
        attempt_seconds: for one attempt, at most the deadline.
        retry: attempts and waits; its total time is the deadline.
    """

    deadline_seconds: float = 120.0
    attempt_seconds: float = 60.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        positive("deadline_seconds", self.deadline_seconds)
        positive("attempt_seconds", self.attempt_seconds)
        if self.attempt_seconds > self.deadline_seconds:
            raise ConfigurationError(
                f"attempt_seconds is {self.attempt_seconds:g}; it must be at most deadline_seconds, "
                f"{self.deadline_seconds:g}",
                context={"setting": "attempt_seconds"},
            )


class ResilienceStack:
    """Calls a server under all policies at once; safe to share between threads and tasks.

    Args:
        operation: what is called, for events; from a small fixed set of names.
        policy: times and retries.
        retry_on: which errors are worth another attempt.
        breaker: left out, nothing refuses.
        limiter: left out, nothing is waited for.
        budget: left out, nothing is reserved.
        unbilled: says which failures surely cost nothing.
        clock: measures and waits.
        hub: told of calls and retries.
    """

    def __init__(
        self,
        operation: str,
        policy: ResiliencePolicy | None = None,
        *,
        retry_on: RetryOn = transient,
        breaker: Breaker | None = None,
        limiter: Limiter | None = None,
        budget: Budget | None = None,
        unbilled: Callable[[BaseException], bool] = surely_unbilled,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
    ) -> None:
        self.operation = operation
        self.policy = policy = policy or ResiliencePolicy()
        self._clock = clock
        self._priced = budget is not None
        hub = hub or default_hub()
        retry = Retry(on=retry_on, policy=policy.retry, operation=operation, clock=clock, hub=hub)
        limits = limit_layers(limiter, budget, breaker, unbilled)
        layers: tuple[Layer | None, ...] = (
            Instrument(hub),
            Deadline(),
            Retrying(retry),
            BreakerRefusal(breaker) if breaker is not None else None,
            limits.ahead,
            limits.rate_limit,
            limits.reservation,
            limits.lease,
            AttemptTimeout(policy.attempt_seconds),
        )
        self.layers: tuple[Layer, ...] = tuple(layer for layer in layers if layer is not None)

    def call(
        self, function: Callable[[], T], demand: Demand | None = None, *, seconds: float | None = None
    ) -> T:
        """Return what ``function`` returns, called under every policy.

        Args:
            function: one attempt; `current_attempt` tells it the time that it may take, which plain code has
                to keep to by itself.
            demand: what each attempt takes from the limits.
            seconds: a deadline for this call, in place of the policy's.

        Raises:
            DeadlineExceededError: the time is over.
            RetriesExhaustedError: every attempt failed; the cause is the last failure.
            CircuitOpenError: calls are refused after failures.
            RateLimitedError: our rate limit cannot let it through in time.
            BudgetExceededError: it could cost more than is left.
            Exception: whatever else ``function`` raises that is not worth another attempt.
        """
        call = self._begin(demand, seconds)
        run: Callable[[], T] = function
        for layer in reversed(self.layers):
            run = functools.partial(layer.around, call, run)
        return run()

    async def call_async(
        self,
        function: Callable[[], Awaitable[T]],
        demand: Demand | None = None,
        *,
        seconds: float | None = None,
    ) -> T:
        """Do what `call` does for a function that is awaited; an attempt that takes too long is cancelled."""
        call = self._begin(demand, seconds)
        run: Callable[[], Awaitable[T]] = function
        for layer in reversed(self.layers):
            run = functools.partial(layer.around_async, call, run)
        return await run()

    def protect(self, demand: Demand | Callable[..., Demand] | None = None) -> Callable[[F], F]:
        """Return a decorator for functions, plain or ``async``.

        Args:
            demand: of each attempt; or a function that says so from the arguments of the call.
        """

        def decorate(function: F) -> F:
            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def awaited(*arguments: Any, **options: Any) -> Any:
                    needed = demand(*arguments, **options) if callable(demand) else demand
                    return await self.call_async(functools.partial(function, *arguments, **options), needed)

                return cast(F, awaited)

            @functools.wraps(function)
            def called(*arguments: Any, **options: Any) -> Any:
                needed = demand(*arguments, **options) if callable(demand) else demand
                return self.call(functools.partial(function, *arguments, **options), needed)

            return cast(F, called)

        return decorate

    def _begin(self, demand: Demand | None, seconds: float | None) -> Call:
        demand = demand or Demand()
        if self._priced and demand.micro_dollars is None:
            raise ConfigurationError(
                f"{self.operation}: a call under a budget must say what it can cost at most",
                hint="Give Demand(micro_dollars=...).",
            )
        if seconds is not None:
            positive("seconds", seconds)
        return Call(self.operation, demand, seconds or self.policy.deadline_seconds, self._clock)
