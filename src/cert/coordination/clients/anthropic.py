"""The Claude API, and what speaks as it does."""

from __future__ import annotations

from pydantic import SecretStr

from cert.backends.server_url import checked_url
from cert.coordination.chat import ChatIdentity, ChatRequest
from cert.coordination.clients.anthropic_wire import message_body, read_message
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
from cert.core.config import DEFAULT_ANTHROPIC_MODEL
from cert.core.errors import ConfigurationError
from cert.core.events import EventHub
from cert.core.resilience import Budget, Limiter, ResiliencePolicy

__all__ = ["VENDOR_URL", "AnthropicClientWithResilience"]

VENDOR_URL = "https://api.anthropic.com"
_ANSWER_BYTES = 64 * 1024 * 1024


class AnthropicClientWithResilience(ProtectedChatClient):
    """Asks the Claude API, under the resilience stack; for many tasks of one or more event loops.

    ::

        client = AnthropicClientWithResilience(api_key="…", requests_per_minute=50, max_cost_per_hour=10.0)
        completion = await client.complete("Why is the sky blue?", agent="physicist")

    Neither key nor address is taken from the environment. Proxies of the system are honoured.

    Args:
        api_key: of the API; may be left out for a server of one's own.
        model: as the API names it.
        requests_per_minute: in any window of 60 seconds; ``None`` is no limit.
        max_cost_per_hour: dollars in any hour, ``None`` is no limit. A float is taken as it is written.
        max_cost_total: dollars in all.
        tokens_per_minute: about so many; ``None`` is no limit.
        base_url: of the API, without ``/v1``; by default the vendor's.
        price: of the model, in place of the published one.
        policy: deadlines and retries; an attempt is a whole answer.
        limiter: in place of the two rates, such as one that replicas share.
        budget: in place of the two limits on dollars.
        breaker: in place of this client's own.
        answer_bytes: the largest answer.
        connect_seconds: for a connection to be made.
        clock: for tests.
        hub: told of calls.

    Raises:
        ConfigurationError: no key for the vendor, no price for the model, or a setting that cannot be right.
        DependencyMissingError: the extra ``coordination`` is not installed.
    """

    def __init__(
        self,
        api_key: SecretStr | str | None = None,
        model: str = DEFAULT_ANTHROPIC_MODEL,
        requests_per_minute: int | None = 50,
        max_cost_per_hour: Dollars | None = 10.0,
        *,
        max_cost_total: Dollars | None = None,
        tokens_per_minute: int | None = None,
        base_url: str | None = None,
        price: Pricing | None = None,
        policy: ResiliencePolicy | None = None,
        limiter: Limiter | None = None,
        budget: Budget | None = None,
        breaker: Breaker | None = None,
        answer_bytes: int = _ANSWER_BYTES,
        connect_seconds: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
    ) -> None:
        require("anthropic", "the Claude API")
        positive("answer_bytes", answer_bytes)
        positive("connect_seconds", connect_seconds)
        self._url = checked_url(base_url or VENDOR_URL, VENDOR_URL)
        self._model = model
        key = SecretStr(api_key) if isinstance(api_key, str) else api_key
        if self._url == VENDOR_URL and not (key and key.get_secret_value().strip()):
            raise ConfigurationError("the Claude API needs a key", hint="give api_key=…")
        protection = Protection(
            "anthropic",
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
        super().__init__(price or published_price(model, vendor="anthropic"), protection)
        from cert.coordination.clients.anthropic_transport import AnthropicTransport

        url = self._url
        self._transports = PerLoop(
            lambda: AnthropicTransport(url, key, most_bytes=answer_bytes, connect_seconds=connect_seconds)
        )

    def __repr__(self) -> str:
        return f"AnthropicClientWithResilience({self._model!r}, {self._url!r})"

    @property
    def identity(self) -> ChatIdentity:
        """Who answers."""
        return ChatIdentity("anthropic", self._model, self._url)

    async def aclose(self) -> None:
        """Close the connections of this event loop; the next completion opens new ones."""
        transport = self._transports.take()
        if transport is not None:
            await transport.close()

    async def _ask(self, request: ChatRequest) -> Answer:
        body = message_body(request, self._model)
        return read_message(await self._transports.get().send(body, list(texts_of(request))), request)
