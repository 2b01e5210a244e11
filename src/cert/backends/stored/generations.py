"""Rows of a Parquet file as generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from cert.backends.base import (
    FinishReason,
    Generation,
    LogprobsMode,
    Message,
    ModelIdentity,
    Prompt,
    Sampling,
)
from cert.backends.stored.blocks import StepBlock
from cert.backends.stored.checks import check_offsets, check_steps
from cert.backends.stored.items import record_error
from cert.backends.stored.own_analyses import RecordedTexts
from cert.core.errors import ConfigurationError, InputError
from cert.signals.steps import IntArray, TokenSteps

__all__ = ["MADE_COLUMNS", "ending_of", "generations", "model_of", "sampling_of"]

# What tells how an answer was made, besides K and the number of its tokens.
MADE_COLUMNS = (
    "finish_reason", "model", "revision", "backend", "vocab_size", "context_window", "device", "dtype",
    "logprobs_mode", "temperature", "top_p", "sampling_top_k", "seed",
)  # fmt: skip

_REASONS, _MODES = get_args(FinishReason), get_args(LogprobsMode)
_BULK = ("token_ids", "logprob", "top_ids", "top_logprobs", "entropy", "self_certainty")


def generations(
    batch: Any, blocks: Sequence[StepBlock], errors: dict[int, InputError]
) -> dict[int, Generation]:
    """Return the generations of a batch by row; what is wrong otherwise is added to the errors."""
    names = [name for name in batch.schema.names if name not in _BULK]
    columns = {name: batch.column(name).to_pylist() for name in names}
    found = {}
    for block in blocks:
        stop = np.cumsum(block.lengths).tolist()
        for row, length, end in zip(block.rows.tolist(), block.lengths.tolist(), stop, strict=True):
            if row in errors:
                continue
            try:
                fields = {name: column[row] for name, column in columns.items()}
                found[row] = _generation(fields, _own(block.steps[end - length : end]))
            except InputError as error:
                errors[row] = error
            except (ConfigurationError, ValueError, TypeError, OverflowError) as error:
                errors[row] = record_error(f"the row has a value out of range: {type(error).__name__}")
    return found


def _own(steps: TokenSteps) -> TokenSteps:
    """Return steps that do not hold the memory of the whole batch."""
    return TokenSteps(
        token_ids=steps.token_ids.astype(np.int64),
        logprob=steps.logprob.copy(),
        top_ids=steps.top_ids.astype(np.int64),
        top_logprobs=steps.top_logprobs.copy(),
        entropy=steps.entropy.copy(),
        self_certainty=steps.self_certainty.copy(),
        vocab_size=steps.vocab_size,
    )


def _generation(row: dict[str, Any], steps: TokenSteps) -> Generation:
    text = row.get("text")
    if not isinstance(text, str):
        raise record_error("the row has no text")
    reason, mode = ending_of(row)
    offsets = _offsets(row, len(steps))
    check_offsets(offsets, text)
    vocabulary = {item["id"]: item["text"] or "" for item in row.get("vocabulary") or () if item}
    return Generation(
        prompt=_prompt(row),
        text=text,
        steps=steps,
        offsets=offsets,
        finish_reason=reason,
        stop_step=_stop(row, steps.vocab_size),
        prompt_tokens=row.get("prompt_tokens"),
        sampling=sampling_of(row),
        model=model_of(row),
        logprobs_mode=mode,
        vocabulary=RecordedTexts(vocabulary),
        duration_s=row.get("duration_s"),
        token_ids_known=row.get("token_ids_known") is not False,
    )


def ending_of(row: Mapping[str, Any]) -> tuple[FinishReason, LogprobsMode]:
    """Return how an answer ended and of which kind its log-probabilities are.

    Raises:
        InputError: no such name is known.
    """
    reason: Any = row.get("finish_reason") or "unknown"
    mode: Any = row.get("logprobs_mode") or "unknown"
    if reason not in _REASONS or mode not in _MODES:
        raise record_error("the row has an unknown finish_reason or logprobs_mode")
    return reason, mode


def _offsets(row: dict[str, Any], length: int) -> IntArray:
    """Return the spans of the tokens; without any, all are empty and at the start."""
    start, end = row.get("start"), row.get("end")
    if start is None and end is None:
        return np.zeros((length, 2), dtype=np.int64)
    if start is None or end is None or not len(start) == len(end) == length or None in start + end:
        raise record_error("start or end has not the length that fits")
    return np.ascontiguousarray(np.array([start, end], dtype=np.int64).T)


def _prompt(row: dict[str, Any]) -> Prompt | None:
    messages = row.get("messages")
    if messages is None:
        return row.get("prompt")
    if any(not m or m["role"] is None or m["content"] is None for m in messages):
        raise record_error("a message has no role or no content")
    return tuple(Message(m["role"], m["content"]) for m in messages)


def sampling_of(row: Mapping[str, Any]) -> Sampling | None:
    """Return how tokens were chosen; ``None`` where the row does not say.

    Raises:
        ConfigurationError: a value out of range.
    """
    if row.get("temperature") is None:
        return None
    return Sampling(row["temperature"], row.get("top_p"), row.get("sampling_top_k"), row.get("seed"))


def model_of(row: Mapping[str, Any]) -> ModelIdentity:
    """Return which model answered, as far as the row says."""
    return ModelIdentity(
        name=row.get("model") or "unknown",
        revision=row.get("revision"),
        backend=row.get("backend") or "stored",
        vocab_size=row.get("vocab_size"),
        context_window=row.get("context_window"),
        device=row.get("device"),
        dtype=row.get("dtype"),
    )


def _stop(row: dict[str, Any], vocab_size: int | None) -> TokenSteps | None:
    if row.get("stop_id") is None:
        return None
    ids, logprobs = row.get("stop_top_ids") or [], row.get("stop_top_logprobs") or []
    missing = [np.nan if value is None else value for value in logprobs]
    step = TokenSteps.build(
        token_ids=[row["stop_id"]],
        logprob=[_known(row.get("stop_logprob"))],
        top_ids=[ids],
        top_logprobs=[missing],
        entropy=[_known(row.get("stop_entropy"))],
        self_certainty=[_known(row.get("stop_self_certainty"))],
        vocab_size=vocab_size,
    )
    check_steps(step)
    return step


def _known(value: float | None) -> float:
    return np.nan if value is None else value
