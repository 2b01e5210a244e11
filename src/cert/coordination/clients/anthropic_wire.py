"""What is asked of the Messages API and how its answer is read.

Source: the vendor's API reference as of November 2026 (``POST /v1/messages``). The SDK does not validate what
it parses, so answers are decoded here, strictly where they are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import msgspec

from cert.coordination.chat import ChatFinish, ChatRequest, Usage
from cert.coordination.clients.protected import Answer
from cert.core.errors import UpstreamProtocolError

__all__ = ["message_body", "read_message"]

_FINISH: Mapping[str, ChatFinish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_use",
    "refusal": "refusal",
}

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class Block(msgspec.Struct):
    """A part of the content; of kinds that are not known here only the type is read."""

    type: str
    text: str | None = None
    name: str | None = None
    input: Any = None


class Counts(msgspec.Struct):
    """Tokens as they are billed: those of the cache are not among ``input_tokens``."""

    input_tokens: Count
    output_tokens: Count
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None


class Message(msgspec.Struct):
    """An answer."""

    model: str
    content: list[Block]
    usage: Counts
    stop_reason: str | None = None


class Said(msgspec.Struct):
    """Enough of any body to see that it tells of an error."""

    type: str | None = None
    error: Any = None


_MESSAGE = msgspec.json.Decoder(Message)
_SAID = msgspec.json.Decoder(Said)


def message_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """Return the body of a request. The API takes no seed."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
    }
    if request.system:
        body["system"] = request.system
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if (tool := request.tool) is not None:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": dict(tool.schema)}
        ]
        body["tool_choice"] = {"type": "tool", "name": tool.name, "disable_parallel_tool_use": True}
    return body


def read_message(data: bytes, request: ChatRequest) -> Answer:
    """Read an answer; content that is no text (thinking, other tools) is left out.

    Raises:
        UpstreamProtocolError: it is no JSON, tells of an error, or lacks what is billed.
    """
    try:
        if _SAID.decode(data).error is not None:
            raise UpstreamProtocolError("the response says that something failed")
        message = _MESSAGE.decode(data)
    # RecursionError: nested deeper than any answer.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The message of msgspec names a place and a type, never a value.
        raise UpstreamProtocolError(f"the response cannot be read: {error}") from error
    counts = message.usage
    finish = _FINISH.get(message.stop_reason or "", "unknown")
    return Answer(
        text="".join(block.text or "" for block in message.content if block.type == "text"),
        model=message.model,
        usage=Usage(
            counts.input_tokens,
            counts.output_tokens,
            counts.cache_read_input_tokens or 0,
            counts.cache_creation_input_tokens or 0,
        ),
        finish=finish,
        structured=_arguments(message, request) if finish != "length" else None,
    )


def _arguments(message: Message, request: ChatRequest) -> Mapping[str, Any] | None:
    """Return the arguments of the call of the one tool; those of an answer that was cut are none."""
    calls = [
        block.input
        for block in message.content
        if request.tool is not None and block.type == "tool_use" and block.name == request.tool.name
    ]
    # Two calls of a tool that was to be called once say two things.
    return calls[0] if len(calls) == 1 and isinstance(calls[0], dict) else None
