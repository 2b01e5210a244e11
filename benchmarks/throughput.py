"""What batches, the cache and a loaded model are worth, each against its alternative in the same run.

    python benchmarks/throughput.py [--repeats 9] [--out benchmarks/results/throughput.json]

On the reference model, greedy, 40 new tokens: `analyze_batch` of 32 prompts against 32 `analyze`, and
32 concurrent `analyze_async` against the batch call; they take turns and ratios are taken round by round.
The cache: time of an analysis that is there, and the share of a Zipf(1.0) trace over 10,000 distinct prompts
that 1,000 places answer, beside LRU and the best choice in hindsight. Start-up: a fresh process from nothing
to the first token, by its parts.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from provenance import provenance

from cert.trajectory import HamiltonianMonitor
from cert.trajectory.cache import Hit, Lead, SingleFlightCache

ROWS = 32
TARGETS = {"batch_speedup": 6.0, "concurrent_cost": 1.3, "cached_us": 100.0, "hit_rate": 0.70, "start_s": 5.0}
OPTIONS: dict[str, Any] = {"max_new_tokens": 40, "use_cache": False}


def throughput(monitor: HamiltonianMonitor, repeats: int) -> dict[str, Any]:
    """Time 32 prompts one by one, as a batch, and as concurrent tasks."""
    prompts = [f"The birth city of person number {i} is" for i in range(ROWS)]

    def one_by_one() -> list[str]:
        return [monitor.analyze(prompt, **OPTIONS).generated_text for prompt in prompts]

    def batch() -> list[str]:
        return [analysis.generated_text for analysis in monitor.analyze_batch(prompts, **OPTIONS)]

    def concurrent() -> list[str]:
        async def ask() -> list[str]:
            calls = (monitor.analyze_async(prompt, **OPTIONS) for prompt in prompts)
            return [analysis.generated_text for analysis in await asyncio.gather(*calls)]

        return asyncio.run(ask())

    contestants: dict[str, Callable[[], list[str]]] = {
        "one_by_one": one_by_one,
        "batch": batch,
        "concurrent": concurrent,
    }
    answers = {name: run() for name, run in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name in list(contestants) if repeat % 2 == 0 else list(reversed(contestants)):
            start = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - start)
    return {
        "prompts": ROWS,
        "new_tokens": OPTIONS["max_new_tokens"],
        "repeats": repeats,
        "same_answers": all(answer == answers["one_by_one"] for answer in answers.values()),
        "seconds": {name: round(statistics.median(values), 4) for name, values in seconds.items()},
        "batch_speedup": _spread(seconds["one_by_one"], seconds["batch"]),
        "concurrent_cost": _spread(seconds["concurrent"], seconds["batch"]),
    }


def _spread(above: list[float], below: list[float]) -> list[float]:
    """Smallest, median and largest ratio of the rounds."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return [round(x, 3) for x in (min(ratios), statistics.median(ratios), max(ratios))]


def cached(monitor: HamiltonianMonitor, calls: int = 2000) -> dict[str, float]:
    """Time a question whose answer is there."""
    monitor.analyze("The birth city of", max_new_tokens=40)
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        analysis = monitor.analyze("The birth city of", max_new_tokens=40)
        times.append((time.perf_counter() - start) * 1e6)
        assert analysis.from_cache
    quantiles = statistics.quantiles(times, n=100)
    return {"p50_us": round(quantiles[49], 1), "p95_us": round(quantiles[94], 1), "calls": calls}


def hit_rate(distinct: int = 10_000, places: int = 1_000, length: int = 200_000) -> dict[str, Any]:
    """Play a Zipf(1.0) trace against the cache, LRU and the most frequent keys in hindsight."""
    weights = [1.0 / (rank + 1) for rank in range(distinct)]
    rates = []
    for seed in range(3):
        trace = random.Random(seed).choices(range(distinct), weights, k=length)
        rates.append([_ours(trace, places), _lru(trace, places), _best_static(trace, places)])
    ours, lru, best = (round(statistics.mean(column), 4) for column in zip(*rates, strict=True))
    return {"distinct": distinct, "places": places, "requests": length, "traces": 3, "hit_rate": ours,
            "lru": lru, "best_static": best}  # fmt: skip


def _ours(trace: list[int], places: int) -> float:
    cache: SingleFlightCache[int] = SingleFlightCache(places)
    hits = 0
    for key in trace:
        claim = cache.claim(("prompt", key))
        if isinstance(claim, Lead):
            claim.fulfil(key)
        hits += isinstance(claim, Hit)
    return hits / len(trace)


def _lru(trace: list[int], places: int) -> float:
    kept: collections.OrderedDict[int, None] = collections.OrderedDict()
    hits = 0
    for key in trace:
        hits += key in kept
        kept[key] = None
        kept.move_to_end(key)
        if len(kept) > places:
            kept.popitem(last=False)
    return hits / len(trace)


def _best_static(trace: list[int], places: int) -> float:
    return sum(count for _, count in collections.Counter(trace).most_common(places)) / len(trace)


_START = """
import time; begin = time.perf_counter()
from cert.trajectory import HamiltonianMonitor
imported = time.perf_counter()
monitor = HamiltonianMonitor(preload=True)
loaded = time.perf_counter()
monitor.analyze("The birth city of", max_new_tokens=1)
print(imported - begin, loaded - imported, time.perf_counter() - loaded)
"""


def start_up(repeats: int) -> dict[str, Any]:
    """Time fresh processes from nothing to a loaded model and to the first token."""
    parts: list[list[float]] = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=True)
        parts.append([float(x) for x in done.stdout.split()])
    whole = [sum(part[:2]) for part in parts]
    names = ("import_s", "preload_s", "first_token_s")
    medians = {name: round(statistics.median(p[i] for p in parts), 3) for i, name in enumerate(names)}
    return {**medians, "ready_s": [round(x, 3) for x in (min(whole), statistics.median(whole), max(whole))],
            "processes": repeats}  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    ran_on = provenance()
    ran_on["torch_threads"] = torch.get_num_threads()
    with HamiltonianMonitor(preload=True) as monitor:
        result = {
            "ran_on": ran_on,
            "targets": TARGETS,
            "throughput": throughput(monitor, arguments.repeats),
            "cached": cached(monitor),
        }
    result["cache"] = hit_rate()
    result["start_up"] = start_up(max(3, arguments.repeats // 2))
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
