"""What must never be written anywhere: keys and prompts, whatever goes wrong with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request
from prometheus_client import generate_latest
from starlette.responses import StreamingResponse

from cert.core.config import ServiceSettings, Settings
from cert.observability.logging import configure_logging
from cert.services.common.app import create_base
from cert.services.common.correlation import outgoing_headers
from cert.services.common.keys import KeyFile, new_key
from cert.services.common.sse import Event, event_stream

PROMPT = "grandmother's recipe for plum jam"


@contextlib.asynccontextmanager
async def nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


def an_app(**service) -> FastAPI:
    router = APIRouter()

    @router.post("/v1/fail")
    async def fail(request: Request) -> None:
        raise KeyError((await request.body()).decode())

    @router.post("/v1/half")
    async def half(request: Request) -> StreamingResponse:
        prompt = (await request.body()).decode()

        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            raise ValueError(prompt)

        return StreamingResponse(parts())

    @router.post("/v1/half-events")
    async def half_events(request: Request):
        prompt = (await request.body()).decode()

        async def made() -> AsyncIterator[Event]:
            yield Event("begun", {})
            raise ValueError(prompt)

        return event_stream(made())

    @router.get("/v1/forever")
    async def forever():
        async def made() -> AsyncIterator[Event]:
            while True:
                yield Event("tick", {})
                await asyncio.sleep(0.05)

        return event_stream(made())

    @router.get("/v1/onwards")
    async def onwards() -> dict[str, str]:
        return outgoing_headers()

    settings = Settings(service=ServiceSettings(**service))
    return create_base(settings, title="t", description="d", routers=[router], lifespan=nothing)


@pytest.fixture
def log(tmp_path, monkeypatch) -> Iterator[Path]:
    """The log of everything, at the level that says most."""
    path = tmp_path / "cert.log"
    monkeypatch.setattr(logging.getLogger("httpx2"), "disabled", True)  # the test's own client
    restore = configure_logging("debug", "json", "file", path, library_level="debug")
    yield path
    restore()


def test_keys_and_prompts_are_written_nowhere(serving, tmp_path, log):
    """A backup of the logs would hold everybody's texts, and the keys to more of them."""
    file = KeyFile(tmp_path / "keys.json")
    secret, key = new_key("acme")
    file.write((key,))
    wrong = "cert_" + "W" * 43
    app = an_app(api_keys_file=file.path)
    live = serving(app)
    body = f'"{PROMPT}"'.encode()
    told = []
    with live.client(headers={"Authorization": f"Bearer {secret}"}) as client:
        told.append(client.post("/v1/fail", content=body))
        told.append(client.post("/v1/half-events", content=body))
        told.append(client.post("/v1/nowhere/" + wrong, params={"prompt": PROMPT}, content=body))
        with contextlib.suppress(httpx2.HTTPError):
            told.append(client.post("/v1/half", content=body))
        told.append(client.get("/v1/onwards", headers={"Authorization": f"Bearer {wrong}"}))
        told.append(client.get("/v1/onwards", headers={"X-Request-ID": f"{PROMPT}\x1b[31m"}))
        told.append(client.post("/ui/session", json={"key": wrong}))
        told.append(client.post("/ui/session", json={"key": [secret]}))
    logging.getLogger().handlers[-1].flush()
    written = log.read_text() + generate_latest(app.state.base.registry).decode()
    assert "request_failed" in written
    assert "stream_failed" in written
    assert told[1].text.count("event: error") == 1
    for answer in told:
        written += answer.text
    for word in (secret, secret[5:], wrong, "plum jam", "recipe"):
        assert word not in written, word


def test_a_stream_whose_time_is_over_ends_between_two_events(serving):
    """A reader could not tell an end from a broken line, and would show half an event."""
    live = serving(an_app(stream_seconds=0.5))
    with live.client() as client:
        text = client.get("/v1/forever").text
    assert text.endswith("\n\n")
    assert 3 < text.count("event: tick") < 30


def test_a_request_takes_its_ids_on_to_the_servers_that_are_called(serving):
    """Nobody could follow a request through an engine's traces."""
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    live = serving(an_app())
    with live.client() as client:
        sent = {"X-Request-ID": "order-17", "traceparent": f"00-{trace}-{span}-01"}
        on = client.get("/v1/onwards", headers=sent).json()
        assert on["X-Request-ID"] == "order-17"
        assert on["traceparent"].split("-")[1] == trace
        assert on["traceparent"].split("-")[2] != span
        own = client.get("/v1/onwards").json()
        assert own["traceparent"].split("-")[1] == own["X-Request-ID"]
        named = client.get("/v1/onwards", headers={"X-Request-ID": "order-18"}).json()
        assert "traceparent" not in named
    assert outgoing_headers() == {}


def test_traces_hold_no_text_of_an_exception(serving):
    """The tracing system would hold the prompts that the logs do not."""
    logs = pytest.importorskip("opentelemetry.sdk._logs")
    export = pytest.importorskip("opentelemetry.sdk._logs.export")
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    spans = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    processors = pytest.importorskip("opentelemetry.sdk.trace.export")
    app = an_app()
    kept, made = export.InMemoryLogRecordExporter(), spans.InMemorySpanExporter()
    logger, tracer = logs.LoggerProvider(), trace.TracerProvider()
    logger.add_log_record_processor(export.SimpleLogRecordProcessor(kept))
    tracer.add_span_processor(processors.SimpleSpanProcessor(made))
    app._native_telemetry.config |= {"logger_provider": logger, "tracer_provider": tracer}
    live = serving(app)
    with live.client() as client:
        client.post("/v1/fail", content=f'"{PROMPT}"'.encode())
    assert made.get_finished_spans()
    told = "".join(span.to_json() for span in made.get_finished_spans())
    told += "".join(record.log_record.to_json() for record in kept.get_finished_logs())
    assert "plum jam" not in told
