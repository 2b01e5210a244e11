"""Jobs of two replicas of the Coordination service, one of which is killed again and again.

    python benchmarks/service_jobs.py [--jobs 60] [--kills 6] [--out benchmarks/results/service_jobs.json]

Two `cert serve coordination` share one SQLite file and ask a scripted server of the OpenAI API, which
counts what it was asked. Jobs are sent over HTTP to both; the first replica is killed (SIGKILL) and started
anew while they run. Every job that was answered 202 has to end, once. Answers that were on their way when
their replica was killed are asked for anew: how many calls that is more than equal jobs make which nobody
kills, is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
from provenance import provenance
from service import free_port

from cert.testing import FaultServer, RecordedRequest, Reply, ok

KEY = base64.b64encode(b"k" * 32).decode()
UNDISTURBED = 4  # jobs before the kills, which tell how many calls one makes
SERVE = [sys.executable, "-c", "from cert.cli.main import main; main()", "serve", "coordination"]


def job(number: int) -> dict[str, Any]:
    tasks = [{"text": f"job {number}: what is {n} and {n}?", "references": ["42"]} for n in range(3)]
    return {"name": f"number {number}", "tasks": tasks, "systems": ["vote", "parallel"], "evaluator": "exact"}


class Replica:
    """One process of the service."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, or start it anew."""
        command = [*SERVE, "--port", str(self.port), "--metrics-port", "0"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, env=os.environ | self._environ, stdout=quiet, stderr=quiet)

    def kill(self) -> None:
        """End it as a machine does that fails."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """End it in order."""
        self._process.terminate()
        self._process.wait(60)


async def is_ready(client: httpx2.AsyncClient, replica: Replica) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            (await client.get(f"{replica.url}/health/ready")).raise_for_status()
            return
        except httpx2.HTTPError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def send(client: httpx2.AsyncClient, replicas: list[Replica], number: int) -> str:
    """Send one job until it is accepted; a replica that is being killed answers nothing."""
    while True:
        for replica in (replicas[number % 2], replicas[1]):
            try:
                answer = await client.post(f"{replica.url}/v1/measurements", json=job(number))
            except httpx2.TransportError:
                continue
            if answer.status_code == 202:
                return str(answer.json()["id"])
        await asyncio.sleep(0.2)


async def measure(jobs: int, kills: int) -> dict[str, Any]:
    asked: list[str] = []

    def reply(request: RecordedRequest) -> Reply:
        asked.append(request.path)
        return ok("42")

    with tempfile.TemporaryDirectory() as folder, FaultServer(reply) as vendor:
        environ = {
            "CERT_DATABASE_URL": f"sqlite:///{folder}/jobs.db",
            "CERT_JOBS_KEY": KEY,
            "CERT_MODELS": f"openai:scripted@{vendor.url}/v1",
            "CERT_PRICES": "scripted=1/1",
            "CERT_REQUESTS_PER_MINUTE": "1000000",
            "CERT_TOKENS_PER_MINUTE": "60000000",
            "CERT_LOG_LEVEL": "error",
        }
        replicas = [Replica(environ), Replica(environ)]
        try:
            async with httpx2.AsyncClient(timeout=30) as client:
                return await killed(client, replicas, jobs, kills, asked)
        finally:
            for replica in replicas:
                replica.end()


async def ended(client: httpx2.AsyncClient, replica: Replica, sent: list[str]) -> dict[str, str]:
    """Wait until all of these jobs have ended, and return how."""
    states: dict[str, str] = {}
    while len(states) < len(sent):
        for identifier in sent:
            if identifier not in states:
                found = (await client.get(f"{replica.url}/v1/measurements/{identifier}")).json()
                if found["state"] in ("succeeded", "failed", "cancelled"):
                    states[identifier] = found["state"]
        await asyncio.sleep(0.5)
    return states


async def killed(
    client: httpx2.AsyncClient,
    replicas: list[Replica],
    jobs: int,
    kills: int,
    asked: list[str],
) -> dict[str, Any]:
    await asyncio.gather(*(is_ready(client, replica) for replica in replicas))
    alone = [await send(client, [replicas[1]] * 2, jobs + number) for number in range(UNDISTURBED)]
    await ended(client, replicas[1], alone)
    each = len(asked) / UNDISTURBED
    begun, done = time.perf_counter(), asyncio.Event()

    async def killing() -> int:
        times = 0
        while times < kills and not done.is_set():
            await asyncio.sleep(1.5)
            replicas[0].kill()
            times += 1
            replicas[0].start()
            await is_ready(client, replicas[0])
        return times

    killer = asyncio.create_task(killing())
    sent = [await send(client, replicas, number) for number in range(jobs)]
    states = await ended(client, replicas[1], sent)
    done.set()
    times = await killer
    listed: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = (
            await client.get(
                f"{replicas[1].url}/v1/measurements",
                params={"limit": 50} | ({"cursor": cursor} if cursor else {}),
            )
        ).json()
        listed += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    names = collections.Counter(item["name"] for item in listed)
    return {
        "jobs": jobs,
        "kills": times,
        "seconds": time.perf_counter() - begun,
        "ended": dict(collections.Counter(states.values())),
        "lost": sum(names[f"number {number}"] == 0 for number in range(jobs)),
        "sent_twice_by_the_client": sum(count - 1 for count in names.values()),
        "accepted_and_missing": len(set(sent) - {item["id"] for item in listed}),
        "calls": len(asked) - int(each * UNDISTURBED),
        "calls_without_kills": each * jobs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {"benchmark": "service_jobs", "ran_on": provenance()}
    result |= asyncio.run(measure(options.jobs, options.kills))
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
