"""What users of the Coordination service put away: measurements that ended, alarms that were seen."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # ships no types
import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from tests.services.test_coordination_app import BODY, calling, measured, until
from tests.unit.coordination.store.conftest import postgres_server, postgres_url  # noqa: F401  # fixtures

from cert.coordination.drift import DriftMonitor, Plan
from cert.coordination.scripted import ScriptedChat
from cert.core.config import ServiceSettings, Settings
from cert.services.common.keys import KeyFile, new_key
from cert.services.common.principal import Scope
from cert.services.coordination.app import create_app
from cert.services.coordination.options import CoordinationOptions

pytestmark = pytest.mark.anyio
KEY = SecretStr(base64.b64encode(b"k" * 32).decode())


class Team:
    """A service with keys of two tenants, and with a database that a test can look into."""

    def __init__(self, folder: Path, chat: ScriptedChat | None = None, **options: Any) -> None:
        self.folder = folder
        file = KeyFile(folder / "keys.json")
        self.secrets, self.ids = {}, {}
        who: dict[str, tuple[str, Scope]] = {
            "writer": ("acme", "write"),
            "reader": ("acme", "read"),
            "other": ("umbrella", "write"),
        }
        for name, (tenant, scope) in who.items():
            self.secrets[name], key = new_key(tenant, (scope,))
            self.ids[name] = key.id
            file.write((*file.read(), key))
        self.options = CoordinationOptions(
            database_url=SecretStr(f"sqlite:///{folder}/jobs.db"), key=KEY, **options
        )
        self.chat = chat or ScriptedChat(otherwise="42")

    def app(self) -> FastAPI:
        settings = Settings(service=ServiceSettings(api_keys_file=self.folder / "keys.json"))
        return create_app(settings, clients={"scripted": self.chat}, options=self.options)

    def as_who(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secrets[name]}"}


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


async def test_a_measurement_that_ended_is_deleted_with_its_texts(team):
    """Whoever wants a text gone would wait for the retention; the books must not change with it."""
    async with calling(team.app(), team.secrets["writer"]) as client:
        first = await client.post("/v1/measurements", json=BODY, headers={"Idempotency-Key": "once"})
        place = first.headers["Location"]
        job = await until(client, place, "succeeded")
        costs = (await client.get("/v1/costs")).json()
        answer = await client.delete(place)
        assert (answer.status_code, answer.content) == (204, b"")
        for path in ("", "/events", "/result", "/report"):
            assert (await client.get(place + path)).status_code == 404
        assert (await client.get("/v1/measurements")).json()["items"] == []
        assert (await client.delete(place)).status_code == 404
        assert (await client.get("/v1/costs")).json()["spent"] == costs["spent"] == job["spent"]
        again = await client.post("/v1/measurements", json=BODY, headers={"Idempotency-Key": "once"})
        assert again.headers["Location"] != place, "the key is free again"
    with contextlib.closing(sqlite3.connect(team.folder / "jobs.db")) as file:
        left = file.execute("SELECT count(*) FROM cert_job_events WHERE job = ?", (job["id"],)).fetchone()
    assert left == (0,)


async def test_only_whoever_may_write_deletes_and_only_what_is_his_tenants(team):
    """A key that may look would destroy, or one tenant another's results."""
    async with calling(team.app(), team.secrets["writer"]) as client:
        place = f"/v1/measurements/{(await measured(client))['id']}"
        assert (await client.delete(place, headers=team.as_who("reader"))).status_code == 403
        assert (await client.delete(place, headers=team.as_who("other"))).status_code == 404
        assert (await client.get(place)).status_code == 200


async def test_a_measurement_at_work_is_cancelled_before_it_is_deleted(tmp_path):
    """A job that goes on without its row would pay for answers that nobody sees."""
    begun = asyncio.Event()

    async def slow(_request: object) -> str:
        begun.set()
        await asyncio.sleep(0.05)
        return "42"

    team = Team(tmp_path, ScriptedChat(otherwise=slow), concurrent=1)
    tasks = [{"text": f"What is {n}?", "references": ["1"]} for n in range(200)]
    async with calling(team.app(), team.secrets["writer"]) as client:
        place = (await client.post("/v1/measurements", json={"tasks": tasks})).headers["Location"]
        waiting = (await client.post("/v1/measurements", json=BODY)).headers["Location"]
        await asyncio.wait_for(begun.wait(), 10)
        for each, state in ((place, "running"), (waiting, "queued")):
            refused = await client.delete(each)
            assert refused.status_code == 409
            assert state in refused.json()["detail"]
        await client.post(f"{place}/cancel")
        await until(client, place, "cancelled")
        assert (await client.delete(place)).status_code == 204
        calls = len(team.chat.requests)
        assert (await until(client, waiting, "succeeded"))["done"] == 2, "the place at work is free again"
        assert calls < 200


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Of an empty PostgreSQL."""
    return str(request.getfixturevalue("postgres_url"))


@pytest.mark.slow
async def test_a_replica_takes_few_connections_of_its_database(url):
    """Four replicas would use up all that PostgreSQL gives out, and give their jobs back again and again."""
    chat = ScriptedChat(otherwise="42", latency=0.01)
    options = CoordinationOptions(database_url=SecretStr(url), key=KEY, concurrent=6)
    app = create_app(Settings(), clients={"scripted": chat}, options=options)
    asking = await asyncpg.connect(url)
    most = 0
    async with calling(app) as client:
        places = []
        for number in range(6):
            tasks = [{"text": f"{number}: what is {n}?", "references": ["42"]} for n in range(6)]
            body = {"tasks": tasks, "systems": ["vote", "parallel"], "concurrency": 16}
            places.append((await client.post("/v1/measurements", json=body)).headers["Location"])
        for place in places:
            while (await client.get(place)).json()["state"] not in ("succeeded", "failed"):
                counting = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                most = max(most, await asking.fetchval(counting) - 1)
                await asyncio.sleep(0.05)
            assert (await client.get(place)).json()["state"] == "succeeded"
    await asking.close()
    assert 8 <= most <= 24, "eight each for jobs, answers and drift"


async def fall(team: Team, client: httpx2.AsyncClient) -> dict[str, Any]:
    """Let a system of acme's get worse, and return its series as the service tells it."""
    async with DriftMonitor(team.folder / "jobs-drift.db", plan=Plan()) as monitor:
        await monitor.observe_all("acme/vote 3 scripted", "all", [1.0, 0.9] * 100)
        await monitor.observe_all("acme/vote 3 scripted", "all", [0.1] * 60)
    [found] = (await client.get("/v1/drift")).json()["items"]
    assert found["alarm"] is not None
    return dict(found)


async def test_an_alarm_is_acknowledged_and_who_did_it_is_kept(team):
    """Nobody could tell whether somebody has looked at an alarm; another service start must still know it."""
    before = time.time()
    async with calling(team.app(), team.secrets["writer"]) as client:
        found = await fall(team, client)
        to = f"/v1/drift/{found['id']}/acknowledge"
        assert (await client.post(to, headers=team.as_who("reader"))).status_code == 403
        assert (await client.post(to, headers=team.as_who("other"))).status_code == 404
        assert (await client.post("/v1/drift/d_none/acknowledge")).status_code == 404
        told = (await client.post(to, json={"raised_at": found["alarm"]["raised_at"]})).json()
        assert (told["id"], told["alarm"], told["acknowledged"]) == (found["id"], None, 1)
        assert told["acknowledgement"]["by"] == team.ids["writer"]
        assert told["acknowledgement"]["kind"] == found["alarm"]["kind"]
        assert before <= told["acknowledgement"]["at"] <= time.time()
        assert (await client.post(to)).json() == told, "a second time changes nothing"
    async with calling(team.app(), team.secrets["reader"]) as client:
        assert (await client.get("/v1/drift")).json()["items"] == [told]


async def test_an_alarm_that_nobody_has_seen_is_not_acknowledged(team):
    """A page of yesterday would take off an alarm of today."""
    async with calling(team.app(), team.secrets["writer"]) as client:
        found = await fall(team, client)
        to = f"/v1/drift/{found['id']}/acknowledge"
        answer = await client.post(to, json={"raised_at": found["alarm"]["raised_at"] - 1.0})
        assert answer.status_code == 409
        [still] = (await client.get("/v1/drift")).json()["items"]
        assert still["alarm"] == found["alarm"]
