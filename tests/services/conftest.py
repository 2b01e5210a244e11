"""Services as their users meet them: over a socket, on a port of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from cert.services.common.protocol import guarded_protocol
from cert.services.common.running import ServiceServer, server_config


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    url: str
    port: int
    app: FastAPI
    server: uvicorn.Server

    def client(self, **options: Any) -> httpx2.Client:
        """A client of it; the caller closes it."""
        return httpx2.Client(base_url=self.url, timeout=30.0, **options)


@contextlib.contextmanager
def running(app: FastAPI, head_seconds: float = 15.0, **options: float) -> Iterator[Running]:
    """Serve an app on a free port of loopback with the protocol that `cert serve` uses.

    The times and numbers are those of `guarded_protocol`.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    port = listener.getsockname()[1]
    config = server_config(app)
    config.http = guarded_protocol(head_seconds, **options)  # type: ignore[arg-type]  # numbers, by name
    server = ServiceServer(config, app, shutdown_seconds=5.0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60.0
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started, "the service did not start"
    try:
        yield Running(f"http://127.0.0.1:{port}", port, app, server)
    finally:
        server.should_exit = True
        thread.join(15.0)
        listener.close()


@pytest.fixture
def serving() -> Iterator[Callable[..., Running]]:
    """Serve apps until the test ends."""
    with contextlib.ExitStack() as exits:
        yield lambda app, **options: exits.enter_context(running(app, **options))


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio alone."""
    return "asyncio"
