"""ω: coordination against the best of the independent agents, in its classic form and two unbiased ones."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from cert.coordination.statistics.distributions import expected_maximum
from cert.coordination.statistics.inference import Difference, difference
from cert.coordination.statistics.pairs import Floats, pair, scores_of, task_means
from cert.core.errors import InputError

__all__ = ["agent_spread", "best_agents", "omega", "omega_best_agent", "omega_best_sample", "omega_bias"]


def omega(
    coordinated: npt.ArrayLike,
    agents: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Difference:
    """Return the classic ω, the mean of C − max_i I_i. Biased down: see `omega_bias`.

    Args:
        coordinated: (T,) or (T, R).
        agents: (T, A), or (T, R, A) where the maximum is taken in each replicate. It is not measured where
            one of the agents is not, since that one may be the best.
        clusters: the source of each task.
        level: of the interval.
    """
    return difference(pair(coordinated, _agents(agents).max(axis=2), clusters), level)


def omega_bias(spread: float, agents: int) -> float:
    """Return −σ c_n: the classic ω of a coordination that adds nothing to n equal agents of Gaussian scores.

    Args:
        spread: σ, the standard deviation of an agent's score on one task: see `agent_spread`.
        agents: n. c_2 = .56, c_3 = .85, c_5 = 1.16.
    """
    return -spread * expected_maximum(agents)


def agent_spread(agents: npt.ArrayLike) -> float:
    """Return the standard deviation of agents within tasks, pooled; NaN where no two are measured.

    Args:
        agents: (T, A) or (T, R, A).
    """
    scores = _agents(agents)
    left = scores - task_means(scores)[..., None]
    counts = np.isfinite(scores).sum(axis=2)
    freedom = int(np.maximum(counts - 1, 0).sum())
    return float(np.sqrt(np.nansum(left**2) / freedom)) if freedom else float("nan")


def omega_best_agent(
    coordinated: npt.ArrayLike,
    agents: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    scope: Literal["task", "suite"] = "task",
) -> Difference:
    """Return the mean of C − I_{i*}, the best agent i* of a replicate being chosen on the others.

    Unbiased: the scores that choose are not those that count.

    Args:
        coordinated: (T,) or (T, R).
        agents: (T, R, A), R of 2 or more.
        clusters: the source of each task.
        level: of the interval.
        scope: whether the best agent is chosen for each task, as the classic ω does, or one for all.
    """
    scores = _agents(agents)
    found = difference(pair(coordinated, best_agents(scores, scope), clusters), level)
    if scores.shape[1] < 2:
        return replace(found, missing="the best agent is chosen on other replicates: at least 2 are needed")
    return found


def best_agents(agents: npt.ArrayLike, scope: Literal["task", "suite"] = "task") -> Floats:
    """Return (T, R) scores, in each replicate, of the agent that was best in the other ones.

    Agents that tie share the place, so that their order says nothing.
    """
    scores = _agents(agents)
    replicates = scores.shape[1]
    found = np.full(scores.shape[:2], np.nan)
    for r in range(replicates if replicates > 1 else 0):
        others = np.delete(scores, r, axis=1)
        pool = (
            others
            if scope == "task"
            else np.broadcast_to(
                others.reshape(1, -1, scores.shape[2]),
                (len(scores), others.size // scores.shape[2], scores.shape[2]),
            )
        )
        found[:, r] = _chosen(scores[:, r], task_means(np.swapaxes(pool, 1, 2)))
    return found


def omega_best_sample(
    coordinated: npt.ArrayLike,
    samples: npt.ArrayLike,
    chosen_by: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Difference:
    """Return the mean of C − I of the sample that another judge preferred.

    Args:
        coordinated: (T,) or (T, R).
        samples: (T, n) scores of the samples by the scoring judge.
        chosen_by: (T, n) scores of the same samples by the other judge. A sample without one is not chosen.
        clusters: the source of each task.
        level: of the interval.
    """
    scores, choosing = scores_of(samples), np.asarray(chosen_by, dtype=np.float64)
    if scores.shape != choosing.reshape(len(choosing), -1).shape:
        raise InputError("samples are scored by both judges: the shapes differ")
    return difference(pair(coordinated, _chosen(scores, choosing.reshape(scores.shape)), clusters), level)


def _chosen(scores: Floats, by: Floats) -> Floats:
    """Return of each row the mean score where ``by`` is largest; NaN where one of those is missing."""
    known = np.where(np.isfinite(by), by, -np.inf)
    top = known.max(axis=1, keepdims=True)
    # Means of equal replicates may differ by rounding.
    best = (known >= top - 1e-12) & np.isfinite(top)
    counts = best.sum(axis=1)
    totals = np.where(best, scores, 0.0).sum(axis=1)
    means: Floats = np.divide(totals, counts, out=np.full(len(scores), np.nan), where=counts > 0)
    return means


def _agents(values: npt.ArrayLike) -> Floats:
    """Return scores of agents as (T, R, A)."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim == 2:
        scores = scores[:, None, :]
    if scores.ndim != 3:
        raise InputError(f"scores of agents are (T, A) or (T, R, A), not of {scores.ndim} dimensions")
    return scores_of(scores, 3)
