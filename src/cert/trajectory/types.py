"""What the Hamiltonian monitor is told and what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from cert._version import __version__
from cert.backends.base import Generation, Sampling
from cert.core.errors import ConfigurationError
from cert.signals import (
    GenerationSignals,
    RunningSignals,
    SignalOptions,
    StepSignals,
    TokenSteps,
    top_k_entropy_ceiling,
)
from cert.signals.steps import FloatArray
from cert.trajectory.gate import GateDecision, Thresholds, Verdict, json_number

__all__ = ["SCHEMA_VERSION", "EarlyStop", "ReasoningMetrics", "TrajectoryAnalysis", "TrajectoryConfig"]

SCHEMA_VERSION = 1

# More than any vocabulary.
_MOST_CANDIDATES = 10_000_000


@dataclass(frozen=True, slots=True)
class TrajectoryConfig:
    """Thresholds and settings of the monitor.

    The default thresholds are those of version 3 (the profile ``v3``). They are uncalibrated: no error
    rate belongs to them. A value passes if it is at most its threshold; ``None`` leaves a rule out.

    Attributes:
        perplexity_threshold: for the mean of the per-token perplexities; above 1.
        entropy_threshold: for the largest full-vocabulary entropy of a step, in nats.
        surprise_threshold: for the cumulative surprise at the end, in nats.
        top_k_entropy_threshold: for the largest top-K entropy of a step, in nats.
        max_new_tokens: generate at most so many tokens.
        temperature: 0 is greedy.
        top_p, sampling_top_k: as `cert.backends.Sampling` has them; unused when greedy.
        top_k: K, the candidates recorded a step (version 3's name). It has no part in sampling.
        surprise_probability_threshold: a token less likely than this counts as a surprise.
        max_prompt_chars: a longer prompt is refused.

    Raises:
        ConfigurationError: a value outside its range, or a threshold that could never fail.
    """

    perplexity_threshold: float | None = 50.0
    entropy_threshold: float | None = 2.5
    surprise_threshold: float | None = 10.0
    top_k_entropy_threshold: float | None = None
    max_new_tokens: int = 150
    temperature: float = 0.0
    top_p: float | None = None
    sampling_top_k: int | None = None
    top_k: int = 20
    surprise_probability_threshold: float = 0.1
    max_prompt_chars: int = 10_000

    def __post_init__(self) -> None:
        for name in ("perplexity", "entropy", "surprise", "top_k_entropy"):
            value = getattr(self, f"{name}_threshold")
            floor = 1.0 if name == "perplexity" else 0.0
            if value is not None and not (math.isfinite(value) and value > floor):
                raise ConfigurationError(
                    f"{name}_threshold must be a finite number above {floor:g}, not {value}",
                    hint="None leaves the rule out",
                )
        if not 1 <= self.top_k <= _MOST_CANDIDATES:
            raise ConfigurationError(
                f"top_k must be at least 1 and at most {_MOST_CANDIDATES:,}, not {self.top_k}"
            )
        if self.max_new_tokens < 0 or self.max_prompt_chars < 1:
            raise ConfigurationError("max_new_tokens must be at least 0 and max_prompt_chars at least 1")
        Sampling(self.temperature, self.top_p, self.sampling_top_k)  # refuses what is out of range
        if not 0.0 < self.surprise_probability_threshold <= 1.0:
            raise ConfigurationError(
                f"surprise_probability_threshold must be in (0, 1], not {self.surprise_probability_threshold}"
            )
        _refuse_unreachable(
            "top_k_entropy_threshold",
            self.top_k_entropy_threshold,
            top_k_entropy_ceiling(self.top_k),
            f"top_k = {self.top_k} candidates",
        )

    def check_vocabulary(self, vocab_size: int | None) -> None:
        """Refuse thresholds that no distribution over this vocabulary can exceed.

        Raises:
            ConfigurationError: a threshold of an entropy is at or above what V tokens, or the top K of
                them, can reach.
        """
        if vocab_size is None:
            return
        described = f"a vocabulary of {vocab_size}"
        _refuse_unreachable("entropy_threshold", self.entropy_threshold, math.log(vocab_size), described)
        ceiling = top_k_entropy_ceiling(min(self.top_k, vocab_size))
        _refuse_unreachable("top_k_entropy_threshold", self.top_k_entropy_threshold, ceiling, described)

    @property
    def thresholds(self) -> Thresholds:
        """The four thresholds of the gate."""
        return Thresholds(
            perplexity=self.perplexity_threshold,
            entropy=self.entropy_threshold,
            top_k_entropy=self.top_k_entropy_threshold,
            surprise=self.surprise_threshold,
        )

    @property
    def profile(self) -> str:
        """``v3`` for the thresholds of version 3, else ``custom``."""
        return "v3" if self.thresholds == Thresholds(50.0, 2.5, None, 10.0) else "custom"

    @property
    def signal_options(self) -> SignalOptions:
        """What the signals depend on."""
        return SignalOptions(surprise_probability=self.surprise_probability_threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


def _refuse_unreachable(name: str, threshold: float | None, ceiling: float, what: str) -> None:
    if threshold is not None and threshold >= ceiling:
        raise ConfigurationError(
            f"{name} {threshold:g} can never fail: with {what} the signal never exceeds {ceiling:.3f}",
            hint=f"choose a threshold below {ceiling:.3f}, or None to leave the rule out",
        )


@dataclass(frozen=True, slots=True)
class ReasoningMetrics:
    """The signals of one token, by version 3's names and ours; nats where a logarithm is taken.

    Attributes:
        step: index of the token, counted from 0.
        token: its text.
        perplexity: 1 / p(y).
        top_k_entropy: −Σ_{k≤K} p_(k) log p_(k).
        logit_gap: p_(1) − p_(2). Version 3's name for what is a gap of probabilities, not of logits.
        cumulative_surprise: the surprise so far.
        surprisal: −log p(y).
        entropy: over the full vocabulary, NaN where only bounds are known.
        probability: p(y).
        logprob_margin: log p_(1) − log p_(2), the gap of the logits.
        energy: see `cert.signals.energy`.
    """

    step: int
    token: str
    perplexity: float
    top_k_entropy: float
    logit_gap: float
    cumulative_surprise: float
    surprisal: float
    entropy: float
    probability: float
    logprob_margin: float
    energy: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; what is not measured is ``None``."""
        return {name: _json(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """How the alarm of a gate ended a generation before its own end.

    Attributes:
        alarm_at: index of the token, counted from 0, at which the score was first above the threshold.
        generated: tokens that there are.
        max_new_tokens: as many as were allowed.
    """

    alarm_at: int
    generated: int
    max_new_tokens: int

    @property
    def delay(self) -> int:
        """Tokens that still came after the alarm; a server sends some at once."""
        return self.generated - 1 - self.alarm_at

    @property
    def saved_at_most(self) -> int:
        """Tokens that were saved, at most: nobody knows where the generation would have ended by itself."""
        return self.max_new_tokens - self.generated

    def to_dict(self) -> dict[str, int]:
        """Return JSON-ready data."""
        return asdict(self) | {"delay": self.delay, "saved_at_most": self.saved_at_most}


@dataclass(frozen=True, eq=False, repr=False)
class TrajectoryAnalysis:
    """One watched generation: the text, the signals of each token and of the whole, the verdict.

    Attributes:
        generation: text, recorded steps, offsets, model, sampling.
        config: the thresholds and settings in force.
        step, running: the signals of each token, as columns.
        signals: the signals of the whole generation.
        energy: (T,) the energy of each token; NaN where a threshold that it needs is not set.
        decision: the gate's verdict and reasons.
        created_at: UTC, RFC 3339.
        stages: where the time went: (name, seconds); those of the generation first.
        from_cache: whether the result was there already; the rest is that of the first time.
        early_stop: how the gate's alarm ended it; ``None`` where it did not. With one, the text is a part of
            an answer.
    """

    generation: Generation
    config: TrajectoryConfig
    step: StepSignals
    running: RunningSignals
    signals: GenerationSignals
    energy: FloatArray
    decision: GateDecision
    created_at: str
    stages: tuple[tuple[str, float], ...] = ()
    from_cache: bool = False
    early_stop: EarlyStop | None = None

    def __repr__(self) -> str:
        return (
            f"<TrajectoryAnalysis {self.verdict}: {self.generation_steps} tokens of "
            f"{self.model_name!r}, mean token perplexity {self.avg_perplexity:.4g}>"
        )

    @property
    def verdict(self) -> Verdict:
        """What the gate says: pass, fail, undecided or not_measured."""
        return self.decision.verdict

    @property
    def passed_quality_check(self) -> bool:
        """True for the verdict ``pass`` alone."""
        return self.verdict == "pass"

    @property
    def model_name(self) -> str:
        """The model, as the user named it."""
        return self.generation.model.name

    @property
    def generated_text(self) -> str:
        """The generated text, without special tokens."""
        return self.generation.text

    @property
    def generation_steps(self) -> int:
        """T, the number of generated tokens."""
        return self.signals.n_tokens

    @property
    def avg_perplexity(self) -> float:
        """Mean of the per-token perplexities."""
        return self.signals.mean_token_perplexity

    @property
    def max_perplexity(self) -> float:
        """Largest per-token perplexity."""
        return self.signals.max_token_perplexity

    @property
    def avg_entropy(self) -> float:
        """Mean full-vocabulary entropy in nats; NaN where only bounds are known (see ``signals``)."""
        return _exact(self.signals.mean_entropy_lower, self.signals.mean_entropy_upper)

    @property
    def max_entropy(self) -> float:
        """Largest full-vocabulary entropy in nats; NaN where only bounds are known (see ``signals``)."""
        return _exact(self.signals.max_entropy_lower, self.signals.max_entropy_upper)

    @property
    def final_surprise(self) -> float:
        """Cumulative surprise at the end, in nats."""
        return self.signals.final_surprise

    @cached_property
    def metrics(self) -> tuple[ReasoningMetrics, ...]:
        """The signals token by token, as rows."""
        return token_metrics(
            self.generation.tokens, self.generation.steps, self.step, self.running, self.energy
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data as the schema ``trajectory-analysis.v1.json`` describes it.

        ``None`` stands for what is not measured; infinite numbers are ``"Infinity"`` and ``"-Infinity"``.
        """
        g = self.generation
        prompt: Any = g.prompt
        if isinstance(g.prompt, tuple):
            prompt = [asdict(message) for message in g.prompt]
        by = self.decision.certificate
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "trajectory_analysis",
            "cert_version": __version__,
            "created_at": self.created_at,
            "model": asdict(g.model),
            "logprobs_mode": g.logprobs_mode,
            "sampling": None if g.sampling is None else asdict(g.sampling),
            "config": self.config.to_dict(),
            "prompt": prompt,
            "prompt_tokens": g.prompt_tokens,
            "generated_text": g.text,
            "finish_reason": g.finish_reason,
            "token_ids_known": g.token_ids_known,
            "duration_s": g.duration_s,
            "stages": dict(self.stages),
            "from_cache": self.from_cache,
            "early_stop": None if self.early_stop is None else self.early_stop.to_dict(),
            "verdict": self.verdict,
            "passed_quality_check": self.passed_quality_check,
            "gate": {
                "profile": self.decision.profile,
                "calibrated": self.decision.calibrated,
                "checks": [check.to_dict() for check in self.decision.checks],
                "certificate": None if by is None else by.to_dict(),
            },
            "signals": {f.name: _json(getattr(self.signals, f.name)) for f in fields(self.signals)},
            "tokens": self._tokens(),
            "top": _top(g.steps, g.vocabulary.text),
            "stop": None if g.stop_step is None else _stop(g.stop_step, g.vocabulary.text),
        }

    def _tokens(self) -> dict[str, list[Any]]:
        g = self.generation
        columns: dict[str, list[Any]] = {
            "id": g.steps.token_ids.tolist(),
            "text": list(g.tokens),
            "start": g.offsets[:, 0].tolist(),
            "end": g.offsets[:, 1].tolist(),
            "logprob": _column(g.steps.logprob),
        }
        for part in (self.step, self.running):
            columns |= {f.name: _column(getattr(part, f.name)) for f in fields(part)}
        return columns | {"energy": _column(self.energy)}


def token_metrics(
    texts: Sequence[str],
    steps: TokenSteps,
    step: StepSignals,
    running: RunningSignals,
    energies: FloatArray,
    first: int = 0,
) -> tuple[ReasoningMetrics, ...]:
    """Return the signals of T tokens as rows, numbered from ``first``."""
    columns = zip(
        texts,
        step.perplexity.tolist(),
        step.top_k_entropy.tolist(),
        step.margin.tolist(),
        running.cumulative_surprise.tolist(),
        step.surprisal.tolist(),
        _exact_column(step.entropy_lower, step.entropy_upper).tolist(),
        np.exp(steps.logprob).tolist(),
        step.logprob_margin.tolist(),
        energies.tolist(),
        strict=True,
    )
    return tuple(ReasoningMetrics(index, *row) for index, row in enumerate(columns, first))


def _top(steps: TokenSteps, text: Any) -> dict[str, list[list[Any]]]:
    return {
        "id": steps.top_ids.tolist(),
        "text": [[text(token_id) for token_id in row] for row in steps.top_ids.tolist()],
        "logprob": [_column(row) for row in steps.top_logprobs],
    }


def _stop(step: TokenSteps, text: Any) -> Mapping[str, Any]:
    token_id = int(step.token_ids[0])
    return {
        "id": token_id,
        "text": text(token_id),
        "logprob": _json(float(step.logprob[0])),
        "entropy": _json(float(step.entropy[0])),
    }


def _exact(lower: float, upper: float) -> float:
    return lower if lower == upper else math.nan


def _exact_column(lower: FloatArray, upper: FloatArray) -> FloatArray:
    return np.where(lower == upper, lower, np.nan)


def _column(values: FloatArray) -> list[float | str | None]:
    return [json_number(value) for value in values.tolist()]


def _json(value: Any) -> Any:
    return json_number(value) if isinstance(value, float) else value
