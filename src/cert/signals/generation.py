"""The signals of a whole generation: one streaming core for live, batch and stored data.

`SignalStream` takes the recorded steps in blocks of any size as they come and carries what it must from
block to block. Offline data is one large block, so both give the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


_MAXIMISED = ("surprisal", "perplexity", "entropy_lower", "entropy_upper", "top_k_entropy")
_SUMMED = (*_MAXIMISED, "margin", "self_certainty", "confidence")


class SignalStream:
    """Signals of one generation, updated with blocks of steps as they arrive; O(1) work a token."""

    def __init__(self, options: SignalOptions | None = None) -> None:
        self.options = options or SignalOptions()
        self._sums: dict[str, RunningReduction] = {}
        self._maxima: dict[str, RunningReduction] = {}
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
        for name in _SUMMED:
            self._sum(name, getattr(step, name))
        for name in _MAXIMISED:
            self._max(name, getattr(step, name))
        self._max("negative_margin", -step.margin)
        running = self._run(step)
        self._confidence.append(step.confidence)
        self._group_confidence.append(running.group_confidence)
        return step, running

    def summary(self) -> GenerationSignals:
        """Return the signals of everything seen so far."""
        n = self._n_tokens
        total, largest = self._total, self._largest
        groups, tail = self._groups(), _joined(self._confidence)[-self.options.tail_window :]
        bottom = max(1, math.ceil(self.options.bottom_share * len(groups)))
        return GenerationSignals(
            n_tokens=n,
            sequence_logprob=-total("surprisal") + 0.0,
            perplexity=_exp(self._mean("surprisal")),
            mean_surprisal=self._mean("surprisal"),
            max_surprisal=largest("surprisal"),
            mean_token_perplexity=self._mean("perplexity"),
            max_token_perplexity=largest("perplexity"),
            mean_entropy_lower=self._mean("entropy_lower"),
            mean_entropy_upper=self._mean("entropy_upper"),
            max_entropy_lower=largest("entropy_lower"),
            max_entropy_upper=largest("entropy_upper"),
            mean_top_k_entropy=self._mean("top_k_entropy"),
            max_top_k_entropy=largest("top_k_entropy"),
            mean_margin=self._mean("margin"),
            min_margin=-largest("negative_margin") + 0.0,
            first_top_probability=self._first_top_probability,
            mean_self_certainty=self._mean("self_certainty"),
            mean_confidence=self._mean("confidence"),
            lowest_group_confidence=float(groups.min()) if n else math.nan,
            bottom_group_confidence=_lowest_mean(groups, bottom) if n else math.nan,
            tail_confidence=float(tail.mean()) if n else math.nan,
            final_surprise=total("surprise"),
            surprise_per_token=self._mean("surprise"),
            max_cusum=largest("cusum"),
        )

    def _run(self, step: StepSignals) -> RunningSignals:
        threshold = -math.log(self.options.surprise_probability)
        surprise = np.where(np.isnan(step.surprisal), np.nan, step.surprisal * (step.surprisal > threshold))
        # Lindley's recursion unrolled: S_t = X_t − min(0, min_{s≤t} X_s) with X the sum of g − κ.
        walk = self._sum("cusum_walk", step.surprisal - self.options.cusum_drift)
        floor = np.minimum.accumulate(np.concatenate(([self._cusum_floor], walk)))[1:]
        self._cusum_floor = float(floor[-1])
        cusum = walk - floor
        self._max("cusum", cusum)
        return RunningSignals(self._sum("surprise", surprise), self._window.update(step.confidence), cusum)

    def _groups(self) -> FloatArray:
        groups = _joined(self._group_confidence)[self.options.group_window - 1 :]
        return groups if len(groups) else np.array([self._mean("confidence")])

    def _sum(self, name: str, values: FloatArray) -> FloatArray:
        return self._sums.setdefault(name, RunningReduction(np.add.accumulate, 0.0)).update(values)

    def _max(self, name: str, values: FloatArray) -> FloatArray:
        neutral = RunningReduction(np.maximum.accumulate, -math.inf)
        return self._maxima.setdefault(name, neutral).update(values)

    def _total(self, name: str) -> float:
        return self._sums[name].last if self._n_tokens else math.nan

    def _mean(self, name: str) -> float:
        return self._sums[name].last / self._n_tokens if self._n_tokens else math.nan

    def _largest(self, name: str) -> float:
        return self._maxima[name].last if self._n_tokens else math.nan


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
    return np.concatenate(blocks) if blocks else np.empty(0)


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(value))
