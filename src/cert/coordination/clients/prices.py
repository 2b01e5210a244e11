"""What tokens cost: exact dollars for a million tokens, of a table or given by the user.

A price in dollars for a million tokens is one in micro-dollars for a token, so sums need no division. A
completion is rounded up once, to whole micro-dollars.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol, TypeAlias

from cert.coordination.chat import Usage
from cert.core.errors import ConfigurationError

__all__ = ["Condition", "Price", "PriceSchedule", "Pricing", "Tier", "now"]

# Most vendors sell an input token at about a fifth of an output token.
_FREE_INPUT_WEIGHT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Dollars for a million tokens.

    ::

        Price(input=Decimal("3"), output=Decimal("15"))

    Attributes:
        input: of tokens that are read.
        output: of tokens that are generated.
        cache_read: of tokens that come from the vendor's cache; as ``input`` where none is given.
        cache_write: of tokens that go into it; as ``input`` where none is given.
        tiers: prices of longer prompts, by ascending length. A completion has one price for all its tokens.
        source: where it was read, for records.

    Raises:
        ConfigurationError: a price that is no exact number of 0 or more, or tiers out of order.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    source: str = "given"

    def __post_init__(self) -> None:
        for name in ("input", "output", "cache_read", "cache_write"):
            value = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool):
                value = Decimal(value)
                object.__setattr__(self, name, value)
            if value is not None and not _is_price(value):
                raise ConfigurationError(
                    f"the price of {name} tokens is {value!r}; it must be a Decimal of 0 or more",
                    hint="a float is no exact price: write Decimal('0.15')",
                    context={"setting": f"price.{name}"},
                )
        starts = [tier.above for tier in self.tiers]
        if starts != sorted(set(starts)) or any(tier.price.tiers for tier in self.tiers):
            raise ConfigurationError(
                "the tiers of a price go by ascending length and have no tiers themselves"
            )

    @classmethod
    def free(cls) -> Price:
        """Return the price of a model that costs nothing by the token, such as one in this process."""
        return cls(input=Decimal(0), output=Decimal(0), source="free")

    def cost(self, usage: Usage) -> int:
        """Return what tokens cost together, in micro-dollars, rounded up."""
        return math.ceil(self._exact(usage))

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """Return the most that a completion of up to so many tokens can cost, in micro-dollars.

        Each input token counts at the dearest of its three prices, and all at the dearest tier in reach.
        """
        within = [self, *(tier.price for tier in self.tiers if input_tokens > tier.above)]
        dearest_input = max(price for tier in within for price in tier._inputs())
        dearest_output = max(tier.output for tier in within)
        return math.ceil(dearest_input * input_tokens + dearest_output * output_tokens)

    def weight(self, usage: Usage) -> float:
        """Return tokens weighted by their prices; see `cert.coordination.chat.ChatClient.weight`."""
        if self.input > 0 and self.output > 0:
            return float(self._exact(usage)) / 1_000_000
        read = usage.total_tokens - usage.output_tokens
        return usage.output_tokens + _FREE_INPUT_WEIGHT * read

    def at(self, _moment: datetime) -> Price:
        """Return this price, which is the same at all times."""
        return self

    def _exact(self, usage: Usage) -> Decimal:
        price = self._for_prompt_of(usage.total_tokens - usage.output_tokens)
        plain, cache_read, cache_write = price._inputs()
        return (
            plain * usage.input_tokens
            + cache_read * usage.cache_read_tokens
            + cache_write * usage.cache_write_tokens
            + price.output * usage.output_tokens
        )

    def _for_prompt_of(self, tokens: int) -> Price:
        reached = [tier.price for tier in self.tiers if tokens > tier.above]
        return reached[-1] if reached else self

    def _inputs(self) -> tuple[Decimal, Decimal, Decimal]:
        read = self.input if self.cache_read is None else self.cache_read
        written = self.input if self.cache_write is None else self.cache_write
        return self.input, read, written


@dataclass(frozen=True, slots=True)
class Tier:
    """The price of prompts above a length.

    Attributes:
        above: tokens of the prompt, cached ones included, above which it counts.
        price: of all tokens of such a completion.
    """

    above: int
    price: Price


class Pricing(Protocol):
    """A price that may change with time; a `Price` is one too."""

    @property
    def source(self) -> str:
        """Where it was read."""
        ...

    def at(self, moment: datetime, /) -> Price:
        """Return the price of that moment, which is in UTC."""
        ...


Condition: TypeAlias = Callable[[datetime], bool]


@dataclass(frozen=True, slots=True)
class PriceSchedule:
    """A price that changes at given times.

    Attributes:
        entries: prices with the condition under which each counts, ``None`` for always; of several the last
            one counts, and where none does, the first.
        source: where they were read.
    """

    entries: tuple[tuple[Condition | None, Price], ...]
    source: str

    def at(self, moment: datetime) -> Price:
        """Return the price of that moment."""
        for condition, price in reversed(self.entries):
            if condition is None or condition(moment):
                return price
        return self.entries[0][1]


def now() -> datetime:
    """Return the wall-clock time by which vendors date their prices."""
    return datetime.now(UTC)


def _is_price(value: object) -> bool:
    return isinstance(value, Decimal) and value.is_finite() and value >= 0
