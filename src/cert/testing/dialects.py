"""The two wire formats that the scripted server speaks: Anthropic Messages, and OpenAI chat completions.

Sources: the API references of the two vendors as of November 2026 (``POST /v1/messages``, and
``POST /v1/chat/completions`` with its server-sent chunks).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cert.testing.replies import Reply, Token

__all__ = ["DIALECTS", "Dialect", "Usage", "count_tokens"]


def count_tokens(text: str) -> int:
    """Return a plausible number of tokens: a quarter of the UTF-8 bytes, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


@dataclass(frozen=True)
class Usage:
    """Tokens that one answer is charged with."""

    input_tokens: int
    output_tokens: int


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
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            return "messages: at least one message is required"
        return self._own_problem(body)

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
    def answer(self, body: Mapping[str, Any], tokens: tuple[Token, ...], whole: bool, number: int) -> Any:
        """Return the body of an answer; ``whole`` unless the token limit cut it."""

    @abstractmethod
    def stream(
        self, body: Mapping[str, Any], tokens: tuple[Token, ...], whole: bool, number: int
    ) -> Iterator[tuple[bytes, bool]]:
        """Yield the server-sent events of an answer, each with whether it carries a token."""

    @abstractmethod
    def stream_error(self, reply: Reply, request_id: str) -> bytes:
        """Return the event that tells of an error in the middle of a stream."""

    def usage(self, body: Mapping[str, Any], tokens: tuple[Token, ...]) -> Usage:
        """Return what an answer is charged with."""
        prompt = [body.get("system", ""), *(message.get("content", "") for message in body["messages"])]
        return Usage(sum(count_tokens(_text_of(part)) for part in prompt), len(tokens))

    def error_type(self, status: int, reply: Reply) -> str:
        """Return the vendor's word for an error."""
        return reply.error_type or self.error_types.get(status, "api_error")


class _Anthropic(Dialect):
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
        return headers.get("x-api-key") or _bearer(headers)

    def limit(self, body: Mapping[str, Any]) -> int | None:
        return int(body["max_tokens"])

    def error(self, status: int, reply: Reply, request_id: str) -> dict[str, Any]:
        inner = {"type": self.error_type(status, reply), "message": reply.message}
        return {"type": "error", "error": inner, "request_id": request_id}

    def answer(self, body: Mapping[str, Any], tokens: tuple[Token, ...], whole: bool, number: int) -> Any:
        text = {"type": "text", "text": "".join(token.text for token in tokens)}
        usage = self.usage(body, tokens)
        return self._message(body, [text], "end_turn" if whole else "max_tokens", usage, number)

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
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        }

    def stream(
        self, body: Mapping[str, Any], tokens: tuple[Token, ...], whole: bool, number: int
    ) -> Iterator[tuple[bytes, bool]]:
        usage = self.usage(body, tokens)
        start = self._message(body, [], None, Usage(usage.input_tokens, 1), number)
        yield _named({"type": "message_start", "message": start}), False
        block = {"type": "text", "text": ""}
        yield _named({"type": "content_block_start", "index": 0, "content_block": block}), False
        yield _named({"type": "ping"}), False
        for token in tokens:
            delta = {"type": "text_delta", "text": token.text}
            yield _named({"type": "content_block_delta", "index": 0, "delta": delta}), True
        yield _named({"type": "content_block_stop", "index": 0}), False
        stop = {"stop_reason": "end_turn" if whole else "max_tokens", "stop_sequence": None}
        counted = {"output_tokens": usage.output_tokens}
        yield _named({"type": "message_delta", "delta": stop, "usage": counted}), False
        yield _named({"type": "message_stop"}), False

    def stream_error(self, reply: Reply, request_id: str) -> bytes:
        return _named(self.error(529, reply, request_id))


class _OpenAI(Dialect):
    name = "openai"
    request_id_header = "x-request-id"
    error_types = {  # noqa: RUF012  # never changed
        400: "invalid_request_error",
        401: "invalid_request_error",
        404: "invalid_request_error",
        429: "rate_limit_exceeded",
        500: "server_error",
        503: "service_unavailable",
    }

    def _own_problem(self, body: Mapping[str, Any]) -> str | None:
        top = body.get("top_logprobs")
        if top is None:
            return None
        if not body.get("logprobs"):
            return "top_logprobs needs logprobs to be true"
        if isinstance(top, bool) or not isinstance(top, int) or not 0 <= top <= 20:
            return "top_logprobs: from 0 to 20"
        return None

    def key(self, headers: Mapping[str, str]) -> str | None:
        return _bearer(headers)

    def limit(self, body: Mapping[str, Any]) -> int | None:
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        return limit if isinstance(limit, int) else None

    def error(self, status: int, reply: Reply, request_id: str) -> dict[str, Any]:  # noqa: ARG002
        kind = self.error_type(status, reply)
        return {"error": {"message": reply.message, "type": kind, "param": None, "code": None}}

    def answer(self, body: Mapping[str, Any], tokens: tuple[Token, ...], whole: bool, number: int) -> Any:
        text = "".join(token.text for token in tokens)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _logprobs(body, tokens),
            "finish_reason": "stop" if whole else "length",
        }
        frame = self._frame(body, "chat.completion", number)
        return frame | {"choices": [choice], "usage": self._usage(body, tokens)}

    def stream(
        self, body: Mapping[str, Any], tokens: tuple[Token, ...], whole: bool, number: int
    ) -> Iterator[tuple[bytes, bool]]:
        frame = self._frame(body, "chat.completion.chunk", number)

        def chunk(delta: Any, logprobs: Any = None, finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
            return _unnamed(frame | {"choices": [choice]})

        yield chunk({"role": "assistant", "content": ""}), False
        for token in tokens:
            yield chunk({"content": token.text}, _logprobs(body, (token,))), True
        yield chunk({}, finish="stop" if whole else "length"), False
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _unnamed(frame | {"choices": [], "usage": self._usage(body, tokens)}), False
        yield b"data: [DONE]\n\n", False

    def stream_error(self, reply: Reply, request_id: str) -> bytes:
        return _unnamed(self.error(500, reply, request_id))

    def _frame(self, body: Mapping[str, Any], kind: str, number: int) -> dict[str, Any]:
        return {"id": f"chatcmpl-{number}", "object": kind, "created": 1_760_000_000, "model": body["model"]}

    def _usage(self, body: Mapping[str, Any], tokens: tuple[Token, ...]) -> dict[str, int]:
        usage = self.usage(body, tokens)
        return {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }


DIALECTS: Mapping[str, Dialect] = {"/v1/messages": _Anthropic(), "/v1/chat/completions": _OpenAI()}


def _logprobs(body: Mapping[str, Any], tokens: tuple[Token, ...]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    count = body.get("top_logprobs") or 0
    content = [
        _candidate(token.text, token.logprob)
        | {"top_logprobs": [_candidate(*candidate) for candidate in token.candidates(count)]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _candidate(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "surrogatepass"))}


def _bearer(headers: Mapping[str, str]) -> str | None:
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


def _unnamed(event: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()
