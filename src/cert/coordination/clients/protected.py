"""What all chat clients share: attempts go through the resilience stack, answers onto the accounts."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from cert.backends.base import Generation, Message
from cert.coordination.chat import ChatFinish, ChatIdentity, ChatRequest, Completion, Usage
from cert.coordination.clients.accounts import CostAccounts, CostStats
from cert.coordination.clients.limits import Protection
from cert.coordination.clients.prices import Pricing, now
from cert.coordination.clients.sizes import input_tokens_at_most, likely_tokens
from cert.core.errors import CertError, ConfigurationError, InputError
from cert.core.resilience import Demand, ResilienceStack, surely_unbilled, transient

__all__ = ["Answer", "ProtectedChatClient"]

# No call lasts longer, so a price that changes within this time may be the one that is billed.
_LONGEST_CALL = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one attempt gave; the attributes are those of `Completion`."""

    text: str
    model: str
    usage: Usage
    finish: ChatFinish
    structured: Mapping[str, Any] | None = None
    generation: Generation | None = None


class ProtectedChatClient(ABC):
    """A `cert.coordination.chat.ChatClient` whose subclasses say only how one attempt is made.

    Each attempt sets aside the most that it can cost: every byte of the input as a token at the dearest
    price of input, and all of ``max_tokens``. An answer replaces that by what it did cost. What may have been
    billed without an answer stays spent for the budget, and stands apart in the accounts.

    Args:
        pricing: of the model.
        protection: limits, breaker and policy.
    """

    def __init__(self, pricing: Pricing, protection: Protection) -> None:
        self._pricing = pricing
        self._clock = protection.clock
        self._accounts = CostAccounts(pricing.source)
        self._stack = ResilienceStack(
            protection.name,
            protection.policy,
            retry_on=self._worth_another,
            breaker=protection.breaker,
            limiter=protection.limiter,
            budget=protection.budget,
            unbilled=_unbilled,
            clock=protection.clock,
            hub=protection.hub,
        )

    # --- what a dialect says ---

    @property
    @abstractmethod
    def identity(self) -> ChatIdentity:
        """Who answers."""

    @abstractmethod
    async def _ask(self, request: ChatRequest) -> Answer:
        """Make one attempt.

        Raises:
            CertError: it failed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of connections."""

    def _check(self, request: ChatRequest) -> None:
        """Refuse what this client cannot send."""
        if any(message.role not in ("user", "assistant") for message in request.messages):
            raise InputError(
                "the messages of a chat are of the roles 'user' and 'assistant'",
                hint="give what the model is told before as system",
            )
        if request.messages[-1].role != "user":
            raise InputError("the last message of a chat must be of the user")

    def _worth_another(self, error: Exception) -> bool:
        return transient(error) and not (isinstance(error, CertError) and error.context.get("retry") is False)

    # --- completions ---

    async def complete(
        self,
        prompt: str | Sequence[Message] | ChatRequest,
        /,
        *,
        agent: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """Make one completion; see `cert.coordination.chat.ChatClient.complete`."""
        if options and isinstance(prompt, ChatRequest):
            raise ConfigurationError(
                f"a whole request was given, and beside it {', '.join(sorted(options))}",
                hint="change the request with dataclasses.replace",
            )
        request = ChatRequest.of(prompt, **options)
        self._check(request)
        most = self.most(request)
        demand = Demand(tokens=likely_tokens(request), micro_dollars=most, agent=agent, cost=_cost_of)
        # Those of the stack count as well what breaker and limits refused.
        sent = itertools.count(1)
        return await self._stack.call_async(
            lambda: self._attempt(request, agent, most, next(sent)), demand, seconds=timeout
        )

    async def _attempt(self, request: ChatRequest, agent: str | None, most: int, number: int) -> Completion:
        began = self._clock.monotonic()
        try:
            answer = await self._ask(request)
        except BaseException as error:
            if not _unbilled(error):
                self._accounts.book_unanswered(most)
            raise
        cost = self.cost(answer.usage)
        self._accounts.book(agent, answer.usage, cost)
        return Completion(
            text=answer.text,
            model=answer.model,
            usage=answer.usage,
            cost_micro_dollars=cost,
            latency_seconds=self._clock.monotonic() - began,
            finish=answer.finish,
            attempts=number,
            structured=answer.structured,
            generation=answer.generation,
        )

    # --- prices ---

    def most(self, request: ChatRequest) -> int:
        """Return the most that one attempt of a request can cost, in micro-dollars."""
        bound, moment = input_tokens_at_most(request), now()
        prices = (self._pricing.at(moment), self._pricing.at(moment + _LONGEST_CALL))
        return max(price.most(bound, request.max_tokens) for price in prices)

    def cost(self, usage: Usage) -> int:
        """Return what tokens cost at today's price, in micro-dollars, rounded up."""
        return self._pricing.at(now()).cost(usage)

    def weight(self, usage: Usage) -> float:
        """Return tokens weighted by their prices; see `cert.coordination.chat.ChatClient.weight`."""
        return self._pricing.at(now()).weight(usage)

    # --- accounts ---

    def get_cost_stats(self) -> CostStats:
        """Return what was spent since the beginning or the last `reset_cost`."""
        return self._accounts.stats()

    def reset_cost(self) -> None:
        """Begin the accounts anew.

        The budget is none of them: its hour goes on, so that no reset can lift a limit.
        """
        self._accounts.reset()

    # --- its life ---

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _cost_of(completion: Completion) -> int:
    return completion.cost_micro_dollars


def _unbilled(error: BaseException) -> bool:
    # A prompt that does not fit is refused before any work is done.
    return surely_unbilled(error) or isinstance(error, InputError | ConfigurationError)
