"""The Python client of measurements against a live service on the reference model."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import httpx2
import pytest
from pydantic import SecretStr
from tests.services.conftest import Running, running

from cert.client import (
    AsyncCoordinationClient,
    ConnectionFailedError,
    CoordinationClient,
    ProblemError,
    RetryPolicy,
)
from cert.coordination.drift import DriftMonitor
from cert.core.config import Settings
from cert.reference.world import load_world
from cert.services.coordination.app import create_app
from cert.services.coordination.options import CoordinationOptions


def request(tasks: int = 2, **changes: object) -> dict[str, object]:
    facts = [fact for fact in load_world().facts if fact.exposures >= 64][:tasks]
    asked = [{"text": fact.question(), "references": [fact.value]} for fact in facts]
    return {
        "tasks": asked,
        "systems": ["vote"],
        "evaluator": "normalized",
        "max_tokens": 16,
        "seed": 1,
    } | changes


@pytest.fixture(scope="module")
def live() -> Iterator[Running]:
    with running(create_app(Settings())) as service:
        yield service


@pytest.fixture
def client(live) -> Iterator[CoordinationClient]:
    with CoordinationClient(live.url) as client:
        yield client


def test_a_measurement_is_made_followed_and_read(client):
    """The whole way of a measurement, as a nightly job goes it."""
    job = client.measure(request(), idempotency_key="nightly-1")
    assert client.measure(request(), idempotency_key="nightly-1").id == job.id
    events = list(client.follow(job.id))
    assert {event.event for event in events} == {"state", "progress"}
    assert events[-1].data["state"] == "succeeded"
    found = client.measurement(job.id)
    assert found.done
    assert found.done_tasks == found.total
    assert client.result(job.id)["kind"] == "coordination_report"
    assert b"<html" in client.report(job.id)
    assert job.id in [one.id for one in client.measurements(limit=1)]
    assert client.budget() is not None
    assert client.costs().items is not None


def test_a_stream_goes_on_after_the_last_event(client):
    """Progress would be told twice, or not at all, whenever a proxy ends a connection."""
    job = client.measure(request(seed=2))
    events = list(client.follow(job.id))
    later = list(client.follow(job.id, after=events[1].id))
    assert [event.id for event in later] == [event.id for event in events[2:]]


def test_a_measurement_is_cancelled(client):
    """Nobody could stop what costs money."""
    job = client.measure(request(8, seed=3, agents=5))
    client.cancel(job.id)
    list(client.follow(job.id))
    assert client.measurement(job.id).state == "cancelled"


def test_a_measurement_that_ended_is_deleted(client):
    """A program could make texts and never unmake them."""
    job = client.measure(request(seed=6))
    list(client.follow(job.id))
    client.delete(job.id)
    for again in (client.measurement, client.delete):
        with pytest.raises(ProblemError) as caught:
            again(job.id)
        assert caught.value.status == 404
    at_work = client.measure(request(8, seed=7, agents=5))
    with pytest.raises(ProblemError) as caught:
        client.delete(at_work.id)
    assert caught.value.status == 409
    client.cancel(at_work.id)


def test_an_alarm_is_acknowledged(tmp_path):
    """A night's job that reads the alarms could not say that it has seen them."""
    place = SecretStr(f"sqlite:///{tmp_path}/jobs.db")
    options = CoordinationOptions(database_url=place, key=SecretStr(base64.b64encode(b"k" * 32).decode()))

    async def fall() -> None:
        async with DriftMonitor(tmp_path / "jobs-drift.db") as monitor:
            await monitor.observe_all("anonymous/vote", "all", [1.0, 0.9] * 100)
            await monitor.observe_all("anonymous/vote", "all", [0.1] * 60)

    with (
        running(create_app(Settings(), options=options)) as service,
        CoordinationClient(service.url) as client,
    ):
        assert client.drift() == []
        asyncio.run(fall())
        [series] = client.drift()
        assert series.alarm is not None
        told = client.acknowledge(series)
        assert (told.alarm, told.acknowledged) == (None, 1)
        assert client.drift() == [told]


def test_a_request_that_cannot_be_is_told(client):
    """A misspelt strategy would be a job that fails at night."""
    with pytest.raises(ProblemError) as caught:
        client.measure(request(systems=["nonsense"]))
    assert caught.value.status == 422
    with pytest.raises(ProblemError) as caught:
        client.measurement("../x")
    assert caught.value.status == 404


def test_tasks_follow_at_the_same_time(live):
    """Twenty measurements are watched by one program."""

    async def ask() -> list[str]:
        async with AsyncCoordinationClient(live.url) as client:
            jobs = await asyncio.gather(*(client.measure(request(1, seed=seed)) for seed in (4, 5)))

            async def last(identifier: str) -> str:
                return [event async for event in client.follow(identifier)][-1].data["state"]

            return await asyncio.gather(*(last(job.id) for job in jobs))

    assert asyncio.run(ask()) == ["succeeded", "succeeded"]


def test_a_measurement_without_a_key_is_not_sent_twice():
    """It would be paid for twice."""
    asked = []

    def broken(sent: httpx2.Request) -> httpx2.Response:
        asked.append(sent)
        raise httpx2.ReadError("broke")

    retry = RetryPolicy(attempts=3, first_seconds=0.0)
    with CoordinationClient("http://service", transport=httpx2.MockTransport(broken), retry=retry) as client:
        with pytest.raises(ConnectionFailedError):
            client.measure(request())
        assert len(asked) == 1
        with pytest.raises(ConnectionFailedError):
            client.measure(request(), idempotency_key="k")
        assert len(asked) == 4
