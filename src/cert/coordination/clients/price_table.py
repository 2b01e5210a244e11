"""Published prices of vendors' models, from the table that the package genai-prices brings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cert.coordination.clients.packages import require
from cert.coordination.clients.prices import Condition, Price, PriceSchedule, Tier
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

__all__ = ["published_price", "table_version"]

_TEXT = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}
# No client asks for these: caching for an hour, searches, and anything but text.
_NOT_ASKED_FOR = re.compile(r"cache_write_1h_|_searches_|(^|_)(image|audio|video|document)")


def table_version() -> str:
    """Return name and version of the table, for records."""
    import genai_prices

    return f"genai-prices {genai_prices.__version__}"


def published_price(model: str, *, vendor: str | None = None, url: str | None = None) -> PriceSchedule:
    """Return the price of a model with its changes over time.

    Args:
        model: as the vendor names it.
        vendor: ``anthropic``, ``openai``; or, in its place:
        url: base URL of the API, by which the table finds the vendor.

    Raises:
        ConfigurationError: the table has no such vendor or model, or prices it by something else than tokens.
        DependencyMissingError: the table is not installed.
    """
    require("genai_prices", "the price of a model")
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, vendor, url)
    except LookupError as error:
        raise _unpriced(model, "there is no price for") from error
    source = table_version()
    return PriceSchedule(tuple(_entries(found, model, source)), source)


def _entries(found: ModelInfo, model: str, source: str) -> Iterator[tuple[Condition | None, Price]]:
    if not isinstance(found.prices, list):
        yield None, _price(found.prices, model, source)
        return
    for entry in found.prices:
        condition = None if entry.constraint is None else entry.constraint.active
        yield condition, _price(entry.prices, model, source)


def _price(listed: ModelPrice, model: str, source: str) -> Price:
    values = {key: value for key, value in vars(listed).items() if value is not None}
    unknown = [key for key in values if key not in _TEXT.values() and not _NOT_ASKED_FOR.search(key)]
    if unknown or not {"input_mtok", "output_mtok"} <= values.keys():
        raise _unpriced(model, "the table of prices has none by input and output tokens for")
    starts = sorted({tier.start for value in values.values() for tier in getattr(value, "tiers", ())})
    tiers = tuple(Tier(start, Price(**_rates(values, start), source=source)) for start in starts)
    return Price(**_rates(values, None), tiers=tiers, source=source)


def _rates(values: dict[str, Any], start: int | None) -> dict[str, Any]:
    """Return the price of each kind of token in the tier that begins there."""
    return {name: _rate(values[key], start) for name, key in _TEXT.items() if key in values}


def _rate(value: Any, start: int | None) -> Any:
    if not hasattr(value, "tiers"):
        return value
    reached = [tier.price for tier in value.tiers if start is not None and tier.start <= start]
    return reached[-1] if reached else value.base


def _unpriced(model: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} the model '{model[:80]}'",
        hint="give price=Price(input=…, output=…) in dollars for a million tokens; Price.free() where it "
        "costs nothing",
        context={"model": model[:80]},
    )
