"""A shared budget under hundreds of concurrent calls in several processes that are killed, as is Redis."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cert.core.budget import Budget, BudgetSnapshot
from cert.core.errors import BudgetExceededError
from cert.core.redis_scripts import RedisScripts

pytestmark = pytest.mark.system

WORKER = Path(__file__).parent / "limits_worker.py"
MOST = 10
EXPIRES_AFTER = 6.0


class Fleet:
    """Replicas that spend one budget, and the vendor's bills."""

    def __init__(self, server: Any, folder: Path, limit: int) -> None:
        self.server, self.limit = server, limit
        self.bills = folder / "bills.txt"
        self.bills.touch()
        self.scripts = RedisScripts(server.url, timeout=5.0)
        self.replicas: list[subprocess.Popen[bytes]] = []

    def start(self, concurrent: int, kind: str) -> subprocess.Popen[bytes]:
        arguments = [self.server.url, str(self.limit), str(concurrent), kind, str(self.bills)]
        replica = subprocess.Popen([sys.executable, str(WORKER), *arguments])
        self.replicas.append(replica)
        return replica

    def billed(self) -> int:
        """What the vendor has billed so far."""
        return sum(map(int, self.bills.read_text().split()))

    def look(self) -> BudgetSnapshot:
        """The books, as a process that has just started sees them."""
        return Budget(self.limit, self.limit, redis=self.scripts, expires_after=EXPIRES_AFTER).snapshot()

    def wait_for(self, reserved: int) -> BudgetSnapshot:
        """Wait until so many dollars are in flight."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            snapshot = self.look()
            if snapshot.reserved >= reserved:
                return snapshot
            time.sleep(0.02)
        raise AssertionError(f"never {reserved} reserved; now {snapshot}")

    def finish(self) -> None:
        for replica in self.replicas:
            replica.wait(90)
        self.scripts.close()

    def check_books(self) -> BudgetSnapshot:
        """What must be so at every moment."""
        billed = self.billed()  # before the books: bills only grow
        snapshot = self.look()
        assert snapshot.spent_in_total + snapshot.reserved <= self.limit
        assert snapshot.spent_in_hour == snapshot.spent_in_total
        assert billed <= snapshot.spent_in_total + snapshot.reserved
        return snapshot


@pytest.fixture
def fleet(durable_redis: Any, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(durable_redis, tmp_path, limit=16_000)
    yield fleet
    for replica in fleet.replicas:
        replica.kill()
        replica.wait()


def test_a_budget_is_never_exceeded_though_replicas_are_killed(fleet: Fleet) -> None:
    """Four replicas with 400 calls at once would spend more than was allowed, or a crash would free money."""
    for concurrent, kind in ((125, "tasks"), (125, "tasks"), (125, "tasks"), (25, "threads")):
        fleet.start(concurrent, kind)
    in_flight = fleet.wait_for(300 * MOST)
    assert in_flight.reserved >= 300 * MOST
    for victim in random.sample(fleet.replicas, 2):
        time.sleep(random.uniform(0.1, 0.5))
        victim.kill()
        victim.wait()
        fleet.check_books()
    fleet.start(125, "tasks")
    while any(replica.poll() is None for replica in fleet.replicas):
        fleet.check_books()
        time.sleep(0.1)
    assert fleet.billed() <= fleet.limit
    time.sleep(EXPIRES_AFTER + 1.0)
    snapshot = fleet.check_books()
    assert snapshot.reserved == 0, "what the killed replicas had set aside has become spending"
    assert snapshot.spent_in_total >= fleet.billed()
    assert snapshot.spent_in_total > fleet.limit - 1000, "the budget was used, not only kept"
    fleet.finish()


@pytest.mark.parametrize("trouble", ["kill", "stop"])
def test_a_budget_is_never_exceeded_though_redis_goes(fleet: Fleet, trouble: str) -> None:
    """A restart or a partition of Redis under load would forget spending, or stop it for good."""
    fleet.limit = 9_000
    for _ in range(3):
        fleet.start(100, "tasks")
    fleet.wait_for(200 * MOST)
    for _ in range(2):
        if trouble == "kill":
            fleet.server.kill()
            time.sleep(1.0)
            fleet.server.start()
        else:
            fleet.server.stop()
            time.sleep(2.0)
            fleet.server.go_on()
        time.sleep(1.0)
        assert fleet.billed() <= fleet.limit
        fleet.check_books()
    for replica in fleet.replicas:
        assert replica.wait(60) == 0, "every replica goes on when Redis is back"
    time.sleep(EXPIRES_AFTER + 1.0)
    snapshot = fleet.check_books()
    assert snapshot.reserved == 0
    assert snapshot.spent_in_total > fleet.limit - 1000
    budget = Budget(fleet.limit, redis=fleet.scripts, expires_after=EXPIRES_AFTER)
    with pytest.raises(BudgetExceededError):
        budget.reserve(fleet.limit)
    fleet.finish()
