"""Which thresholds are tested, and from which on: decided on answers that no test sees.

Nothing here can make the promise false; it decides how often a threshold is found, and how loose it is.
The strictest thresholds pass too few answers for any test to reject, and the loosest have too many errors. So
the sequence starts where the tests are most likely to reject, as far as the tuning part tells, and goes on to
looser ones, up to passing everything.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cert.trajectory.calibration.goals.answers import Answers
from cert.trajectory.calibration.goals.binomial import special

__all__ = ["TUNING_SHARE", "sequence", "units_wanted"]

TUNING_SHARE: Final = 0.2
"""Of the units, for tuning. In simulations of 100 to 5,000 answers a fifth certified as much as any other."""
_CANDIDATES: Final = 200
_TESTS: Final = 50
_LIKELY: Final = 0.8
_NODES: Final = 17


def sequence(tuning: Answers, alpha: float, delta: float, tested: int) -> NDArray[np.float64] | None:
    """Return the thresholds in the order of their tests, from strict to loose; the last is infinite.

    Args:
        tuning: the part for tuning.
        alpha: the bound on the share of wrong answers among the passed.
        delta: the level of each test.
        tested: how many units the tests will have.

    Returns:
        Up to 51 thresholds, or ``None`` where none of the candidates can be expected to pass enough answers
        for any test to reject.
    """
    grid, wrong, passed = _curves(tuning)
    if not len(grid):
        return None
    share = passed / tuning.n_units
    expected = tested * share
    # One standard deviation fewer than expected: to start with too few is to certify nothing.
    count = np.maximum(np.floor(expected - np.sqrt(expected * (1 - share))), 0)
    chances = _chances(count, wrong, passed - wrong, alpha, delta)
    start = int(np.argmax(chances))
    if chances[start] == 0.0:
        return None
    places = np.unique(np.round(np.linspace(start, len(grid) - 1, _TESTS)).astype(np.int64))
    return np.append(grid[places], np.inf)


def units_wanted(answers: Answers, alpha: float, delta: float) -> int | None:
    """Return with how many units in all a threshold would be found with a probability of 80 %.

    It takes the rates of passing and of errors as they are in the answers, smoothed by half an error.
    ``None`` where at no threshold that 1/α answers pass are fewer than α of them wrong: more labels would
    not help.
    """
    grid, wrong, passed = _curves(answers)
    if not len(grid):
        return None
    enough = passed >= min(1 / alpha, float(passed[-1]))
    below = enough & (wrong < alpha * passed)
    if not below.any():
        return None
    some = np.unique(np.linspace(0, below.sum() - 1, 40).astype(np.int64))
    wrong, passed = wrong[below][some], passed[below][some]
    smooth = (wrong + 0.5) / (passed + 1)
    rate = np.where(smooth < alpha, smooth, wrong / passed)
    counts = np.unique(np.round(np.geomspace(1, 1e7, 300)))
    functions = special()
    found = np.inf
    allowed = _allowed(counts, alpha, delta)
    for one, share in zip(rate, passed / answers.n_units, strict=True):
        likely = functions.bdtr(np.maximum(allowed, 0), counts, one) >= _LIKELY
        fits = np.flatnonzero((allowed >= 0) & likely)
        if len(fits):
            found = min(found, counts[fits[0]] / share)
    return None if np.isinf(found) else int(np.ceil(found / (1 - TUNING_SHARE)))


def _curves(answers: Answers) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return candidates for λ, and what the wrong and all of the answers that pass each count."""
    everyone = np.ones(len(answers.scores), dtype=np.bool_)
    (ranked, up_to), (bad, bad_up_to) = answers.ranked(everyone), answers.ranked(~answers.correct)
    grid = np.unique(ranked)
    if len(grid) > _CANDIDATES:
        grid = np.unique(ranked[np.linspace(0, len(ranked) - 1, _CANDIDATES).astype(np.int64)])
    passed = _counted(ranked, up_to, grid) / answers.whole
    return grid, _counted(bad, bad_up_to, grid) / answers.whole, passed


def _counted(
    ranked: NDArray[np.float64], up_to: NDArray[np.int64], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    places = np.searchsorted(ranked, grid, side="right")
    return np.concatenate(([0], up_to))[places].astype(np.float64)


def _allowed(counts: NDArray[np.float64], alpha: float, delta: float) -> NDArray[np.float64]:
    """Return how many of the passed may be wrong for a test to reject; −1 where none may."""
    functions = special()
    # bdtrik inverts the distribution function in k; rounding can leave it one off on either side.
    allowed = np.floor(functions.bdtrik(delta, np.maximum(counts, 1), alpha))
    allowed = np.nan_to_num(allowed, nan=-1.0) + 1
    for _ in range(2):
        over = functions.bdtr(np.maximum(allowed, 0), np.maximum(counts, 1), alpha) > delta
        allowed = np.where((allowed >= 0) & over, allowed - 1, allowed)
    return np.where(counts > 0, np.maximum(allowed, -1), -1)


def _chances(
    count: NDArray[np.float64],
    wrong: NDArray[np.float64],
    right: NDArray[np.float64],
    alpha: float,
    delta: float,
) -> NDArray[np.float64]:
    """Return the probability that a test rejects, over what the tuning part leaves open about the error rate.

    The error rate has the posterior Beta(wrong + ½, right + ½); the mean is over its quantiles.
    """
    functions = special()
    allowed = _allowed(count, alpha, delta)
    levels = (np.arange(_NODES) + 0.5) / _NODES
    rates = functions.betaincinv(wrong[:, None] + 0.5, right[:, None] + 0.5, levels)
    chances = functions.bdtr(np.maximum(allowed, 0)[:, None], np.maximum(count, 1)[:, None], rates).mean(
        axis=1
    )
    return np.asarray(np.where(allowed >= 0, chances, 0.0), dtype=np.float64)
