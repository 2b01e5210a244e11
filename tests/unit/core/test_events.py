"""The hub of events: observers never break or delay the work; required sinks decide about it."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import logging
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from cert.core.correlation import correlated, correlation_id
from cert.core.errors import BudgetExceededError, ConfigurationError, EvidenceError
from cert.core.events import CallFinished, CircuitChanged, Event, EventHub, default_hub
from cert.observability.log_events import log_observer
from cert.observability.logging import get_logger
from cert.observability.metrics import metrics_observer

EVENT = CircuitChanged(circuit="judge", before="closed", after="open")


def numbered(number: int) -> Event:
    return CallFinished(operation="judge", outcome="ok", seconds=0.0, attempts=number)


@pytest.fixture
def hub() -> EventHub:
    return EventHub()


class Gate:
    """An observer that waits until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.seen: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.entered.set()
        assert self.opened.wait(30)
        self.seen.append(event)


# --- events ---------------------------------------------------------------------------------------


def test_an_event_says_when_and_for_which_request():
    """Without both, what an observer tells cannot be put beside what a user saw."""
    before = time.time()
    with correlated("req-1"):
        event = numbered(1)
    assert before <= event.at <= time.time()
    assert event.correlation_id == "req-1"
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.at = 0.0  # type: ignore[misc]


# --- observers ------------------------------------------------------------------------------------


def test_observers_get_every_event_in_order(hub):
    """A breaker that is seen to open after it closed sends an operator the wrong way."""
    first: list[Event] = []
    second: list[Event] = []
    hub.observe(first.append)
    hub.observe(second.append)
    events = [numbered(number) for number in range(1000)]
    for event in events:
        hub.emit(event)
    assert hub.flush()
    assert first == events
    assert second == events
    assert (hub.lost, hub.failures) == (0, 0)


def test_events_of_many_threads_all_arrive(hub):
    """A server emits from all its workers at once."""
    seen: list[Event] = []
    hub.observe(seen.append)

    def work(worker: int) -> None:
        for number in range(500):
            hub.emit(numbered(worker * 1000 + number))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.flush()
    attempts = [event.attempts for event in seen if isinstance(event, CallFinished)]
    assert sorted(attempts) == [worker * 1000 + number for worker in range(8) for number in range(500)]
    for worker in range(8):
        own = [attempt for attempt in attempts if attempt // 1000 == worker]
        assert own == sorted(own)


def fail(event: Event) -> None:
    raise ValueError(event.name)


def leave(event: Event) -> None:
    sys.exit(event.name)


def interrupt(event: Event) -> None:
    raise KeyboardInterrupt


async def asynchronous(event: Event) -> None:
    raise AssertionError("nobody awaits an observer")


@pytest.mark.parametrize("bad", [fail, leave, interrupt, asynchronous])
def test_an_observer_that_goes_wrong_breaks_nothing_and_is_counted(hub, bad):
    """A defect in the metrics must not cost a user an answer, nor another observer its events."""
    seen: list[Event] = []
    hub.observe(bad)
    hub.observe(seen.append)
    for _ in range(3):
        hub.emit(EVENT)
    assert hub.flush()
    assert len(seen) == 3
    assert hub.failures == 3


def test_emit_returns_at_once_while_an_observer_sleeps(hub):
    """A log on a slow disk must not slow down the answers."""
    gate = Gate()
    hub.observe(gate)
    hub.emit(EVENT)
    assert gate.entered.wait(5)
    times = []
    for number in range(2000):
        started = time.perf_counter()
        hub.emit(numbered(number))
        times.append(time.perf_counter() - started)
    assert sorted(times)[1900] < 0.001
    assert sum(times) < 1.0
    gate.opened.set()
    assert hub.flush()
    assert len(gate.seen) == 2001


def test_observers_that_compute_let_the_work_go_on_between_events():
    """A burst of events would hold up every request of a service: one thread computes for long."""
    told = []
    hub = EventHub()
    hub.observe(lambda event: told.append(sum(range(20_000))))
    hub.emit(EVENT)  # the thread has started
    assert hub.flush()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    try:
        for _ in range(100):
            hub.emit(EVENT)
        time.sleep(0.0001)
        assert len(told) < 100
    finally:
        sys.setswitchinterval(interval)
    assert hub.flush()
    assert len(told) == 101


def test_what_does_not_fit_is_lost_and_counted():
    """When observers cannot keep up memory stays bounded, and the loss is known, not silent."""
    hub = EventHub(capacity=3)
    gate = Gate()
    hub.observe(gate)
    hub.emit(numbered(0))
    assert gate.entered.wait(5)
    for number in range(1, 11):
        hub.emit(numbered(number))
    assert hub.lost == 7
    gate.opened.set()
    assert hub.flush()
    assert [event.attempts for event in gate.seen if isinstance(event, CallFinished)] == [0, 1, 2, 3]
    hub.emit(numbered(11))
    assert hub.flush()
    assert len(gate.seen) == 5


@pytest.mark.parametrize("capacity", [0, -1, float("nan"), 2.5, True, None])
def test_a_capacity_that_would_lose_everything_is_refused(capacity):
    """A hub of no capacity works and tells nobody anything."""
    with pytest.raises(ConfigurationError, match="positive"):
        EventHub(capacity)


def test_without_observers_nothing_is_kept(hub):
    """A library user who listens to nothing pays nothing: no queue, no thread."""
    threads = threading.active_count()
    for _ in range(100):
        hub.emit(EVENT)
    assert threading.active_count() == threads
    assert hub.flush(0.1)
    assert hub.lost == 0


def test_an_observer_that_was_removed_hears_no_more(hub):
    """A closed log file must not be written to."""
    gone: list[Event] = []
    stays: list[Event] = []
    remove = hub.observe(gone.append)
    hub.observe(stays.append)
    hub.emit(EVENT)
    assert hub.flush()
    remove()
    remove()
    hub.emit(EVENT)
    assert hub.flush()
    assert (len(gone), len(stays)) == (1, 2)


def test_an_observer_that_is_shared_is_called_once_and_until_the_last_leaves(hub):
    """Two monitors that share metrics must not count twice, nor silence each other when one closes."""
    seen: list[Event] = []
    first, second = hub.observe(seen.append), hub.observe(seen.append)
    hub.emit(EVENT)
    assert hub.flush()
    assert len(seen) == 1
    first()
    first()
    hub.emit(EVENT)
    assert hub.flush()
    assert len(seen) == 2
    second()
    hub.emit(EVENT)
    assert hub.flush()
    assert len(seen) == 2


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


def test_the_callers_context_goes_along_and_stays_apart(hub):
    """A log line on the observers' thread belongs to the caller's request and trace."""
    seen: list[tuple[str, str | None]] = []

    def spoil(event: Event) -> None:
        variable.set("spoilt")

    hub.observe(spoil)
    hub.observe(lambda event: seen.append((variable.get(), correlation_id())))

    async def request(name: str) -> None:
        variable.set(name)
        with correlated(name):
            await asyncio.sleep(0)
            hub.emit(EVENT)

    async def both() -> None:
        await asyncio.gather(request("a"), request("b"))

    asyncio.run(both())
    hub.emit(EVENT)
    assert hub.flush()
    assert sorted(seen, key=str) == [("a", "a"), ("b", "b"), ("none", None)]
    assert variable.get() == "none"


def test_an_observer_may_emit_and_may_not_wait_for_itself(hub):
    """An observer that raises an alarm as an event must work; one that flushes must not hang the others."""
    seen: list[str] = []
    flushed: list[tuple[bool, float]] = []

    def alarm(event: Event) -> None:
        seen.append(event.name)
        if event.name == "circuit_changed":
            hub.emit(numbered(1))
            started = time.perf_counter()
            flushed.append((hub.flush(3.0), time.perf_counter() - started))

    hub.observe(alarm)
    hub.emit(EVENT)
    assert hub.flush()
    assert hub.flush()
    assert seen == ["circuit_changed", "call_finished"]
    assert flushed[0][0] is False
    assert flushed[0][1] < 1.0


def test_flush_waits_for_what_came_before_and_says_when_it_cannot(hub):
    """A program that flushes before it ends must neither lose lines nor hang on a stuck observer."""
    gate = Gate()
    hub.observe(gate)
    assert hub.flush(0.01)
    hub.emit(EVENT)
    started = time.perf_counter()
    assert not hub.flush(0.05)
    assert time.perf_counter() - started < 2
    gate.opened.set()
    assert hub.flush()
    assert len(gate.seen) == 1


def test_flush_ends_while_others_go_on_emitting(hub):
    """On a busy server the queue is never empty, and a flush that waits for that times out."""
    hub.observe(lambda event: time.sleep(0.001))
    stop = threading.Event()

    def chatter() -> None:
        while not stop.is_set():
            hub.emit(EVENT)
            time.sleep(0.0002)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        time.sleep(0.05)
        assert hub.flush(4.0)
    finally:
        stop.set()
        thread.join()


def test_no_thread_to_be_had_is_a_loss_and_not_an_error(hub, monkeypatch):
    """At the limit of threads, or while the interpreter goes down, the work must not fail on its log."""
    seen: list[Event] = []
    hub.observe(seen.append)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        hub.emit(EVENT)
    assert hub.lost == 1
    hub.emit(EVENT)
    assert hub.flush()
    assert len(seen) == 1


def test_a_hub_that_nobody_uses_goes_with_its_thread(monkeypatch):
    """A program that makes a monitor for each request must not collect threads."""
    monkeypatch.setattr("cert.core.events._IDLE", 0.05, raising=False)
    hub = EventHub()
    hub.observe(lambda event: None)
    hub.emit(EVENT)
    assert hub.flush()
    gone = weakref.ref(hub)
    del hub
    deadline = time.monotonic() + 3
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert gone() is None


def test_a_thread_that_ended_starts_again(hub, monkeypatch):
    """After a quiet night the first event of the morning must be heard."""
    monkeypatch.setattr("cert.core.events._IDLE", 0.02, raising=False)
    seen: list[Event] = []
    hub.observe(seen.append)
    for count in range(1, 4):
        hub.emit(EVENT)
        assert hub.flush()
        assert len(seen) == count
        time.sleep(0.06)


def test_an_idle_hub_holds_no_request(hub):
    """The context of the last request, with whatever it holds, must not live until the next one."""

    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    holder: contextvars.ContextVar[object] = contextvars.ContextVar("holder")
    hub.observe(lambda event: None)

    def emit(value: object) -> None:
        holder.set(value)
        hub.emit(EVENT)

    contextvars.copy_context().run(emit, held)
    assert hub.flush()
    del held
    deadline = time.monotonic() + 3
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None


# --- required sinks -------------------------------------------------------------------------------


def deliver_sync(hub: EventHub, event: Event) -> None:
    hub.deliver(event)


def deliver_async(hub: EventHub, event: Event) -> None:
    asyncio.run(hub.deliver_async(event))


DELIVERIES = [deliver_sync, deliver_async]
Delivery = Callable[[EventHub, Event], None]


@pytest.mark.parametrize("deliver", DELIVERIES)
def test_a_sink_has_the_event_before_the_result_is_returned(hub, deliver):
    """Evidence that is written later is evidence that a crash can lose."""
    order: list[str] = []
    hub.require(lambda event: order.append("first"))
    hub.require(lambda event: order.append("second"))
    deliver(hub, EVENT)
    assert order == ["first", "second"]


@pytest.mark.parametrize("deliver", DELIVERIES)
def test_a_sink_may_refuse_with_an_error_of_ours(hub, deliver):
    """The caller learns why its result is withheld, and nobody is told that it was given."""
    seen: list[Event] = []
    later: list[Event] = []
    error = BudgetExceededError("no")
    hub.observe(seen.append)

    def refuse(event: Event) -> None:
        raise error

    hub.require(refuse)
    hub.require(later.append)
    with pytest.raises(BudgetExceededError) as caught:
        deliver(hub, EVENT)
    assert caught.value is error
    assert hub.flush()
    assert (seen, later) == ([], [])


@pytest.mark.parametrize("deliver", DELIVERIES)
def test_a_sink_that_fails_refuses(hub, deliver):
    """A full disk is not a reason to return a result without its evidence."""

    def broken(event: Event) -> None:
        raise OSError("disk full")

    hub.require(broken)
    with pytest.raises(EvidenceError, match="OSError") as caught:
        deliver(hub, EVENT)
    assert isinstance(caught.value.__cause__, OSError)


def test_an_asynchronous_sink_is_awaited(hub):
    """A sink that writes to a database has written when the result is returned, or has refused."""
    kept: list[Event] = []

    async def keep(event: Event) -> None:
        await asyncio.sleep(0)
        kept.append(event)

    async def refuse(event: Event) -> None:
        await asyncio.sleep(0)
        raise OSError("gone")

    hub.require(keep)
    asyncio.run(hub.deliver_async(EVENT))
    assert kept == [EVENT]
    hub.require(refuse)
    with pytest.raises(EvidenceError, match="OSError"):
        asyncio.run(hub.deliver_async(EVENT))


def test_an_asynchronous_sink_in_synchronous_code_withholds(hub):
    """Nobody awaits it there: returning the result would be returning it without evidence."""

    async def keep(event: Event) -> None:
        raise AssertionError("nobody awaits this")

    hub.require(keep)
    with pytest.raises(EvidenceError, match="asynchronous"):
        hub.deliver(EVENT)


def test_a_deadline_reaches_a_sink_that_hangs(hub):
    """A database that does not answer must end the request at its deadline, and cancellation stays that."""

    async def hang(event: Event) -> None:
        await asyncio.sleep(60)

    async def run() -> None:
        async with asyncio.timeout(0.02):
            await hub.deliver_async(EVENT)

    hub.require(hang)
    with pytest.raises(TimeoutError):
        asyncio.run(run())


@pytest.mark.parametrize("deliver", DELIVERIES)
def test_a_sink_that_was_removed_decides_no_more(hub, deliver):
    """An evidence log that was closed in order must not refuse every later result."""

    def refuse(event: Event) -> None:
        raise EvidenceError("closed")

    remove = hub.require(refuse)
    remove()
    remove()
    seen: list[Event] = []
    hub.observe(seen.append)
    deliver(hub, EVENT)
    assert hub.flush()
    assert seen == [EVENT]


def test_the_process_has_one_hub():
    """What a user subscribes to once hears every part that was given no hub of its own."""
    assert default_hub() is default_hub()


# --- processes ------------------------------------------------------------------------------------

FORK = """
import os, sys, threading, time
from cert.core.events import CircuitChanged, EventHub
EVENT = CircuitChanged(circuit="judge", before="closed", after="open")
hub, seen = EventHub(), []
hub.observe(lambda event: (time.sleep(0.001), seen.append(os.getpid())))
stop = threading.Event()
def chatter():
    while not stop.is_set():
        hub.emit(EVENT)
threads = [threading.Thread(target=chatter, daemon=True) for _ in range(3)]
for thread in threads: thread.start()
time.sleep(0.05)
status = 0
for _ in range(10):
    child = os.fork()
    if child == 0:
        seen.clear()
        hub.emit(EVENT)
        os._exit(0 if hub.flush(5.0) and seen == [os.getpid()] else 3)
    deadline = time.monotonic() + 8
    while True:
        done, code = os.waitpid(child, os.WNOHANG)
        if done: break
        if time.monotonic() > deadline:
            os.kill(child, 9); os.waitpid(child, 0); code = 9 << 8
            break
        time.sleep(0.005)
    status = os.waitstatus_to_exitcode(code)
    if status: break
sys.stdout.write(f"{status}")
sys.stdout.flush()
os._exit(0)
"""

EXIT = """
import atexit, sys, time
from cert.core.events import CircuitChanged, EventHub
hub = EventHub()
def slow(event):
    time.sleep(0.01)
    sys.stdout.write("seen\\n")
hub.observe(slow)
for _ in range(20):
    hub.emit(CircuitChanged(circuit="judge", before="closed", after="open"))
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_forked_child_tells_its_own_events_and_never_hangs():
    """A worker that is forked from a program with an observed hub must neither be mute nor deadlock."""
    done = run(FORK)
    assert done.stdout == "0", done.stderr


def test_the_end_of_the_program_waits_for_its_events():
    """The last lines before the end are the ones that tell why it ended."""
    assert run(EXIT).stdout.count("seen") == 20


# --- measured -------------------------------------------------------------------------------------


def test_a_hundred_thousand_events_leave_no_memory_behind(hub):
    """A service that runs for months must not grow with the number of its calls (a small version)."""
    logger = logging.getLogger("cert.test_events")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.DEBUG)
    hub.observe(log_observer(get_logger("cert.test_events")))
    hub.observe(metrics_observer(CollectorRegistry(), hub=hub))

    def burst(count: int) -> None:
        for number in range(count):
            with correlated(f"req-{number}"):
                hub.emit(numbered(number))
            if number % 500 == 499:
                assert hub.flush(30)

    def in_use() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    burst(1000)
    tracemalloc.start()
    try:
        burst(3000)
        before = in_use()
        burst(3000)
        grown = in_use() - before
    finally:
        tracemalloc.stop()
    assert (hub.lost, hub.failures) == (0, 0)
    assert grown < 60_000, grown  # 20 bytes an event; one event that is kept has over 300
