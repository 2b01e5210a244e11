"""How many labels a goal needs at the least, and the error that says how many are missing."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from cert.core.errors import ConfigurationError, InfeasibleError
from cert.trajectory.calibration.goals.answers import exact_rate
from cert.trajectory.calibration.goals.types import GOALS, Goal

__all__ = ["clean_passes", "infeasible", "minimum_units", "refuse_delta"]

KINDS: dict[Goal, str] = {
    "false-flags": "correct",
    "misses": "wrong",
    "selective-risk": "passed",
    "undetected-errors": "labelled",
    "streaming": "correct",
}
"""Of which kind of answer each goal needs a number."""


def minimum_units(goal: Goal, alpha: float, delta: float | None = None) -> int:
    """Return the smallest number of units of a goal's kind with which a threshold can exist at all.

    For ``false-flags`` and ``streaming`` these are correct answers, for ``misses`` wrong ones, for
    ``undetected-errors`` answers of either kind: (1 − α)/α, rounded up. For ``selective-risk`` they are
    answers that pass and are right, without a wrong one among them: the smallest n with (1 − α)ⁿ ≤ δ. The
    answers that its grid is chosen on come on top.

    Raises:
        ConfigurationError: no such goal, or a rate that is not between 0 and 1.
    """
    if goal not in GOALS:
        raise ConfigurationError(f"there is no goal '{goal}'", hint=f"one of {', '.join(GOALS)}")
    if goal == "selective-risk":
        return clean_passes(exact_rate("alpha", alpha), exact_rate("delta", delta))
    refuse_delta(goal, delta)
    rate = exact_rate("alpha", alpha)
    return math.ceil((1 - rate) / rate)


def clean_passes(alpha: Fraction, delta: Fraction) -> int:
    """Return the smallest n with (1 − α)ⁿ ≤ δ."""
    # The logarithms are right to some 1e-15 of themselves; only a number that close to a whole one is in
    # doubt, and is then taken exactly.
    ratio = math.log(delta) / math.log1p(-float(alpha))
    near = round(ratio)
    if near > 0 and abs(ratio - near) < 1e-9 * near:
        return near if near > 5000 or (1 - alpha) ** near <= delta else near + 1
    return math.ceil(ratio)


def refuse_delta(goal: Goal, delta: float | None) -> None:
    """Refuse a delta where the promise is about the mean over calibrations.

    Raises:
        ConfigurationError: there is one.
    """
    if delta is not None:
        raise ConfigurationError(
            f"the goal '{goal}' has no delta: its promise is about the mean over calibrations",
            hint="leave delta out, or choose selective-risk",
        )


def infeasible(
    message: str, goal: Goal, needed: int | None, *, hint: str | None = None, **facts: Any
) -> InfeasibleError:
    """Return the error of a goal that cannot be reached on the data, with how many labels would do."""
    kind = KINDS[goal]
    if hint is None:
        hint = "a larger alpha, another score, or a better model; more labels alone will not do"
        if needed is not None:
            units = "1 more unit" if needed == 1 else f"{needed} more units"
            hint = f"label {units}, drawn as before"
            if kind in ("correct", "wrong"):
                hint = f"label answers, drawn as before, until {units} with {kind} answers are among them"
    context = {"goal": goal, "kind": kind, "needed": needed, **facts}
    error = InfeasibleError(message, hint=hint, context=context)
    error.needed = needed
    return error
