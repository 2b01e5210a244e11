"""What happens in the core, told as small frozen events to whoever listens.

Two kinds of listener. *Observers* (logs, metrics, traces) are called on a thread of their own with a bounded
queue: they can neither break nor delay the work, and what they lose is counted. *Required sinks* (the
evidence log) are awaited before a result is returned, and may refuse it with an error of the tree.

Events carry names, numbers and codes; never prompts, outputs, keys or anything else of unbounded variety.
"""

from __future__ import annotations

import atexit
import inspect
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeAlias, TypeVar

from cert.core.correlation import correlation_id
from cert.core.errors import CertError, ConfigurationError, EvidenceError

__all__ = [
    "BudgetBegun",
    "BudgetRefused",
    "BudgetSettled",
    "CacheAsked",
    "CallFinished",
    "CircuitChanged",
    "ComponentDegraded",
    "CoordinationMeasured",
    "DriftFound",
    "DriftStanding",
    "Event",
    "EventHub",
    "GateShifted",
    "GateStanding",
    "GenerationFinished",
    "HealthChanged",
    "JudgementFinished",
    "ModelLoaded",
    "ModelUnloaded",
    "Observer",
    "OutOfMemoryMet",
    "PromiseVoid",
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
class BudgetBegun(Event):
    """The shared books of a budget begin with nothing spent.

    Right at the very first start. Later it says that Redis has lost them, which a replica that has just
    started cannot know.
    """

    name: ClassVar[str] = "budget_begun"
    budget: str


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
class OutOfMemoryMet(Event):
    """A device had no memory for a batch.

    Attributes:
        action: what was done: ``smaller_batch``, ``cpu``, or ``failed`` where nothing could be done.
    """

    name: ClassVar[str] = "out_of_memory_met"
    model: str
    device: str
    action: str


@dataclass(frozen=True, kw_only=True)
class CacheAsked(Event):
    """A cache was asked for a result.

    Attributes:
        outcome: ``hit``, ``miss``, ``shared`` (somebody else was at work on it) or ``bypassed``.
    """

    name: ClassVar[str] = "cache_asked"
    cache: str
    outcome: str


@dataclass(frozen=True, kw_only=True)
class GenerationFinished(Event):
    """A watched generation ended with a verdict.

    Attributes:
        seconds: from the request to the verdict.
        stages: where they went: (stage, seconds).
        cached: the result was there already and nothing was generated.
        calibrated: the verdict comes with the promise of a certificate.
    """

    name: ClassVar[str] = "generation_finished"
    model: str
    verdict: str
    tokens: int
    seconds: float
    stages: tuple[tuple[str, float], ...] = ()
    cached: bool = False
    calibrated: bool = False


@dataclass(frozen=True, kw_only=True)
class CoordinationMeasured(Event):
    """A team of agents was measured against one agent.

    Attributes:
        system: the team, by its name.
        verdict: ``worth_it``, ``not_worth_it`` or ``not_enough_data``.
        tasks: that both sides were measured on.
        missing: tasks without a score on one side or both.
        gamma_budget: quality over that of one agent with the same budget; ``None`` is not measured.
        team_micro_dollars, single_micro_dollars, judge_micro_dollars: what each part cost.
        seconds: from the first task to the verdict.
    """

    name: ClassVar[str] = "coordination_measured"
    system: str
    verdict: str
    tasks: int
    missing: int
    gamma_budget: float | None
    team_micro_dollars: int
    single_micro_dollars: int
    judge_micro_dollars: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class JudgementFinished(Event):
    """An answer was evaluated, or could not be.

    Attributes:
        outcome: ``ok``, or the first word of why there is no score.
    """

    name: ClassVar[str] = "judgement_finished"
    evaluator: str
    outcome: str


@dataclass(frozen=True, kw_only=True)
class DriftFound(Event):
    """The scores of a system fell, or the judge that gives them has changed.

    Attributes:
        system: by its name.
        family: of the tasks.
        kind: who changed, ``system``, ``judge`` or ``both``, or ``unclear``. An alarm that is told apart
            later is found again, with its kind.
    """

    name: ClassVar[str] = "drift_found"
    system: str
    family: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class DriftStanding(Event):
    """How many of a system's alarms of one kind stand now.

    Told when it changes, and when a process begins to watch.
    """

    name: ClassVar[str] = "drift_standing"
    system: str
    kind: str
    alarms: int


@dataclass(frozen=True, kw_only=True)
class GateShifted(Event):
    """The scores of live answers are not those that a gate was calibrated on.

    Attributes:
        goal: of the gate's promise.
        certificate: the first 12 digits of its id.
        seen: answers until then.
    """

    name: ClassVar[str] = "gate_shifted"
    goal: str
    certificate: str
    seen: int


@dataclass(frozen=True, kw_only=True)
class PromiseVoid(Event):
    """Labels have refuted the promise of a gate.

    Attributes:
        goal: of the promise.
        certificate: the first 12 digits of its id.
        alpha: the rate that was promised.
        bound: a lower confidence bound of the rate, above it.
        labels: labelled answers until then.
    """

    name: ClassVar[str] = "promise_void"
    goal: str
    certificate: str
    alpha: float
    bound: float
    labels: int


@dataclass(frozen=True, kw_only=True)
class GateStanding(Event):
    """Whether a gate's promise stands.

    Told when it changes, and when a process begins to watch.

    Attributes:
        shifted: there is a warning that nobody has acknowledged.
        void: labels have refuted the promise.
    """

    name: ClassVar[str] = "gate_standing"
    goal: str
    certificate: str
    shifted: bool
    void: bool


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
T = TypeVar("T")

# The observers' thread ends after so many seconds without an event, and starts again with the next: a hub
# that nobody uses any more costs no thread and can be collected.
_IDLE = 10.0
# Seconds that it computes before it gives way, and for which it does. Python's lock goes to another thread
# only every 5 ms while this one computes (`sys.getswitchinterval`): an event loop would be late by that each
# time it waits for I/O.
_SLICE = 100e-6
_GIVE_WAY = 50e-6
# Seconds that the first event of many waits for the others: waking a thread for each of thousands a second
# costs the threads that work more than the observers do.
_GATHER = 5e-3


class EventHub:
    """Takes events and hands them on.

    Observers are called one after the other on one thread, in the order of the events. One that never
    returns keeps the others from hearing anything; the work goes on, and what is lost is counted. A forked
    child starts with the same listeners, an empty queue, and a thread of its own.

    Args:
        capacity: events that may wait for the observers; beyond it new ones are lost, and counted.

    Attributes:
        lost: events that no observer saw since the queue was full or no thread could be started.
        failures: calls of an observer that raised, or that returned an awaitable, which nobody awaits.

    Raises:
        ConfigurationError: a capacity that is no positive whole number.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        if type(capacity) is not int or capacity < 1:
            raise ConfigurationError(f"a hub holds a positive number of events, not {capacity!r}")
        self.lost = 0
        self.failures = 0
        self._idle = False
        self._capacity = capacity
        self._observers: _Listeners[Observer] = _Listeners()
        self._sinks: _Listeners[RequiredSink] = _Listeners()
        self._start_over()
        _hubs.add(self)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Add an observer and return the function that removes it again.

        One that is added twice is called once for each event, until it is removed as often.
        """
        return self._observers.add(observer)

    def require(self, sink: RequiredSink) -> Callable[[], None]:
        """Add a required sink and return the function that removes it again; see `observe`."""
        return self._sinks.add(sink)

    def emit(self, event: Event) -> None:
        """Tell the observers; returns at once and never raises."""
        if not self._observers.current:
            return
        with self._condition:
            if len(self._queue) >= self._capacity or not self._thread_runs():
                self.lost += 1
                return
            # The context goes along, so that an observer sees the caller's trace and correlation id.
            self._queue.append((event, copy_context()))
            self._taken += 1
            if self._idle:
                self._idle = False
                self._condition.notify_all()

    def deliver(self, event: Event) -> None:
        """Hand an event to every required sink, then tell the observers.

        Raises:
            CertError: a sink refuses; the result that the event is about must not be returned. Sinks after
                it, and the observers, do not get the event.
        """
        for sink in self._sinks.current:
            with _refusals():
                answer = sink(event)
            if inspect.isawaitable(answer):
                _abandon(answer)
                raise EvidenceError("a required sink is asynchronous and was used from synchronous code")
        self.emit(event)

    async def deliver_async(self, event: Event) -> None:
        """Do what `deliver` does, awaiting sinks that are asynchronous; others run on the event loop."""
        for sink in self._sinks.current:
            with _refusals():
                answer = sink(event)
                if inspect.isawaitable(answer):
                    await answer
        self.emit(event)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the observers have seen everything that was emitted before.

        Returns:
            False if that takes over ``timeout`` seconds, and at once when an observer itself asks.
        """
        with self._condition:
            if threading.current_thread() is self._thread:
                return False
            until = self._taken
            self._flushing += 1
            self._condition.notify_all()
            try:
                return self._condition.wait_for(lambda: self._told >= until, timeout)
            finally:
                self._flushing -= 1

    def _start_over(self) -> None:
        self._queue: deque[tuple[Event, Context]] = deque()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._taken = self._told = self._flushing = 0
        self._idle = False  # the thread waits for an event, and has to be woken
        self._observers.free()
        self._sinks.free()

    def _thread_runs(self) -> bool:
        if self._thread is not None:
            return True
        thread = threading.Thread(target=self._run, name="cert-events", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left, or the interpreter is going down
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while self._events_come():
            self._tell_all()

    def _events_come(self) -> bool:
        with self._condition:
            self._idle = not self._queue
            if not self._condition.wait_for(lambda: self._queue, _IDLE):
                self._thread = None
                return False
            self._condition.wait_for(lambda: self._flushing, _GATHER)
            return True

    def _tell_all(self) -> None:
        begun = time.perf_counter()
        while self._tell_next():
            if time.perf_counter() - begun > _SLICE:
                time.sleep(_GIVE_WAY)
                begun = time.perf_counter()
            if self._flushing:
                with self._condition:
                    self._condition.notify_all()

    # A function of its own, so that an idle thread holds on to no event and no caller's context.
    def _tell_next(self) -> bool:
        if not self._queue:
            return False
        event, context = self._queue.popleft()  # nobody else takes from it
        observers = self._observers.current
        for place, observer in enumerate(observers, 1):
            try:
                # What one of them sets in the context is not for the next.
                answer = (context if place == len(observers) else context.copy()).run(observer, event)
                if inspect.isawaitable(answer):
                    _abandon(answer)
                    self.failures += 1
            # Whatever an observer does wrong, ``sys.exit()`` included, the work and the others go on.
            except BaseException:
                self.failures += 1
        self._told += 1
        return True


class _Listeners(Generic[T]):
    """Who listens, each once, in the order of joining."""

    def __init__(self) -> None:
        self.current: tuple[T, ...] = ()
        self._all: list[T] = []
        self.free()

    def free(self) -> None:
        self._lock = threading.Lock()

    def add(self, listener: T) -> Callable[[], None]:
        with self._lock:
            self._all.append(listener)
            self._tell_apart()
        left = False

        def remove() -> None:
            nonlocal left
            with self._lock:
                if not left:
                    left = True
                    self._all.remove(listener)
                    self._tell_apart()

        return remove

    def _tell_apart(self) -> None:
        self.current = tuple(item for at, item in enumerate(self._all) if item not in self._all[:at])


def _abandon(answer: object) -> None:
    stop = getattr(answer, "close", None) or getattr(answer, "cancel", None)
    if stop is not None:
        stop()


class _refusals:  # noqa: N801  # reads as the verb that it is
    """Turns whatever a sink raises into an error of the tree: not kept is not kept."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, CertError):
            raise EvidenceError(f"a required sink failed: {type(error).__name__}") from error


_hubs: weakref.WeakSet[EventHub] = weakref.WeakSet()


def _flush_all(timeout: float = 5.0) -> None:
    end = time.monotonic() + timeout
    for hub in list(_hubs):
        hub.flush(max(0.0, end - time.monotonic()))


def _after_fork() -> None:
    # The thread is not in the child, its lock may be held for ever, and what waits is the parent's to tell.
    for hub in list(_hubs):
        hub._start_over()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_default = EventHub()


def default_hub() -> EventHub:
    """Return the hub of this process, used where none is given."""
    return _default
