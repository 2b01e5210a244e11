"""Answers of the reference model with our numbers beside them, for peers_formulas.py; see detection.py."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from detection_answers import SAMPLES, Answers, Array, starts_of
from detection_promises import USUAL_K

from cert.backends.base import Message
from cert.backends.local import LocalBackend
from cert.signals.distribution import reduce_logits
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.evaluation.metrics import auroc, prr

MOST: Final = 400
WHOLE: Final = 50
"""Answers of which the whole distributions are written."""
OURS: Final = (
    "sequence_logprob", "perplexity", "mean_surprisal", "max_surprisal", "mean_entropy_upper",
    "max_entropy_upper", "mean_top_k_entropy", "max_top_k_entropy", "mean_margin", "mean_self_certainty",
    "semantic_entropy_10", "semantic_entropy_unnormalized_10", "discrete_semantic_entropy_10",
    "predictive_entropy_10", "normalized_predictive_entropy_10",
)  # fmt: skip


def write_traces(folder: Path, answers: Answers, data: LabelledData, path: Path) -> None:
    """Write the first sampled answers: what was recorded of their tokens, and what we make of it.

    The file has no objects in it, so that reading it runs nothing.

    Args:
        folder: of the model.
        answers: of it.
        data: its greedy answers, with all signals.
        path: an ``.npz`` file.
    """
    chosen = answers.sampled[:MOST]
    starts = starts_of(answers.greedy.lengths)
    tokens = _tokens(starts[chosen], answers.greedy.lengths[chosen])
    steps = answers.greedy.steps
    firsts = starts_of(answers.samples.lengths)
    members = np.arange(len(chosen) * SAMPLES)
    sizes = answers.samples.lengths[members]
    arrays: dict[str, Array] = {
        "lengths": answers.greedy.lengths[chosen],
        "token_ids": steps.token_ids[tokens],
        "logprob": steps.logprob[tokens],
        "entropy": steps.entropy[tokens],
        "self_certainty": steps.self_certainty[tokens],
        "top_ids": steps.top_ids[tokens][:, :USUAL_K],
        "top_logprobs": steps.top_logprobs[tokens][:, :USUAL_K],
        "vocabulary": np.array(steps.vocab_size),
        "texts": np.array([answers.greedy.texts[place].strip() for place in chosen]),
        "questions": np.array([answers.facts[place].question() for place in chosen]),
        "wrong": ~data.correct[chosen],
        "sample_lengths": sizes,
        "sample_logprob": answers.samples.steps.logprob[_tokens(firsts[members], sizes)],
        "sample_texts": np.array([answers.samples.texts[member].strip() for member in members]),
    }
    whole = _distributions(folder, answers, chosen[:WHOLE])
    arrays["full_logprobs"] = whole
    lengths = arrays["lengths"][:WHOLE]
    # Of the distributions that are written: another batch of the same model differs from them by rounding.
    again = reduce_logits(whole, arrays["token_ids"][: len(whole)], 1)
    for name in ("entropy", "self_certainty"):
        arrays[f"ours.whole_{name}"] = np.add.reduceat(getattr(again, name), starts_of(lengths)) / lengths
    msp = -np.asarray(data.columns["sequence_logprob"])[chosen]
    arrays["ours.auroc_of_msp"] = np.array(auroc(msp, arrays["wrong"]))
    arrays["ours.prr_of_msp"] = np.array(prr(msp, arrays["wrong"], max_rejection=0.5))
    ours = {f"ours.{name}": np.asarray(data.columns[name])[chosen] for name in OURS}
    np.savez_compressed(path, **arrays, **ours)


def _distributions(folder: Path, answers: Answers, places: Array) -> Array:
    """Return the whole distribution of each token of some answers, (tokens, V), by one forward pass each."""
    backend = LocalBackend.load(str(folder))
    starts = starts_of(answers.greedy.lengths)
    found = []
    for place in places.tolist():
        prompt = backend.encoder.encode((Message("user", answers.facts[place].question()),))
        first = int(starts[place])
        ids = answers.greedy.steps.token_ids[first : first + int(answers.greedy.lengths[place])].tolist()
        with torch.inference_mode():
            logits = backend.model(torch.tensor([[*prompt, *ids]])).logits[0]
        before = logits[len(prompt) - 1 : len(prompt) - 1 + len(ids)]
        found.append(torch.log_softmax(before.float(), dim=-1).numpy())
    return np.concatenate(found)


def _tokens(starts: Array, lengths: Array) -> Array:
    return np.concatenate(
        [np.arange(a, a + n) for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    )
