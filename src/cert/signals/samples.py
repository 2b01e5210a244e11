"""Signals of several answers to one prompt: do they agree, and how sure was the model of what they say?

Notation: n answers s_i sampled independently from the model, ℓ_i = log p(s_i) = Σ_t log p_t(y_t) and L_i
tokens; the clusters c = 1 … m hold the answers that mean the same, n_c each. Natural logarithms, so nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cert.signals.steps import FloatArray, IntArray

__all__ = [
    "SampleSignals",
    "discrete_semantic_entropy",
    "predictive_entropy",
    "sample_signals",
    "weighted_semantic_entropy",
]


# Recorded log-probabilities of nearly certain answers can come out above 0 by rounding.
_ROUNDING = 1.0e-4


@dataclass(frozen=True, slots=True)
class SampleSignals:
    """The signals of n sampled answers, NaN where one was not measured.

    All entropies of clusters are plug-in estimates: biased low, by (m* − 1) / (2n) to first order with m* the
    number of meanings that the model has (Miller, 1955), and never above ``semantic_entropy_ceiling``. Ten
    answers cannot show more than ln 10 = 2.30 nats. Compare values of the same n alone.

    Attributes:
        n_samples: n.
        n_clusters: m, in [0, n].
        semantic_entropy_ceiling: ln n, what n answers can show at most; NaN at n = 0.
        discrete_semantic_entropy: −Σ_c (n_c/n) ln(n_c/n), in [0, ln m]; 0 at n = 1, NaN at n = 0. The
            discrete variant of Farquhar et al. (Nature 630, 625–630, 2024), which needs no probabilities.
        semantic_entropy: −Σ_c P_c ln P_c, in [0, ln m], with P_c = Σ_{i∈c} exp(ℓ_i/L_i) / Σ_i exp(ℓ_i/L_i).
            The Rao-Blackwellised estimator of the same paper, length-normalised as in the authors' code.
        semantic_entropy_unnormalized: the same with exp(ℓ_i), the probabilities of whole answers.
        predictive_entropy: −(1/n) Σ_i ℓ_i, in [0, ∞): the Monte Carlo estimate of the entropy of the answers
            as texts (Malinin & Gales, arXiv 2002.07650), unbiased if they were drawn from p itself.
        normalized_predictive_entropy: −(1/n) Σ_i ℓ_i/L_i, in [0, ∞), nats a token.
        self_consistency: max_c n_c / n, in [1/n, 1]; NaN at n = 0. The share of the majority's answer (Wang
            et al., arXiv 2203.11171).
        largest_clusters: the ids that have this share; more than one is a tie, and then there is no majority.
    """

    n_samples: int
    n_clusters: int
    semantic_entropy_ceiling: float
    discrete_semantic_entropy: float
    semantic_entropy: float
    semantic_entropy_unnormalized: float
    predictive_entropy: float
    normalized_predictive_entropy: float
    self_consistency: float
    largest_clusters: tuple[int, ...]


def sample_signals(
    cluster_ids: ArrayLike, logprobs: ArrayLike | None = None, lengths: ArrayLike | None = None
) -> SampleSignals:
    """Compute the signals of n sampled answers.

    None depends on the order of the answers, to the last bit, nor on how the clusters are named.

    Args:
        cluster_ids: (n,) whole numbers of 0 or more; the same number means the same meaning.
        logprobs: (n,) ℓ_i, sums over tokens of the raw log-probabilities. NaN is not measured, and leaves
            unmeasured what needs it. Left out, all are NaN.
        lengths: (n,) L_i, tokens that ℓ_i sums over. An answer of no tokens has no ℓ_i/L_i. Left out, what is
            length-normalised is not measured.

    Raises:
        ValueError: shapes that differ, ids or lengths that are not whole or are negative, or a
            log-probability above 0.
    """
    ids, log_p = _ids(cluster_ids), logprobs
    n = ids.shape[0]
    total = np.full(n, np.nan) if log_p is None else _logprobs(log_p, n)
    mean = total / _lengths(lengths, n)
    counts = _counts(ids)
    largest = max(counts.values(), default=0)
    return SampleSignals(
        n_samples=n,
        n_clusters=len(counts),
        semantic_entropy_ceiling=math.log(n) if n else math.nan,
        discrete_semantic_entropy=discrete_semantic_entropy(ids),
        semantic_entropy=weighted_semantic_entropy(ids, mean),
        semantic_entropy_unnormalized=weighted_semantic_entropy(ids, total),
        predictive_entropy=predictive_entropy(total),
        normalized_predictive_entropy=predictive_entropy(mean),
        self_consistency=largest / n if n else math.nan,
        largest_clusters=tuple(sorted(i for i, count in counts.items() if count == largest)),
    )


def discrete_semantic_entropy(cluster_ids: ArrayLike) -> float:
    """Return −Σ_c (n_c/n) ln(n_c/n), in [0, ln m]; NaN without an answer."""
    return _entropy([float(count) for count in _counts(_ids(cluster_ids)).values()])


def weighted_semantic_entropy(cluster_ids: ArrayLike, log_weights: ArrayLike) -> float:
    """Return −Σ_c P_c ln P_c with P_c = Σ_{i∈c} exp(w_i) / Σ_i exp(w_i), in [0, ln m].

    Every answer counts, repeated texts too, as in the code of Farquhar et al.; their formula sums over the
    distinct texts of a cluster. For that pass each text once.

    Args:
        cluster_ids: (n,) the cluster of each answer.
        log_weights: (n,) log-probabilities of the answers, of whole answers or a token. Only differences
            matter. −∞ is a weight of 0.

    Returns:
        NaN without an answer, with a NaN among the weights, or where all weights are 0.
    """
    ids = _ids(cluster_ids)
    weights = _logprobs(log_weights, ids.shape[0])
    top = float(weights.max(initial=-math.inf))
    if not math.isfinite(top):
        return math.nan
    relative = np.exp(weights - top)
    return _entropy([math.fsum(relative[ids == cluster]) for cluster in _counts(ids)])


def predictive_entropy(logprobs: ArrayLike) -> float:
    """Return −(1/n) Σ_i ℓ_i; NaN without an answer or with a NaN, infinite if an answer has probability 0."""
    values = _logprobs(logprobs, None)
    if values.size == 0 or np.isnan(values).any():
        return math.nan
    return 0.0 if not values.any() else -math.fsum(values) / values.size


def _entropy(masses: list[float]) -> float:
    """Return the entropy of masses that need not sum to 1, to full relative precision near 0 too."""
    masses = [mass for mass in masses if mass > 0.0]
    if not masses:
        return math.nan
    total = math.fsum(masses)
    terms = []
    for i, mass in enumerate(masses):
        # For p near 1 the logarithm of the quotient would lose what little is left beside it.
        rest = math.fsum(masses[:i] + masses[i + 1 :])
        log_p = math.log1p(-rest / total) if 2.0 * mass > total else math.log(mass) - math.log(total)
        terms.append(-mass / total * log_p)
    return min(max(0.0, math.fsum(terms)), math.log(len(masses)))


def _counts(ids: IntArray) -> dict[int, int]:
    names, counts = np.unique(ids, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _ids(values: ArrayLike) -> IntArray:
    ids = np.asarray(values)
    if ids.ndim != 1:
        raise ValueError(f"cluster_ids must have shape (n,), not {ids.shape}")
    if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0):
        raise ValueError("cluster_ids must be whole numbers of 0 or more")
    return ids.astype(np.int64)


def _logprobs(values: ArrayLike, n: int | None) -> FloatArray:
    logprobs = np.asarray(values, dtype=np.float64)
    if logprobs.ndim != 1 or (n is not None and logprobs.shape != (n,)):
        raise ValueError(f"log-probabilities must have shape ({'n' if n is None else n},)")
    if (logprobs > _ROUNDING).any():
        raise ValueError("a log-probability cannot be above 0")
    return np.minimum(logprobs, 0.0)


def _lengths(values: ArrayLike | None, n: int) -> FloatArray:
    """Return the lengths as divisors, NaN where there is no token to divide by."""
    if values is None:
        return np.full(n, np.nan)
    lengths = np.asarray(values)
    if lengths.shape != (n,):
        raise ValueError(f"lengths must have shape ({n},)")
    if n and (lengths.dtype.kind not in "iu" or lengths.min() < 0):
        raise ValueError("lengths must be whole numbers of 0 or more")
    return np.asarray(np.where(lengths == 0, np.nan, lengths), dtype=np.float64)
