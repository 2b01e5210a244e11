"""A model in this process as a chat client, so that all of the coordination monitor runs offline."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cert.backends.base import Backend, FinishReason, GenerationRequest, Message, Sampling
from cert.backends.control import Control
from cert.backends.opening import is_server, open_backend
from cert.coordination.chat import ChatFinish, ChatIdentity, ChatRequest, Usage
from cert.coordination.clients.limits import Protection
from cert.coordination.clients.per_loop import PerLoop
from cert.coordination.clients.prices import Price
from cert.coordination.clients.protected import Answer, ProtectedChatClient
from cert.core.bounds import at_least
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import ConfigurationError, OverloadedError
from cert.core.events import EventHub
from cert.core.resilience import ResiliencePolicy

if TYPE_CHECKING:
    from cert.backends.loading import LoadOptions

__all__ = ["InProcessChatClient"]

_FINISH: Mapping[FinishReason, ChatFinish] = {
    "stop": "stop",
    "length": "length",
    "context_window": "length",
    "refusal": "refusal",
    "content_filter": "content_filter",
}
# Nothing but the deadline ends an attempt: a model in this process has nobody to fail over to.
_POLICY = ResiliencePolicy(deadline_seconds=600.0, attempt_seconds=600.0)


class InProcessChatClient(ProtectedChatClient):
    """Asks a model of the trajectory monitor. Completions of tasks that run at once share its batches.

    It costs nothing by the token, and ``Completion.generation`` is the record of the tokens. The same
    request with the same seed gives the same text.

    Args:
        model: a name that `cert.backends.opening.open_backend` takes, of a model in this process. It is
            loaded here, which takes its time.
        backend: a model that is loaded already; it stays the caller's to close.
        options: how a model is loaded.
        temperature: of requests that name none; 1 is the model's own distribution.
        top_logprobs: K, the candidates to record a token.
        policy: deadlines, and retries where the model has too much to do.
        clock: for tests.
        hub: told of calls.

    Raises:
        ConfigurationError: a model on a server, or one without a chat template.
        ResourceError: the model cannot be loaded.
        DependencyMissingError: the extra ``local`` is not installed.
    """

    def __init__(
        self,
        model: str = "reference",
        *,
        backend: Backend | None = None,
        options: LoadOptions | None = None,
        temperature: float = 1.0,
        top_logprobs: int = 20,
        policy: ResiliencePolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
    ) -> None:
        at_least("temperature", temperature, 0)
        at_least("top_logprobs", top_logprobs, 0)
        if backend is None and is_server(model):
            raise ConfigurationError(
                "the model is on a server", hint="OpenAIChatClient asks servers, with limits and prices"
            )
        protection = Protection("in_process", policy=policy or _POLICY, clock=clock, hub=hub)
        super().__init__(Price.free(), protection)
        self._temperature, self._top_logprobs = temperature, top_logprobs
        self._own = open_backend(model, options) if backend is None else None
        self._backend = backend or self._own
        if not self._loaded.capabilities.chat:
            raise ConfigurationError("the model has no chat template, so it cannot be asked in messages")
        window = self._loaded.window
        self._places = PerLoop(lambda: asyncio.Semaphore(window))

    def __repr__(self) -> str:
        return f"InProcessChatClient({self.identity.model!r})"

    @property
    def identity(self) -> ChatIdentity:
        """Who answers."""
        named = self._loaded.identity
        settings = f"temperature={self._temperature:g}"
        return ChatIdentity(named.backend, named.name, revision=named.revision, settings=settings)

    async def aclose(self) -> None:
        """Let go of the model, where it was loaded here; nothing may be asked afterwards."""
        backend, self._own = self._own, None
        if backend is not None:
            self._backend = None
            await asyncio.to_thread(backend.close)

    @property
    def _loaded(self) -> Backend:
        if self._backend is None:
            raise ConfigurationError("the client was closed")
        return self._backend

    def _check(self, request: ChatRequest) -> None:
        super()._check(request)
        if request.tool is not None:
            raise ConfigurationError(
                "a model in this process has no typed output",
                hint="ask for the answer in words, or use a client of a server",
                context={"missing": "tool"},
            )

    def _worth_another(self, error: Exception) -> bool:
        return isinstance(error, OverloadedError)

    async def _ask(self, request: ChatRequest) -> Answer:
        system = (Message("system", request.system),) if request.system else ()
        temperature = self._temperature if request.temperature is None else request.temperature
        wanted = GenerationRequest(
            prompt=(*system, *request.messages),
            max_new_tokens=request.max_tokens,
            sampling=Sampling(temperature=temperature, seed=request.seed),
            top_logprobs=self._top_logprobs,
        )
        # No more than the model takes in its batches: others of this process may be waiting for it too.
        async with self._places.get():
            control = Control()
            generation = await control.wait_async(self._loaded.begin(wanted, control))
        return Answer(
            text=generation.text,
            model=generation.model.name,
            usage=Usage(
                generation.prompt_tokens or 0, len(generation.steps) + (generation.stop_step is not None)
            ),
            finish=_FINISH.get(generation.finish_reason, "unknown"),
            generation=generation,
        )
