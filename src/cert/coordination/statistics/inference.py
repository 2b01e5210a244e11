"""The interval of a paired difference: which method, and what it says.

| tasks | sources | method |
|---|---|---|
| binary scores, one judgement an arm | any number | score (Tango), at the effective number of tasks |
| any other scores | below 30, or below 5 tasks on which the arms differ | betting over sources |
| any other scores | else | t, cluster-robust |

The score interval stays in use for large samples too: it agrees with t there, and so nothing jumps at 30.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from cert.coordination.statistics.betting import BettingPairs, stakes_for
from cert.coordination.statistics.cluster_t import ClusterT, freedom_of, mean_covariance
from cert.coordination.statistics.paired_score import PairedScore
from cert.coordination.statistics.pairs import Pairs
from cert.coordination.types import Interval

__all__ = [
    "FEW_CLUSTERS",
    "FEW_DISCORDANT",
    "Difference",
    "Inference",
    "design_effect",
    "difference",
    "inference",
]

FEW_CLUSTERS: Final = 30
FEW_DISCORDANT: Final = 5


class Inference(Protocol):
    """One method's intervals of a difference and a ratio, and the p-values that agree with them."""

    @property
    def name(self) -> str:
        """Of the method, as intervals show it."""

    def difference(self, level: float) -> tuple[float, float]:
        """Return the interval of the mean difference."""

    def ratio(self, level: float) -> tuple[float, float]:
        """Return the interval of the ratio of means; it holds 1 where the difference's holds 0."""

    def p_value(self, null: float) -> float:
        """Return p, which is below 1 − level exactly where ``null`` is outside the difference's interval."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference, coordinated − baseline.

    Attributes:
        value: in [−1, 1]; ``None`` where no task is measured.
        interval: over sources; [−1, 1] where there are fewer than two of them.
        standard_error: cluster-robust, for plans; ``None`` below two sources and where nothing varies.
        tasks, sources, discordant: measured tasks, independent units, tasks on which the arms differ.
        dropped: tasks without a judgement in one of the arms.
        missing_judgements: of both arms and all replicates.
        worst_case: bounds over all tasks whatever the missing judgements were; no interval.
        missing: why there is no value, else ``None``.
    """

    value: float | None
    interval: Interval
    standard_error: float | None
    tasks: int
    sources: int
    discordant: int
    dropped: int
    missing_judgements: int
    worst_case: tuple[float, float]
    missing: str | None = None

    @property
    def varied(self) -> bool:
        """Whether the differences vary; where they don't there is no verdict."""
        return self.standard_error is not None


def inference(pairs: Pairs) -> Inference | None:
    """Choose the method by the table above; ``None`` with fewer than two sources, which bound nothing."""
    if pairs.n_clusters < 2:
        return None
    if pairs.binary:
        return _score(pairs)
    if pairs.n_clusters < FEW_CLUSTERS or pairs.discordant < FEW_DISCORDANT:
        return _betting(pairs)
    return ClusterT.of(pairs.coordinated, pairs.baseline, pairs.clusters)


def difference(pairs: Pairs, level: float = 0.95, method: Inference | None = None) -> Difference:
    """Estimate coordinated − baseline.

    Args:
        pairs: of the two arms.
        level: of the interval.
        method: what `inference` returned for these pairs, where it is at hand.
    """
    method = method or inference(pairs)
    low, high = method.difference(level) if method else (-1.0, 1.0)
    differences = pairs.differences
    return Difference(
        value=float(differences.mean()) if pairs.n else None,
        interval=Interval(low, high, level, method.name if method else "none"),
        standard_error=_standard_error(pairs) if method else None,
        tasks=pairs.n,
        sources=pairs.n_clusters,
        discordant=pairs.discordant,
        dropped=pairs.dropped,
        missing_judgements=pairs.missing_judgements,
        worst_case=(pairs.worst_low, pairs.worst_high),
        missing=None if pairs.n else "no task is measured in both arms",
    )


def _standard_error(pairs: Pairs) -> float | None:
    differences = pairs.differences
    if np.ptp(differences) == 0.0:
        return None
    found = math.sqrt(max(0.0, float(mean_covariance(differences[None], pairs.clusters)[0, 0])))
    return found or None  # clusters whose deviations cancel exactly tell no variance either


def _score(pairs: Pairs) -> PairedScore:
    first, second = pairs.coordinated > 0.5, pairs.baseline > 0.5
    both, gained, lost = (
        float((x & y).sum()) for x, y in ((first, second), (first, ~second), (~first, second))
    )
    clustered = pairs.n_clusters < pairs.n
    effect = design_effect(pairs) if clustered else 1.0
    return PairedScore(
        n=pairs.n / effect,
        both=both / effect,
        gained=gained / effect,
        lost=lost / effect,
        freedom=freedom_of(pairs.clusters) if clustered else math.inf,
    )


def design_effect(pairs: Pairs) -> float:
    """Return by how much the sources blow up the variance of the mean difference, at least 1.

    Few discordant tasks say little of it, so that the estimate is mixed with what it would be if tasks of a
    source were all alike (Σ n_g²/n), which counts as five discordant tasks.
    """
    d = pairs.differences
    sizes = np.bincount(pairs.clusters)
    alike = float((sizes**2).sum() / pairs.n)
    alone = float(d.var() / (pairs.n - 1))
    if alone <= 0.0:
        return alike
    found = max(1.0, float(mean_covariance(d[None], pairs.clusters)[0, 0]) / alone)
    weight = pairs.discordant
    return (weight * found + FEW_DISCORDANT * alike) / (weight + FEW_DISCORDANT)


def _betting(pairs: Pairs) -> BettingPairs:
    sizes = np.bincount(pairs.clusters).astype(np.float64)
    return BettingPairs(
        coordinated=np.bincount(pairs.clusters, weights=pairs.coordinated) / sizes,
        baseline=np.bincount(pairs.clusters, weights=pairs.baseline) / sizes,
        weights=sizes / sizes.max(),
        stakes=stakes_for(pairs.n_clusters),
    )
