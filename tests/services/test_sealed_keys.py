"""Keys that texts are sealed with, replaced one after the other while the service goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from tests.unit.coordination.store.conftest import postgres_server, postgres_url  # noqa: F401  # fixtures

from cert.coordination.scripted import ScriptedChat
from cert.coordination.store.records import Call, Lease
from cert.coordination.store.schema import RECORDS
from cert.core.config import Settings, load_settings
from cert.core.errors import ConfigurationError, StoreUnusableError
from cert.services.coordination.app import create_app
from cert.services.coordination.jobs.answers import SealedStore
from cert.services.coordination.jobs.claims import JobClaims
from cert.services.coordination.jobs.database import places_of
from cert.services.coordination.jobs.schema import ABOUT, EVENTS, JOBS
from cert.services.coordination.jobs.store import JobStore
from cert.services.coordination.jobs.table import JobTable
from cert.services.coordination.options import CoordinationOptions
from cert.services.sealed.cipher import Cipher
from cert.services.sealed.renewal import renew_seals
from cert.services.sealed.resealing import Resealed

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
REQUEST = {"tasks": [{"text": "a secret question"}], "systems": ["vote"], "agents": 3}
SEALED = ("request", "result", "report", "summary")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return str(request.getfixturevalue("postgres_url"))


class Replica:
    """The databases of a Coordination service, with keys of its own."""

    def __init__(self, url: str, *keys: bytes) -> None:
        self.places, self.cipher = places_of(url), Cipher(*keys)
        self.table = JobTable(self.places.jobs, self.cipher)
        self.jobs = JobStore(self.table)

    def answers(self) -> SealedStore:
        return SealedStore(self.places.answers, self.cipher)

    async def renew(self) -> None:
        async def reseal() -> Resealed:
            async with self.answers() as answers:
                return await self.table.reseal() + await answers.reseal()

        await renew_seals(self.table, reseal)


def with_replica(url: str, *keys: bytes) -> Callable[[Callable[[Replica], Coroutine[Any, Any, Any]]], Any]:
    """Start, do the work, end."""

    def run(work: Callable[[Replica], Coroutine[Any, Any, Any]]) -> Any:
        async def doing() -> Any:
            replica = Replica(url, *keys)
            try:
                await replica.table.prepare()
                return await work(replica)
            finally:
                await replica.table.aclose()

        return asyncio.run(doing())

    return run


async def fill(replica: Replica) -> list[str]:
    """Make jobs with every kind of text, and an answer; more rows than one transaction takes."""
    claims, made = JobClaims(replica.table), []
    for number in range(60):
        job, _ = await replica.jobs.create("acme", {**REQUEST, "number": number}, 1, f"retry-{number}")
        made.append(job.id)
    claim = await claims.claim()
    assert claim is not None
    await claims.finish(claim, "succeeded", result='{"secret": 1}', report="<p>secret", summary={"s": 1})
    async with replica.answers() as answers:
        call = Call(key="k" * 64, kind="completion", scope="acme", model="m", most_micro_dollars=1)
        lease = await answers.claim(call)
        assert isinstance(lease, Lease)
        await answers.record(lease, "a secret answer", 1)
    return made


async def all_there(replica: Replica, made: list[str]) -> None:
    for number, job in enumerate(made):
        assert (await replica.jobs.get("acme", job)).request["number"] == number
        assert (await replica.jobs.events("acme", job, 0))[0]
    assert json.loads(await replica.jobs.outcome("acme", made[0], "result")) == {"secret": 1}
    assert await replica.jobs.outcome("acme", made[0], "report") == "<p>secret"
    async with replica.answers() as answers:
        found = await answers.find("k" * 64)
        assert found is not None
        assert found.value == "a secret answer"


def test_a_key_is_replaced_and_taken_away_without_a_text_lost(url):
    """The procedure of the manual: read both, write the new one, seal anew, take the old one away."""
    made = with_replica(url, OLD)(fill)
    with_replica(url, OLD, NEW)(lambda replica: all_there(replica, made))

    async def renew(replica: Replica) -> None:
        await all_there(replica, made)
        await replica.renew()
        await all_there(replica, made)

    with_replica(url, NEW, OLD)(renew)
    with_replica(url, NEW)(lambda replica: all_there(replica, made))
    with pytest.raises(ConfigurationError):
        with_replica(url, OLD)(lambda replica: all_there(replica, made))


def test_a_key_that_is_still_needed_cannot_be_taken_away(url):
    """An operator who is too quick hears so at the start, with the id of the key, and nothing is lost."""
    made = with_replica(url, OLD)(fill)

    async def nothing(_: Replica) -> None: ...

    with_replica(url, NEW, OLD)(nothing)
    with pytest.raises(ConfigurationError, match=Cipher(OLD).key_ids[0]):
        with_replica(url, NEW)(nothing)
    with_replica(url, OLD, NEW)(lambda replica: all_there(replica, made))


def test_a_replica_that_still_writes_with_the_old_key_keeps_it_in_force(url):
    """Replicas are not restarted all at once: what the last of them writes is sealed anew as well."""
    made = with_replica(url, OLD)(fill)

    async def both(new: Replica) -> str:
        await new.renew()
        straggler = Replica(url, OLD, NEW)
        await straggler.table.prepare()
        job, _ = await straggler.jobs.create("acme", {**REQUEST, "number": 60}, 1)
        await straggler.table.aclose()
        return job.id

    made.append(with_replica(url, NEW, OLD)(both))
    with pytest.raises(ConfigurationError):
        with_replica(url, NEW)(lambda replica: all_there(replica, made))
    with_replica(url, NEW, OLD)(lambda replica: replica.renew())
    with_replica(url, NEW)(lambda replica: all_there(replica, made))


def test_a_repeated_request_is_the_same_job_while_keys_are_replaced(url):
    """A caller whose connection broke asks again after the restart, and must not pay twice."""
    made = with_replica(url, OLD)(fill)

    async def again(replica: Replica) -> tuple[str, bool]:
        job, new = await replica.jobs.create("acme", {**REQUEST, "number": 7}, 1, "retry-7")
        return job.id, new

    assert with_replica(url, NEW, OLD)(again) == (made[7], False)
    assert with_replica(url, OLD, NEW)(again) == (made[7], False)


def test_texts_of_the_first_form_open_and_are_sealed_anew(tmp_path):
    """Databases of the time when a text did not name its key are still read."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    made = with_replica(url, OLD)(fill)
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
        connection.create_function("first_form", 1, lambda sealed: sealed and b"\x01" + sealed[9:])
        for table, column in [*(("cert_jobs", name) for name in SEALED), ("cert_job_events", "data")]:
            connection.execute(f"UPDATE {table} SET {column} = first_form({column})")
        connection.execute("DELETE FROM cert_jobs_about WHERE name LIKE 'key:%'")
        known = {"name": "key", "value": Cipher(OLD).key_ids[0]}
        connection.execute("INSERT INTO cert_jobs_about VALUES (:name, :value)", known)
    with_replica(url, OLD)(lambda replica: all_there(replica, made))
    with pytest.raises(ConfigurationError):
        with_replica(url, NEW)(lambda replica: all_there(replica, made))
    with_replica(url, NEW, OLD)(lambda replica: replica.renew())
    with_replica(url, NEW)(lambda replica: all_there(replica, made))


def test_every_sealed_column_is_sealed_anew(url):
    """A column that is forgotten would be unreadable once the old key is gone."""
    with_replica(url, OLD)(fill)

    async def headers(replica: Replica) -> set[bytes]:
        await replica.renew()

        def look(connection: sa.Connection) -> set[bytes]:
            sealed = [
                part for table in (JOBS, EVENTS) for part in table.c if isinstance(part.type, sa.LargeBinary)
            ]
            found = {
                bytes(row[0])[:9] for part in sealed for row in connection.execute(sa.select(part)) if row[0]
            }
            assert len(sealed) == 6
            assert [
                row.name
                for row in connection.execute(sa.select(ABOUT.c.name))
                if row.name != "schema_version"
            ] == [f"key:{replica.cipher.key_ids[0]}"]
            return found

        found: set[bytes] = await replica.table.read(look)
        async with replica.answers() as answers:
            values = await answers._database.read(
                lambda connection: list(connection.scalars(sa.select(RECORDS.c.value)))
            )
        return found | {base64.b64decode(value)[:9] for value in values}

    assert with_replica(url, NEW, OLD)(headers) == {Cipher(NEW).header}


def test_a_text_of_a_key_that_is_not_ours_stays_and_is_counted(url):
    """What cannot be read is not thrown away, and its key is not forgotten."""
    with_replica(url, OLD)(fill)

    async def spoil(replica: Replica) -> Resealed:
        def put(connection: sa.Connection) -> None:
            foreign = Cipher(OTHER).seal(b"{}", "job:x:request")
            connection.execute(JOBS.update().where(JOBS.c.number == 3).values(request=foreign))

        await replica.table.write(put)
        return await replica.table.reseal()

    assert with_replica(url, NEW, OLD)(spoil).left == 1
    with_replica(url, NEW, OLD)(lambda replica: replica.renew())
    with pytest.raises(ConfigurationError):
        with_replica(url, NEW)(lambda replica: replica.renew())


def test_keys_are_told_apart_and_checked():
    """A key that is mistyped is refused by the name of its variable, and never shown."""
    text = [base64.b64encode(key).decode() for key in (OLD, NEW)]
    cipher = Cipher.of_text(f"{text[1]}, {text[0]}", setting="CERT_ANALYSES_KEY")
    assert cipher.key_ids == Cipher(NEW, OLD).key_ids
    sealed = Cipher(OLD).seal(b"text", "here")
    assert cipher.open(sealed, "here") == b"text"
    with pytest.raises(StoreUnusableError) as told:
        Cipher(OTHER).open(sealed, "here")
    assert "CERT_JOBS_KEY" in str(told.value.hint)
    both = {"CERT_DATABASE_URL": "sqlite:////tmp/x.db", "CERT_JOBS_KEY": ",".join(text)}
    assert load_settings(both).jobs.key is not None
    for wrong in (f"{text[0]},{text[0]}", f"{text[0]},", f"{text[0]},c2hvcnQ=", "%"):
        with pytest.raises(ConfigurationError, match="CERT_JOBS_KEY") as refused:
            load_settings(both | {"CERT_JOBS_KEY": wrong})
        assert text[0] not in str(refused.value)
        with pytest.raises(ConfigurationError):
            Cipher.of_text(wrong)


def test_a_running_service_takes_the_old_key_out_of_use(url):
    """The service itself does it in the background: nobody has to call anything."""
    keys = [base64.b64encode(key).decode() for key in (OLD, NEW)]

    async def with_service(key: str, work: Callable[[httpx2.AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
        options = CoordinationOptions(database_url=SecretStr(url), key=SecretStr(key))
        app = create_app(Settings(), clients={"scripted": ScriptedChat(otherwise="42")}, options=options)
        transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 1))
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
        ):
            return await work(client)

    async def measure(client: httpx2.AsyncClient) -> str:
        tasks = [{"text": f"What is {n} + 25?", "references": ["42"]} for n in (17, 18)]
        body = {"tasks": tasks, "systems": ["vote"]}
        place = str((await client.post("/v1/measurements", json=body)).headers["Location"])
        for _ in range(400):
            if (await client.get(place)).json()["state"] == "succeeded":
                return place
            await asyncio.sleep(0.05)
        raise AssertionError(place)

    async def old_is_gone(_client: httpx2.AsyncClient) -> None:
        for _ in range(200):
            table = JobTable(places_of(url).jobs, Cipher(NEW))
            try:
                await table.prepare()
            except ConfigurationError:
                await asyncio.sleep(0.05)
            else:
                return
            finally:
                await table.aclose()
        raise AssertionError("the old key is still in use")

    async def look(client: httpx2.AsyncClient) -> tuple[str, str]:
        told = [(await client.get(f"{place}/{what}")) for what in ("result", "report")]
        assert [answer.status_code for answer in told] == [200, 200]
        return told[0].text, told[1].text

    place = asyncio.run(with_service(keys[0], measure))
    before = asyncio.run(with_service(keys[0], look))
    asyncio.run(with_service(f"{keys[1]},{keys[0]}", old_is_gone))
    assert asyncio.run(with_service(keys[1], look)) == before
