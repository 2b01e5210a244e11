"""Jobs in a database: their states, their leases, and what can be read of them without the key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.unit.coordination.store.conftest import postgres_server, postgres_url  # noqa: F401  # fixtures

from cert.coordination.scripted import ScriptedChat
from cert.coordination.store.processes import this_process
from cert.core.errors import CertError, ConfigurationError, StoreUnusableError
from cert.services.common.errors import ConflictError, NotFoundError, TooManyRequestsError
from cert.services.coordination.jobs.claims import JobClaims
from cert.services.coordination.jobs.records import Claim
from cert.services.coordination.jobs.runner import WorkInHand
from cert.services.coordination.jobs.store import JobStore
from cert.services.coordination.jobs.table import JobTable
from cert.services.coordination.permit import PermittedChat
from cert.services.sealed.cipher import Cipher

KEY = b"k" * 32
LEASE = 30.0
REQUEST = {"tasks": [{"text": "a secret question"}], "systems": ["vote"], "agents": 3}


class Clock:
    """Tells the time to SQLite."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Jobs:
    """Jobs with a clock of the test's own, used step by step."""

    def __init__(self, place: str, **options: Any) -> None:
        self.clock = Clock()
        self.table = JobTable(place, Cipher(KEY), now=self.clock)
        self.store = JobStore(self.table, **options)
        # Owners of another machine: only time tells that they are dead.
        self.replicas = [JobClaims(self.table, LEASE, owner=f"//{number}/") for number in range(2)]
        self.loop = asyncio.new_event_loop()
        self.do(self.table.prepare())

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.do(self.table.aclose())
        self.loop.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "jobs.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(str(tmp_path / "jobs.db"), queue=3)
    yield made
    made.close()


class JobMachine(RuleBasedStateMachine):
    """Whatever replicas and callers do, and in whatever order: a job ends once, under one claim at a time."""

    folder: Path
    number = 0

    def __init__(self) -> None:
        super().__init__()
        JobMachine.number += 1
        self.jobs = Jobs(str(self.folder / f"jobs-{JobMachine.number}.db"), queue=100)
        self.claims: list[tuple[int, Claim]] = []
        self.current: dict[str, int] = {}
        self.until: dict[str, float] = {}
        self.ended: dict[str, str] = {}
        self.wanted: set[str] = set()
        self.made: list[str] = []

    @precondition(lambda self: len(self.made) < 4)
    @rule()
    def create(self) -> None:
        job, made = self.jobs.do(self.jobs.store.create("acme", REQUEST, 1))
        assert made
        self.made.append(job.id)

    @rule(replica=st.integers(0, 1))
    def claim(self, replica: int) -> None:
        claim = self.jobs.do(self.jobs.replicas[replica].claim())
        free = [
            job
            for job in self.made
            if job not in self.ended and (job not in self.current or self.until[job] <= self.jobs.clock.now)
        ]
        if claim is None:
            assert not free, "a job waits and nobody may have it"
            return
        job = claim.job.id
        assert job in free, "a job is at work twice"
        self.current[job], self.until[job] = claim.fence, self.jobs.clock.now + LEASE
        self.claims.append((replica, claim))

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(), end=st.sampled_from(["succeeded", "failed", "cancelled", "renew", "release", "tell"])
    )
    def act(self, data: st.DataObject, end: Any) -> None:
        replica, claim = data.draw(st.sampled_from(self.claims))
        claims, job = self.jobs.replicas[replica], claim.job.id
        holds = self.current.get(job) == claim.fence
        if end == "renew":
            standing = self.jobs.do(claims.renew(claim))
            assert standing == ("lost" if not holds else "cancel" if job in self.wanted else "held")
            if holds:
                self.until[job] = self.jobs.clock.now + LEASE
        elif end == "tell":
            assert self.jobs.do(claims.progress(claim, 1, 0, {"done": 1})) is holds
        elif end == "release":
            assert self.jobs.do(claims.release(claim)) is holds
            if holds:
                del self.current[job]
        else:
            assert self.jobs.do(claims.finish(claim, end, result="{}")) is holds
            if holds:
                del self.current[job]
                self.ended[job] = end

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.made))
        if self.ended.get(job) in ("succeeded", "failed"):
            with pytest.raises(ConflictError):
                self.jobs.do(self.jobs.store.cancel("acme", job))
            return
        told = self.jobs.do(self.jobs.store.cancel("acme", job))
        self.wanted.add(job)
        if job not in self.current:
            self.ended.setdefault(job, "cancelled")
        assert told.state == ("running" if job in self.current else "cancelled")

    @rule(seconds=st.sampled_from([1.0, 20.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.jobs.clock.now += seconds

    @invariant()
    def no_job_is_lost(self) -> None:
        found, _ = self.jobs.do(self.jobs.store.page("acme", 100))
        states = {job.id: job.state for job in found}
        assert set(states) == set(self.made)
        for job, state in states.items():
            here = "running" if job in self.current else "queued"
            assert state == self.ended.get(job, here)

    def teardown(self) -> None:
        self.jobs.close()


def test_states_of_jobs_hold_together_whatever_happens(tmp_path):
    """A job that is lost, at work twice, or ended by a replica that had lost it costs twice or never ends."""
    JobMachine.folder = tmp_path
    run_state_machine_as_test(
        JobMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],  # to shrink a failure takes minutes
        ),
    )


def test_many_claimers_at_once_take_each_job_once(place):
    """Two replicas that claim in the same moment get two jobs, on SQLite and on PostgreSQL."""

    async def race() -> list[str]:
        table = JobTable(place, Cipher(KEY))
        await table.prepare()
        store = JobStore(table)
        others = [JobTable(place, Cipher(KEY)) for _ in range(4)]
        try:
            for number in range(12):
                await store.create("acme" if number % 2 else "other", REQUEST, 1)
            claims = [JobClaims(other, LEASE) for other in others]
            taken = await asyncio.gather(*(claims[number % 4].claim() for number in range(20)))
            return [claim.job.id for claim in taken if claim is not None]
        finally:
            for one in (table, *others):
                await one.aclose()

    taken = asyncio.run(race())
    assert len(taken) == len(set(taken)) == 12


def test_equal_keys_at_once_make_one_job(place):
    """A caller whose connection broke sends the same key again, maybe to another replica: one measurement."""

    async def race() -> set[tuple[str, bool]]:
        tables = [JobTable(place, Cipher(KEY)) for _ in range(3)]
        for table in tables:
            await table.prepare()
        try:
            made = await asyncio.gather(
                *(JobStore(tables[n % 3]).create("acme", REQUEST, 1, "the key") for n in range(9))
            )
            return {(job.id, new) for job, new in made}
        finally:
            for table in tables:
                await table.aclose()

    made = asyncio.run(race())
    assert len({job for job, _ in made}) == 1
    assert {new for _, new in made} == {True, False}


def test_a_key_belongs_to_its_request_and_tenant(jobs):
    """The key of another request is refused, and that of another tenant is another key."""
    job, _ = jobs.do(jobs.store.create("acme", REQUEST, 1, "k"))
    with pytest.raises(ConflictError):
        jobs.do(jobs.store.create("acme", REQUEST | {"agents": 4}, 1, "k"))
    other, made = jobs.do(jobs.store.create("other", REQUEST, 1, "k"))
    assert made
    assert other.id != job.id


def test_a_tenant_that_fills_its_queue_is_told_when_to_come_back(jobs):
    """And does not keep another from measuring."""
    for _ in range(3):
        jobs.do(jobs.store.create("acme", REQUEST, 1))
    with pytest.raises(TooManyRequestsError) as caught:
        jobs.do(jobs.store.create("acme", REQUEST, 1))
    assert (caught.value.retry_after or 0) > 0
    jobs.do(jobs.store.create("other", REQUEST, 1))
    first = jobs.do(jobs.replicas[0].claim()).job.tenant
    second = jobs.do(jobs.replicas[0].claim()).job.tenant
    assert [first, second] == ["acme", "other"], "the tenant with nothing at work comes first"


def test_a_process_that_is_seen_dead_is_not_waited_for(tmp_path):
    """A replica that was killed on this machine is known to be dead before its lease expires."""
    jobs = Jobs(str(tmp_path / "jobs.db"))
    jobs.do(jobs.store.create("acme", REQUEST, 1))
    boot, namespace, _, _ = this_process().split("/")
    dead = JobClaims(jobs.table, LEASE, owner=f"{boot}/{namespace}/{2**22 + 7}/1")
    assert jobs.do(dead.claim()) is not None
    taken = jobs.do(jobs.replicas[0].claim())
    assert taken is not None
    assert taken.deaths == 1
    jobs.close()


def test_another_tenants_job_is_not_there(jobs):
    """One tenant can neither see, follow, cancel nor read what another measures."""
    job, _ = jobs.do(jobs.store.create("acme", REQUEST, 1))
    for look in (
        jobs.store.get("other", job.id),
        jobs.store.cancel("other", job.id),
        jobs.store.events("other", job.id, 0),
        jobs.store.outcome("other", job.id, "result"),
    ):
        with pytest.raises(NotFoundError):
            jobs.do(look)
    assert jobs.do(jobs.store.page("other", 10)) == ((), None)


def test_nothing_that_was_asked_or_found_is_in_the_files(jobs, tmp_path):
    """Whoever copies the disk reads no prompt and no answer, in whatever file of the database."""
    jobs.do(jobs.store.create("acme", REQUEST | {"name": "project aardvark"}, 1, "key-of-the-caller"))
    claim = jobs.do(jobs.replicas[0].claim())
    jobs.do(jobs.replicas[0].progress(claim, 1, 0, {"task_id": "aardvark"}))
    jobs.do(jobs.replicas[0].finish(claim, "succeeded", result='{"said": "aardvark"}', report="aardvark"))
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert claim.job.id.encode() in kept, "the right files were read"
    for secret in (b"aardvark", b"secret question", b"key-of-the-caller"):
        assert secret not in kept
    assert jobs.do(jobs.store.outcome("acme", claim.job.id, "result")) == '{"said": "aardvark"}'


def test_jobs_are_deleted_after_their_retention_and_only_when_they_have_ended(jobs):
    """A text is not kept for longer than was promised, and a job at work is not lost to it."""
    old, _ = jobs.do(jobs.store.create("acme", REQUEST, 1))
    jobs.do(jobs.store.cancel("acme", old.id))
    waiting, _ = jobs.do(jobs.store.create("acme", REQUEST, 1))
    jobs.clock.now += 3_601
    assert jobs.do(jobs.store.forget(3_600.0)) == 1
    with pytest.raises(NotFoundError):
        jobs.do(jobs.store.get("acme", old.id))
    assert jobs.do(jobs.store.get("acme", waiting.id)).state == "queued"


def test_pages_show_each_job_once_while_new_ones_come(jobs):
    """A list that is read page by page neither repeats nor skips."""
    made = [jobs.do(jobs.store.create("acme", REQUEST, 1))[0].id for _ in range(3)]
    first, place = jobs.do(jobs.store.page("acme", 2))
    jobs.do(jobs.store.cancel("acme", made[0]))
    jobs.do(jobs.store.create("acme", REQUEST, 1))
    second, end = jobs.do(jobs.store.page("acme", 2, place))
    assert [job.id for job in (*first, *second)] == made[::-1]
    assert end is None


def test_events_go_on_after_the_last_one_that_came(jobs):
    """A reader whose connection broke misses nothing and reads nothing twice."""
    job, _ = jobs.do(jobs.store.create("acme", REQUEST, 4))
    claim = jobs.do(jobs.replicas[0].claim())
    for done in range(1, 4):
        jobs.do(jobs.replicas[0].progress(claim, done, 0, {"done": done}))
    all_of_them, ended = jobs.do(jobs.store.events("acme", job.id, 0))
    assert not ended
    rest, _ = jobs.do(jobs.store.events("acme", job.id, all_of_them[2].number))
    assert rest == all_of_them[3:]
    jobs.do(jobs.replicas[0].finish(claim, "succeeded"))
    last, ended = jobs.do(jobs.store.events("acme", job.id, rest[-1].number))
    assert ended
    assert [one.data for one in last] == [{"state": "succeeded"}]


def test_another_key_is_refused_at_the_start_and_opens_nothing(tmp_path):
    """A service with a wrong key must say so before it takes jobs that it could never read."""
    jobs = Jobs(str(tmp_path / "jobs.db"))
    jobs.close()
    other = JobTable(str(tmp_path / "jobs.db"), Cipher(os.urandom(32)))

    async def start() -> None:
        try:
            await other.prepare()
        finally:
            await other.aclose()

    with pytest.raises(ConfigurationError):
        asyncio.run(start())


def test_a_sealed_text_opens_in_its_own_place_alone():
    """Who can write the database cannot hand one tenant's text to another, nor change it."""
    cipher = Cipher(KEY)
    sealed = cipher.seal(b"text", "job:1:request")
    assert cipher.open(sealed, "job:1:request") == b"text"
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for wrong, place in ((sealed, "job:2:request"), (changed, "job:1:request"), (b"", "job:1:request")):
        with pytest.raises(StoreUnusableError):
            cipher.open(wrong, place)
    with pytest.raises(CertError):
        Cipher(b"short")
    assert cipher.seal(b"text", "x") != cipher.seal(b"text", "x")


@pytest.mark.parametrize("why", ["cancelled elsewhere", "taken over"])
def test_a_replica_that_has_lost_a_job_pays_for_no_further_call(jobs, why):
    """A process that slept through its lease, or has not heard of a cancellation yet, asks before it pays."""
    job, _ = jobs.do(jobs.store.create("acme", REQUEST, 1))
    claim = jobs.do(jobs.replicas[0].claim())
    vendor = ScriptedChat(otherwise="an answer")
    booked: list[int] = []

    async def book(_model: str, amount: int) -> None:
        booked.append(amount)

    async def work() -> None:
        held = WorkInHand(claim, jobs.replicas[0])
        client = PermittedChat(vendor, "scripted", held.permit, book)

        async def ask() -> Any:
            return await client.complete("a question")

        held.task = asyncio.ensure_future(ask())
        await held.task
        if why == "taken over":
            jobs.clock.now += LEASE + 1
            assert await jobs.replicas[1].claim() is not None
        else:
            await jobs.store.cancel("acme", job.id)
        held.task = asyncio.ensure_future(ask())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(held.task, 5)
        assert held.reason == ("lost" if why == "taken over" else "cancel")

    jobs.do(work())
    assert len(vendor.requests) == len(booked) == 1
