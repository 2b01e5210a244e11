"""The pass-through where callers leave, read slowly or not at all, and the engine falls silent."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import httpx2
import pytest

from cert.services.hamiltonian.app import create_app
from cert.services.hamiltonian.options import HamiltonianOptions, UpstreamOptions

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ENTRY = {"token": "word ", "logprob": -0.1, "bytes": None, "top_logprobs": []}


class Endless:
    """An engine that streams for as long as somebody reads, and knows how much it could send."""

    def __init__(self, size: int, pause: float) -> None:
        self._text, self._pause = "w" * size, pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.sent = 0
        self.begun, self.left = threading.Event(), threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
        except OSError:
            return

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            request = b""
            while b"\r\n\r\n" not in request or not request.endswith(b"}"):
                request += connection.recv(65536)
            self.begun.set()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            entry = ENTRY | {"token": self._text}
            choice = {"index": 0, "delta": {"content": self._text}, "logprobs": {"content": [entry]}}
            event = b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n"
            try:
                connection.sendall(head)
                while True:
                    connection.sendall(event)
                    self.sent += len(event)
                    if self._pause:
                        time.sleep(self._pause)
            except OSError:
                self.left.set()


@pytest.fixture
def endless():
    made: list[Endless] = []

    def make(size: int, pause: float) -> Endless:
        made.append(Endless(size, pause))
        return made[-1]

    yield make
    for one in made:
        one.close()


def service_before(serving, engine, mode="observe", **options):
    upstream = UpstreamOptions(engine.url, most_bytes=2**40, **options)
    return serving(create_app(monitors={}, options=HamiltonianOptions(upstream=upstream, mode=mode)))


@pytest.mark.parametrize("mode", ["observe", "hold"])
def test_a_caller_who_leaves_ends_the_engines_work(serving, endless, mode):
    """Nobody would read the answer, and the operator would pay for it to its end."""
    engine = endless(10, 0.01)
    running = service_before(serving, engine, mode)
    with running.client() as client, contextlib.suppress(httpx2.ReadTimeout):
        asked = BODY | {"stream": True}
        timeout = httpx2.Timeout(5.0, read=0.5)
        with client.stream("POST", "/v1/chat/completions", json=asked, timeout=timeout) as answer:
            assert mode == "observe"  # what is held back does not begin
            assert next(answer.iter_bytes())
    assert engine.begun.is_set()
    assert engine.left.wait(2.0)


def test_a_caller_who_leaves_while_the_engine_thinks_ends_its_work(serving):
    """A request that waits for its first byte would go on after its caller gave up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        engine = type("Silent", (), {"url": f"http://127.0.0.1:{listener.getsockname()[1]}/v1"})
        running = service_before(serving, engine)
        with running.client() as client, pytest.raises(httpx2.TimeoutException):
            client.post("/v1/chat/completions", json=BODY, timeout=httpx2.Timeout(5.0, read=0.3))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(3.0)
            while connection.recv(65536):  # the end of the connection, not only of the request
                pass


def test_a_slow_reader_slows_the_engine_and_fills_nothing(serving, endless):
    """A caller who reads nothing would have the whole answer pile up in this process."""
    engine = endless(16_000, 0.0)
    running = service_before(serving, engine)
    with socket.create_connection(("127.0.0.1", running.port)) as caller:
        body = json.dumps(BODY | {"stream": True}).encode()
        caller.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        assert engine.begun.wait(5.0)
        time.sleep(1.0)
        before = engine.sent
        time.sleep(0.7)
        assert engine.sent == before > 0
        assert before < 12 * 2**20  # the sockets' own buffers
        # Who begins to read gets it from there on.
        for _ in range(400):
            assert caller.recv(65536)
        deadline = time.monotonic() + 5.0
        while engine.sent == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.sent > before
    assert engine.left.wait(3.0)


def test_an_engine_that_falls_silent_is_told_of(serving):
    """A caller would wait for as long as the engine likes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        engine = type("Silent", (), {"url": f"http://127.0.0.1:{listener.getsockname()[1]}/v1"})
        running = service_before(serving, engine, silence_seconds=0.3)
        with running.client() as client:
            answer = client.post("/v1/chat/completions", json=BODY)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "upstream_timeout"
