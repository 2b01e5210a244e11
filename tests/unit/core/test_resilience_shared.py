"""The whole stack on one Redis: two round trips a call, and in all else as with each part by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from fakeredis.commands_mixins import server_mixin

from cert.core.budget import Budget
from cert.core.circuit_breaker import BreakerPolicy, CircuitState
from cert.core.circuit_breaker_redis import RedisCircuitBreaker
from cert.core.errors import (
    BudgetExceededError,
    CircuitOpenError,
    RateLimitedError,
    StoreError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from cert.core.events import EventHub
from cert.core.rate_limit import RateLimiter
from cert.core.redis_scripts import RedisScripts, Script
from cert.core.resilience import Demand, ResiliencePolicy, ResilienceStack
from cert.core.retry import RetryPolicy
from cert.testing import FakeClock

DEMAND = Demand(tokens=1, micro_dollars=100, agent="critic", cost=len)
ONCE = ResiliencePolicy(deadline_seconds=5.0, attempt_seconds=5.0, retry=RetryPolicy(attempts=1))


@pytest.fixture(autouse=True)
def _wall_clock_of_fakeredis() -> Iterator[None]:
    yield
    server_mixin.time = time  # type: ignore[attr-defined]


class Trips(RedisScripts):
    """Notes what goes to Redis, and can lose the answers to it."""

    def __init__(self, server: fakeredis.FakeServer) -> None:
        super().__init__(
            client=fakeredis.FakeStrictRedis(server=server),
            async_client=fakeredis.FakeAsyncRedis(server=server),
        )
        self.trips: list[list[str]] = []
        self.lost: Callable[[], object] = lambda: None
        self.twice = False

    def _note(self, keys: Sequence[str]) -> None:
        parts = [key.split(":")[1] for key in keys]
        self.trips.append(list(dict.fromkeys(parts)))

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        self._note(keys)
        answers = [super(Trips, self).run(script, keys, arguments) for _ in range(1 + self.twice)]
        self.lost()
        return answers[-1]

    async def run_async(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]
    ) -> list[Any]:
        self._note(keys)
        answers = [await super(Trips, self).run_async(script, keys, arguments) for _ in range(1 + self.twice)]
        self.lost()
        return answers[-1]


class World:
    """A stack on a Redis in this process, called one way or the other."""

    def __init__(self, way: str, *, requests: int = 100, dollars: int = 1000, **options: Any) -> None:
        self.way = way
        self.clock = FakeClock(10.0)
        server_mixin.time = SimpleNamespace(time=self.wall)  # type: ignore[assignment, attr-defined]
        self.server = fakeredis.FakeServer()
        self.redis = Trips(self.server)
        common: dict[str, Any] = {"clock": self.clock, "hub": EventHub()}
        self.limiter = RateLimiter(requests, 10_000, redis=self.redis, **common)
        self.budget = Budget(dollars, redis=self.redis, **common)
        self.breaker = RedisCircuitBreaker(
            "model", self.redis, BreakerPolicy(failures_in_a_row=2), time=self.clock.monotonic, **common
        )
        parts: dict[str, Any] = {
            "limiter": self.limiter,
            "budget": self.budget,
            "breaker": self.breaker,
            **options,
        }
        self.stack = ResilienceStack("ask", ONCE, **parts, **common)
        self.sent = 0

    def wall(self) -> float:
        return 1_700_000_000.0 + self.clock.monotonic()

    def call(self, error: BaseException | None = None, demand: Demand = DEMAND) -> str:
        def send() -> str:
            self.sent += 1
            if error is not None:
                raise error
            return "seven!!"

        async def send_async() -> str:
            return send()

        if self.way == "plain":
            return self.stack.call(send, demand)
        return asyncio.run(self.stack.call_async(send_async, demand))

    def books(self) -> tuple[int, int]:
        """What is spent and set aside, as another process sees it."""
        snapshot = Budget(1000, redis=RedisScripts(client=self.client), clock=self.clock).snapshot()
        return snapshot.spent_in_hour, snapshot.reserved

    @property
    def client(self) -> Any:
        return fakeredis.FakeStrictRedis(server=self.server)

    def admitted(self) -> int:
        return int(self.client.zcard("cert:rate_limit:{default}:log"))

    def results(self) -> int:
        return int(self.client.zcard("cert:circuit:{model}:results"))

    def open_circuit(self) -> None:
        """As another replica does."""
        other = RedisCircuitBreaker(
            "model",
            RedisScripts(client=self.client),
            BreakerPolicy(failures_in_a_row=2),
            time=self.clock.monotonic,
        )
        for _ in range(2):
            with pytest.raises(UpstreamTimeoutError), other.lease():
                raise UpstreamTimeoutError("x")


ways = pytest.mark.parametrize("way", ["plain", "async"])


@ways
def test_a_call_takes_two_round_trips_and_leaves_what_five_would(way: str) -> None:
    """Five round trips are most of what a call through a shared Redis costs."""
    world = World(way)
    assert world.call() == "seven!!"
    assert world.redis.trips == [["rate_limit", "budget", "circuit"], ["circuit", "budget"]]
    assert (world.books(), world.admitted(), world.results()) == ((7, 0), 1, 1)


@ways
def test_what_the_rate_limit_refuses_takes_no_dollars_and_no_permit(way: str) -> None:
    """A waiting call must hold no dollars, and the one probe must never wait in a queue."""
    world = World(way, requests=1)
    world.call()
    world.open_circuit()
    world.clock.advance(16)  # the next to ask would probe
    with pytest.raises(RateLimitedError):
        world.call()
    assert (world.books(), world.sent) == ((7, 0), 1)
    assert world.breaker.acquire().probe == 1, "the probe is still to be had"


@ways
def test_what_the_budget_refuses_takes_no_permit(way: str) -> None:
    """A call that is not made would hold the one probe, and keep the circuit shut."""
    world = World(way)
    held = world.budget.reserve(950)
    world.open_circuit()
    world.clock.advance(16)
    with pytest.raises(BudgetExceededError):
        world.call()
    assert (world.books(), world.admitted()) == ((0, 950), 1)
    held.release()
    assert world.breaker.acquire().probe == 1


@ways
def test_what_the_circuit_refuses_gives_its_dollars_back(way: str) -> None:
    """Refused calls cost nothing, and would otherwise use up the budget."""
    world = World(way)
    world.open_circuit()
    with pytest.raises(CircuitOpenError):
        world.call()
    assert (world.books(), world.sent) == ((0, 0), 0)


@ways
def test_a_failure_is_counted_and_its_dollars_are_kept(way: str) -> None:
    """After a time-out the call may be billed; and failures that are not told never open the circuit."""
    world = World(way)
    for _ in range(2):
        with pytest.raises(UpstreamTimeoutError):
            world.call(UpstreamTimeoutError("x"))
    assert world.books() == (200, 0)
    assert world.breaker.state is CircuitState.OPEN
    with pytest.raises(CircuitOpenError):
        world.call()


@ways
def test_a_rejected_call_is_not_counted_and_not_billed(way: str) -> None:
    """A wrong request would open the circuit for all, or cost dollars that nobody billed."""
    world = World(way)
    for _ in range(3):
        with pytest.raises(UpstreamRejectedError):
            world.call(UpstreamRejectedError("x"))
    assert (world.books(), world.results()) == ((0, 0), 0)
    assert world.breaker.state is CircuitState.CLOSED


@ways
def test_round_trips_sent_twice_do_their_work_once(way: str) -> None:
    """A connection that breaks after the work would take two places, and book the cost twice."""
    world = World(way)
    world.redis.twice = True
    world.call()
    assert (world.books(), world.admitted()) == ((7, 0), 1)


@ways
def test_a_redis_that_goes_before_the_call_refuses_it_at_the_budget(way: str) -> None:
    """Nothing may be spent that the books do not know of; what they may have set aside is given back."""
    world = World(way)
    world.call()
    world.redis.lost = _lose
    with pytest.raises(StoreError):
        world.call()
    assert world.sent == 1
    assert world.books() == (7, 100), "set aside, and the answer to that was lost"
    assert (world.limiter.degraded, world.budget.degraded) == ("fail_closed", "fail_closed")
    world.redis.lost = lambda: None
    world.clock.advance(2)
    world.call()
    assert world.books() == (14, 0)
    assert (world.limiter.degraded, world.budget.degraded, world.breaker.degraded) == (None, None, None)


def _lose() -> None:
    raise StoreError("gone")


@ways
def test_a_redis_that_goes_during_the_call_costs_no_answer_and_no_dollar(way: str) -> None:
    """The answer was paid for: it is returned, and its cost is booked when Redis is back."""
    world = World(way)

    def go(_answer: str) -> int:
        world.server.connected = False
        return 7

    assert world.call(demand=Demand(tokens=1, micro_dollars=100, cost=go)) == "seven!!"
    world.server.connected = True
    assert world.books() == (0, 100), "all that was set aside counts meanwhile"
    world.clock.advance(2)
    world.call()
    assert world.books() == (7 + 7, 0)


@ways
def test_trouble_with_one_part_s_keys_is_that_part_s_alone(way: str) -> None:
    """A spoilt key of the circuit would stop all spending."""
    world = World(way)
    world.client.set("cert:circuit:{model}", "not a hash")
    assert world.call() == "seven!!"
    assert world.books() == (7, 0)
    assert (world.breaker.degraded, world.budget.degraded) == ("local", None)


def test_a_call_cancelled_on_its_way_in_leaves_nothing_set_aside() -> None:
    """Calls that were never made would use up the budget."""
    world = World("async")

    async def scenario() -> None:
        started = asyncio.Event()
        asked = world.redis.run_async

        async def slow(*question: Any) -> list[Any]:
            answer = await asked(*question)
            started.set()
            await asyncio.sleep(60)
            return answer

        world.redis.run_async = slow  # type: ignore[assignment, method-assign]
        task = asyncio.create_task(world.stack.call_async(_never, DEMAND))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.redis.run_async = asked  # type: ignore[method-assign]

    asyncio.run(scenario())
    assert world.books() == (0, 100)
    world.call()
    assert world.books() == (7, 0)


async def _never() -> str:
    raise AssertionError("the call was cancelled before")


@ways
def test_neighbours_on_different_stores_are_asked_one_by_one(way: str) -> None:
    """A permit that goes ahead of a budget elsewhere would hold the probe of a call that is refused."""
    world = World(way, budget=Budget(150))
    world.call()
    assert world.redis.trips == [["rate_limit"], ["circuit"], ["circuit"]]
    other = Trips(world.server)
    world = World(way, limiter=RateLimiter(100, redis=other, clock=world.clock))
    world.call()
    assert (other.trips, world.redis.trips) == (
        [["rate_limit"]],
        [["budget", "circuit"], ["circuit", "budget"]],
    )


@ways
def test_without_a_budget_two_parts_still_go_together(way: str) -> None:
    """The result of a call would never be told where no settlement takes it along."""
    world = World(way, budget=None)
    world.call()
    assert world.redis.trips == [["rate_limit", "circuit"], ["circuit"]]
    assert world.results() == 1


@ways
def test_a_late_settlement_is_not_lost_with_a_call_that_has_to_wait(way: str) -> None:
    """A settlement rides with the next reservation; one that is not reached would take it along for good."""
    world = World(way, requests=1)
    held = world.budget.reserve(500)
    world.call()
    world.server.connected = False
    assert not held.settle(20)
    world.server.connected = True
    world.clock.advance(2)
    world.budget.snapshot()  # which tells that Redis is back, and takes no settlement along
    with pytest.raises(RateLimitedError):
        world.call()
    assert world.books() == (7, 500)
    world.budget.reserve(1).release()
    assert world.books() == (27, 0)
