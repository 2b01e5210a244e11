"""What a stored completion costs in time: a hit, and what a miss adds to its call.

    python benchmarks/completion_store.py [--calls 500] [--repeats 5] [--postgres URL] [--out FILE]

A scripted client answers at once with two thousand characters; each call is timed by itself. In memory, in a
SQLite file of a temporary folder (``--folder`` names another, on the disk that matters: a miss waits for it
twice), and in PostgreSQL where a URL is given. A turn makes all calls once as misses, then all as hits. The
processor's time per call hardly depends on what else the machine does; the time on the clock does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from provenance import provenance

from cert.coordination.chat import ChatClient
from cert.coordination.scripted import ScriptedChat
from cert.coordination.store import CachedChatClient

HIT_MS = 2.0


Timed = tuple[list[float], float]


async def timed(client: ChatClient, calls: int) -> Timed:
    """Return the milliseconds of each call, and those of the processor for one of them, of all threads."""
    taken = []
    working = time.process_time()
    for number in range(calls):
        began = time.perf_counter()
        await client.complete(f"question {number}")
        taken.append((time.perf_counter() - began) * 1e3)
    return taken, (time.process_time() - working) * 1e3 / calls


async def turn(target: str | None, calls: int, scope: str) -> dict[str, Timed]:
    """Measure one store once."""
    bare = ScriptedChat(otherwise="x" * 2000)
    client = CachedChatClient(bare, target, scope=scope)
    await timed(client, 1)  # connects
    await client.store.clear(scope)
    found = {"bare": await timed(bare, calls)}
    found |= {"miss": await timed(client, calls), "hit": await timed(client, calls)}
    await client.aclose()
    return found


def figures(turns: list[dict[str, Timed]]) -> dict[str, Any]:
    """Return median and 99th percentile over all turns, and the spread of the turns' medians."""
    found: dict[str, Any] = {}
    for kind in ("bare", "miss", "hit"):
        every = sorted(value for one in turns for value in one[kind][0])
        medians = [statistics.median(one[kind][0]) for one in turns]
        found[kind] = {
            "median_ms": round(statistics.median(every), 3),
            "p99_ms": round(every[int(0.99 * (len(every) - 1))], 3),
            "processor_ms": round(statistics.median(one[kind][1] for one in turns), 3),
            "medians_of_turns_ms": [round(min(medians), 3), round(max(medians), 3)],
        }
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--postgres", metavar="URL")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        targets: dict[str, str | None] = {"memory": None, "sqlite": str(Path(folder) / "answers.db")}
        if options.postgres:
            targets["postgresql"] = options.postgres
        results = {name: figures(measure(target, options)) for name, target in targets.items()}
    report = {
        "provenance": provenance(),
        "calls": options.calls,
        "repeats": options.repeats,
        "results": results,
    }
    print(json.dumps(report, indent=2))
    slow = [name for name, found in results.items() if found["hit"]["median_ms"] > HIT_MS]
    print(f"a hit within {HIT_MS:g} ms: {'not with ' + ', '.join(slow) if slow else 'yes'}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(target: str | None, options: argparse.Namespace) -> list[dict[str, Timed]]:
    """Measure one store several times."""
    return [asyncio.run(turn(target, options.calls, f"benchmark-{n}")) for n in range(options.repeats)]


if __name__ == "__main__":
    main()
