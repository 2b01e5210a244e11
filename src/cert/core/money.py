"""Money as whole millionths of a dollar: sums are exact, and a price is rounded up, never down."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal

from cert.core.errors import InputError

__all__ = ["MOST_MICRO_DOLLARS", "dollars", "micro_dollars"]

# A thousand million dollars. Below 2**53 by far, so that Lua's numbers (doubles) stay exact in sums.
MOST_MICRO_DOLLARS = 10**15

_EXACT = Context(prec=60, rounding=ROUND_CEILING)


def micro_dollars(amount: Decimal | int) -> int:
    """Return dollars as millionths of a dollar, rounded up.

    Raises:
        InputError: the amount is a float (which is no exact price), negative, not finite or above 10^9.
    """
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int):
        raise InputError(f"dollars are given as Decimal or int, not {type(amount).__name__}")
    exact = Decimal(amount)
    if not exact.is_finite() or exact < 0 or exact > MOST_MICRO_DOLLARS // 1_000_000:
        raise InputError(f"an amount of dollars is from 0 to 10^9, not {amount}")
    return int(_EXACT.to_integral_exact(_EXACT.multiply(exact, Decimal(1_000_000))))


def dollars(amount: int) -> Decimal:
    """Return millionths of a dollar as exact dollars."""
    return Decimal(amount).scaleb(-6, _EXACT)
