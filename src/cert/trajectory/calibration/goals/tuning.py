"""Which thresholds are tested, and from which on: decided on answers that no test sees.

Nothing here can make the promise false; it decides how often a threshold is found, and how loose it is.
The strictest thresholds pass too few answers for any test to reject, and the loosest have too many errors.
So the sequence starts where a test is nearly as likely to reject as anywhere, by what the tuning part tells,
and goes on to looser ones, up to passing everything.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cert.trajectory.calibration.goals.answers import Answers
from cert.trajectory.calibration.goals.binomial import at_most, special

__all__ = ["TUNING_SHARE", "sequence", "units_wanted"]

TUNING_SHARE: Final = 0.2
"""Of the units, for tuning. In simulations of 100 to 5,000 answers a fifth certified as much as any other."""
_CANDIDATES: Final = 200
_TESTS: Final = 50
_LIKELY: Final = 0.8
_NODES: Final = 17
_NEARLY: Final = 0.9


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
    # One standard deviation fewer than expected, that of the tuning part among it: too few prove nothing.
    spread = np.sqrt(expected * (1 - share) * (1 + tested / tuning.n_units))
    count = np.maximum(np.floor(expected - spread), 0)
    chances = _chances(count, wrong, passed - wrong, alpha, delta)
    if chances.max() == 0.0:
        return None
    # The best of many estimates is too good: of those nearly as good the strictest fails less often.
    start = int(np.flatnonzero(chances >= _NEARLY * chances.max())[0])
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
    some = np.unique(np.linspace(0, below.sum() - 1, 20).astype(np.int64))
    wrong, passed = wrong[below][some], passed[below][some]
    smooth = (wrong + 0.5) / (passed + 1)
    rate = np.where(smooth < alpha, smooth, wrong / passed)
    counts = np.unique(np.round(np.geomspace(1, 1e7, 200)))
    found = np.inf
    allowed = _allowed(counts, alpha, delta)
    for one, share in zip(rate, passed / answers.n_units, strict=True):
        likely = at_most(np.maximum(allowed, 0), counts, one) >= _LIKELY
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
    passed = _counted(ranked, up_to, grid, answers.whole)
    return grid, _counted(bad, bad_up_to, grid, answers.whole), passed


def _counted(
    ranked: NDArray[np.float64], up_to: NDArray[Any], grid: NDArray[np.float64], whole: int
) -> NDArray[np.float64]:
    places = np.searchsorted(ranked, grid, side="right")
    counts = np.concatenate(([0], up_to))[places]
    return np.asarray(counts / whole, dtype=np.float64)


def _allowed(counts: NDArray[np.float64], alpha: float, delta: float) -> NDArray[np.float64]:
    """Return how many of the passed may be wrong for a test to reject; −1 where none may."""
    # bdtrik inverts the distribution function in k, up to rounding.
    first = np.nan_to_num(special().bdtrik(delta, np.maximum(counts, 1.0), alpha), nan=0.0)
    around = np.maximum(np.floor(first), 0)[:, None] + np.array([-1.0, 0.0, 1.0])
    rejects = (around >= 0) & (at_most(np.maximum(around, 0), counts[:, None], alpha) <= delta)
    return np.asarray(np.where(rejects, around, -1.0).max(axis=1), dtype=np.float64)


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
    allowed = _allowed(count, alpha, delta)
    levels = (np.arange(_NODES) + 0.5) / _NODES
    rates = special().betaincinv(wrong[:, None] + 0.5, right[:, None] + 0.5, levels)
    chances = at_most(np.maximum(allowed, 0)[:, None], count[:, None], rates).mean(axis=1)
    return np.asarray(np.where(allowed >= 0, chances, 0.0), dtype=np.float64)
