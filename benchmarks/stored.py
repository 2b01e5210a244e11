"""How fast stored records are analysed on one core, and in how much memory.

    python benchmarks/stored.py [--repeats 7] [--out benchmarks/results/stored.json]

The records are made: answers of 20 to 180 tokens with K = 20 candidates, words by Zipf's law, the chosen
token outside the candidates in about 1 of 100 steps, log-probabilities with the digits of a float32.
*From JSONL* they are chat completions as an OpenAI-compatible server writes them (texts, bytes and
log-probabilities of all candidates), read, checked, analysed and judged; *from Parquet* the same generations
in our own form. *At once* is `summarise_stored`, a table of signals and verdicts; *one by one* is
`analyze_stored`, an analysis with all signals of every token.

One process, one thread. Tokens a second are given by the processor's time of the process, since the machine
may be shared, and by the wall clock; processor's time too is longer where others use the same core or its
caches, so that the largest figure is the nearest to what the program alone takes. Memory is
the peak of resident memory of a fresh process, over a file and over one of ten times the size.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from provenance import provenance

from cert.backends.api_schema import decode_response
from cert.backends.stored import StoredOptions, read_stored
from cert.backends.stored.parquet import read_batches
from cert.backends.stored.parquet_schema import STEP_COLUMNS
from cert.backends.stored.parquet_write import GenerationWriter
from cert.trajectory.stored import analyze_stored, summarise_stored

K = 20
TARGETS = {"jsonl, at once": 60_000, "parquet, at once": 1_000_000}
GENERATIONS = {"jsonl": 300, "parquet": 3_000}


def vocabulary(rng: np.random.Generator, size: int = 30_000) -> list[str]:
    """Make words of the length that tokens have."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words: dict[str, None] = {}
    while len(words) < size:
        word = "".join(rng.choice(letters, size=int(rng.integers(2, 8))))
        words[(" " if rng.random() < 0.7 else "") + word] = None
    return list(words)


def response(rng: np.random.Generator, words: list[str]) -> dict[str, Any]:
    """Make one chat completion."""
    content, text = [], ""
    rank = np.log(np.arange(1, len(words) + 1))  # candidates follow Zipf's law, as words do
    for _ in range(int(rng.integers(20, 181))):
        logits = np.sort(rng.exponential(5.0, size=60))[::-1]
        logprobs = np.float32(logits - np.log(np.exp(logits).sum())).tolist()
        ids = np.argpartition(rng.gumbel(size=len(words)) - rank, -K - 1)[-K - 1 :]
        tokens = [
            {"token": words[i], "logprob": p, "bytes": list(words[i].encode())}
            for i, p in zip(ids, logprobs, strict=False)
        ]
        chosen = K if rng.random() < 0.01 else min(int(rng.exponential(0.5)), K - 1)
        content.append({**tokens[chosen], "top_logprobs": tokens[:K]})
        text += words[ids[chosen]]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": {"content": content, "refusal": None},
        "finish_reason": "length",
    }
    usage = {"prompt_tokens": 12, "completion_tokens": len(content), "total_tokens": 12 + len(content)}
    return {
        "id": "chatcmpl-0", "object": "chat.completion", "created": 1_700_000_000, "model": "made",
        "choices": [choice], "usage": usage, "system_fingerprint": "fp_0",
    }  # fmt: skip


def write_files(folder: Path) -> dict[str, Any]:
    """Write both files and their tenfold, and return the tokens in each."""
    rng = np.random.default_rng(0)
    words = vocabulary(rng)
    lines = [json.dumps(response(rng, words), separators=(",", ":")) for _ in range(GENERATIONS["jsonl"])]
    (folder / "1.jsonl").write_text("\n".join(lines) + "\n")
    with (folder / "10.jsonl").open("w") as stream:
        for _ in range(10):
            stream.write("\n".join(lines) + "\n")
    generations = [item.unwrap() for item in read_stored(folder / "1.jsonl")]
    rounds = GENERATIONS["parquet"] // GENERATIONS["jsonl"]
    with GenerationWriter(folder / "1.parquet") as writer:
        for _ in range(rounds):
            for generation in generations:
                writer.write(generation)
    repeat_groups(folder / "1.parquet", folder / "10.parquet", 10)
    tokens = sum(len(generation.steps) for generation in generations)
    outside = sum(int((g.steps.top_ids != g.steps.token_ids[:, None]).all(axis=1).sum()) for g in generations)
    return {
        "jsonl": tokens,
        "parquet": tokens * rounds,
        "chosen outside the top K": round(outside / tokens, 4),
        "bytes a token": {
            "jsonl": round((folder / "1.jsonl").stat().st_size / tokens),
            "parquet": round((folder / "1.parquet").stat().st_size / tokens / rounds),
        },
    }


def repeat_groups(source: Path, target: Path, times: int) -> None:
    """Copy a Parquet file's row groups several times over."""
    with (
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(target, file.schema_arrow, compression="lz4", use_dictionary=False) as writer,
    ):
        for _ in range(times):
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))


def contestants(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return what is timed; the parts that every reader has to do are there for scale."""
    jsonl, parquet = folder / "1.jsonl", folder / "1.parquet"

    def exhausted(items: Iterator[Any]) -> None:
        for _ in items:
            pass

    def decoded() -> None:
        with jsonl.open("rb") as stream:
            for line in stream:
                decode_response(line)

    return {
        "jsonl, at once": lambda: exhausted(summarise_stored(jsonl)),
        "jsonl, one by one": lambda: exhausted(analyze_stored(jsonl)),
        "jsonl, read alone": lambda: exhausted(read_stored(jsonl)),
        "jsonl, JSON decoded alone": decoded,
        "parquet, at once": lambda: exhausted(summarise_stored(parquet)),
        "parquet, columns decoded alone": lambda: exhausted(
            read_batches(parquet, StoredOptions(), STEP_COLUMNS)
        ),
    }


def timed(runs: dict[str, Callable[[], Any]], tokens: dict[str, int], repeats: int) -> dict[str, Any]:
    """Return tokens a second by both clocks; the contestants take turns, so that a busy time hits all."""
    rates: dict[str, tuple[list[float], list[float]]] = {what: ([], []) for what in runs}
    for repeat in range(repeats + 1):
        for what, run in runs.items():
            start, start_wall = time.process_time(), time.perf_counter()
            run()
            n = tokens[what.split(",")[0]]
            if repeat:  # the first warms up
                rates[what][0].append(n / (time.process_time() - start))
                rates[what][1].append(n / (time.perf_counter() - start_wall))
    return {
        what: {
            "tokens_per_second_of_processor": described(processor),
            "tokens_per_second_of_wall": described(wall),
            "target": TARGETS.get(what),
        }
        for what, (processor, wall) in rates.items()
    }


def described(values: list[float]) -> dict[str, int]:
    """Return the middle and the ends."""
    return {"median": round(statistics.median(values)), "min": round(min(values)), "max": round(max(values))}


def peak_memory(path: Path) -> float:
    """Return the peak of a fresh process that summarises a file, in MB."""
    program = [sys.executable, __file__, "--memory-of", str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return round(int(done.stdout) / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    if arguments.memory_of:
        for _ in summarise_stored(arguments.memory_of):
            pass
        # Not ru_maxrss, which a process inherits from the one that started it.
        status = Path("/proc/self/status").read_text()
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        return
    result: dict[str, Any] = {"what": "stored records on one core", **provenance()}
    result["packages"] |= {name: importlib.metadata.version(name) for name in ("msgspec", "pyarrow")}
    result["note"] = "a shared virtual machine: other programs ran at the same time"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["tokens"] = written = write_files(folder)
        result["repeats"] = arguments.repeats
        result["speed"] = timed(contestants(folder), written, arguments.repeats)
        for what, found in result["speed"].items():
            print(what, found["tokens_per_second_of_processor"], found["tokens_per_second_of_wall"])
        result["peak_memory_mb"] = {
            kind: {f"{times}x": peak_memory(folder / f"{times}.{kind}") for times in (1, 10)}
            for kind in ("jsonl", "parquet")
        }
    result["load_average_after"] = os.getloadavg()[0]
    print(json.dumps(result["peak_memory_mb"]))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
