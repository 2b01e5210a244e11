"""Replicas of the Hamiltonian service that keep analyses, in processes of their own, and die at work."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.unit.coordination.store.conftest import postgres_server, postgres_url  # noqa: F401  # fixtures

pytestmark = pytest.mark.slow

KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where replicas share analyses."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/analyses.db"
    return str(request.getfixturevalue("postgres_url"))


class Process:
    """``cert serve hamiltonian`` as an operator starts it."""

    def __init__(self, url: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CERT_")} | {
            "CERT_ANALYSES_DATABASE_URL": url,
            "CERT_ANALYSES_KEY": KEY,
            "CERT_METRICS_ENABLED": "false",
            "CERT_PRELOAD_MODELS": "true",
        }
        program = "from cert.cli.main import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", "hamiltonian", "--port", "0"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "http://" in line, line
        self.http = httpx2.Client(base_url="http://" + line.split("http://")[1].strip(), timeout=30.0)

    def ask(self, number: int) -> dict[str, Any]:
        body = {"prompt": f"Question {number}?", "max_new_tokens": 4}
        told: dict[str, Any] = self.http.post("/v1/analyze", json=body).raise_for_status().json()
        return told

    def end(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def replica(url: str) -> Iterator[Callable[[], Process]]:
    """Start replicas, and end them."""
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(url))
        return started[-1]

    yield start
    for process in started:
        process.end()


def test_what_was_acknowledged_is_there_after_a_kill(replica):
    """A caller who has an id will come back with a label, whatever happened to the process meanwhile."""
    first, second = replica(), replica()
    acknowledged: dict[int, dict[str, Any]] = {}

    def ask(start: int) -> None:
        for number in range(start, 100_000, 8):
            try:
                acknowledged[number] = first.ask(number)
            except httpx2.HTTPError:
                return

    clients = [threading.Thread(target=ask, args=(start,)) for start in range(8)]
    for client in clients:
        client.start()
    deadline = time.monotonic() + 60.0
    while len(acknowledged) < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    first.process.send_signal(signal.SIGKILL)
    for client in clients:
        client.join(30.0)
    assert len(acknowledged) >= 40
    assert all(record["kept"] for record in acknowledged.values())
    for replica_that_lives in (second, replica()):
        for record in acknowledged.values():
            found = replica_that_lives.http.get(f"/v1/analyses/{record['id']}").raise_for_status().json()
            assert found == record
    listed, cursor = [], None
    while True:
        page = second.http.get(
            "/v1/analyses", params={"limit": 50} | ({"cursor": cursor} if cursor else {})
        ).json()
        listed += [item["id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert len(listed) == len(set(listed))
    # Of answers that were on their way, each may be there without anybody having its id: one a client.
    assert {record["id"] for record in acknowledged.values()} <= set(listed)
    assert len(listed) <= len(acknowledged) + len(clients)


def test_a_label_counts_once_between_live_replicas(replica):
    """Clicks at two replicas at the same moment are one label."""
    first, second = replica(), replica()
    for number in range(5):
        place = f"/v1/analyses/{first.ask(number)['id']}/label"
        answers: list[int] = []
        barrier = threading.Barrier(2)

        def click(one: Process, place: str = place, answers: list[int] = answers, at: Any = barrier) -> None:
            at.wait()
            answers.append(one.http.post(place, json={"correct": True}).status_code)

        clicks = [threading.Thread(target=click, args=(one,)) for one in (first, second)]
        for one in clicks:
            one.start()
        for one in clicks:
            one.join(30.0)
        assert sorted(answers) == [200, 409]


def test_sigterm_loses_nothing(replica):
    """The end of a deployment: what is in hand is answered, kept and found at the next one."""
    first = replica()
    told = [first.ask(number) for number in range(5)]
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(30) == 0
    second = replica()
    assert [second.http.get(f"/v1/analyses/{record['id']}").json() for record in told] == told
