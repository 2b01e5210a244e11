"""OpenAI's chats and legacy completions, as OpenAI and other servers write them.

Sources: OpenAI's API reference as of November 2026 (``POST /v1/chat/completions`` and ``/v1/completions``
with their server-sent chunks); for the other servers see `cert.testing.flavours`.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cert.testing.dialects import Dialect, Usage, arguments_of, bearer_of
from cert.testing.flavours import FLAVOURS, Flavour
from cert.testing.replies import Reply, Token, split

__all__ = ["chat_completions", "completions"]

_IDS: dict[str, int] = {}  # of every token that was ever shown with one


class _OpenAI(Dialect):
    name = "openai"
    request_id_header = "x-request-id"
    kind = ""
    error_types = {  # noqa: RUF012  # never changed
        400: "invalid_request_error",
        401: "invalid_request_error",
        404: "invalid_request_error",
        429: "rate_limit_exceeded",
        500: "server_error",
        503: "service_unavailable",
    }

    def __init__(self, flavour: Flavour = FLAVOURS["openai"]) -> None:
        self._flavour = flavour

    def key(self, headers: Mapping[str, str]) -> str | None:
        return bearer_of(headers)

    def limit(self, body: Mapping[str, Any]) -> int | None:
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        return limit if isinstance(limit, int) else None

    def error(self, status: int, reply: Reply, request_id: str) -> dict[str, Any]:  # noqa: ARG002
        kind = self.error_type(status, reply)
        return {"error": {"message": reply.message, "type": kind, "param": None, "code": None}}

    def answer(self, body: Mapping[str, Any], reply: Reply, whole: bool, number: int) -> Any:
        choice = self._choice(body, reply, whole)
        listed = self._listed(reply, whole)
        return self._frame(body, self.kind, number) | {
            "choices": [{"index": 0} | choice | {"finish_reason": self._reason(reply, whole)}],
            "usage": self._usage(body, replace(reply, tokens=listed)),
        }

    def stream(
        self, body: Mapping[str, Any], reply: Reply, whole: bool, number: int
    ) -> Iterator[tuple[bytes, bool]]:
        kind = "chat.completion.chunk" if self.kind == "chat.completion" else self.kind
        frame = self._frame(body, kind, number)
        for choice, is_token in self._parts(body, reply, whole):
            full = {"index": 0, "logprobs": None, "finish_reason": None} | choice
            yield _event(frame | {"choices": [full]}), is_token
        if (body.get("stream_options") or {}).get("include_usage"):
            listed = self._listed(reply, whole)
            usage = self._usage(body, replace(reply, tokens=listed))
            yield _event(frame | {"choices": [], "usage": usage}), False
        yield b"data: [DONE]\n\n", False

    def stream_error(self, reply: Reply, request_id: str) -> bytes:
        return _event(self.error(500, reply, request_id))

    def _choice(self, body: Mapping[str, Any], reply: Reply, whole: bool) -> dict[str, Any]:
        raise NotImplementedError

    def _parts(
        self, body: Mapping[str, Any], reply: Reply, whole: bool
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        raise NotImplementedError

    def _wrong(self, body: Mapping[str, Any], count: Any) -> str | None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            return "top_logprobs: a number of 0 or more"
        if count > self._flavour.most and not self._flavour.clamps:
            return f"top_logprobs: from 0 to {self._flavour.most}"
        return None if self._flavour.takes_top_k or "top_k" not in body else "unknown argument: top_k"

    def _listed(self, reply: Reply, whole: bool) -> tuple[Token, ...]:
        """Return the tokens that are counted: with the one that ended the answer, where that is."""
        ended = whole and self._flavour.lists_stop and reply.finish in (None, "stop")
        return (
            (*reply.tokens, reply.stop or Token(self._flavour.stop_text, special=True))
            if ended
            else reply.tokens
        )

    def _reason(self, reply: Reply, whole: bool) -> str:
        return reply.finish or ("stop" if whole else "length")

    def _frame(self, body: Mapping[str, Any], kind: str, number: int) -> dict[str, Any]:
        frame = {"id": f"chatcmpl-{number}", "object": kind, "created": 1_760_000_000, "model": body["model"]}
        fingerprint = self._flavour.fingerprint
        return frame if fingerprint is None else frame | {"system_fingerprint": fingerprint}

    def _usage(self, body: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
        usage: Usage = self.charged(body, reply)
        prompt = usage.input_tokens + usage.cache_read + usage.cache_write
        counts = {
            "prompt_tokens": prompt,
            "completion_tokens": usage.output_tokens,
            "total_tokens": prompt + usage.output_tokens,
        }
        if not usage.cache_read and not usage.cache_write:
            return counts
        cached = {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write}
        return counts | {"prompt_tokens_details": cached}

    # --- lists in the form of chats ---

    def _entries(self, body: Mapping[str, Any], tokens: Sequence[Token], count: int) -> list[dict[str, Any]]:
        return [self._entry(body, token, count) for token in self._shown(tokens)]

    def _shown(self, tokens: Sequence[Token]) -> Iterator[Token]:
        """Yield the tokens that get an entry."""
        held = b""
        for token in tokens:
            held += token.own_bytes
            if self._flavour.skips_parts and token.data is not None:
                if not _is_whole(held):
                    continue
                yield replace(token, text=held.decode(), data=None)
            else:
                yield token
            held = b""

    def _entry(self, body: Mapping[str, Any], token: Token, count: int) -> dict[str, Any]:
        token = self._flavour.seen(token, body)
        candidates = token.candidates(min(count, self._flavour.most))
        if self._flavour.chosen_first:
            chosen = (token.text, token.logprob)
            candidates = [chosen, *(other for other in candidates if other != chosen)][:count]
        own = (token.text, token.logprob)
        listed = [self._candidate(*one, token.data if one == own else None) for one in candidates]
        return self._candidate(token.text, token.logprob, token.data) | {"top_logprobs": listed}

    def _candidate(self, text: str, logprob: float, data: bytes | None = None) -> dict[str, Any]:
        entry: dict[str, Any] = {"token": text, "logprob": logprob}
        if self._flavour.shows_ids:
            entry["id"] = _IDS.setdefault(text, len(_IDS))
        if self._flavour.shows_bytes == "none":
            return entry
        exact = self._flavour.shows_bytes == "exact" and data is not None
        return entry | {"bytes": list(data if exact and data else text.encode("utf-8", "surrogatepass"))}


class _ChatCompletions(_OpenAI):
    kind = "chat.completion"

    def __init__(self, flavour: Flavour, known: Iterable[Token] = ()) -> None:
        super().__init__(flavour)
        self._known = {token.text: token for token in known}

    def answer(self, body: Mapping[str, Any], reply: Reply, whole: bool, number: int) -> Any:
        data = super().answer(body, reply, whole, number)
        count = body.get("prompt_logprobs")
        if count is None or not self._flavour.prompt_logprobs:
            return data
        return data | {"prompt_logprobs": [None, *(self._read(t, count) for t in self._prompted(body)[1:])]}

    def usage(self, body: Mapping[str, Any], tokens: tuple[Token, ...]) -> Usage:
        usage = super().usage(body, tokens)
        return (
            replace(usage, input_tokens=len(self._prompted(body))) if self._flavour.prompt_logprobs else usage
        )

    def _prompted(self, body: Mapping[str, Any]) -> list[Token]:
        """Return the tokens of the messages, with a template around them."""
        tokens: list[Token] = []
        for message in body["messages"]:
            content = str(message.get("content") or "")
            words = [self._known.get(piece, Token(piece)) for piece in split(content)]
            tokens += [Token(f"<|{message.get('role')}|>"), *words, Token(self._flavour.stop_text)]
        if body.get("continue_final_message"):
            return tokens[:-1]
        return [*tokens, Token("<|assistant|>")] if body.get("add_generation_prompt", True) else tokens

    def _read(self, token: Token, count: int) -> dict[str, dict[str, Any]]:
        """Return what stands for a token that was given: itself first, then the likeliest."""
        listed = dict([(token.text, token.logprob), *token.candidates(min(count, self._flavour.most))])
        return {
            str(_IDS.setdefault(text, len(_IDS))): {"logprob": logprob, "decoded_token": text}
            for text, logprob in listed.items()
        }

    def _own_problem(self, body: Mapping[str, Any]) -> str | None:
        top = body.get("top_logprobs")
        if top is None:
            return None
        return self._wrong(body, top) if body.get("logprobs") else "top_logprobs needs logprobs to be true"

    def _choice(self, body: Mapping[str, Any], reply: Reply, whole: bool) -> dict[str, Any]:
        text = _text(reply.tokens[reply.thought :])
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if reply.refused:
            message |= {"content": None, "refusal": text}
        if reply.arguments is not None:
            called = {"name": body["tools"][0]["function"]["name"], "arguments": arguments_of(reply)}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": called}]
            message["content"] = text or None
        if reply.thought:
            message["reasoning_content"] = _text(reply.tokens[: reply.thought])
        return {"message": message, "logprobs": self._logprobs(body, reply, self._listed(reply, whole))}

    def _parts(
        self, body: Mapping[str, Any], reply: Reply, whole: bool
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        yield {"delta": {"role": "assistant", "content": ""}}, False
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        held: list[Token] = []
        for place, token in enumerate(self._listed(reply, whole)):
            held.append(token)
            text = decoder.decode(token.own_bytes)
            if self._flavour.skips_parts and token.data is not None and not text:
                continue
            field = (
                "reasoning_content" if place < reply.thought else "refusal" if reply.refused else "content"
            )
            yield {"delta": {field: text}, "logprobs": self._logprobs(body, reply, tuple(held))}, True
            held.clear()
        yield {"delta": {}, "finish_reason": self._reason(reply, whole)}, False

    def _logprobs(
        self, body: Mapping[str, Any], reply: Reply, tokens: tuple[Token, ...]
    ) -> dict[str, Any] | None:
        count = body.get("top_logprobs") or 0
        if not body.get("logprobs") or count < self._flavour.least:
            return None
        entries = self._entries(body, tokens, count)
        return (
            {"content": None, "refusal": entries} if reply.refused else {"content": entries, "refusal": None}
        )


class _Completions(_OpenAI):
    kind = "text_completion"

    def __init__(self, flavour: Flavour, known: Iterable[Token] = ()) -> None:
        super().__init__(flavour)
        self._known = {token.text: token for token in known}

    def _prompt_problem(self, body: Mapping[str, Any]) -> str | None:
        if self._flavour.completions == "missing":
            return "this model is not supported in the completions endpoint"
        prompt = body.get("prompt")
        return None if isinstance(prompt, str) and prompt else "prompt: a text is required"

    def _own_problem(self, body: Mapping[str, Any]) -> str | None:
        count = body.get("logprobs")
        fewest = self._flavour.echo if body.get("echo") else 1
        if body.get("echo") and fewest is None:
            return "echo is not supported"
        if fewest is not None and body.get("max_tokens", 16) < fewest:
            return f"max_tokens must be at least {fewest}"
        return None if count is None else self._wrong(body, count)

    def limit(self, body: Mapping[str, Any]) -> int | None:
        return int(body.get("max_tokens", 16))

    def _choice(self, body: Mapping[str, Any], reply: Reply, whole: bool) -> dict[str, Any]:
        before = self._echoed(body)
        tokens = self._listed(reply, whole)
        text = "".join(token.text for token in before) + _text(tokens)
        return {"text": text, "logprobs": self._logprobs(body, tokens, before)}

    def _parts(
        self, body: Mapping[str, Any], reply: Reply, whole: bool
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in self._listed(reply, whole):
            text = decoder.decode(token.own_bytes)
            yield {"text": text, "logprobs": self._logprobs(body, (token,), ())}, True
        yield {"text": "", "finish_reason": self._reason(reply, whole)}, False

    def _echoed(self, body: Mapping[str, Any]) -> tuple[Token, ...]:
        if not body.get("echo"):
            return ()
        return tuple(self._known.get(piece, Token(piece)) for piece in split(body["prompt"]))

    def _logprobs(
        self, body: Mapping[str, Any], tokens: Sequence[Token], before: Sequence[Token]
    ) -> dict[str, Any] | None:
        count = body.get("logprobs")
        if count is None or count < self._flavour.least or self._flavour.completions == "bare":
            return None
        if self._flavour.completions == "as_chat":
            return {"content": self._entries(body, tokens, count)}
        # A given text is read as it is, whatever the request says of sampling.
        seen = [*before, *(self._flavour.seen(token, body) for token in tokens)]
        tops: list[dict[str, float] | None] = [self._column(token, count) for token in seen]
        logprobs: list[float | None] = [token.logprob for token in seen]
        if before:
            tops[0] = logprobs[0] = None
        return {
            "tokens": [token.text for token in seen],
            "token_logprobs": logprobs,
            "top_logprobs": tops,
            "text_offset": [0] * len(seen),
        }

    def _column(self, token: Token, count: int) -> dict[str, float]:
        listed = dict(reversed(token.candidates(min(count, self._flavour.most))))
        listed = dict(sorted(listed.items(), key=lambda candidate: -candidate[1]))
        return {token.text: token.logprob} | listed if self._flavour.columns_keep_chosen else listed


def chat_completions(flavour: Flavour, known: Iterable[Token] = ()) -> Dialect:
    """``POST /v1/chat/completions`` with the habits of a server; ``known`` as `FaultServer` takes it."""
    return _ChatCompletions(flavour, known)


def completions(flavour: Flavour, known: Iterable[Token] = ()) -> Dialect:
    """``POST /v1/completions`` with the habits of a server; ``known`` as `FaultServer` takes it."""
    return _Completions(flavour, known)


def _text(tokens: Iterable[Token]) -> str:
    return b"".join(token.own_bytes for token in tokens).decode("utf-8", "replace")


def _is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()
