"""What the top K log-probabilities say about the entropy of the whole distribution: an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TopSums", "bounds_of_sums", "entropy_bounds", "in_order", "minus_p_log_p"]

FloatArray = NDArray[np.float64]


# Two recordings of one log-probability can differ by rounding.
_SAME = 1.0e-6


def entropy_bounds(
    logprob: FloatArray,
    top_logprobs: FloatArray,
    vocab_size: int | None,
    outside: NDArray[np.bool_] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Bound −Σ p log p from the K largest log-probabilities and the chosen token's.

    With the known mass M (the top K, and the chosen token where it is outside them), r = 1 − M and H_M
    the known terms' sum of −p log p::

        H_M + r · log(1 / p_(K))  ≤  H  ≤  H_M + r · log(n / r),   n = V − (number of known tokens)

    The lower bound holds since no unknown token is likelier than p_(K); the upper one is reached when
    the rest is spread evenly. r is clamped at 0, where both bounds meet.

    Args:
        logprob: (T,) log-probability of the chosen tokens.
        top_logprobs: (T, K) the K largest, descending.
        vocab_size: V; without it there is no upper bound.
        outside: (T,) whether the chosen token is none of the K. ``None`` tells it by value; a token that
            ties with the last candidate then counts as inside, and its mass as part of the rest.

    Returns:
        (T,) lower and (T,) upper bounds in nats. NaN where a bound cannot be had: both without any
        candidate, the upper one without V.
    """
    length, kept = top_logprobs.shape
    if kept == 0:
        return np.full(length, np.nan), np.full(length, np.nan)
    top = np.ascontiguousarray(top_logprobs.T)
    if outside is None:
        outside = logprob < top[-1] - _SAME
    probability = np.exp(top)
    sums = TopSums.of(top, probability)
    return bounds_of_sums(sums, logprob, top, probability, vocab_size, outside)


@dataclass(frozen=True, eq=False, slots=True)
class TopSums:
    """Sums over the K candidates, each of shape (T,), added in order of k whatever T is.

    Attributes:
        mass: Σ p_(k).
        entropy: −Σ p_(k) log p_(k), not renormalised.
        logprob: Σ log p_(k).
    """

    mass: FloatArray
    entropy: FloatArray
    logprob: FloatArray

    @classmethod
    def of(cls, top: FloatArray, probability: FloatArray) -> TopSums:
        """Sum (K, T) log-probabilities and their exponentials; candidates as rows: contiguous memory."""
        return cls(in_order(probability), _entropy(probability, top), in_order(top))


def bounds_of_sums(
    sums: TopSums,
    logprob: FloatArray,
    top: FloatArray,
    probability: FloatArray,
    vocab_size: int | None,
    outside: NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray]:
    """Do what `entropy_bounds` does from what is known of (K, T) candidates already; K is at least 1."""
    last = top[-1]
    mass, known = _with_chosen(sums, logprob, top, probability, outside)
    # Behind a candidate of probability 0 there is nothing, whatever rounding leaves of the mass.
    rest = np.where(np.isneginf(last), 0.0, np.maximum(0.0, 1.0 - mass))
    with np.errstate(divide="ignore", invalid="ignore"):
        lower = known + np.where(rest > 0.0, rest * -last, 0.0)
        if vocab_size is None:
            return lower, np.full(len(last), np.nan)
        unknown = vocab_size - len(top) - outside.astype(np.float64)
        spread = np.where((rest > 0.0) & (unknown > 0.0), rest * np.log(unknown / rest), 0.0)
    # Rounding can leave a rest that no unknown token is there to hold: the bounds then meet. Where a
    # candidate is missing (NaN) both stay NaN.
    return lower, np.maximum(lower, known + spread)


def _with_chosen(
    sums: TopSums, logprob: FloatArray, top: FloatArray, probability: FloatArray, outside: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Return mass and entropy of the known tokens: a chosen token outside the top K is one, summed first."""
    where = np.flatnonzero(outside)
    if not len(where):
        return sums.mass, sums.entropy
    mass, entropy = sums.mass.copy(), sums.entropy.copy()
    chosen = logprob[where]
    p = np.exp(chosen)
    others = probability.take(where, axis=1)
    mass[where] = in_order(np.vstack((p, others)))
    terms = minus_p_log_p(others, top.take(where, axis=1))
    entropy[where] = in_order(np.vstack((minus_p_log_p(p, chosen), terms)))
    return mass, entropy


def _entropy(probability: FloatArray, top: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore"):
        entropy = -in_order(probability * top) + 0.0
    # 0 · log 0 came out as NaN; where a candidate is missing it stays.
    again = np.flatnonzero(np.isnan(entropy))
    if len(again):
        entropy[again] = in_order(minus_p_log_p(probability.take(again, axis=1), top.take(again, axis=1)))
    return np.asarray(entropy)


def in_order(rows: FloatArray) -> FloatArray:
    """Add rows from first to last.

    numpy adds up whole rows one after the other where they are contiguous, but sums pairwise along the
    contiguous axis, which the one column of a single step is.
    """
    if len(rows) and rows.shape[1] == 1:
        return np.asarray(np.add.accumulate(rows, axis=0)[-1] + 0.0)
    return np.asarray(np.add.reduce(np.ascontiguousarray(rows), axis=0, initial=0.0))


def minus_p_log_p(p: FloatArray, log_p: FloatArray) -> FloatArray:
    """Return −p log p elementwise, with its limit 0 at p = 0; NaN where ``log_p`` is NaN."""
    with np.errstate(invalid="ignore"):
        terms = -(p * log_p)
        if not np.all(p):
            terms[p == 0.0] = 0.0
        terms += 0.0
        return terms
