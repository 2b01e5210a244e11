"""Answers in the place of those that are kept back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from cert.services.hamiltonian.passthrough.stripping import Answer, read_answer

__all__ = ["replace_chunks", "replace_whole"]

# What OpenAI's API says of an answer that was taken out.
_FINISH = "content_filter"


def replace_whole(answer: Answer, indexes: Collection[int], text: str) -> None:
    """Put a text in the place of some choices."""
    message = {"role": "assistant", "content": text, "refusal": None}
    for place in range(len(answer.choices)):
        if answer.index_of(place) in indexes:
            changes = {"message": message, "finish_reason": _FINISH, "logprobs": None}
            answer.replace_choice(place, changes)


def replace_chunks(chunks: Sequence[Answer], indexes: Collection[int], text: str) -> Iterator[Answer]:
    """Yield the chunks of a stream with a text in the place of some choices."""
    if not chunks:
        return
    for index in sorted(indexes):
        yield _chunk(chunks[0], index, {"role": "assistant", "content": text}, None)
        yield _chunk(chunks[0], index, {}, _FINISH)
    for chunk in chunks:
        kept = [one for place, one in enumerate(chunk.choices) if chunk.index_of(place) not in indexes]
        if len(kept) == len(chunk.choices):
            yield chunk
        elif kept:
            chunk.choices = kept
            chunk.changed = True
            yield chunk


def _chunk(like: Answer, index: int, delta: dict[str, Any], finish: str | None) -> Answer:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    fields = {name: like.fields[name] for name in ("id", "object", "created", "model") if name in like.fields}
    return read_answer(msgspec.json.encode({**fields, "choices": [choice]}))
