"""Trying again: exponential backoff with full jitter, bounded in attempts and in total time.

The wait before attempt n + 1 is uniform in ``[0, min(maximum, initial · 2^(n−1)))``: the "full jitter" of
M. Brooker, "Exponential Backoff and Jitter" (AWS, 2015), which spreads the callers of a recovering server
best. Where the server said how long to wait, that wait (clamped) comes first and the jitter on top of it.
No wait reaches beyond the total time: a backoff shrinks to fit, a server's wait that does not fit ends the
retries at once.
"""

from __future__ import annotations

import functools
import inspect
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import tenacity

from cert.core.bounds import at_least, positive
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import CertError, RetriesExhaustedError
from cert.core.events import EventHub, RetryScheduled, default_hub

__all__ = ["Retry", "RetryOn", "RetryPolicy"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
RetryOn: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]

# Jitter spreads callers; nobody gains by guessing it.
_uniform = random.uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long to try.

    Attributes:
        attempts: in all, the first one included.
        total_seconds: from the first attempt to the start of the last one.
        initial_seconds: the longest first wait; it doubles with each attempt.
        maximum_seconds: the longest wait that we choose ourselves.
        retry_after_maximum_seconds: the longest wait that a server may ask for; a longer one is cut to this.
    """

    attempts: int = 6
    total_seconds: float = 120.0
    initial_seconds: float = 0.5
    maximum_seconds: float = 20.0
    retry_after_maximum_seconds: float = 60.0

    def __post_init__(self) -> None:
        at_least("attempts", self.attempts, 1)
        positive("total_seconds", self.total_seconds)
        at_least("initial_seconds", self.initial_seconds, 0)
        at_least("maximum_seconds", self.maximum_seconds, 0)
        at_least("retry_after_maximum_seconds", self.retry_after_maximum_seconds, 0)

    def ceiling(self, attempt: int) -> float:
        """Return the longest own wait after a failed attempt (1 is the first), in seconds."""
        # 2^64 times any initial wait is beyond every sensible maximum, and far from overflow.
        return min(self.maximum_seconds, self.initial_seconds * 2.0 ** min(attempt - 1, 64))

    def wait(
        self,
        attempt: int,
        remaining: float,
        retry_after: float | None = None,
        uniform: Callable[[float, float], float] = _uniform,
    ) -> float | None:
        """Return the seconds to wait after a failed attempt, or ``None`` if no further one fits.

        Args:
            attempt: the one that failed; 1 is the first.
            remaining: seconds left of the total time.
            retry_after: seconds that the server asked to wait.
            uniform: draws a number between two others.
        """
        if attempt >= self.attempts:
            return None
        asked = retry_after if retry_after is not None and retry_after > 0 else 0.0  # NaN is not above 0
        floor = min(asked, self.retry_after_maximum_seconds)
        room = remaining - floor
        if not room > 0:
            return None
        return floor + uniform(0.0, min(self.ceiling(attempt), room))


class Retry:
    """Runs functions again while they fail with an error worth trying again.

    Args:
        on: which errors: a class, several, or a function that decides. There is no default, since retrying
            everything would retry an open circuit and an empty budget.
        policy: how often and how long.
        operation: the name under which events tell of it; from a small fixed set.
        clock: measures and waits.
        hub: told of each retry, without any argument of the call.
        uniform: draws the jitter.
    """

    def __init__(
        self,
        *,
        on: RetryOn,
        policy: RetryPolicy | None = None,
        operation: str = "call",
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
        uniform: Callable[[float, float], float] = _uniform,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.operation = operation
        self.clock = clock
        self.hub = hub or default_hub()
        self.uniform = uniform
        self.worth_it = _predicate(on)

    def call(self, function: Callable[[], T], *, seconds: float | None = None, operation: str = "") -> T:
        """Return what ``function`` returns, trying again as the policy allows.

        Args:
            function: called without arguments.
            seconds: of total time for this call, in place of the policy's.
            operation: a name for this call's events.

        Raises:
            RetriesExhaustedError: every attempt failed or no further one fits; its cause is the last failure.
            Exception: one that is not worth a retry, unchanged; or any, where one attempt is all there is.
        """
        run = _Run(self, seconds, operation)
        # Nearly every first attempt succeeds, and the engine alone costs as much as the rest of the stack.
        try:
            return function()
        except Exception as error:
            attempts = _once_failed(function, error)
        engine = tenacity.Retrying(
            sleep=self.clock.sleep,
            retry=run.worth_it,
            wait=run.wait,
            stop=run.stop,
            before_sleep=run.announce,
            retry_error_callback=run.give_up,
        )
        return engine(attempts)

    async def call_async(
        self, function: Callable[[], Awaitable[T]], *, seconds: float | None = None, operation: str = ""
    ) -> T:
        """Do what `call` does for a function that is awaited; a cancellation is never retried."""
        run = _Run(self, seconds, operation)
        try:
            return await function()
        except Exception as error:
            attempts = _once_failed(function, error)

        async def attempt() -> T:
            return await attempts()

        engine = tenacity.AsyncRetrying(
            sleep=self.clock.sleep_async,
            retry=run.worth_it,
            wait=run.wait,
            stop=run.stop,
            before_sleep=run.announce,
            retry_error_callback=run.give_up,
        )
        return cast(T, await engine(attempt))

    def __call__(self, function: F) -> F:
        """Return ``function``, plain or ``async``, so that each call of it is tried again."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*arguments: Any, **options: Any) -> Any:
                return await self.call_async(functools.partial(function, *arguments, **options))

            return cast(F, awaited)

        @functools.wraps(function)
        def called(*arguments: Any, **options: Any) -> Any:
            return self.call(functools.partial(function, *arguments, **options))

        return cast(F, called)


def _predicate(on: RetryOn) -> Callable[[Exception], bool]:
    if isinstance(on, type | tuple):
        kinds = on
        return lambda error: isinstance(error, kinds)
    return on


def _once_failed(function: Callable[[], T], error: Exception) -> Callable[[], T]:
    """Return the attempts of a function whose first has been made already, and raised this error."""
    first = [error]

    def attempt() -> T:
        if first:
            raise first.pop()
        return function()

    return attempt


class _Run:
    """One call's own clock and decisions, in the form that tenacity asks for them.

    tenacity asks, after a failure: is it worth it, how long to wait, and (knowing the wait) whether to stop.
    """

    def __init__(self, retry: Retry, seconds: float | None, operation: str) -> None:
        self._retry = retry
        self._operation = operation or retry.operation
        self._started = retry.clock.monotonic()
        self._total = retry.policy.total_seconds if seconds is None else seconds
        self._previous: BaseException | None = None

    def worth_it(self, state: tenacity.RetryCallState) -> bool:
        error = _error(state)
        worth_it = isinstance(error, Exception) and self._retry.worth_it(error)
        if not worth_it and self._previous is not None and isinstance(error, CertError):
            # What ended the retries (an open circuit) is best understood with the failure before it.
            error.__cause__ = error.__cause__ or self._previous
        self._previous = error
        return worth_it

    def wait(self, state: tenacity.RetryCallState) -> float:
        remaining = self._total - (self._retry.clock.monotonic() - self._started)
        retry_after = getattr(_error(state), "retry_after", None)
        wait = self._retry.policy.wait(state.attempt_number, remaining, retry_after, self._retry.uniform)
        return math.inf if wait is None else wait

    def stop(self, state: tenacity.RetryCallState) -> bool:
        return math.isinf(state.upcoming_sleep)

    def announce(self, state: tenacity.RetryCallState) -> None:
        error = _error(state)
        self._retry.hub.emit(
            RetryScheduled(
                operation=self._operation,
                attempt=state.attempt_number,
                wait_seconds=state.upcoming_sleep,
                error=error.code if isinstance(error, CertError) else type(error).__name__,
            )
        )

    def give_up(self, state: tenacity.RetryCallState) -> Any:
        error = _error(state)
        assert error is not None
        attempts = self._retry.policy.attempts
        if attempts == 1:
            raise error
        tried = state.attempt_number
        reason = "attempts" if tried >= attempts else "time"
        seconds = self._retry.clock.monotonic() - self._started
        raise RetriesExhaustedError(
            f"{self._operation}: {tried} attempts failed in {seconds:.1f} s, the last with "
            f"{type(error).__name__}" + ("" if reason == "attempts" else "; no further one fits the time"),
            retry_after=getattr(error, "retry_after", None),
            context={"attempts": tried, "seconds": seconds, "reason": reason},
        ) from error


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
