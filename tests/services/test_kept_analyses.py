"""Analyses that outlive the process: shared by replicas, sealed, and never lost in silence."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import SecretStr
from tests.unit.coordination.store.conftest import postgres_server, postgres_url  # noqa: F401  # fixtures

from cert.backends.local import LocalBackend
from cert.core.config import ServiceSettings, Settings, load_settings
from cert.core.errors import ConfigurationError, StoreUnusableError
from cert.core.events import ComponentDegraded
from cert.observability.logging import configure_logging
from cert.services.common.keys import KeyFile, new_key
from cert.services.hamiltonian.app import create_app
from cert.services.hamiltonian.configured import options_of
from cert.services.hamiltonian.kept_store import ANALYSES, AnalysisStore
from cert.services.hamiltonian.options import HamiltonianOptions, KeepingOptions
from cert.services.sealed.cipher import Cipher
from cert.testing.events import captured_events
from cert.trajectory.api import HamiltonianMonitor

pytestmark = pytest.mark.anyio

KEY, NEXT = (base64.b64encode(letter * 32).decode() for letter in (b"k", b"n"))
QUESTION = "What is the capital of Velmora?"


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    made = LocalBackend.load("reference")
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/analyses.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("postgres_url"))


class Replica:
    """One process of the service, as far as its memory goes."""

    def __init__(self, app: FastAPI, http: httpx2.AsyncClient) -> None:
        self.app, self.http = app, http

    async def ask(self, length: int = 8, **more: Any) -> dict[str, Any]:
        body = {"prompt": QUESTION, "max_new_tokens": length} | more
        answer = await self.http.post("/v1/analyze", json=body)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def listed(self) -> list[str]:
        return [item["id"] for item in (await self.get("/v1/analyses"))["items"]]


@contextlib.asynccontextmanager
async def replica(
    url: str,
    backend: LocalBackend,
    key: str = KEY,
    *,
    settings: Settings | None = None,
    recent: int = 200,
    **keeping: Any,
) -> AsyncIterator[Replica]:
    options = HamiltonianOptions(
        recent=recent, keeping=KeepingOptions(SecretStr(url), SecretStr(key), **keeping)
    )
    app = create_app(settings, monitors={"reference": HamiltonianMonitor(backend=backend)}, options=options)
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield Replica(app, http)


def without_label(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "label"}


async def test_analyses_survive_a_restart_to_the_last_digit(url, backend):
    """What was acknowledged is read back as it was told: every number, text, reason and page."""
    async with replica(url, backend) as first:
        told = [await first.ask(length, seed=7, temperature=0.8) for length in (1, 8, 20)]
        stream = await first.http.post("/v1/analyze/stream", json={"prompt": QUESTION, "max_new_tokens": 4})
        assert "event: analysis" in stream.text
        score = {"prompt": QUESTION, "completion": " It is Tavin."}
        told.append((await first.http.post("/v1/score", json=score)).json())
        batch = {"prompts": ["One?", "Two?"], "max_new_tokens": 3, "group": "g", "detail": "full"}
        answered = (await first.http.post("/v1/analyze/batch", json=batch)).json()
        told += [item["record"] for item in answered["items"]]
        for streams in (False, True):
            chat = {
                "model": "reference",
                "messages": [{"role": "user", "content": QUESTION}],
                "max_tokens": 5,
                "stream": streams,
            }
            answer = await first.http.post("/v1/chat/completions", json=chat)
            assert answer.status_code == 200, answer.text
            identifier = re.findall(r'"analysis_id":"(an_[0-9a-f]+)"', answer.text)[-1]
            told.append(await first.get(f"/v1/analyses/{identifier}"))
        assert all(record["kept"] for record in told)
        page = await first.get("/v1/analyses")
        reports = [(await first.http.get(f"/v1/analyses/{record['id']}/report")).text for record in told]
    async with replica(url, backend) as second:
        assert await second.get("/v1/analyses") == page
        assert len(page["items"]) == 9
        for record, report in zip(told, reports, strict=True):
            assert await second.get(f"/v1/analyses/{record['id']}") == record
            assert (await second.http.get(f"/v1/analyses/{record['id']}/report")).text == report
            assert (await second.http.get(f"/ui/analyses/{record['id']}")).status_code == 200


async def test_replicas_share_analyses_and_pages_neither_repeat_nor_skip(url, backend):
    """Whichever replica answers: the same list, the same cursor, the same analysis."""
    async with replica(url, backend) as first, replica(url, backend) as second:
        ids = [(await (first, second)[n % 2].ask(n + 1))["id"] for n in range(7)]
        seen, cursor = [], None
        for turn in range(10):
            page = await (first, second)[turn % 2].get(
                "/v1/analyses?limit=2" + ("" if cursor is None else f"&cursor={cursor}")
            )
            seen += [item["id"] for item in page["items"]]
            if turn == 0:  # what comes in between moves no page
                await first.ask(9)
            if (cursor := page["next"]) is None:
                break
        assert seen == ids[::-1]
        assert await first.get(f"/v1/analyses/{ids[1]}") == await second.get(f"/v1/analyses/{ids[1]}")


async def test_a_label_counts_once_over_all_replicas(url, backend):
    """Two people who say the same of one answer at two replicas would refute a promise twice as fast."""
    async with replica(url, backend) as first, replica(url, backend) as second:
        for length in (3, 4, 5, 6):
            place = f"/v1/analyses/{(await first.ask(length))['id']}"
            answers = await asyncio.gather(
                *(
                    one.http.post(f"{place}/label", json={"correct": correct})
                    for one, correct in ((first, True), (second, False), (first, True), (second, False))
                )
            )
            assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
            said = next(answer.json()["label"] for answer in answers if answer.status_code == 200)
            for one in (first, second):
                assert (await one.get(place))["label"] is said
        labels = [item["label"] for item in (await second.get("/v1/analyses"))["items"]]
        assert None not in labels
    async with replica(url, backend) as later:
        again = await later.http.post(f"{place}/label", json={"correct": True})
        assert again.status_code == 409


async def test_a_repeated_answer_is_written_once_and_keeps_its_id(url, backend):
    """A write for each repetition would cost more than the cache saves; a second id, a second label."""
    async with replica(url, backend, recent=2) as one:
        writes = 0
        store = one.app.state.cert.recent._store
        write = store.write

        async def counted(work: Any) -> Any:
            nonlocal writes
            writes += 1
            return await write(work)

        first = await one.ask(8)
        store.write = counted
        for _ in range(5):
            again = await one.ask(8)
            assert (again["id"], again["kept"], again["analysis"]["from_cache"]) == (first["id"], True, True)
        assert writes == 0
        await one.http.post(f"/v1/analyses/{first['id']}/label", json={"correct": True})
        for length in (1, 2, 3):  # it is in memory no longer
            await one.ask(length)
        again = await one.ask(8)
        assert (again["id"], again["label"], again["analysis"]["from_cache"]) == (first["id"], True, True)
        assert len(await one.listed()) == 4


async def test_equal_questions_at_once_are_one_analysis(url, backend):
    """Whoever labels each of them would count one answer many times."""
    async with replica(url, backend) as one:
        told = await asyncio.gather(*(one.ask(12, group=group) for group in ("a", "b") for _ in range(6)))
        assert len({record["id"] for record in told}) == 2
        again = [await one.ask(12, group=group) for group in ("a", "b", "a", "b")]
        assert {record["id"] for record in again} == {record["id"] for record in told}
        assert len(await one.listed()) == 2
        # Whoever waited for another's answer may have it before that one has.
        kept = one.app.state.cert.recent
        analysis = one.app.state.cert.models.monitor("reference", "anonymous").analyze(QUESTION)
        entries = [
            await kept.keep("anonymous", replace(analysis, from_cache=cached), model="m", source="chat")
            for cached in (True, False)
        ]
        assert entries[0] is entries[1]


async def test_another_tenant_sees_nothing_of_it(url, backend, tmp_path):
    """Who guesses or steals an id gets what there is for a stranger: nothing; in the database, too."""
    made = [new_key(tenant, ("write",)) for tenant in ("acme", "globex")]
    KeyFile(tmp_path / "keys.json").write(tuple(key for _, key in made))
    settings = Settings(service=ServiceSettings(api_keys_file=tmp_path / "keys.json"))
    async with replica(url, backend, settings=settings) as one:
        as_ours, as_theirs = ({"Authorization": f"Bearer {secret}"} for secret, _ in made)
        body = {"prompt": QUESTION, "max_new_tokens": 8}
        told = (await one.http.post("/v1/analyze", json=body, headers=as_ours)).json()
        place = f"/v1/analyses/{told['id']}"
        assert (await one.http.get(place, headers=as_ours)).status_code == 200
        assert (await one.http.get(place, headers=as_theirs)).status_code == 404
        assert (await one.http.get(f"{place}/report", headers=as_theirs)).status_code == 404
        label = await one.http.post(f"{place}/label", json={"correct": True}, headers=as_theirs)
        assert label.status_code == 404
        assert (await one.http.get("/v1/analyses", headers=as_theirs)).json()["items"] == []
        store: AnalysisStore = one.app.state.cert.recent._store
        # Somebody who can write the database moves the row, and cannot read it all the same.
        await store.write(lambda connection: connection.execute(ANALYSES.update().values(tenant="globex")))
        answer = await one.http.get(place, headers=as_theirs)
        assert answer.status_code == 503
        assert QUESTION not in answer.text


async def test_no_text_lies_in_the_file(tmp_path, backend):
    """Whoever gets a copy of the disk reads neither prompts nor answers."""
    async with replica(f"sqlite:///{tmp_path}/analyses.db", backend) as one:
        told = await one.ask(20)
        given = {"prompt": QUESTION, "completion": "An aardvark said so."}
        assert (await one.http.post("/v1/score", json=given)).status_code == 200
        raw = b"".join(path.read_bytes() for path in tmp_path.glob("analyses.db*"))
    assert told["id"].encode() in raw
    for text in ("Velmora", "aardvark", "reference", "perplexity"):
        assert text.encode() not in raw


async def test_another_key_is_refused_at_the_start(url, backend):
    """A service that cannot read what is there must say so, and not begin a second set of texts."""
    async with replica(url, backend) as first:
        told = await first.ask()
    with pytest.raises(ConfigurationError) as refused:
        async with replica(url, backend, NEXT):
            pass
    assert "CERT_ANALYSES_KEY" in str(refused.value.hint)
    assert NEXT not in str(refused.value)
    async with replica(url, backend) as first:
        assert (await first.get(f"/v1/analyses/{told['id']}"))["id"] == told["id"]


async def test_the_key_is_replaced_without_an_analysis_lost(url, backend):
    """The procedure of the manual, and what an answer from the cache finds again meanwhile."""
    async with replica(url, backend) as first:
        told = await first.ask()
    async with replica(url, backend, f"{NEXT},{KEY}") as both:
        assert without_label(await both.get(f"/v1/analyses/{told['id']}")) == without_label(told)
        await until(lambda: only(url, NEXT))
    async with replica(url, backend, NEXT) as last:
        assert await last.get(f"/v1/analyses/{told['id']}") == told
        assert await last.listed() == [told["id"]]
    with pytest.raises(ConfigurationError):
        async with replica(url, backend):
            pass


async def until(done: Any, seconds: float = 20.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await done():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def only(url: str, key: str) -> bool:
    """Say whether a key alone is enough."""
    store = AnalysisStore(url, Cipher.of_text(key), retention_seconds=1e6, most=100)
    try:
        await store.prepare()
    except ConfigurationError:
        return False
    finally:
        await store.aclose()
    return True


async def test_what_is_too_old_or_too_many_is_gone(url, backend):
    """Texts are kept no longer than promised, nor given a name by which they cannot be found."""
    async with replica(url, backend, most=3) as one:
        ids = [(await one.ask(length))["id"] for length in range(1, 7)]
        kept = one.app.state.cert.recent
        await kept._cleaned()
        assert await one.listed() == ids[:2:-1]
        again = await one.ask(1)
        assert again["id"] not in ids
        assert (await one.get(f"/v1/analyses/{again['id']}"))["id"] == again["id"]
    async with replica(url, backend, retention_seconds=1.5) as one:
        await one.app.state.cert.recent._store.forget()
        told = await one.ask(1)
        assert told["id"] in await one.listed()
        await asyncio.sleep(1.6)
        assert await one.listed() == []
        assert (await one.http.get(f"/v1/analyses/{told['id']}")).status_code == 404
        await until(lambda: empty(one))


async def empty(one: Replica) -> bool:
    store: AnalysisStore = one.app.state.cert.recent._store
    return not await store.read(
        lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(ANALYSES))
    )


@contextlib.contextmanager
def logged(file: Path) -> Iterator[list[dict[str, Any]]]:
    """Gather the lines of the log; they are there when the block has ended."""
    lines: list[dict[str, Any]] = []
    restore = configure_logging("info", "json", "file", file)
    try:
        yield lines
    finally:
        restore()
        lines += map(json.loads, file.read_text().splitlines())


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the file's lock, as a backup program that hangs does."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def test_answers_flow_while_the_database_is_out_and_say_that_they_are_not_kept(tmp_path, backend):
    """An application must not stand still since a list cannot be written; nor may the list lie."""
    file = tmp_path / "analyses.db"
    with captured_events() as events:
        await _out_and_back(file, tmp_path / "log", backend)
    told = [event for event in events.of(ComponentDegraded) if event.component == "analyses"]
    assert [event.active for event in told] == [True, False], "what metrics and alerts are made of"


async def _out_and_back(file: Path, log: Path, backend: LocalBackend) -> None:
    async with replica(f"sqlite:///{file}", backend, wait_seconds=0.3) as one:
        before = await one.ask(1)
        await asyncio.sleep(1.2)  # the cleaning of the start is over
        with logged(log) as lines, locked(file):
            during = [await one.ask(length) for length in (2, 3, 4)]
            assert [record["kept"] for record in during] == [False] * 3
            assert all(record["analysis"]["verdict"] for record in during)
            health = await one.get("/health")
            assert (health["status"], health["checks"]["analyses"]["code"]) == ("degraded", "not_kept")
            assert health["ready"]
            assert (await one.get(f"/v1/analyses/{during[0]['id']}"))["id"] == during[0]["id"]
            label = await one.http.post(f"/v1/analyses/{during[0]['id']}/label", json={"correct": True})
            assert label.status_code == 503
            assert "Retry-After" in label.headers
        told = [line for line in lines if line["event"] == "analysis_not_kept"]
        assert "Velmora" not in log.read_text()
        assert {line["analysis"] for line in told} == {record["id"] for record in during}
        assert any(line["event"] == "analyses_in_memory_only" for line in lines)
        # As soon as it is back, what was not kept is, under the id that was told.
        await until(lambda: healthy(one))
        assert await one.listed() == [*(record["id"] for record in during[::-1]), before["id"]]
        assert (await one.ask(2))["kept"]
        label = await one.http.post(f"/v1/analyses/{during[0]['id']}/label", json={"correct": True})
        assert label.json()["label"] is True
    async with replica(f"sqlite:///{file}", backend) as later:
        assert await later.get(f"/v1/analyses/{during[1]['id']}") == during[1] | {"kept": True}


async def healthy(one: Replica) -> bool:
    checks = (await one.get("/health"))["checks"]
    return bool(checks["analyses"]["status"] == "healthy")


async def test_a_server_that_stands_still_costs_each_answer_a_little_time_and_none_its_verdict(
    server, backend
):
    """PostgreSQL is stopped in the middle: connections stay open, and nobody answers."""
    async with replica(server, backend, wait_seconds=0.5) as one:
        before = await one.ask(1)
        everyone = descendants(postmaster_of(server))
        for process in everyone:
            os.kill(process, signal.SIGSTOP)
        try:
            clock = asyncio.get_running_loop().time
            begun = clock()
            during = [await one.ask(length) for length in (2, 3, 4, 5)]
            assert clock() - begun < 10.0
            assert [record["kept"] for record in during] == [False] * 4
            repeated = await one.ask(1)
            assert (repeated["id"], repeated["kept"]) == (before["id"], True)
            page = await one.http.get("/ui")
            assert page.status_code == 200
            assert "cannot be read just now" in page.text
            assert (await one.http.get("/v1/analyses")).status_code == 503
        finally:
            for process in everyone:
                os.kill(process, signal.SIGCONT)
        await until(lambda: healthy(one), 30.0)
        assert set(await one.listed()) == {before["id"], *(record["id"] for record in during)}


def postmaster_of(url: str) -> int:
    folder = Path(parse_qs(urlsplit(url).query)["host"][0])
    there = [
        data
        for data in (folder, *folder.parents, folder.parent / "data")
        if (data / "postmaster.pid").exists()
    ]
    return int((there[0] / "postmaster.pid").read_text().split()[0])


def descendants(pid: int) -> list[int]:
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid, *(one for child in children for one in descendants(child))]


async def test_what_cannot_come_back_by_itself_ends_the_start(tmp_path, backend):
    """A file of something else, or a key in the clear's place: an operator has to act, and is told how."""
    (tmp_path / "other.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnusableError):
        async with replica(f"sqlite:///{tmp_path}/other.db", backend):
            pass
    with pytest.raises(ConfigurationError, match="CERT_ANALYSES_KEY"):
        load_settings({"CERT_ANALYSES_DATABASE_URL": "sqlite:////tmp/x.db"})
    given = {"CERT_ANALYSES_DATABASE_URL": "sqlite:////tmp/x.db", "CERT_ANALYSES_KEY": KEY}
    more = {"CERT_ANALYSES_RETENTION_HOURS": "2", "CERT_ANALYSES_MOST": "5"}
    keeping = options_of(load_settings(given | more)).keeping
    assert keeping is not None
    assert (keeping.retention_seconds, keeping.most) == (7200.0, 5)
    assert KEY not in repr(keeping)
    assert options_of(load_settings({})).keeping is None


async def test_a_database_that_is_out_at_the_start_is_waited_for(backend):
    """Traffic goes through this service: a replica must not stay away since a list cannot be written."""
    nobody = "postgresql://nobody@127.0.0.1:9/none"
    async with replica(nobody, backend, wait_seconds=0.5) as one:
        assert (await one.ask(3))["kept"] is False
        assert (await one.get("/health"))["checks"]["analyses"]["code"] == "not_kept"
