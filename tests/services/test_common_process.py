"""A service as its operator meets it: a process that starts, says where it is, and ends in time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

# A service of nothing but waiting: what a signal does to work in hand shows at once.
PROGRAM = """
import asyncio, contextlib, sys, time
from fastapi import APIRouter
from cert.core.config import ServiceSettings, Settings
from cert.core.errors import ModelNotFoundError
from cert.services.common.app import create_base
from cert.services.common.drain import drain_of
from cert.services.common.running import serve
from cert.services.common.sse import Event, event_stream

seconds, kind = float(sys.argv[1]), sys.argv[2]
router = APIRouter()

@router.get("/v1/slow")
async def slow(seconds: float) -> dict:
    await asyncio.sleep(seconds)
    return {"done": True}

@router.get("/v1/stuck")
def stuck() -> dict:
    time.sleep(60)
    return {}

@router.get("/v1/watch")
async def watch():
    async def forever():
        yield Event("begun", {})
        await asyncio.sleep(3600)
    return event_stream(forever(), drain=drain_of(app))

@contextlib.asynccontextmanager
async def lifespan(app):
    if kind == "broken":
        raise ModelNotFoundError("there is no model 'x'", hint="CERT_MODEL=reference")
    drain_of(app).tell(lambda: print("told", flush=True))
    yield
    print("closed", flush=True)

settings = Settings(service=ServiceSettings(shutdown_seconds=seconds, request_seconds=100))
app = create_base(settings, title="t", description="d", routers=[router], lifespan=lifespan)
try:
    serve(app, port=0, metrics_port=0, ready=lambda bound: print(bound.url, bound.metrics_url, flush=True))
except Exception as error:
    print("refused:", error, flush=True)
    sys.exit(2)
"""


@contextlib.contextmanager
def started(*command: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def waiting(seconds: float) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The program, the URL of its service and that of its metrics."""
    with started(sys.executable, "-c", PROGRAM, str(seconds), "well") as process:
        assert process.stdout is not None
        url, metrics = process.stdout.readline().split()
        yield process, url, metrics


def test_work_in_hand_is_finished_and_looking_on_is_ended():
    """Each roll-out would cut answers off, or wait for every open page."""
    with waiting(20) as (process, url, _), httpx2.Client(base_url=url, timeout=30) as client:
        with client.stream("GET", "/v1/watch") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: begun"
            found: list[httpx2.Response] = []
            asked = threading.Thread(
                target=lambda: found.append(httpx2.get(f"{url}/v1/slow?seconds=1.5", timeout=30))
            )
            asked.start()
            time.sleep(0.4)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            list(lines)  # it ends
            asked.join()
        assert found[0].json() == {"done": True}
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - begun < 8
    assert process.returncode == 0, err
    assert [line for line in out.splitlines() if line in ("told", "closed")] == ["told", "closed"]


def test_the_end_comes_in_time_whatever_is_stuck():
    """A thread that hangs would hold the process until it is killed, and its metrics and logs with it."""
    with waiting(2) as (process, url, _):

        def ask() -> None:
            with contextlib.suppress(httpx2.HTTPError):
                httpx2.get(f"{url}/v1/stuck", timeout=30)

        asked = threading.Thread(target=ask)
        asked.start()
        time.sleep(0.4)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert time.monotonic() - begun < 4.5
        asked.join()
    assert process.returncode == 137


def test_why_it_did_not_start_is_told_once_and_without_a_traceback():
    """The operator would search for one line in a page of frames."""
    with started(sys.executable, "-c", PROGRAM, "5", "broken") as process:
        out, err = process.communicate(timeout=60)
    assert out.strip() == "refused: there is no model 'x'"
    assert "Traceback" not in err
    assert process.returncode == 2


def test_metrics_are_on_a_port_of_their_own_and_not_on_the_services():
    """Whoever may use the service would see everybody's use of it."""
    with waiting(5) as (_, url, metrics):
        assert httpx2.get(f"{url}/v1/slow?seconds=0").status_code == 200
        text = httpx2.get(metrics).text
        assert 'cert_http_requests_total{method="GET",route="/v1/slow",status="2xx"} 1.0' in text
        assert "cert_build_info" in text
        assert httpx2.get(f"{url}/metrics").status_code == 404


@pytest.fixture
def cert(tmp_path: Path) -> list[str]:
    return [sys.executable, "-c", "from cert.cli.main import main; main()", "serve", "hamiltonian"]


def test_a_port_in_use_is_told_by_its_name(cert):
    """The operator would read a traceback of the event loop."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with started(*cert, "--port", str(port), "--metrics-port", "0") as process:
            _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in err.replace("\n", "")
    assert "CERT_PORT" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CERT_PORT", "http"),
        ("CERT_MAX_BODY_BYTES", "lots"),
        ("CERT_SHUTDOWN_SECONDS", "-1"),
        ("CERT_HOST", "0.0.0.0"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(cert, variable, value):
    """A service that runs on a default in its place is not the one that was configured."""
    with started(*cert, environment={**os.environ, variable: value}) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert variable in err


@pytest.mark.slow
def test_the_hamiltonian_service_says_where_its_page_is_and_how_it_is_protected(cert):
    """Whoever starts it for the first time would not know where to look, or who else may."""
    with started(*cert, "--port", "0", "--metrics-port", "0") as process:
        assert process.stdout is not None
        head = [process.stdout.readline() for _ in range(3)]
        url = re.search(r"http://[\d.:]+", head[0])
        assert url is not None, head
        assert f"{url[0]}/ui" in head[1]
        assert httpx2.get(f"{url[0]}/health/ready", timeout=30).json()["ready"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "no keys are configured" in err
