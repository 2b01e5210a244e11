"""The recorded floats of a generation, column by column, and the signals of each single step.

Notation (one step): p is the next-token distribution, y the chosen token, p_(k) the k-th largest
probability, K the number of kept candidates, V the vocabulary size. Natural logarithms, so nats.
What a source cannot supply is NaN, which means *not measured*; it is never replaced by a number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cert.signals.bounds import TopSums, bounds_of_sums

__all__ = [
    "FloatArray",
    "IntArray",
    "StepSignals",
    "TokenSteps",
    "measure_steps",
    "step_signals",
    "top_k_entropy_ceiling",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class TokenSteps:
    """What is recorded of T generated tokens; every signal is computed from these floats alone.

    Attributes:
        token_ids: (T,) ids of the chosen tokens.
        logprob: (T,) log p(y), gathered at the chosen token.
        top_ids: (T, K) ids of the K most probable tokens, most probable first.
        top_logprobs: (T, K) their log-probabilities, in descending order. The chosen token is not added
            to them when it is outside the top K.
        entropy: (T,) −Σ p log p over the full vocabulary, NaN where only the top K were seen.
        self_certainty: (T,) −(1/V) Σ_v log p(v) − log V, that is KL(uniform ‖ p) (arXiv 2502.18581),
            NaN where only the top K were seen.
        vocab_size: V, or ``None`` when the source does not say.
    """

    token_ids: IntArray
    logprob: FloatArray
    top_ids: IntArray
    top_logprobs: FloatArray
    entropy: FloatArray
    self_certainty: FloatArray
    vocab_size: int | None

    def __post_init__(self) -> None:
        length = self.logprob.shape[0]
        columns = (self.token_ids, self.logprob, self.entropy, self.self_certainty)
        if any(column.shape != (length,) for column in columns):
            raise ValueError("token_ids, logprob, entropy and self_certainty must all have shape (T,)")
        if self.top_logprobs.ndim != 2 or self.top_logprobs.shape[0] != length:
            raise ValueError(f"top_logprobs must have shape (T, K) with T = {length}")
        if self.top_ids.shape != self.top_logprobs.shape:
            raise ValueError("top_ids and top_logprobs must have the same shape")

    @classmethod
    def build(
        cls,
        *,
        token_ids: ArrayLike,
        logprob: ArrayLike,
        top_ids: ArrayLike,
        top_logprobs: ArrayLike,
        entropy: ArrayLike | None = None,
        self_certainty: ArrayLike | None = None,
        vocab_size: int | None = None,
    ) -> TokenSteps:
        """Make contiguous float64/int64 columns of anything array-like; a column left out is NaN."""
        chosen = _column(logprob)
        missing = np.full(chosen.shape, np.nan)
        return cls(
            token_ids=np.ascontiguousarray(token_ids, dtype=np.int64),
            logprob=chosen,
            top_ids=np.ascontiguousarray(top_ids, dtype=np.int64),
            top_logprobs=_column(top_logprobs),
            entropy=missing if entropy is None else _column(entropy),
            self_certainty=missing if self_certainty is None else _column(self_certainty),
            vocab_size=vocab_size,
        )

    @classmethod
    def empty(cls, top_k: int, vocab_size: int | None) -> TokenSteps:
        """Return the record of a generation of no tokens."""
        none = np.empty(0)
        return cls.build(
            token_ids=none, logprob=none, top_ids=np.empty((0, top_k)), top_logprobs=np.empty((0, top_k)),
            vocab_size=vocab_size,
        )  # fmt: skip

    def __len__(self) -> int:
        return int(self.logprob.shape[0])

    def __getitem__(self, part: slice) -> TokenSteps:
        """Return a contiguous run of steps; a step alone is ``steps[t : t + 1]``."""
        return TokenSteps(
            self.token_ids[part],
            self.logprob[part],
            self.top_ids[part],
            self.top_logprobs[part],
            self.entropy[part],
            self.self_certainty[part],
            self.vocab_size,
        )

    @property
    def top_k(self) -> int:
        """K, the number of candidates kept a step."""
        return int(self.top_logprobs.shape[1])


def _column(values: ArrayLike) -> FloatArray:
    return np.ascontiguousarray(values, dtype=np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class StepSignals:
    """The signals of T steps, each an array of shape (T,), in nats unless said otherwise.

    Attributes:
        surprisal: −log p(y), never below 0.
        perplexity: 1 / p(y), no unit. Infinite beyond the range of a double.
        entropy_lower, entropy_upper: bounds of −Σ p log p; equal where the full vocabulary was seen.
        top_k_entropy: −Σ_{k≤K} p_(k) log p_(k), not renormalised.
        margin: p_(1) − p_(2), a difference of probabilities (v3 calls it ``logit_gap``).
        logprob_margin: log p_(1) − log p_(2), which equals the gap of the two logits.
        top_probability: p_(1).
        self_certainty: see `TokenSteps`.
        confidence: −(1/K) Σ_{k≤K} log p_(k) (DeepConf, arXiv 2508.15260); high when p is peaked.
    """

    surprisal: FloatArray
    perplexity: FloatArray
    entropy_lower: FloatArray
    entropy_upper: FloatArray
    top_k_entropy: FloatArray
    margin: FloatArray
    logprob_margin: FloatArray
    top_probability: FloatArray
    self_certainty: FloatArray
    confidence: FloatArray

    def __len__(self) -> int:
        return int(self.surprisal.shape[0])


def step_signals(steps: TokenSteps) -> StepSignals:
    """Compute the signals that need one step alone.

    Sums over the K candidates run in order of k, so that a result has the same bits however many steps
    are computed at once.
    """
    return measure_steps(steps)[0]


def measure_steps(steps: TokenSteps) -> tuple[StepSignals, FloatArray]:
    """Return the signals of T steps, and Σ p_(k) of each, (T,), which shows what no model can have given."""
    length, kept = steps.top_logprobs.shape
    # Candidates as rows: every operation then runs over contiguous memory.
    top = np.ascontiguousarray(steps.top_logprobs.T)
    not_measured = np.full(length, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        # A log-probability a little above 0 is rounding. + 0.0 turns −0.0 into 0.0.
        surprisal = np.maximum(-steps.logprob, 0.0) + 0.0
        probability = np.exp(top)
        sums = TopSums.of(top, probability)
        lower = upper = not_measured
        if kept:
            outside = _outside(steps.token_ids, steps.top_ids)
            lower, upper = bounds_of_sums(sums, steps.logprob, top, probability, steps.vocab_size, outside)
        full = ~np.isnan(steps.entropy)
        signals = StepSignals(
            surprisal=surprisal,
            perplexity=np.exp(surprisal),
            entropy_lower=np.where(full, steps.entropy, lower) + 0.0,
            entropy_upper=np.where(full, steps.entropy, upper) + 0.0,
            top_k_entropy=sums.entropy if kept else not_measured,
            margin=probability[0] - probability[1] if kept > 1 else not_measured,
            logprob_margin=top[0] - top[1] if kept > 1 else not_measured,
            top_probability=probability[0] if kept else not_measured,
            self_certainty=steps.self_certainty,
            confidence=-sums.logprob / kept + 0.0 if kept else not_measured,
        )
    return signals, sums.mass


def _outside(token_ids: IntArray, top_ids: IntArray) -> NDArray[np.bool_]:
    """Tell which chosen tokens are none of the K; most are the first of them."""
    outside = np.not_equal(top_ids[:, 0], token_ids)
    others = np.flatnonzero(outside)
    outside[others] = (top_ids[others] != token_ids[others, None]).all(axis=1)
    return np.asarray(outside)


def top_k_entropy_ceiling(k: int) -> float:
    """Return the largest value that ``top_k_entropy`` can take with K candidates.

    −p log p is largest at p = 1/e. Up to K = 2 all candidates can have that probability at once, giving
    K/e; from K = 3 on the probabilities must sum to at most 1 and the maximum is log K, at p = 1/K.

    Raises:
        ValueError: K is not positive.
    """
    if k < 1:
        raise ValueError(f"K must be positive, not {k}")
    return float(np.log(k)) if k >= 3 else k / float(np.e)
