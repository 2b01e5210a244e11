"""The signals of a whole generation: one streaming core for live, batch and stored data.

`SignalStream` takes the recorded steps in blocks of any size as they come and carries what it must from
block to block. Offline data is one large block, so both give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cert.signals.running import RunningReduction, WindowMean
from cert.signals.steps import FloatArray, StepSignals, TokenSteps, step_signals

__all__ = ["GenerationSignals", "RunningSignals", "SignalOptions", "SignalStream", "analyze_steps", "energy"]


@dataclass(frozen=True, slots=True)
class SignalOptions:
    """What the signals of a generation depend on besides the steps.

    Attributes:
        surprise_probability: a token less likely than this counts towards ``cumulative_surprise``.
        group_window: W, tokens in a confidence group (DeepConf uses 1,024 and more, for long reasoning).
        bottom_share: share of the least confident groups that ``bottom_group_confidence`` averages.
        tail_window: tokens at the end that ``tail_confidence`` averages.
        cusum_drift: κ in nats, the surprisal a token that is taken as in control.
    """

    surprise_probability: float = 0.1
    group_window: int = 16
    bottom_share: float = 0.1
    tail_window: int = 16
    cusum_drift: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.surprise_probability <= 1.0:
            raise ValueError(f"surprise_probability must be in (0, 1], not {self.surprise_probability}")
        if self.group_window < 1 or self.tail_window < 1:
            raise ValueError("group_window and tail_window must be at least 1")
        if not 0.0 < self.bottom_share <= 1.0:
            raise ValueError(f"bottom_share must be in (0, 1], not {self.bottom_share}")
        if not math.isfinite(self.cusum_drift):
            raise ValueError(f"cusum_drift must be finite, not {self.cusum_drift}")


@dataclass(frozen=True, eq=False, slots=True)
class RunningSignals:
    """Signals that depend on all steps so far, each an array of shape (T,).

    Attributes:
        cumulative_surprise: Σ_{s≤t} −log p_s(y_s) over the tokens with p_s(y_s) below the threshold.
        group_confidence: mean confidence of the last W tokens; NaN until W tokens have been seen.
        cusum: S_t = max(0, S_{t−1} + surprisal_t − κ).
    """

    cumulative_surprise: FloatArray
    group_confidence: FloatArray
    cusum: FloatArray


@dataclass(frozen=True, slots=True)
class GenerationSignals:
    """The signals of a generation of T tokens, NaN where one was not measured (all of them at T = 0).

    Attributes:
        n_tokens: T.
        sequence_logprob: Σ log p(y), the log of the maximum sequence probability score (MSP).
        perplexity: exp(−sequence_logprob / T), the length-normalised perplexity.
        mean_surprisal, max_surprisal: of the chosen tokens.
        mean_token_perplexity, max_token_perplexity: of 1 / p(y); the mean is v3's ``avg_perplexity``.
        mean_entropy_lower, mean_entropy_upper: mean of the bounds of the entropy.
        max_entropy_lower, max_entropy_upper: largest of the lower and of the upper bounds.
        mean_top_k_entropy: the EPR score (arXiv 2509.04492).
        max_top_k_entropy: v3's ``max_entropy``.
        mean_margin, min_margin: of p_(1) − p_(2).
        first_top_probability: p_(1) of the first token.
        mean_self_certainty: arXiv 2502.18581.
        mean_confidence, lowest_group_confidence, bottom_group_confidence, tail_confidence: DeepConf,
            arXiv 2508.15260. With fewer than W tokens, all of them are the one group.
        final_surprise: the last cumulative surprise.
        surprise_per_token: the same divided by T, since the sum grows with length.
        max_cusum: the largest CUSUM statistic of the surprisal.
    """

    n_tokens: int
    sequence_logprob: float
    perplexity: float
    mean_surprisal: float
    max_surprisal: float
    mean_token_perplexity: float
    max_token_perplexity: float
    mean_entropy_lower: float
    mean_entropy_upper: float
    max_entropy_lower: float
    max_entropy_upper: float
    mean_top_k_entropy: float
    max_top_k_entropy: float
    mean_margin: float
    min_margin: float
    first_top_probability: float
    mean_self_certainty: float
    mean_confidence: float
    lowest_group_confidence: float
    bottom_group_confidence: float
    tail_confidence: float
    final_surprise: float
    surprise_per_token: float
    max_cusum: float


NOTHING_MEASURED = GenerationSignals(0, *[math.nan] * (len(fields(GenerationSignals)) - 1))


def energy(
    surprisal: FloatArray, entropy: FloatArray, *, perplexity_threshold: float, entropy_threshold: float
) -> FloatArray:
    """Return the energy of each step: surprisal / log(perplexity threshold) + entropy / entropy threshold.

    The "Hamiltonian" picture: a potential and a kinetic term, each 1 at its threshold. It is a way to
    draw uncertainty in one curve, not a further measurement; both of its terms are signals already.

    Raises:
        ValueError: a perplexity threshold of at most 1 or an entropy threshold of at most 0.
    """
    if perplexity_threshold <= 1.0 or entropy_threshold <= 0.0:
        raise ValueError("energy needs a perplexity threshold above 1 and an entropy threshold above 0")
    return surprisal / math.log(perplexity_threshold) + entropy / entropy_threshold


# The rows that are summed and maximised over the tokens, in this order.
SUMMED = (
    "surprisal", "perplexity", "entropy_lower", "entropy_upper", "top_k_entropy", "margin",
    "self_certainty", "confidence", "surprise", "cusum_walk",
)  # fmt: skip
MAXIMISED = (
    "surprisal", "perplexity", "entropy_lower", "entropy_upper", "top_k_entropy", "negative_margin", "cusum",
)  # fmt: skip


class SignalStream:
    """Signals of one generation, updated with blocks of steps as they arrive; O(1) work a token."""

    def __init__(self, options: SignalOptions | None = None) -> None:
        self.options = options or SignalOptions()
        self._sums = RunningReduction(np.add.accumulate, np.zeros(len(SUMMED)))
        self._maxima = RunningReduction(np.maximum.accumulate, np.full(len(MAXIMISED), -math.inf))
        self._first_top_probability = math.nan
        self._n_tokens = 0
        self._cusum_floor = 0.0
        self._confidence: list[FloatArray] = []
        self._group_confidence: list[FloatArray] = []
        self._window = WindowMean(self.options.group_window)

    def update(self, block: TokenSteps) -> tuple[StepSignals, RunningSignals]:
        """Take the next steps and return their signals."""
        step = step_signals(block)
        if len(step) == 0:
            empty = np.empty(0)
            return step, RunningSignals(empty, empty, empty)
        if self._n_tokens == 0:
            self._first_top_probability = float(step.top_probability[0])
        self._n_tokens += len(step)
        sums = self._sums.update(summed_rows(step, self.options))
        cusum = self._cusum(sums[-1])
        self._maxima.update(np.vstack((maximised_rows(step), cusum)))
        running = RunningSignals(sums[-2], self._window.update(step.confidence), cusum)
        self._confidence.append(step.confidence)
        self._group_confidence.append(running.group_confidence)
        return step, running

    def summary(self) -> GenerationSignals:
        """Return the signals of everything seen so far."""
        n = self._n_tokens
        if n == 0:
            return NOTHING_MEASURED
        sums = dict(zip(SUMMED, self._sums.last.tolist(), strict=True))
        groups = _joined(self._group_confidence)[self.options.group_window - 1 :]
        if not len(groups):
            groups = np.array([sums["confidence"] / n])
        return GenerationSignals(
            n_tokens=n,
            **totals(n, sums, dict(zip(MAXIMISED, self._maxima.last.tolist(), strict=True))),
            first_top_probability=self._first_top_probability,
            lowest_group_confidence=float(groups.min()),
            bottom_group_confidence=_lowest_mean(groups, bottom_count(len(groups), self.options)),
            tail_confidence=float(_joined(self._confidence)[-self.options.tail_window :].mean()),
        )

    def _cusum(self, walk: FloatArray) -> FloatArray:
        # Lindley's recursion unrolled: S_t = X_t − min(0, min_{s≤t} X_s) with X the sum of g − κ.
        floor = np.minimum.accumulate(np.concatenate(([self._cusum_floor], walk)))[1:]
        self._cusum_floor = float(floor[-1])
        return np.asarray(walk - floor)


def summed_rows(step: StepSignals, options: SignalOptions) -> FloatArray:
    """Return the rows named by ``SUMMED``, each (T,)."""
    rows = np.empty((len(SUMMED), len(step)))
    for row, name in zip(rows, SUMMED[:-2], strict=False):
        row[:] = getattr(step, name)
    counts = step.surprisal > -math.log(options.surprise_probability)
    with np.errstate(invalid="ignore"):
        rows[-2] = np.where(np.isnan(step.surprisal), np.nan, step.surprisal * counts)
    rows[-1] = step.surprisal - options.cusum_drift
    return rows


def maximised_rows(step: StepSignals) -> FloatArray:
    """Return the rows named by ``MAXIMISED`` but the last, each (T,)."""
    rows = np.empty((len(MAXIMISED) - 1, len(step)))
    for row, name in zip(rows, MAXIMISED[:-2], strict=False):
        row[:] = getattr(step, name)
    np.negative(step.margin, out=rows[-1])
    return rows


def totals(n: Any, sums: Mapping[str, Any], largest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the signals that follow from sums and maxima, of one generation or column by column of many."""
    with np.errstate(over="ignore"):
        perplexity = np.exp(sums["surprisal"] / n)
    return {
        "sequence_logprob": -sums["surprisal"] + 0.0,
        "perplexity": perplexity if isinstance(perplexity, np.ndarray) else float(perplexity),
        "mean_surprisal": sums["surprisal"] / n,
        "max_surprisal": largest["surprisal"],
        "mean_token_perplexity": sums["perplexity"] / n,
        "max_token_perplexity": largest["perplexity"],
        "mean_entropy_lower": sums["entropy_lower"] / n,
        "mean_entropy_upper": sums["entropy_upper"] / n,
        "max_entropy_lower": largest["entropy_lower"],
        "max_entropy_upper": largest["entropy_upper"],
        "mean_top_k_entropy": sums["top_k_entropy"] / n,
        "max_top_k_entropy": largest["top_k_entropy"],
        "mean_margin": sums["margin"] / n,
        "min_margin": -largest["negative_margin"] + 0.0,
        "mean_self_certainty": sums["self_certainty"] / n,
        "mean_confidence": sums["confidence"] / n,
        "final_surprise": sums["surprise"],
        "surprise_per_token": sums["surprise"] / n,
        "max_cusum": largest["cusum"],
    }


def bottom_count(groups: int, options: SignalOptions) -> int:
    """Return how many of the least confident groups ``bottom_group_confidence`` averages."""
    return max(1, math.ceil(options.bottom_share * groups))


def analyze_steps(
    steps: TokenSteps, options: SignalOptions | None = None
) -> tuple[StepSignals, RunningSignals, GenerationSignals]:
    """Compute every signal of a finished generation at once."""
    stream = SignalStream(options)
    step, running = stream.update(steps)
    return step, running, stream.summary()


def _lowest_mean(values: FloatArray, count: int) -> float:
    # A sort puts NaN last, where a missing value would go unnoticed.
    return math.nan if np.isnan(values).any() else float(np.sort(values)[:count].mean())


def _joined(blocks: list[FloatArray]) -> FloatArray:
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
