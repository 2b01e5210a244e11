"""What the resilience stack costs, side by side with the bare call, and whether it holds up the event loop.

    python benchmarks/core.py [--calls 2000] [--repeats 9] [--out benchmarks/results/core.json]

*Calls*: a function that does nothing, bare and through the whole stack (instrument, deadline, retry, breaker,
rate limit, budget, time-out), plain and ``async``; *told* with log and metrics as observers, which work on
another thread. Every call is timed. The contestants take turns, in the other order every second time, and
the difference is taken within one turn, so that a machine that gets slower or faster hits all of them.

*Redis*: the same with breaker, limits and budget in a Redis on this machine (Debian's ``redis-server``, which
this program starts on a free port, with ``appendonly yes``); for scale, one round trip of an empty script.
Without ``redis-server`` these figures are left out, and that is said.

*Events*: growth of resident memory over 100,000 events with log and metrics as observers, in fresh processes.

*Stalls*: while calls run concurrently through the async stack, a task that wants to wake every millisecond
notes how late it is, and every callback of the loop is timed; the same load without the stack beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.metadata
import itertools
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from provenance import provenance

from cert.core.budget import Budget
from cert.core.circuit_breaker import Breaker, CircuitBreaker
from cert.core.circuit_breaker_redis import RedisCircuitBreaker
from cert.core.events import CallFinished, EventHub
from cert.core.rate_limit import RateLimiter
from cert.core.redis_scripts import RedisScripts, Script
from cert.core.resilience import Demand, ResilienceStack
from cert.observability.log_events import log_observer
from cert.observability.logging import configure_logging
from cert.observability.metrics import metrics_observer

MICROSECONDS_IN_PROCESS = 150.0
MICROSECONDS_THROUGH_REDIS = 1000.0
GROWTH_MB = 1.0
STALL_MS = 5.0
MOST = {"requests_per_minute": 1_000_000, "tokens_per_minute": 60_000_000}  # the limits never make it wait
DEMAND = Demand(tokens=1, micro_dollars=10, agent="benchmark", cost=lambda _answer: 7)
EMPTY = Script("return {1}")
Timed = Callable[[int], list[int]]


def stack(hub: EventHub, redis: RedisScripts | None = None) -> ResilienceStack:
    """Return a stack with every layer, its limits in this process or in Redis."""
    name = f"benchmark-{next(_numbers)}"
    breaker: Breaker = (
        CircuitBreaker(name, hub=hub) if redis is None else RedisCircuitBreaker(name, redis, hub=hub)
    )
    limiter = RateLimiter(**MOST, name=name, redis=redis, hub=hub)
    budget = Budget(10**14, 10**14, name=name, redis=redis, hub=hub)
    return ResilienceStack("benchmark", breaker=breaker, limiter=limiter, budget=budget, hub=hub)


_numbers = itertools.count()


@contextlib.contextmanager
def observed_hub(folder: Path) -> Iterator[EventHub]:
    """Yield a hub with the observers of a service: every event counted and written as a line of JSON."""
    restore = configure_logging("debug", "json", "file", folder / "log.json")
    hub = EventHub()
    hub.observe(log_observer())
    hub.observe(metrics_observer(CollectorRegistry(), hub=hub))
    try:
        yield hub
    finally:
        hub.flush(60)
        restore()


@contextlib.contextmanager
def local_redis() -> Iterator[str | None]:
    """Start a Redis on a free port and yield its address; ``None`` where it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        server = subprocess.Popen(
            [program, *options, "--appendonly", "yes", "--maxmemory-policy", "noeviction"],
            stdout=subprocess.DEVNULL,
        )
        try:
            _await_port(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def _await_port(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise RuntimeError("redis-server did not start")


# --- calls ----------------------------------------------------------------------------------------


def timed(function: Callable[[], object]) -> Timed:
    """Return what times so many calls of a function, in nanoseconds each."""

    def run(calls: int) -> list[int]:
        spans = []
        for _ in range(calls):
            start = time.perf_counter_ns()
            function()
            spans.append(time.perf_counter_ns() - start)
        return spans

    return run


def timed_async(runner: asyncio.Runner, function: Callable[[], Awaitable[object]]) -> Timed:
    """Do the same for a function that is awaited."""

    async def run(calls: int) -> list[int]:
        spans = []
        for _ in range(calls):
            start = time.perf_counter_ns()
            await function()
            spans.append(time.perf_counter_ns() - start)
        return spans

    return lambda calls: runner.run(run(calls))


def nothing() -> int:
    return 1


async def nothing_async() -> int:
    return 1


def plain_and_async(name: str, stack: ResilienceStack, runner: asyncio.Runner) -> Iterator[tuple[str, Timed]]:
    """Yield the two ways through a stack."""
    yield f"{name}, plain", timed(lambda: stack.call(nothing, DEMAND))
    yield f"{name}, async", timed_async(runner, lambda: stack.call_async(nothing_async, DEMAND))


def compare(
    contestants: dict[str, Timed], calls: int, repeats: int, hub: EventHub | None = None
) -> dict[str, Any]:
    """Time the contestants in turns; figures in microseconds, with the spread over the turns.

    What a turn leaves to a hub's observers is told before the next one begins.
    """
    for run in contestants.values():
        run(max(50, calls // 10))
    turns: dict[str, list[list[float]]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name in list(contestants) if repeat % 2 == 0 else list(reversed(contestants)):
            gc.collect()
            turns[name].append(_percentiles(contestants[name](calls)))
            if hub is not None:
                hub.flush(60)
    return {name: _summary(values, turns[_bare(name)]) for name, values in turns.items()}


def _bare(name: str) -> str:
    return f"bare, {name.rpartition(', ')[2]}"


def _percentiles(nanoseconds: list[int]) -> list[float]:
    ordered = sorted(nanoseconds)
    return [ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000 for share in (0.5, 0.95, 0.99)]


def _summary(turns: list[list[float]], bare: list[list[float]]) -> dict[str, Any]:
    p50, p95, p99 = (statistics.median(turn[at] for turn in turns) for at in range(3))
    extra = [turn[0] - base[0] for turn, base in zip(turns, bare, strict=True)]
    return {
        "p50": round(p50, 2),
        "p95": round(p95, 2),
        "p99": round(p99, 2),
        "extra_p50": [round(x, 2) for x in (min(extra), statistics.median(extra), max(extra))],
    }


def measure_calls(calls: int, repeats: int) -> dict[str, Any]:
    """Compare bare calls with the stack in this process, with and without observers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        observed_hub(Path(folder)) as told,
        asyncio.Runner() as runner,
    ):
        contestants = {
            "bare, plain": timed(nothing),
            "bare, async": timed_async(runner, nothing_async),
            **dict(plain_and_async("stack", stack(EventHub()), runner)),
            **dict(plain_and_async("stack told", stack(told), runner)),
        }
        result = compare(contestants, calls, repeats, told)
        return {"target_p50": MICROSECONDS_IN_PROCESS, "events_lost": told.lost, "calls": result}


def measure_redis(url: str, calls: int, repeats: int) -> dict[str, Any]:
    """Compare bare calls with the stack whose limits are in Redis."""
    scripts = RedisScripts(url)
    with asyncio.Runner() as runner:
        contestants = {
            "bare, plain": timed(nothing),
            "bare, async": timed_async(runner, nothing_async),
            "one round trip, plain": timed(lambda: scripts.run(EMPTY, [], [])),
            "one round trip, async": timed_async(runner, lambda: scripts.run_async(EMPTY, [], [])),
            **dict(plain_and_async("stack", stack(EventHub(), scripts), runner)),
        }
        result = compare(contestants, calls, repeats)
        runner.run(scripts.aclose())
    scripts.close()
    return {"target_p50": MICROSECONDS_THROUGH_REDIS, "calls": result}


# --- events ---------------------------------------------------------------------------------------


def growth_mb(events: int) -> list[float]:
    """Return this process's growth over so many events after a warm-up, how many were lost, and how fast."""
    with tempfile.TemporaryDirectory() as folder, observed_hub(Path(folder)) as hub:
        _emit(hub, events // 5)
        before, start = _resident_mb(), time.perf_counter()
        _emit(hub, events)
        seconds = time.perf_counter() - start
        return [_resident_mb() - before, hub.lost + hub.failures, events / seconds]


def _emit(hub: EventHub, events: int) -> None:
    for number in range(events):
        hub.emit(CallFinished(operation="benchmark", outcome="ok", seconds=number / events, attempts=1))
        if number % 5000 == 4999:
            hub.flush(60)
    hub.flush(60)
    gc.collect()


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def measure_events(events: int, repeats: int) -> dict[str, Any]:
    """Measure the growth in several fresh processes."""
    command = [sys.executable, __file__, "--growth-over", str(events)]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats)
    ]
    growths, lost, speeds = zip(*runs, strict=True)
    return {
        "events": events,
        "growth_mb": [round(x, 3) for x in (min(growths), statistics.median(growths), max(growths))],
        "target_mb": GROWTH_MB,
        "lost_or_failed": int(sum(lost)),
        "events_per_second": round(statistics.median(speeds)),
    }


# --- stalls ---------------------------------------------------------------------------------------


class Longest:
    """The longest that any callback holds the event loop, in milliseconds, while it is watched."""

    def __enter__(self) -> Longest:
        self.milliseconds = 0.0
        self._run = run = asyncio.Handle._run  # type: ignore[attr-defined]

        def timed_run(handle: asyncio.Handle) -> None:
            start = time.perf_counter()
            run(handle)
            self.milliseconds = max(self.milliseconds, (time.perf_counter() - start) * 1000)

        asyncio.Handle._run = timed_run  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[attr-defined]


async def stalls(call: Callable[[], Awaitable[object]], calls: int, concurrent: int) -> dict[str, float]:
    """Return how late a task that wakes every millisecond is at most, and the longest callback."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - start) * 1000 - 1.0)

    async def work() -> None:
        for _ in range(calls // concurrent):
            await call()

    await asyncio.gather(*(call() for _ in range(concurrent)))  # connections are opened before
    gc.collect()
    ticker = asyncio.create_task(tick())
    start = time.perf_counter()
    with Longest() as longest:
        await asyncio.gather(*(work() for _ in range(concurrent)))
    seconds = time.perf_counter() - start
    ticker.cancel()
    late.sort()
    return {
        "latest_ms": round(late[-1], 3),
        "p99_ms": round(late[int(0.99 * len(late))], 3),
        "longest_callback_ms": round(longest.milliseconds, 3),
        "calls_per_second": round(calls / seconds, 1),
    }


async def transport() -> int:
    await asyncio.sleep(0.005)
    return 1


def measure_stalls(url: str | None, calls: int, concurrent: int, repeats: int) -> dict[str, Any]:
    """Watch the loop under the bare load and under the stack, in turns."""
    runs: dict[str, list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        observed_hub(Path(folder)) as told,
        asyncio.Runner() as runner,
    ):
        scripts = None if url is None else RedisScripts(url)
        loads: dict[str, Callable[[], Awaitable[object]]] = {"bare": transport}
        for name, redis in (("stack told", None), ("stack told, Redis", scripts)):
            if redis is not None or name == "stack told":
                loads[name] = _through(stack(told, redis))
        for repeat in range(repeats):
            for name in list(loads) if repeat % 2 == 0 else list(reversed(loads)):
                runs.setdefault(name, []).append(runner.run(stalls(loads[name], calls, concurrent)))
                told.flush(60)  # what one load leaves to the observers is not the next one's
        if scripts is not None:
            runner.run(scripts.aclose())
    return {"calls": calls, "concurrent": concurrent, "target_ms": STALL_MS, "runs": runs}


def _through(stack: ResilienceStack) -> Callable[[], Awaitable[object]]:
    return lambda: stack.call_async(transport, DEMAND)


# --- the program ----------------------------------------------------------------------------------


def show_calls(title: str, measured: dict[str, Any]) -> None:
    print(f"{title}, microseconds; target: p50 at most {measured['target_p50']:g}", flush=True)
    for name, figures in measured["calls"].items():
        low, middle, high = figures["extra_p50"]
        print(
            f"  {name:<22} p50 {figures['p50']:>8} p95 {figures['p95']:>8} p99 {figures['p99']:>8}"
            f"   p50 over bare {middle} ({low} to {high})",
            flush=True,
        )


def show_stalls(measured: dict[str, Any]) -> None:
    print(f"event loop, {measured['concurrent']} calls at once; target: {STALL_MS:g} ms", flush=True)
    for name, runs in measured["runs"].items():
        figures = {key: [run[key] for run in runs] for key in runs[0]}
        print(
            f"  {name:<18} late by at most {max(figures['latest_ms'])} ms (runs: {figures['latest_ms']}), "
            f"longest callback {max(figures['longest_callback_ms'])} ms, "
            f"{statistics.median(figures['calls_per_second'])} calls/s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=2000, help="a turn")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--concurrent", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--growth-over", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.growth_over:
        print(json.dumps(growth_mb(arguments.growth_over)))
        return
    report: dict[str, Any] = {"benchmark": "core", "ran_on": provenance(), "repeats": arguments.repeats}
    used = ("prometheus-client", "pyrate-limiter", "redis", "structlog", "tenacity")
    report["ran_on"]["packages"] = {name: importlib.metadata.version(name) for name in used}
    report["calls_a_turn"] = arguments.calls
    report["in_process"] = measure_calls(arguments.calls, arguments.repeats)
    show_calls("in process", report["in_process"])
    with local_redis() as url:
        if url is None:
            report["through_redis"] = "not measured: redis-server is not installed"
            print("through Redis: NOT MEASURED, no redis-server here (apt-get install redis-server)")
        else:
            report["redis_server"] = _version("redis-server")
            report["through_redis"] = measure_redis(url, arguments.calls, arguments.repeats)
            show_calls("through Redis", report["through_redis"])
        report["stalls"] = measure_stalls(url, arguments.calls, arguments.concurrent, arguments.repeats)
        show_stalls(report["stalls"])
    report["events"] = measure_events(arguments.events, max(1, arguments.repeats // 3))
    growth = report["events"]["growth_mb"]
    print(f"{arguments.events} events: growth {growth} MB, target {GROWTH_MB:g} MB; {report['events']}")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"written to {arguments.out}")


def _version(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return told.partition("v=")[2].split()[0]


if __name__ == "__main__":
    main()
