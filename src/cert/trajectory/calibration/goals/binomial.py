"""Tests of the share of wrong answers among those that pass, and the sequence in which they are done."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import DependencyMissingError

__all__ = ["at_most", "fixed_sequence", "p_values", "special", "wrong_and_passed"]


def wrong_and_passed(
    scores: NDArray[np.float64], correct: NDArray[np.bool_], grid: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many answers pass each threshold of a grid and are wrong, and how many pass.

    Args:
        scores: (n,) NaN never passes.
        correct: (n,)
        grid: (G,) thresholds without NaN.

    Returns:
        Two columns of shape (G,).
    """
    measured = ~np.isnan(scores)
    passed = np.searchsorted(np.sort(scores[measured]), grid, side="right")
    wrong = np.searchsorted(np.sort(scores[measured & ~correct]), grid, side="right")
    return wrong.astype(np.int64), passed.astype(np.int64)


def p_values(wrong: NDArray[np.int64], passed: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
    """Return P(Bin(passed, α) ≤ wrong): a valid p-value of "more than α of the passed are wrong".

    Where nothing passes it is 1. The answers have to be independent: one of each unit.
    """
    return at_most(wrong, passed, alpha)


def at_most(k: NDArray[Any], n: NDArray[Any], rate: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return P(Bin(n, rate) ≤ k) for 0 ≤ k; 1 where k reaches n."""
    # The regularised incomplete beta function: scipy's own binomial refuses whole numbers kept as floats.
    inside = k < n
    left = np.where(inside, n - k, 1)
    return np.where(inside, special().betainc(left, k + 1.0, 1.0 - np.asarray(rate)), 1.0)


def fixed_sequence(values: NDArray[np.float64], delta: float) -> int:
    """Return how many hypotheses are rejected: all until the first whose p-value is above δ.

    The order must not depend on the data that the p-values are from. Then the probability that any true
    hypothesis is rejected is at most δ.
    """
    kept = np.flatnonzero(~(values <= delta))
    return int(kept[0]) if len(kept) else len(values)


def special() -> Any:
    """Return `scipy.special`.

    Raises:
        DependencyMissingError: scipy is not installed.
    """
    try:
        from scipy import special as functions
    except ImportError as error:
        raise DependencyMissingError(
            "the goal 'selective-risk' needs scipy", hint="pip install 'cert-framework[calibration]'"
        ) from error
    return functions
