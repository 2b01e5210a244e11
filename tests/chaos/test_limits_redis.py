"""Budget and rate limit on a real Redis that is killed, stopped, filled, or restarted empty."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cert.core.budget import Budget
from cert.core.circuit_breaker_redis import RedisCircuitBreaker
from cert.core.errors import RateLimitedError, StoreError
from cert.core.events import ComponentDegraded, Event, EventHub
from cert.core.rate_limit import RateLimiter
from cert.core.redis_scripts import RedisScripts
from cert.core.resilience import Demand, ResilienceStack

pytestmark = pytest.mark.system


class Replica:
    """What one replica holds, with what it told."""

    def __init__(self, server: Any, **limiter: Any) -> None:
        self.events: list[Event] = []
        self.hub = EventHub()
        self.hub.observe(self.events.append)
        self.scripts = RedisScripts(server.url, timeout=0.5)
        self.budget = Budget(1000, redis=self.scripts, hub=self.hub)
        self.limiter = RateLimiter(20, 1000, redis=self.scripts, hub=self.hub, **limiter)

    def told(self) -> list[tuple[str, str, bool]]:
        assert self.hub.flush()
        return [
            (event.component, event.mode, event.active)
            for event in self.events
            if isinstance(event, ComponentDegraded)
        ]

    def burst(self) -> int:
        """How many requests may begin now."""
        for count in range(1000):
            try:
                self.limiter.acquire(timeout=0)
            except RateLimitedError:
                return count
        raise AssertionError("no limit")


@pytest.fixture
def server(durable_redis: Any) -> Any:
    return durable_redis


def eventually(condition: Any, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not come about"
        time.sleep(0.05)


def reserves(budget: Budget, amount: int = 1) -> bool:
    try:
        budget.reserve(amount)
    except StoreError:
        return False
    return True


def contents(server: Any) -> dict[bytes, bytes]:
    with server.client() as client:
        return {key: client.dump(key) for key in client.keys("cert:*")}


@pytest.mark.parametrize("trouble", ["kill", "stop"])
def test_the_budget_closes_while_redis_is_gone_and_opens_when_it_is_back(server: Any, trouble: str) -> None:
    """A replica without the books would spend what others have spent, or never work again."""
    replica = Replica(server)
    in_flight = replica.budget.reserve(100)
    replica.budget.reserve(300).keep()
    server.kill() if trouble == "kill" else server.stop()
    began = time.monotonic()
    assert not any(reserves(replica.budget) for _ in range(20))
    assert time.monotonic() - began < 2.0, "one call waited for the time-out, not every one"
    assert not in_flight.settle(40)
    assert replica.budget.degraded == "fail_closed"
    server.start() if trouble == "kill" else server.go_on()
    eventually(lambda: reserves(replica.budget))
    assert not replica.budget.degraded
    snapshot = replica.budget.snapshot()
    assert (snapshot.spent_in_hour, snapshot.reserved) == (340, 1), "the late settlement has arrived"
    assert replica.told() == [
        ("budget.default", "fail_closed", True),
        ("budget.default", "fail_closed", False),
    ]
    replica.scripts.close()


def test_a_reservation_that_a_stopped_redis_makes_late_is_given_back(server: Any) -> None:
    """What was asked of a hanging Redis, and refused to the caller, would stay set aside."""
    replica = Replica(server)
    replica.budget.reserve(1)
    server.stop()
    assert not reserves(replica.budget, 900)
    server.go_on()
    eventually(lambda: reserves(replica.budget, 900))
    assert replica.budget.snapshot().reserved == 901
    replica.scripts.close()


def test_a_full_redis_closes_the_budget_and_spoils_nothing(server: Any) -> None:
    """A step that is done by half would leave books that do not add up."""
    replica = Replica(server)
    open_ = replica.budget.reserve(100, "a")
    replica.budget.reserve(300, "b").settle(200)
    replica.limiter.acquire(10)
    before = contents(server)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(StoreError, match="full"):
            replica.budget.reserve(1)
        assert not open_.settle(60)
        with pytest.raises(StoreError) as caught:
            replica.limiter.acquire()
        assert caught.value.context["reason"] == "full"
        assert contents(server) == before
        client.config_set("maxmemory", "0")
    eventually(lambda: reserves(replica.budget))
    snapshot = replica.budget.snapshot()
    assert (snapshot.spent_in_hour, snapshot.reserved) == (260, 1)
    assert {name: account.spent for name, account in snapshot.agents.items()} == {"a": 60, "b": 200}
    replica.scripts.close()


def test_a_redis_restarted_empty_closes_the_budget(server: Any) -> None:
    """A Redis without persistence would give everyone a second budget by crashing."""
    replica = Replica(server)
    replica.budget.reserve(900).keep()
    server.kill()
    for file in (server.folder / "appendonlydir").iterdir():
        file.unlink()
    server.start()
    for _ in range(3):
        assert not reserves(replica.budget)
        time.sleep(1.05)
    assert replica.budget.degraded == "fail_closed"
    replica.scripts.close()


@pytest.mark.parametrize("trouble", ["kill", "stop"])
def test_the_rate_limit_falls_back_to_its_share(server: Any, trouble: str) -> None:
    """An outage of Redis would stop all work, or take the limit away."""
    replica, closed = Replica(server, max_replicas=4), Replica(server, name="closed")
    assert replica.limiter.acquire(timeout=0) == closed.limiter.acquire(timeout=0)
    server.kill() if trouble == "kill" else server.stop()
    assert replica.burst() == 4, "a share of 5, of which one is used"
    with pytest.raises(StoreError):
        closed.limiter.acquire()
    assert (replica.limiter.degraded, closed.limiter.degraded) == ("local_share", "fail_closed")
    server.start() if trouble == "kill" else server.go_on()

    def admitted() -> bool:
        try:
            closed.limiter.acquire(timeout=0)
        except StoreError:
            return False
        return True

    eventually(admitted)
    assert closed.told()[-1] == ("rate_limit.closed", "fail_closed", False)
    assert replica.told() == [("rate_limit.default", "local_share", True)]
    for each in (replica, closed):
        each.scripts.close()


def test_a_hanging_redis_does_not_hold_up_the_event_loop(server: Any) -> None:
    """All other requests of a service would stand still while one waits for Redis."""

    async def measure() -> float:
        replica = Replica(server, max_replicas=2)
        await replica.limiter.acquire_async()
        await replica.budget.reserve_async(1)
        server.stop()
        calls: list[Any] = [asyncio.ensure_future(replica.limiter.acquire_async(timeout=5)) for _ in range(5)]
        calls += [asyncio.ensure_future(replica.budget.reserve_async(1)) for _ in range(5)]
        worst = 0.0
        while not all(call.done() for call in calls):
            before = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - before)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, float) for result in results[:5])
        assert all(isinstance(result, StoreError) for result in results[5:])
        server.go_on()
        await replica.scripts.aclose()
        return worst

    assert asyncio.run(measure()) < 0.3


def test_replicas_share_one_limit_and_one_event_loop_after_another_works(server: Any) -> None:
    """Three replicas would be allowed three times the limit, or a second event loop find dead connections."""
    replicas = [Replica(server) for _ in range(3)]
    admitted = []

    async def rush(replica: Replica) -> None:
        async def one() -> None:
            try:
                await replica.limiter.acquire_async(timeout=0.5)
            except RateLimitedError:
                return
            admitted.append(1)

        for _ in range(2):
            await asyncio.gather(*(one() for _ in range(25)))
        await replica.scripts.aclose()

    threads = [threading.Thread(target=lambda each=each: asyncio.run(rush(each))) for each in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(rush(replicas[0]))
    assert len(admitted) == 20
    for replica in replicas:
        replica.scripts.close()


@pytest.mark.parametrize("trouble", ["kill", "stop"])
def test_every_call_through_the_stack_is_booked_once_though_redis_goes(server: Any, trouble: str) -> None:
    """A result that goes with a settlement in one round trip must not take the dollars down with it."""
    scripts = RedisScripts(server.url, timeout=0.5)
    shared: dict[str, Any] = {"redis": scripts, "name": "stack"}
    budget = Budget(10**9, **shared)
    stack = ResilienceStack(
        "ask",
        breaker=RedisCircuitBreaker("stack", scripts),
        limiter=RateLimiter(1_000_000, max_replicas=1, **shared),
        budget=budget,
    )
    bills: list[int] = []
    over = threading.Event()

    def ask() -> int:
        time.sleep(random.uniform(0, 0.02))
        bills.append(random.randint(0, 10))
        return bills[-1]

    async def ask_async() -> int:
        await asyncio.sleep(random.uniform(0, 0.02))
        bills.append(random.randint(0, 10))
        return bills[-1]

    demand = Demand(tokens=1, micro_dollars=10, agent="a", cost=int)

    def in_a_thread() -> None:
        while not over.is_set():
            with suppress(StoreError):
                stack.call(ask, demand)

    async def in_a_task() -> None:
        while not over.is_set():
            with suppress(StoreError):
                await stack.call_async(ask_async, demand)

    async def tasks() -> None:
        await asyncio.gather(*(in_a_task() for _ in range(8)))
        await scripts.aclose()

    workers = [threading.Thread(target=in_a_thread) for _ in range(4)]
    workers.append(threading.Thread(target=lambda: asyncio.run(tasks())))
    for worker in workers:
        worker.start()
    time.sleep(1.0)
    before = len(bills)
    server.kill() if trouble == "kill" else server.stop()
    time.sleep(1.0)
    server.start() if trouble == "kill" else server.go_on()
    eventually(lambda: budget.degraded is None and len(bills) > before + 50)
    over.set()
    for worker in workers:
        worker.join()

    def all_told() -> bool:
        stack.call(ask, demand)
        return budget.snapshot().reserved == 0

    eventually(all_told)
    assert before > 50
    assert budget.snapshot().spent_in_total == sum(bills)
    scripts.close()


RUSH = """
import sys, time
from cert.core.circuit_breaker_redis import RedisCircuitBreaker
from cert.core.errors import RateLimitedError
from cert.core.rate_limit import RateLimiter
from cert.core.redis_scripts import RedisScripts
limiter = RateLimiter(20, redis=RedisScripts(sys.argv[1], timeout=5.0))
end = time.monotonic() + float(sys.argv[2])
while (left := end - time.monotonic()) > 0:
    try:
        limiter.acquire(timeout=min(left, 3.0))
        print(time.monotonic(), flush=True)
    except RateLimitedError as error:
        time.sleep(min(left, error.retry_after / 2 + 0.01))
"""


@pytest.mark.slow
def test_no_minute_holds_more_than_the_limit_in_real_time(server: Any, tmp_path: Path) -> None:
    """Three replicas that want more than the limit would exceed it where one minute meets the next."""
    outputs = [(tmp_path / f"{number}.txt").open("w+") for number in range(3)]
    replicas = []
    for number, output in enumerate(outputs):
        time.sleep(0.7 * number)
        replicas.append(subprocess.Popen([sys.executable, "-c", RUSH, server.url, "75"], stdout=output))
    for replica in replicas:
        assert replica.wait(100) == 0
    moments = []
    for output in outputs:
        output.seek(0)
        moments += [float(line) for line in output]
        output.close()
    moments.sort()
    # A moment is noted when the answer has arrived, some milliseconds after Redis has dated the request.
    most = max(sum(begin <= at < begin + 59.5 for at in moments) for begin in moments)
    assert most == 20
    assert len(moments) > 20
