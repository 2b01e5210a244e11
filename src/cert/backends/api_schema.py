"""The OpenAI response objects as they are decoded: only what is measured, and tolerant of all else.

Sources: the API reference of OpenAI (chat completions and legacy completions), and what servers that speak
it really send: vLLM, SGLang, llama.cpp and TGI (`cert.backends.openai_server.dialects` names the sources).
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from cert.core.errors import UpstreamProtocolError

__all__ = [
    "Choice",
    "Entry",
    "ExactEntry",
    "Logprobs",
    "Message",
    "Response",
    "Usage",
    "decode_exact",
    "decode_response",
]

# The parts are many and short-lived, and none of them can be part of a cycle.


class Candidate(msgspec.Struct, gc=False):
    """One candidate of a step. ``id`` is an addition of llama.cpp."""

    token: str
    logprob: float | None = None
    id: int | None = None


class Entry(msgspec.Struct, gc=False):
    """One step of an answer with its candidates."""

    token: str
    logprob: float | None = None
    id: int | None = None
    top_logprobs: list[Candidate] | None = None


class ExactCandidate(msgspec.Struct, gc=False):
    """The same with the bytes, which only tokens that are parts of a character need."""

    token: str
    logprob: float | None = None
    id: int | None = None
    bytes: list[int] | None = None


class ExactEntry(msgspec.Struct, gc=False):
    """The same with the bytes."""

    token: str
    logprob: float | None = None
    id: int | None = None
    bytes: list[int] | None = None
    top_logprobs: list[ExactCandidate] | None = None


E = TypeVar("E", Entry, ExactEntry)


class Logprobs(msgspec.Struct, Generic[E], gc=False):
    """Of a choice: ``content`` in the form of chats (llama.cpp's completions too), or the legacy columns."""

    content: list[E] | None = None
    refusal: list[E] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


class Message(msgspec.Struct, gc=False):
    """A message or a delta; two spellings of the reasoning are in use."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Any = None

    @property
    def text(self) -> str:
        """All that was generated as text, in its order."""
        thought = self.reasoning_content or self.reasoning or ""
        return thought + (self.content or self.refusal or "")


class Choice(msgspec.Struct, Generic[E], gc=False):
    """One answer or, in a chunk of a stream, its next part."""

    index: int = 0
    text: str | None = None
    message: Message | None = None
    delta: Message | None = None
    logprobs: Logprobs[E] | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> Message:
        """Its message in whichever form."""
        return self.message or self.delta or Message(content=self.text)


class UsageDetails(msgspec.Struct, gc=False):
    """What of the answer was never shown."""

    reasoning_tokens: int | None = None


class PromptDetails(msgspec.Struct, gc=False):
    """What of the prompt went through the vendor's cache."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """Tokens as the server counts them; those of the cache are among ``prompt_tokens``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: UsageDetails | None = None


class Response(msgspec.Struct, Generic[E], gc=False):
    """A whole response or one chunk of a stream; ``object`` is ``error`` in a form that vLLM used."""

    choices: list[Choice[E]] = []
    object: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
    error: Any = None
    message: Any = None


_DECODER = msgspec.json.Decoder(Response[Entry])
_EXACT_DECODER = msgspec.json.Decoder(Response[ExactEntry])


def decode_response(data: bytes | str | msgspec.Raw) -> Response[Entry]:
    """Decode a response without the bytes of its tokens.

    Raises:
        UpstreamProtocolError: it is no JSON, not of this form, or tells of an error.
    """
    return _decoded(_DECODER, data)


def decode_exact(data: bytes | str | msgspec.Raw) -> Response[ExactEntry]:
    """Decode a response with the bytes of its tokens; otherwise as `decode_response`."""
    return _decoded(_EXACT_DECODER, data)


def _decoded(decoder: msgspec.json.Decoder[Response[E]], data: bytes | str | msgspec.Raw) -> Response[E]:
    try:
        response = decoder.decode(data)
    # RecursionError: nested deeper than any answer.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The message of msgspec names a place and a type, never a value.
        raise UpstreamProtocolError(f"the response cannot be read: {error}") from error
    if response.error is not None or response.object == "error":
        raise UpstreamProtocolError(
            "the response says that something failed", context={"inside": error_code(response)}
        )
    return response


def error_code(response: Response[Any]) -> str | int | None:
    """Return the short code of an error inside a response, not its text, which may quote a prompt."""
    inside = response.error if isinstance(response.error, dict) else {}
    found = next((inside[key] for key in ("code", "type") if inside.get(key)), None)
    return found if isinstance(found, int) else str(found)[:64] if found else None
