"""What watching costs: the same generation watched and unwatched, side by side in one run.

    python benchmarks/overhead.py [--repeats 9] [--tokens 96] [--out benchmarks/results/overhead.json]

The model is a Qwen2 of about 100 M parameters with random weights and a vocabulary of 151,936, greedy, in
float32. *Watched* is all that `HamiltonianMonitor.analyze` does (signals, gate, character offsets),
*unwatched* is plain ``generate`` on the same ids. The two take turns, which of them is first changes from
pair to pair, and the ratio is taken pair by pair, so that a machine that gets slower or faster hits both.
For scale, *kept scores* keeps every distribution (``output_scores``) and loops over them afterwards.

Memory is the peak of resident memory of a fresh process, 8 × 256 tokens, watched minus unwatched, on a model
of the same vocabulary with fewer other parameters, since watching takes memory by the vocabulary.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from provenance import provenance
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from cert.backends import GenerationRequest
from cert.backends.local import LocalBackend
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.types import TrajectoryConfig

VOCABULARY = 151_936
PROMPT_TOKENS = 16
TARGETS = {1: 0.97, 8: 0.95}
MEMORY_TARGET_MB = 20


def build_model(width: int = 512, layers: int = 8) -> LocalBackend:
    """Make the model and a tokenizer of one word an id."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    )
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model = Qwen2ForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
    return LocalBackend(model, tokenizer, name="random Qwen2")


def build_large(device: str) -> LocalBackend:
    """Make a model of the shape of Qwen2.5-7B with random weights in bfloat16 on a GPU."""
    torch.manual_seed(0)
    small = build_model(width=64, layers=1)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = Qwen2ForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = None
    return LocalBackend(model, small.tokenizer, name="random Qwen2.5-7B")


def prompts(batch: int) -> list[str]:
    """Return prompts of the same length, so that padding plays no part."""
    return [" ".join(f"w{1 + row * PROMPT_TOKENS + i}" for i in range(PROMPT_TOKENS)) for row in range(batch)]


def runs(backend: LocalBackend, batch: int, tokens: int) -> dict[str, Callable[[], Any]]:
    """Return the contestants, each giving the generated ids."""
    requests = [GenerationRequest(prompt, max_new_tokens=tokens) for prompt in prompts(batch)]
    ids = torch.tensor(
        [backend.encoder.encode(request.prompt) for request in requests], device=backend.model.device
    )
    options: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": tokens,
        "do_sample": False,
        "pad_token_id": 0,
    }
    config = TrajectoryConfig()

    def unwatched() -> list[list[int]]:
        return backend.model.generate(ids, **options)[:, PROMPT_TOKENS:].tolist()

    def watched() -> list[list[int]]:
        outcomes = backend.generate_batch(requests)
        return [analyze_generation(g, config).generation.steps.token_ids.tolist() for g in outcomes]

    def kept_scores() -> list[list[int]]:
        out = backend.model.generate(ids, **options, output_scores=True, return_dict_in_generate=True)
        chosen = out.sequences[:, PROMPT_TOKENS:]
        for step, scores in enumerate(out.scores):
            for row in range(batch):
                p = torch.softmax(scores[row], dim=-1)
                p[chosen[row, step]].item()
                top = torch.topk(p, k=20).values
                (-(top * torch.log(top + 1e-10)).sum()).item()
                (-(p * torch.log(p + 1e-10)).sum()).item()
        return chosen.tolist()

    return {"unwatched": unwatched, "watched": watched, "kept scores": kept_scores}


def compare(backend: LocalBackend, batch: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Time the contestants in turns and check that their tokens are the same."""
    contestants = runs(backend, batch, tokens)
    answers = {name: run() for name, run in contestants.items()}
    same = all(answer == answers["unwatched"] for answer in answers.values())
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        order = list(contestants) if repeat % 2 == 0 else list(reversed(contestants))
        for name in order:
            gc.collect()
            start = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - start)
    result: dict[str, Any] = {"batch": batch, "tokens": tokens, "repeats": repeats, "same_tokens": same}
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(seconds["unwatched"], values, strict=True)]
        result[name] = {
            "tokens_per_second": round(batch * tokens / statistics.median(values), 2),
            "relative_speed": [round(x, 4) for x in (min(ratios), statistics.median(ratios), max(ratios))],
        }
    return result


def peak_memory_mb(mode: str) -> float:
    """Return the peak resident memory of a fresh process that generates 8 × 256 tokens."""
    command = [sys.executable, __file__, "--memory-of", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def gpu_memory(run: Callable[[], Any], device: str) -> float:
    """Return the peak of a GPU's memory beyond what is there already, in MB."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)


def measure_memory(repeats: int) -> dict[str, Any]:
    """Compare the peaks of several processes of each kind."""
    peaks: dict[str, list[float]] = {"unwatched": [], "watched": []}
    for _ in range(repeats):
        for mode, values in peaks.items():
            values.append(peak_memory_mb(mode))
    extra = [a - b for a, b in zip(peaks["watched"], peaks["unwatched"], strict=True)]
    return {
        "batch": 8,
        "tokens": 256,
        "peak_mb": {mode: [round(v, 1) for v in values] for mode, values in peaks.items()},
        "extra_mb": [round(x, 1) for x in (min(extra), statistics.median(extra), max(extra))],
        "target_mb": MEMORY_TARGET_MB,
    }


def startup(repeats: int) -> dict[str, Any]:
    """Time ``import cert`` and ``cert --help`` as whole processes, beside an empty Python."""
    commands = {
        "empty python": [sys.executable, "-c", "pass"],
        "import cert": [sys.executable, "-c", "import cert"],
        "cert --help": [sys.executable, "-c", "from cert.cli.main import main; main()", "--help"],
    }
    result = {}
    for name, command in commands.items():
        values = []
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            values.append(time.perf_counter() - start)
        result[name] = [round(x, 3) for x in (min(values), statistics.median(values), max(values))]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=96, help="tokens at batch 1; fewer a row in a batch")
    parser.add_argument("--device", default="cpu", help="cuda: the shape of Qwen2.5-7B in bfloat16")
    parser.add_argument("--memory-repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", choices=("unwatched", "watched"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        runs(build_model(width=64, layers=2), 8, 256)[arguments.memory_of]()
        # Not ru_maxrss, which a process inherits from the one that started it.
        status = Path("/proc/self/status").read_text()
        print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
        return
    report: dict[str, Any] = {
        "benchmark": "overhead",
        "ran_on": provenance(),
        "threads": torch.get_num_threads(),
    }
    backend = build_model() if arguments.device == "cpu" else build_large(arguments.device)
    if arguments.device != "cpu":
        report["device"] = torch.cuda.get_device_name(arguments.device)
    report["parameters"] = backend.model.num_parameters()
    report["speed"] = []
    for batch, target in TARGETS.items():
        row = compare(backend, batch, max(32, arguments.tokens // batch), arguments.repeats) | {
            "target": target
        }
        report["speed"].append(row)
        print(f"batch {batch}: same tokens {row['same_tokens']}, target {target}", flush=True)
        for name in ("unwatched", "watched", "kept scores"):
            low, middle, high = row[name]["relative_speed"]
            speed = row[name]["tokens_per_second"]
            print(f"  {name:<12} {speed:>8} tokens/s, relative speed {middle} ({low} to {high})", flush=True)
    if arguments.device != "cpu":
        report["peak_gpu_memory_mb"] = {
            name: gpu_memory(run, arguments.device) for name, run in runs(backend, 8, 256).items()
        }
        print(f"peak GPU memory beyond the model {report['peak_gpu_memory_mb']} MB", flush=True)
        arguments.memory_repeats = 0
    report["startup_seconds"] = startup(arguments.repeats)
    for name, (low, middle, high) in report["startup_seconds"].items():
        print(f"{name:<12} {middle} s ({low} to {high})", flush=True)
    if arguments.memory_repeats:
        report["memory"] = measure_memory(arguments.memory_repeats)
        print(f"extra peak memory {report['memory']['extra_mb']} MB, target {MEMORY_TARGET_MB} MB")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
