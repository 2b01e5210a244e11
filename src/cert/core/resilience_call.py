"""One call through the resilience stack: what it needs, and what its layers know of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from cert.core.clock import Clock
from cert.core.errors import (
    DeadlineExceededError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRejectedError,
)
from cert.core.redis_steps import Step

__all__ = ["Attempt", "Call", "Demand", "current_attempt", "surely_unbilled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one attempt of a call takes from the limits.

    Attributes:
        tokens: for the rate limit.
        micro_dollars: the most that an attempt can cost; needed where there is a budget.
        agent: on whose account.
        cost: what an answer did cost, in micro-dollars; without it the most is booked.
    """

    tokens: int = 0
    micro_dollars: int | None = None
    agent: str | None = None
    cost: Callable[[Any], int] | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a transport has to know of the attempt that it makes.

    Attributes:
        number: 1 for the first.
        timeout_seconds: that it may take. A task is cancelled then; plain code cannot be, so it must hand
            this to its client as the time-out.
    """

    number: int
    timeout_seconds: float


_attempt: ContextVar[Attempt | None] = ContextVar("cert_attempt", default=None)


def current_attempt() -> Attempt | None:
    """Return the attempt under way in this task or thread, ``None`` outside of any stack."""
    return _attempt.get()


class Call:
    """The state that the layers around one call share; it belongs to one task or thread.

    Attributes:
        operation: what is called.
        demand: what each attempt takes.
        seconds: for everything.
        attempts: begun so far.
        sent: whether the attempt in hand has reached the transport, so that it may be billed.
        ahead: what layers further in will ask of a shared Redis (`resilience_shared`), in their order.
        behind: what a layer further in has left for one further out to tell it.
    """

    __slots__ = (
        "_clock",
        "ahead",
        "attempts",
        "behind",
        "demand",
        "operation",
        "seconds",
        "sent",
        "started",
    )

    def __init__(self, operation: str, demand: Demand, seconds: float, clock: Clock) -> None:
        self.operation = operation
        self.demand = demand
        self.seconds = seconds
        self.attempts = 0
        self.sent = False
        self.ahead: Sequence[Step[Any]] = ()
        self.behind: Step[None] | None = None
        self._clock = clock
        self.started = clock.monotonic()

    def elapsed(self) -> float:
        """Return the seconds since the call began."""
        return self._clock.monotonic() - self.started

    def remaining(self) -> float:
        """Return the seconds left.

        Raises:
            DeadlineExceededError: none are.
        """
        left = self.seconds - self.elapsed()
        if left <= 0:
            raise self.too_late()
        return left

    def too_late(self) -> DeadlineExceededError:
        """Return the error that says that the time is over."""
        return DeadlineExceededError(
            f"{self.operation}: the {self.seconds:g} s for the whole call are over",
            hint="Allow more time, or look for what was slow: waiting for limits, retries, or the server.",
            context={"seconds": self.seconds, "attempts": self.attempts},
        )

    @contextmanager
    def attempting(self, timeout_seconds: float) -> Iterator[None]:
        """Let `current_attempt` tell of this attempt; from here on it counts as sent."""
        token = _attempt.set(Attempt(self.attempts, timeout_seconds))
        self.sent = True
        try:
            yield
        finally:
            _attempt.reset(token)


def surely_unbilled(error: BaseException) -> bool:
    """Say whether an error that came from a server shows that it did no work that it could bill.

    A rejection (4xx), 429 and 529 do; so does whatever an adapter marks with ``context["sent"] = False``. A
    broken connection, a time-out or another 5xx do not: the work may have been done.
    """
    if not isinstance(error, UpstreamError):
        return False
    refused = isinstance(error, UpstreamRejectedError | UpstreamRateLimitError) or error.status == 529
    return refused or error.context.get("sent") is False
