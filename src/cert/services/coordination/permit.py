"""A chat client that asks, before each call, whether the job may still pay, and books what it paid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from cert.backends.base import Message
from cert.coordination.chat import ChatClient, ChatIdentity, ChatRequest, Completion, Usage
from cert.coordination.store.uninterrupted import uninterrupted
from cert.core.budget import Budget
from cert.core.resilience import surely_unbilled

__all__ = ["Permit", "PermittedChat"]

Permit: TypeAlias = Callable[[], Awaitable[None]]


class PermittedChat:
    """The same client, for one job.

    A job that was cancelled, or that another replica has taken over, makes no further call: the database is
    asked before each one, not the memory of a process that may have slept.

    Args:
        inner: who is asked; it is not closed here.
        name: as requests name the model.
        permit: returns where a call may be made, and never where it may not.
        book: told of the model and the micro-dollars of each answer that was paid for.
        budget: that the call has to fit in, where the client inside keeps to none.
    """

    def __init__(
        self,
        inner: ChatClient,
        name: str,
        permit: Permit,
        book: Callable[[str, int], Coroutine[Any, Any, None]],
        budget: Budget | None = None,
    ) -> None:
        self._inner = inner
        self._name = name
        self._permit = permit
        self._book = book
        self._budget = budget

    @property
    def identity(self) -> ChatIdentity:
        """Who answers, not by the operator's folders."""
        return replace(self._inner.identity, model=self._name)

    @property
    def supports_tools(self) -> bool:
        """Whether the client inside can be asked for an answer in a given form."""
        return bool(getattr(self._inner, "supports_tools", True))

    def most(self, request: ChatRequest, /) -> int:
        """The client's."""
        return self._inner.most(request)

    def cost(self, usage: Usage, /) -> int:
        """The client's."""
        return self._inner.cost(usage)

    def weight(self, usage: Usage, /) -> float:
        """The client's."""
        return self._inner.weight(usage)

    async def complete(
        self,
        prompt: str | Sequence[Message] | ChatRequest,
        /,
        *,
        agent: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """Make one completion, if the job may."""
        await self._permit()
        request = ChatRequest.of(prompt, **options)
        completion = await self._within_budget(request, agent, timeout)
        if completion.cost_micro_dollars:
            await uninterrupted(self._book(self._name, completion.cost_micro_dollars))
        return completion

    async def _within_budget(
        self, request: ChatRequest, agent: str | None, timeout: float | None
    ) -> Completion:
        if self._budget is None:
            return await self._inner.complete(request, agent=agent, timeout=timeout)
        reservation = await self._budget.reserve_async(self._inner.most(request), agent)
        try:
            completion = await self._inner.complete(request, agent=agent, timeout=timeout)
        except BaseException as error:
            await uninterrupted(
                reservation.release_async() if surely_unbilled(error) else reservation.keep_async()
            )
            raise
        await uninterrupted(reservation.settle_async(completion.cost_micro_dollars))
        return completion

    async def aclose(self) -> None:
        """Do nothing: the client inside is other jobs' too."""
