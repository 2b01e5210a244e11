"""The chat models of the allow-list: those in this process once for all, those of vendors for each tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from cert.coordination.chat import ChatClient
from cert.core.budget import Budget
from cert.core.errors import ConfigurationError, InputError
from cert.core.health import Finding
from cert.core.rate_limit import RateLimiter
from cert.core.redis_scripts import RedisScripts
from cert.services.coordination.options import AskedModel, CoordinationOptions

__all__ = ["Chats"]


class Chats:
    """Opens each model when it is first asked for.

    Args:
        options: with the models.
        redis: where replicas share rates.
        clients: ready ones by their names, in place of those of the options; they stay their maker's.
    """

    def __init__(
        self,
        options: CoordinationOptions,
        redis: RedisScripts | None = None,
        clients: Mapping[str, ChatClient] | None = None,
    ) -> None:
        self._options = options
        self._redis = redis
        self._given = clients
        self._models = {model.name: model for model in options.models}
        self._open: dict[tuple[str, str], ChatClient] = {}
        self._limiters: dict[str, RateLimiter] = {}
        self._opening = asyncio.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The models that may be asked for; the first is meant where none is named."""
        return tuple(self._models if self._given is None else self._given)

    @property
    def have_budgets(self) -> bool:
        """Whether the clients keep to the budget that they are opened with; ready ones know of none."""
        return self._given is None

    def check(self, name: str) -> None:
        """Refuse what is not on the list, or cannot be asked here.

        Raises:
            InputError: it is not on the list.
            ConfigurationError: its key is missing.
        """
        if name not in self.names:
            raise InputError("there is no such model here", hint="GET /v1/models lists them")
        if self._given is None and self._models[name].lacks_key:
            raise ConfigurationError(
                "this service has no key of the Claude API", hint="its operator sets CERT_ANTHROPIC_API_KEY"
            )

    async def client(self, name: str, tenant: str, budget: Budget) -> ChatClient:
        """Return the client of a model.

        Args:
            name: of the list.
            tenant: who pays.
            budget: the tenant's.

        Raises:
            InputError, ConfigurationError: as `check`.
            CertError: the model cannot be opened.
        """
        self.check(name)
        if self._given is not None:
            return self._given[name]
        model = self._models[name]
        slot = (name, "" if model.kind == "in_process" else tenant)
        async with self._opening:
            if slot not in self._open:
                self._open[slot] = await asyncio.to_thread(self._made, model, budget)
            return self._open[slot]

    def health(self) -> Finding:
        """Say whether the Claude API can be asked."""
        lacking = any(model.lacks_key for model in self._options.models)
        has_one = any(model.kind == "anthropic" for model in self._options.models)
        if self._given is None and self._options.expects_anthropic and (lacking or not has_one):
            return Finding("degraded", "no_anthropic_key", "there is no key of the Claude API")
        return Finding("healthy")

    async def aclose(self) -> None:
        """Let go of all of them."""
        while self._open:
            await self._open.popitem()[1].aclose()

    def _made(self, model: AskedModel, budget: Budget) -> ChatClient:
        if model.kind == "in_process":
            from cert.backends.loading import require_libraries
            from cert.coordination.clients.in_process import InProcessChatClient

            require_libraries()
            # Nobody here reads the candidates of a token.
            return InProcessChatClient(model.source, options=model.load, top_logprobs=0)
        if model.kind == "anthropic":
            from cert.coordination.clients.anthropic import AnthropicClientWithResilience

            url = model.source.partition("@")[2]
            return AnthropicClientWithResilience(
                model.api_key, model.name, base_url=url or None, **self._limited(model, url, budget)
            )
        from cert.backends.openai_server.address import parse_name
        from cert.coordination.clients.openai import OpenAIChatClient

        name, url = parse_name(model.source)
        return OpenAIChatClient(name, url, model.api_key, **self._limited(model, url, budget))

    def _limited(self, model: AskedModel, url: str, budget: Budget) -> dict[str, Any]:
        server = f"{model.kind}:{url}"
        if server not in self._limiters:
            self._limiters[server] = RateLimiter(
                self._options.requests_per_minute,
                self._options.tokens_per_minute,
                name=f"coordination:{server}" if self._redis else "coordination",
                redis=self._redis,
                max_replicas=self._options.max_replicas,
            )
        return {"limiter": self._limiters[server], "budget": budget, "price": model.price}
