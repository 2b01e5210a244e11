"""Scoring an answer to messages, by the log-probabilities that vLLM gives of prompts.

The answer goes to the server as the last message, left open, and so becomes a part of the prompt. Where it
begins is told by the number of tokens that the messages before it have by themselves.

Sources: ``prompt_logprobs``, ``continue_final_message`` and ``add_generation_prompt`` in
https://docs.vllm.ai/en/stable/serving/openai_compatible_server/ and
https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/chat_completion/protocol.py. Each
position is an object of token ids, the token that stands there first, then the K likeliest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from cert.backends.api_records import ApiRecord, ReadOptions, read_response
from cert.backends.api_schema import Usage, decode_response
from cert.backends.base import Message, ScoreRequest
from cert.core.errors import InputError, UpstreamProtocolError

__all__ = ["answer_body", "opening_body", "read_answer", "tokens_before"]

_PART = "\ufffd"  # stands in the text of a token for bytes that make no whole character


class _Token(msgspec.Struct, gc=False):
    logprob: float | None = None
    decoded_token: str | None = None


class _Prompted(msgspec.Struct):
    prompt_logprobs: list[dict[str, _Token] | None] | None = None
    usage: Usage | None = None


_DECODER = msgspec.json.Decoder(_Prompted)


def opening_body(request: ScoreRequest, model: str) -> dict[str, Any]:
    """Return the body whose answer tells how many tokens come before the text that is scored."""
    return _body(_messages(request), model)


def answer_body(request: ScoreRequest, model: str) -> dict[str, Any]:
    """Return the body that has the whole chat read by the model, the answer included."""
    answer = {"role": "assistant", "content": request.completion}
    return _body([*_messages(request), answer], model) | {
        "add_generation_prompt": False,
        "continue_final_message": True,
        "prompt_logprobs": max(1, request.top_logprobs),
    }


def tokens_before(data: bytes) -> int:
    """Read the answer to `opening_body`.

    Raises:
        UpstreamProtocolError: it does not tell.
    """
    usage = decode_response(data).usage
    if usage is None or not usage.prompt_tokens:
        raise UpstreamProtocolError(
            "the server does not tell how many tokens a prompt has", context={"retry": False}
        )
    return usage.prompt_tokens


def read_answer(data: bytes, before: int, request: ScoreRequest, options: ReadOptions) -> ApiRecord:
    """Read the answer to `answer_body` and keep of it what follows the first ``before`` tokens.

    Raises:
        InputError: these tokens do not make the text.
        UpstreamProtocolError: there are no log-probabilities of the prompt.
    """
    decode_response(data)  # which tells of an error inside
    try:
        listed = _DECODER.decode(data).prompt_logprobs
    except msgspec.DecodeError as error:
        raise UpstreamProtocolError(f"the response cannot be read: {error}") from error
    if not listed:
        raise UpstreamProtocolError(
            "the server gives no log-probabilities of a prompt", context={"retry": False}
        )
    text = request.completion or ""
    entries = [_entry(position) for position in listed[before:]]
    if not _spells([entry["token"] for entry in entries], text):
        raise InputError(
            "the server's chat template changes the text, or joins it with what comes before it",
            hint="leave out blanks at the ends of the text, or use the model in process to score it",
        )
    choice = {"text": text, "logprobs": {"content": entries}, "finish_reason": "length"}
    # The token itself is listed besides the likeliest.
    options = replace(options, chosen_takes_a_place=False)
    record = read_response(msgspec.json.encode({"choices": [choice]}), options)[0]
    return replace(record, finish_reason="given", stop_step=None, prompt_tokens=before)


def _messages(request: ScoreRequest) -> list[dict[str, str | None]]:
    messages: Sequence[Message] = () if isinstance(request.prompt, str) else request.prompt
    return [{"role": message.role, "content": message.content} for message in messages]


def _body(messages: list[dict[str, str | None]], model: str) -> dict[str, Any]:
    # One new token is the least that it generates; nothing is done to the numbers of the prompt.
    return {"model": model, "messages": messages, "max_tokens": 1, "temperature": 1.0, "top_p": 1.0}


def _entry(position: dict[str, _Token] | None) -> dict[str, Any]:
    """Return one position in the form in which chats list what was generated, with ids."""
    if not position:
        raise UpstreamProtocolError(
            "the server gives no log-probabilities of a part of the text", context={"retry": False}
        )
    try:
        tokens = [
            {"token": token.decoded_token or "", "logprob": token.logprob, "id": int(number)}
            for number, token in position.items()
        ]
    except ValueError:
        raise UpstreamProtocolError("a token of the prompt has no number", context={"retry": False}) from None
    return {**tokens[0], "top_logprobs": tokens}


def _spells(pieces: Sequence[str], text: str) -> bool:
    """Say whether tokens make a text; of parts of characters nobody knows what they make."""
    parts = [place for place, piece in enumerate(pieces) if not piece or _PART in piece]
    if not parts:
        return "".join(pieces) == text
    start, end = "".join(pieces[: parts[0]]), "".join(pieces[parts[-1] + 1 :])
    return text.startswith(start) and text[len(start) :].endswith(end)
