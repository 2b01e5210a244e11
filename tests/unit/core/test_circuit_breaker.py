"""The circuit breaker: when it opens, who may probe, and what can never happen, here and in Redis."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fakeredis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from cert.core.circuit_breaker import (
    Breaker,
    BreakerPolicy,
    CircuitBreaker,
    CircuitState,
    Outcome,
    Permit,
    classify,
)
from cert.core.circuit_breaker_redis import RedisCircuitBreaker
from cert.core.circuit_state import REMEMBERED, CircuitMachine
from cert.core.errors import (
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    InputError,
    StoreError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from cert.core.events import CircuitChanged, ComponentDegraded, Event, EventHub
from cert.core.redis_scripts import RedisScripts, Script
from cert.testing import FakeClock

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
SUCCESS, FAILURE, THROTTLED, NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.THROTTLED, Outcome.NEUTRAL


def local(clock: FakeClock, **options: Any) -> CircuitBreaker:
    return CircuitBreaker("model", clock=clock, **options)


def shared(clock: FakeClock, **options: Any) -> RedisCircuitBreaker:
    """The same in a Redis that runs in this process, by the test's clock."""
    options.setdefault("redis", scripts(fakeredis.FakeServer()))
    return RedisCircuitBreaker("model", clock=clock, time=clock.monotonic, **options)


def scripts(server: fakeredis.FakeServer) -> RedisScripts:
    return RedisScripts(
        client=fakeredis.FakeRedis(server=server), async_client=fakeredis.FakeAsyncRedis(server=server)
    )


Build = Callable[..., Any]
both = pytest.mark.parametrize("build", [local, shared])


def refused(breaker: Breaker) -> float | None:
    """Seconds that a call would have to wait, or None if it goes through (which takes a permit)."""
    try:
        breaker.acquire()
    except (CircuitOpenError, UpstreamRateLimitError) as error:
        return error.retry_after
    return None


def report(breaker: Breaker, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        breaker.record(breaker.acquire(), outcome)


def opened(clock: FakeClock, build: Build = local, **options: Any) -> Any:
    breaker = build(clock, **options)
    report(breaker, *[FAILURE] * 5)
    assert breaker.state is OPEN
    return breaker


# --- every sequence of calls, results, cancellations and time ------------------------------------


@dataclass(frozen=True)
class Call:
    permit: Permit
    era: int
    probe: int


class CircuitRules(RuleBasedStateMachine):
    """Calls overlap and report in any order; a model in plain lists says what must come out."""

    calls = Bundle("calls")
    build: Build = staticmethod(local)

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1000)
        self.breaker: Any = self.build(self.clock)
        self.policy = BreakerPolicy()
        self.state = CLOSED
        self.era = 0
        self.history: list[tuple[float, bool]] = []
        self.opened_at = 0.0
        self.probe = 0
        self.slot: float | None = None  # when the lease of the probe slot ends
        self.paused_until = 0.0

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def expected(self) -> tuple[type[Exception], float] | None:
        if self.now < self.paused_until:
            return UpstreamRateLimitError, self.paused_until - self.now
        if self.state is OPEN and self.now < self.opened_at + 15:
            return CircuitOpenError, self.opened_at + 15 - self.now
        if self.state is HALF_OPEN and self.slot is not None and self.now < self.slot:
            return CircuitOpenError, self.slot - self.now
        return None

    def change(self, state: CircuitState) -> None:
        self.state, self.era, self.history, self.slot = state, self.era + 1, [], None
        if state is OPEN:
            self.opened_at = self.now

    def report(self, call: Call, outcome: Outcome, asked: float | None = None) -> None:
        if outcome is THROTTLED:
            self.paused_until = max(self.paused_until, self.now + min(asked or 1.0, 60.0))
        if call.era != self.era:
            return
        if self.state is HALF_OPEN:
            if outcome is SUCCESS:
                self.change(CLOSED)
            elif call.probe == self.probe:
                if outcome is FAILURE:
                    self.change(OPEN)
                else:
                    self.slot = None
        elif outcome in (SUCCESS, FAILURE):
            self.history.append((self.now, outcome is FAILURE))
            recent = [failed for at, failed in self.history if at > self.now - 30]
            last = [failed for _, failed in self.history][-5:]
            many = len(recent) >= 20
            broken = 2 * sum(recent) >= len(recent) if many else len(last) == 5 and all(last)
            if outcome is FAILURE and broken:
                self.change(OPEN)

    def agree(self, ask: Callable[[], Any]) -> Any:
        """Do what the model expects: the answer, or None where a refusal was due and came."""
        expected = self.expected()
        if expected is None:
            return ask()
        kind, seconds = expected
        with pytest.raises(kind) as caught:
            ask()
        assert getattr(caught.value, "retry_after", None) == pytest.approx(seconds, abs=1e-5)
        return None

    @rule(target=calls)
    def start(self) -> Any:
        permit = self.agree(self.breaker.acquire)
        if permit is None:
            return multiple()
        if self.state is OPEN:
            self.change(HALF_OPEN)
        if self.state is HALF_OPEN:
            self.probe += 1
            self.slot = self.now + 5
        return Call(permit, self.era, self.probe)

    @rule()
    def look(self) -> None:
        self.agree(self.breaker.check)

    @rule(call=consumes(calls), outcome=st.sampled_from([SUCCESS, FAILURE, FAILURE, NEUTRAL]))
    def finish(self, call: Call, outcome: Outcome) -> None:
        self.breaker.record(call.permit, outcome)
        self.report(call, outcome)

    @rule(call=consumes(calls), asked=st.sampled_from([None, 0.5, 12.0, 900.0]))
    def throttle(self, call: Call, asked: float | None) -> None:
        self.breaker.record(call.permit, THROTTLED, asked)
        self.report(call, THROTTLED, asked)

    @rule(call=consumes(calls))
    def crash(self, call: Call) -> None:
        """The caller dies and never reports."""

    @rule(failing=st.booleans(), count=st.integers(2, 12))
    def series(self, failing: bool, count: int) -> None:
        for _ in range(count):
            call = self.start()
            if isinstance(call, Call):
                self.finish(call, FAILURE if failing else SUCCESS)

    @rule()
    def cancelled(self) -> None:
        """A task is cancelled in the middle of a call."""

        async def call() -> None:
            async with self.breaker.lease():
                await asyncio.sleep(60)

        async def scenario() -> None:
            task = asyncio.create_task(call())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        if self.expected() is None and isinstance(self.breaker, CircuitBreaker):
            start = self.start_quietly()
            asyncio.run(scenario())
            self.report(start, NEUTRAL)

    def start_quietly(self) -> Call:
        """Only the model starts a call."""
        if self.state is OPEN:
            self.change(HALF_OPEN)
        if self.state is HALF_OPEN:
            self.probe += 1
            self.slot = self.now + 5
        return Call(Permit(0), self.era, self.probe)

    @rule(seconds=st.sampled_from([0.25, 1.0, 4.75, 5.0, 14.75, 15.0, 29.75, 30.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_state_is_the_model_s(self) -> None:
        assert self.breaker.state is self.state

    def teardown(self) -> None:
        """However it came to be: once the server is well, a call succeeds within 20 seconds, and all may."""
        self.clock.advance(max(self.paused_until - self.now, 20.0))
        report(self.breaker, SUCCESS)
        if self.breaker.state is not CLOSED:
            pytest.fail("a successful probe did not close the circuit")
        report(self.breaker, SUCCESS, SUCCESS)


class SharedCircuitRules(CircuitRules):
    build = staticmethod(shared)


TestLocalCircuit = CircuitRules.TestCase
TestLocalCircuit.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestSharedCircuit = SharedCircuitRules.TestCase
TestSharedCircuit.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


# --- the numbers ----------------------------------------------------------------------------------


@both
def test_it_opens_at_half_of_twenty(build: Build) -> None:
    """A server that fails every other call would go on being called."""
    breaker = build(FakeClock())
    report(breaker, *[SUCCESS, FAILURE] * 9, SUCCESS)
    assert breaker.state is CLOSED
    report(breaker, FAILURE)
    assert breaker.state is OPEN


@both
def test_fewer_failures_than_half_leave_it_closed(build: Build) -> None:
    """A server that fails now and then, though five in a row among many, must stay usable."""
    breaker = build(FakeClock())
    report(breaker, *[SUCCESS] * 30, *[FAILURE] * 29)
    assert breaker.state is CLOSED
    report(breaker, FAILURE)
    assert breaker.state is OPEN


@both
def test_only_the_last_thirty_seconds_count(build: Build) -> None:
    """An hour of good answers would otherwise keep a dead server in use for long."""
    clock = FakeClock()
    breaker = build(clock)
    report(breaker, *[SUCCESS] * 100)
    clock.advance(30)
    report(breaker, *[FAILURE] * 5)
    assert breaker.state is OPEN


@both
def test_a_success_never_opens_it(build: Build) -> None:
    """A good answer can push older good ones out of the window; cutting off for it is absurd."""
    clock = FakeClock()
    breaker = build(clock)
    report(breaker, *[SUCCESS] * 10)
    clock.advance(20)
    report(breaker, *[SUCCESS] * 10, *[FAILURE] * 12)
    assert breaker.state is CLOSED
    clock.advance(15)
    report(breaker, SUCCESS)
    assert breaker.state is CLOSED
    report(breaker, FAILURE)
    assert breaker.state is OPEN


@both
def test_five_in_a_row_open_it_and_a_success_starts_the_row_again(build: Build) -> None:
    """With little traffic a share means nothing; a row does."""
    breaker = build(FakeClock())
    report(breaker, *[FAILURE] * 4, SUCCESS, *[FAILURE] * 4)
    assert breaker.state is CLOSED
    report(breaker, FAILURE)
    assert breaker.state is OPEN


@both
def test_rejections_and_cancellations_do_not_open_it(build: Build) -> None:
    """One user's bad requests must not cut off all others."""
    breaker = build(FakeClock())
    report(breaker, *[NEUTRAL] * 50)
    assert breaker.state is CLOSED
    assert refused(breaker) is None


@both
def test_it_refuses_for_fifteen_seconds_then_lets_one_probe_through(build: Build) -> None:
    """All waiting callers at once would break a recovering server again."""
    clock = FakeClock(1)
    breaker = opened(clock, build)
    assert refused(breaker) == pytest.approx(15)
    clock.advance(14.5)
    assert refused(breaker) == pytest.approx(0.5)
    clock.advance(0.5)
    assert [refused(breaker) is None for _ in range(10)] == [True] + [False] * 9
    assert breaker.state is HALF_OPEN


@both
def test_a_failed_probe_opens_it_again_and_a_good_one_closes_it(build: Build) -> None:
    """Otherwise it would never come back, or come back to a server that still fails."""
    clock = FakeClock(1)
    breaker = opened(clock, build)
    clock.advance(15)
    report(breaker, FAILURE)
    assert breaker.state is OPEN
    assert refused(breaker) == pytest.approx(15)
    clock.advance(15)
    report(breaker, SUCCESS)
    assert breaker.state is CLOSED
    report(breaker, *[FAILURE] * 4)  # the failures before it opened no longer count
    assert breaker.state is CLOSED


@both
def test_what_was_before_it_closed_again_no_longer_counts(build: Build) -> None:
    """One failure after a recovery would open it again for failures that are over."""
    clock = FakeClock(1)
    breaker = build(clock, policy=BreakerPolicy(recovery_seconds=1))
    report(breaker, *[SUCCESS, FAILURE] * 10)
    assert breaker.state is OPEN
    clock.advance(1)
    report(breaker, SUCCESS, FAILURE)
    assert breaker.state is CLOSED
    report(breaker, *[FAILURE] * 4)  # nor do the good answers of before hide a new outage
    assert breaker.state is OPEN


@both
@pytest.mark.parametrize("outcome", [NEUTRAL, THROTTLED])
def test_a_probe_that_says_nothing_gives_its_slot_back(build: Build, outcome: Outcome) -> None:
    """A cancelled probe must neither close the circuit nor block it."""
    clock = FakeClock(1)
    breaker = opened(clock, build)
    clock.advance(15)
    report(breaker, outcome)
    assert breaker.state is HALF_OPEN
    clock.advance(1)  # the pause of a 429
    assert refused(breaker) is None


@both
def test_a_probe_that_hangs_blocks_for_its_lease_only(build: Build) -> None:
    """A caller that died while probing would otherwise keep the circuit open for ever."""
    clock = FakeClock(1)
    breaker = opened(clock, build)
    clock.advance(15)
    hanging = breaker.acquire()
    assert refused(breaker) == pytest.approx(5)
    clock.advance(5)
    second = breaker.acquire()
    breaker.record(hanging, FAILURE)  # began before the second; what it met says nothing about now
    assert breaker.state is HALF_OPEN
    breaker.record(second, SUCCESS)
    assert breaker.state is CLOSED


@both
def test_results_of_an_earlier_state_are_ignored(build: Build) -> None:
    """A slow success from before the outage would close the circuit; a slow failure would open it again."""
    clock = FakeClock(1)
    breaker = build(clock)
    slow = [breaker.acquire() for _ in range(30)]
    report(breaker, *[FAILURE] * 5)
    breaker.record(slow.pop(), SUCCESS)
    assert breaker.state is OPEN
    clock.advance(15)
    probe = breaker.acquire()
    breaker.record(slow.pop(), SUCCESS)
    breaker.record(slow.pop(), FAILURE)
    assert breaker.state is HALF_OPEN
    breaker.record(probe, SUCCESS)
    for permit in slow:
        breaker.record(permit, FAILURE)
    assert breaker.state is CLOSED


@both
def test_a_429_pauses_and_never_opens(build: Build) -> None:
    """A busy server asks for patience; treating that as broken would cut callers off for longer."""
    clock = FakeClock(1)
    breaker = build(clock)
    inflight = [breaker.acquire() for _ in range(40)]
    for permit in inflight:
        breaker.record(permit, THROTTLED, 7.0)
    assert breaker.state is CLOSED
    with pytest.raises(UpstreamRateLimitError) as caught:
        breaker.check()
    assert caught.value.retry_after == pytest.approx(7)
    assert caught.value.context["sent"] is False
    clock.advance(7)
    assert refused(breaker) is None


@both
def test_a_shorter_pause_does_not_end_a_longer_one(build: Build) -> None:
    """Of two answers the one that asks for more patience is right."""
    breaker = build(FakeClock(1))
    one, two = breaker.acquire(), breaker.acquire()
    breaker.record(one, THROTTLED, 30.0)
    breaker.record(two, THROTTLED, 2.0)
    assert refused(breaker) == pytest.approx(30)


@both
@pytest.mark.parametrize(
    ("asked", "seconds"), [(None, 1), (86_400.0, 60), (math.inf, 60), (math.nan, 1), (-3.0, 1)]
)
def test_the_pause_is_bounded(build: Build, asked: float | None, seconds: float) -> None:
    """A server, or whoever sits between, could otherwise stop all calls for a day."""
    breaker = build(FakeClock(1))
    breaker.record(breaker.acquire(), THROTTLED, asked)
    assert refused(breaker) == pytest.approx(seconds)


class Jumping(FakeClock):
    """A clock that is set back."""

    back = 0.0

    def monotonic(self) -> float:
        return super().monotonic() - self.back


@both
def test_results_that_a_clock_has_left_in_the_future_do_not_count(build: Build) -> None:
    """Good answers dated an hour ahead would keep a dead server in use for an hour."""
    clock = Jumping(100_000)
    breaker = build(clock)
    report(breaker, *[SUCCESS] * 50)
    clock.back = 3600
    report(breaker, *[FAILURE] * 5)
    assert breaker.state is OPEN


@both
@pytest.mark.parametrize("state", [CLOSED, OPEN, HALF_OPEN])
def test_a_clock_that_jumps_back_does_not_lock_it(build: Build, state: CircuitState) -> None:
    """A corrected clock must not keep calls out for longer than a recovery takes."""
    clock = Jumping(100_000)
    breaker = build(clock)
    if state is CLOSED:
        breaker.record(breaker.acquire(), THROTTLED, 5)
    else:
        report(breaker, *[FAILURE] * 5)
    if state is HALF_OPEN:
        clock.advance(15)
        breaker.acquire()
    clock.back = 50_000
    waited = refused(breaker)
    assert waited is not None
    assert waited <= 60
    clock.advance(waited)
    report(breaker, SUCCESS)
    assert breaker.state is CLOSED


def test_memory_is_bounded() -> None:
    """Results of a busy hour must not pile up."""
    machine = CircuitMachine(BreakerPolicy(window_seconds=1e6))
    permit = machine.acquire(0)
    assert isinstance(permit, Permit)
    for n in range(REMEMBERED + 500):
        machine.record(permit, FAILURE if n % 3 == 0 else SUCCESS, n / 1000)
    assert len(machine._results) == REMEMBERED
    assert machine._failures == sum(failed for _, failed in machine._results)


@pytest.mark.parametrize(
    "setting",
    [
        {"failure_rate": 0},
        {"failure_rate": 1.5},
        {"failure_rate": math.nan},
        {"minimum_calls": 0},
        {"window_seconds": -1},
        {"failures_in_a_row": 0},
        {"recovery_seconds": math.inf},
        {"probe_seconds": 0},
        {"pause_seconds": -1},
        {"pause_maximum_seconds": True},
    ],
)
def test_settings_that_cannot_be_right_are_refused(setting: dict[str, Any]) -> None:
    """A breaker with a NaN in it would never open, and nobody would know."""
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        BreakerPolicy(**setting)


def test_recovery_takes_at_most_twenty_seconds_by_default() -> None:
    """The documents promise it."""
    policy = BreakerPolicy()
    assert policy.recovery_seconds + policy.probe_seconds <= 20


# --- what errors mean -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, SUCCESS),
        (UpstreamConnectionError("x"), FAILURE),
        (UpstreamTimeoutError("x"), FAILURE),
        (UpstreamUnavailableError("x", context={"status": 529}), FAILURE),
        (UpstreamProtocolError("x"), FAILURE),
        (UpstreamError("x", context={"status": 500}), FAILURE),
        (ConnectionResetError(), FAILURE),
        (TimeoutError(), FAILURE),
        (UpstreamRateLimitError("x"), THROTTLED),
        (UpstreamRejectedError("x", context={"status": 400}), NEUTRAL),
        (UpstreamError("x"), NEUTRAL),
        (InputError("x"), NEUTRAL),
        (BudgetExceededError("x"), NEUTRAL),
        (TypeError("x"), NEUTRAL),
        (asyncio.CancelledError(), NEUTRAL),
        (KeyboardInterrupt(), NEUTRAL),
    ],
)
def test_what_an_error_says_about_the_server(error: BaseException | None, outcome: Outcome) -> None:
    """A wrong class here opens the circuit on a user's mistake, or never on a server's."""
    assert classify(error) is outcome


# --- the ways to use it ---------------------------------------------------------------------------


def test_the_decorator_counts_failures_of_plain_functions() -> None:
    """The shortest way to use it must protect as the others do."""
    breaker = local(FakeClock())

    @breaker
    def ask(question: str) -> str:
        raise UpstreamUnavailableError(question)

    for _ in range(5):
        with pytest.raises(UpstreamUnavailableError):
            ask("why")
    with pytest.raises(CircuitOpenError):
        ask("why")


def test_the_decorator_counts_failures_of_async_functions() -> None:
    """An `async` function taken for a plain one would count as a success before it ran."""
    breaker = local(FakeClock())

    @breaker
    async def ask() -> str:
        raise ConnectionResetError

    async def scenario() -> None:
        for _ in range(5):
            with pytest.raises(ConnectionResetError):
                await ask()
        with pytest.raises(CircuitOpenError):
            await ask()

    asyncio.run(scenario())


def test_the_context_manager_reports_what_the_block_met() -> None:
    """The wait that a server asks for inside the block must reach the breaker."""
    clock = FakeClock()
    breaker = local(clock)
    with breaker.lease():
        pass
    with pytest.raises(UpstreamRateLimitError), breaker.lease():
        raise UpstreamRateLimitError("slow down", retry_after=9)
    assert refused(breaker) == 9


def test_looking_takes_no_probe() -> None:
    """A health check that asks must not use up the one probe."""
    clock = FakeClock()
    breaker = opened(clock)
    with pytest.raises(CircuitOpenError):
        breaker.check()
    clock.advance(15)
    for _ in range(3):
        breaker.check()
    asyncio.run(breaker.check_async())
    assert breaker.state is OPEN
    assert refused(breaker) is None


def test_the_refusal_tells_what_and_for_how_long() -> None:
    """Callers decide by `retry_after`; people read the name."""
    with pytest.raises(CircuitOpenError, match="model") as caught:
        opened(FakeClock()).acquire()
    assert caught.value.retry_after == 15
    assert caught.value.context == {"circuit": "model"}


@both
def test_each_change_of_state_is_told_once_in_order(build: Build) -> None:
    """A dashboard that missed a change would show an open circuit as closed."""
    hub = EventHub()
    seen: list[Event] = []
    hub.observe(seen.append)
    clock = FakeClock()
    breaker = opened(clock, build, hub=hub)
    clock.advance(15)
    report(breaker, SUCCESS)
    assert hub.flush()
    changes = [(e.circuit, e.before, e.after) for e in seen if isinstance(e, CircuitChanged)]
    assert changes == [
        ("model", "closed", "open"),
        ("model", "open", "half_open"),
        ("model", "half_open", "closed"),
    ]


@both
def test_of_many_threads_one_probes(build: Build) -> None:
    """A race at the probe slot lets a crowd through to a server that just came back."""
    clock = FakeClock(1)
    breaker = opened(clock, build)
    clock.advance(15)
    start = threading.Barrier(16)

    def call() -> bool:
        start.wait()
        return refused(breaker) is None

    with ThreadPoolExecutor(16) as pool:
        admitted = list(pool.map(lambda _: call(), range(16)))
    assert sum(admitted) == 1


# --- Redis ----------------------------------------------------------------------------------------


class Fragile(RedisScripts):
    """A Redis that can be made to fail."""

    broken = False
    calls = 0

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        self.calls += 1
        if self.broken:
            raise StoreError("gone")
        return super().run(script, keys, arguments)


def fragile(clock: FakeClock, hub: EventHub | None = None) -> tuple[RedisCircuitBreaker, Fragile]:
    redis = Fragile(client=fakeredis.FakeRedis(server=fakeredis.FakeServer()))
    return shared(clock, redis=redis, hub=hub), redis


def test_replicas_share_one_circuit() -> None:
    """Each replica would otherwise hammer the broken server until it has found out by itself."""
    clock = FakeClock(1)
    server = fakeredis.FakeServer()
    one, two = (shared(clock, redis=scripts(server)) for _ in range(2))
    report(one, FAILURE, FAILURE, FAILURE)
    report(two, FAILURE, FAILURE)
    assert refused(one) == pytest.approx(15)
    clock.advance(15)
    assert [refused(one) is None, refused(two) is None] == [True, False]


def test_async_calls_go_through_the_same_script() -> None:
    """Services call `async`; a twin that differs would share nothing."""
    clock = FakeClock(1)

    async def scenario() -> None:
        breaker = shared(clock)
        for _ in range(5):
            await breaker.check_async()
            with pytest.raises(ConnectionError):
                async with breaker.lease():
                    raise ConnectionError
        for ask in (breaker.check_async, breaker.acquire_async):
            with pytest.raises(CircuitOpenError):
                await ask()
        with pytest.raises(CircuitOpenError):
            breaker.check()
        clock.advance(15)
        async with breaker.lease() as permit:
            assert permit.shared
        assert breaker.state is CLOSED

    asyncio.run(scenario())


def test_without_redis_each_process_decides_and_says_so() -> None:
    """Redis gone, slow or full: calls go on, still protected, and operators can see why."""
    hub = EventHub()
    seen: list[Event] = []
    hub.observe(seen.append)
    clock = FakeClock(1)
    breaker, redis = fragile(clock, hub)
    report(breaker, SUCCESS)
    redis.broken = True
    report(breaker, *[FAILURE] * 5)
    assert (breaker.degraded, breaker.state) == ("local", OPEN)
    assert refused(breaker) == pytest.approx(15)
    with pytest.raises(CircuitOpenError):
        breaker.check()
    redis.broken = False
    clock.advance(1)
    assert refused(breaker) is None  # the shared circuit is closed
    assert (breaker.degraded, breaker.state) == (None, CLOSED)
    assert hub.flush()
    told = [(e.component, e.mode, e.active) for e in seen if isinstance(e, ComponentDegraded)]
    assert told == [("circuit:model", "local", True), ("circuit:model", "local", False)]
    changes = [(e.before, e.after) for e in seen if isinstance(e, CircuitChanged)]
    assert changes == [("closed", "open"), ("open", "closed")]


def test_async_calls_go_on_without_redis_too() -> None:
    """The services' way must lose Redis as gently as the plain one."""

    class Gone(RedisScripts):
        async def run_async(
            self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]
        ) -> list[Any]:
            raise StoreError("gone")

    breaker = shared(FakeClock(1), redis=Gone(async_client=fakeredis.FakeAsyncRedis()))

    async def scenario() -> None:
        for _ in range(5):
            await breaker.check_async()
            await breaker.record_async(await breaker.acquire_async(), FAILURE)
        for ask in (breaker.check_async, breaker.acquire_async):
            with pytest.raises(CircuitOpenError):
                await ask()

    asyncio.run(scenario())
    assert breaker.degraded == "local"


def test_a_dead_redis_is_not_asked_by_every_call() -> None:
    """Each call would otherwise wait for Redis's time-out first."""
    clock = FakeClock(1)
    breaker, redis = fragile(clock)
    redis.broken = True
    for _ in range(50):
        report(breaker, SUCCESS)
    assert redis.calls == 1
    clock.advance(1)
    report(breaker, SUCCESS, SUCCESS)
    assert redis.calls == 2


def test_a_result_that_redis_cannot_take_does_not_break_the_call() -> None:
    """The answer was paid for; losing it for want of bookkeeping would be absurd."""
    clock = FakeClock(1)
    breaker, redis = fragile(clock)
    with breaker.lease() as permit:
        redis.broken = True
    assert permit.shared
    assert breaker.degraded


def test_redis_without_its_data_starts_closed_and_knows_no_old_permit() -> None:
    """After a restart of Redis, late results of calls from before must not count."""
    clock = FakeClock(1)
    server = fakeredis.FakeServer()
    client = fakeredis.FakeRedis(server=server)
    breaker = shared(clock, redis=RedisScripts(client=client))
    old = [breaker.acquire() for _ in range(6)]
    client.flushall()
    clock.advance(1)
    report(breaker, SUCCESS)
    for permit in old:
        breaker.record(permit, FAILURE)
    assert refused(breaker) is None


def test_shared_state_does_not_stay_for_ever() -> None:
    """Circuits of names no longer used would fill Redis."""
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    report(shared(FakeClock(1), redis=RedisScripts(client=client)), SUCCESS, FAILURE)
    keys = client.keys()
    assert len(keys) == 3
    assert all(0 < client.ttl(key) <= 3600 for key in keys)
