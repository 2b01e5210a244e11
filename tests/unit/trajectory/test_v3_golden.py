"""Every field of version 3 against another calculation: a plain forward pass in double precision."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from cert.reference import weights
from cert.reference.world import load_world
from cert.trajectory.v3 import ReasoningTrajectoryMonitor, TrajectoryConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* is version 3's:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:version 3's entropy rule cannot fail"),
]

PROMPT = "The birth city of"
# Single precision in the model's forward pass; the signals themselves are in double precision.
CLOSE: dict[str, Any] = {"rtol": 3e-4, "atol": 3e-6}


@pytest.fixture(scope="module")
def loaded():
    """The reference model, loaded without any code of ours."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(weights.path(), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(weights.path())


def distributions(loaded, prompt, ids):
    """p(token t | prompt and tokens before t) for each generated token, (T, V), in double precision."""
    model, tokenizer = loaded
    exact = copy.deepcopy(model).double()
    prompt_ids = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        logits = exact(torch.tensor([prompt_ids + ids])).logits[0]
    return torch.softmax(logits[len(prompt_ids) - 1 : -1], dim=-1).numpy()


def by_hand(p, ids, k):
    """Version 3's columns, written down once more from their definitions."""
    rows = []
    surprise = 0.0
    for row, token_id in zip(p, ids, strict=True):
        chosen = row[token_id]
        largest = sorted(row, reverse=True)[:k]
        if chosen < 0.1:
            surprise += math.log(1 / chosen)
        entropy = sum(q * math.log(1 / q) for q in largest)
        rows.append((1 / chosen, entropy, largest[0] - largest[1], surprise))
    return np.array(rows)


@pytest.mark.parametrize(
    ("seed", "temperature", "k"), [(1, 0.7, 10), (2, 1.0, 10), (3, 1.8, 4), (4, 3.0, 25)]
)
def test_every_field_is_what_its_definition_says(loaded, seed, temperature, k):
    """Dashboards and thresholds of version 3 are built on these numbers."""
    model, tokenizer = loaded
    config = TrajectoryConfig(temperature=temperature, top_k=k, max_new_tokens=40, entropy_threshold=1.0)
    monitor = ReasoningTrajectoryMonitor(model, tokenizer, config)
    result = monitor.monitor_generation(PROMPT, seed=seed)
    ids = result.analysis.generation.steps.token_ids.tolist()
    assert result.generation_steps == len(ids) > 2
    table = by_hand(distributions(loaded, PROMPT, ids), ids, k)
    names = ("perplexity", "top_k_entropy", "logit_gap", "cumulative_surprise")
    for column, name in zip(table.T, names, strict=True):
        np.testing.assert_allclose([getattr(m, name) for m in result.metrics], column, **CLOSE, err_msg=name)
    perplexity, entropy, _, surprise = table.T
    expected = {
        "avg_perplexity": perplexity.mean(),
        "max_perplexity": perplexity.max(),
        "avg_entropy": entropy.mean(),
        "max_entropy": entropy.max(),
        "final_surprise": surprise[-1],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(result, name), value, **CLOSE, err_msg=name)
        np.testing.assert_allclose(result.to_dict()["summary"][name], value, **CLOSE, err_msg=name)
    passed = bool(perplexity.mean() <= 50.0 and entropy.max() <= 1.0 and surprise[-1] <= 10.0)
    assert result.passed_quality_check is passed
    assert [m.step for m in result.metrics] == list(range(len(ids)))
    assert (result.prompt, result.generated_text) == (PROMPT, tokenizer.decode(ids))
    assert "".join(m.token for m in result.metrics) == result.generated_text


def test_the_cases_above_reach_what_they_test(loaded):
    """A surprise of 0 everywhere, or one verdict alone, would leave the golden test empty."""
    model, tokenizer = loaded
    config = TrajectoryConfig(temperature=3.0, top_k=25, max_new_tokens=40, entropy_threshold=1.0)
    hot = ReasoningTrajectoryMonitor(model, tokenizer, config).monitor_generation(PROMPT, seed=4)
    assert hot.final_surprise > 10.0
    assert hot.verdict == "fail"
    fact = next(fact for fact in load_world().facts if fact.exposures == 512)
    calm = ReasoningTrajectoryMonitor(model, tokenizer).monitor_generation(fact.sentence_prefix(), 5, 0.0)
    assert calm.verdict == "pass"


def test_the_watched_sample_is_the_plain_one(loaded):
    """Watching must not change what is generated: same seed, same tokens as model.generate."""
    model, tokenizer = loaded
    inputs = tokenizer(PROMPT, return_tensors="pt")
    monitor = ReasoningTrajectoryMonitor(model, tokenizer)
    for seed in range(3):
        torch.manual_seed(seed)
        plain = model.generate(**inputs, max_new_tokens=30, do_sample=True, temperature=0.7)
        text = tokenizer.decode(plain[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert monitor.monitor_generation(PROMPT, 30, seed=seed).generated_text == text


def test_defaults_are_version_3_s(loaded):
    """0.7, K = 10, 150 tokens, 50, 2.5, 10 and 0.1: a program that set nothing gets the same settings."""
    model, tokenizer = loaded
    result = ReasoningTrajectoryMonitor(model, tokenizer).monitor_generation(PROMPT, 2)
    generation, config = result.analysis.generation, result.analysis.config
    assert generation.sampling is not None
    assert (generation.sampling.temperature, generation.steps.top_k) == (0.7, 10)
    assert (config.max_new_tokens, config.surprise_probability_threshold) == (150, 0.1)
    assert (result.perplexity_threshold, result.entropy_threshold, result.surprise_threshold) == (50, 2.5, 10)
