"""What is asked of a server and how its answer is told, between our requests and its JSON."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cert.backends.api_records import ApiRecord, ReadOptions, read_response
from cert.backends.base import (
    FinishReason,
    GenerationRequest,
    Prompt,
    Sampling,
    ScoreRequest,
)
from cert.backends.openai_server.dialects import Dialect
from cert.core.errors import InputError, UpstreamProtocolError

__all__ = ["generation_body", "prompt_texts", "read_score", "reason_of", "score_body", "settled"]

# A seed that is drawn here is one that every server takes.
_SEED_BITS = 31


def settled(sampling: Sampling, dialect: Dialect) -> Sampling:
    """Return how a request is really sampled: with a seed, if the server takes one."""
    if sampling.greedy or not dialect.seeds:
        return replace(sampling, seed=None)
    return sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbits(_SEED_BITS))


def generation_body(
    request: GenerationRequest, model: str, dialect: Dialect, sampling: Sampling, top_logprobs: int
) -> dict[str, Any]:
    """Return the body of a request, without ``stream``.

    Args:
        request: what is wanted.
        model: as the server names it.
        dialect: of the server.
        sampling: as it is settled.
        top_logprobs: candidates to ask for, at least those that are wanted.
    """
    body: dict[str, Any] = {"model": model, "temperature": sampling.temperature}
    if isinstance(request.prompt, str):
        body |= {"prompt": request.prompt, "max_tokens": request.max_new_tokens, "logprobs": top_logprobs}
    else:
        messages = [{"role": message.role, "content": message.content} for message in request.prompt]
        body |= {"messages": messages, dialect.limit_field: request.max_new_tokens}
        body |= {"logprobs": True, "top_logprobs": top_logprobs}
    for name in ("top_p", "top_k", "seed"):
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    return body


def score_body(request: ScoreRequest, model: str, echo_tokens: int) -> dict[str, Any]:
    """Return the body that has a text that follows a plain prompt read by the model."""
    assert isinstance(request.prompt, str)
    assert request.completion is not None
    return {
        "model": model,
        "prompt": request.prompt + request.completion,
        "echo": True,
        "max_tokens": echo_tokens,
        # Some servers take 0 for no log-probabilities at all.
        "logprobs": max(1, request.top_logprobs),
        # As the model has it: nothing between its logits and the numbers.
        "temperature": 1.0,
        "top_p": 1.0,
    }


def read_score(data: bytes, request: ScoreRequest, options: ReadOptions) -> ApiRecord:
    """Read an echoed text and keep of it what follows the prompt.

    Raises:
        InputError: the server's tokens do not separate prompt and completion.
        UpstreamProtocolError: it is not the text that was sent, or has no log-probabilities.
    """
    record = read_response(data, options)[0]
    assert isinstance(request.prompt, str)
    assert request.completion is not None
    given = request.prompt + request.completion
    if not record.text.startswith(given):
        raise UpstreamProtocolError(
            "the server does not echo the text that it was sent", context={"retry": False}
        )
    start, end = len(request.prompt), len(given)
    spans: list[list[int]] = record.offsets.tolist()
    if any(first < start < last for first, last in spans):
        raise InputError(
            "the server's tokenizer joins the end of the prompt and the start of the text in one token",
            hint="move the blank between them from the prompt's end to the text's start",
        )
    kept = [
        place for place, (first, last) in enumerate(spans) if first >= start and last <= end and last > first
    ]
    part = slice(kept[0], kept[-1] + 1) if kept else slice(0, 0)
    return replace(
        record,
        text=request.completion,
        steps=record.steps[part],
        offsets=record.offsets[part] - start,
        finish_reason="given",
        stop_step=None,
    )


def prompt_texts(prompt: Prompt) -> Sequence[str]:
    """Return all texts of a prompt, which no error may quote."""
    return [prompt] if isinstance(prompt, str) else [message.content for message in prompt]


def reason_of(record: ApiRecord, asked: int) -> FinishReason:
    """Return why an answer ended; one cut before the tokens asked for met the end of the context window."""
    if record.finish_reason != "length":
        return record.finish_reason
    counted = record.completion_tokens
    return "context_window" if (len(record.steps) if counted is None else counted) < asked else "length"
