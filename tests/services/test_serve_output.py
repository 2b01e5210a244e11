"""What the services write beside their answers: where they are, and one line of JSON for each event."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import httpx2
import pytest

pytestmark = pytest.mark.slow

ASKED = {
    "hamiltonian": ("/v1/analyze", {"prompt": "Where?", "max_new_tokens": 4}),
    "coordination": (
        "/v1/measurements",
        {"tasks": [{"text": "Where?", "references": ["x"]}], "max_tokens": 4, "agents": 2},
    ),
}


@pytest.mark.parametrize("service", ASKED)
def test_a_model_that_is_loaded_draws_no_bar_into_the_log(service):
    """A collector of logs would take a progress bar for lines that it cannot read."""
    program = [sys.executable, "-c", "from cert.cli.main import main; main()", "serve", service]
    process = subprocess.Popen(
        [*program, "--port", "0", "--metrics-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split(": ")[1].strip()
        path, body = ASKED[service]
        with httpx2.Client(base_url=url, timeout=60) as client:
            answer = client.post(path, json=body)
            assert answer.status_code in (200, 202), answer.text
            deadline = time.monotonic() + 60
            while service == "coordination" and time.monotonic() < deadline:
                if client.get(answer.headers["Location"]).json()["state"] == "succeeded":
                    break
                time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    lines = [line for line in told.splitlines() if not line.startswith("  access")]
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)
