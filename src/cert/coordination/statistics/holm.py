"""Several strategies against one baseline: the family-wise error of all claims together (Holm, 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cert.core.errors import InputError

__all__ = ["HolmStep", "holm"]


@dataclass(frozen=True, slots=True)
class HolmStep:
    """What Holm's procedure says of one hypothesis.

    Attributes:
        p: as it came.
        adjusted: below 1 − level exactly where the hypothesis is refused.
        rejected: whether it is.
        level: at which an interval leaves out the hypothesis exactly where it is refused: 1 − α/(m − k) at
            step k = 0, 1, …; after the first step that refuses nothing all share its level.
    """

    p: float
    adjusted: float
    rejected: bool
    level: float


def holm(p_values: Sequence[float], level: float = 0.95) -> tuple[HolmStep, ...]:
    """Return the steps in the order of the p-values.

    Raises:
        InputError: a p-value is not in [0, 1]. Leave out what is not measured: it is no hypothesis.
    """
    if any(not 0.0 <= p <= 1.0 for p in p_values):
        raise InputError("a p-value is in [0, 1]")
    alpha = 1.0 - level
    steps: dict[int, HolmStep] = {}
    adjusted, still, share = 0.0, True, alpha
    for k, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        left = len(p_values) - k
        adjusted = max(adjusted, min(1.0, left * p_values[i]))
        if still:
            share = alpha / left
            still = p_values[i] < share
        steps[i] = HolmStep(p_values[i], adjusted, still, 1.0 - share)
    return tuple(steps[i] for i in range(len(p_values)))
