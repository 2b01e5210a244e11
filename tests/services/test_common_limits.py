"""What a request may cost, tried over real sockets where that matters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Body, FastAPI

from cert.core.config import ServiceSettings, Settings
from cert.core.correlation import correlation_id
from cert.core.errors import InputError, OverloadedError, ResourceError, StoreError
from cert.services.common.app import create_base
from cert.services.common.sse import Event, event_stream

SECRET = "the prompt that nobody may see"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@contextlib.asynccontextmanager
async def nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


class Probe:
    """What the routes of the test app saw."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.produced = 0
        self.release = asyncio.Event()


def an_app(probe: Probe | None = None, **service) -> FastAPI:
    router = APIRouter()
    probe = probe or Probe()

    @router.post("/v1/echo")
    async def echo(data: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return {"keys": len(data), "id": correlation_id()}

    @router.get("/v1/slow")
    async def slow(seconds: float) -> dict[str, Any]:
        await asyncio.sleep(seconds)
        return {}

    @router.get("/v1/fail/{kind}")
    async def fail(kind: str) -> dict[str, Any]:
        if kind == "input":
            raise InputError("the prompt is empty", hint="write one")
        if kind == "busy":
            raise OverloadedError("too many requests", retry_after=7.2)
        if kind == "resource":
            raise ResourceError(f"/secret/path and {SECRET}")
        if kind == "store":
            raise StoreError(f"postgresql://user:password@host and {SECRET}")
        raise RuntimeError(SECRET)

    @router.get("/v1/events")
    async def events(size: int = 10, count: int = 3, pause: float = 0.0):
        async def made():
            try:
                for number in range(count):
                    probe.produced += 1
                    await asyncio.sleep(pause)
                    yield Event("tick", {"number": number, "pad": "x" * size}, id=str(number))
            finally:
                probe.closed.set()

        return event_stream(made(), heartbeat=0.2)

    @router.get("/v1/broken-events")
    async def broken():
        async def made():
            yield Event("tick", {})
            raise InputError("half way")

        return event_stream(made())

    settings = Settings(service=ServiceSettings(**service))
    return create_base(settings, title="t", description="d", routers=[router], lifespan=nothing)


def talk(port: int, data: bytes, *, seconds: float = 10.0) -> bytes:
    """Send bytes and return what comes until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(data)
        parts = []
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                parts.append(part)
    return b"".join(parts)


def post(body: bytes, *headers: str) -> bytes:
    lines = [
        "POST /v1/echo HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        "Connection: close",
    ]
    return ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def small(serving):
    """A service with small limits."""
    return serving(an_app(max_body_bytes=1_000, body_seconds=0.5, request_seconds=0.5), head_seconds=0.5)


@pytest.mark.parametrize(("body", "code"), [
    (b'{"a": NaN}', "invalid_json"),
    (b'{"a": Infinity}', "invalid_json"),
    (b'{"a": 1e999}', "invalid_json"),
    (b'{"a": ' + b"[" * 480 + b"]" * 480 + b"}", "invalid_json"),
    (b'{"a": "\xff"}', "invalid_json"),
    (b"{", "invalid_json"),
    (b"", "invalid_request"),
    (b"[]", "invalid_request"),
])  # fmt: skip
def test_what_is_no_json_is_refused(serving, body, code):
    """A number that is none would become a result, and a deep nest a crash."""
    live = serving(an_app())
    if code == "invalid_json" and b"[[[" in body:
        body = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = talk(live.port, post(body, f"Content-Length: {len(body)}"))
    assert status(answer) in (400, 422)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == code


def test_a_body_that_is_too_large_is_refused_declared_or_not(small):
    """Memory would be anybody's to fill."""
    assert status(talk(small.port, post(b"", "Content-Length: 999999999"))) == 413
    assert status(talk(small.port, post(b"", "Content-Length: 9" + "9" * 30))) in (400, 413)
    chunks = b"".join(b"200\r\n" + b"a" * 512 + b"\r\n" for _ in range(4)) + b"0\r\n\r\n"
    assert status(talk(small.port, post(chunks, "Transfer-Encoding: chunked"))) == 413


def test_a_compressed_body_is_not_read(small):
    """A few kilobytes would unfold to gigabytes."""
    assert status(talk(small.port, post(b"x", "Content-Length: 1", "Content-Encoding: gzip"))) == 415


def test_headers_that_are_too_many_or_too_long_are_refused(small):
    """Each would be kept until the request ends."""
    many = [f"X-{number}: {'a' * 300}" for number in range(120)]
    assert status(talk(small.port, post(b"{}", "Content-Length: 2", *many))) in (400, 431)
    endless = b"GET /v1/slow HTTP/1.1\r\nX: " + b"a" * 200_000
    assert status(talk(small.port, endless)) in (400, 431)


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"POST /v1/echo HTTP/1.1\r\nHost: a\r\n"])
def test_a_connection_that_never_says_what_it_wants_ends(small, head):
    """A few thousand of them would lock everybody else out (slowloris)."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(100) in (b"",)
    assert time.monotonic() - begun < 5.0


def test_a_slow_body_ends(small):
    """The same with the body."""
    answer = talk(small.port, post(b'{"a', "Content-Length: 100"))
    assert status(answer) == 408


def test_a_second_head_that_stays_half_ends_too(small):
    """The same on a connection that is kept open."""
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert status(answer) == 200
        connection.sendall(b"GET /heal")
        assert connection.recv(100) == b""


def test_an_answer_that_does_not_begin_in_time_is_a_504(small):
    """A stuck route would hold its place for good."""
    with small.client() as client:
        answer = client.get("/v1/slow", params={"seconds": 30})
    assert answer.status_code == 504
    assert answer.json()["code"] == "deadline_exceeded"


def test_places_and_queue_are_bounded(serving):
    """Under load everything would become slow instead of some being told to come back."""
    live = serving(an_app(max_concurrent=1, max_queue=1))
    codes = []

    def ask() -> None:
        with live.client() as client:
            answer = client.get("/v1/slow", params={"seconds": 1.0})
            codes.append((answer.status_code, answer.headers.get("retry-after")))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    with live.client() as client:
        assert client.get("/health/live").status_code == 200
    for thread in threads:
        thread.join()
    assert sorted(codes) == [(200, None)] * 2 + [(503, "1")] * 3


def test_streams_are_counted_apart_and_bounded(serving):
    """A few open pages would take every place."""
    live = serving(an_app(max_concurrent=1, max_queue=0, max_streams=2))
    with contextlib.ExitStack() as exits:
        client = exits.enter_context(live.client())
        for _ in range(2):
            stream = exits.enter_context(client.stream("GET", "/v1/events?count=1000&pause=0.05"))
            assert stream.status_code == 200
        assert client.get("/v1/events").status_code == 503
        assert client.get("/v1/slow", params={"seconds": 0}).status_code == 200
    deadline = time.monotonic() + 5
    with live.client() as client:
        while client.get("/v1/events").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client.get("/v1/events").status_code == 200


def test_a_reader_that_goes_away_ends_the_source(serving):
    """A generation would go on, and be paid for, for nobody."""
    probe = Probe()
    live = serving(an_app(probe))
    with live.client() as client, client.stream("GET", "/v1/events?count=100000&pause=0.02") as stream:
        next(stream.iter_lines())
    assert probe.closed.wait(5.0)


def test_a_slow_reader_fills_nothing(serving):
    """One who reads nothing would have everything kept for him."""
    probe = Probe()
    live = serving(an_app(probe))
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(b"GET /v1/events?count=100000&size=10000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        connection.recv(100)
        time.sleep(1.0)
        first = probe.produced
        time.sleep(0.5)
        assert probe.produced == first < 5_000
    assert probe.closed.wait(5.0)


def test_events_come_with_ids_heartbeats_and_an_error_as_the_last(serving):
    """A page could neither resume, nor tell silence from a broken line, nor say what went wrong."""
    live = serving(an_app())
    with live.client() as client:
        text = client.get("/v1/events?count=2&pause=0.5").text
        assert text.count(": still here") >= 2
        assert 'id: 0\nevent: tick\ndata: {"number":0' in text
        last = client.get("/v1/broken-events").text.split("\n\n")[-2]
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.partition("data: ")[2])["code"] == "input"


def test_errors_are_problems_and_tell_nothing_of_ours(serving, caplog, capsys):
    """Paths, passwords and prompts would go to whoever makes the service fail."""
    live = serving(an_app())
    with live.client() as client:
        answers = {
            kind: client.get(f"/v1/fail/{kind}") for kind in ("input", "busy", "resource", "store", "x")
        }
    found = {kind: (answer.status_code, answer.json()["code"]) for kind, answer in answers.items()}
    assert found == {
        "input": (422, "input"), "busy": (503, "overloaded"), "resource": (503, "resource"),
        "store": (503, "store"), "x": (500, "internal"),
    }  # fmt: skip
    assert answers["busy"].headers["retry-after"] == "8"
    for answer in answers.values():
        assert answer.headers["content-type"] == "application/problem+json"
        assert not [word for word in (SECRET, "secret", "password") if word in answer.text]
        assert answer.json()["correlation_id"] == answer.headers["x-request-id"]
    logged = caplog.text + "".join(capsys.readouterr())
    assert "RuntimeError" in logged
    assert SECRET not in logged


def test_what_does_not_validate_is_named_and_not_repeated(serving):
    """A prompt with one wrong field would be in the logs of every proxy."""
    live = serving(an_app())
    with live.client() as client:
        answer = client.post("/v1/echo", content=json.dumps([SECRET]).encode())
        assert answer.status_code == 422
        assert SECRET not in answer.text
        assert client.get("/v1/slow", params={"seconds": SECRET}).status_code == 422
        assert client.get("/nowhere").json()["code"] == "not_found"
        assert client.delete("/v1/echo").json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(("sent", "taken"), [
    ({"X-Request-ID": "order-17"}, "order-17"),
    ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
    ({"X-Request-ID": "a b<script>"}, None),
    ({"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"}, None),
    ({}, None),
])  # fmt: skip
def test_a_request_keeps_its_id_if_it_is_a_safe_one(serving, sent, taken):
    """Nobody could follow a request through two systems, or anybody could write into the log."""
    live = serving(an_app())
    with live.client() as client:
        answer = client.post("/v1/echo", json={}, headers=sent)
    identifier = answer.headers["x-request-id"]
    assert answer.json()["id"] == identifier
    assert identifier == taken if taken else len(identifier) == 32


def test_every_answer_makes_a_browser_careful(serving):
    """A page of ours could be framed, or a report of hostile text run as a script."""
    live = serving(an_app())
    with live.client() as client:
        answers = [client.get("/health"), client.get("/nowhere"), client.get("/v1/fail/x")]
        answers.append(client.post("/v1/echo", content=b"{"))
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        answers.append(client.request("OPTIONS", "/v1/echo", headers=preflight))
    for answer in answers:
        assert "unsafe-inline" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


def test_metrics_know_routes_and_no_paths(serving):
    """Whoever asks for a million paths would fill the monitoring system."""
    app = an_app()
    live = serving(app)
    with live.client() as client:
        client.get("/v1/fail/input")
        for number in range(5):
            client.get(f"/nowhere/{number}")
    registry = app.state.base.registry
    routes = {
        sample.labels["route"]
        for family in registry.collect()
        for sample in family.samples
        if "route" in sample.labels
    }
    assert routes == {"/v1/fail/{kind}", "unmatched"}


def test_a_lie_about_the_protocol_is_no_answer(serving):
    """Garbage must not be a 500, nor end the service."""
    live = serving(an_app())
    for data in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        answer = talk(live.port, data, seconds=20)
        assert answer == b"" or status(answer) in (400, 421)
    assert httpx2.get(f"{live.url}/health/live").status_code == 200
