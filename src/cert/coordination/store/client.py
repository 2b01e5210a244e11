"""A chat client that pays for each answer once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cert.coordination.chat import ChatClient, ChatIdentity, ChatRequest, Completion, Message, Usage
from cert.coordination.store.base import CompletionStore
from cert.coordination.store.codecs import CompletionCodec
from cert.coordination.store.keys import request_key
from cert.coordination.store.opening import open_store
from cert.coordination.store.records import CacheStats, Call
from cert.coordination.store.single_flight import SingleFlight

__all__ = ["CachedChatClient"]


class CachedChatClient:
    """Answers from a store, or asks another client and keeps the answer before it returns it.

    The key is all that changes the answer, `ChatRequest.draw` included: the same request with another draw is
    another sample. Equal requests at the same time, in this process or in others with the same store, are one
    call. A failed call is not kept. What comes from the store has ``from_cache`` set, costs what it cost when
    it was made, has ``paid_micro_dollars`` of 0 and no ``generation``.

    Args:
        inner: who is asked.
        store: where answers are kept: a file, the URL of a database, an open store, or ``None`` for the
            memory of this object.
        scope: answers of one scope are not those of another, and counted apart.

    Attributes:
        inner: as given.
        store: the open one.
        scope: as given.
    """

    def __init__(
        self,
        inner: ChatClient,
        store: CompletionStore | str | os.PathLike[str] | None = None,
        *,
        scope: str = "",
    ) -> None:
        self.inner = inner
        self.scope = scope
        self._owns_store = not isinstance(store, CompletionStore)
        self.store = open_store(store)
        self._flights: SingleFlight[Completion] = SingleFlight(self.store, CompletionCodec())

    @property
    def identity(self) -> ChatIdentity:
        """Who answers."""
        return self.inner.identity

    @property
    def supports_tools(self) -> bool:
        """Whether the client inside can be asked for an answer in a given form."""
        return bool(getattr(self.inner, "supports_tools", True))

    def most(self, request: ChatRequest, /) -> int:
        """Return the most that one attempt of a request can cost where its answer is not there."""
        return self.inner.most(request)

    def cost(self, usage: Usage, /) -> int:
        """Return what tokens cost, in micro-dollars, rounded up."""
        return self.inner.cost(usage)

    def weight(self, usage: Usage, /) -> float:
        """Return tokens weighted by their prices."""
        return self.inner.weight(usage)

    async def complete(
        self,
        prompt: str | Sequence[Message] | ChatRequest,
        /,
        *,
        agent: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """Return the answer that is there, or make one.

        Args:
            prompt: a text, messages, or a whole request.
            agent: on whose account; what is there already is on nobody's.
            timeout: seconds for the whole call, waiting for another process included.
            **options: of the `ChatRequest`, where the prompt is none yet.

        Raises:
            StoreError: the store cannot be used; nothing was asked.
            CertError: as of `ChatClient.complete`.
        """
        request = ChatRequest.of(prompt, **options)

        async def ask(left: float | None) -> Completion:
            return await self.inner.complete(request, agent=agent, timeout=left)

        return await self._flights.get(self._call(request), ask, timeout)

    async def has(self, request: ChatRequest) -> bool:
        """Say whether the answer is there, so that asking for it costs nothing.

        Raises:
            StoreError: the store cannot be read.
        """
        return await self.store.find(self._call(request).key) is not None

    async def stats(self) -> CacheStats:
        """Return what was answered in this scope, through this store object.

        Raises:
            StoreError: the entries cannot be counted.
        """
        return await self.store.stats(self.scope, "completion")

    async def aclose(self) -> None:
        """Close the client inside, and the store unless it was given open.

        Raises:
            StoreError: answers that were paid for could not be kept.
        """
        try:
            await self.inner.aclose()
        finally:
            if self._owns_store:
                await self.store.aclose()

    def _call(self, request: ChatRequest) -> Call:
        identity = self.inner.identity
        return Call(
            key=request_key(identity, request, self.scope),
            kind="completion",
            scope=self.scope,
            model=str(identity),
            most_micro_dollars=self.inner.most(request),
        )
