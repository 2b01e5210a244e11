"""What watching costs here and in a peer library, on the same model, prompts and tokens, in one run.

    pip install lm-polygraph            # in an environment of its own: it brings some 150 packages
    python benchmarks/peers.py [--repeats 5] [--tokens 64] [--out benchmarks/results/peers.json]

The peer is LM-Polygraph, used as its documentation shows, with three of its estimators that need one greedy
generation (maximum sequence probability, perplexity, mean token entropy). The model is a Qwen2 with random
weights and a vocabulary of 151,936 (see overhead.py). The contestants take turns; relative speed is that of
plain `generate` on the same ids in the same round. The numbers of both libraries are compared as well: they
must mean the same for the speeds to be comparable. LM-Polygraph's logarithms are of the processed scores;
greedy decoding leaves those raw here. Attentions and hidden states, which the peer keeps by default and these
estimators do not read, are switched off.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_polygraph.defaults.register_default_stat_calculators import register_default_stat_calculators
from lm_polygraph.estimators import MaximumSequenceProbability, MeanTokenEntropy, Perplexity
from lm_polygraph.utils.builder_enviroment_stat_calculator import BuilderEnvironmentStatCalculator
from lm_polygraph.utils.dataset import Dataset
from lm_polygraph.utils.generation_parameters import GenerationParameters
from lm_polygraph.utils.manager import UEManager
from lm_polygraph.utils.model import WhiteboxModel
from overhead import build_model, prompts
from provenance import provenance

from cert.backends import GenerationRequest
from cert.backends.local import LocalBackend
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.types import TrajectoryConfig

Numbers = list[tuple[float, float, float]]


def contestants(backend: LocalBackend, batch: int, tokens: int) -> dict[str, Callable[[], Numbers]]:
    """Return what is timed, each giving (sequence log-probability, mean surprisal, mean entropy) of each row.

    The peer's `Perplexity` is the mean surprisal, the logarithm of what is called perplexity elsewhere.
    """
    texts = prompts(batch)
    requests = [GenerationRequest(text, max_new_tokens=tokens) for text in texts]
    ids = torch.tensor([backend.encoder.encode(request.prompt) for request in requests])
    config = TrajectoryConfig()
    peer_model = WhiteboxModel(
        backend.model, backend.tokenizer, "random Qwen2", "CausalLM",
        generation_parameters=GenerationParameters(max_new_tokens=tokens, do_sample=False),
    )  # fmt: skip

    def unwatched() -> Numbers:
        options = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        backend.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return []

    def ours() -> Numbers:
        analyses = [analyze_generation(g, config) for g in backend.generate_batch(requests)]
        return [(a.signals.sequence_logprob, a.signals.mean_surprisal, a.avg_entropy) for a in analyses]

    def peer() -> Numbers:
        estimators = [MaximumSequenceProbability(), Perplexity(), MeanTokenEntropy()]
        manager = UEManager(
            Dataset(texts, [""] * batch, batch_size=batch), peer_model, estimators,
            available_stat_calculators=register_default_stat_calculators(
                "Whitebox", output_attentions=False, output_hidden_states=False
            ),
            builder_env_stat_calc=BuilderEnvironmentStatCalculator(peer_model),
            generation_metrics=[], ue_metrics=[], processors=[],
            ignore_exceptions=False, verbose=False, max_new_tokens=tokens,
        )  # fmt: skip
        manager()
        columns = [manager.estimations[e.level, str(e)] for e in estimators]
        return [(-float(a), float(b), float(c)) for a, b, c in zip(*columns, strict=True)]

    return {"unwatched": unwatched, "cert": ours, "lm_polygraph": peer}


def compare(backend: LocalBackend, batch: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Time the contestants in turns."""
    runs = contestants(backend, batch, tokens)
    numbers = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name in list(runs) if repeat % 2 == 0 else list(reversed(runs)):
            gc.collect()
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    pairs = zip(numbers["cert"], numbers["lm_polygraph"], strict=True)
    apart = [tuple(abs(x - y) for x, y in zip(a, b, strict=True)) for a, b in pairs]
    result: dict[str, Any] = {
        "batch": batch,
        "tokens": tokens,
        "repeats": repeats,
        "largest_difference": dict(
            zip(("sequence_logprob", "mean_surprisal", "mean_entropy"), map(max, zip(*apart, strict=True)),
                strict=True)
        ),
    }  # fmt: skip
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(seconds["unwatched"], values, strict=True)]
        result[name] = {
            "tokens_per_second": round(batch * tokens / statistics.median(values), 2),
            "relative_speed": [round(x, 4) for x in (min(ratios), statistics.median(ratios), max(ratios))],
        }
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    ran_on = provenance()
    ran_on["torch_threads"] = torch.get_num_threads()
    ran_on["packages"]["lm-polygraph"] = importlib.metadata.version("lm-polygraph")
    backend = build_model()
    result = {
        "ran_on": ran_on,
        "parameters": sum(p.numel() for p in backend.model.parameters()),
        "runs": [compare(backend, batch, arguments.tokens, arguments.repeats) for batch in (1, 8)],
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
