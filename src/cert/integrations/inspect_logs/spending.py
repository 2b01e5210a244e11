"""What the runs of a log spent: tokens as it counts them, and money at published prices."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from cert.coordination.chat import Usage
from cert.coordination.clients.price_table import published_price
from cert.coordination.clients.prices import Price
from cert.core.errors import CertError, ConfigurationError, InputError
from cert.core.money import dollars
from cert.integrations.inspect_logs.records import InspectLog

__all__ = ["Spending", "spending_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Of all runs of the samples that are compared, those that failed included.

    Attributes:
        runs: samples times epochs that were run.
        usage: tokens of all models that they used, also of one that scores; ``None`` where runs have none.
        usage_missing: why not, else ``None``.
        cost: in dollars, at published prices of the log's day; ``None`` where one is not known.
        cost_missing: why not, else ``None``.
    """

    runs: int
    usage: Usage | None
    usage_missing: str | None
    cost: Decimal | None
    cost_missing: str | None

    @property
    def tokens_a_run(self) -> float | None:
        """Mean of all tokens; ``None`` where they are not known."""
        return None if self.usage is None else self.usage.total_tokens / self.runs


def spending_of(log: InspectLog, samples: Container[str]) -> Spending:
    """Return what a log's runs of these samples spent."""
    records = [record for (sample, _), record in log.records.items() if sample in samples]
    by_model: dict[str, Usage] = {}
    for record in records:
        for model, usage in record.usage.items():
            by_model[model] = by_model.get(model, Usage()) + usage
    # A run that failed may have done so before it asked a model; any other asked one.
    without = sum(not record.usage and record.lost != "error" for record in records)
    if without or not by_model:
        reason = f"{without:,} of {len(records):,} runs have no tokens in the log" if without else "no tokens"
        return Spending(
            runs=len(records),
            usage=None,
            usage_missing=reason,
            cost=None,
            cost_missing="tokens are not known",
        )
    cost, missing = _cost(log, by_model)
    return Spending(
        runs=len(records),
        usage=sum(by_model.values(), Usage()),
        usage_missing=None,
        cost=cost,
        cost_missing=missing,
    )


def _cost(log: InspectLog, by_model: dict[str, Usage]) -> tuple[Decimal | None, str | None]:
    total = 0
    try:
        moment = _moment(log.created)
        for model, usage in by_model.items():
            price = _price(model, moment)
            if price.tiers:
                # A log tells the tokens of a sample, not of each of its prompts.
                raise InputError(f"the price of '{model[:80]}' depends on the length of each prompt")
            total += price.cost(usage)
    except CertError as error:
        return None, error.message
    return dollars(total), None


def _price(model: str, moment: datetime) -> Price:
    vendor, _, name = model.partition("/")
    try:
        return published_price(name, vendor=vendor).at(moment)
    except ConfigurationError as error:
        raise InputError(f"no price of '{model[:80]}' is known") from error


def _moment(created: str) -> datetime:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError as error:
        raise InputError("the day of the log is not known") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
