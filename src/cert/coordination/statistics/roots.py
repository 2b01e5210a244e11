"""Where a falling function crosses 0: the ends of intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

__all__ = ["root"]

_PRECISION: Final = 1.0e-10


def root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function crosses 0 in [low, high], or the end that it does not reach.

    Bisection where the function is infinite, else regula falsi, made to close in from both sides (Illinois).
    """
    above, below = falling(low), falling(high)
    if above <= 0.0:
        return low
    if below > 0.0:
        return high
    kept = 0
    while high - low > _PRECISION:
        middle = _between(low, above, high, below)
        value = falling(middle)
        if value > 0.0:
            low, above = middle, value
            below = below / 2.0 if kept > 0 else below
            kept = 1
        else:
            high, below = middle, value
            above = above / 2.0 if kept < 0 else above
            kept = -1
        if value == 0.0:
            return middle
    return (low + high) / 2.0


def _between(low: float, above: float, high: float, below: float) -> float:
    """Return where the secant crosses 0, a little off the ends so that both of them move."""
    if math.isinf(above) or math.isinf(below) or above == below:
        return (low + high) / 2.0
    guess = low + (high - low) * above / (above - below)
    edge = min(_PRECISION / 2.0, (high - low) / 4.0)
    return min(max(guess, low + edge), high - edge)
