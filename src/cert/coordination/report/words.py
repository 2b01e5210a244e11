"""Findings in words that whoever pays for the agents understands; terminal and page say the same."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from cert.coordination.statistics.inference import Difference
from cert.coordination.statistics.ratios import Estimate
from cert.coordination.suite.findings import ArmTotal, Findings
from cert.coordination.types import Interval, Verdict
from cert.reporting.numbers import NOT_MEASURED

__all__ = [
    "VERDICTS",
    "difference_of",
    "further_point",
    "headline",
    "interval_of",
    "money",
    "points",
    "ratio",
    "scores",
    "tokens",
    "verdict_word",
]

VERDICTS: Final[dict[Verdict, str]] = {
    "worth_it": "Worth it",
    "not_worth_it": "Not worth it",
    "not_enough_data": "Not enough data",
}


def verdict_word(verdict: Verdict) -> str:
    """Return the verdict as people read it."""
    return VERDICTS[verdict]


def headline(found: Findings, margin: float) -> str:
    """Return one sentence that says what the verdict means.

    Args:
        found: of one system.
        margin: the smallest difference that is of use.
    """
    interval, tasks = interval_of(found), _count(found.tasks, "task")
    if found.decision.difference.value is None:
        return "The team could not be compared with one agent that spends the same."
    span = f"{points(interval.low)} to {points(interval.high)} points"
    if found.verdict == "worth_it":
        return (
            f"On these {tasks} the team beats one agent that spends the same by more than "
            f"{points(margin, signed=False)} points: {span}."
        )
    if found.verdict == "not_worth_it":
        return (
            f"Whatever the team adds to one agent that spends the same, it is less than "
            f"{points(margin, signed=False)} points: {span}."
        )
    return f"{tasks.capitalize()} cannot tell the team from one agent that spends the same: {span}."


def interval_of(found: Findings) -> Interval:
    """Return the interval of the difference that the verdict rests on."""
    return found.decision.difference.interval if found.sequential is None else found.sequential.interval


def difference_of(found: Difference | None) -> str:
    """Return a difference of scores in points, with its interval."""
    if found is None or found.value is None:
        return NOT_MEASURED
    return f"{points(found.value)} ({points(found.interval.low)} to {points(found.interval.high)})"


def ratio(found: Estimate) -> str:
    """Return a ratio with its interval."""
    if found.value is None:
        return NOT_MEASURED
    text = f"{found.value:.2f}"
    if found.interval is None:
        return text
    low, high = found.interval.low, found.interval.high
    upper = f"{high:.2f}" if math.isfinite(high) else "no upper end"
    return f"{text} ({max(low, 0.0):.2f} to {upper})"


def points(score: float | None, *, signed: bool = True) -> str:
    """Return a score, or a difference of scores, in hundredths.

    Args:
        score: on [0, 1]; ``None`` is not measured.
        signed: with a sign, as differences have one.
    """
    if score is None or math.isnan(score):
        return NOT_MEASURED
    value = round(100.0 * score, 1) + 0.0  # no minus zero
    text = f"{abs(value):.1f}".removesuffix(".0")
    if value < 0:
        return f"−{text}"
    return f"+{text}" if signed and value > 0 else text


def scores(value: float | None) -> str:
    """Return a mean score in hundredths."""
    return points(value, signed=False)


def money(amount: Decimal | None) -> str:
    """Return dollars for people; small amounts keep the digits that they have."""
    if amount is None:
        return NOT_MEASURED
    if amount == 0:
        return "$0"
    size = abs(amount)
    digits = 2 if size >= 1 else 4 if size >= Decimal("0.01") else 6
    return f"{'−' if amount < 0 else ''}${size:,.{digits}f}"


def tokens(arm: ArmTotal) -> str:
    """Return the tokens of an arm, read and written."""
    if arm.usage is None:
        return NOT_MEASURED
    read = arm.usage.total_tokens - arm.usage.output_tokens
    return f"{read:,} read, {arm.usage.output_tokens:,} written"


def further_point(found: Findings) -> str:
    """Return what a point more than the single agent costs, or why that has no number."""
    estimate = found.cost_per_further_point
    if estimate.value is None:
        return estimate.missing or NOT_MEASURED
    return money(Decimal(round(estimate.value)) / 1_000_000)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
