"""Money per quality: what a point (a hundredth of a score) costs in an arm, and what a further one costs.

Money is in micro-dollars. A ratio of two means has no exact micro-dollar, so that it is a float here.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from cert.coordination.statistics.cluster_t import fieller, freedom_of, mean_covariance
from cert.coordination.statistics.distributions import t_quantile
from cert.coordination.statistics.inference import difference
from cert.coordination.statistics.pairs import Floats, Integers, cluster_numbers, pair, scores_of, task_means
from cert.coordination.statistics.ratios import Estimate
from cert.coordination.types import Interval
from cert.core.errors import InputError

__all__ = ["cost_per_further_point", "cost_per_point"]

_POINTS = 100.0


def cost_per_point(
    micro_dollars: npt.ArrayLike,
    scores: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Return Σ cost / (100 Σ score) of one arm, micro-dollars a point, with Fieller's interval.

    Args:
        micro_dollars: (T,) of each task, NaN where not known.
        scores: (T,) or (T, R) in [0, 1], NaN where missing.
        clusters: the source of each task.
        level: of the interval.
    """
    quality = task_means(scores_of(scores))
    cost = _costs(micro_dollars, len(quality))
    kept = np.isfinite(cost) & np.isfinite(quality)
    return _quotient(cost[kept], quality[kept], cluster_numbers(clusters, len(cost))[kept], level)


def cost_per_further_point(
    coordinated: tuple[npt.ArrayLike, npt.ArrayLike],
    baseline: tuple[npt.ArrayLike, npt.ArrayLike],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Return (mean further cost) / (100 × mean difference of scores): micro-dollars for a point more.

    There is a value only where the interval of the difference lies above 0: the price of a gain that may be
    none has no upper end. Negative where coordination is better and cheaper.

    Args:
        coordinated: (T,) micro-dollars and (T,) or (T, R) scores.
        baseline: the same of the other arm.
        clusters: the source of each task.
        level: of the intervals.
    """
    first, second = (task_means(scores_of(arm[1])) for arm in (coordinated, baseline))
    gain = difference(pair(first, second, clusters), level)
    costs = _costs(coordinated[0], len(first)) - _costs(baseline[0], len(second))
    kept = np.isfinite(costs) & np.isfinite(first) & np.isfinite(second)
    if not kept.any():
        return Estimate(None, None, 0, 0, "no task has scores and costs in both arms")
    found = _quotient(costs[kept], (first - second)[kept], cluster_numbers(clusters, len(first))[kept], level)
    if gain.interval.low <= 0.0:
        reason = "a gain in quality is not shown: a point more has no known price"
        return Estimate(None, None, found.tasks, found.sources, reason)
    return found


def _costs(micro_dollars: npt.ArrayLike, tasks: int) -> Floats:
    costs = np.asarray(micro_dollars, dtype=np.float64)
    if costs.shape != (tasks,):
        raise InputError(f"costs are (T,), of {tasks} tasks, not {costs.shape}")
    if np.isinf(costs).any():
        raise InputError("a cost is finite, or NaN where it is not known")
    return costs


def _quotient(cost: Floats, quality: Floats, clusters: Integers, level: float) -> Estimate:
    sources = len(np.unique(clusters))
    below = _POINTS * float(quality.mean()) if len(quality) else 0.0
    if below <= 0.0:
        reason = "no quality to divide by" if len(quality) else "no task has a score and a cost"
        return Estimate(None, None, len(cost), sources, reason)
    value = float(cost.mean()) / below
    if sources < 2:
        return Estimate(value, Interval(-math.inf, math.inf, level, "none"), len(cost), sources)
    numbers = np.unique(clusters, return_inverse=True)[1].reshape(-1)
    matrix = mean_covariance(np.stack([cost, _POINTS * quality]), numbers)
    critical = t_quantile((1.0 + level) / 2.0, freedom_of(numbers))
    ends = fieller(
        float(cost.mean()), below, (float(matrix[0, 0]), float(matrix[0, 1]), float(matrix[1, 1])), critical
    )
    low, high = ends or (-math.inf, math.inf)
    return Estimate(value, Interval(low, high, level, "fieller"), len(cost), sources)
