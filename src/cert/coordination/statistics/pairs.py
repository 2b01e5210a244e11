"""Task-level pairs of scores: replicates averaged, missing judgements dropped and bounded, sources named."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cert.core.errors import InputError

__all__ = ["Floats", "Integers", "Pairs", "cluster_numbers", "pair", "scores_of", "task_means"]

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The measured tasks of a comparison of two arms.

    Attributes:
        coordinated, baseline: (n,) scores in [0, 1], the means of a task's measured replicates.
        clusters: (n,) numbers 0 … G − 1 of the sources.
        tasks: T, all tasks, measured or not.
        worst_low, worst_high: bounds of the mean difference over all T tasks, whatever the missing judgements
            would have been in [0, 1] (Manski, 1989). They say nothing of sampling.
        missing_judgements: of both arms and all replicates.
    """

    coordinated: Floats
    baseline: Floats
    clusters: Integers
    tasks: int
    worst_low: float
    worst_high: float
    missing_judgements: int

    @property
    def n(self) -> int:
        """Tasks of which both arms are measured."""
        return len(self.coordinated)

    @property
    def dropped(self) -> int:
        """Tasks of which an arm has no judgement at all."""
        return self.tasks - self.n

    @property
    def n_clusters(self) -> int:
        """G, the independent units."""
        return int(self.clusters.max()) + 1 if self.n else 0

    @property
    def differences(self) -> Floats:
        """(n,) coordinated − baseline, in [−1, 1]."""
        return self.coordinated - self.baseline

    @property
    def discordant(self) -> int:
        """Tasks on which the arms differ."""
        return int(np.count_nonzero(self.differences))

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        both = np.concatenate([self.coordinated, self.baseline])
        return bool(np.isin(both, (0.0, 1.0)).all())


def pair(
    coordinated: npt.ArrayLike, baseline: npt.ArrayLike, clusters: Sequence[Hashable] | None = None
) -> Pairs:
    """Pair the arms task by task.

    Args:
        coordinated: (T,) or (T, R) scores in [0, 1], NaN where a judgement is missing.
        baseline: the same for the other arm; its number of replicates may differ.
        clusters: the source of each task; tasks of one source are not independent. ``None`` for a task, or
            for all, is a source of its own.

    Raises:
        InputError: shapes that do not fit, or scores outside [0, 1].
    """
    first, second = scores_of(coordinated), scores_of(baseline)
    if len(first) != len(second):
        raise InputError(f"the arms have {len(first)} and {len(second)} tasks")
    numbers = cluster_numbers(clusters, len(first))
    means, others = task_means(first), task_means(second)
    kept = np.isfinite(means) & np.isfinite(others)
    low = np.nan_to_num(first, nan=0.0).mean(axis=1) - np.nan_to_num(second, nan=1.0).mean(axis=1)
    high = np.nan_to_num(first, nan=1.0).mean(axis=1) - np.nan_to_num(second, nan=0.0).mean(axis=1)
    return Pairs(
        coordinated=means[kept],
        baseline=others[kept],
        clusters=np.unique(numbers[kept], return_inverse=True)[1].astype(np.int64).reshape(-1),
        tasks=len(first),
        worst_low=float(low.mean()) if len(low) else -1.0,
        worst_high=float(high.mean()) if len(high) else 1.0,
        missing_judgements=int(np.isnan(first).sum() + np.isnan(second).sum()),
    )


def scores_of(values: npt.ArrayLike, dimensions: int = 2) -> Floats:
    """Return scores as an array of that many dimensions, missing axes of replicates added at the end.

    Raises:
        InputError: more dimensions than that, none, no replicate, or scores outside [0, 1].
    """
    scores = np.asarray(values, dtype=np.float64)
    if not 1 <= scores.ndim <= dimensions:
        raise InputError(f"scores have 1 to {dimensions} dimensions, tasks first, not {scores.ndim}")
    if 0 in scores.shape[1:]:
        raise InputError("scores have no replicate")
    if ((scores < 0.0) | (scores > 1.0)).any():
        raise InputError("a score is in [0, 1], or NaN where it is missing")
    return scores.reshape(scores.shape + (1,) * (dimensions - scores.ndim))


def task_means(scores: Floats) -> Floats:
    """Return the mean of each row's measured values, NaN for a row without one."""
    measured = np.isfinite(scores)
    counts = measured.sum(axis=-1)
    totals = np.where(measured, scores, 0.0).sum(axis=-1)
    means: Floats = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
    return means


def cluster_numbers(clusters: Sequence[Hashable] | None, tasks: int) -> Integers:
    """Return the numbers of the sources, in order of first appearance.

    Raises:
        InputError: there is not one source a task.
    """
    if clusters is None:
        return np.arange(tasks)
    if len(clusters) != tasks:
        raise InputError(f"{len(clusters)} sources are given for {tasks} tasks")
    known: dict[Hashable, int] = {}
    labels = ((i,) if label is None else label for i, label in enumerate(clusters))
    return np.array([known.setdefault(label, len(known)) for label in labels], dtype=np.int64)
