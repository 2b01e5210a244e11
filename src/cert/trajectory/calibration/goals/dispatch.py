"""The threshold of any goal, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from numpy.typing import NDArray

from cert.core.errors import ConfigurationError
from cert.trajectory.calibration.goals.conformal import false_flags, misses, streaming, undetected_errors
from cert.trajectory.calibration.goals.feasibility import refuse_delta
from cert.trajectory.calibration.goals.selective import selective_risk
from cert.trajectory.calibration.goals.types import GOALS, Goal, Threshold

__all__ = ["find_threshold"]

_BY_RANKS: Final[Mapping[Goal, Callable[..., Threshold]]] = {
    "false-flags": false_flags,
    "misses": misses,
    "undetected-errors": undetected_errors,
    "streaming": streaming,
}


def find_threshold(
    goal: Goal,
    scores: NDArray[Any],
    correct: NDArray[Any],
    units: NDArray[Any],
    *,
    alpha: float,
    delta: float | None = None,
    seed: int = 0,
) -> Threshold:
    """Return the threshold that reaches a goal: pass an answer if and only if its score is at most that.

    Args:
        goal: which promise.
        scores: (n,) larger is worse. NaN is not measured, and never passes.
        correct: (n,) booleans.
        units: (n,) integers: what each answer is about. Units must be exchangeable with those to come; the
            answers of one need not be independent.
        alpha: the rate to keep; exactly as it is written, so that 0.05 is one twentieth.
        delta: for ``selective-risk`` the share of calibrations in which the rate may be missed; for the other
            goals there is none.
        seed: for ``selective-risk``, of its split; the others draw nothing.

    Raises:
        InfeasibleError: the data are too few; ``needed`` says how many more would do.
        ConfigurationError: no such goal; a rate that is not between 0 and 1; a delta where there is none.
        InputError: columns that cannot be right.
        DependencyMissingError: ``selective-risk`` without scipy.
    """
    if goal == "selective-risk":
        return selective_risk(scores, correct, units, alpha=alpha, delta=delta, seed=seed)
    if goal not in _BY_RANKS:
        raise ConfigurationError(f"there is no goal '{goal}'", hint=f"one of {', '.join(GOALS)}")
    refuse_delta(goal, delta)
    return _BY_RANKS[goal](scores, correct, units, alpha=alpha)
