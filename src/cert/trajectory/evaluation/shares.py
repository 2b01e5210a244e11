"""Shares and rank correlations of answers that come in units."""

from __future__ import annotations

from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cert.trajectory.evaluation.bootstrap import LEVEL, Estimate
from cert.trajectory.evaluation.ranks import Flags, Floats

__all__ = ["clustered_share", "rank_correlation"]

_Z: Final = NormalDist().inv_cdf((1 + LEVEL) / 2)


def clustered_share(hits: Flags, units: NDArray[np.int64]) -> Estimate:
    """Share of hits with a Wilson interval at the effective number of answers.

    That number is n divided by the design effect of asking several times about one unit (Kish); at a
    share of 0 or 1, where the data say nothing of that effect, it is the number of units. A bootstrap
    would give an interval of no width there.

    Args:
        hits: (n,) what is counted.
        units: (n,) the unit of each answer.
    """
    n = len(hits)
    if not n:
        return Estimate(None, None, None, 0)
    share = float(np.mean(hits))
    _, member = np.unique(units, return_inverse=True)
    clusters = int(member.max()) + 1
    effective = float(clusters)
    if 0.0 < share < 1.0 and clusters > 1:
        deviations = np.bincount(member, weights=hits - share)
        robust = (deviations**2).sum() / n**2 * clusters / (clusters - 1)
        effective = min(float(n), share * (1 - share) / robust) if robust > 0 else float(n)
    middle = (share + _Z**2 / (2 * effective)) / (1 + _Z**2 / effective)
    half = (
        _Z / (1 + _Z**2 / effective) * np.sqrt(share * (1 - share) / effective + _Z**2 / (4 * effective**2))
    )
    return Estimate(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)), n)


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's correlation of what both were measured for; ``None`` where one of the two is constant.

    Infinite values count: they are the largest or smallest. Equal ones share their mean rank.
    """
    kept = ~(np.isnan(first) | np.isnan(second))
    if kept.sum() < 3:
        return None
    a, b = (_centred_ranks(np.asarray(values, dtype=np.float64)[kept]) for values in (first, second))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return None if size == 0.0 else float(np.clip(a @ b / size, -1.0, 1.0))


def _centred_ranks(values: Floats) -> Floats:
    _, place, size = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(size) - (size - 1) / 2)[place]
    return ranks - (len(values) + 1) / 2
