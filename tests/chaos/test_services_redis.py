"""Two replicas of the Coordination service that share a real Redis and a database."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cert.testing import FaultServer, ok

pytestmark = [pytest.mark.system, pytest.mark.slow]

KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


@contextlib.contextmanager
def replica(folder: Path, number: int, **environ: str) -> Iterator[str]:
    """Run one, and yield its address."""
    with (folder / f"{number}.log").open("w+") as log:
        command = [sys.executable, "-c", "from cert.cli.main import main; main()", "serve", "coordination"]
        process = subprocess.Popen(
            [*command, "--port", "0", "--metrics-port", "0"],
            env=os.environ | environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 60
            while True:
                told = (folder / f"{number}.log").read_text()
                url = next((line.split()[-1] for line in told.splitlines() if line.startswith("CERT ")), None)
                if url is not None:
                    break
                assert process.poll() is None, told
                assert time.monotonic() < deadline, told
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def measured(url: str, number: int) -> dict[str, Any]:
    """Measure, and wait for the end."""
    tasks = [{"text": f"{number}: what is {n} and {n}?", "references": ["42"]} for n in range(4)]
    job = {"tasks": tasks, "systems": ["vote"]}
    identifier = httpx2.post(f"{url}/v1/measurements", json=job, timeout=30).json()["id"]
    deadline = time.monotonic() + 60
    while True:
        found: dict[str, Any] = httpx2.get(f"{url}/v1/measurements/{identifier}", timeout=30).json()
        if found["state"] not in ("queued", "running"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_replicas_share_one_budget_through_redis(durable_redis, tmp_path):
    """Two replicas with a dollar each would spend two: the limit is of both together, to the micro-dollar."""
    environ = {
        "CERT_DATABASE_URL": f"sqlite:///{tmp_path}/jobs.db",
        "CERT_JOBS_KEY": KEY,
        "CERT_REDIS_URL": durable_redis.url,
        "CERT_PRICES": "scripted=1000/1000",
        "CERT_REQUESTS_PER_MINUTE": "100000",
        "CERT_MAX_COST_PER_HOUR": "1.5",
        "CERT_LOG_LEVEL": "warning",
    }
    with FaultServer(lambda _: ok("42"), input_price=Decimal(1000), output_price=Decimal(1000)) as vendor:
        environ["CERT_MODELS"] = f"openai:scripted@{vendor.url}/v1"
        with replica(tmp_path, 0, **environ) as first, replica(tmp_path, 1, **environ) as second:
            states = [measured((first, second)[number % 2], number) for number in range(12)]
            budgets = [httpx2.get(f"{url}/v1/budget", timeout=30).json() for url in (first, second)]
        billed = Decimal(vendor.account.micro_dollars) / 1_000_000
    spent = [Decimal(one["spent"]) for one in states]
    assert max(spent) > 0
    assert min(spent) == 0, "the budget was never reached: the test says nothing"
    assert sum(spent) == billed
    assert billed <= Decimal("1.5")
    assert budgets[0]["spent_in_hour"] == budgets[1]["spent_in_hour"]
    assert Decimal(budgets[0]["spent_in_hour"]) == billed
