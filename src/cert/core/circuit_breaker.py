"""Refusing calls to a server that fails, so that it can recover and callers need not wait for nothing.

The states are in `circuit_state`; here are the ways to use them. Four of them, each plain and ``async``::

    @breaker                              # each call of the function
    def ask(...): ...

    with breaker.lease():                 # a block
        ...

    permit = breaker.acquire()            # by hand
    breaker.record(permit, Outcome.SUCCESS)

    breaker.check()                       # only look: would a call be refused?
"""

from __future__ import annotations

import functools
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

from cert.core.circuit_state import BreakerPolicy, CircuitMachine, CircuitState, Outcome, Permit, Refusal
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import (
    CircuitOpenError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from cert.core.events import CircuitChanged, EventHub, default_hub

__all__ = [
    "Breaker",
    "BreakerPolicy",
    "CircuitBreaker",
    "CircuitState",
    "Lease",
    "Outcome",
    "Permit",
    "classify",
    "retry_after",
]

F = TypeVar("F", bound=Callable[..., Any])

_FAILURES = (
    UpstreamConnectionError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UpstreamProtocolError,
    ConnectionError,
    TimeoutError,
)


def classify(error: BaseException | None) -> Outcome:
    """Return what an error says about the server.

    Connection errors, time-outs, unreadable answers and statuses of 500 and above are failures; 429
    throttles; all else (a rejected request, our own limits, a programmer's error, a cancellation) is neutral.
    """
    if error is None:
        return Outcome.SUCCESS
    if isinstance(error, UpstreamRateLimitError):
        return Outcome.THROTTLED
    if isinstance(error, _FAILURES):
        return Outcome.FAILURE
    if isinstance(error, UpstreamError) and (error.status or 0) >= 500:
        return Outcome.FAILURE
    return Outcome.NEUTRAL


class Breaker(ABC):
    """What every circuit breaker can do, wherever its state is kept.

    Attributes:
        name: of the circuit, in events and errors; from a small fixed set.
    """

    def __init__(self, name: str, classify: Callable[[BaseException | None], Outcome] = classify) -> None:
        self.name = name
        self.classify = classify

    @abstractmethod
    def check(self) -> None:
        """Raise as `acquire` would if a call were surely refused just now; takes nothing."""

    @abstractmethod
    async def check_async(self) -> None:
        """Do what `check` does."""

    @abstractmethod
    def acquire(self) -> Permit:
        """Return the permit for one call, whose result has to be reported with `record`.

        Raises:
            CircuitOpenError: the circuit is open, or half-open with its probe under way.
            UpstreamRateLimitError: the server asked to slow down, and that time is not over.
        """

    @abstractmethod
    async def acquire_async(self) -> Permit:
        """Do what `acquire` does."""

    @abstractmethod
    def record(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Report the result of a call, and for how many seconds the server asked to pause."""

    @abstractmethod
    async def record_async(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Do what `record` does."""

    def lease(self) -> Lease:
        """Return a context manager, plain and ``async``, for one call: a permit, and its result reported."""
        return Lease(self)

    def __call__(self, function: F) -> F:
        """Return ``function``, plain or ``async``, with each call of it under this breaker."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*arguments: Any, **options: Any) -> Any:
                async with self.lease():
                    return await function(*arguments, **options)

            return cast(F, awaited)

        @functools.wraps(function)
        def called(*arguments: Any, **options: Any) -> Any:
            with self.lease():
                return function(*arguments, **options)

        return cast(F, called)

    def _admit(self, answer: Permit | Refusal | None) -> Permit | None:
        if not isinstance(answer, Refusal):
            return answer
        context = {"circuit": self.name}
        if answer.paused:
            raise UpstreamRateLimitError(
                f"the server behind {self.name!r} asked to slow down; not called for another "
                f"{answer.retry_after:.1f} s",
                retry_after=answer.retry_after,
                context={**context, "sent": False},
            )
        raise CircuitOpenError(
            f"the circuit {self.name!r} is open after failures; not called for another "
            f"{answer.retry_after:.1f} s",
            hint="The server behind it fails; calls go through again by themselves once a probe succeeds.",
            retry_after=answer.retry_after,
            context=context,
        )


class Lease:
    """One call under a breaker; enter it once."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        self._permit = self._breaker.acquire()
        return self._permit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._permit is not None
        self._breaker.record(self._permit, self._breaker.classify(error), retry_after(error))

    async def __aenter__(self) -> Permit:
        self._permit = await self._breaker.acquire_async()
        return self._permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._permit is not None
        outcome = self._breaker.classify(error)
        await self._breaker.record_async(self._permit, outcome, retry_after(error))


def retry_after(error: BaseException | None) -> float | None:
    """Return for how long an error asks to pause, if it says so."""
    seconds = getattr(error, "retry_after", None)
    return seconds if isinstance(seconds, int | float) else None


class CircuitBreaker(Breaker):
    """A breaker whose state is in this process, for threads and tasks alike.

    Args:
        name: of the circuit, in events and errors; from a small fixed set.
        policy: when it opens and how it comes back.
        classify: says what an error means; the default knows CERT's errors and Python's own.
        clock: measures.
        hub: told of each change of state.
    """

    def __init__(
        self,
        name: str,
        policy: BreakerPolicy | None = None,
        *,
        classify: Callable[[BaseException | None], Outcome] = classify,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
    ) -> None:
        super().__init__(name, classify)
        self._machine = CircuitMachine(policy or BreakerPolicy())
        self._clock = clock
        self._hub = hub or default_hub()
        self._lock = threading.Lock()

    @property
    def state(self) -> CircuitState:
        """The state now; an open circuit stays ``open`` until a call comes that may probe."""
        return self._machine.state

    def check(self) -> None:
        """Raise as `acquire` would if a call were surely refused just now; takes nothing."""
        with self._lock:
            refused = self._machine.refusal(self._clock.monotonic())
        self._admit(refused)

    async def check_async(self) -> None:
        """Do what `check` does."""
        self.check()

    def acquire(self) -> Permit:
        """Return the permit for one call, as `Breaker.acquire` says."""
        with self._lock:
            before = self._machine.state
            answer = self._machine.acquire(self._clock.monotonic())
            self._tell(before)
        permit = self._admit(answer)
        assert permit is not None
        return permit

    async def acquire_async(self) -> Permit:
        """Do what `acquire` does."""
        return self.acquire()

    def record(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Report the result of a call."""
        with self._lock:
            before = self._machine.state
            self._machine.record(permit, outcome, self._clock.monotonic(), retry_after)
            self._tell(before)

    async def record_async(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Do what `record` does."""
        self.record(permit, outcome, retry_after)

    def _tell(self, before: CircuitState) -> None:
        # Under the lock, so that events come in the order of what they tell; the hub never blocks.
        after = self._machine.state
        if before is not after:
            self._hub.emit(CircuitChanged(circuit=self.name, before=before.value, after=after.value))
