"""What the Hamiltonian service costs: beside a bare route, with many clients, in streams, and in a soak.

    python benchmarks/service.py [--soak 100000] [--streams 1000] [--out benchmarks/results/service.json]

Needs ``hey`` (Debian). The service is `cert serve hamiltonian` on the reference model, in its own process.

*Cached*: the same question again and again, against a FastAPI route in another process that returns the same
bytes; requests a second of both, taken in turns, and the 99th percentile of the service at half of its rate.
Once neither writes a log line for a request, and once both do (ours JSON, uvicorn's its access line).
*Clients*: questions that are in no cache, from one client and from 32 at once. *First token*: seconds from
asking the service for a stream to its first token, less the same of the monitor in process. *Streams*: event
streams of a tenant that are open at once, and what memory they take over the idle service. *Soak*: many
requests, one in ten of them bad in some way; memory and open files before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from provenance import provenance

from cert.client import AsyncHamiltonianClient, Token
from cert.trajectory import HamiltonianMonitor

PROMPT = "The birth city of"
BODY = {"prompt": PROMPT, "max_new_tokens": 8, "detail": "summary"}
PLAIN = """
import sys, uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
content = open(sys.argv[2], "rb").read()
app = FastAPI()
@app.post("/plain")
async def plain(request: Request) -> Response:
    await request.body()
    return Response(content, media_type="application/json")
told = sys.argv[3] == "info"
uvicorn.run(app, port=int(sys.argv[1]), log_level=sys.argv[3], access_log=told)
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def process(
    command: list[str], url: str, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    import os

    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, env=os.environ | (environ or {})) as running:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx2.TransportError):
                    httpx2.get(url)
                    break
                time.sleep(0.1)
            yield running
        finally:
            running.terminate()


def hey(url: str, count: int, clients: int, rate: float | None = None) -> dict[str, float]:
    """Requests a second and the 99th percentile in milliseconds; fails on any answer but 200."""
    command = ["hey", "-n", str(count), "-c", str(clients), "-m", "POST", "-T", "application/json"]
    command += ["-d", json.dumps(BODY)] + ([] if rate is None else ["-q", str(rate / clients)]) + [url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    codes = re.findall(r"\[(\d+)\]\s+\d+ responses", told)
    if codes != ["200"]:
        raise SystemExit(f"not every answer was 200: {told[-800:]}")
    per_second = float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])  # type: ignore[index]
    return {"per_second": per_second, "p99_ms": 1000 * float(re.search(r"99% in ([\d.]+)", told)[1])}  # type: ignore[index]


def cached(repeats: int) -> dict[str, Any]:
    return {
        "without_log_lines": with_service("warning", lambda url, _: cached_at(url, repeats, "warning")),
        "with_log_lines": with_service("info", lambda url, _: cached_at(url, repeats, "info")),
    }


def with_service(log_level: str, measure: Callable[[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Measure at a service of its own, by its address and process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", "from cert.cli.main import main; main()"]
    command += ["serve", "hamiltonian", "--port", str(port), "--metrics-port", "0"]
    environ = {"CERT_LOG_LEVEL": log_level, "CERT_PRELOAD_MODELS": "true"}
    with process(command, f"{url}/health/live", environ) as service:
        return measure(url, service.pid)


def cached_at(url: str, repeats: int, log_level: str) -> dict[str, Any]:
    content = httpx2.post(f"{url}/v1/analyze", json=BODY).content
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        port = free_port()
        plain = f"http://127.0.0.1:{port}/plain"
        with process([sys.executable, "-c", PLAIN, str(port), file.name, log_level], plain):
            hey(plain, 500, 8), hey(f"{url}/v1/analyze", 500, 8)
            pairs = [(hey(f"{url}/v1/analyze", 3000, 8), hey(plain, 3000, 8)) for _ in range(repeats)]
    ratios = sorted(ours["per_second"] / theirs["per_second"] for ours, theirs in pairs)
    rate = statistics.median(ours["per_second"] for ours, _ in pairs)
    half = hey(f"{url}/v1/analyze", int(rate * 4), 8, rate / 2)
    half["asked_per_second"] = rate / 2
    return {
        "bytes": len(content),
        "per_second": rate,
        "plain_per_second": statistics.median(theirs["per_second"] for _, theirs in pairs),
        "ratio": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1], "target": 0.6},
        "half_load": half | {"target_p99_ms": 25},
    }


async def asking(port: int, seeds: Iterator[int]) -> int:
    """Ask on one connection until there are no seeds left: a client that takes little of the cores.

    Raises:
        SystemExit: an answer is not 200.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = 0
    for seed in seeds:
        body = json.dumps({"prompt": PROMPT, "max_new_tokens": 16, "temperature": 1.0, "seed": seed}).encode()
        head = "POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"not every answer was 200: {answer!r}")
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))  # type: ignore[index]
        asked += 1
    writer.close()
    return asked


async def clients(url: str, repeats: int) -> dict[str, Any]:
    port = int(url.rpartition(":")[2])

    async def rate(workers: int, first: int, count: int) -> float:
        seeds = iter(range(first, first + count))
        begun = time.perf_counter()
        await asyncio.gather(*(asking(port, seeds) for _ in range(workers)))
        return count / (time.perf_counter() - begun)

    await rate(1, 0, 5)
    pairs = [(await rate(1, 10_000 * n, 60), await rate(32, 10_000 * n + 5_000, 480)) for n in range(repeats)]
    ratios = sorted(many / one for one, many in pairs)
    return {
        "one_client_per_second": statistics.median(one for one, _ in pairs),
        "32_clients_per_second": statistics.median(many for _, many in pairs),
        "ratio": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1], "target": 5},
    }


async def first_token(url: str, count: int = 40) -> dict[str, Any]:
    served, own = [], []
    async with AsyncHamiltonianClient(url) as client:
        with HamiltonianMonitor(preload=True) as monitor:
            for seed in range(count):
                begun = time.perf_counter()
                async for event in client.stream(PROMPT, max_new_tokens=2, temperature=1.0, seed=seed):
                    if isinstance(event, Token):
                        served.append(time.perf_counter() - begun)
                        break
                begun = time.perf_counter()
                with monitor.stream(PROMPT, max_new_tokens=2, temperature=1.0, seed=seed) as stream:
                    next(stream)
                    own.append(time.perf_counter() - begun)
    later = 1000 * (statistics.median(served) - statistics.median(own))
    return {"service_ms": 1000 * statistics.median(served), "in_process_ms": 1000 * statistics.median(own),
            "later_ms": later, "target_ms": 30}  # fmt: skip


def memory_and_files(pid: int) -> tuple[float, int]:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1e3, len(list(Path(f"/proc/{pid}/fd").iterdir()))  # type: ignore[index]


async def streams(url: str, pid: int, count: int) -> dict[str, Any]:
    """Streams whose readers take nothing yet; all are open at once when memory is read."""
    idle, _ = memory_and_files(pid)
    limits = httpx2.Limits(max_connections=count + 10)
    codes: dict[int, int] = {}
    async with (
        httpx2.AsyncClient(base_url=url, timeout=300, limits=limits) as client,
        contextlib.AsyncExitStack() as open_,
    ):

        async def one(seed: int) -> None:
            body = {
                "prompt": PROMPT,
                "max_new_tokens": 200,
                "temperature": 1.5,
                "seed": seed,
                "detail": "summary",
            }
            answer = await open_.enter_async_context(client.stream("POST", "/v1/analyze/stream", json=body))
            codes[answer.status_code] = codes.get(answer.status_code, 0) + 1

        for start in range(0, count, 50):
            await asyncio.gather(*(one(seed) for seed in range(start, min(start + 50, count))))
        full, _ = memory_and_files(pid)
    return {"answers": codes, "idle_mb": idle, "open_mb": full, "over_idle_mb": full - idle, "target_mb": 300}


async def soak(url: str, pid: int, count: int) -> dict[str, Any]:
    codes: dict[int, int] = {}
    numbers = iter(range(count))
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:

        async def ask(number: int) -> int:
            kind = number % 20
            if kind == 3:
                return (await client.post("/v1/analyze", content=b"{" * 50)).status_code
            if kind == 7:
                return (await client.post("/v1/analyze", json=BODY | {"temperature": -1})).status_code
            if kind == 11:
                return (await client.get("/v1/analyses", params={"limit": 5})).status_code
            if kind == 13 and number % 200 == 13:
                fresh = BODY | {"temperature": 1.0, "seed": number}
                return (await client.post("/v1/analyze", json=fresh)).status_code
            return (await client.post("/v1/analyze", json=BODY)).status_code

        async def worker() -> None:
            for number in numbers:
                code = await ask(number)
                codes[code] = codes.get(code, 0) + 1

        async def run(upto: int) -> None:
            nonlocal numbers
            numbers = iter(range(upto))
            await asyncio.gather(*(worker() for _ in range(16)))

        await run(count // 10)  # caches, rings and pools fill
        warm, files = memory_and_files(pid)
        codes.clear()
        begun = time.perf_counter()
        await run(count)
        seconds = time.perf_counter() - begun
        after, files_after = memory_and_files(pid)
    return {"requests": count, "seconds": seconds, "answers": codes, "memory_mb": [warm, after],
            "open_files": [files, files_after]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--soak", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--only", nargs="*", help="parts to measure; all by default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "service", "ran_on": provenance()}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "cached": lambda: cached(options.repeats),
        "clients": lambda: with_service("warning", lambda url, _: asyncio.run(clients(url, options.repeats))),
        "first_token": lambda: with_service("warning", lambda url, _: asyncio.run(first_token(url))),
        "streams": lambda: with_service(
            "warning", lambda url, pid: asyncio.run(streams(url, pid, options.streams))
        ),
        "soak": lambda: with_service("warning", lambda url, pid: asyncio.run(soak(url, pid, options.soak))),
    }
    for name, measure in parts.items():
        if options.only and name not in options.only:
            continue
        result[name] = measure()
        print(name, json.dumps(result[name]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
