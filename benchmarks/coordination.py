"""What the chat clients cost and keep to, against a scripted server on loopback that fails as it is told to.

    python benchmarks/coordination.py [--only overhead,rate,…] [--out benchmarks/results/coordination.json]

*overhead*: the whole client (resilience stack, prices, accounts) beside the bare call of the vendor's SDK,
one after the other, with the server in a process of its own. They take turns, in the other order every second
time, and the difference is taken within a turn. ``processor_ms`` is the processor's time of the client's
thread, which a busy machine disturbs least.

*rate*: arrivals at the server under 50 requests a minute: on a clock that the program moves, on which
nothing but the limit takes time, and for some real minutes. ``most_in_60_s`` is the largest number in any
window of 60 seconds; ``used`` the share of what the limit allows in so many whole minutes.

*cost*: the client's accounts beside the server's own, in micro-dollars, with cached tokens and prices that
need rounding.

*faults*: completions under 10 % 5xx, 5 % attempts that hang, 2 % resets and 3 % 429 (every other one says
when to come back). Attempts time out after five seconds, so that the run is short; deadlines and all else
are the client's defaults.

*rounds*: the wall time of a round of agents who are asked at once, over that of the slowest of them.

*suite*: a suite measured five times under new names, three strategies each: the share of the baseline's cost
that its store saves.

*recovery*: a server that fails for some seconds under a steady stream of calls: the time from its recovery to
the first completion.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.metadata
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
from provenance import provenance

from cert.coordination import BaselineMeasurer, CoordinationOrchestrator, Task, Team
from cert.coordination.client import AnthropicClientWithResilience, Price
from cert.coordination.clients.limits import CHAT_POLICY
from cert.coordination.evaluators import numeric
from cert.core.errors import CertError
from cert.testing import FakeClock, FaultServer, RecordedRequest, Reply, error, ok

OVERHEAD_MS = 1.0
USED = 0.95
SUCCESS = 0.999
RECOVERY_SECONDS = 30.0
ROUND = 1.15
SAVED = 0.8
PER_MINUTE = 50
MODEL = "claude-sonnet-5-5"
QUESTION = "Which of the two is the better answer, and why? " * 10
FREE = {"requests_per_minute": None, "max_cost_per_hour": None}
Ask = Callable[[], Awaitable[object]]


# --- overhead -------------------------------------------------------------------------------------


@contextlib.contextmanager
def server_process() -> Iterator[str]:
    """Start this program as a server and yield its address."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()  # the end of its input ends it


def serve() -> None:
    with FaultServer() as server:
        print(server.url, flush=True)
        sys.stdin.read()


async def timed(ask: Ask, calls: int) -> tuple[float, float]:
    """Return the median milliseconds of a call, and those of this thread's processor in the mean."""
    spans = []
    gc.collect()
    used = time.thread_time_ns()
    for _ in range(calls):
        start = time.perf_counter_ns()
        await ask()
        spans.append((time.perf_counter_ns() - start) / 1e6)
    return statistics.median(spans), (time.thread_time_ns() - used) / 1e6 / calls


async def measure_overhead(calls: int, repeats: int) -> dict[str, Any]:
    """Compare bare and whole calls."""
    with server_process() as url:
        bare = anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0, timeout=60)
        # Every layer is there; the limits are so high that none makes it wait.
        high = {"requests_per_minute": 10**6, "tokens_per_minute": 6 * 10**7, "max_cost_per_hour": 10**6}
        whole = AnthropicClientWithResilience("k", MODEL, base_url=url, **high)
        asks: dict[str, Ask] = {
            "bare": lambda: bare.messages.create(
                model=MODEL, max_tokens=64, messages=[{"role": "user", "content": QUESTION}]
            ),
            "whole": lambda: whole.complete(QUESTION, agent="a", max_tokens=64),
        }
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in asks}
        for ask in asks.values():
            await timed(ask, calls // 4 + 10)
        for repeat in range(repeats):
            for name in list(asks) if repeat % 2 == 0 else list(reversed(asks)):
                turns[name].append(await timed(asks[name], calls))
        await bare.close()
        await whole.aclose()
    return {
        "calls_a_turn": calls,
        "turns": repeats,
        "median_ms": _compared(turns, 0),
        "processor_ms": _compared(turns, 1),
        "target_ms": OVERHEAD_MS,
    }


def _compared(turns: dict[str, list[tuple[float, float]]], which: int) -> dict[str, Any]:
    bare, whole = ([turn[which] for turn in turns[name]] for name in ("bare", "whole"))
    extra = [more - less for more, less in zip(whole, bare, strict=True)]
    spread = (min(extra), statistics.median(extra), max(extra))
    return {
        "bare": round(statistics.median(bare), 3),
        "whole": round(statistics.median(whole), 3),
        "extra": [round(value, 3) for value in spread],
    }


# --- rate -----------------------------------------------------------------------------------------


async def measure_rate(minutes: int) -> dict[str, Any]:
    """Count arrivals, on a clock that is moved and on the real one."""
    return {
        "limit_per_minute": PER_MINUTE,
        "target_used": USED,
        "moved_clock": await _moved_clock(),
        "real_clock": await _real_clock(minutes),
    }


async def _moved_clock(minutes: int = 10) -> dict[str, Any]:
    clock = FakeClock()
    with FaultServer(clock=clock.monotonic) as server:
        patient = replace(CHAT_POLICY, deadline_seconds=3600.0)
        limits = FREE | {"requests_per_minute": PER_MINUTE}
        async with AnthropicClientWithResilience(
            "k", base_url=server.url, clock=clock, policy=patient, **limits
        ) as client:
            tasks = [asyncio.create_task(client.complete("?")) for _ in range(PER_MINUTE * (minutes + 1))]
            for step in itertools.cycle((1.0, 1.0, 10.0)):
                await _quiet(server)
                if all(task.done() for task in tasks):
                    break
                await clock.advance_async(step)
            await asyncio.gather(*tasks)
        return _windows([request.at for request in server.requests], minutes)


async def _quiet(server: FaultServer) -> None:
    """Wait until what was let go has arrived: the sockets are real, and the clock is not."""
    seen, since = -1, 0
    while since < 3:
        await asyncio.sleep(0.02)
        seen, since = len(server.requests), since + 1 if len(server.requests) == seen else 0


async def _real_clock(minutes: int) -> dict[str, Any]:
    with FaultServer() as server:
        limits = FREE | {"requests_per_minute": PER_MINUTE}
        async with AnthropicClientWithResilience("k", base_url=server.url, **limits) as client:
            await asyncio.gather(*(client.complete("?") for _ in range(PER_MINUTE * minutes + 1)))
        return _windows([request.at for request in server.requests], minutes)


def _windows(arrivals: Sequence[float], minutes: int) -> dict[str, Any]:
    first, ordered = min(arrivals), sorted(arrivals)
    most = max(sum(start <= at < start + 60 for at in ordered) for start in ordered)
    allowed = PER_MINUTE * minutes
    used = sum(at < first + 60 * minutes for at in ordered) / allowed
    return {"minutes": minutes, "requests": len(ordered), "most_in_60_s": most, "used": round(used, 4)}


# --- cost -----------------------------------------------------------------------------------------


async def measure_cost(completions: int) -> dict[str, Any]:
    """Compare both accounts."""
    prices = {"input": "2.31", "output": "10.57", "cache_read": "0.23", "cache_write": "2.89"}
    exact = {name: Decimal(price) for name, price in prices.items()}
    draw = random.Random(1)
    replies = [
        replace(
            ok("word " * draw.randint(1, 60)), cache_read=draw.randint(0, 40), cache_write=draw.randint(0, 9)
        )
        for _ in range(completions)
    ]
    with FaultServer(replies, **{f"{name}_price": price for name, price in exact.items()}) as server:
        async with AnthropicClientWithResilience(
            "k", base_url=server.url, price=Price(**exact), **FREE
        ) as client:
            await _at_once(
                [lambda n=n: client.complete(QUESTION, agent=f"agent-{n % 5}") for n in range(completions)],
                20,
            )
            stats = client.get_cost_stats()
        ours, theirs = int(stats.total * 1_000_000), server.account.micro_dollars
    agents = int(sum(stats.by_agent.values()) * 1_000_000)
    return {
        "completions": completions,
        "prices": prices,
        "micro_dollars": {"client": ours, "agents_together": agents, "server": theirs},
        "equal": ours == theirs == agents,
    }


async def _at_once(jobs: Sequence[Ask], concurrent: int) -> list[object]:
    """Run jobs, so many at a time; a job that fails leaves its error in its place."""
    places = asyncio.Semaphore(concurrent)

    async def run(job: Ask) -> object:
        async with places:
            try:
                return await job()
            except CertError as failure:
                return failure

    return await asyncio.gather(*(run(job) for job in jobs))


# --- faults ---------------------------------------------------------------------------------------


def faulty(seed: int) -> Callable[[RecordedRequest], Reply]:
    """Return a script that fails in the given shares."""
    draw = random.Random(seed)
    throttled = iter(range(10**9))

    def choose(_request: RecordedRequest) -> Reply:
        share = draw.random()
        if share < 0.10:
            return error(draw.choice((500, 502, 503, 529)))
        if share < 0.15:
            return ok(fault="hang")
        if share < 0.17:
            return ok(fault=draw.choice(("reset", "reset_midway")))
        if share < 0.20:
            return error(429, retry_after=1) if next(throttled) % 2 else error(429)
        return ok(delay=0.02)

    return choose


async def measure_faults(completions: int, concurrent: int, runs: int) -> dict[str, Any]:
    """Count completions that succeed within their deadline."""
    return {
        "completions": completions,
        "concurrent": concurrent,
        "shares": {"5xx": 0.10, "hang": 0.05, "reset": 0.02, "429": 0.03},
        "target_success": SUCCESS,
        "runs": [await _under_faults(completions, concurrent, seed) for seed in range(runs)],
    }


async def _under_faults(completions: int, concurrent: int, seed: int) -> dict[str, Any]:
    policy = replace(CHAT_POLICY, attempt_seconds=5.0)
    with FaultServer(faulty(seed)) as server:
        start = time.monotonic()
        async with AnthropicClientWithResilience("k", base_url=server.url, policy=policy, **FREE) as client:
            results = await _at_once([lambda: client.complete("?")] * completions, concurrent)
            stats = client.get_cost_stats()
        failures = Counter(result.code for result in results if isinstance(result, CertError))
        attempts = Counter(result.attempts for result in results if not isinstance(result, CertError))
        billed = Decimal(server.account.micro_dollars) / 1_000_000
    return {
        "seed": seed,
        "success": round(1 - failures.total() / completions, 5),
        "failures": dict(failures),
        "attempts": dict(sorted(attempts.items())),
        "requests": len(server.requests),
        "seconds": round(time.monotonic() - start, 1),
        "dollars": {"known": str(stats.total), "billed": str(billed), "at_most": str(stats.at_most)},
    }


# --- recovery -------------------------------------------------------------------------------------


async def measure_recovery(outage_seconds: float, runs: int) -> dict[str, Any]:
    """Measure how long the breaker keeps a recovered server waiting."""
    seconds = [round(await _recovery(outage_seconds), 2) for _ in range(runs)]
    return {"outage_seconds": outage_seconds, "seconds": seconds, "target_seconds": RECOVERY_SECONDS}


async def _recovery(outage_seconds: float) -> float:
    broken = True
    with FaultServer(lambda _request: error(500) if broken else ok()) as server:
        async with AnthropicClientWithResilience("k", base_url=server.url, **FREE) as client:

            async def call() -> float | None:
                with contextlib.suppress(CertError):
                    await client.complete("?", timeout=5)
                    return time.monotonic()
                return None

            tasks = []
            start = time.monotonic()
            while time.monotonic() < start + outage_seconds:
                tasks.append(asyncio.create_task(call()))
                await asyncio.sleep(0.1)
            broken, recovered = False, time.monotonic()
            while time.monotonic() < recovered + 2 * RECOVERY_SECONDS:
                tasks.append(asyncio.create_task(call()))
                await asyncio.sleep(0.1)
                if any(task.done() and task.result() is not None for task in tasks):
                    break
            ends = [end for end in await asyncio.gather(*tasks) if end is not None]
    return min(ends, default=float("inf")) - recovered


# --- the program ----------------------------------------------------------------------------------


async def measure_rounds(agents: int, rounds: int) -> dict[str, Any]:
    """Ask a team whose members take different times, round by round."""
    delays = random.Random(0)

    def script(_request: RecordedRequest) -> Reply:
        return replace(ok("Yes."), delay=delays.uniform(0.2, 0.6))

    ratios = []
    with FaultServer(script) as server:
        async with AnthropicClientWithResilience("k", base_url=server.url, **FREE) as client:
            team = Team.of(client, agents)
            task = Task(QUESTION)
            for number in range(rounds + 1):
                begun = time.monotonic()
                said = await team.ask_all(
                    task, [(agent, team.prompts.answer(task.text)) for agent in team.agents], round=number
                )
                wall = time.monotonic() - begun
                if number:  # the first opens the connections
                    ratios.append(wall / max(one.seconds for one in said))
    return {
        "agents": agents,
        "wall_over_slowest": spread(ratios),
        "target": ROUND,
    }


async def measure_suites(runs: int, tasks: int) -> dict[str, Any]:
    """Measure the same tasks again and again, as every night."""
    answers = random.Random(0)
    questions = [Task(f"What is {n} + {n}?", references=(str(2 * n),)) for n in range(tasks)]
    evaluator = numeric()
    with FaultServer(lambda _request: ok(str(answers.randrange(2 * tasks)))) as server:
        async with AnthropicClientWithResilience("k", base_url=server.url, **FREE) as client:
            baseline = BaselineMeasurer(client, evaluator)
            orchestrator = CoordinationOrchestrator(client, baseline, evaluator)
            reports = [
                await orchestrator.measure_suite(
                    questions, ("vote", "parallel", "debate(rounds=1)"), run=f"night-{number}"
                )
                for number in range(runs)
            ]
            stats = await baseline.cache_stats()
            await baseline.aclose()
    whole = stats.saved_micro_dollars + stats.spent_micro_dollars
    return {
        "runs": runs,
        "tasks": tasks,
        "strategies": 3,
        "baseline_saved": stats.saved_micro_dollars / whole,
        "baseline_spent_dollars": str(stats.spent),
        "spent_dollars": [str(report.spent) for report in reports],
        "target": SAVED,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 4),
        "min": round(ordered[0], 4),
        "max": round(ordered[-1], 4),
    }


SECTIONS: dict[str, Callable[[argparse.Namespace], Awaitable[dict[str, Any]]]] = {
    "overhead": lambda given: measure_overhead(given.calls, given.repeats),
    "rate": lambda given: measure_rate(given.minutes),
    "cost": lambda _given: measure_cost(400),
    "faults": lambda given: measure_faults(given.completions, 40, 3),
    "rounds": lambda _given: measure_rounds(5, 20),
    "suite": lambda _given: measure_suites(5, 10),
    "recovery": lambda _given: measure_recovery(5.0, 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=300, help="a turn")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--minutes", type=int, default=3, help="of the real clock")
    parser.add_argument("--completions", type=int, default=2000, help="under faults, in each of three runs")
    parser.add_argument("--only", help=f"some of {', '.join(SECTIONS)}, with commas between")
    parser.add_argument("--out", type=Path, help="sections that are not measured stay there as they are")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    ran_on = provenance()
    used = ("anthropic", "genai-prices", "httpx2", "pyrate-limiter", "tenacity")
    ran_on["packages"] = {name: importlib.metadata.version(name) for name in used}
    report: dict[str, Any] = {"benchmark": "coordination"}
    if arguments.out and arguments.out.exists():
        report = json.loads(arguments.out.read_text(encoding="utf-8"))
    for name in arguments.only.split(",") if arguments.only else SECTIONS:
        report[name] = {"ran_on": ran_on} | asyncio.run(SECTIONS[name](arguments))
        shown = {key: value for key, value in report[name].items() if key != "ran_on"}
        print(f"{name}: {json.dumps(shown, indent=2)}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
