"""Processes that share a store, and such as are killed: nothing is paid twice, and what is lost is told."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cert.coordination.chat import Usage
from cert.coordination.scripted import ScriptedChat
from cert.coordination.store import CachedChatClient, open_store
from cert.coordination.store.processes import surely_dead, this_process

WORKER = Path(__file__).parent / "worker.py"


class Fleet:
    """Worker processes, and the vendor's bills."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database = database
        self.bills = folder / "bills.txt"
        self.bills.touch()
        self.running: list[subprocess.Popen[str]] = []

    def start(self, death: str = "lives", seconds: float = 0.02) -> subprocess.Popen[str]:
        arguments = [self.database, str(self.bills), str(seconds), death]
        worker = subprocess.Popen(
            [sys.executable, str(WORKER), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(worker)
        return worker

    def said(self, worker: subprocess.Popen[str], status: int = 0) -> str:
        out, failure = worker.communicate(timeout=60)
        assert worker.returncode == status, failure
        return out.strip()

    def billed(self) -> Counter[str]:
        """How often each question was billed."""
        return Counter(self.bills.read_text().splitlines())


@pytest.fixture
def fleet(database, tmp_path):
    fleet = Fleet(database, tmp_path)
    yield fleet
    for worker in fleet.running:
        worker.kill()
        worker.communicate()


def test_two_processes_with_the_same_questions_pay_once_each(fleet):
    """Two runs on one cache must not double the bill."""
    workers = [fleet.start(), fleet.start()]
    said = [fleet.said(worker) for worker in workers]
    assert set(fleet.billed().values()) == {1}
    assert len(fleet.billed()) == 50
    assert sum(int(line.rpartition(" ")[2]) for line in said) == 50


def test_a_killed_run_goes_on_without_paying_twice(fleet):
    """What was kept is not paid again; what was out when it died is paid again, and told with its price."""
    assert fleet.said(fleet.start("paid:25"), status=-9) == ""
    before = fleet.billed()
    assert before.total() == 25

    async def look():
        async with open_store(fleet.database) as store:
            return await store.entries(), await store.lost()

    kept, lost = asyncio.run(look())
    # Ten are asked at once: the twenty before are kept, five were billed and not kept, five just announced.
    assert kept == 20
    assert {one.why for one in lost.calls} == {"died"}
    assert 5 <= len(lost.calls) <= 10
    assert lost.under_way == 0
    most = ScriptedChat("x").cost(Usage(2, 1024))
    assert lost.most_micro_dollars == most * len(lost.calls)

    began = time.monotonic()
    resumed = fleet.said(fleet.start())
    assert time.monotonic() - began < 20  # nobody waits for the leases of the dead to expire
    assert resumed == f"{lost}; paid for 30"
    twice = {question for question, times in fleet.billed().items() if times > 1}
    assert twice == set(before) - {f"question {n}" for n in range(20)}
    assert len(twice) == 5
    assert max(fleet.billed().values()) == 2


def test_a_run_that_is_killed_after_keeping_has_lost_nothing_of_it(fleet):
    """Kept is kept: the moment after the answer is returned is too late to lose it."""
    fleet.said(fleet.start("kept:1", seconds=0.0), status=-9)

    async def look():
        async with open_store(fleet.database) as store:
            return await store.entries()

    assert asyncio.run(look()) >= 1
    first = fleet.billed()
    fleet.said(fleet.start())
    assert len([question for question, times in fleet.billed().items() if times > 1]) < first.total()


def test_who_waits_for_a_process_that_dies_takes_over_at_once(fleet):
    """A killed neighbour must not keep a run waiting until its leases expire."""
    slow = fleet.start(seconds=30)
    while fleet.billed().total() < 10:
        time.sleep(0.02)
        assert slow.poll() is None, slow.communicate()

    async def wait_and_see():
        chat = ScriptedChat(otherwise="mine")
        async with open_store(fleet.database) as store:
            client = CachedChatClient(chat, store)
            asking = asyncio.create_task(client.complete("question 3"))
            await asyncio.sleep(0.3)
            assert not asking.done()
            assert (await store.lost()).under_way == 10
            slow.kill()
            slow.wait()
            began = time.monotonic()
            assert (await asking).text == "mine"
            return time.monotonic() - began, len(chat.requests), await store.lost()

    waited, calls, lost = asyncio.run(wait_and_see())
    assert waited < 10
    assert calls == 1
    assert len(lost.calls) == 10


def test_a_process_knows_the_living_from_the_dead():
    """Whoever takes a living process for dead pays twice; the other way round only waits."""
    assert not surely_dead(this_process())
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from cert.coordination.store.processes import this_process\n"
            "print(this_process(), flush=True)\ninput()",
        ],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert name != this_process()
    assert not surely_dead(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert surely_dead(name)  # though its number is still taken: nobody has asked for its end yet
    child.communicate()
    assert surely_dead(name)


def test_of_other_machines_nothing_is_surely_known():
    """Another host, another container, a system without /proc: there only time tells."""
    boot, namespace, _, started = this_process().split("/")
    for stranger in (
        f"other-boot/{namespace}/999999999/{started}",
        f"{boot}/1/999999999/{started}",
        "//999999999/",
    ):
        assert not surely_dead(stranger)
    assert surely_dead(f"{boot}/{namespace}/{os.getpid()}/1")  # the number went to another process
