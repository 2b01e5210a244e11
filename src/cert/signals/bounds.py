"""What the top K log-probabilities say about the entropy of the whole distribution: an interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["entropy_bounds", "minus_p_log_p"]

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
    # Candidates as rows: every operation then runs over contiguous memory, in order of k.
    top = np.ascontiguousarray(top_logprobs.T)
    last = top[-1]
    if outside is None:
        outside = logprob < last - _SAME
    chosen = np.where(outside, logprob, -np.inf)
    mass, known = np.exp(chosen), minus_p_log_p(np.exp(chosen), chosen)
    for row, p in zip(top, np.exp(top), strict=True):
        mass += p
        known += minus_p_log_p(p, row)
    # Behind a candidate of probability 0 there is nothing, whatever rounding leaves of the mass.
    rest = np.where(np.isneginf(last), 0.0, np.maximum(0.0, 1.0 - mass))
    with np.errstate(divide="ignore", invalid="ignore"):
        lower = known + np.where(rest > 0.0, rest * -last, 0.0)
        if vocab_size is None:
            return lower, np.full(length, np.nan)
        unknown = vocab_size - kept - outside.astype(np.float64)
        spread = np.where((rest > 0.0) & (unknown > 0.0), rest * np.log(unknown / rest), 0.0)
    # Rounding can leave a rest that no unknown token is there to hold: the bounds then meet. Where a
    # candidate is missing (NaN) both stay NaN.
    return lower, np.maximum(lower, known + spread)


def minus_p_log_p(p: FloatArray, log_p: FloatArray) -> FloatArray:
    """Return −p log p elementwise, with its limit 0 at p = 0; NaN where ``log_p`` is NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(p == 0.0, 0.0, -p * log_p)) + 0.0
