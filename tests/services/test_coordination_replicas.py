"""Replicas of the Coordination service that share jobs, and die at work."""

from __future__ import annotations

import asyncio
import base64
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.coordination.store.conftest import postgres_server, postgres_url  # noqa: F401  # fixtures

from cert.services.coordination.jobs.answers import SealedStore
from cert.services.coordination.jobs.database import places_of
from cert.services.coordination.jobs.records import Job
from cert.services.coordination.jobs.store import JobStore
from cert.services.coordination.jobs.table import JobTable
from cert.services.coordination.wire import MeasurementRequest
from cert.services.sealed.cipher import Cipher

pytestmark = pytest.mark.slow

KEY = base64.b64encode(b"k" * 32).decode()
TENANT = "acme"
# A hundred words read, and a word written, in micro-dollars of the scripted model.
MOST_FOR_A_CALL = 100 + 5


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where replicas share jobs."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def replica(url: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start replicas, and end them."""
    started: list[subprocess.Popen[str]] = []

    def start(dies_at: int = -1) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.services.coordination_worker"]
        process = subprocess.Popen(
            [*command, url, KEY, str(tmp_path / "bills"), str(dies_at)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def asked(number: int) -> MeasurementRequest:
    return MeasurementRequest.model_validate(
        {
            "name": f"number {number}",
            "tasks": [{"text": f"job {number}: what is {n} + {n}?", "references": ["42"]} for n in range(3)],
            "systems": ["vote", "parallel"],
        }
    )


async def with_jobs(url: str, work: Callable[[JobStore], object]) -> object:
    table = JobTable(places_of(url).jobs, Cipher.of_text(KEY))
    await table.prepare()
    try:
        return await work(JobStore(table))  # type: ignore[misc]  # a coroutine function
    finally:
        await table.aclose()


def create(url: str, count: int) -> None:
    async def make(jobs: JobStore) -> None:
        for number in range(count):
            request = asked(number)
            await jobs.create(TENANT, request.model_dump(mode="json"), request.total)

    asyncio.run(with_jobs(url, make))


def all_jobs(url: str) -> tuple[Job, ...]:
    async def look(jobs: JobStore) -> tuple[Job, ...]:
        return (await jobs.page(TENANT, 100))[0]

    found = asyncio.run(with_jobs(url, look))
    assert isinstance(found, tuple)
    return found


def wait_for(url: str, ready: Callable[[tuple[Job, ...]], bool], seconds: float = 40.0) -> tuple[Job, ...]:
    deadline = time.monotonic() + seconds
    while not ready(jobs := all_jobs(url)):
        assert time.monotonic() < deadline, [(job.state, job.done) for job in jobs]
        time.sleep(0.1)
    return jobs


def lost_calls(url: str) -> int:
    async def count() -> int:
        async with SealedStore(places_of(url).answers, Cipher.of_text(KEY)) as answers:
            lost = await answers.lost()
            return len(lost.calls) + lost.under_way

    return asyncio.run(count())


def test_a_replica_that_is_killed_loses_no_job_and_repeats_no_kept_answer(url, replica, tmp_path):
    """A kill in the middle: the other replica ends every job, and nothing that was kept is paid for again.

    The lease is a minute, so that going on within the test shows that nobody waited for it.
    """
    create(url, 2)
    first = replica(dies_at=40)
    assert first.wait(30) == -signal.SIGKILL
    assert any(job.state == "running" for job in all_jobs(url))
    replica()
    jobs = wait_for(url, lambda jobs: all(job.state == "succeeded" for job in jobs))
    assert [job.done for job in jobs] == [6, 6]
    billed = Counter((tmp_path / "bills").read_text().split())
    twice = sum(count - 1 for count in billed.values())
    # Calls whose answers were on their way when the process died, each of them told of.
    assert twice <= lost_calls(url)
    assert max(billed.values()) <= 2
    # What an equal job costs that nobody kills.
    create(url, 3)
    whole = wait_for(url, lambda jobs: all(job.state == "succeeded" for job in jobs))
    alone = next(job.spent_micro_dollars for job in whole if job.request["name"] == "number 2")
    more = sum(job.spent_micro_dollars for job in jobs) - 2 * alone
    assert 0 <= more <= twice * MOST_FOR_A_CALL


def test_two_replicas_share_the_jobs_and_pay_for_each_call_once(url, replica, tmp_path):
    """No job is at work twice at once: with two live replicas there is one bill for each call."""
    create(url, 3)
    replica()
    replica()
    jobs = wait_for(url, lambda jobs: all(job.state == "succeeded" for job in jobs))
    billed = Counter((tmp_path / "bills").read_text().split())
    assert set(billed.values()) == {1}
    assert len({job.spent_micro_dollars for job in jobs}) == 1, "equal jobs cost the same"


def test_a_replica_that_is_told_to_end_hands_its_jobs_over_at_once(url, replica, tmp_path):
    """SIGTERM gives the lease back: another goes on, and pays twice only for calls that were cut off."""
    create(url, 2)
    first = replica()
    wait_for(url, lambda jobs: any(job.done > 0 for job in jobs))
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    states = Counter(job.state for job in all_jobs(url))
    assert states["running"] == 0, "nothing is left to a process that is gone"
    replica()
    wait_for(url, lambda jobs: all(job.state == "succeeded" for job in jobs))
    billed = Counter((tmp_path / "bills").read_text().split())
    assert sum(count - 1 for count in billed.values()) <= lost_calls(url)
