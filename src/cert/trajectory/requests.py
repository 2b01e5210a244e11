"""What callers pass, checked once for every entry point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cert.backends.base import GenerationRequest, Message, Prompt, Sampling, ScoreRequest
from cert.core.errors import InputError, PromptTooLongError
from cert.trajectory.types import TrajectoryConfig

__all__ = ["PromptLike", "check_prompt", "generation_request", "score_request"]

PromptLike: TypeAlias = str | Sequence[Message | Mapping[str, str]]


def generation_request(
    prompt: object,
    config: TrajectoryConfig,
    *,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    sampling_top_k: int | None = None,
    seed: int | None = None,
) -> GenerationRequest:
    """Return the request of one generation; ``None`` takes the config's value.

    Raises:
        InputError: the prompt is no text, empty, over the limit or cannot be encoded.
        ConfigurationError: an option outside its range.
    """
    return GenerationRequest(
        prompt=check_prompt(prompt, config.max_prompt_chars),
        max_new_tokens=config.max_new_tokens if max_new_tokens is None else max_new_tokens,
        sampling=Sampling(
            temperature=config.temperature if temperature is None else temperature,
            top_p=config.top_p if top_p is None else top_p,
            top_k=config.sampling_top_k if sampling_top_k is None else sampling_top_k,
            seed=seed,
        ),
        top_logprobs=config.top_k,
    )


def score_request(
    prompt: object,
    config: TrajectoryConfig,
    *,
    completion: str | None = None,
    token_ids: Sequence[int] | None = None,
) -> ScoreRequest:
    """Return the request to score a text.

    Messages that end with one of the assistant need no completion: that message is the text to score.

    Raises:
        InputError: as `generation_request`; neither or both of ``completion`` and ``token_ids`` are given.
    """
    checked = check_prompt(prompt, config.max_prompt_chars)
    if completion is None and token_ids is None and not isinstance(checked, str):
        if len(checked) < 2 or checked[-1].role != "assistant":
            raise InputError("give a completion, or messages that end with one of the assistant")
        checked, completion = checked[:-1], checked[-1].content
    if (completion is None) == (token_ids is None):
        raise InputError("give a completion or its token ids, and just one of them")
    if completion is not None:
        _check_text(completion, "completion")
    elif any(type(token_id) is not int for token_id in token_ids or ()):
        raise InputError("token ids must be whole numbers")
    return ScoreRequest(
        prompt=checked,
        completion=completion,
        token_ids=None if token_ids is None else tuple(token_ids),
        top_logprobs=config.top_k,
    )


def check_prompt(prompt: object, max_chars: int) -> Prompt:
    """Return the prompt as backends take it.

    Raises:
        InputError: it is neither text nor messages, is empty or blank, or holds lone surrogates.
        PromptTooLongError: it has more than ``max_chars`` characters.
    """
    if isinstance(prompt, str):
        checked: Prompt = prompt
    elif isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        checked = tuple(_message(entry) for entry in prompt)
    else:
        raise InputError(f"the prompt must be text or a list of messages, not {type(prompt).__name__}")
    text = checked if isinstance(checked, str) else "".join(message.content for message in checked)
    if not text.strip():
        raise InputError("the prompt is empty")
    if len(text) > max_chars:
        raise PromptTooLongError(
            f"the prompt has {len(text):,} characters and the limit is {max_chars:,}",
            hint="shorten it, or raise max_prompt_chars in TrajectoryConfig",
            context={"chars": len(text), "limit": max_chars},
        )
    roles = "" if isinstance(checked, str) else "".join(message.role for message in checked)
    _check_text(text + roles, "prompt")
    return checked


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"the {what} must be text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the {what} is not valid Unicode: lone surrogate at character {error.start}"
        ) from error


def _message(entry: object) -> Message:
    role: object = None
    content: object = None
    if isinstance(entry, Message):
        role, content = entry.role, entry.content
    elif isinstance(entry, Mapping):
        role, content = entry.get("role"), entry.get("content")
    if isinstance(role, str) and isinstance(content, str):
        return Message(role, content)
    raise InputError("a message must have a role and a content, both text")
