"""Health, to whoever asks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI

from cert.core.config import ServiceSettings, Settings
from cert.core.errors import StoreError
from cert.core.health import HealthRegistry
from cert.observability.catalogue import HTTP_CATALOGUE
from cert.services.common.app import create_base
from cert.services.common.keys import KeyFile, new_key


@contextlib.asynccontextmanager
async def nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


def a_client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1")


def an_app(health: HealthRegistry, **service) -> FastAPI:
    settings = Settings(service=ServiceSettings(**service))
    return create_base(settings, title="t", description="d", routers=[], lifespan=nothing, health=health)


@pytest.mark.anyio
async def test_probes_need_no_key_and_learn_no_secret(tmp_path):
    """A probe has no key; and a check that quotes an error would show a password to the network."""
    file = KeyFile(tmp_path / "keys.json")
    file.write((new_key("acme")[1],))
    health = HealthRegistry(cache_seconds=0)

    def store() -> None:
        raise StoreError("postgresql://user:password@db.internal/cert refuses")

    health.register("store", store)
    async with a_client(an_app(health, api_keys_file=file.path)) as client:
        assert (await client.get("/health/live")).status_code == 200
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json() == {"schema_version": 1, "status": "unhealthy", "ready": False}
        whole = await client.get("/health")
        assert whole.json()["checks"]["store"]["code"] == "store"
        assert "password" not in whole.text
        assert "db.internal" not in whole.text


@pytest.mark.anyio
async def test_a_part_that_is_not_critical_takes_no_requests_away():
    """A cache that is down would take every replica out of service."""
    health = HealthRegistry(cache_seconds=0)
    health.register("cache", lambda: False, critical=False)
    async with a_client(an_app(health)) as client:
        answer = await client.get("/health/ready")
        assert answer.status_code == 200
        assert answer.json()["status"] == "degraded"


@pytest.mark.anyio
async def test_the_metrics_of_requests_are_those_of_the_reference():
    """Who writes an alert by the reference would wait for a metric that is not there."""
    app = an_app(HealthRegistry())
    async with a_client(app) as client:
        await client.get("/health/live")
    shown = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in app.state.base.registry.collect()
        if family.name.startswith("cert_http")
    }
    assert shown == {metric.name for metric in HTTP_CATALOGUE}
