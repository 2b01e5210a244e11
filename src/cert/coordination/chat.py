"""What a chat model is asked and what it answers: the one protocol of the coordination monitor."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeAlias

from cert.backends.base import Generation, Message
from cert.core.errors import InputError
from cert.core.money import dollars

__all__ = [
    "ChatClient",
    "ChatFinish",
    "ChatIdentity",
    "ChatRequest",
    "Completion",
    "Message",
    "Tool",
    "Usage",
]

ChatFinish: TypeAlias = Literal["stop", "length", "refusal", "content_filter", "tool_use", "unknown"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion, or of several together, as the vendor counts them.

    Attributes:
        input_tokens: that were read at the full price.
        output_tokens: that were generated.
        cache_read_tokens, cache_write_tokens: of the prompt, read from or written to the vendor's cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """All of them."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class Tool:
    """An answer in a given form: the model has to call this one tool.

    Attributes:
        name: of the tool.
        description: for the model.
        schema: JSON schema of its arguments.
    """

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One completion to be made.

    Attributes:
        messages: of the user and the assistant in turn, the first and the last of the user.
        system: what the model is told before; ``None`` is nothing.
        max_tokens: generate at most so many.
        temperature: ``None`` leaves it to the model.
        seed: of the sample, where the model has one.
        tool: the form of the answer.
        draw: names one draw among several of the same request. It goes into the keys of caches and is never
            sent, so that a cache cannot make one sample look like several.

    Raises:
        InputError: no message, an empty one, or a number outside its range.
    """

    messages: tuple[Message, ...]
    system: str | None = None
    max_tokens: int = 1024
    temperature: float | None = None
    seed: int | None = None
    tool: Tool | None = None
    draw: str = ""

    def __post_init__(self) -> None:
        if not self.messages or any(not message.content.strip() for message in self.messages):
            raise InputError("a chat needs one message or more, and none of them may be empty")
        if self.max_tokens < 1:
            raise InputError(f"max_tokens must be 1 or more, not {self.max_tokens}")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature >= 0.0):
            raise InputError(f"temperature must be 0 or more, not {self.temperature}")

    @classmethod
    def of(cls, prompt: str | Sequence[Message] | ChatRequest, **options: Any) -> ChatRequest:
        """Return the request of a prompt: a text is one message of the user."""
        if isinstance(prompt, ChatRequest):
            return prompt
        messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
        return cls(messages=messages, **options)

    @property
    def prompt_sha256(self) -> str:
        """SHA-256 of what the model reads: system prompt, messages and tool, as canonical JSON."""
        read = {
            "system": self.system,
            "messages": [[message.role, message.content] for message in self.messages],
            "tool": None
            if self.tool is None
            else [self.tool.name, self.tool.description, dict(self.tool.schema)],
        }
        text = json.dumps(read, sort_keys=True, ensure_ascii=False)
        # A lone surrogate is refused by whoever would have to send it, and not here.
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class ChatIdentity:
    """Everything about a client that changes its answers, for records and for keys of caches.

    Attributes:
        provider: the dialect: ``anthropic``, ``openai``, ``transformers``.
        model: as it is asked for.
        endpoint: base URL without user, password and query; ``None`` in this process.
        revision: of the weights, where it is known.
        settings: of the client, that change answers to the same request, such as its own temperature.
    """

    provider: str
    model: str
    endpoint: str | None = None
    revision: str | None = None
    settings: str = ""

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}"

    @property
    def whole(self) -> str:
        """All of it in one line, for names that must change when any of it does."""
        revision = f"#{self.revision}" if self.revision else ""
        endpoint = f"@{self.endpoint}" if self.endpoint else ""
        settings = f" ({self.settings})" if self.settings else ""
        return f"{self}{revision}{endpoint}{settings}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What one request gave.

    Attributes:
        text: of the answer, untrusted; may be empty.
        model: as the server names the one that answered.
        usage: tokens.
        cost_micro_dollars: what they cost, in millionths of a dollar.
        latency_seconds: of the successful attempt alone, without waiting and retries.
        finish: why the answer ended.
        attempts: how often it was tried.
        structured: the arguments of the tool, parsed and not yet checked; ``None`` without a tool or where
            the model did not call it.
        generation: the record of the tokens with their log-probabilities, where the client has one. It is
            not stored.
        from_cache: the answer was there already; the cost is what it cost then.
    """

    text: str
    model: str
    usage: Usage
    cost_micro_dollars: int
    latency_seconds: float
    finish: ChatFinish
    attempts: int = 1
    structured: Mapping[str, Any] | None = None
    generation: Generation | None = field(default=None, compare=False)
    from_cache: bool = False

    @property
    def cost(self) -> Decimal:
        """What it cost, in exact dollars."""
        return dollars(self.cost_micro_dollars)

    @property
    def paid_micro_dollars(self) -> int:
        """What was paid for it this time: nothing where it was there already."""
        return 0 if self.from_cache else self.cost_micro_dollars


class ChatClient(Protocol):
    """Makes completions. Safe for many tasks of one event loop at once."""

    @property
    def identity(self) -> ChatIdentity:
        """Who answers."""
        ...

    def most(self, request: ChatRequest, /) -> int:
        """Return the most that one attempt of a request can cost, in micro-dollars."""
        ...

    def cost(self, usage: Usage, /) -> int:
        """Return what tokens cost, in micro-dollars, rounded up."""
        ...

    def weight(self, usage: Usage, /) -> float:
        """Return tokens weighted by their prices, for comparing budgets; never 0 for any tokens.

        In dollars where the model has a price; where it is free, in output tokens with an input token
        counting one fifth (the ratio of most vendors' prices).
        """
        ...

    async def complete(
        self,
        prompt: str | Sequence[Message] | ChatRequest,
        /,
        *,
        agent: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """Make one completion.

        Args:
            prompt: a text, messages, or a whole request.
            agent: on whose account.
            timeout: seconds for the whole call, waiting and retries included.
            **options: of the `ChatRequest`, where the prompt is none yet.

        Raises:
            InputError: the request cannot be worked on.
            BudgetExceededError: it could cost more than is left.
            CertError: every attempt failed, or none was allowed.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
