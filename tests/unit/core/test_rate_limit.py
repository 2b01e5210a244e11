"""Rate limits: exact in every window, fair in the line, and honest about what can never be admitted."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from fakeredis.commands_mixins import server_mixin
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cert.core.errors import ConfigurationError, InputError, RateLimitedError, StoreError
from cert.core.events import ComponentDegraded, Event, EventHub, RateLimitWaited
from cert.core.rate_limit import RateLimiter
from cert.core.redis_scripts import RedisScripts
from cert.testing import FakeClock

MINUTE = 60.0


class World:
    """Limiters with one clock, in one process or with a Redis in this process that can be cut off."""

    def __init__(
        self, kind: str, requests: int | None = None, tokens: int | None = None, **more: Any
    ) -> None:
        self.clock = FakeClock(5.0)
        self.jumped = 0.0
        self.events: list[Event] = []
        self.hub = EventHub()
        self.hub.observe(self.events.append)
        self.server = fakeredis.FakeServer() if kind == "redis" else None
        wall = SimpleNamespace(time=lambda: 1_700_000_000.0 + self.clock.monotonic() + self.jumped)
        server_mixin.time = wall  # type: ignore[assignment, attr-defined]
        self.arguments = {"requests_per_minute": requests, "tokens_per_minute": tokens, **more}
        self.limiter = self.replica()

    def replica(self) -> RateLimiter:
        """A limiter as another process would have it, sharing where it can be shared."""
        redis = None
        if self.server is not None:
            redis = RedisScripts(
                client=fakeredis.FakeStrictRedis(server=self.server),
                async_client=fakeredis.FakeAsyncRedis(server=self.server),
            )
        return RateLimiter(**self.arguments, redis=redis, clock=self.clock, hub=self.hub)

    def take(self, limiter: RateLimiter | None = None, tokens: int = 0) -> bool:
        """Whether a request may begin now."""
        try:
            (limiter or self.limiter).acquire(tokens, timeout=0)
        except RateLimitedError:
            return False
        return True

    def burst(self, limiter: RateLimiter | None = None) -> int:
        """How many requests may begin now."""
        return next(count for count in range(10_000) if not self.take(limiter))

    def told(self, kind: type[Any]) -> list[Any]:
        assert self.hub.flush()
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def cut(self) -> bool:
        assert self.server is not None
        return not self.server.connected

    @cut.setter
    def cut(self, off: bool) -> None:
        assert self.server is not None
        self.server.connected = not off


@pytest.fixture(autouse=True)
def _wall_clock_of_fakeredis() -> Iterator[None]:
    yield
    server_mixin.time = time  # type: ignore[attr-defined]


both = pytest.mark.parametrize("kind", ["local", "redis"])


def most_in_a_window(moments: list[float]) -> int:
    """The most admissions in any closed window of 60 seconds."""
    moments = sorted(moments)
    return max(
        (sum(begin <= at <= begin + MINUTE for at in moments[i:]) for i, begin in enumerate(moments)),
        default=0,
    )


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting", ["requests_per_minute", "tokens_per_minute", "token_burst", "max_replicas"]
)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 2.5, True, "50"])
def test_a_limit_that_is_none_is_refused_by_name(setting: str, value: Any) -> None:
    """A mistyped limit would mean no limit, or none at all."""
    with pytest.raises(ConfigurationError, match=setting) as caught:
        RateLimiter(**{setting: value})
    assert caught.value.context["setting"] == setting


@both
@pytest.mark.parametrize("tokens", [-1, math.nan, 1.5, True])
def test_tokens_that_are_none_are_refused(kind: str, tokens: Any) -> None:
    """A negative number of tokens would make room for others."""
    world = World(kind, 10, 100)
    with pytest.raises(InputError, match="tokens"):
        world.limiter.acquire(tokens)


@pytest.mark.parametrize("timeout", [-1.0, math.nan])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    """A NaN compares false with everything, and would wait for ever."""
    with pytest.raises(InputError, match="timeout"):
        World("local", 10).limiter.acquire(timeout=timeout)


@both
def test_a_request_over_the_capacity_is_an_error(kind: str) -> None:
    """It would wait for ever, and everyone behind it."""
    world = World(kind, 10, 100)
    with pytest.raises(InputError, match="can never be admitted"):
        world.limiter.acquire(101)
    with pytest.raises(InputError, match="can never be admitted"):
        asyncio.run(world.limiter.acquire_async(101))
    world.arguments["token_burst"] = 30
    with pytest.raises(InputError, match="can never be admitted"):
        world.replica().acquire(31)
    assert world.limiter.acquire(100) == 0
    assert world.limiter.waiting == 0


# --- exactness ------------------------------------------------------------------------------------


@given(
    kind=st.sampled_from(["local", "local", "redis"]),
    limit=st.integers(1, 5),
    gaps=st.lists(
        st.one_of(st.just(0.0), st.floats(0, 70), st.sampled_from([59.999, 60.0, 60.001])), max_size=30
    ),
)
@example(kind="redis", limit=1, gaps=[1.555402366287808, 1.5554023662878054, 59.31731577363922, 60.0])
@example(kind="local", limit=1, gaps=[59.999, 60.0])  # readings that are not whole in binary
@settings(max_examples=150, deadline=None)
def test_no_window_holds_more_requests_than_the_limit(kind: str, limit: int, gaps: list[float]) -> None:
    """A vendor would answer 429 although the limit was kept."""
    world = World(kind, limit)
    replicas = [world.limiter, world.replica()]
    admitted: list[float] = []
    for turn, gap in enumerate(gaps):
        world.clock.advance(gap)
        limiter = replicas[turn % 2 if kind == "redis" else 0]
        wait = 0.0
        try:
            limiter.acquire(timeout=0)
        except RateLimitedError as error:
            wait = error.retry_after or 0.0
            recent = [
                at
                for at in admitted
                if at > world.clock.monotonic() - MINUTE - (0.055 if kind == "redis" else 0.005)
            ]
            assert len(recent) >= limit, "refused although there was room"
            assert wait > 0
        else:
            admitted.append(world.clock.monotonic())
    assert most_in_a_window(admitted) <= limit


@both
def test_the_wait_is_as_long_as_needed_and_no_longer(kind: str) -> None:
    """Calls would be slower than the limit asks for, or come too early."""
    world = World(kind, 3)
    for _ in range(3):
        assert world.limiter.acquire() == 0
        world.clock.advance(10)
    assert world.limiter.acquire() == pytest.approx(30.0, abs=0.06)
    assert world.limiter.acquire() == pytest.approx(10.0, abs=0.06)
    assert [event.seconds for event in world.told(RateLimitWaited)] == pytest.approx([30.0, 10.0], abs=0.06)


@given(
    kind=st.sampled_from(["local", "local", "redis"]),
    arrivals=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 100)), max_size=25),
)
@settings(max_examples=100, deadline=None)
def test_tokens_keep_to_burst_and_rate(kind: str, arrivals: list[tuple[float, int]]) -> None:
    """A vendor's bucket would be empty although ours had tokens."""
    world = World(kind, None, 100)
    taken: list[tuple[float, int]] = []
    for gap, tokens in arrivals:
        world.clock.advance(gap)
        if world.take(tokens=tokens):
            taken.append((world.clock.monotonic(), tokens))
    for i, (begin, _) in enumerate(taken):
        for j in range(i, len(taken)):
            span = taken[j][0] - begin
            assert sum(tokens for _, tokens in taken[i : j + 1]) <= 100 + (span + 0.002) * 100 / 60


@both
def test_what_one_limit_refuses_takes_nothing_from_the_other(kind: str) -> None:
    """Requests that wait for tokens would use up the requests of a minute."""
    world = World(kind, 2, 100)
    assert world.take(tokens=100)
    assert not any(world.take(tokens=50) for _ in range(10))
    assert world.take(tokens=0)
    world.clock.advance(30.1)
    assert not world.take(tokens=50)  # requests are full; the tokens stay
    world.clock.advance(30.1)
    assert world.take(tokens=100)


@both
def test_without_limits_nothing_waits(kind: str) -> None:
    """No limit would be a limit of zero."""
    world = World(kind)
    assert all(world.take(tokens=10**6) for _ in range(20))


@pytest.mark.parametrize("jump", [-100_000.0, -30.0, 30.0, 100_000.0])
def test_a_wall_clock_that_jumps_changes_nothing(jump: float) -> None:
    """A clock that is set would open a full window, or close it for a day."""
    world = World("redis", 5, 1000)
    assert world.burst() == 5
    world.jumped = jump
    world.clock.advance(50)
    assert world.burst() == 0
    world.clock.advance(10.1)
    assert world.burst() == 5


# --- time-outs ------------------------------------------------------------------------------------


@both
def test_a_timeout_that_cannot_be_met_is_refused_at_once(kind: str) -> None:
    """A caller would wait for nothing, and not know when to come again."""
    world = World(kind, 1)
    world.limiter.acquire()
    before = world.clock.monotonic()
    with pytest.raises(RateLimitedError) as caught:
        world.limiter.acquire(timeout=59)
    assert world.clock.monotonic() == before
    assert caught.value.retry_after == pytest.approx(60, abs=0.06)
    assert caught.value.retryable
    world.clock.advance(caught.value.retry_after or 0)
    assert world.limiter.acquire(timeout=0) == 0
    assert world.limiter.waiting == 0


def test_the_line_counts_for_the_timeout() -> None:
    """A caller would wait in a long line although it cannot be served in time."""

    async def stand() -> None:
        world = World("local", 2)
        waiting = [asyncio.ensure_future(world.limiter.acquire_async()) for _ in range(7)]
        await world.clock.settle()
        assert world.limiter.waiting == 5
        with pytest.raises(RateLimitedError) as caught:
            await world.limiter.acquire_async(timeout=119)  # two windows are taken by those before it
        assert caught.value.retry_after == pytest.approx(120, abs=0.01)
        await world.clock.advance_async(200)
        await asyncio.gather(*waiting)

    asyncio.run(stand())


def test_a_timeout_in_the_line_ends_the_waiting() -> None:
    """A caller behind others would wait longer than it allowed."""

    async def stand() -> None:
        world = World("local", 3)
        for _ in range(3):
            await world.limiter.acquire_async()
        world.limiter._window.take = lambda tokens: 20.0  # type: ignore[assignment, method-assign, misc]
        first = asyncio.ensure_future(world.limiter.acquire_async())
        second = asyncio.ensure_future(world.limiter.acquire_async(timeout=30))
        await world.clock.advance_async(29)
        assert not second.done()
        await world.clock.advance_async(2)
        with pytest.raises(RateLimitedError):
            await second
        first.cancel()
        await world.clock.settle()
        assert world.limiter.waiting == 0

    asyncio.run(stand())


# --- fairness -------------------------------------------------------------------------------------


@given(
    kind=st.sampled_from(["local", "redis"]),
    callers=st.lists(
        st.tuples(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 300))), min_size=1, max_size=14
    ),
)
@settings(max_examples=60, deadline=None)
def test_callers_are_served_in_order_whoever_gives_up(
    kind: str, callers: list[tuple[int, int | None]]
) -> None:
    """A cancelled caller would take a place for ever, or let someone overtake."""

    async def stand() -> None:
        world = World(kind, 2, 60)
        served: list[int] = []
        moments: list[float] = []

        async def call(number: int, tokens: int) -> None:
            await world.limiter.acquire_async(tokens)
            served.append(number)
            moments.append(world.clock.monotonic())

        tasks = [asyncio.ensure_future(call(number, tokens)) for number, (tokens, _) in enumerate(callers)]
        await world.clock.settle()
        start = world.clock.monotonic()
        for at, number in sorted((at, number) for number, (_, at) in enumerate(callers) if at is not None):
            await world.clock.advance_async(max(0.0, start + at - world.clock.monotonic()))
            tasks[number].cancel()
        await world.clock.advance_async(60.0 * 30)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        assert served == sorted(served)
        assert {number for number, (_, at) in enumerate(callers) if at is None} <= set(served)
        assert most_in_a_window(moments) <= 2
        assert world.limiter.waiting == 0
        assert world.clock.sleeping == 0

    asyncio.run(stand())


def test_a_cancelled_waiter_delays_nobody() -> None:
    """Those behind it would wait as long as if it had been served."""

    async def stand() -> None:
        world = World("local", 1)
        await world.limiter.acquire_async()
        first, second = (asyncio.ensure_future(world.limiter.acquire_async()) for _ in range(2))
        await world.clock.advance_async(30)
        first.cancel()
        await world.clock.advance_async(30.01)
        assert await second == pytest.approx(60, abs=0.01)

    asyncio.run(stand())


def test_a_place_taken_in_redis_by_a_cancelled_call_is_put_back() -> None:
    """Calls that were never made would use up the limit of all replicas."""
    world = World("redis", 1, 100)
    asked = world.limiter._window._redis._redis  # type: ignore[attr-defined]  # between Redis's work and answer
    answer_of = asked.run_async

    async def slow(*question: Any) -> list[Any]:
        answer: list[Any] = await answer_of(*question)
        await asyncio.sleep(10)
        return answer

    async def cancel() -> None:
        asked.run_async = slow
        task = asyncio.ensure_future(world.limiter.acquire_async(100))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asked.run_async = answer_of
        assert not world.take(world.replica())
        assert await world.limiter.acquire_async(100, timeout=0) == 0

    asyncio.run(cancel())


def test_a_waiter_of_a_dead_event_loop_is_passed_over() -> None:
    """A loop that was closed while a task waited would stop all others."""
    world = World("local", 1)
    world.limiter.acquire()
    dead = asyncio.new_event_loop()
    first = dead.create_task(world.limiter.acquire_async())
    second = dead.create_task(world.limiter.acquire_async())
    dead.run_until_complete(asyncio.sleep(0.01))
    threads = [threading.Thread(target=world.limiter.acquire) for _ in range(2)]
    for thread in threads:
        thread.start()
    while world.limiter.waiting < 4:
        time.sleep(0.001)
    dead.close()
    first.get_coro().close()  # what the collector does to a task of a dead loop
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    second.get_coro().close()
    assert world.limiter.waiting == 0
    for task in (first, second):
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_threads_and_tasks_stand_in_one_line() -> None:
    """Synchronous and asynchronous callers would overtake each other, or exceed the limit together."""
    world = World("local", 5)
    moments: list[float] = []

    def call() -> None:
        world.limiter.acquire()
        moments.append(world.clock.monotonic())

    async def call_all() -> None:
        calls = [asyncio.to_thread(call) for _ in range(20)]
        tasks = [asyncio.ensure_future(world.limiter.acquire_async()) for _ in range(20)]
        gathered = asyncio.gather(*calls, *tasks)
        while not gathered.done():
            await asyncio.sleep(0.005)
            world.clock.advance(1)
        await gathered

    asyncio.run(call_all())
    assert most_in_a_window(moments) <= 5
    assert world.limiter.waiting == 0


# --- Redis gone -----------------------------------------------------------------------------------


def test_redis_gone_leaves_each_replica_its_share() -> None:
    """An outage of Redis would stop all work, or let every replica use the whole limit."""
    world = World("redis", 12, max_replicas=4)
    other = world.replica()
    world.clock.advance(100)
    world.cut = True
    assert world.burst() == 3
    assert world.burst(other) == 3
    assert world.limiter.degraded == other.degraded == "local_share"
    world.clock.advance(60.1)
    assert world.burst() == 3
    events = world.told(ComponentDegraded)
    assert [(event.component, event.mode, event.active) for event in events] == [
        ("rate_limit.default", "local_share", True)
    ] * 2


def test_on_an_event_loop_each_replica_has_its_share_too() -> None:
    """The services call this way: they would stop, or go over the limit, where the other form is right."""
    world = World("redis", 12, max_replicas=4)

    async def outage() -> int:
        await world.limiter.acquire_async()
        world.cut = True
        for count in range(100):
            try:
                await world.limiter.acquire_async(timeout=0)
            except RateLimitedError:
                return count
        return 100

    assert asyncio.run(outage()) == 2, "a share of 3, of which one is used"
    assert world.limiter.degraded == "local_share"


def test_redis_gone_without_a_share_is_closed() -> None:
    """Nobody said how many replicas there are, so each could be one of a thousand."""
    world = World("redis", 12)
    assert world.take()
    world.cut = True
    with pytest.raises(StoreError, match="no share"):
        world.limiter.acquire()
    with pytest.raises(StoreError):
        asyncio.run(world.limiter.acquire_async())
    assert world.limiter.degraded == "fail_closed"
    assert world.limiter.waiting == 0
    world.cut = False
    world.clock.advance(1)
    assert world.take()
    assert not world.limiter.degraded
    assert [event.active for event in world.told(ComponentDegraded)] == [True, False]


@pytest.mark.parametrize(("requests", "tokens"), [(3, None), (None, 3)])
def test_a_share_of_nothing_is_closed(requests: int | None, tokens: int | None) -> None:
    """More replicas than requests a minute would each be allowed one."""
    world = World("redis", requests, tokens, max_replicas=4)
    world.cut = True
    with pytest.raises(StoreError):
        world.limiter.acquire()


def test_a_request_over_the_share_is_an_error_while_redis_is_gone() -> None:
    """It would wait in the line until Redis is back, and everyone behind it."""
    world = World("redis", 100, 100, max_replicas=4)
    world.cut = True
    with pytest.raises(StoreError):
        world.limiter.acquire(26)
    assert world.take(tokens=25)


def test_an_outage_keeps_to_the_limit_where_load_was_even() -> None:
    """All replicas together would begin twice the limit in the minute in which Redis goes."""
    world = World("redis", 12, max_replicas=2)
    other = world.replica()
    for _ in range(6):
        assert world.take()
        assert world.take(other)
    world.cut = True
    world.clock.advance(1)
    assert world.burst() == world.burst(other) == 0
    world.clock.advance(60)
    assert world.burst() == world.burst(other) == 6


def test_coming_back_keeps_to_the_limit() -> None:
    """What replicas admitted alone would not count when Redis is back."""
    world = World("redis", 12, max_replicas=2)
    other = world.replica()
    world.cut = True
    assert world.burst() == world.burst(other) == 6
    world.cut = False
    world.clock.advance(5)
    assert world.burst() == world.burst(other) == 0
    assert world.told(ComponentDegraded)[-1].active, "asked again when there is room"
    world.clock.advance(56)
    assert world.burst() + world.burst(other) == 12
    assert world.limiter.degraded is None
    world.clock.advance(61)
    assert world.burst() == 12, "a minute after, one replica may have it all"


def test_the_first_to_come_back_takes_no_more_than_its_share() -> None:
    """It would see an empty window in Redis while the others still use their shares."""
    world = World("redis", 12, max_replicas=2)
    other = world.replica()
    world.cut = True
    assert sum(world.take() for _ in range(3)) == 3
    assert world.burst(other) == 6
    world.cut = False
    world.clock.advance(5)
    assert world.burst() == 3
    assert not world.limiter.degraded


@pytest.mark.parametrize(("max_replicas", "at_once"), [(2, 6), (None, 0)])
def test_a_window_that_redis_lost_is_not_given_twice(max_replicas: int | None, at_once: int) -> None:
    """A Redis that restarts empty would give everyone a second limit in the same minute."""
    world = World("redis", 12, max_replicas=max_replicas)
    assert world.burst() == 12
    world.clock.advance(30)
    scripts = world.limiter._window._redis._redis  # type: ignore[attr-defined]
    scripts._client.flushall()
    admitted = 0
    for _ in range(29):
        world.clock.advance(1)
        try:
            admitted += world.burst()
        except StoreError:
            assert max_replicas is None
    assert admitted <= at_once
    for _ in range(2):
        world.clock.advance(61)
        last = world.burst()
    assert last == 12


def test_every_replica_notices_that_the_window_is_lost() -> None:
    """The first to notice would begin a new window, and the others would fill it a second time."""
    world = World("redis", 12)
    other = world.replica()
    assert world.burst() + world.burst(other) == 12
    world.limiter._window._redis._redis._client.flushall()  # type: ignore[attr-defined]
    for replica in (world.limiter, other):
        with pytest.raises(StoreError):
            replica.acquire(timeout=0)


def test_a_limit_that_rested_is_not_lost() -> None:
    """After a quiet day, when Redis has let the keys expire, calls would be refused for a minute."""
    world = World("redis", 12)
    assert world.burst() == 12
    world.clock.advance(61)
    world.limiter._window._redis._redis._client.flushall()  # type: ignore[attr-defined]
    assert world.burst() == 12


def test_while_redis_is_gone_it_is_asked_once_a_second() -> None:
    """Each call would wait for the time-out of a Redis that does not answer."""
    world = World("redis", 1000, max_replicas=1)
    world.cut = True
    scripts = world.limiter._window._redis._redis  # type: ignore[attr-defined]
    answer_of, asked = scripts.run, 0

    def count(*question: Any) -> Any:
        nonlocal asked
        asked += 1
        return answer_of(*question)

    scripts.run = count
    for _ in range(50):
        assert world.take()
        world.clock.advance(0.1)
    assert 4 <= asked <= 6


def test_a_step_sent_twice_is_done_once() -> None:
    """A connection that breaks after the work would take two places."""
    world = World("redis", 4)
    scripts = world.limiter._window._redis._redis  # type: ignore[attr-defined]
    answer_of = scripts.run
    scripts.run = lambda *question: [answer_of(*question) for _ in range(2)][1]
    assert world.burst() == 4
