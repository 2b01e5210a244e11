"""The parts of OpenAI's answers, made of analyses of models in process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cert.services.hamiltonian.passthrough.asking import Asked
from cert.trajectory.streaming import StreamedToken
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["finish_of", "frame_of", "logprobs_of", "piece_logprobs", "usage_of"]

# What stands for a probability of 0 in this API.
_LEAST = -9999.0


def frame_of(identifier: str, created: int, model: str, kind: str) -> dict[str, Any]:
    """Return what every answer and chunk begins with."""
    return {"id": identifier, "object": kind, "created": created, "model": model}


def finish_of(analysis: TrajectoryAnalysis) -> str:
    """Return why an answer ended, in OpenAI's words."""
    return "stop" if analysis.generation.finish_reason == "stop" else "length"


def usage_of(analyses: Sequence[TrajectoryAnalysis]) -> dict[str, int]:
    """Return the tokens of all choices together; the prompt counts once."""
    prompt = max((analysis.generation.prompt_tokens or 0 for analysis in analyses), default=0)
    made = sum(a.generation_steps + (a.generation.stop_step is not None) for a in analyses)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def logprobs_of(analysis: TrajectoryAnalysis, asked: Asked) -> dict[str, Any] | None:
    """Return the log-probabilities of an answer, as far as the caller asked for them."""
    if not asked.logprobs:
        return None
    generation = analysis.generation
    steps, name = generation.steps, generation.vocabulary.text
    content = []
    for text, own, ids, logprobs in zip(
        generation.tokens,
        steps.logprob.tolist(),
        steps.top_ids.tolist(),
        steps.top_logprobs.tolist(),
        strict=True,
    ):
        pairs = list(zip(ids, logprobs, strict=True))[: asked.top_logprobs]
        top = [_entry(name(token_id), logprob) for token_id, logprob in pairs]
        content.append(_entry(text, own) | {"top_logprobs": top})
    return {"content": content, "refusal": None}


def piece_logprobs(token: StreamedToken, asked: Asked) -> dict[str, Any] | None:
    """Return that of one token of a stream, without candidates."""
    if not asked.logprobs or token.metrics is None:
        return None
    entry = _entry(token.text, -token.metrics.surprisal) | {"top_logprobs": []}
    return {"content": [entry], "refusal": None}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    finite = logprob if math.isfinite(logprob) else _LEAST
    return {"token": text, "logprob": finite, "bytes": list(text.encode())}
