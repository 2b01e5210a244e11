"""Probabilities from scores that are none: each answer's from a fit on answers about other units."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError
from cert.trajectory.evaluation.ranks import Floats, Ranking

__all__ = ["FOLDS", "CalibrationMethod", "cross_fitted", "isotonic", "logistic", "unit_folds"]

FOLDS: Final = 5
CalibrationMethod: TypeAlias = Literal["logistic", "isotonic"]
_STEPS: Final = 100
_CLOSE: Final = 1e-10


def unit_folds(units: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each answer, (n,): all answers about one unit are in one, and sizes are alike.

    Which fold a unit is in depends on the set of units and the seed alone.

    Raises:
        ConfigurationError: fewer than two folds.
    """
    if folds < 2:
        raise ConfigurationError(f"cross-fitting takes at least two folds, not {folds}")
    names, member = np.unique(units, return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))
    found: NDArray[np.int64] = (place % folds)[member]
    return found


def cross_fitted(ranking: Ranking, fold: NDArray[np.int64], method: CalibrationMethod) -> Floats:
    """Return P(right) of each answer by a fit on the other folds, (n,); NaN where those hold one kind alone.

    Args:
        ranking: the scores and labels; where it is not exact, neighbours in rank get one probability.
        fold: (n,) of `unit_folds`.
        method: how scores become probabilities: `logistic` or `isotonic`.
    """
    fit = logistic if method == "logistic" else isotonic
    whole = ranking.counts()
    found = np.full(len(ranking), np.nan)
    for one in np.unique(fold):
        held = fold == one
        part = ranking.counts(held.astype(np.float64))
        bad, good = (whole.bad - part.bad)[0], (whole.good - part.good)[0]
        if bad.sum() > 0 and good.sum() > 0:
            found[held] = (1.0 - fit(bad, good))[ranking.place[held]]
    return found


def logistic(bad: Floats, good: Floats) -> Floats:
    """Return P(wrong) at each of B ascending scores: a logistic curve in the log-odds of the rank.

    Of the rank and not of the score, so that heavy tails and infinite scores do no harm; the slope may not
    be negative, since larger is worse. Targets are Platt's, (W + 1)/(W + 2) and 1/(G + 2), so that the fit
    is finite for separated classes (Platt 1999).

    Args:
        bad: (B,) wrong answers at each score, one at least in all.
        good: (B,) the same of right answers.
    """
    size = bad + good
    rank = (np.cumsum(size) - size / 2 + 0.5) / (size.sum() + 1)
    x = np.log(rank / (1 - rank))
    target = bad * (bad.sum() + 1) / (bad.sum() + 2) + good / (good.sum() + 2)
    design = np.stack([np.ones_like(x), x])
    start = np.log(target.sum() / (size - target).sum())
    if size @ x**2 * size.sum() - (size @ x) ** 2 <= _CLOSE * size.sum() ** 2:
        return _sigmoid(np.full_like(x, start))  # one score alone: there is no slope
    beta = np.array([start, 0.0])
    for _ in range(_STEPS):
        p = _sigmoid(beta @ design)
        gradient = design @ (target - size * p)
        curvature = (design * (size * p * (1 - p))) @ design.T
        step = np.linalg.solve(curvature, gradient)
        # Far steps of Newton's are cut: from the constant model they may overshoot.
        beta = beta + step * min(1.0, 4.0 / float(np.abs(step).max(initial=_CLOSE)))
        if np.abs(step).max() < _CLOSE:
            break
    return _sigmoid(beta @ design) if beta[1] >= 0 else _sigmoid(np.full_like(x, start))


def isotonic(bad: Floats, good: Floats) -> Floats:
    """Return P(wrong) at each of B ascending scores: the best that never falls, by pooling (Barlow 1972).

    Scores that no answer of the fit has lie on the line between their neighbours.

    Args:
        bad: (B,) wrong answers at each score, one at least in all.
        good: (B,) the same of right answers.
    """
    size = bad + good
    seen = np.flatnonzero(size)
    sums: list[float] = []
    weights: list[float] = []
    lengths: list[int] = []
    for b, w in zip(bad[seen].tolist(), size[seen].tolist(), strict=True):
        total, weight, length = b, w, 1
        while sums and sums[-1] * weight >= total * weights[-1]:
            total, weight, length = total + sums.pop(), weight + weights.pop(), length + lengths.pop()
        sums.append(total)
        weights.append(weight)
        lengths.append(length)
    levels = np.repeat(np.array(sums) / np.array(weights), lengths)
    found: Floats = np.interp(np.arange(len(size)), seen, levels)
    return found


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):
        found: Floats = 1.0 / (1.0 + np.exp(-x))
    return found
