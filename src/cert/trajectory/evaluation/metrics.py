"""How well a score tells wrong answers from right ones: pure functions, of many weightings at once.

A score is larger where an answer looks worse. Answers of one score are in no order: every measure is the
mean over all orders of them, or counts them together, so that none depends on the order of the data.
Definitions and sources: ``docs/reference/evaluation.md``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from cert.core.errors import ConfigurationError, InputError
from cert.trajectory.evaluation.ranks import Counts, Flags, Floats, Ranking

__all__ = [
    "MAX_REJECTION", "aurc", "aurc_of", "auroc", "auroc_of", "auroc_parts", "average_precision",
    "average_precision_of", "excess_aurc", "excess_aurc_of", "prr", "prr_of",
]  # fmt: skip

MAX_REJECTION: Final = 0.5
"""The largest share of answers that the prediction–rejection ratio rejects, where nothing else is said."""


def auroc(score: Floats, wrong: Flags, weight: Floats | None = None) -> float:
    """P(score of a wrong answer > score of a right one), ties counting one half; NaN without both kinds.

    Args:
        score: (n,), larger is worse; may be infinite.
        wrong: (n,) labels.
        weight: (n,) how often each answer counts.
    """
    return float(auroc_of(Ranking.of(score, wrong).counts(weight))[0])


def average_precision(score: Floats, wrong: Flags, weight: Floats | None = None) -> float:
    """AUPRC with wrong as the positive class: Σ (R_i − R_{i−1}) P_i over the thresholds, falling.

    Without interpolation, as ``sklearn.metrics.average_precision_score``. Chance is the share of wrong
    answers. NaN without a wrong answer.
    """
    return float(average_precision_of(Ranking.of(score, wrong).counts(weight))[0])


def prr(
    score: Floats, wrong: Flags, weight: Floats | None = None, *, max_rejection: float = MAX_REJECTION
) -> float:
    """Prediction–rejection ratio: 1 for the perfect order, 0 on average for one by chance, below 0 if worse.

    (A − A_chance) / (A_perfect − A_chance), where A is the mean accuracy of the answers that are kept when
    the 0, 1, …, R − 1 worst of n are rejected, R = ⌊max_rejection · n⌋: LM-Polygraph's definition
    (arXiv 2406.15627), with its 1,000 shuffles for A_chance replaced by their expectation, the accuracy.

    Args:
        score: (n,), larger is worse.
        wrong: (n,) labels.
        weight: (n,) how often each answer counts: whole numbers.
        max_rejection: in (0, 1].

    Returns:
        NaN where the perfect order is no better than chance: one kind of answer alone, or R < 2.

    Raises:
        ConfigurationError: a share that is none.
        InputError: weights that are not whole.
    """
    return float(prr_of(_whole(score, wrong, weight), max_rejection)[0])


def aurc(score: Floats, wrong: Flags, weight: Floats | None = None) -> float:
    """Area under the risk–coverage curve: mean over k = 1 … n of the error rate of the k best answers.

    Geifman, Uziel and El-Yaniv, ICLR 2019 (arXiv 1805.08206). Smaller is better.

    Raises:
        InputError: weights that are not whole.
    """
    return float(aurc_of(_whole(score, wrong, weight))[0])


def excess_aurc(score: Floats, wrong: Flags, weight: Floats | None = None) -> float:
    """AURC less that of the perfect order of the same answers (E-AURC of the same paper); 0 is perfect.

    Raises:
        InputError: weights that are not whole.
    """
    return float(excess_aurc_of(_whole(score, wrong, weight))[0])


def auroc_parts(counts: Counts) -> tuple[Floats, Floats]:
    """Return the weight of the pairs in the right order and of all pairs, (R,) each: AUROC is their ratio.

    Sums of both over strata give the AUROC within strata.
    """
    bad, good = counts.bad, counts.good
    below = np.cumsum(good, axis=1) - good / 2
    return np.einsum("rb,rb->r", bad, below), bad.sum(axis=1) * good.sum(axis=1)


def auroc_of(counts: Counts) -> Floats:
    """Return `auroc` of each weighting, (R,)."""
    ordered, pairs = auroc_parts(counts)
    return _ratio(ordered, pairs)


def average_precision_of(counts: Counts) -> Floats:
    """Return `average_precision` of each weighting, (R,)."""
    bad = counts.bad[:, ::-1]
    found = np.cumsum(bad, axis=1)
    flagged = np.cumsum(counts.size[:, ::-1], axis=1)
    gained = bad * found / np.maximum(flagged, np.finfo(float).tiny)
    return _ratio(gained.sum(axis=1), bad.sum(axis=1))


def aurc_of(counts: Counts) -> Floats:
    """Return `aurc` of each weighting, (R,)."""
    return _mean_risk(counts, 1.0)


def excess_aurc_of(counts: Counts) -> Floats:
    """Return `excess_aurc` of each weighting, (R,)."""
    return _mean_risk(counts, 1.0) - _mean_risk(_perfect(counts), 1.0)


def prr_of(counts: Counts, max_rejection: float = MAX_REJECTION) -> Floats:
    """Return `prr` of each weighting, (R,).

    Raises:
        ConfigurationError: a share that is none.
    """
    if not 0.0 < max_rejection <= 1.0:
        raise ConfigurationError(f"the largest share to reject is in (0, 1], not {max_rejection}")
    chance = _ratio(counts.bad.sum(axis=1), counts.size.sum(axis=1))
    possible = chance - _mean_risk(_perfect(counts), max_rejection)
    # What rounding leaves of a difference of two equal numbers is no gain.
    possible = np.where(possible > 1e-12, possible, 0.0)
    return _ratio(chance - _mean_risk(counts, max_rejection), possible)


def _mean_risk(counts: Counts, max_rejection: float) -> Floats:
    """Mean error rate of the k best answers over k = n − R + 1 … n, R = ⌊max_rejection · n⌋, (R,).

    Within a block of equal scores the expected number of wrong answers among the k best is linear in k:
    a + (k − k₀) m. Over k that sums to m (k₁ − k₀) + (a − k₀ m)(H(k₁) − H(k₀)), with harmonic numbers H.
    """
    size = counts.size
    last = np.cumsum(size, axis=1)
    total = size.sum(axis=1, keepdims=True)
    rejected = np.floor(max_rejection * total)
    before, missed = last - size, np.cumsum(counts.bad, axis=1) - counts.bad
    share = counts.bad / np.maximum(size, 1.0)
    start = np.clip(total - rejected, before, last)
    harmonic = _harmonic(int(total.max(initial=0.0)).bit_length())
    inverse = harmonic[last.astype(np.intp)] - harmonic[start.astype(np.intp)]
    summed = share * (last - start) + (missed - before * share) * inverse
    return _ratio(summed.sum(axis=1), rejected[:, 0])


def _perfect(counts: Counts) -> Counts:
    bad, good = counts.bad.sum(axis=1, keepdims=True), counts.good.sum(axis=1, keepdims=True)
    nothing = np.zeros_like(bad)
    return Counts(np.hstack([nothing, bad]), np.hstack([good, nothing]))


@lru_cache(maxsize=4)
def _harmonic(bits: int) -> Floats:
    """H(0) … H(2^bits − 1); by powers of two, since every draw of clusters has another number of answers."""
    found = np.zeros(2**bits)
    np.cumsum(1.0 / np.arange(1, len(found)), out=found[1:])
    return found


def _whole(score: Floats, wrong: Flags, weight: Floats | None) -> Counts:
    if weight is not None and (np.any(weight < 0) or np.any(weight != np.floor(weight))):
        raise InputError("of this measure, weights are how often an answer counts: whole numbers")
    return Ranking.of(score, wrong).counts(weight)


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(below > 0, above / below, np.nan)
    return found
