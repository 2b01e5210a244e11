"""A chat client that says what a test wants it to, and remembers what it was asked.

It is here and not in `cert.testing`, which knows the core alone: the chat protocol is the coordination
monitor's, and its messages are those of the backends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from cert.coordination.chat import ChatIdentity, ChatRequest, Completion, Message, Usage
from cert.core.errors import InputError

__all__ = ["Reply", "ScriptedChat"]

Said: TypeAlias = str | Mapping[str, Any] | Completion | BaseException
Reply: TypeAlias = Said | Callable[[ChatRequest], Said | Awaitable[Said]]

# Vendors ask about five times as much for a token out as for one in.
_PRICES = (1, 5)


class ScriptedChat:
    """Stands in for a `ChatClient`; needs no network, no model and no package.

    A reply is a text, the arguments of the request's tool (a mapping), a whole `Completion`, an exception to
    be raised, or a function of the request that returns one of them or an awaitable of it. Words separated by
    white space count as tokens.

    Args:
        *replies: one a call, in the order of the calls.
        otherwise: the reply to all calls after them.
        model: its name.
        prices: dollars for a million tokens in and out, whole numbers; a model without a price is (0, 0).
        latency: seconds that each call sleeps.

    Attributes:
        requests: all that came, in the order of coming, also those that failed.
        agents: on whose account each came.
        most_at_once: calls that were at work at the same time, at most.

    Raises:
        InputError: there is nothing that it could say, or a price or the latency is negative.
    """

    def __init__(
        self,
        *replies: Reply,
        otherwise: Reply | None = None,
        model: str = "scripted",
        prices: tuple[int, int] = _PRICES,
        latency: float = 0.0,
    ) -> None:
        if not replies and otherwise is None:
            raise InputError("a scripted chat needs a reply or more")
        if min(*prices, latency) < 0:
            raise InputError("prices and latency must be 0 or more")
        self.identity = ChatIdentity("scripted", model)
        self.requests: list[ChatRequest] = []
        self.agents: list[str | None] = []
        self.most_at_once = 0
        self._replies = list(replies)
        self._otherwise = otherwise
        self._prices = prices
        self._latency = latency
        self._at_once = 0

    def most(self, request: ChatRequest, /) -> int:
        """Return the price of the prompt's words and of ``max_tokens``, in micro-dollars."""
        return self.cost(Usage(_words(request), request.max_tokens))

    def cost(self, usage: Usage, /) -> int:
        """Return the price in micro-dollars; tokens of the vendor's cache cost as much as others."""
        return self._prices[0] * (usage.total_tokens - usage.output_tokens) + (
            self._prices[1] * usage.output_tokens
        )

    def weight(self, usage: Usage, /) -> float:
        """Return the price in dollars; without prices, output tokens and a fifth of the input tokens."""
        if self._prices == (0, 0):
            return usage.output_tokens + (usage.total_tokens - usage.output_tokens) / 5
        return self.cost(usage) / 1_000_000

    async def complete(
        self,
        prompt: str | Sequence[Message] | ChatRequest,
        /,
        *,
        agent: str | None = None,
        timeout: float | None = None,  # noqa: ARG002  # the protocol's; a script takes as long as it says
        **options: Any,
    ) -> Completion:
        """Say the next reply.

        Raises:
            LookupError: the script is over: a mistake of the test's, so it is no error of the tree.
            BaseException: what the script says.
        """
        request = ChatRequest.of(prompt, **options)
        self.requests.append(request)
        self.agents.append(agent)
        reply = self._next()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self._latency)
            said = reply(request) if callable(reply) else reply
            return self._completion(request, await said if inspect.isawaitable(said) else said)
        finally:
            self._at_once -= 1

    async def aclose(self) -> None:
        """Do nothing: there is no connection."""

    def _next(self) -> Reply:
        if self._replies:
            return self._replies.pop(0)
        if self._otherwise is None:
            raise LookupError(f"the script has no reply to call {len(self.requests)}")
        return self._otherwise

    def _completion(self, request: ChatRequest, said: Said) -> Completion:
        if isinstance(said, BaseException):
            raise said
        if isinstance(said, Completion):
            return said
        text = said if isinstance(said, str) else ""
        usage = Usage(_words(request), len(text.split()))
        completion = Completion(
            text=text,
            model=self.identity.model,
            usage=usage,
            cost_micro_dollars=self.cost(usage),
            latency_seconds=self._latency,
            finish="stop",
        )
        if isinstance(said, str):
            return completion
        if request.tool is None:
            raise LookupError("the script calls a tool where the request has none")
        return replace(completion, structured=dict(said), finish="tool_use")


def _words(request: ChatRequest) -> int:
    return sum(len(text.split()) for text in (request.system or "", *(m.content for m in request.messages)))
