"""What is asked of a chat of the OpenAI API and how its answer is read.

Decoding is that of `cert.backends.api_schema`, which names its sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from cert.backends.api_schema import Choice, Entry, Message, Response, decode_response
from cert.backends.api_schema import Usage as Counts
from cert.backends.openai_server.dialects import Dialect
from cert.coordination.chat import ChatFinish, ChatRequest, Usage
from cert.coordination.clients.protected import Answer
from cert.core.errors import UpstreamProtocolError

__all__ = ["TypedOutput", "chat_body", "read_chat"]

TypedOutput: TypeAlias = Literal["tool", "json_schema"]

_FINISH: Mapping[str, ChatFinish] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}
_MOST_TOKENS = 10**9


class Function(msgspec.Struct):
    """What a model calls, with its arguments as JSON in a text."""

    name: str | None = None
    arguments: Any = None


class Call(msgspec.Struct):
    """One call of a tool."""

    function: Function | None = None


def chat_body(
    request: ChatRequest, model: str, dialect: Dialect, typed: TypedOutput, top_logprobs: int | None
) -> dict[str, Any]:
    """Return the body of a request.

    Args:
        request: what is wanted.
        model: as the server names it.
        dialect: of the server.
        typed: how it is told the form of an answer.
        top_logprobs: candidates to ask for a token; ``None`` asks for no log-probabilities.
    """
    system = [{"role": "system", "content": request.system}] if request.system else []
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    body: dict[str, Any] = {
        "model": model,
        "messages": [*system, *messages],
        dialect.limit_field: request.max_tokens,
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.seed is not None and dialect.seeds:
        body["seed"] = request.seed % (dialect.largest_seed + 1)
    if top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": top_logprobs}
    return body | _form(request, typed)


def _form(request: ChatRequest, typed: TypedOutput) -> dict[str, Any]:
    tool = request.tool
    if tool is None:
        return {}
    named = {"name": tool.name, "description": tool.description}
    if typed == "json_schema":
        schema = {**named, "schema": dict(tool.schema)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    function = {**named, "parameters": dict(tool.schema)}
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": tool.name}},
    }


def read_chat(data: bytes, request: ChatRequest, model: str, typed: TypedOutput) -> Answer:
    """Read an answer; reasoning that the server shows is left out.

    Raises:
        UpstreamProtocolError: it is no JSON, tells of an error, or lacks what is billed.
    """
    response = decode_response(data)
    if not response.choices:
        raise UpstreamProtocolError("the response has no choices")
    choice = response.choices[0]
    said, finish = choice.said, _finish(choice)
    structured = None
    if request.tool is not None and finish != "length":
        structured = _arguments(said, request.tool.name) if typed == "tool" else _json(said.content)
    return Answer(
        text=said.content or said.refusal or "",
        model=response.model or model,
        usage=_usage(response),
        finish=finish,
        structured=structured,
    )


def _finish(choice: Choice[Entry]) -> ChatFinish:
    if choice.said.refusal:
        return "refusal"
    finish = _FINISH.get(choice.finish_reason or "", "unknown")
    # A call that was asked for by name ends with "stop".
    return "tool_use" if finish == "stop" and choice.said.tool_calls else finish


def _usage(response: Response[Entry]) -> Usage:
    counts = response.usage or Counts()
    if counts.prompt_tokens is None or counts.completion_tokens is None:
        raise UpstreamProtocolError(
            "the response does not say how many tokens it took", context={"retry": False}
        )
    details = counts.prompt_tokens_details
    read = (details.cached_tokens if details else None) or 0
    written = (details.cache_write_tokens if details else None) or 0
    plain = counts.prompt_tokens - read - written
    if not all(0 <= count <= _MOST_TOKENS for count in (plain, counts.completion_tokens, read, written)):
        raise UpstreamProtocolError(
            "the response counts its tokens in numbers that cannot be", context={"retry": False}
        )
    return Usage(plain, counts.completion_tokens, read, written)


def _arguments(said: Message, name: str) -> Mapping[str, Any] | None:
    try:
        calls: Sequence[Call] = msgspec.convert(said.tool_calls or [], list[Call])
    except msgspec.ValidationError:
        return None
    named = [call.function for call in calls if call.function is not None and call.function.name == name]
    # Two calls of a tool that was to be called once say two things.
    return _json(named[0].arguments) if len(named) == 1 else None


def _json(text: object) -> Mapping[str, Any] | None:
    """Return the object that a text is; some servers send it decoded already."""
    if isinstance(text, dict):
        return text
    if not isinstance(text, str):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
