"""What somebody with a socket can do to a service, before or after any route is reached."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from cert.core.config import ServiceSettings, Settings
from cert.services.common.app import create_base
from cert.services.common.keys import KeyFile, new_key
from cert.services.common.sse import Event, event_stream

HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextlib.asynccontextmanager
async def nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


def an_app(gate: threading.Event | None = None, **service) -> FastAPI:
    router = APIRouter()

    @router.post("/v1/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @router.get("/v1/wait")
    def wait() -> dict[str, str]:
        assert gate is not None
        gate.wait(20)
        return {}

    @router.get("/v1/flood")
    async def flood() -> Response:
        async def much() -> AsyncIterator[Event]:
            while True:
                yield Event("x", "x" * 65_536)

        return event_stream(much())

    settings = Settings(service=ServiceSettings(**service))
    return create_base(settings, title="t", description="d", routers=[router], lifespan=nothing)


@contextlib.contextmanager
def connected(port: int, sent: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        connection.sendall(sent)
        yield connection


def all_of(connection: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def until(condition, seconds: float = 8.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_connections_are_bounded_and_the_next_one_is_told(serving):
    """A few thousand idle connections would end the process for want of file descriptors."""
    live = serving(an_app(), most_connections=3)
    with contextlib.ExitStack() as exits:
        for _ in range(3):
            connection = exits.enter_context(connected(live.port, LIVE))
            assert status(connection.recv(65_536)) == 200
        answer = all_of(exits.enter_context(connected(live.port)))
        assert status(answer) == 503
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "overloaded"
    assert until(lambda: not live.server.server_state.connections)
    with connected(live.port, LIVE) as connection:
        assert status(connection.recv(65_536)) == 200


def test_a_body_that_goes_on_after_its_answer_does_not_hold_the_connection(serving):
    """Whoever was refused could keep his connection with a byte now and then."""
    live = serving(an_app(max_body_bytes=1_000), head_seconds=60)
    with connected(live.port, HEAD + b"Content-Length: 100000000\r\n\r\n") as connection:
        assert status(connection.recv(65_536)) == 413
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < 8:
                connection.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - begun < 6


def test_the_answer_to_a_body_that_is_too_large_arrives(serving):
    """A client that sends all before it reads would see a broken connection, and try again."""
    live = serving(an_app(max_body_bytes=1_000))
    body = b'"' + b"x" * 3_000_000 + b'"'
    with live.client() as client:
        for _ in range(3):
            answer = client.post("/v1/echo", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 413
            assert answer.json()["code"] == "too_large"


def test_a_reader_that_takes_nothing_is_cut_off(serving):
    """Each would hold a stream, and what it looks at, for as long as he likes."""
    live = serving(an_app(), stalled_seconds=0.5)
    with connected(live.port, b"GET /v1/flood HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as connection:
        assert connection.recv(10)
        assert until(lambda: not live.server.server_state.tasks)
        assert not live.server.server_state.connections


def test_who_has_no_key_has_no_body_read(serving, tmp_path):
    """Everybody on the network could fill the memory and the places of those who have one."""
    file = KeyFile(tmp_path / "keys.json")
    secret, key = new_key("acme")
    file.write((key,))
    live = serving(an_app(api_keys_file=file.path))
    with connected(live.port, HEAD + b"Content-Length: 1000\r\n\r\n") as connection:
        assert status(connection.recv(65_536)) == 401  # at once, though the body has not come
    long = b"Authorization: Bearer " + secret.encode() + b"\r\n"
    with connected(
        live.port, HEAD + long + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    ) as connection:
        assert status(all_of(connection)) == 200


def test_a_tenant_leaves_room_in_the_queue(serving, tmp_path):
    """One customer's burst would turn all others away."""
    file = KeyFile(tmp_path / "keys.json")
    (greedy, first), (other, second) = new_key("greedy"), new_key("other")
    file.write((first, second))
    gate = threading.Event()
    live = serving(an_app(gate, api_keys_file=file.path, max_concurrent=1, max_queue=4))
    codes: dict[str, list[int]] = {greedy: [], other: []}

    def ask(secret: str) -> None:
        with live.client(headers={"Authorization": f"Bearer {secret}"}) as client:
            codes[secret].append(client.get("/v1/wait").status_code)

    threads = [threading.Thread(target=ask, args=(secret,)) for secret in [greedy] * 6 + [other]]
    for thread in threads:
        thread.start()
        time.sleep(0.15)
    gate.set()
    for thread in threads:
        thread.join(20)
    assert sorted(codes[greedy]) == [200, 200, 200, 429, 429, 429]
    assert codes[other] == [200]


@pytest.mark.parametrize(("data", "expected"), [
    (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n", 414),
    (b"GET /x?" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 20_000 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 200, 431),
    (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 500_000 + b"\r\n", 431),
    (HEAD + b"Content-Length: 1_0\r\n", 400),
    (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400),
    (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n", 400),
    (HEAD + b"Transfer-Encoding: gzip\r\n", 400),
    (HEAD + b"Content-Encoding: br\r\nContent-Length: 2\r\n", 415),
    (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", 404),
])  # fmt: skip
def test_a_head_that_is_too_much_or_says_two_things_is_refused(serving, data, expected):
    """A proxy and the service would read two different requests, or one would fill the memory."""
    live = serving(an_app())
    with connected(live.port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data + b"Connection: close\r\n\r\n{}")
        answer = all_of(connection)
    found = status(answer)
    assert found == expected or (found, expected) == (501, 400)
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("body", [
    b'{"a":' * 70 + b"1" + b"}" * 70, b"[" * 65 + b"]" * 65, b'"\\ud800"', b'{"a": -Infinity}',
    b"\xef\xbb\xbf{}",    b"[1e400]", b"{'a': 1}", b'{"a": 1} x', b'"\x00"', b"[01]",
])  # fmt: skip
def test_json_that_means_different_things_to_different_readers_is_refused(serving, body):
    """What was checked would not be what is worked on."""
    live = serving(an_app())
    with live.client() as client:
        answer = client.post("/v1/echo", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["code"] == "invalid_json"
        fine = b"[" * 63 + b"]" * 63
        assert client.post("/v1/echo", content=fine).content == fine
        wide = b"[" + b"[{}]," * 50_000 + b"1]"
        assert client.post("/v1/echo", content=wide).status_code == 200
