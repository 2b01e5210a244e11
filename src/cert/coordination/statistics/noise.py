"""What a comparison of a system with itself would show: noise, below which no difference means anything."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cert.coordination.statistics.distributions import t_quantile
from cert.coordination.statistics.inference import difference
from cert.coordination.statistics.pairs import Floats, pair, scores_of, task_means

__all__ = ["NoiseFloor", "VarianceComponents", "noise_floor", "variance_components"]

_STABLE_LEVEL: Final = 0.99


@dataclass(frozen=True, slots=True)
class VarianceComponents:
    """Where the variance of replicated measurements lies.

    Attributes:
        within: of replicates of one task; more replicates average it away.
        between: of the tasks' true values, cut at 0; only more tasks do.
        freedom: Σ (R_t − 1), on which ``within`` rests.
    """

    within: float
    between: float
    freedom: int


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """An A/A comparison of the baseline.

    Attributes:
        value: what the absolute mean difference of two runs of the baseline stays below in ``level`` of
            cases; ``None`` where it is not measured.
        level: of it.
        shift: the later replicates' mean less the earlier ones', which have no reason to differ.
        stable: whether the 99 % interval of that holds 0; if not, the system or its judge changed meanwhile.
        missing: why nothing is measured, else ``None``.
    """

    value: float | None
    level: float
    shift: float | None = None
    stable: bool = True
    missing: str | None = None


def variance_components(values: npt.ArrayLike) -> VarianceComponents:
    """Split the variance of (T, R) values, NaN where missing, by one-way analysis of variance.

    E of the mean square between tasks is σ²_within + n_0 σ²_between with n_0 = (N − Σ R_t²/N)/(T − 1). NaN
    where there are no two replicates of a task, or no two tasks.
    """
    rows = np.asarray(values, dtype=np.float64)
    rows = rows[np.isfinite(rows).any(axis=1)]
    counts = np.isfinite(rows).sum(axis=1).astype(np.float64)
    means = task_means(rows)
    freedom = int((counts - 1).sum())
    within = float(np.nansum((rows - means[:, None]) ** 2)) / freedom if freedom else math.nan
    if len(rows) < 2 or not freedom:
        return VarianceComponents(within, math.nan, freedom)
    total = counts.sum()
    size = (total - (counts**2).sum() / total) / (len(rows) - 1)
    spread = float((counts * (means - np.average(means, weights=counts)) ** 2).sum()) / (len(rows) - 1)
    return VarianceComponents(within, max(0.0, (spread - within) / size), freedom)


def noise_floor(
    baseline: npt.ArrayLike,
    replicates: tuple[int, int] | None = None,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> NoiseFloor:
    """Measure the noise floor from replicates of the baseline.

    Args:
        baseline: (T, R) scores in order of time, R of 2 or more.
        replicates: that the coordinated arm and the baseline are averaged over in the comparison, (1, R) by
            default: an A/A comparison has the noise of the comparison that it stands for.
        clusters: the source of each task.
        level: of the floor.
    """
    scores = scores_of(baseline)
    floor = _spread(scores, replicates or (1, scores.shape[1]))
    if floor is None:
        return NoiseFloor(None, level, missing="no task has two replicates of the baseline")
    half = scores.shape[1] // 2
    shift = difference(pair(scores[:, half:], scores[:, :half], clusters), _STABLE_LEVEL)
    spread, freedom = floor
    return NoiseFloor(
        value=t_quantile((1.0 + level) / 2.0, freedom) * spread,
        level=level,
        shift=shift.value,
        stable=shift.interval.low <= 0.0 <= shift.interval.high,
    )


def _spread(scores: Floats, replicates: tuple[int, int]) -> tuple[float, int] | None:
    """Return the standard deviation of a mean A/A difference with its degrees of freedom."""
    parts = variance_components(scores)
    tasks = int(np.isfinite(scores).any(axis=1).sum())
    if not parts.freedom or not tasks:
        return None
    share = 1.0 / replicates[0] + 1.0 / replicates[1]
    return math.sqrt(parts.within * share / tasks), parts.freedom
