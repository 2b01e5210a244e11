"""Health: what probes are told, and that no check can break or delay the answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.core.correlation import correlated, correlation_id
from cert.core.degraded import DegradedParts
from cert.core.errors import ConfigurationError, StoreError
from cert.core.events import ComponentDegraded, Event, EventHub, HealthChanged, ModelUnloaded
from cert.core.health import CheckResult, Finding, HealthRegistry, HealthReport
from cert.testing import FakeClock


def registry(clock: FakeClock, **options) -> HealthRegistry:
    return HealthRegistry(clock=clock.monotonic, sleep=clock.sleep_async, **options)


def raising(error: BaseException) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check


STATUSES = ["healthy", "degraded", "unhealthy"]


@pytest.mark.parametrize(("status", "critical"), list(itertools.product(STATUSES, [True, False])))
def test_only_a_critical_check_makes_the_process_unfit(status, critical):
    """A broken extra must not take every replica out of service, and a broken necessity must."""
    expected = "degraded" if status == "unhealthy" and not critical else status
    health = HealthRegistry()
    health.register("one", lambda: Finding(status), critical=critical)
    health.register("fine", lambda: None)
    report = health.check()
    assert report.status == expected
    assert report.ready == (expected != "unhealthy")
    json.dumps(report.to_dict())


@given(st.lists(st.tuples(st.sampled_from(STATUSES), st.booleans()), max_size=6))
def test_the_whole_is_the_worst_of_its_parts(parts):
    """Adding a failing check must never make the process look better, whatever the order."""
    checks = tuple(
        CheckResult(str(index), status, critical, None, None, 0.0)
        for index, (status, critical) in enumerate(parts)
    )
    status = HealthReport(checks).status
    if ("unhealthy", True) in parts:
        assert status == "unhealthy"
    elif any(part[0] != "healthy" for part in parts):
        assert status == "degraded"
    else:
        assert status == "healthy"


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (StoreError("Redis is gone"), "store", "Redis is gone"),
        (ValueError("redis://user:hunter2@host"), "check_failed", "ValueError"),
        (SystemExit(3), "check_failed", "RuntimeError"),
    ],
)
def test_a_check_that_raises_is_unhealthy_and_tells_no_secret(error, code, detail):
    """A health endpoint that raises, exits, or shows a password is worse than none."""
    health = HealthRegistry()
    health.register("store", raising(error))
    (found,) = health.check().checks
    assert (found.status, found.code, found.detail) == ("unhealthy", code, detail)


def test_asynchronous_checks_and_those_that_return_an_awaitable_run_too():
    """`register("redis", client.ping)` and `lambda: client.ping()` must both be awaited, not believed."""

    async def failing() -> bool:
        await asyncio.sleep(0)
        return False

    class AsyncCallable:
        async def __call__(self) -> None:
            raise StoreError("no")

    health = HealthRegistry()
    health.register("function", failing)
    health.register("lambda", lambda: asyncio.sleep(0, result=False))
    health.register("object", AsyncCallable())
    codes = {check.name: check.code for check in health.check().checks}
    assert codes == {"function": "check_failed", "lambda": "check_failed", "object": "store"}


def test_nonsense_from_a_check_is_not_taken_for_health():
    """A check that returns a truthy string by mistake must not count as passed."""
    health = HealthRegistry()
    health.register("odd", lambda: "unhealthy")  # type: ignore[arg-type,return-value]
    assert health.check().status == "unhealthy"


def test_a_hanging_check_is_unhealthy_after_its_time_and_delays_nobody_else():
    """One dead database must not make the whole readiness probe time out."""

    async def scenario() -> None:
        clock, cancelled = FakeClock(), asyncio.Event()

        async def never() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        health = registry(clock)
        health.register("dead", never, timeout=3)
        health.register("alive", lambda: None, timeout=1)
        task = asyncio.create_task(health.check_async())
        while clock.sleeping != 1:  # the quick check is through, the dead one waits
            await asyncio.sleep(0.001)
        await clock.advance_async(2.9)
        assert not task.done()
        await clock.advance_async(0.2)
        dead, alive = (await asyncio.wait_for(task, 5)).checks
        assert (dead.status, dead.code) == ("unhealthy", "timeout")
        assert alive.status == "healthy"
        await asyncio.wait_for(cancelled.wait(), 5)

    asyncio.run(scenario())


def test_a_check_that_never_returns_costs_one_thread_not_one_a_probe():
    """A probe every few seconds on a dead disk must not pile up threads until the process dies."""
    release = threading.Event()
    health = HealthRegistry(cache_seconds=0)
    health.register("disk", lambda: release.wait(30) and None, timeout=0.01)
    codes = [health.check().checks[0].code for _ in range(5)]
    assert codes == ["timeout"] * 5
    (left,) = [thread for thread in threading.enumerate() if thread.name == "cert-health-check"]
    assert left.daemon, "a hanging check would keep Python from ending"
    release.set()
    deadline = time.monotonic() + 5
    while health.check().status != "healthy" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert health.check().status == "healthy"


def test_no_thread_to_be_had_is_a_failed_check_and_not_a_failed_probe(monkeypatch):
    """A process out of threads is unhealthy; a probe that raises, or blocks the next one, hides why."""
    health = HealthRegistry(cache_seconds=0)
    health.register("disk", lambda: None)
    start = threading.Thread.start

    def none_left(thread: threading.Thread) -> None:
        if thread.name == "cert-health-check":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        (found,) = health.check().checks
        assert (found.status, found.code) == ("unhealthy", "check_failed")
    assert health.check().status == "healthy"


def test_a_check_that_ignores_its_cancellation_does_not_hold_the_answer():
    """A client library that swallows cancellation must not be able to hang the probe."""
    stop = threading.Event()

    async def stubborn() -> None:
        while not stop.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    health = HealthRegistry(cache_seconds=0)
    health.register("stubborn", stubborn, timeout=0.02)
    started = time.monotonic()
    assert health.check().checks[0].code == "timeout"
    assert health.check().checks[0].code == "timeout"
    assert time.monotonic() - started < 5
    stop.set()


def test_a_check_that_cancels_itself_is_unhealthy():
    """A cancelled connection inside a check must not cancel the caller."""

    async def cancelling() -> None:
        raise asyncio.CancelledError

    health = HealthRegistry()
    health.register("one", cancelling)
    assert health.check().status == "unhealthy"


def test_checks_run_at_the_same_time():
    """Ten checks of a second each have to answer within about one."""
    barrier = threading.Barrier(4, timeout=10)
    health = HealthRegistry()
    for number in range(4):
        health.register(f"check-{number}", lambda: barrier.wait() >= 0, timeout=10)
    assert health.check().status == "healthy"


def test_a_report_is_good_for_a_moment_and_no_longer():
    """Probes of many load balancers must not hammer Redis, and must still see it come back."""
    calls = 0

    async def counted() -> None:
        nonlocal calls
        calls += 1

    async def scenario() -> None:
        clock = FakeClock()
        health = registry(clock, cache_seconds=2)
        health.register("redis", counted)
        for _ in range(3):
            await health.check_async()
        assert calls == 1
        clock.advance(1.99)
        await health.check_async()
        assert calls == 1
        clock.advance(0.01)
        await health.check_async()
        assert calls == 2
        remove = health.register("other", lambda: False)
        assert (await health.check_async()).status == "unhealthy"
        remove()
        remove()
        assert (await health.check_async()).status == "healthy"
        assert calls == 4

    asyncio.run(scenario())


def test_callers_at_the_same_time_share_one_run_even_if_the_first_gives_up():
    """A cancelled probe must neither fail the others nor start the checks again."""
    calls = 0

    async def scenario() -> None:
        gate, complaints = asyncio.Event(), list[object]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

        async def gated() -> None:
            nonlocal calls
            calls += 1
            await gate.wait()

        health = HealthRegistry()
        health.register("redis", gated, timeout=10)
        tasks = [asyncio.create_task(health.check_async()) for _ in range(3)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        await asyncio.sleep(0.01)
        gate.set()
        assert [report.status for report in await asyncio.gather(*tasks[1:])] == ["healthy", "healthy"]
        assert tasks[0].cancelled()
        assert calls == 1
        assert not complaints

    asyncio.run(scenario())


def test_a_check_registered_during_a_run_is_in_the_next_report():
    """A report of yesterday's set of checks must not be cached as today's."""

    async def scenario() -> None:
        gate = asyncio.Event()
        health = HealthRegistry(cache_seconds=60)
        health.register("slow", gate.wait, timeout=10)
        first = asyncio.create_task(health.check_async())
        await asyncio.sleep(0.01)
        health.register("broken", lambda: False)
        second = asyncio.create_task(health.check_async())
        await asyncio.sleep(0.01)
        gate.set()
        assert [check.name for check in (await first).checks] == ["slow"]
        assert [check.name for check in (await second).checks] == ["slow", "broken"]
        assert "broken" in (await health.check_async()).to_dict()["checks"]

    asyncio.run(scenario())


def test_a_report_of_an_older_set_of_checks_is_not_kept():
    """The one cached report would hide a new check for as long as the cache lasts."""

    async def scenario() -> None:
        gate = asyncio.Event()
        health = HealthRegistry(cache_seconds=60)
        health.register("slow", gate.wait, timeout=10)
        task = asyncio.create_task(health.check_async())
        await asyncio.sleep(0.01)
        health.register("broken", lambda: False)
        gate.set()
        await task
        assert "broken" in (await health.check_async()).to_dict()["checks"]

    asyncio.run(scenario())


def test_a_check_on_a_thread_keeps_the_correlation_id():
    """Log lines of a failing check have to be found by the id of the probe that ran it."""
    seen = []

    async def scenario() -> None:
        health = HealthRegistry()
        health.register("one", lambda: seen.append(correlation_id()))
        with correlated("probe-7"):
            await health.check_async()

    asyncio.run(scenario())
    assert seen == ["probe-7"]


def test_when_the_loop_that_runs_the_checks_dies_another_caller_runs_them():
    """A probe thread that ends in the middle must not leave the others waiting for ever."""
    entered, calls = threading.Event(), 0

    async def first_hangs() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            entered.set()
            await asyncio.sleep(60)

    health = HealthRegistry()
    health.register("redis", first_hangs, timeout=90)

    async def dying() -> None:
        task = asyncio.create_task(health.check_async())
        while not entered.is_set() or not waiting.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        task.cancel()

    waiting = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(dying()))
    thread.start()
    assert entered.wait(5)

    async def follower() -> HealthReport:
        waiting.set()
        return await health.check_async()

    report = asyncio.run(asyncio.wait_for(follower(), 10))
    thread.join()
    assert calls == 2
    assert report.status == "healthy"


def test_liveness_runs_no_check():
    """An outage of a database must not make Kubernetes restart every replica."""
    clock = FakeClock()
    health = registry(clock)
    health.register("redis", raising(AssertionError("liveness asked a dependency")))
    clock.advance(7)
    assert health.liveness() == {"schema_version": 1, "status": "alive", "uptime_seconds": 7.0}


def test_changes_are_told_once():
    """An alert has to fire when health changes, not at each probe."""
    seen: list[Event] = []
    hub = EventHub()
    hub.observe(seen.append)
    answers = iter([True, True, False, True])
    health = HealthRegistry(hub=hub, cache_seconds=0)
    health.register("redis", lambda: next(answers), critical=False)
    for _ in range(4):
        health.check()
    assert hub.flush()
    assert [(e.component, e.before, e.after) for e in seen if isinstance(e, HealthChanged)] == [
        ("redis", "unknown", "healthy"),
        ("overall", "unknown", "healthy"),
        ("redis", "healthy", "unhealthy"),
        ("overall", "healthy", "degraded"),
        ("redis", "unhealthy", "healthy"),
        ("overall", "degraded", "healthy"),
    ]


def test_a_check_that_was_removed_is_unknown_again():
    """A component that comes back has to be told of, even in the state that it left in."""
    seen: list[Event] = []
    hub = EventHub()
    hub.observe(seen.append)
    health = HealthRegistry(hub=hub, cache_seconds=0)
    for _ in range(2):
        remove = health.register("redis", lambda: None)
        health.check()
        remove()
    assert hub.flush()
    told = [(e.before, e.after) for e in seen if isinstance(e, HealthChanged) and e.component == "redis"]
    assert told == [("unknown", "healthy")] * 2


def test_the_blocking_form_tells_what_went_wrong_instead_of_waiting_for_ever(monkeypatch):
    """Without an answer from its thread the caller would hang."""
    health = HealthRegistry()

    async def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(health, "check_async", fail)
    with pytest.raises(ZeroDivisionError):
        health.check()


def test_the_blocking_form_is_refused_on_an_event_loop():
    """It would stop the loop that asynchronous checks need: a deadlock instead of an answer."""

    async def scenario() -> None:
        HealthRegistry().check()

    with pytest.raises(RuntimeError, match="check_async"):
        asyncio.run(scenario())


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_time_out_that_cannot_be_right_is_refused(timeout):
    """An infinite time-out is a probe that hangs."""
    with pytest.raises(ConfigurationError, match="redis"):
        HealthRegistry().register("redis", lambda: None, timeout=timeout)


@pytest.mark.parametrize("name", ["redis", "overall"])
def test_names_are_unique(name):
    """Two checks under one name would hide each other in every metric."""
    health = HealthRegistry()
    health.register("redis", lambda: None)
    with pytest.raises(ConfigurationError, match="already"):
        health.register(name, lambda: None)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_cache_time_that_cannot_be_right_is_refused(seconds):
    """A report cached for ever says healthy for ever."""
    with pytest.raises(ConfigurationError):
        HealthRegistry(cache_seconds=seconds)


def test_parts_that_say_they_are_degraded_show_in_the_health():
    """A budget that fails closed since Redis is gone has to be seen by whoever looks at the health."""
    hub, health, parts = EventHub(), HealthRegistry(cache_seconds=0), DegradedParts()
    health.register("degraded_parts", parts.finding, critical=False)
    hub.observe(parts)
    hub.emit(ModelUnloaded(model="m"))
    hub.emit(ComponentDegraded(component="budget", mode="fail_closed", active=True))
    hub.emit(ComponentDegraded(component="rate_limit", mode="local_share", active=True))
    hub.flush()
    report = health.check()
    assert report.status == "degraded"
    assert report.checks[0].detail == "budget: fail_closed, rate_limit: local_share"
    for component in ("budget", "rate_limit", "never_seen"):
        hub.emit(ComponentDegraded(component=component, mode="", active=False))
    hub.flush()
    assert health.check().status == "healthy"
