"""The Coordination service as its callers meet it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from cert.coordination.chat import ChatRequest
from cert.coordination.scripted import ScriptedChat
from cert.core.config import ServiceSettings, Settings, UpstreamSettings, load_settings
from cert.core.errors import ConfigurationError, StoreError
from cert.services.common.keys import KeyFile, new_key
from cert.services.coordination.app import create_app, when_there
from cert.services.coordination.options import CoordinationOptions, options_of

TASKS = [{"text": "What is 17 + 25?", "references": ["42"]}, {"text": "What is 9 * 8?", "references": ["72"]}]
BODY: dict[str, Any] = {"tasks": TASKS, "systems": ["vote"]}
pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def calling(app: FastAPI, key: str | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an app that runs."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 1))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client,
    ):
        yield client


def service(chat: ScriptedChat | None = None, **options: Any) -> FastAPI:
    chat = ScriptedChat(otherwise="42") if chat is None else chat
    return create_app(Settings(), clients={"scripted": chat}, options=CoordinationOptions(**options))


async def until(client: httpx2.AsyncClient, place: str, *states: str) -> dict[str, Any]:
    """Wait until a measurement is in a state."""
    for _ in range(400):
        told: dict[str, Any] = (await client.get(place)).json()
        if told["state"] in states:
            return told
        await asyncio.sleep(0.05)
    raise AssertionError(told)


async def measured(client: httpx2.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/measurements", json=BODY | more)
    assert answer.status_code == 202, answer.text
    return await until(client, answer.headers["Location"], "succeeded", "failed", "cancelled")


async def test_a_measurement_goes_from_a_request_to_a_report():
    """The whole way: asked for, followed, read as JSON and as a page, and paid for once."""
    async with calling(service()) as client:
        answer = await client.post("/v1/measurements", json=BODY | {"watch_drift": True})
        assert answer.status_code == 202
        place = answer.headers["Location"]
        assert answer.json()["state"] == "queued"
        told = (await client.get(f"{place}/events")).text
        assert told.startswith("id: 1\nevent: state\n")
        assert '"state":"succeeded"' in told.split("\n\n")[-2]
        job = (await client.get(place)).json()
        assert (job["done"], job["total"]) == (2, 2)
        assert job["summary"]["drift"] == "fed"
        result = (await client.get(f"{place}/result")).json()
        assert result["kind"] == "coordination_report"
        assert Decimal(result["spent"]) == Decimal(job["spent"]) > 0
        page = await client.get(f"{place}/report")
        assert page.text.startswith("<!doctype html>")
        assert "unsafe-inline" not in page.headers["Content-Security-Policy"]
        costs = (await client.get("/v1/costs")).json()
        assert costs["spent"] == job["spent"]
        assert sum(Decimal(item["spent"]) for item in costs["items"]) == Decimal(job["spent"])
        budget = (await client.get("/v1/budget")).json()
        assert budget["spent_in_total"] == job["spent"]
        assert [item["family"] for item in (await client.get("/v1/drift")).json()["items"]] == ["all"]
        baselines = (await client.get("/v1/baselines")).json()["items"]
        assert [item["against"] for item in baselines] == ["vote"]
        again = await measured(client)
        assert again["spent"] == "0.000000", "what was paid for before costs nothing"
        assert (await measured(client, fresh=True))["spent"] != "0.000000"


async def test_events_resume_after_the_last_one():
    """A page that lost its connection goes on where it was."""
    async with calling(service()) as client:
        job = await measured(client)
        place = f"/v1/measurements/{job['id']}/events"
        whole = (await client.get(place)).text
        rest = (await client.get(place, headers={"Last-Event-ID": "2"})).text
        assert whole.endswith(rest)
        assert rest.startswith("id: 3\n")
        assert (await client.get(place, headers={"Last-Event-ID": "9999"})).text == ""
        assert (await client.get(place, headers={"Last-Event-ID": "x"})).status_code == 422


async def test_a_key_that_is_sent_twice_makes_one_measurement():
    """A caller that tries again after a lost answer does not pay for a second measurement."""
    async with calling(service()) as client:
        key = {"Idempotency-Key": "once"}
        first = await client.post("/v1/measurements", json=BODY, headers=key)
        second = await client.post("/v1/measurements", json=BODY, headers=key)
        assert first.headers["Location"] == second.headers["Location"]
        other = await client.post("/v1/measurements", json=BODY | {"agents": 4}, headers=key)
        assert other.status_code == 409


async def test_cancelling_stops_paying_within_a_call():
    """Calls that are out may be billed; after the cancellation none begins."""
    begun = asyncio.Event()
    calls = 0

    async def slow(_request: ChatRequest) -> str:
        nonlocal calls
        calls += 1
        begun.set()
        await asyncio.sleep(0.05)
        return "42"

    async with calling(service(ScriptedChat(otherwise=slow))) as client:
        body = {"tasks": [{"text": f"What is {n}?", "references": ["1"]} for n in range(200)]}
        place = (await client.post("/v1/measurements", json=body)).headers["Location"]
        await asyncio.wait_for(begun.wait(), 10)
        answer = await client.post(f"{place}/cancel")
        assert answer.status_code == 202
        at = calls
        job = await until(client, place, "cancelled")
        assert job["cancel_requested"]
        assert calls == at
        assert (await client.post(f"{place}/cancel")).status_code == 202, "a second time changes nothing"
        assert (await client.get(f"{place}/result")).status_code == 409
        last = (await client.get(f"{place}/events")).text.split("\n\n")[-2]
        assert '"state":"cancelled"' in last


async def test_a_measurement_that_waits_is_cancelled_at_once_and_one_that_ended_is_not():
    """Races of a cancellation: before the start, and after the end."""
    chat = ScriptedChat(otherwise="42", latency=0.05)
    async with calling(service(chat, concurrent=1)) as client:
        first = (await client.post("/v1/measurements", json=BODY)).headers["Location"]
        second = (await client.post("/v1/measurements", json=BODY | {"seed": 1})).headers["Location"]
        assert (await client.post(f"{second}/cancel")).json()["state"] == "cancelled"
        await until(client, first, "succeeded")
        assert (await client.post(f"{first}/cancel")).status_code == 409
        assert (await client.get(second)).json()["started_at"] is None


async def test_one_tenant_sees_nothing_of_another(tmp_path):
    """Measurements, events, results, costs, budget, drift, baselines and paid answers are a tenant's own."""
    file = KeyFile(tmp_path / "keys.json")
    secrets = {}
    for tenant in ("acme", "other"):
        secrets[tenant], key = new_key(tenant)
        file.write((*file.read(), key))
    settings = Settings(service=ServiceSettings(api_keys_file=tmp_path / "keys.json"))
    app = create_app(
        settings, clients={"scripted": ScriptedChat(otherwise="42")}, options=CoordinationOptions()
    )
    async with calling(app, secrets["acme"]) as client:
        job = await measured(client, watch_drift=True)
        place = f"/v1/measurements/{job['id']}"
        theirs = {"Authorization": f"Bearer {secrets['other']}"}
        for path in ("", "/events", "/result", "/report"):
            assert (await client.get(place + path, headers=theirs)).status_code == 404
        assert (await client.post(f"{place}/cancel", headers=theirs)).status_code == 404
        for path in ("measurements", "baselines", "drift", "costs"):
            assert (await client.get(f"/v1/{path}", headers=theirs)).json()["items"] == []
            assert (await client.get(f"/v1/{path}")).json()["items"] != []
        assert (await client.get("/v1/budget", headers=theirs)).json()["spent_in_total"] == "0.000000"
        answer = await client.post("/v1/measurements", json=BODY, headers=theirs)
        client.headers.update(theirs)
        own = await until(client, answer.headers["Location"], "succeeded")
        assert own["spent"] == job["spent"], "whoever asked first is nobody's business"
        client.headers["Authorization"] = "Bearer cert_wrong"
        assert (await client.get(place)).status_code == 401


async def test_a_tenants_budget_ends_its_measurements_and_survives_a_restart(tmp_path):
    """No measurement spends more than the budget, also not after a restart that forgets nothing."""
    key = SecretStr(base64.b64encode(b"k" * 32).decode())
    options: dict[str, Any] = {
        "database_url": SecretStr(f"sqlite:///{tmp_path}/jobs.db"),
        "key": key,
        "total": 12_000,
    }
    body = BODY | {"max_tokens": 100}
    async with calling(service(**options)) as client:
        first = await client.post("/v1/measurements", json=body | {"fresh": True})
        job = await until(client, first.headers["Location"], "succeeded")
        assert job["spent"] != "0.000000"
    async with calling(service(**options)) as client:
        budget = (await client.get("/v1/budget")).json()
        assert budget["spent_in_total"] == job["spent"]
        assert (await client.get(first.headers["Location"])).json()["spent"] == job["spent"]
    poor = options | {"total": int(Decimal(job["spent"]) * 1_000_000) + 300}
    async with calling(service(**poor)) as client:
        poorer = (await client.post("/v1/measurements", json=body | {"fresh": True})).headers["Location"]
        ended = await until(client, poorer, "succeeded", "failed")
        stopped = (ended["summary"] or {}).get("stopped")
        assert stopped == "budget" or ended["error"]["code"] == "budget_exceeded"
        budget = (await client.get("/v1/budget")).json()
        assert Decimal(budget["spent_in_total"]) <= Decimal(budget["total"])


async def test_a_measurement_above_its_own_limit_is_refused_before_it_pays():
    """`max_cost` is kept by the estimate, before the first call."""
    chat = ScriptedChat(otherwise="42")
    async with calling(service(chat)) as client:
        job = await measured(client, max_cost="0.000100")
        assert job["state"] == "failed"
        assert job["error"]["code"] == "budget_exceeded"
        assert chat.requests == []


async def test_texts_are_encrypted_on_the_disk_and_stay_out_of_the_log(tmp_path, caplog):
    """Neither prompt nor answer nor result is readable in any file of the service, nor in what it logs."""
    caplog.set_level(logging.DEBUG)
    key = SecretStr(base64.b64encode(b"k" * 32).decode())
    chat = ScriptedChat(otherwise="the aardvark answers")
    body = {
        "tasks": [{"text": "Where is the aardvark?", "references": ["aardvark house"], "id": "aardvark-1"}]
    }
    app = service(chat, database_url=SecretStr(f"sqlite:///{tmp_path}/jobs.db"), key=key)
    async with calling(app) as client:
        job = await measured(client, **body)
        assert "aardvark" in (await client.get(f"/v1/measurements/{job['id']}/result")).text
        kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    kept += b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert job["id"].encode() in kept
    assert b"aardvark" not in kept
    assert "aardvark" not in caplog.text


async def test_answers_and_jobs_go_when_their_time_is_over(tmp_path):
    """Retention deletes: what is over is not there, not even its answers."""
    key = SecretStr(base64.b64encode(b"k" * 32).decode())
    options: dict[str, Any] = {"database_url": SecretStr(f"sqlite:///{tmp_path}/jobs.db"), "key": key}
    async with calling(service(**options, retention_seconds=0.8)) as client:
        job = await measured(client)
        assert job["state"] == "succeeded"
        for _ in range(100):
            if (await client.get(f"/v1/measurements/{job['id']}")).status_code == 404:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert (await client.get("/v1/measurements")).json()["items"] == []
        assert (await client.get("/v1/costs")).json()["spent"] == job["spent"], "what was spent stays known"
        assert (await measured(client))["spent"] == job["spent"], "the answers were deleted too"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "/etc/passwd"}, "a model that is not on the list, whatever it names"),
        ({"judge": "https://evil.example/v1"}, "an address"),
        ({"systems": ["nonsense"]}, "no strategy"),
        ({"systems": ["debate(rounds=1000000)"]}, "more rounds than anybody pays for"),
        ({"systems": ["vote", "vote"]}, "a system twice"),
        ({"tasks": [{"text": "no reference"}]}, "nothing that could score"),
        ({"tasks": [TASKS[0], TASKS[0]]}, "a task twice"),
        ({"tasks": []}, "no task"),
        ({"tasks": [{"text": " ", "references": ["1"]}]}, "an empty task"),
        ({"tasks": [{"text": "\ud800", "references": ["1"]}]}, "half of a character"),
        ({"agents": 1}, "no team"),
        ({"agents": "3"}, "text for a number"),
        ({"max_cost": "NaN"}, "no number"),
        ({"max_cost": 0}, "nothing"),
        ({"evaluator": "numeric", "judge": "scripted"}, "two that score"),
        ({"base_url": "http://evil.example"}, "a field that there is not"),
        ({"seed": -1}, "a number out of range"),
    ],
)
async def test_a_request_that_cannot_be_right_makes_no_measurement(change, why):
    """Whatever is wrong is told before there is a job, and before anything is paid."""
    async with calling(service()) as client:
        body = json.dumps(BODY | change)
        answer = await client.post(
            "/v1/measurements", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422), why
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (await client.get("/v1/measurements")).json()["items"] == []


async def test_a_failure_of_a_model_fails_the_measurement_and_quotes_nothing():
    """A job ends with a problem that programs can read, and the service goes on."""

    def broken(_request: ChatRequest) -> str:
        raise RuntimeError("secret of the vendor")

    async with calling(service(ScriptedChat(otherwise=broken))) as client:
        job = await measured(client)
        assert job["state"] == "failed"
        assert job["error"]["code"] == "internal"
        assert "secret" not in json.dumps(job)
        assert (await client.get("/health/ready")).status_code == 200


async def test_pages_and_states_of_the_list():
    """The list goes page by page, and by state."""
    async with calling(service()) as client:
        ids = [(await measured(client, seed=seed))["id"] for seed in range(3)]
        first = (await client.get("/v1/measurements", params={"limit": 2})).json()
        rest = (await client.get("/v1/measurements", params={"limit": 2, "cursor": first["next"]})).json()
        assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
        assert rest["next"] is None
        assert (await client.get("/v1/measurements", params={"state": "failed"})).json()["items"] == []
        assert (await client.get("/v1/measurements", params={"cursor": "!"})).status_code == 422


async def test_a_full_queue_is_told_with_the_time_to_come_back():
    """429 with Retry-After, and not an ever longer queue."""
    chat = ScriptedChat(otherwise="42", latency=5.0)
    async with calling(service(chat, queue=1, concurrent=1)) as client:
        first = (await client.post("/v1/measurements", json=BODY)).headers["Location"]
        await until(client, first, "running")
        await client.post("/v1/measurements", json=BODY | {"seed": 1})
        answer = await client.post("/v1/measurements", json=BODY | {"seed": 2})
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1


async def test_the_reference_model_measures_offline_and_health_says_what_is_missing():
    """Without settings, keys or network: a team of the reference model, and a degraded health."""
    app = create_app(Settings())
    async with calling(app) as client:
        health = (await client.get("/health")).json()
        assert health["status"] == "degraded"
        assert health["checks"]["anthropic"]["code"] == "no_anthropic_key"
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.get("/v1/models")).json()["items"] == [
            {"name": "reference", "default": True, "usable": True}
        ]
        body = {"tasks": [{"text": "Where was Nobody Known born?", "references": ["x"]}], "max_tokens": 8}
        place = (await client.post("/v1/measurements", json=body | {"agents": 2})).headers["Location"]
        job = await until(client, place, "succeeded", "failed")
        assert job["state"] == "succeeded"
        assert job["spent"] == "0.000000"


def test_models_of_the_settings_are_the_list_and_a_missing_key_is_told():
    """The operator's list is what may be asked for, by names that show neither folder nor host."""
    upstream = UpstreamSettings(anthropic_api_key=SecretStr("k"))
    found = options_of(Settings(upstream=upstream))
    assert [model.name for model in found.models] == ["reference", upstream.anthropic_model]
    sources = ("/models/secret/tiny", "openai:m@http://vllm:8000/v1", "anthropic:claude-x")
    listed = options_of(Settings(service=ServiceSettings(models=sources)))
    assert [model.name for model in listed.models] == ["tiny", "m", "claude-x"]
    assert [model.lacks_key for model in listed.models] == [False, False, True]


def test_prices_of_models_without_a_published_one_are_the_operators():
    """A server of one's own can be measured with; a price that is none stops the start."""
    environment = {"CERT_MODELS": "openai:m@http://vllm:8000/v1", "CERT_PRICES": "m=0.5/1.5"}
    price = options_of(load_settings(environment)).models[0].price
    assert price is not None
    assert (price.input, price.output) == (Decimal("0.5"), Decimal("1.5"))
    for wrong in ("m=1", "m=x/y", "1/2", "m=1/2,m=3/4"):
        with pytest.raises(ConfigurationError, match="CERT_PRICES"):
            options_of(load_settings(environment | {"CERT_PRICES": wrong}))


def test_a_database_without_a_key_does_not_start():
    """Texts are never kept in the clear: without a key there is no persistence."""
    with pytest.raises(ConfigurationError, match="JOBS_KEY"):
        load_settings({"CERT_DATABASE_URL": "sqlite:////tmp/x.db"})
    with pytest.raises(ConfigurationError):
        replace(CoordinationOptions(), database_url=SecretStr("sqlite:////tmp/x.db"))


@pytest.mark.anyio
async def test_a_database_that_comes_up_later_is_waited_for_and_one_that_does_not_is_told():
    """At the start of a whole stack the database is the slowest to come."""
    tries: list[int] = []

    async def prepare() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise StoreError("it is not there yet")

    await when_there(prepare, 10.0)
    assert len(tries) == 3

    async def never() -> None:
        raise StoreError("it is not there")

    with pytest.raises(StoreError):
        await when_there(never, 0.0)
