"""Chats that are being streamed when the service is told to end, with the real process and its signal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import pytest
from tests.services.test_passthrough_sockets import Endless

from cert.testing import FaultServer, Reply, Token

pytestmark = pytest.mark.slow

PROGRAM = [
    *(sys.executable, "-c", "from cert.cli.main import main; main()", "serve", "hamiltonian"),
    *("--port", "0", "--metrics-port", "0"),
]
SECONDS = 6.0
CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}

# The reference model answers within a second; each of its steps takes longer here.
SLOW = """
import time
from cert.backends.local import LocalBackend
from cert.core.config import ServiceSettings, Settings
from cert.services.common.running import serve
from cert.services.hamiltonian.app import create_app
from cert.trajectory.api import HamiltonianMonitor

backend = LocalBackend.load("reference")
forward = backend.model.forward

def paced(*arguments, **options):
    time.sleep(0.1)
    return forward(*arguments, **options)

backend.model.forward = paced
settings = Settings(service=ServiceSettings(shutdown_seconds=%s))
app = create_app(settings, monitors={"reference": HamiltonianMonitor(backend=backend)})
serve(app, port=0, metrics_port=0, ready=lambda at: print("CERT hamiltonian:", at.url, flush=True))
"""


@contextlib.contextmanager
def served(
    program: Sequence[str] = PROGRAM, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The service as its operator starts it, and its address."""
    settings = {"CERT_SHUTDOWN_SECONDS": f"{SECONDS:g}", **environment}
    process = subprocess.Popen(
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
    )
    try:
        read: list[str] = []
        assert process.stdout is not None
        found = None
        while found is None:
            line = process.stdout.readline()
            assert line, read
            read.append(line)
            found = re.search(r"CERT hamiltonian: (http://\S+)", line)
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def told_to_end(process: subprocess.Popen[str], url: str, body: dict[str, Any]) -> tuple[list[Any], float]:
    """Every event of a chat during which SIGTERM comes, and how long the end took."""
    seen: list[Any] = []
    begun = threading.Event()

    def read() -> None:
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:]) if line != "data: [DONE]" else "[DONE]")
                    begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    at = time.monotonic()
    process.send_signal(signal.SIGTERM)
    reader.join(30)
    process.communicate(timeout=30)
    assert not reader.is_alive()
    return seen, time.monotonic() - at


def is_cut_short(last: dict[str, Any]) -> bool:
    return bool(last["error"]["code"] == "overloaded" and last["cert"]["verdict"] == "not_measured")


def words(count: int, delay: float) -> Reply:
    return Reply(tokens=tuple(Token("word ", -0.1) for _ in range(count)), token_delay=delay)


@pytest.mark.parametrize("pause", [0.02, 60.0], ids=["it goes on", "it is silent"])
def test_a_chat_of_an_engine_that_has_no_end_is_told_of_the_shutdown(pause):
    """A client would take half an answer for a whole one, or wait until its own time is over."""
    engine = Endless(8, pause)
    with contextlib.closing(engine), served(CERT_UPSTREAM_URL=engine.url) as (process, url):
        seen, seconds = told_to_end(process, url, CHAT | {"model": "m"})
        assert engine.left.wait(10) or pause > 1, "the engine goes on for nobody"
    assert is_cut_short(seen[-1])
    assert seen[:-1]
    assert all("error" not in one for one in seen[:-1])
    assert process.returncode == 0
    assert SECONDS / 2 <= seconds < SECONDS


def test_a_chat_of_an_engine_that_ends_in_time_is_whole():
    """Each roll-out would spoil the answers that are on their way."""
    with (
        FaultServer(otherwise=words(40, 0.03)) as engine,
        served(CERT_UPSTREAM_URL=f"{engine.url}/v1") as (process, url),
    ):
        seen, _ = told_to_end(process, url, CHAT | {"model": "m"})
    assert seen[-1] == "[DONE]"
    assert "cert" in seen[-2]
    assert process.returncode == 0


def test_a_chat_of_a_model_in_process_is_told_too():
    """Its caller would see a connection that breaks, with no word of why."""
    with served([sys.executable, "-c", SLOW % SECONDS]) as (process, url):
        body = CHAT | {"model": "reference", "max_tokens": 400, "temperature": 5.0, "seed": 1, "n": 2}
        seen, seconds = told_to_end(process, url, body)
    assert is_cut_short(seen[-1])
    assert all("error" not in one for one in seen[:-1])
    assert process.returncode == 0
    assert SECONDS / 2 <= seconds < SECONDS
