"""The shared circuit breaker on a real Redis, which is killed, stopped, filled and restarted."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from cert.core.circuit_breaker import BreakerPolicy, CircuitState, Outcome
from cert.core.circuit_breaker_redis import RedisCircuitBreaker
from cert.core.errors import CircuitOpenError
from cert.core.events import CircuitChanged, ComponentDegraded, Event, EventHub
from cert.core.redis_scripts import RedisScripts
from cert.testing import FakeClock

pytestmark = pytest.mark.system

FAST = BreakerPolicy(recovery_seconds=0.5, probe_seconds=0.5)
_names = itertools.count()


@pytest.fixture
def server(forgetful_redis: Any) -> Any:
    return forgetful_redis


class Replica:
    """One process's view of the circuit, with its events."""

    def __init__(self, server: Any, policy: BreakerPolicy = FAST) -> None:
        self.events: list[Event] = []
        self.hub = EventHub()
        self.hub.observe(self.events.append)
        self.scripts = RedisScripts(server.url, timeout=0.3)
        self.breaker = RedisCircuitBreaker("model", self.scripts, policy, hub=self.hub, retry_seconds=0.2)

    def report(self, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            self.breaker.record(self.breaker.acquire(), outcome)

    def degradations(self) -> list[bool]:
        assert self.hub.flush()
        return [event.active for event in self.events if isinstance(event, ComponentDegraded)]

    def until_shared(self) -> None:
        for _ in range(100):
            self.report(Outcome.SUCCESS)
            if self.breaker.degraded is None:
                return
            time.sleep(0.05)
        pytest.fail("it never went back to the shared circuit")


@pytest.fixture
def replicas(server: Any) -> Iterator[Callable[[], Replica]]:
    made: list[Replica] = []

    def make() -> Replica:
        made.append(Replica(server))
        return made[-1]

    yield make
    for replica in made:
        replica.scripts.close()


def test_one_replica_s_failures_refuse_the_calls_of_all(replicas: Callable[[], Replica]) -> None:
    """Each replica would otherwise hammer the broken server until it has found out by itself."""
    one, two = replicas(), replicas()
    one.report(*[Outcome.FAILURE] * 5)
    with pytest.raises(CircuitOpenError) as caught:
        two.breaker.acquire()
    assert caught.value.retry_after == pytest.approx(0.5, abs=0.4)
    assert two.hub.flush()
    assert [e.after for e in two.events if isinstance(e, CircuitChanged)] == ["open"]


PROBER = """
import sys, threading
from cert.core.circuit_breaker import BreakerPolicy
from cert.core.circuit_breaker_redis import RedisCircuitBreaker
from cert.core.errors import CircuitOpenError
from cert.core.redis_scripts import RedisScripts

policy = BreakerPolicy(recovery_seconds=0.5, probe_seconds=30)
breaker = RedisCircuitBreaker("model", RedisScripts(sys.argv[1]), policy)
admitted = []

def call():
    try:
        admitted.append(breaker.acquire().probe)
    except CircuitOpenError:
        pass

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=call) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(admitted), flush=True)
"""


def test_of_all_threads_in_all_processes_one_probes(server: Any, replicas: Callable[[], Replica]) -> None:
    """After an outage a fleet waits; the server that just came back must meet one call of it."""
    replicas().report(*[Outcome.FAILURE] * 5)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROBER, server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ.copy(),
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    time.sleep(0.6)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(counts) == 1


def test_a_killed_redis_leaves_calls_protected_and_comes_back(
    server: Any, replicas: Callable[[], Replica]
) -> None:
    """Losing Redis must neither stop the service nor its protection, and operators must see it."""
    replica = replicas()
    replica.report(Outcome.SUCCESS)
    in_flight = [replica.breaker.acquire() for _ in range(9)]
    server.kill()
    replica.breaker.record(in_flight.pop(), Outcome.SUCCESS)
    replica.report(*[Outcome.FAILURE] * 5)
    assert replica.breaker.degraded == "local"
    with pytest.raises(CircuitOpenError):
        replica.breaker.acquire()
    server.start()
    time.sleep(0.6)
    replica.until_shared()
    for permit in in_flight:  # of before the crash: the new Redis does not know them
        replica.breaker.record(permit, Outcome.FAILURE)
    assert replica.breaker.state is CircuitState.CLOSED
    assert replica.degradations() == [True, False]


def test_a_redis_that_hangs_delays_one_call_only(server: Any, replicas: Callable[[], Replica]) -> None:
    """Each call would otherwise wait for Redis's time-out before it even began."""
    replica = replicas()
    replica.report(Outcome.SUCCESS)
    server.stop()
    began = time.monotonic()
    replica.report(Outcome.SUCCESS)
    assert time.monotonic() - began < 2
    durations = []
    for _ in range(20):
        began = time.monotonic()
        replica.report(Outcome.SUCCESS)
        durations.append(time.monotonic() - began)
    assert sorted(durations)[10] < 0.05
    server.go_on()
    replica.until_shared()
    assert replica.degradations() == [True, False]


def test_a_full_redis_is_as_good_as_none(server: Any, replicas: Callable[[], Replica]) -> None:
    """A Redis that takes no writes would otherwise let every call through, or none."""
    replica = replicas()
    replica.report(Outcome.SUCCESS)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        in_flight = replica.breaker.acquire()
        for _ in range(4):
            replica.report(Outcome.FAILURE)
            time.sleep(0.25)  # Redis is asked again in between, and refuses again
        replica.report(Outcome.FAILURE)
        assert not in_flight.shared
        assert replica.breaker.degraded == "local"
        with pytest.raises(CircuitOpenError):
            replica.breaker.acquire()
        client.config_set("maxmemory", "0")
    time.sleep(0.6)
    replica.until_shared()
    assert replica.degradations() == [True, False]


def test_cancelled_tasks_leave_no_answer_to_the_wrong_question(replicas: Callable[[], Replica]) -> None:
    """A cancelled request whose reply another one reads would open and close circuits at random."""
    replica = replicas()
    breaker = replica.breaker
    chance = random.Random(0)

    async def call() -> None:
        async with breaker.lease():
            await asyncio.sleep(chance.uniform(0, 0.01))

    async def scenario() -> None:
        tasks = [asyncio.create_task(call()) for _ in range(150)]
        for _ in tasks:
            await asyncio.sleep(chance.uniform(0, 0.002))
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        for _ in range(5):
            await breaker.record_async(await breaker.acquire_async(), Outcome.FAILURE)
        await replica.scripts.aclose()

    asyncio.run(scenario())
    assert replica.degradations() == []


# --- every sequence of calls, results and time, in a real Redis -----------------------------------


def _rules() -> Any:
    """The state machine of the unit tests."""
    path = Path(__file__).parents[1] / "unit" / "core" / "test_circuit_breaker.py"
    specification = importlib.util.spec_from_file_location("circuit_rules", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # its dataclasses look themselves up there
    specification.loader.exec_module(module)
    return module.CircuitRules


def test_redis_goes_through_the_states_as_the_model_does(server: Any) -> None:
    """The in-memory twin of the other tests may differ from Redis's own Lua."""
    from hypothesis.stateful import run_state_machine_as_test

    scripts = RedisScripts(server.url)

    def build(clock: FakeClock) -> RedisCircuitBreaker:
        return RedisCircuitBreaker(f"model-{next(_names)}", scripts, clock=clock, time=clock.monotonic)

    rules = type("RealRedisRules", (_rules(),), {"build": staticmethod(build)})
    run_state_machine_as_test(
        rules, settings=settings(max_examples=25, stateful_step_count=40, deadline=None)
    )
    scripts.close()
