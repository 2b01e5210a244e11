"""What happens in the core, told as small frozen events to whoever listens.

Two kinds of listener. *Observers* (logs, metrics, traces) are called on a thread of their own with a bounded
queue: they can neither break nor delay the work, and what they lose is counted. *Required sinks* (the
evidence log) are awaited before a result is returned, and may refuse it with an error of the tree.

Events carry names, numbers and codes; never prompts, outputs, keys or anything else of unbounded variety.
"""

from __future__ import annotations

import atexit
import inspect
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from cert.core.correlation import correlation_id
from cert.core.errors import CertError, EvidenceError

__all__ = [
    "BudgetRefused",
    "BudgetSettled",
    "CallFinished",
    "CircuitChanged",
    "ComponentDegraded",
    "Event",
    "EventHub",
    "GenerationFinished",
    "HealthChanged",
    "ModelLoaded",
    "ModelUnloaded",
    "Observer",
    "RateLimitWaited",
    "RequiredSink",
    "RetryScheduled",
    "default_hub",
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        at: wall-clock time in seconds since 1970, UTC.
        correlation_id: of the request it happened for.
    """

    name: ClassVar[str] = "event"
    at: float = field(default_factory=time.time)
    correlation_id: str | None = field(default_factory=correlation_id)


@dataclass(frozen=True, kw_only=True)
class CallFinished(Event):
    """A call through the resilience stack ended.

    Attributes:
        operation: what was called, from a small fixed set of names.
        outcome: ``ok``, or the ``code`` of the error.
        seconds: with waiting and retries.
        attempts: how often it was tried.
    """

    name: ClassVar[str] = "call_finished"
    operation: str
    outcome: str
    seconds: float
    attempts: int


@dataclass(frozen=True, kw_only=True)
class RetryScheduled(Event):
    """An attempt failed and another one follows after a wait."""

    name: ClassVar[str] = "retry_scheduled"
    operation: str
    attempt: int
    wait_seconds: float
    error: str


@dataclass(frozen=True, kw_only=True)
class CircuitChanged(Event):
    """A circuit breaker went from one state to another (``closed``, ``open``, ``half_open``)."""

    name: ClassVar[str] = "circuit_changed"
    circuit: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class RateLimitWaited(Event):
    """A call waited for our own rate limit."""

    name: ClassVar[str] = "rate_limit_waited"
    limit: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class BudgetSettled(Event):
    """A call's cost is known, in millionths of a dollar."""

    name: ClassVar[str] = "budget_settled"
    budget: str
    micro_dollars: int
    spent_micro_dollars: int
    limit_micro_dollars: int | None


@dataclass(frozen=True, kw_only=True)
class BudgetRefused(Event):
    """A call was refused since it could have cost more than is left."""

    name: ClassVar[str] = "budget_refused"
    budget: str
    micro_dollars: int


@dataclass(frozen=True, kw_only=True)
class ModelLoaded(Event):
    """A model is in memory.

    Attributes:
        bytes_used: memory that it took on the device, ``None`` where it could not be measured.
    """

    name: ClassVar[str] = "model_loaded"
    model: str
    device: str
    seconds: float
    bytes_used: int | None


@dataclass(frozen=True, kw_only=True)
class ModelUnloaded(Event):
    """A model was let go of."""

    name: ClassVar[str] = "model_unloaded"
    model: str


@dataclass(frozen=True, kw_only=True)
class GenerationFinished(Event):
    """A watched generation ended with a verdict."""

    name: ClassVar[str] = "generation_finished"
    model: str
    verdict: str
    tokens: int
    seconds: float
    stages: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class HealthChanged(Event):
    """The health of a component or of the whole went from one state to another."""

    name: ClassVar[str] = "health_changed"
    component: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class ComponentDegraded(Event):
    """A part works in a reduced way (``active``), or is back to normal.

    Attributes:
        mode: what it does instead, such as ``fail_closed`` or ``local_share``.
    """

    name: ClassVar[str] = "component_degraded"
    component: str
    mode: str
    active: bool


Observer: TypeAlias = Callable[[Event], object]
RequiredSink: TypeAlias = Callable[[Event], Awaitable[None] | None]


class EventHub:
    """Takes events and hands them on.

    Args:
        capacity: events that may wait for the observers; beyond it new ones are lost, and counted.

    Attributes:
        lost: events that no observer saw since the queue was full.
        failures: calls of an observer that raised.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self.lost = 0
        self.failures = 0
        self._capacity = capacity
        self._observers: tuple[Observer, ...] = ()
        self._sinks: tuple[RequiredSink, ...] = ()
        self._queue: deque[tuple[Event, Context]] = deque()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Add an observer and return the function that removes it again."""
        with self._condition:
            self._observers = (*self._observers, observer)

        def remove() -> None:
            with self._condition:
                self._observers = tuple(other for other in self._observers if other is not observer)

        return remove

    def require(self, sink: RequiredSink) -> Callable[[], None]:
        """Add a required sink and return the function that removes it again."""
        with self._condition:
            self._sinks = (*self._sinks, sink)

        def remove() -> None:
            with self._condition:
                self._sinks = tuple(other for other in self._sinks if other is not sink)

        return remove

    def emit(self, event: Event) -> None:
        """Tell the observers; returns at once."""
        if not self._observers:
            return
        with self._condition:
            if len(self._queue) >= self._capacity:
                self.lost += 1
                return
            # The context goes along, so that an observer sees the caller's trace and correlation id.
            self._queue.append((event, copy_context()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cert-events", daemon=True)
                self._thread.start()
                atexit.register(self.flush)
            self._condition.notify_all()

    def deliver(self, event: Event) -> None:
        """Hand an event to every required sink, then tell the observers.

        Raises:
            CertError: a sink refuses; the result that the event is about must not be returned.
        """
        for sink in self._sinks:
            with _refusals():
                answer = sink(event)
            if inspect.isawaitable(answer):
                close = getattr(answer, "close", None)
                if close is not None:
                    close()
                raise EvidenceError("a required sink is asynchronous and was used from synchronous code")
        self.emit(event)

    async def deliver_async(self, event: Event) -> None:
        """Do what `deliver` does, awaiting sinks that are asynchronous."""
        for sink in self._sinks:
            with _refusals():
                answer = sink(event)
                if inspect.isawaitable(answer):
                    await answer
        self.emit(event)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the observers have seen everything; false if that takes over ``timeout`` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._queue and not self._busy, timeout)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._queue)
                event, context = self._queue.popleft()
                self._busy = True
                observers = self._observers
            for observer in observers:
                try:
                    context.run(observer, event)
                # Whatever an observer does wrong, the work and the other observers go on.
                except Exception:
                    self.failures += 1


class _refusals:  # noqa: N801  # reads as the verb that it is
    """Turns whatever a sink raises into an error of the tree: not kept is not kept."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, CertError):
            raise EvidenceError(f"a required sink failed: {type(error).__name__}") from error


_default = EventHub()


def default_hub() -> EventHub:
    """Return the hub of this process, used where none is given."""
    return _default
