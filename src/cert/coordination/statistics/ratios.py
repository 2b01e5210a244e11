"""γ: how many times as good the coordinated answers are as the independent or the single-agent ones."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cert.coordination.statistics.inference import Inference, inference
from cert.coordination.statistics.pairs import Floats, Pairs, pair, scores_of, task_means
from cert.coordination.types import Interval
from cert.core.errors import InputError

__all__ = ["Estimate", "gamma", "gamma_budget", "ratio", "task_ratios"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval, or why there is none.

    Attributes:
        value: ``None`` where it is not measured.
        interval: ``None`` where nothing is measured; an end may be infinite.
        tasks, sources: that it is of.
        missing: why there is no value, else ``None``.
    """

    value: float | None
    interval: Interval | None
    tasks: int
    sources: int
    missing: str | None = None


def gamma(
    coordinated: npt.ArrayLike,
    independents: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Return γ = Σ_t C_t / Σ_t Ī_t with Ī_t the mean of the independent agents.

    Args:
        coordinated: (T,) or (T, R).
        independents: (T, A) or (T, R, A), NaN where missing: the mean is of the measured ones.
        clusters: the source of each task.
        level: of the interval.
    """
    agents = np.asarray(independents, dtype=np.float64)
    flat = agents.reshape(len(agents), -1) if agents.ndim > 1 else agents
    return ratio(pair(coordinated, flat, clusters), level)


def gamma_budget(
    coordinated: npt.ArrayLike,
    single_agent: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Return γ_budget = Σ_t C_t / Σ_t S_t(b) with S the single-agent baseline of the same token budget.

    Args:
        coordinated: (T,) or (T, R).
        single_agent: (T,) or (T, R).
        clusters: the source of each task.
        level: of the interval.
    """
    return ratio(pair(coordinated, single_agent, clusters), level)


def ratio(pairs: Pairs, level: float = 0.95, method: Inference | None = None) -> Estimate:
    """Estimate the ratio of the arms' means over tasks, not the mean of ratios, which one zero would ruin.

    A baseline of 0 makes no ratio: the value is ``None`` and the interval bounded below at most.
    """
    if not pairs.n:
        return Estimate(None, None, 0, 0, "no task is measured in both arms")
    method = method or inference(pairs)
    low, high = method.ratio(level) if method else (0.0, np.inf)
    interval = Interval(low, high, level, method.name if method else "none")
    below = float(pairs.baseline.sum())
    if below == 0.0:
        return Estimate(
            None, interval, pairs.n, pairs.n_clusters, "the baseline scored 0 on every measured task"
        )
    return Estimate(float(pairs.coordinated.sum()) / below, interval, pairs.n, pairs.n_clusters)


def task_ratios(coordinated: npt.ArrayLike, baseline: npt.ArrayLike) -> Floats:
    """Return (T,) C_t / S_t of each task, NaN where a score is missing or the baseline's is 0."""
    first, second = task_means(scores_of(coordinated)), task_means(scores_of(baseline))
    if len(first) != len(second):
        raise InputError(f"the arms have {len(first)} and {len(second)} tasks")
    usable = np.isfinite(first) & (second > 0.0)
    ratios: Floats = np.divide(first, second, out=np.full(len(first), np.nan), where=usable)
    return ratios
