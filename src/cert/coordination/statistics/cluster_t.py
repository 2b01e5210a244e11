"""The t interval of a mean over clusters of tasks, and Fieller's interval of a ratio of means.

With d̄ over n tasks and e_g = Σ_{t∈g} (d_t − d̄), the variance is Σ_g e_g²/(1 − n_g/n)/n², unbiased under
independence (CR2), with the degrees of freedom of Bell and McCaffrey (2002; Imbens and Kolesár, 2016), but
no more than the clusters in which the arms differ at all, less one: tasks on which they agree tell next to
nothing of how much they differ elsewhere, and without that the interval covered 90.5 % where a tenth of 100
tasks differed. With clusters of one task that all differ it is the ordinary t interval.

The ratio's interval (Fieller, 1954) holds each γ at which Σ (C − γS) = 0 is not refused, so that it holds 1
exactly where the difference's holds 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cert.coordination.statistics.distributions import t_quantile, two_sided_p
from cert.coordination.statistics.pairs import Floats, Integers

__all__ = ["ClusterT", "fieller", "freedom_of", "mean_covariance"]


@dataclass(frozen=True, slots=True)
class ClusterT:
    """Means of two arms with the covariance of those means.

    Attributes:
        above, below: the mean scores of the coordinated arm and of the baseline.
        variance_above, variance_below, covariance: of these means.
        freedom: degrees of freedom.
    """

    above: float
    below: float
    variance_above: float
    variance_below: float
    covariance: float
    freedom: float

    name = "t"

    @classmethod
    def of(cls, coordinated: Floats, baseline: Floats, clusters: Integers) -> ClusterT:
        """Estimate from (n,) scores; there are at least two clusters."""
        differing = len(np.unique(clusters[coordinated != baseline]))
        matrix = mean_covariance(np.stack([coordinated, baseline]), clusters)
        return cls(
            above=float(coordinated.mean()),
            below=float(baseline.mean()),
            variance_above=float(matrix[0, 0]),
            variance_below=float(matrix[1, 1]),
            covariance=float(matrix[0, 1]),
            freedom=min(freedom_of(clusters), max(1.0, differing - 1.0)),
        )

    @property
    def variance(self) -> float:
        """Of the mean difference."""
        return max(0.0, self.variance_above + self.variance_below - 2.0 * self.covariance)

    def difference(self, level: float) -> tuple[float, float]:
        """Return the interval of the mean difference, cut to [−1, 1]."""
        half = t_quantile((1.0 + level) / 2.0, self.freedom) * math.sqrt(self.variance)
        value = self.above - self.below
        return max(-1.0, value - half), min(1.0, value + half)

    def ratio(self, level: float) -> tuple[float, float]:
        """Return the interval of the ratio of means, in [0, ∞]."""
        critical = t_quantile((1.0 + level) / 2.0, self.freedom)
        found = fieller(
            self.above, self.below, (self.variance_above, self.covariance, self.variance_below), critical
        )
        return (max(0.0, found[0]), max(0.0, found[1])) if found else (0.0, math.inf)

    def p_value(self, null: float) -> float:
        """Return the two-sided p of the hypothesis that the difference is ``null``."""
        gap = self.above - self.below - null
        if self.variance <= 0.0:
            return 1.0 if gap == 0.0 else 0.0
        return two_sided_p(gap / math.sqrt(self.variance), self.freedom)


def mean_covariance(values: Floats, clusters: Integers) -> Floats:
    """Return the (k, k) cluster-robust covariance of the means of k rows of (k, n) values."""
    n = values.shape[1]
    sizes = np.bincount(clusters)
    left = values - values.mean(axis=1, keepdims=True)
    sums = np.stack([np.bincount(clusters, weights=row) for row in left])
    sums = sums / np.sqrt(1.0 - sizes / n)
    covariance: Floats = sums @ sums.T / n**2
    return covariance


def freedom_of(clusters: Integers) -> float:
    """Return the degrees of freedom of Bell and McCaffrey: G − 1 for equal clusters, less for others."""
    sizes = np.bincount(clusters).astype(np.float64)
    n = sizes.sum()
    scale = 1.0 / (1.0 - sizes / n)
    # tr(B) and tr(B²) of B_gh = √(s_g s_h) (n_g δ_gh − n_g n_h / n), without the matrix.
    trace = float((scale * sizes * (1.0 - sizes / n)).sum())
    diagonal = float(((scale * sizes * (1.0 - sizes / n)) ** 2).sum())
    products = scale * sizes**2 / n
    others = float(products.sum() ** 2 - (products**2).sum())
    return trace**2 / (diagonal + others)


def fieller(
    above: float, below: float, covariance: tuple[float, float, float], critical: float
) -> tuple[float, float] | None:
    """Return the interval of above/below, or ``None`` where the data bound nothing.

    Args:
        above: mean of the numerator.
        below: mean of the denominator, whose true value is positive.
        covariance: variance of the first, covariance, variance of the second.
        critical: the quantile.

    Returns:
        An end is infinite where the denominator is not told from 0.
    """
    first, both, second = (critical**2 * value for value in covariance)
    # {γ: (above − γ below)² ≤ critical² Var(above − γ below)}: a γ² + 2 b γ + c ≤ 0
    a, b, c = below**2 - second, both - above * below, above**2 - first
    inside = b * b - a * c
    if a > 0.0:
        half = math.sqrt(max(0.0, inside))
        return (-b - half) / a, (-b + half) / a
    if inside < 0.0 or (a == 0.0 and b == 0.0):
        return None
    if a == 0.0:
        return (-math.inf, -c / (2.0 * b)) if b > 0.0 else (-c / (2.0 * b), math.inf)
    # The complement of an interval. With positive means the part above it, unless the other counts too.
    lower, upper = (-b + math.sqrt(inside)) / a, (-b - math.sqrt(inside)) / a
    return (upper if lower < 0.0 <= above else -math.inf), math.inf
