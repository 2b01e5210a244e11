"""The chat models of a command, by the names that people give them, under limits that they share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from cert.cli.console import quiet_libraries, stderr
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.coordination.chat import ChatClient
    from cert.coordination.clients.prices import Price
    from cert.core.budget import Budget
    from cert.core.rate_limit import RateLimiter

__all__ = ["ChatModels", "Limits", "default_model", "parse_prices"]

# Of all settings those that play a part here: a wrong one of another part must not stop this command.
_VARIABLES: Final = (
    *("CERT_MODEL", "CERT_DEVICE", "DEVICE", "CERT_DTYPE"),
    *("CERT_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY", "CERT_ANTHROPIC_MODEL"),
    *("CERT_OPENAI_API_KEY", "OPENAI_API_KEY"),
    *("CERT_REQUESTS_PER_MINUTE", "CERT_TOKENS_PER_MINUTE"),
    *("CERT_MAX_COST_PER_HOUR", "MAX_COST_PER_HOUR", "CERT_MAX_COST_TOTAL"),
)
_ANTHROPIC: Final = "anthropic"
_PRICE_HINT: Final = (
    "--price IN,OUT in dollars for a million tokens each, or --price MODEL=IN,OUT; 0,0 is free"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the options say of limits; ``None`` is what the environment says, or the usual default.

    Attributes:
        requests_per_minute: to each server.
        max_cost: dollars in all, of this process. It takes the place of the usual limit on an hour, but not
            of one that the environment sets.
    """

    requests_per_minute: int | None = None
    max_cost: Decimal | None = None


@dataclass
class ChatModels:
    """Opens each model once. Models on one server share its rate; all of them share the budget.

    Args:
        limits: as the options say.
        prices: by the model's name; under an empty name, that of the agents' model.
    """

    limits: Limits = field(default_factory=Limits)
    prices: Mapping[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._settings = _settings()
        self._open: dict[str, ChatClient] = {}
        self._limiters: dict[str, RateLimiter] = {}
        self._budget: Budget | None = None

    def open(self, name: str, *, agents: bool = False) -> ChatClient:
        """Return the client of a model.

        Args:
            name: ``reference``, a model directory or a hub id; ``anthropic:MODEL`` or ``openai:MODEL@URL``.
            agents: it is the model of the agents, whose price may be given without a name.

        Raises:
            ConfigurationError: the name, a price or a variable of the environment cannot be right.
            CertError: the model cannot be loaded, or a package is missing.
        """
        if name not in self._open:
            self._open[name] = self._made(name, agents)
        return self._open[name]

    async def aclose(self) -> None:
        """Let go of all of them."""
        while self._open:
            await self._open.popitem()[1].aclose()

    def _made(self, name: str, agents: bool) -> ChatClient:
        if name == _ANTHROPIC or name.startswith(f"{_ANTHROPIC}:"):
            return self._anthropic(name.partition(":")[2], agents)
        if name.startswith("openai:"):
            return self._openai(name, agents)
        if self.prices.keys() & ({"", name} if agents else {name}):
            raise ConfigurationError(f"--price plays no part for '{name}', which runs in this process")
        return self._in_process(name)

    def _anthropic(self, name: str, agents: bool) -> ChatClient:
        from cert.coordination.clients.anthropic import VENDOR_URL, AnthropicClientWithResilience

        upstream = self._settings.upstream
        model, _, url = name.partition("@")
        if not upstream.anthropic_api_key and url in ("", VENDOR_URL):
            raise ConfigurationError("the Claude API needs a key", hint="set CERT_ANTHROPIC_API_KEY")
        model = model or upstream.anthropic_model
        return self._priced(
            lambda price: AnthropicClientWithResilience(
                upstream.anthropic_api_key,
                model,
                base_url=url or None,
                price=price,
                **self._limited(f"{_ANTHROPIC}:{url}"),
            ),
            model,
            agents,
        )

    def _openai(self, name: str, agents: bool) -> ChatClient:
        from cert.coordination.clients.openai import OpenAIChatClient
        from cert.coordination.clients.packages import require

        require("openai", "a server that speaks the OpenAI API")
        from cert.backends.openai_server.address import parse_name

        model, url = parse_name(name)
        return self._priced(
            lambda price: OpenAIChatClient(
                model,
                url,
                self._settings.upstream.openai_api_key,
                price=price,
                **self._limited(f"openai:{url}"),
            ),
            model,
            agents,
        )

    def _in_process(self, name: str) -> ChatClient:
        from rich.text import Text

        from cert.cli.view import printable
        from cert.coordination.clients.in_process import InProcessChatClient

        with stderr().status(Text(f"loading {printable(name)}")):
            quiet_libraries()
            from cert.backends.loading import LoadOptions, require_libraries

            require_libraries()
            model = self._settings.model
            options = LoadOptions(device=model.device, dtype=model.dtype)
            # Nobody here reads the candidates of a token.
            return InProcessChatClient(name, options=options, top_logprobs=0)

    def _priced(self, make: Callable[[Price | None], ChatClient], model: str, agents: bool) -> ChatClient:
        price = self.prices.get(model, self.prices.get("") if agents else None)
        try:
            return make(price)
        except ConfigurationError as error:
            if price is None and error.context.get("model"):
                raise ConfigurationError(error.message, hint=_PRICE_HINT) from error
            raise

    def _limited(self, server: str) -> dict[str, Any]:
        from cert.core.budget import Budget
        from cert.core.money import micro_dollars
        from cert.core.rate_limit import RateLimiter

        limits = self._settings.limits
        if server not in self._limiters:
            rate = self.limits.requests_per_minute or limits.requests_per_minute
            self._limiters[server] = RateLimiter(rate, limits.tokens_per_minute, name="coordinate")
        if self._budget is None:
            budget, most = self._settings.budget, self.limits.max_cost
            hourly = budget.per_hour if most is None or _is_set("MAX_COST_PER_HOUR") else None
            totals = [amount for amount in (budget.total, most) if amount is not None]
            self._budget = Budget(
                None if hourly is None else micro_dollars(hourly),
                micro_dollars(min(totals)) if totals else None,
                name="coordinate",
            )
        return {"limiter": self._limiters[server], "budget": self._budget}


def default_model() -> str:
    """Return the model that is meant where none is named."""
    return str(_settings().model.name)


def parse_prices(given: list[str] | None) -> dict[str, Price]:
    """Return prices as options write them, ``IN,OUT`` or ``MODEL=IN,OUT``, by the model's name.

    Raises:
        ConfigurationError: one is not of this form, or one model has two.
    """
    from cert.coordination.clients.prices import Price

    prices: dict[str, Price] = {}
    for text in given or []:
        model, _, amounts = text.rpartition("=")
        parts = [part.strip() for part in amounts.split(",")]
        try:
            read, written = map(Decimal, parts)
            price = Price(input=read, output=written, source="given")
        except (ArithmeticError, ValueError, ConfigurationError) as error:
            raise ConfigurationError(f"'{text}' is no price", hint=_PRICE_HINT) from error
        if model in prices:
            raise ConfigurationError(f"two prices are given for '{model or 'the model of the agents'}'")
        prices[model] = price
    return prices


def _settings() -> Any:
    from cert.core.config import load_settings

    return load_settings({name: os.environ[name] for name in _VARIABLES if name in os.environ})


def _is_set(name: str) -> bool:
    return any(os.environ.get(variable, "").strip() for variable in (f"CERT_{name}", name))
