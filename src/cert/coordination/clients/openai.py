"""Servers that speak the OpenAI API: vLLM, SGLang, llama.cpp, TGI, OpenAI and others."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from cert.backends.base import Generation, ModelIdentity, Sampling
from cert.backends.server_url import checked_url
from cert.coordination.chat import ChatIdentity, ChatRequest
from cert.coordination.clients.limits import Dollars, Protection
from cert.coordination.clients.packages import require
from cert.coordination.clients.per_loop import PerLoop
from cert.coordination.clients.price_table import published_price
from cert.coordination.clients.prices import Pricing
from cert.coordination.clients.protected import Answer, ProtectedChatClient
from cert.coordination.clients.sizes import texts_of
from cert.core.bounds import positive
from cert.core.circuit_breaker import Breaker
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import ConfigurationError
from cert.core.events import EventHub
from cert.core.resilience import Budget, Limiter, ResiliencePolicy

if TYPE_CHECKING:
    from cert.backends.openai_server.dialects import Dialect
    from cert.coordination.clients.openai_wire import TypedOutput

__all__ = ["OpenAIChatClient"]

_ANSWER_BYTES = 64 * 1024 * 1024
_VENDOR_HOST = "api.openai.com"


class OpenAIChatClient(ProtectedChatClient):
    """Asks a server for chat completions, under the resilience stack.

    ::

        client = OpenAIChatClient("Qwen/Qwen2.5-7B", "http://127.0.0.1:8000/v1", price=Price.free())

    Args:
        model: as the server names it.
        base_url: of the API, mostly ending with ``/v1``.
        api_key: sent as a bearer token; nothing is sent without one.
        requests_per_minute: in any window of 60 seconds; ``None`` is no limit.
        max_cost_per_hour: dollars in any hour, ``None`` is no limit. A float is taken as it is written.
        max_cost_total: dollars in all.
        tokens_per_minute: about so many; ``None`` is no limit.
        price: of the model. Left out, it is the published one of the vendor that the URL is of; a server of
            one's own has none: `Price.free` says so.
        dialect: the kind of server, one of `cert.backends.openai_server.DIALECTS`; ``auto`` knows OpenAI's
            own by its address, and takes no kind for any other.
        typed_output: how the server is told the form of an answer: by a ``tool`` that has to be called, or
            by a ``json_schema`` that the text has to follow.
        top_logprobs: have each token with its log-probability and so many candidates in
            ``Completion.generation``; an answer without them is an error then. Left out, there are none.
        policy: deadlines and retries; an attempt is a whole answer.
        limiter: in place of the two rates, such as one that replicas share.
        budget: in place of the two limits on dollars.
        breaker: in place of this client's own.
        answer_bytes: the largest answer.
        connect_seconds: for a connection to be made.
        clock: for tests.
        hub: told of calls.

    Raises:
        ConfigurationError: no price for the model, or a setting that cannot be right.
        DependencyMissingError: the extra ``coordination`` is not installed.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key: SecretStr | str | None = None,
        requests_per_minute: int | None = 50,
        max_cost_per_hour: Dollars | None = 10.0,
        *,
        max_cost_total: Dollars | None = None,
        tokens_per_minute: int | None = None,
        price: Pricing | None = None,
        dialect: str = "auto",
        typed_output: TypedOutput = "tool",
        top_logprobs: int | None = None,
        policy: ResiliencePolicy | None = None,
        limiter: Limiter | None = None,
        budget: Budget | None = None,
        breaker: Breaker | None = None,
        answer_bytes: int = _ANSWER_BYTES,
        connect_seconds: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
    ) -> None:
        require("openai", "a server that speaks the OpenAI API")
        if not model.strip():
            raise ConfigurationError("the name of a model is empty")
        if typed_output not in ("tool", "json_schema"):
            raise ConfigurationError(f"typed_output is {typed_output!r}; it must be 'tool' or 'json_schema'")
        if top_logprobs is not None and top_logprobs < 0:
            raise ConfigurationError(f"top_logprobs is {top_logprobs}; it must be 0 or more, or None")
        positive("answer_bytes", answer_bytes)
        positive("connect_seconds", connect_seconds)
        self._model, self._url = model, checked_url(base_url)
        self._typed, self._top_logprobs = typed_output, top_logprobs
        self._dialect = _dialect(dialect, self._url)
        protection = Protection(
            "openai",
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_cost_per_hour=max_cost_per_hour,
            max_cost_total=max_cost_total,
            policy=policy,
            limiter=limiter,
            budget=budget,
            breaker=breaker,
            clock=clock,
            hub=hub,
        )
        super().__init__(price or published_price(model, url=self._url), protection)
        from cert.backends.openai_server.transport import Transport

        url, key = self._url, SecretStr(api_key) if isinstance(api_key, str) else api_key
        self._transports = PerLoop(
            lambda: Transport(url, key, most_bytes=answer_bytes, connect_seconds=connect_seconds)
        )

    def __repr__(self) -> str:
        return f"OpenAIChatClient({self._model!r}, {self._url!r})"

    @property
    def identity(self) -> ChatIdentity:
        """Who answers."""
        settings = "" if self._typed == "tool" else f"typed_output={self._typed}"
        return ChatIdentity("openai", self._model, self._url, settings=settings)

    async def aclose(self) -> None:
        """Close the connections of this event loop; the next completion opens new ones."""
        transport = self._transports.take()
        if transport is not None:
            await transport.close()

    async def _ask(self, request: ChatRequest) -> Answer:
        from dataclasses import replace

        from cert.coordination.clients.openai_wire import chat_body, read_chat

        # A call of a tool has no text whose tokens could be listed.
        wanted = self._top_logprobs if request.tool is None else None
        body = chat_body(request, self._model, self._dialect, self._typed, wanted)
        data = await self._transports.get().complete(body, list(texts_of(request)))
        answer = read_chat(data, request, self._model, self._typed)
        return (
            answer if wanted is None else replace(answer, generation=self._generation(request, data, wanted))
        )

    def _generation(self, request: ChatRequest, data: bytes, top_k: int) -> Generation:
        from cert.backends.api_records import ReadOptions, read_response

        options = ReadOptions(top_k=top_k, chosen_takes_a_place=self._dialect.chosen_takes_a_place)
        record = read_response(data, options)[0]
        return Generation(
            prompt=request.messages,
            text=record.text,
            steps=record.steps,
            offsets=record.offsets,
            finish_reason=record.finish_reason,
            stop_step=record.stop_step,
            prompt_tokens=record.prompt_tokens,
            sampling=None if request.temperature is None else Sampling(temperature=request.temperature),
            model=ModelIdentity(
                name=f"openai:{self._model}@{self._url}",
                revision=None,
                backend=self._dialect.name,
                vocab_size=None,
                context_window=None,
            ),
            # Nobody has probed the server.
            logprobs_mode="unknown",
            vocabulary=record.vocabulary,
            duration_s=None,
            token_ids_known=record.token_ids_known,
        )


def _dialect(name: str, url: str) -> Dialect:
    from cert.backends.openai_server.dialects import DIALECTS, GENERIC, dialect_named

    stated = dialect_named(name)
    if stated is not None:
        return stated
    return DIALECTS["openai"] if urlsplit(url).hostname == _VENDOR_HOST else GENERIC
