"""What the scripted server needs of a wire format, and the one of Anthropic's messages.

Source: the vendor's API reference as of November 2026 (``POST /v1/messages``). `cert.testing.openai_api` has
the formats of OpenAI's.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cert.testing.replies import Reply, Token

__all__ = ["ANTHROPIC", "Dialect", "Usage", "arguments_of", "bearer_of", "count_tokens"]


def count_tokens(text: str) -> int:
    """Return a plausible number of tokens: a quarter of the UTF-8 bytes, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


@dataclass(frozen=True)
class Usage:
    """Tokens that one answer is charged with; those of the cache are not among ``input_tokens``."""

    input_tokens: int
    output_tokens: int
    cache_read: int = 0
    cache_write: int = 0


class Dialect(ABC):
    """How requests are read and answers are written."""

    name: str
    error_types: Mapping[int, str]
    request_id_header: str

    def problem(self, body: Any) -> str | None:
        """Return what is wrong with a request, in one sentence."""
        if not isinstance(body, dict):
            return "the body is not a JSON object"
        if not isinstance(body.get("model"), str) or not body["model"]:
            return "model: field required"
        return self._own_problem(body) or self._prompt_problem(body)

    def _prompt_problem(self, body: Mapping[str, Any]) -> str | None:
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            return "messages: at least one message is required"
        return None

    @abstractmethod
    def _own_problem(self, body: Mapping[str, Any]) -> str | None: ...

    @abstractmethod
    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the API key of a request."""

    @abstractmethod
    def limit(self, body: Mapping[str, Any]) -> int | None:
        """Return the largest number of tokens that the request allows."""

    @abstractmethod
    def error(self, status: int, reply: Reply, request_id: str) -> dict[str, Any]:
        """Return the body of an error."""

    @abstractmethod
    def answer(self, body: Mapping[str, Any], reply: Reply, whole: bool, number: int) -> Any:
        """Return the body of an answer; ``whole`` unless the token limit cut it."""

    @abstractmethod
    def stream(
        self, body: Mapping[str, Any], reply: Reply, whole: bool, number: int
    ) -> Iterator[tuple[bytes, bool]]:
        """Yield the server-sent events of an answer, each with whether it carries a token."""

    @abstractmethod
    def stream_error(self, reply: Reply, request_id: str) -> bytes:
        """Return the event that tells of an error in the middle of a stream."""

    def usage(self, body: Mapping[str, Any], tokens: tuple[Token, ...]) -> Usage:
        """Return the tokens that are read and written for an answer."""
        messages = body.get("messages") or [{"content": body.get("prompt", "")}]
        prompt = [body.get("system", ""), *(message.get("content", "") for message in messages)]
        return Usage(sum(count_tokens(_text_of(part)) for part in prompt), len(tokens))

    def charged(self, body: Mapping[str, Any], reply: Reply) -> Usage:
        """Return what an answer is charged with."""
        usage = self.usage(body, reply.tokens)
        return Usage(
            usage.input_tokens - reply.cache_read - reply.cache_write,
            usage.output_tokens + count_tokens(arguments_of(reply)),
            reply.cache_read,
            reply.cache_write,
        )

    def error_type(self, status: int, reply: Reply) -> str:
        """Return the vendor's word for an error."""
        return reply.error_type or self.error_types.get(status, "api_error")


class _AnthropicMessages(Dialect):
    name = "anthropic"
    request_id_header = "request-id"
    error_types = {  # noqa: RUF012  # never changed
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }

    def _own_problem(self, body: Mapping[str, Any]) -> str | None:
        limit = body.get("max_tokens")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            return "max_tokens: a number of 1 or more is required"
        return None

    def key(self, headers: Mapping[str, str]) -> str | None:
        # Its SDK sends the key as a bearer token since version 2; plain HTTP clients send it as before.
        return headers.get("x-api-key") or bearer_of(headers)

    def limit(self, body: Mapping[str, Any]) -> int | None:
        return int(body["max_tokens"])

    def error(self, status: int, reply: Reply, request_id: str) -> dict[str, Any]:
        inner = {"type": self.error_type(status, reply), "message": reply.message}
        return {"type": "error", "error": inner, "request_id": request_id}

    def answer(self, body: Mapping[str, Any], reply: Reply, whole: bool, number: int) -> Any:
        tokens = reply.tokens
        text = "".join(token.text for token in tokens)
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        if reply.arguments is not None:
            tool = {"type": "tool_use", "id": f"toolu_{number:024d}", "name": body["tools"][0]["name"]}
            content.append(tool | {"input": dict(reply.arguments)})
        return self._message(body, content, self._reason(reply, whole), self.charged(body, reply), number)

    def _reason(self, reply: Reply, whole: bool) -> str:
        if reply.finish or reply.refused:
            return reply.finish or "refusal"
        if not whole:
            return "max_tokens"
        return "end_turn" if reply.arguments is None else "tool_use"

    def _message(
        self, body: Mapping[str, Any], content: list[Any], stop: str | None, usage: Usage, number: int
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{number:024d}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cache_creation_input_tokens": usage.cache_write,
                "cache_read_input_tokens": usage.cache_read,
            },
        }

    def stream(
        self, body: Mapping[str, Any], reply: Reply, whole: bool, number: int
    ) -> Iterator[tuple[bytes, bool]]:
        tokens = reply.tokens
        usage = self.charged(body, reply)
        start = self._message(body, [], None, replace(usage, output_tokens=1), number)
        yield _named({"type": "message_start", "message": start}), False
        block = {"type": "text", "text": ""}
        yield _named({"type": "content_block_start", "index": 0, "content_block": block}), False
        yield _named({"type": "ping"}), False
        for token in tokens:
            delta = {"type": "text_delta", "text": token.text}
            yield _named({"type": "content_block_delta", "index": 0, "delta": delta}), True
        yield _named({"type": "content_block_stop", "index": 0}), False
        stop = {"stop_reason": self._reason(reply, whole), "stop_sequence": None}
        counted = {"output_tokens": usage.output_tokens}
        yield _named({"type": "message_delta", "delta": stop, "usage": counted}), False
        yield _named({"type": "message_stop"}), False

    def stream_error(self, reply: Reply, request_id: str) -> bytes:
        return _named(self.error(529, reply, request_id))


ANTHROPIC: Dialect = _AnthropicMessages()
"""``POST /v1/messages``."""


def arguments_of(reply: Reply) -> str:
    """Return the arguments of the tool that an answer calls, as JSON; empty where it calls none."""
    return "" if reply.arguments is None else json.dumps(dict(reply.arguments))


def bearer_of(headers: Mapping[str, str]) -> str | None:
    """Return the token of a request's authorization."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else None


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _named(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
